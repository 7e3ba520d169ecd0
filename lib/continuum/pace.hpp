// When events that are replayed may go out: so many a second, or as far apart as they once were.
#pragma once

#include "continuum/types.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

namespace continuum {

struct PaceOptions {
  std::optional<double> events_per_second;
  std::optional<double> speed;  // of the original times: 10 lets ten minutes pass in one

  [[nodiscard]] bool limits() const { return events_per_second || speed; }
};
// 10x, 0.5x, from 0.001x to 1000000x. Throws Error{usage}.
[[nodiscard]] double parse_speed(std::string_view text);

// More than half a second that was lost, because the receiver was slow, is not caught up with by a burst.
class Pace {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Pace(const PaceOptions& options) : options_(options) {}

  // How many events may go out together without being felt as a burst: a twentieth of a second, at least one.
  [[nodiscard]] std::uint64_t events_at_once() const;
  // When these next events, whose original time that is, may go out; perhaps some time ago.
  [[nodiscard]] Clock::time_point due(Clock::time_point now, SystemTime original, std::uint64_t events);

 private:
  PaceOptions options_;
  Clock::time_point next_{};  // by the rate; long ago at first
  // By the speed: where the original times and the present ones are the same.
  std::optional<SystemTime> original_zero_;
  Clock::time_point zero_;
};

}  // namespace continuum
