// An archive as a whole: what is in it, whether every byte of it is right, and mending what can be made anew.
#pragma once

#include "continuum/archive_directory.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace continuum {

// A segment by its first and last headers; nothing else is read.
struct SegmentSummary {
  std::string topic;
  Partition partition;
  std::string path;
  Offset first;
  Offset next;
  std::optional<SystemTime> first_time;  // of an entry; nothing: no sound header
  std::optional<SystemTime> last_time;
  std::uint64_t bytes = 0;
  std::uint64_t index_bytes = 0;

  [[nodiscard]] std::uint64_t events() const { return next - first; }
};

struct ArchiveProblem {
  enum class Kind : std::uint8_t {
    damaged,   // bytes are not those that were written
    hole,      // events are missing
    foreign,   // a segment of another archive, or renamed, or a file that is none
    tail,      // no whole frame at the end: repair cuts it
    index,     // it does not say what the segment says: repair makes it anew
    identity,  // the file `archive` is missing or damaged: repair makes it anew; or `topic`, which only a
               // worker makes
  };
  Kind kind = Kind::damaged;
  std::string topic;
  Partition partition;
  std::string path;
  std::optional<Offset> from;  // nothing: no event is lost with it
  std::optional<Offset> to;    // nothing: nobody knows
  std::uint64_t position = 0;  // byte in the file
  std::string what;            // for a person
};
[[nodiscard]] std::string_view name_of(ArchiveProblem::Kind kind);

struct ArchiveTotals {
  std::uint64_t partitions = 0;
  std::uint64_t segments = 0;
  std::uint64_t events = 0;  // that are sound
  std::uint64_t bytes = 0;   // of segments and indexes
};

struct ArchiveCheckOptions {
  std::vector<std::string> topics = {};    // empty: all
  std::vector<Partition> partitions = {};  // empty: all
  std::function<void(const ArchiveProblem&)> on_problem = {};
  std::function<void(std::uint64_t bytes)> on_progress = {};  // read until now
};

// All throw Error{usage} when the directory cannot be read, or holds no archive, or not that topic or
// partition.

[[nodiscard]] std::vector<std::pair<std::string, Partition>> choose_partitions(
    const ArchiveDirectory& archive, const ArchiveCheckOptions& options);

[[nodiscard]] std::vector<SegmentSummary> list_archive(const std::string& path,
                                                       const ArchiveCheckOptions& options);

// Bytes that verify_archive will read.
[[nodiscard]] std::uint64_t bytes_to_verify(const std::string& path, const ArchiveCheckOptions& options);
// Reads every byte: checksums, line counts, offsets and entry ids without a gap, indexes. What a writer is
// writing at this moment is no problem.
ArchiveTotals verify_archive(const std::string& path, const ArchiveCheckOptions& options);

enum class RepairMode : std::uint8_t { dry_run, act };
struct ArchiveRepair {
  std::string topic;
  Partition partition;
  std::string path;
  std::string what;  // "index made anew", …
};
// Indexes and identities are made anew, torn tails are cut; events that are damaged stay as they are.
// Partitions whose writer is at work are passed over, and said. Throws Error{server} for what the disk
// refuses.
[[nodiscard]] std::vector<ArchiveRepair> repair_archive(const std::string& path,
                                                        const ArchiveCheckOptions& options, RepairMode mode);

}  // namespace continuum
