// What an operator sees of a topic: partitions, groups, what moves and what does not. Read only; a few round
// trips however many partitions there are. Works on a replica (and then shows what the replica has).
#pragma once

#include "continuum/lease.hpp"
#include "continuum/log.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/trim.hpp"
#include "continuum/types.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// The first of these that holds. One look cannot tell a worker that died from one that is slow.
enum class GroupMotion : std::uint8_t {
  halted,     // the partition waits for a person; with or without a worker
  paused,     // by a person; with or without a worker
  refused,    // the server is full: what has to be stored with a commit waits
  down,       // the handler is, and no event is to blame
  full,       // of events behind held keys, or of emitted ones
  retrying,   // a worker tries an event again
  caught_up,  // no event waits
  no_owner,   // there are events, and nobody has the lease
  running,
};
[[nodiscard]] std::string_view name_of(GroupMotion motion);  // "halted", "caught up", "no owner", …

// A group on one partition.
struct GroupView {
  std::string group;
  GroupState state;
  GroupMotion motion = GroupMotion::no_owner;
  std::uint64_t lag_events = 0;
  Milliseconds lag{0};  // age of the first event that is not handled
  std::string loss;     // what this group lost, or empty
};

// What should go from a log, and who holds it.
struct RetentionView {
  Offset wanted;  // everything before it should go; by bytes it is an estimate
  struct Holder {
    std::string group;
    Offset offset;         // that it has come to
    Offset until;          // the log can begin there: an entry that it stands inside of stays whole
    TrimStand stand;       // how it was seen there
    SystemTime since{};    // it has not moved though there was something to handle
    bool stalled = false;  // for longer than the limit
    bool orphan = false;   // of PartitionView::orphans
  };
  std::vector<Holder> holders;  // the farthest behind first

  // Where the log can begin as long as they stand there.
  [[nodiscard]] Offset until() const {
    return holders.empty() ? wanted : std::min(wanted, holders.front().until);
  }
};

struct PartitionView {
  std::string topic;
  Partition partition;
  Generation generation;  // of the ring, that it takes appends of
  Offset first;           // of the oldest event that is kept; `next` when there is none
  Offset next;
  std::optional<std::uint64_t> log_bytes;  // in Redis memory; nullopt when the server does not tell
  std::optional<SystemTime> newest;        // when the newest event was appended
  std::optional<Milliseconds> newest_age;
  std::vector<GroupView> groups;  // by name
  // By name: groups that the partition has and the topic does not. No worker can move them; they are what a
  // forget has left that was killed (or has still to do).
  std::vector<GroupView> orphans;
  std::string loss;                        // what the log lost, or empty
  std::optional<RetentionView> retention;  // of a topic that has one

  [[nodiscard]] std::uint64_t events() const { return next - first; }
};

// How many partitions a group would need at the rate of this moment, or nothing when no worker has said how
// busy it is. `views`: of one topic. What one key can do is not known: its partition cannot be divided.
[[nodiscard]] std::optional<std::uint64_t> partitions_enough(const std::vector<PartitionView>& views,
                                                             std::string_view group);

// All partitions, ascending. Loss and damage are told in the views, so that the rest is still seen.
[[nodiscard]] std::vector<PartitionView> inspect_topic(redis::Session& session, const Topic& topic);
// With the retention that is given instead of the topic's.
[[nodiscard]] std::vector<PartitionView> inspect_topic(redis::Session& session, const Topic& topic,
                                                       const TrimGoal& goal, Milliseconds stall_limit);

}  // namespace continuum
