// Where an archive that somebody stopped writing ends.
#pragma once

#include "continuum/archive_directory.hpp"
#include "continuum/archive_segment.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace continuum {

// What the server knows when a writer begins.
struct ArchiveResume {
  Offset committed;                 // what lies before it was durable once
  std::optional<Offset> log_first;  // of what the log still has; nothing: it has no entries
};

struct ArchiveEnd {
  std::optional<FrameHeader> last;  // that is sound and before `bytes`; nothing: no frame is left
  Offset segment;                   // that holds it
  std::uint64_t bytes = 0;          // of that segment
  std::optional<SystemTime> first_event;
  std::string barriers;  // all of that segment, as long as it holds no event
  // The segment has more bytes, which are damaged, or lie behind damage: they stay until what comes from the
  // log again has reached this offset, in a segment of its own.
  std::optional<Offset> again_until;
  std::vector<std::string> said;
  std::vector<std::string> lost;  // damaged, and to be had from nowhere
};

// For the holder of the lock. Ends the archive before the first damage of its last segment that the log can
// make good. Only what is no whole frame and was never durable is cut at once, and a segment of which nothing
// else is left is removed, with what a crash left of making a file. Throws Error{loss} when nobody can go on
// behind the damage, or the segment belongs to another archive.
[[nodiscard]] ArchiveEnd recover_archive(const PartitionDirectory& directory, const ArchiveIdentity& identity,
                                         const ArchiveResume& resume);

}  // namespace continuum
