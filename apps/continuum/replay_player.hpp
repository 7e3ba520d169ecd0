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
  std::optional<Milliseconds> flush_every;  // not for a target that works by itself
  int stop = -1;  // readable: end when everything that was given is flushed. Not owned
};

// Why a replay is over.
enum class Played : std::uint8_t { all, events_max, time_max, stopped, halted };
[[nodiscard]] std::string_view word_of(Played played);

class Player {
 public:
  // `replay` must outlive it.
  Player(Replay& replay, const PlayOptions& options);

  struct Hooks {
    std::function<void(const EventRun&)> give;
    // Before pauses, at the end, also at one by damage in the log, and as often as the options say. All that
    // was given is before replay.resume_at() then, and nothing else. Never again after a hook has thrown:
    // what became of the events is not known then.
    std::function<void()> flush;
    // Of a target that works by itself. Pauses are spent there, less when it is over before, and show() is
    // its own.
    std::function<void(Pace::Clock::time_point until)> wait = {};
    // It takes no more.
    std::function<std::optional<Played>()> over = {};
  };
  Played play(const Hooks& hooks);

  [[nodiscard]] std::uint64_t given() const { return given_; }
  // How far it is: so many of the events that were given are behind it.
  void show(std::uint64_t settled);
  // Before anything else is written to the terminal.
  void clear() { progress_.clear(); }
  [[nodiscard]] double seconds() const;

 private:
  using Clock = Pace::Clock;

  struct Upcoming {
    EventRun run;
    Clock::time_point due;
  };

  Played give_all(const Hooks& hooks);
  // Flushes when there is damage instead of events.
  [[nodiscard]] std::optional<Upcoming> look_ahead(const Hooks& hooks, std::uint64_t events_max);
  [[nodiscard]] Clock::time_point due(const EventRun& run);
  // Less when it is over before.
  void wait_until(const Hooks& hooks, Clock::time_point due);
  [[nodiscard]] std::optional<Played> is_over(const Hooks& hooks);

  Replay& replay_;
  const PlayOptions options_;
  Pace pace_;
  const Clock::time_point started_ = Clock::now();
  std::optional<Clock::time_point> deadline_;
  Clock::time_point flushed_ = started_;
  Clock::time_point looked_{};  // whether we are to stop
  bool stopped_ = false;
  std::uint64_t given_ = 0;
  Progress progress_;
};

}  // namespace continuum::app
