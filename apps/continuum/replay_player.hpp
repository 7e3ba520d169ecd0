// Sends the events of a replay on, no faster than they may go, and shows how far it is.
#pragma once

#include "output.hpp"

#include "continuum/pace.hpp"
#include "continuum/replay.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

namespace continuum::app {

struct PlayOptions {
  PaceOptions pace;
  RangeOptions::By by = RangeOptions::By::append_time;  // the times that a speed is about
  std::optional<Milliseconds> time_max;
  std::optional<std::uint64_t> events_max;  // that the replay ends after
  Progress::Show progress = Progress::Show::never;
};

// Why a replay is over.
enum class Played : std::uint8_t { all, events_max, time_max };
[[nodiscard]] std::string_view word_of(Played played);

class Player {
 public:
  // `replay` must outlive it.
  Player(Replay& replay, const PlayOptions& options);

  struct Hooks {
    std::function<void(const EventRun&)> give;
    std::function<void()> flush;  // before pauses and at the end, also at one by an error
  };
  Played play(const Hooks& hooks);

  [[nodiscard]] std::uint64_t given() const { return given_; }
  [[nodiscard]] double seconds() const;

 private:
  using Clock = Pace::Clock;

  Played give_all(const Hooks& hooks);
  [[nodiscard]] Clock::time_point due(const EventRun& run);
  // False when the time is over before then.
  [[nodiscard]] bool wait_until(Clock::time_point due);
  [[nodiscard]] bool time_is_over() const { return deadline_ && Clock::now() >= *deadline_; }

  Replay& replay_;
  const PlayOptions options_;
  Pace pace_;
  const Clock::time_point started_ = Clock::now();
  std::optional<Clock::time_point> deadline_;
  std::uint64_t given_ = 0;
  Progress progress_;
};

}  // namespace continuum::app
