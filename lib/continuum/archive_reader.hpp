// Reads the archive of one partition: chosen entries, in order, with the bytes of their events.
//
// No more is read than the choice needs: segments by their names and first times, frames by the index, or
// from header to header where it has none. What should be there and is not throws Error{loss} with the range
// and the path; next() may be called again and goes on behind it.
#pragma once

#include "continuum/archive_directory.hpp"
#include "continuum/archive_index.hpp"
#include "continuum/log.hpp"
#include "continuum/types.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace continuum {

// Indexes that readers of one archive have read, for those that come after them. Safe to share over threads.
class ArchiveIndexes {
 public:
  // `bytes_read` grows when it has to be read.
  [[nodiscard]] std::shared_ptr<const SegmentIndex> index_of(const PartitionDirectory& directory,
                                                             const ArchiveIdentity& identity,
                                                             SegmentFile& segment, std::uint64_t& bytes_read);

 private:
  // When there is more, all are forgotten.
  static constexpr std::uint64_t bytes_max = std::uint64_t{32} << 20;

  std::mutex mutex_;
  std::map<std::pair<Partition, Offset>, std::shared_ptr<const SegmentIndex>> indexes_;
  std::uint64_t bytes_ = 0;
};

// Entries that overlap [from, to) and whose time is in [since, until).
struct ArchiveChoice {
  std::optional<Offset> from = std::nullopt;
  // Everything before it must be there: such as the durable mark of a writer that is at work.
  std::optional<Offset> to = std::nullopt;
  std::optional<SystemTime> since = std::nullopt;
  std::optional<SystemTime> until = std::nullopt;
  // Frames that cannot hold it are passed over; those that come still have other keys too.
  std::optional<std::string> key = std::nullopt;
  // Read from the disk at once at least; as much as seems useful, if it is not said.
  std::optional<std::size_t> ahead_bytes = std::nullopt;
  // Outlive the reader.
  ArchiveIndexes* indexes = nullptr;
};

// Views are valid until the next one is asked for.
struct ArchivedEntry {
  EntryId id;
  Offset first;              // of a barrier: of the next event
  std::uint32_t events = 0;  // 0: a barrier
  Generation generation;
  std::string_view lines;  // of all its events
  // Of the last entry of a named producer in its frame: whose it is, the position of its last event, the
  // digest up to there. Empty otherwise.
  std::string_view producer;
  Position position;
  std::string_view digest;
  // The bytes of its frame, compressed, when no other entry is in it; else empty.
  std::string_view frame;

  [[nodiscard]] bool barrier() const { return events == 0; }
  [[nodiscard]] Offset next() const { return first + events; }
};

class ArchiveReader {
 public:
  // Throws Error{usage} when it is not there, Error{loss} when it is not that of the log `log_id` (nullopt:
  // any).
  ArchiveReader(const ArchiveDirectory& archive, std::string_view topic, Partition partition,
                const std::optional<std::string>& log_id, ArchiveChoice choice);
  ~ArchiveReader();
  ArchiveReader(const ArchiveReader&) = delete;
  ArchiveReader& operator=(const ArchiveReader&) = delete;

  // nullopt at the end: of the choice, or of the archive, whose last frame may just be being written.
  [[nodiscard]] std::optional<ArchivedEntry> next();

  // Of all that is kept; nullopt when nothing is.
  [[nodiscard]] std::optional<Offset> first_offset() const;
  // Of the disk, indexes included.
  [[nodiscard]] std::uint64_t bytes_read() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The identity of a partition: of its file, or, when that is missing, of its first sound segment. nullopt
// when there is neither.
[[nodiscard]] std::optional<ArchiveIdentity> find_identity(const PartitionDirectory& directory);

}  // namespace continuum
