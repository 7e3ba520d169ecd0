#include "continuum/pace.hpp"

#include "continuum/error.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

namespace continuum {

namespace {

constexpr double speed_min = 0.001;
constexpr double speed_max = 1'000'000;
constexpr double bursts_per_second = 20;
// Longer is never waited at once: what the clocks can count stays far away.
constexpr std::chrono::duration<double> wait_max{10.0 * 365 * 24 * 3600};

// Late wake-ups are caught up with.
constexpr std::chrono::milliseconds lateness_max{500};

Pace::Clock::duration of_seconds(double seconds) {
  return std::chrono::duration_cast<Pace::Clock::duration>(
      std::min(std::chrono::duration<double>(seconds), wait_max));
}

}  // namespace

double parse_speed(std::string_view text) {
  double speed = 0;
  if (text.ends_with('x')) {
    const std::string_view number = text.substr(0, text.size() - 1);
    const auto [end, error] = std::from_chars(number.begin(), number.end(), speed, std::chars_format::fixed);
    if (error == std::errc() && end == number.end() && speed >= speed_min && speed <= speed_max) {
      return speed;
    }
  }
  fail(ErrorKind::usage, "not a speed; give 10x, or 0.5x, from 0.001x to 1000000x");
}

std::uint64_t Pace::events_at_once() const {
  if (!options_.events_per_second) {
    return std::numeric_limits<std::uint64_t>::max();
  }
  return static_cast<std::uint64_t>(std::max(1.0, *options_.events_per_second / bursts_per_second));
}

Pace::Clock::time_point Pace::due(Clock::time_point now, SystemTime original, std::uint64_t events) {
  Clock::time_point due = now;
  if (options_.speed) {
    const auto present = [&] {
      const std::chrono::duration<double> passed = original - *original_zero_;
      return zero_ + of_seconds(passed.count() / *options_.speed);
    };
    if (!original_zero_ || (original > *original_zero_ && present() + lateness_max < now)) {
      original_zero_ = original;
      zero_ = now;
    }
    due = present();
  }
  if (options_.events_per_second) {
    if (next_ + lateness_max < now) {
      next_ = now;
    }
    due = options_.speed ? std::max(due, next_) : next_;
    next_ = due + of_seconds(static_cast<double>(events) / *options_.events_per_second);
  }
  return due;
}

}  // namespace continuum
