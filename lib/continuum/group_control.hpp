// What operators do with a group: pause it, put its cursor elsewhere, pass what stands in its way, remove it.
// Moves are done under the leases of all partitions that are moved, and refused while a worker has one of
// them.
#pragma once

#include "continuum/dead_letters.hpp"
#include "continuum/lease.hpp"
#include "continuum/operator_lease.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

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

// Those of the partitions from whose logs events may have been removed that were stored at the time or later.
[[nodiscard]] std::vector<Partition> cut_since(redis::Session& session, const Topic& topic,
                                               std::span<const Partition> partitions, SystemTime time);

// `paused`: by whom and why, for people; empty: go on. A worker sees it with its next renewal. Returns the
// partitions where the group is registered.
std::vector<Partition> set_paused(redis::Session& session, const Topic& topic, std::string_view group,
                                  std::span<const Partition> partitions, std::string_view paused);

// --- seek

struct SeekTarget {
  enum class To : std::uint8_t { start, end, offsets, time } to = To::end;
  std::map<Partition, Offset> offsets;  // of each partition that is moved
  SystemTime time{};                    // the first event that was stored then or later
};

struct Move {
  Partition partition;
  Offset from;
  Cursor to;
  Generation generation;      // in force there
  std::uint64_t letters = 0;  // a reason to refuse; without copies that another partition has taken over
  std::uint64_t outputs = 0;  // emitted and not published yet: another one
};

// Where a seek would go, as things stand: partitions without the group are left out. Throws Error{usage} for
// an offset behind the end of the log or a partition without one, and Error{loss} for a log that is gone and
// for what is no longer kept, with what is.
[[nodiscard]] std::vector<Move> plan_seek(redis::Session& session, const Topic& topic, std::string_view group,
                                          std::span<const Partition> partitions, const SeekTarget& target);
// Throws Error{usage} naming the partition and the command that helps when some move must not be made.
void require_movable(const Topic& topic, std::string_view group, const std::vector<Move>& moves);
// Plans again and moves, under the leases, which are given back. Throws Error{fenced} while a worker has one,
// then nothing was moved. It may be killed at any moment and run again. `begins`: called with what is moved
// when nothing speaks against it any more, directly before.
std::vector<Move> seek(redis::Session& session, const Topic& topic, std::string_view group,
                       std::span<const Partition> partitions, const SeekTarget& target, std::string_view who,
                       const std::function<void(const std::vector<Move>&)>& begins = {});

// --- skip

// The handler's name of events that were skipped where it was not known who stumbled over them.
inline constexpr std::string_view skip_handler = "skip";
inline constexpr std::uint64_t skip_events_max = 10'000;

struct SkipRange {
  std::optional<Offset> to;  // up to but without it
  std::uint64_t count = 1;   // without `to`
};
struct Skip {
  Cursor from;
  struct Event {
    Offset offset;
    std::string line;
    Cursor behind;  // the cursor when it is passed
  };
  std::vector<Event> events;
  std::string handler;  // whose letters they become
  GroupState state;
};
// The events that would be skipped. Throws Error{usage} when there are fewer, or a barrier stands between.
[[nodiscard]] Skip plan_skip(redis::Session& session, const Topic& topic, std::string_view group,
                             Partition partition, const SkipRange& range);
// Does it: the cursor passes the events, which become dead letters in the same commits. `reason`: by whom and
// why. `begins`: as for seek().
Skip skip(redis::Session& session, const Topic& topic, std::string_view group, Partition partition,
          const SkipRange& range, std::string_view who, std::string_view reason,
          const std::function<void(const Skip&)>& begins = {});

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
// `begins`: as for seek().
void forget_group(redis::Session& session, const Topic& topic, std::string_view group, std::string_view who,
                  const std::function<void()>& begins = {});

}  // namespace continuum
