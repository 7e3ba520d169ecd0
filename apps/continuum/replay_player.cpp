#include "replay_player.hpp"

#include "replay_counts.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"

#include <poll.h>

#include <algorithm>
#include <thread>

namespace continuum::app {

namespace {

constexpr std::chrono::milliseconds redraw_every{200};
constexpr std::chrono::milliseconds look_every{10};
// Between two looks, when none of them matches.
constexpr std::uint64_t passed_at_once = 20'000;

// Whether there is something to read, at once or within that time.
bool is_readable(int fd, std::chrono::nanoseconds within) {
  pollfd poll{fd, POLLIN, 0};
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(within);
  const timespec time{seconds.count(), (within - seconds).count()};
  // poll() leaves out a negative descriptor, and only waits.
  return ::ppoll(&poll, 1, &time, nullptr) > 0;
}

}  // namespace

std::string_view word_of(Played played) {
  switch (played) {
    case Played::events_max:
      return "max-events";
    case Played::time_max:
      return "max-time";
    case Played::stopped:
      return "stopped";
    case Played::halted:
      return "halted";
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
  const Played played = give_all(hooks);
  if (!hooks.wait) {
    progress_.clear();
  }
  hooks.flush();
  progress_.clear();
  return hooks.over ? hooks.over().value_or(played) : played;
}

void Player::show(std::uint64_t settled) {
  const std::uint64_t unsettled = given_ - std::min(given_, settled);
  progress_.update(replay_.events_passed() - std::min(replay_.events_passed(), unsettled), settled);
}

double Player::seconds() const {
  return std::chrono::duration<double>(Clock::now() - started_).count();
}

Played Player::give_all(const Hooks& hooks) {
  // By their own times each event has another.
  const bool one_by_one = options_.pace.speed && options_.by == RangeOptions::By::event_time;
  const std::uint64_t at_once = one_by_one ? 1 : pace_.events_at_once();
  while (const auto upcoming = look_ahead(hooks, at_once)) {
    const auto& [run, then] = *upcoming;
    const auto now = Clock::now();
    if ((then > now && !hooks.wait) || (options_.flush_every && now - flushed_ >= *options_.flush_every)) {
      hooks.flush();
      flushed_ = now;
    }
    if (run.events == 0 && hooks.wait) {
      // Much may be passed before the next one matches, and what runs has its time limits and results.
      hooks.wait(now);
    }
    wait_until(hooks, then);
    if (const auto over = is_over(hooks)) {
      return *over;
    }
    if (run.events > 0) {
      hooks.give(run);
    }
    given_ += run.events;
    if (!hooks.wait) {
      show(given_);
    }
  }
  return given_ == options_.events_max ? Played::events_max : Played::all;
}

std::optional<Player::Upcoming> Player::look_ahead(const Hooks& hooks, std::uint64_t events_max) {
  try {
    const auto run = replay_.next(events_max, passed_at_once);
    return run ? std::optional(Upcoming{*run, due(*run)}) : std::nullopt;
  } catch (const Error&) {
    // What came before the damage is whole, and was asked for.
    progress_.clear();
    hooks.flush();
    throw;
  }
}

Player::Clock::time_point Player::due(const EventRun& run) {
  if (!options_.pace.limits() || run.events == 0) {
    return {};
  }
  // The time of a run is that of its first event: by a speed there is only that one.
  const bool by_event = options_.by == RangeOptions::By::event_time;
  const std::string_view first = run.lines.substr(0, run.lines.find('\n'));
  const std::string_view raw_time = by_event ? attributes_of(first).time : std::string_view();
  return pace_.due(Clock::now(), time_of(run, raw_time, options_.by), run.events);
}

void Player::wait_until(const Hooks& hooks, Clock::time_point due) {
  for (auto now = Clock::now(); now < due && !is_over(hooks); now = Clock::now()) {
    const auto until = std::min({due, deadline_.value_or(due), now + redraw_every});
    if (hooks.wait) {
      hooks.wait(until);
    } else {
      stopped_ = is_readable(options_.stop, std::max(until - now, Clock::duration::zero()));
      show(given_);
    }
  }
}

std::optional<Played> Player::is_over(const Hooks& hooks) {
  if (hooks.over) {
    if (const auto over = hooks.over()) {
      return over;
    }
  }
  if (!deadline_ && options_.stop < 0) {
    return std::nullopt;
  }
  const auto now = Clock::now();
  if (now - looked_ >= look_every) {
    looked_ = now;
    stopped_ = stopped_ || (options_.stop >= 0 && is_readable(options_.stop, {}));
  }
  if (stopped_) {
    return Played::stopped;
  }
  return deadline_ && now >= *deadline_ ? std::optional(Played::time_max) : std::nullopt;
}

}  // namespace continuum::app
