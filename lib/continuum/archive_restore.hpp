// Puts an archived topic back into a server that does not have it: the same entries at the same offsets with
// their times, the ring with its generations, the named producers with what they had stored, and the same log
// id, so that the archive goes on to be its archive.
//
// It may be killed at any moment and run again: the logs themselves say how far it came. Until it is finished
// the topic is marked as being restored, no partition has its meta key, and nobody can use either. What is
// not in an archive does not come back: groups and their cursors, dead letters, what was not archived yet.
#pragma once

#include "continuum/redis.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace continuum {

enum class MissingPartitions : std::uint8_t {
  refuse,  // throws Error{loss} that names them
  empty,   // they begin anew, at offset 0; and what was cut off before a resize stays away
};

// `dry_run` does all but the writing: it reads every event that would be restored, and refuses what the run
// would refuse.
enum class RestoreMode : std::uint8_t { dry_run, act };

struct RestoreOptions {
  std::string topic;              // as the archive has it
  std::optional<std::string> to;  // another name, and then another log id
  MissingPartitions missing = MissingPartitions::refuse;
  RestoreMode mode = RestoreMode::act;
  std::function<void(std::uint64_t events)> on_progress = {};  // that are in the logs now
};

struct RestoredPartition {
  Partition partition;
  Offset first;
  Offset next;
};

struct RestoreSummary {
  std::string topic;
  std::string log_id;  // of a dry run under another name: none
  Generation active;
  std::vector<RestoredPartition> partitions;
  std::vector<std::string> notices;  // what a person has to know of it, one line each

  [[nodiscard]] std::uint64_t events() const;
};

// Events that the archive has, by its headers: more are not restored.
[[nodiscard]] std::uint64_t events_to_restore(const std::string& archive, const RestoreOptions& options);

// Throws Error: usage (the archive cannot be read or has no such topic; the server has the topic), loss (the
// archive is damaged, or something of it is missing: what is restored by then stays, for another run), fenced
// (another restore is at work), server. The session needs Needs::Access::write, for a dry run read.
RestoreSummary restore_archive(redis::Session& session, const std::string& archive,
                               const RestoreOptions& options);

}  // namespace continuum
