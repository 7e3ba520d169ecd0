// The end of a topic, for eyes: its last events, and those that come.
#pragma once

#include "continuum/event_filter.hpp"
#include "continuum/redis.hpp"
#include "continuum/replay.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace continuum {

struct SeenEvent {
  Partition partition;
  Generation generation;
  EntryId entry;
  Offset offset;
  std::string line;  // without a newline

  // Replay order.
  friend auto operator<=>(const SeenEvent& a, const SeenEvent& b) {
    return std::tuple(a.generation, a.entry.milliseconds, a.partition, a.offset) <=>
           std::tuple(b.generation, b.entry.milliseconds, b.partition, b.offset);
  }
  friend bool operator==(const SeenEvent& a, const SeenEvent& b) { return (a <=> b) == 0; }
};

inline constexpr std::uint64_t last_events_max = 100'000;

struct TailOptions {
  std::vector<Partition> partitions;  // empty: all
  EventFilter::Options filter;
  std::uint64_t last = 10;          // at most last_events_max
  std::optional<SystemTime> since;  // none that was appended before
};

struct Tail {
  std::vector<SeenEvent> events;  // in replay order
  std::vector<LogPlace> ends;
};
// Reads backwards, only as far as it must. Throws Error{loss} for a gap or damage on the way.
[[nodiscard]] Tail last_events(redis::Session& session, const Topic& topic, TailOptions options);

// Events as they are appended.
class Follower {
 public:
  // Begins behind `ends`. With no chosen partitions, those that a resize adds are followed too. `session`
  // must outlive it.
  Follower(redis::Session& session, Topic topic, std::vector<Partition> chosen, EventFilter::Options filter,
           const std::vector<LogPlace>& ends);
  ~Follower();
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;

  // New events that match, in replay order; none when `wait` passed or nothing matched. Throws Error{loss}
  // for a gap, a damaged frame, and a log that is gone or another one.
  [[nodiscard]] std::vector<SeenEvent> next(Milliseconds wait);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace continuum
