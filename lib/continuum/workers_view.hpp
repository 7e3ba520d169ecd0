// Who works the partitions of a topic's groups, and who stands by for them. Read only.
#pragma once

#include "continuum/inspect.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace continuum {

// One worker of one group.
struct WorkerView {
  std::string group;
  std::string owner;                  // empty: these partitions are nobody's
  std::string who;                    // HOST:PID
  std::vector<Partition> partitions;  // whose leases it has, ascending
  std::uint64_t lag_events = 0;       // behind on all of them
  std::string handlers;               // fingerprint of its directory of them; empty: none, or not known
  std::optional<SystemTime> since;    // when it took the first of them
  std::optional<Milliseconds> since_age;
  // Of one that shares: when it will count as dead if it stays silent. Negative: it has been silent for so
  // long that it does.
  std::optional<Milliseconds> expires_in;
};

// By group and worker; what is nobody's comes last in its group, without partitions that a resize took out of
// the ring and that are handled to their end. `partitions`: of inspect_topic().
[[nodiscard]] std::vector<WorkerView> inspect_workers(redis::Session& session, const Topic& topic,
                                                      std::span<const PartitionView> partitions);

}  // namespace continuum
