// Passes what stands in a group's way on one partition, under its lease; refused while a worker has it.
#pragma once

#include "continuum/lease.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

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

}  // namespace continuum
