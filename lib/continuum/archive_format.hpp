// The bytes of an archive: what stands before each frame of a segment (docs/formats.md, "Archive").
//
//   segment = *( header [ frame ] )           ; DIR/TOPIC/PARTITION/<first offset, 20 digits>.ndjson.zst
//   header  = %x5C.2A.4D.18 size body hash    ; a zstd skippable frame: zstd and zstdcat pass over it
//   body    = version kind partition log-id archive-id generation first events frame-bytes frame-hash
//             entries producers
//
// A header of kind `barrier` has no frame behind it. All numbers are little-endian; `hash` is XXH3-64 of
// everything before it, so that a header is found again behind a damaged one.
#pragma once

#include "continuum/log.hpp"
#include "continuum/types.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

inline constexpr std::string_view archive_magic = "\x5C\x2A\x4D\x18";
// More than any writer makes, so that a damaged size is not believed.
inline constexpr std::size_t header_bytes_max = 4 << 20;
inline constexpr std::size_t header_bytes_least = 85;
// Of one frame, so that its header stays below its limit.
inline constexpr std::size_t archived_entries_max = 1 << 16;
// Lines that cannot be compressed become a little longer.
inline constexpr std::size_t archived_frame_bytes_max = frame_bytes_max + (1 << 20);

// Whose events they are. Ids are 32 lower-case hex digits.
struct ArchiveIdentity {
  Partition partition;
  std::string log_id;
  std::string archive_id;  // random, of this directory of this partition
  friend bool operator==(const ArchiveIdentity&, const ArchiveIdentity&) = default;
};
[[nodiscard]] bool is_archive_id(std::string_view text);

struct FrameHeader {
  struct Entry {
    EntryId id;
    std::uint32_t events = 0;
  };
  // What a named producer had stored when this frame ended: enough to restore it.
  struct Producer {
    std::string name;
    Position position;
    std::string digest;
    std::uint32_t entry = 0;  // its last one here
  };

  Generation generation;
  Offset first;
  std::uint32_t events = 0;  // 0: a barrier
  std::uint32_t frame_bytes = 0;
  std::uint64_t frame_hash = 0;
  std::vector<Entry> entries;  // at least one, ids rise
  std::vector<Producer> producers;
  std::uint64_t hash = 0;  // of the header itself

  [[nodiscard]] bool barrier() const { return events == 0; }
  [[nodiscard]] Offset next() const { return first + events; }
};

// Appends the header and sets its hash.
void append_header(std::string& out, const ArchiveIdentity& identity, FrameHeader& header);

// The bytes that the header at the start of `bytes` has, by its first 8; nullopt when there is none.
[[nodiscard]] std::optional<std::size_t> header_size(std::string_view bytes);

// Bytes at the start of a header that begins_header() looks at.
inline constexpr std::size_t header_begin_bytes = 58;
// Whether it may be the header of an event or barrier of that archive at `least` or behind: without a look at
// the rest of it, and at its hash.
[[nodiscard]] bool begins_header(std::string_view bytes, const ArchiveIdentity& identity, Offset least);

enum class HeaderRead : std::uint8_t {
  sound,
  damaged,
  newer,  // of a version that this one does not know
};
// `bytes`: exactly a header by its size. `identity` and `header` are what it says only when it is sound.
[[nodiscard]] HeaderRead read_header(std::string_view bytes, ArchiveIdentity& identity, FrameHeader& header);

[[nodiscard]] std::uint64_t archive_hash(std::string_view bytes);

// --- which keys a frame has: a blocked Bloom filter, about one of 100 other keys is taken for one of its own

[[nodiscard]] std::uint64_t archive_key_hash(std::string_view key);
// `hashes` may hold duplicates, and is sorted.
[[nodiscard]] std::string make_key_filter(std::vector<std::uint64_t>& hashes);
// An empty filter knows nothing.
[[nodiscard]] bool may_hold(std::string_view filter, std::uint64_t key_hash);
// Of the events of a frame. Empty when a line is no event.
[[nodiscard]] std::string key_filter_of(std::string_view lines);

}  // namespace continuum
