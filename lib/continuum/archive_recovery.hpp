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

// More than a writer has written without a sync: only that much of an end may be torn.
inline constexpr std::uint64_t unsynced_bytes_max = std::uint64_t{128} << 20;

struct ArchiveEnd {
  std::optional<FrameHeader> last;  // nothing: no frame is left
  Offset segment;                   // that holds it
  std::uint64_t bytes = 0;          // of that segment
  std::optional<SystemTime> first_event;
  std::string barriers;  // all of that segment, as long as it holds no event
  std::vector<std::string> said;
};

// For the holder of the lock. Cuts a torn tail, removes a segment of which nothing else is left, and what a
// crash left of making a file. Throws Error{loss} when the end is damaged otherwise, or belongs to another
// archive.
[[nodiscard]] ArchiveEnd recover_archive(const PartitionDirectory& directory,
                                         const ArchiveIdentity& identity);

}  // namespace continuum
