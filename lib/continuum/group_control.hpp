// What operators do with a group: look at it, pause it, take leases away, remove it. To put its cursor
// elsewhere: group_seek.hpp; to pass what stands in its way: group_skip.hpp.
#pragma once

#include "continuum/lease.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace continuum {

// Calls `each` for pieces of `partitions` that are small enough for one request.
template <class Each>
void in_chunks(std::span<const Partition> partitions, Each each) {
  constexpr std::size_t at_once = 64;
  for (std::size_t begin = 0; begin < partitions.size(); begin += at_once) {
    each(partitions.subspan(begin, std::min(at_once, partitions.size() - begin)));
  }
}

// Throws Error{usage} with the nearest name when the topic has no such group.
void require_group(const Topic& topic, std::string_view group);

// The group's state on each of the partitions; nullopt where it is not registered.
[[nodiscard]] std::vector<std::optional<GroupState>> group_states(redis::Session& session, const Topic& topic,
                                                                  std::string_view group,
                                                                  std::span<const Partition> partitions);

// Those of the partitions where the group is not registered yet. Throws Error{loss} naming those where it is
// and its state is gone.
[[nodiscard]] std::vector<Partition> unregistered(redis::Session& session, const Topic& topic,
                                                  std::string_view group,
                                                  std::span<const Partition> partitions);

// Throws Error{usage}.
[[noreturn]] void fail_not_registered(const Topic& topic, Partition partition, std::string_view group);
// Throws Error{fenced}: the lease of a command is lost.
[[noreturn]] void fail_taken_over(const Topic& topic, Partition partition, std::string_view group);

// `paused`: by whom and why, for people; empty: go on. A worker sees it with its next renewal. Returns the
// partitions where the group is registered.
std::vector<Partition> set_paused(redis::Session& session, const Topic& topic, std::string_view group,
                                  std::span<const Partition> partitions, std::string_view paused);

// --- leases

enum class Revoked : std::uint8_t { yes, free, changed, not_registered };
// Takes the lease away from the owner whose fence this is.
[[nodiscard]] Revoked revoke_lease(redis::Session& session, const Topic& topic, std::string_view group,
                                   Partition partition, Fence fence);

// --- forget

struct Remains {
  Partition partition;
  bool registered = false;
  std::uint64_t lag = 0;  // events that it has not handled
  std::uint64_t letters = 0;
  std::uint64_t outputs = 0;
};
// What a group has on all partitions of the topic; also what a forget that was killed has left over.
[[nodiscard]] std::vector<Remains> remains_of(redis::Session& session, const Topic& topic,
                                              std::string_view group);
// Removes it from the topic, then from its partitions. Throws Error{fenced} while a worker has a lease.
// `begins`: called when nothing speaks against it any more, directly before.
void forget_group(redis::Session& session, const Topic& topic, std::string_view group, std::string_view who,
                  const std::function<void()>& begins = {});

}  // namespace continuum
