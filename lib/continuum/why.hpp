// Why a partition does not move for a group: the one cause that is to be dealt with first, and what to do
// about it.
#pragma once

#include "continuum/dead_letters.hpp"
#include "continuum/inspect.hpp"
#include "continuum/lease.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

enum class Obstacle : std::uint8_t {
  moving,           // it does move
  caught_up,        // no event waits
  held_keys,        // caught up, but for the keys that are held: they block nobody else
  loss,             // something that was stored or committed is gone
  paused,           // by an operator
  halted,           // an event failed, and its handler says on_failure = halt
  server_refuses,   // nothing can be stored
  no_owner,         // no worker, or one that is silent
  handler_down,     // an outage: no event is to blame
  held_limit,       // no more events can be set aside
  outbox,           // emitted events are not published yet, and no more are taken
  retrying,         // an event failed and is tried again
  barrier,          // other partitions have to come this far first
  handler_running,  // it takes long
  waiting,          // none of these
  half_forgotten,   // the group is gone from the topic, and still holds what a trim would remove
};
[[nodiscard]] std::string_view name_of(Obstacle cause);  // "no owner", "handler running", …

// What is known of a group on a partition.
struct Standing {
  std::string topic;
  Partition partition;
  std::string group;
  GroupState state;
  std::uint64_t lag_events = 0;
  std::string loss;  // of the log or of the group; empty: none
  std::uint64_t held_keys = 0;
  std::uint64_t letters = 0;
  enum class Owner : std::uint8_t { none, silent, alive } owner = Owner::none;
  enum class Motion : std::uint8_t { still, moving } motion = Motion::still;
  // What the server says to a write, or nothing. Full: letters cannot be stored, but cursors can move.
  enum class Writes : std::uint8_t { taken, refused_when_growing, refused } writes = Writes::taken;
  std::string refusal;
  std::optional<Generation> barrier;  // that stands before the next event
  Generation active;                  // of the topic
  std::vector<Partition> behind;      // have not come to that barrier
  std::vector<Partition> waited_by;   // stand at a barrier that this one has not come to
  SystemTime now{};
  std::uint64_t holds_back_events = 0;  // that the topic's retention would remove
  bool orphan = false;                  // of PartitionView::orphans
};
struct Why {
  Obstacle cause = Obstacle::waiting;
  std::string text;  // for a person; printable
  std::string next;  // a command, or what to do; empty: nothing
};
// Pure.
[[nodiscard]] Why why_of(const Standing& standing);

struct Situation {
  std::vector<Standing> standings;  // by group, then partition
  std::string refusal;              // of the server, also where it holds nothing up
};
// Looks, and looks again at what does not move until it is sure whether its owner lives: that takes up to one
// lease. Without a group: all.
[[nodiscard]] Situation look_why(redis::Session& session, const Topic& topic,
                                 const std::optional<std::string>& group);

}  // namespace continuum
