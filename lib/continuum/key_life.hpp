// One key's life: where its events lie, and what each group has made of them.
#pragma once

#include "continuum/dead_letters.hpp"
#include "continuum/lease.hpp"
#include "continuum/redis.hpp"
#include "continuum/tail.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace continuum {

// Of one group on one partition that has, or had, the key.
struct KeyStanding {
  std::string group;
  Partition partition;
  std::optional<GroupState> state;  // nothing: not registered there
  std::vector<HeldKey> handlers;    // of those that have letters of the key
  std::vector<DeadLetter> letters;  // without their events
};
struct KeyLife {
  std::vector<std::pair<Generation, Partition>> partitions;  // ascending
  std::vector<SeenEvent> events;                             // the last ones, in replay order
  std::vector<KeyStanding> standings;                        // by group, then partition

  // What became of an event in the group that stands there: "passed", "waiting", or for its letters, wherever
  // they are now, "failed (HANDLER)", "behind (HANDLER)", ….
  [[nodiscard]] std::string fate_of(const KeyStanding& standing, Offset offset) const;
};
// At most last_events_max events. Throws Error{loss} for a gap on the way.
[[nodiscard]] KeyLife life_of(redis::Session& session, const Topic& topic, const std::string& key,
                              std::uint64_t last);

}  // namespace continuum
