#include "replay_player.hpp"

#include "replay_counts.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"

#include <algorithm>
#include <thread>

namespace continuum::app {

namespace {

constexpr std::chrono::milliseconds redraw_every{200};

}  // namespace

std::string_view word_of(Played played) {
  switch (played) {
    case Played::events_max:
      return "max-events";
    case Played::time_max:
      return "max-time";
    case Played::all:
      break;
  }
  return "all";
}

Player::Player(Replay& replay, const PlayOptions& options)
    : replay_(replay),
      options_(options),
      pace_(options.pace),
      progress_("replay", replay.events_in_range(), options.progress) {
  if (options_.time_max) {
    deadline_ = started_ + *options_.time_max;
  }
}

Played Player::play(const Hooks& hooks) {
  try {
    const Played played = give_all(hooks);
    progress_.clear();
    hooks.flush();
    return played;
  } catch (const Error&) {
    // What came before the damage is whole, and was asked for.
    progress_.clear();
    hooks.flush();
    throw;
  }
}

double Player::seconds() const {
  return std::chrono::duration<double>(Clock::now() - started_).count();
}

Played Player::give_all(const Hooks& hooks) {
  // By their own times each event has another.
  const bool one_by_one = options_.pace.speed && options_.by == RangeOptions::By::event_time;
  const std::uint64_t at_once = one_by_one ? 1 : pace_.events_at_once();
  while (const auto run = replay_.next(at_once)) {
    if (time_is_over()) {
      return Played::time_max;
    }
    if (const auto then = due(*run); then > Clock::now()) {
      hooks.flush();
      if (!wait_until(then)) {
        return Played::time_max;
      }
    }
    hooks.give(*run);
    given_ += run->events;
    progress_.update(replay_.events_passed(), given_);
  }
  return given_ == options_.events_max ? Played::events_max : Played::all;
}

Player::Clock::time_point Player::due(const EventRun& run) {
  if (!options_.pace.limits()) {
    return {};
  }
  const bool by_event = options_.by == RangeOptions::By::event_time;
  const std::string_view raw_time = by_event ? attributes_of(run.lines).time : std::string_view();
  return pace_.due(Clock::now(), time_of(run, raw_time, options_.by), run.events);
}

bool Player::wait_until(Clock::time_point due) {
  for (auto now = Clock::now(); now < due && !time_is_over(); now = Clock::now()) {
    std::this_thread::sleep_until(std::min({due, deadline_.value_or(due), now + redraw_every}));
    progress_.update(replay_.events_passed(), given_);
  }
  return !time_is_over();
}

}  // namespace continuum::app
