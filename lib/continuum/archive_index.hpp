// The index beside a segment: where its frames are, of which times, and which keys they may hold.
//
//   index  = head *record
//   head   = "CIX1" partition log-id archive-id first-offset hash
//   record = size position header-bytes frame-bytes header-hash first events generation first-time last-time
//            filter hash
//
// Nothing depends on it: what it does not cover is read from the segment itself, it is written without fsync,
// and whoever follows it compares `header-hash` with what is there.
#pragma once

#include "continuum/archive_segment.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

struct IndexRecord {
  std::uint64_t position = 0;
  std::uint32_t header_bytes = 0;
  std::uint32_t frame_bytes = 0;
  std::uint64_t header_hash = 0;
  Offset first;
  std::uint32_t events = 0;
  Generation generation;
  SystemTime first_time;
  SystemTime last_time;
  std::string_view filter;

  [[nodiscard]] Offset next() const { return first + events; }
  [[nodiscard]] std::uint64_t end() const { return position + header_bytes + frame_bytes; }
};

[[nodiscard]] std::string index_head(const ArchiveIdentity& identity, Offset first);
void append_record(std::string& out, const ArchivedFrame& frame, std::string_view filter);

[[nodiscard]] SystemTime first_time(const FrameHeader& header);
[[nodiscard]] SystemTime last_time(const FrameHeader& header);

// The file of an index as far as its records are whole, and a little of what follows. Empty: there is none.
[[nodiscard]] std::string read_index(const PartitionDirectory& directory, const ArchiveIdentity& identity,
                                     Offset first);
// Up to where an index, or its beginning, says that its segment was durable: its writer adds a frame when
// that is synced. Frames that end behind `segment_bytes` do not count.
struct IndexedEnd {
  std::uint64_t bytes = 0;  // of the segment
  Offset next;              // behind the events that they hold
};
[[nodiscard]] IndexedEnd indexed_end(std::string_view index, const ArchiveIdentity& identity, Offset first,
                                     std::uint64_t segment_bytes = UINT64_MAX);
// For a person: what is lost with a segment of so many bytes that ends before its index does.
[[nodiscard]] std::string cut_off_text(std::uint64_t segment_bytes, const IndexedEnd& known);

class SegmentIndex {
 public:
  // Of a segment: its records from the beginning on, as far as they are whole and follow each other without a
  // gap, and the last of them is found in the segment; none when that is not so. Missing: no records.
  SegmentIndex(const PartitionDirectory& directory, const ArchiveIdentity& identity, SegmentFile& segment);

  [[nodiscard]] const std::vector<IndexRecord>& records() const { return records_; }
  // Where the part of the segment ends that it covers, and the offset that follows.
  [[nodiscard]] std::uint64_t covered_bytes() const { return records_.empty() ? 0 : records_.back().end(); }
  [[nodiscard]] Offset next() const { return records_.empty() ? first_ : records_.back().next(); }
  // Of the index itself that are sound.
  [[nodiscard]] std::uint64_t sound_bytes() const { return sound_bytes_; }
  [[nodiscard]] std::uint64_t bytes_read() const { return bytes_.size(); }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  Offset first_;
  std::string bytes_;
  std::uint64_t sound_bytes_ = 0;
  std::vector<IndexRecord> records_;
};

// The index that a segment should have, from its events; of a damaged one, up to the damage.
struct MadeIndex {
  std::string bytes;
  std::uint64_t covered_bytes = 0;
};
[[nodiscard]] MadeIndex make_index(SegmentFile& segment, const ArchiveIdentity& identity);

// Appends to the index what it does not cover yet, or makes it anew. Throws Error{server}.
void complete_index(const PartitionDirectory& directory, const ArchiveIdentity& identity, Offset first);

}  // namespace continuum
