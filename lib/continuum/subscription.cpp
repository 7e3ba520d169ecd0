#include "continuum/subscription.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/json.hpp"
#include "continuum/left_keys.hpp"
#include "continuum/names.hpp"
#include "continuum/runner.hpp"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>

#include <algorithm>

namespace continuum {

namespace {

constexpr std::size_t why_bytes_max = 300;
constexpr Milliseconds freed_soon{2};                             // a key whose release is being committed
constexpr Milliseconds key_poll{20};                              // a key that is at another event
constexpr Milliseconds full_poll{100};                            // for room for one more letter
constexpr Milliseconds full_pause{1'000};                         // likewise, of an event that failed
constexpr std::size_t outputs_bytes_max = std::size_t{16} << 20;  // of events that no commit has passed
constexpr Milliseconds burst{100};  // a handler with a rate may catch up this much

SystemTime system_now() {
  return std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now());
}

std::string shortened(std::string_view text) {
  return printable(text.substr(0, why_bytes_max));
}

}  // namespace

Subscription::Subscription(Site& site, std::shared_ptr<Handler> handler)
    : site_(site),
      handler_(std::move(handler)),
      lane_(site.window.add_lane(handler_->spec.name, TypeFilter(handler_->spec.types))),
      ended_(site.place.executor) {
  start_runner();
}

Subscription::~Subscription() = default;

void Subscription::start_runner() {
  switch (spec().mode) {
    case HandlerMode::exec:
      runner_ = make_exec_runner(*this);
      break;
    case HandlerMode::stream:
      runner_ = make_stream_runner(*this);
      break;
    case HandlerMode::http:
      runner_ = make_http_runner(*this);
      break;
  }
}

// --- for the partition

void Subscription::pump() {
  if (next_handler_ && !running()) {
    ++ending_;
    asio::co_spawn(
        site_.place.executor,
        [](Subscription& self, std::shared_ptr<Runner> runner) -> asio::awaitable<void> {
          co_await runner->end(Leave::gently);
          --self.ending_;
          self.ended_.notify();
        }(*this, std::move(runner_)),
        asio::detached);
    handler_ = std::exchange(next_handler_, nullptr);
    // What was wrong with the former one says nothing about this one.
    down_.reset();
    downs_ = 0;
    down_until_ = Clock::time_point::min();
    start_runner();
  }
  if (!troubles_.empty()) {
    forget_troubles();
  }
  pumped_at_ = Clock::now();
  runner_->start_ready();
}

// Letters that an operator took away while they waited to be tried again.
void Subscription::forget_troubles() {
  std::erase_if(troubles_, [&](const auto& one) {
    const auto& [offset, trouble] = one;
    return trouble.letter && !is_letter(offset) && !site_.held.is_next(*trouble.letter, offset);
  });
}

std::optional<Clock::time_point> Subscription::next_time() const {
  if (site_.finishing || site_.paused || site_.halted) {
    return std::nullopt;
  }
  // What was due when it was last looked at could not be started then, and waits for something else than
  // time.
  std::optional<Clock::time_point> next;
  const auto sooner = [&](std::optional<Clock::time_point> time) {
    if (time && *time > pumped_at_ && (!next || *time < *next)) {
      next = time;
    }
  };
  sooner(Window::next_due(lane_));
  sooner(site_.held.next_due(spec().name, pumped_at_));
  if (has_ready()) {
    sooner(next_start_);
  }
  if (down_until_ > pumped_at_ && has_ready()) {
    next = down_until_;
  } else if (down_until_ > pumped_at_) {
    next = std::max(down_until_, next.value_or(down_until_));
  }
  return next;
}

bool Subscription::running() const {
  return runner_->running();
}

std::optional<Doing> Subscription::trouble() const {
  Doing doing;
  doing.handler = spec().name;
  if (down_) {
    doing = *down_;
    doing.handler = spec().name;
    return doing;
  }
  if (troubles_.empty()) {
    return std::nullopt;
  }
  const auto& [offset, trouble] = *troubles_.begin();
  doing.state = "retrying";
  doing.at = offset;
  doing.since = trouble.since;
  doing.attempt = trouble.attempts;
  doing.error = trouble.error;
  return doing;
}

std::optional<Window::Running> Subscription::longest_running() const {
  return Window::longest_running(lane_);
}

void Subscription::set_handler(std::shared_ptr<Handler> handler) {
  if (!retired_ && (next_handler_ ? next_handler_ : handler_) == handler) {
    return;
  }
  retired_ = false;
  site_.window.set_filter(lane_, TypeFilter(handler->spec.types));
  next_handler_ = std::move(handler);
}

void Subscription::retire() {
  site_.window.retire(lane_);
  retired_ = true;
}

void Subscription::leave_window() {
  site_.window.remove_lane(lane_);
}

bool Subscription::open() const {
  return Window::open(lane_) > 0 || !releases_.empty() || runner_->running();
}

asio::awaitable<void> Subscription::end(Leave leave) {
  co_await runner_->end(leave);
  while (ending_ > 0) {
    co_await ended_.wait();
  }
}

// --- what is next

bool Subscription::may_start() const {
  return !site_.finishing && !site_.paused && !site_.halted && !next_handler_ && site_.tenure.holds() &&
         Clock::now() >= down_until_;
}

std::optional<Window::Event> Subscription::take(Clock::time_point now) {
  // One that is thought to be down is tried with one event at a time.
  if (now < next_start_ || (handler_->health.down() && in_flight() > 0)) {
    return std::nullopt;
  }
  // In turn: many letters that are released must not keep the keys waiting that were never held.
  letters_turn_ = !letters_turn_;
  auto event = letters_turn_ ? take_letter(now) : take_event(now);
  if (!event) {
    event = letters_turn_ ? take_event(now) : take_letter(now);
  }
  if (event && spec().rate_per_second) {
    const auto apart = std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(1.0 / *spec().rate_per_second));
    next_start_ = std::max(next_start_, now - burst) + apart;
  }
  return event;
}

std::optional<Window::Event> Subscription::take_event(Clock::time_point now) {
  while (auto event = site_.window.take(lane_, now)) {
    if (site_.outputs_bytes >= outputs_bytes_max && !makes_outputs_fewer(event->offset)) {
      site_.window.put_back(lane_, event->offset);
      return std::nullopt;
    }
    if (is_taken_by_letter(event->offset)) {
      site_.window.retry(lane_, event->offset, now + key_poll, event->attempt - 1);
      continue;
    }
    if (site_.place.replay != nullptr && left_out(*event)) {
      continue;
    }
    if (!site_.held.may_hold(event->key_hash) || !held_back(*event, now)) {
      return event;
    }
  }
  return std::nullopt;
}

std::optional<Window::Event> Subscription::take_letter(Clock::time_point now) {
  const DeadLetter* letter = site_.held.take(spec().name, now);
  // A key that was not held, because its failed events were skipped, may be at a later event just now.
  while (letter != nullptr && (is_taken(*letter) || site_.window.key_in_flight(lane_, letter->whose.key))) {
    site_.held.retry(letter->whose, now + key_poll);
    letter = site_.held.take(spec().name, now);
  }
  if (letter == nullptr) {
    return std::nullopt;
  }
  const auto release =
      releases_
          .try_emplace(letter->offset, Release{letter->whose, letter->event, letter->attempts, letter->from})
          .first;
  const auto trouble = troubles_.find(letter->offset);
  const std::uint32_t used = trouble == troubles_.end() ? 0 : trouble->second.attempts;
  return Window::Event{letter->offset, release->second.event, letter->attempts + used + 1, 0, letter->from};
}

bool Subscription::is_taken(const DeadLetter& letter) const {
  const auto trouble = troubles_.find(letter.offset);
  return releases_.contains(letter.offset) || Window::in_flight(lane_, letter.offset) ||
         (trouble != troubles_.end() && trouble->second.letter != letter.whose);
}

bool Subscription::is_taken_by_letter(Offset offset) const {
  const auto trouble = troubles_.find(offset);
  return releases_.contains(offset) || (trouble != troubles_.end() && trouble->second.letter);
}

// True when the event does not go to the handler now, because its key is held.
bool Subscription::held_back(const Window::Event& event, Clock::time_point now) {
  std::string scratch;
  const std::string_view key = key_of(attributes_of(event.line), scratch);
  switch (site_.held.way_of(spec().name, key)) {
    case HeldEvents::Way::free:
      return false;
    case HeldEvents::Way::wait:
      site_.window.retry(lane_, event.offset, now + (site_.held.full() ? full_poll : freed_soon),
                         event.attempt - 1);
      return true;
    case HeldEvents::Way::park:
      site_.held.park(letter_of(event.offset, LetterState::behind));
      troubles_.erase(event.offset);
      site_.window.done(lane_, event.offset);
      return true;
  }
  return false;
}

// True when an earlier event of its key was given up in this replay.
bool Subscription::left_out(const Window::Event& event) {
  LeftKeys& left = *site_.place.replay;
  if (left.empty()) {
    return false;
  }
  std::string scratch;
  const std::string_view key = key_of(attributes_of(event.line), scratch);
  if (!left.has({spec().name, std::string(key)})) {
    return false;
  }
  left.leave_out(site_.tenure.partition, event.offset);
  done_in_replay(event.offset);
  return true;
}

// Its handler is done with the event, but has not handled it.
void Subscription::done_in_replay(Offset offset) {
  LeftKeys& left = *site_.place.replay;
  left.not_handled(site_.tenure.partition, offset);
  if (site_.window.done(lane_, offset) == Window::Done::by_all) {
    left.closed(site_.tenure.partition, offset);
  }
}

// Those that a commit can take go with the next one. When there are none, all wait for one event.
bool Subscription::makes_outputs_fewer(Offset offset) const {
  const Offset finished = site_.window.finished().offset;
  const bool for_commit = !site_.outputs.empty() && site_.outputs.begin()->first < finished;
  return !for_commit && offset == finished;
}

DeadLetter Subscription::letter_of(Offset offset, LetterState state) const {
  const std::string_view line = site_.window.line(lane_, offset);
  std::string scratch;
  DeadLetter letter;
  letter.whose = {spec().name, std::string(key_of(attributes_of(line), scratch))};
  letter.offset = offset;
  letter.state = state;
  letter.time = system_now();
  letter.event = line;
  return letter;
}

bool Subscription::has_ready() const {
  const auto now = Clock::now();
  const auto due = Window::next_due(lane_);
  return Window::has_ready(lane_) || (due && *due <= now) || site_.held.has_ready(spec().name, now);
}

bool Subscription::in_flight(Offset offset) const {
  return Window::in_flight(lane_, offset) || is_letter(offset);
}

std::size_t Subscription::in_flight() const {
  return Window::in_flight(lane_) + releases_.size();
}

std::uint32_t Subscription::attempts_used(Offset offset) const {
  const auto trouble = troubles_.find(offset);
  return trouble == troubles_.end() ? 0 : trouble->second.attempts;
}

std::string_view Subscription::line(Offset offset) const {
  const auto release = releases_.find(offset);
  return release != releases_.end() ? std::string_view(release->second.event)
                                    : site_.window.line(lane_, offset);
}

// --- verdicts

std::string Subscription::place_of_all() const {
  return named(place(site_.place.topic.name, site_.tenure.partition));
}

std::string Subscription::place_of(Offset offset) const {
  const auto release = releases_.find(offset);
  const Partition own = site_.tenure.partition;
  const Partition partition = release == releases_.end() ? own : release->second.from.value_or(own);
  return named(fmt::format("{}, offset {}", place(site_.place.topic.name, partition), offset));
}

std::string Subscription::named(std::string where) const {
  return spec().name == command_line_handler ? where : fmt::format("{}, handler {}", where, spec().name);
}

void Subscription::settle(Offset offset, Verdict verdict, std::string_view why, std::string output,
                          std::optional<Milliseconds> pause) {
  if (site_.place.judge) {
    site_.place.judge({site_.tenure.partition, offset, verdict, why, output});
    site_.window.done(lane_, offset);
    return;
  }
  if (verdict == Verdict::done) {
    handler_->health.succeeded();
    set_up();
    if (!troubles_.empty()) {
      troubles_.erase(offset);
    }
    if (is_letter(offset)) {
      site_.held.handled(releases_.at(offset).whose);
      releases_.erase(offset);
      ++site_.place.handled;
      if (!output.empty()) {
        site_.released_outputs.push_back(std::move(output));
      }
      return;
    }
    if (!output.empty()) {
      site_.outputs_bytes += output.size();
      site_.outputs[offset][spec().name] = std::move(output);
    }
    if (site_.window.done(lane_, offset) == Window::Done::by_all &&
        (site_.place.replay == nullptr || site_.place.replay->closed(site_.tenure.partition, offset))) {
      ++site_.place.handled;
    }
    return;
  }
  check(verdict != Verdict::down, "a handler that is down says nothing about an event");
  auto [found, first] = troubles_.try_emplace(offset);
  Trouble& trouble = found->second;
  if (first) {
    trouble.since = system_now();
  }
  ++trouble.tries;
  trouble.attempts += verdict == Verdict::later ? 0 : 1;
  trouble.error = shortened(why);
  if (is_letter(offset)) {
    trouble.letter = releases_.at(offset).whose;
  }
  const bool used_up = verdict == Verdict::retry && trouble.attempts >= spec().attempts_max;
  if (used_up && !is_letter(offset) && spec().on_failure != OnFailure::halt) {
    handler_->health.exhausted(site_.window.key_hash(offset));
  }
  if (verdict != Verdict::fail && handler_->health.down()) {
    // The next event is tried first when it is time: this one may be bad, and the handler well.
    trouble.attempts -= verdict == Verdict::retry ? 1 : 0;
    set_down(fmt::format("{} (and events of {} keys in a row used up their attempts)", trouble.error,
                         HandlerHealth::keys_max));
    wait_until(offset, down_until_ + behind_others, trouble.attempts);
    return;
  }
  if (verdict == Verdict::fail || used_up) {
    const Trouble last = trouble;
    give_up(offset, last);
    return;
  }
  if (first) {
    site_.place.say(fmt::format("{}: {}; trying again", place_of(offset), trouble.error));
  }
  wait_until(offset, Clock::now() + std::max(backoff(trouble.tries), pause.value_or(Milliseconds(0))),
             trouble.attempts);
}

void Subscription::wait_until(Offset offset, Clock::time_point due, std::uint32_t attempts) {
  if (is_letter(offset)) {
    site_.held.retry(releases_.at(offset).whose, due);
    releases_.erase(offset);
    return;
  }
  site_.window.retry(lane_, offset, due, attempts);
}

void Subscription::try_again_at(Offset offset, Clock::time_point due) {
  wait_until(offset, due, attempts_used(offset));
}

void Subscription::put_back(Offset offset) {
  if (is_letter(offset)) {
    try_again_at(offset, Clock::time_point::min());
    return;
  }
  site_.window.put_back(lane_, offset);
}

Milliseconds Subscription::backoff(std::uint32_t tries) {
  const auto min = static_cast<double>(spec().backoff_min.count());
  const auto max = static_cast<double>(spec().backoff_max.count());
  const double doubled =
      std::min(max, min * static_cast<double>(std::uint64_t{1} << std::min(tries - 1, 40U)));
  // Handlers that failed together should not all come back together.
  std::uniform_real_distribution<double> spread(0.5, 1.0);
  return Milliseconds(static_cast<Milliseconds::rep>(std::max(min * 0.5, doubled * spread(jitter_))));
}

// --- giving up

// The event has had its attempts. `trouble` is a copy: what follows forgets the original.
void Subscription::give_up(Offset offset, const Trouble& trouble) {
  if (is_letter(offset)) {
    fail_letter(offset, trouble);
    return;
  }
  if (spec().on_failure == OnFailure::halt) {
    halt(offset, trouble);
    return;
  }
  if (site_.place.replay != nullptr) {
    give_up_in_replay(offset, trouble);
    return;
  }
  if (site_.held.full()) {
    // Nothing may be lost: without room for its letter it stays where it is.
    troubles_.at(offset).attempts -= 1;
    wait_until(offset, Clock::now() + full_pause, trouble.attempts - 1);
    return;
  }
  const bool holds = spec().on_failure == OnFailure::hold_key;
  DeadLetter letter = letter_of(offset, holds ? LetterState::failed : LetterState::skipped);
  letter.attempts = trouble.attempts;
  letter.reason = trouble.error;
  const Attributes attributes = attributes_of(letter.event);
  site_.place.say(fmt::format(
      "{}, id {}, key {}: gave up after {} attempt{}: {}. {}; see `continuum dead ls -t {} -g {}`",
      place_of(offset), shortened(attributes.id), shortened(letter.whose.key), trouble.attempts,
      trouble.attempts == 1 ? "" : "s", trouble.error,
      holds ? "Its key is held: later events of it wait" : "It is skipped", site_.place.topic.name,
      site_.place.options.group));
  site_.held.park(std::move(letter));
  ++site_.place.failed;
  troubles_.erase(offset);
  site_.window.done(lane_, offset);
}

void Subscription::give_up_in_replay(Offset offset, const Trouble& trouble) {
  LeftKeys& left = *site_.place.replay;
  const bool holds = spec().on_failure == OnFailure::hold_key;
  if (holds && left.full()) {
    halt(offset, trouble);
    return;
  }
  DeadLetter letter = letter_of(offset, holds ? LetterState::failed : LetterState::skipped);
  site_.place.say(fmt::format("{}, id {}, key {}: gave up after {} attempt{}: {}. {}", place_of(offset),
                              shortened(attributes_of(letter.event).id), shortened(letter.whose.key),
                              trouble.attempts, trouble.attempts == 1 ? "" : "s", trouble.error,
                              holds ? "Later events of its key are left out" : "It is skipped"));
  if (holds) {
    left.hold(std::move(letter.whose), site_.tenure.partition, offset);
  }
  ++site_.place.failed;
  troubles_.erase(offset);
  done_in_replay(offset);
}

void Subscription::fail_letter(Offset offset, const Trouble& trouble) {
  const Release release = releases_.at(offset);
  const HeldKey::Failure failure{release.attempts_before + trouble.attempts, system_now(), trouble.error};
  site_.place.say(
      fmt::format("{}, key {}: failed again after its release: {}. {}", place_of(offset),
                  shortened(release.whose.key), trouble.error,
                  spec().on_failure == OnFailure::skip ? "It stays a dead letter" : "Its key is held again"));
  ++site_.place.failed;
  troubles_.erase(offset);
  releases_.erase(offset);
  site_.held.failed(release.whose, failure,
                    spec().on_failure == OnFailure::skip ? HeldEvents::Then::skip : HeldEvents::Then::hold);
}

void Subscription::halt(Offset offset, const Trouble& trouble) {
  // It stays open for ever: nothing behind it of its key starts, and no commit passes it.
  const auto never = Clock::time_point::max();
  site_.place.failed += site_.place.replay != nullptr ? 1U : 0U;
  if (site_.halted) {  // by another event, while this one ran
    site_.window.retry(lane_, offset, never, trouble.attempts);
    return;
  }
  const DeadLetter letter = letter_of(offset, LetterState::failed);
  Doing doing;
  doing.state = "halted";
  doing.handler = spec().name;
  doing.at = offset;
  doing.since = system_now();
  doing.attempt = trouble.attempts;
  doing.error = trouble.error;
  const std::string what_now =
      site_.place.replay != nullptr
          ? "The replay ends. Repair the handler and run it again"
          : fmt::format(
                "The partition is halted for group {}: its later events wait. Repair the handler and "
                "start the worker again",
                site_.place.options.group);
  site_.place.say(fmt::format("{}, id {}, key {}: gave up after {} attempt{}: {}. {}", place_of(offset),
                              shortened(attributes_of(letter.event).id), shortened(letter.whose.key),
                              trouble.attempts, trouble.attempts == 1 ? "" : "s", trouble.error, what_now));
  site_.halted = std::move(doing);
  site_.window.retry(lane_, offset, never, trouble.attempts);
  site_.wake.notify();
}

// --- down

void Subscription::set_down(std::string_view why) {
  if (site_.place.on_down) {
    site_.place.on_down(why);
  }
  ++downs_;
  down_until_ = Clock::now() + backoff(downs_);
  Doing doing;
  doing.state = "down";
  doing.at = site_.window.finished().offset;
  doing.since = down_ ? down_->since : system_now();
  doing.error = shortened(why);
  if (!down_ || down_->error != doing.error) {
    site_.place.say(
        fmt::format("{}: the handler is down: {}. No event is to blame; the partition waits and tries again",
                    place_of_all(), doing.error));
  }
  down_ = std::move(doing);
  site_.wake.notify();
}

void Subscription::set_up() {
  if (handler_->health.down()) {
    return;  // it runs, but nothing succeeds
  }
  if (down_) {
    site_.place.say(fmt::format("{}: the handler works again", place_of_all()));
    down_.reset();
  }
  downs_ = 0;
}

}  // namespace continuum
