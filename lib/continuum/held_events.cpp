#include "continuum/held_events.hpp"

#include "continuum/error.hpp"

#include <algorithm>

namespace continuum {

namespace {

constexpr std::size_t loaded_max = 1'000;  // letters, beside one of each key

}  // namespace

// --- what the server has

void HeldEvents::learn(const HeldKeys& stored) {
  letters_ = stored.letters;
  for (const HeldKey& key : stored.keys) {
    const auto known = keys_.find(key.whose);
    if (known == keys_.end() && key.held == HeldKey::Held::no && !key.request) {
      continue;  // only skipped events: its key goes on
    }
    if (known == keys_.end()) {
      ++handlers_[key.whose.handler];
    }
    Held& held = keys_[key.whose];
    held.holds = key.held == HeldKey::Held::yes || held.parked > 0;
    held.letters = key.letters;
    if (key.request && (held.state == Held::State::held || key.request->text() != held.request.text())) {
      start(key.whose, held, *key.request);
    }
  }
}

void HeldEvents::start(const HandlerKey& whose, Held& held, const LetterRequest& request) {
  // What is running goes on to its end.
  while (held.queue.size() > (held.running ? 1 : 0)) {
    held.queue.pop_back();
    --loaded_;
  }
  held.state = Held::State::releasing;
  held.request = request;
  held.tried = 0;
  held.read_up_to = held.running ? held.queue.front().id : EntryId();
  held.due = Clock::time_point::min();
  releasing_.insert(whose);
}

// --- events that come

bool HeldEvents::any(std::string_view handler) const {
  return !handlers_.empty() && handlers_.find(handler) != handlers_.end();
}

HeldEvents::Way HeldEvents::way_of(std::string_view handler, std::string_view key) const {
  const auto found = keys_.find(HandlerKey{std::string(handler), std::string(key)});
  if (found == keys_.end()) {
    return Way::free;
  }
  return found->second.state == Held::State::freeing || full() ? Way::wait : Way::park;
}

void HeldEvents::park(DeadLetter letter) {
  check(!full(), "there is room for a letter");
  if (letter.state != LetterState::skipped) {
    const auto [held, added] = keys_.try_emplace(letter.whose);
    handlers_[letter.whose.handler] += added ? 1 : 0;
    held->second.holds = true;
    ++held->second.parked;
  }
  ++parked_;
  parked_bytes_ += letter.event.size();
  parked_letters_[letter.offset].push_back(std::move(letter));
}

// --- letters that are released

std::optional<EntryId> HeldEvents::wants_letters_after() const {
  std::optional<EntryId> after;
  for (const HandlerKey& whose : releasing_) {
    const Held& held = keys_.at(whose);
    const bool wants =
        held.state == Held::State::releasing && held.queue.empty() && held.letters > held.tried;
    if (wants && (!after || held.read_up_to < *after)) {
      after = held.read_up_to;
    }
  }
  return after;
}

void HeldEvents::give(std::vector<DeadLetter> letters, EntryId read_up_to, More more) {
  std::set<HandlerKey> passed_over;  // what comes later of a key must not be taken before
  for (DeadLetter& letter : letters) {
    if (!releasing_.contains(letter.whose) || passed_over.contains(letter.whose)) {
      continue;
    }
    Held& held = keys_.at(letter.whose);
    if (held.state != Held::State::releasing || letter.id <= held.read_up_to) {
      continue;
    }
    if (loaded_ >= loaded_max && !held.queue.empty()) {
      passed_over.insert(letter.whose);
      continue;
    }
    held.read_up_to = letter.id;
    ++loaded_;
    held.queue.push_back(std::move(letter));
  }
  for (const HandlerKey& whose : std::set(releasing_)) {  // a copy: some end here
    Held& held = keys_.at(whose);
    if (held.state != Held::State::releasing || passed_over.contains(whose)) {
      continue;
    }
    held.read_up_to = std::max(held.read_up_to, read_up_to);
    if (more == More::no) {
      // Somebody may have removed letters by hand.
      const std::uint64_t there = held.queue.size() + held.tried;
      letters_ -= std::min(letters_, held.letters - std::min(held.letters, there));
      held.letters = there;
    }
    if (held.request.what == LetterRequest::What::discard) {
      discard_loaded(whose, held);
    }
  }
}

void HeldEvents::take_away(const HandlerKey& whose, Held& held, LetterStep::What what) {
  steps_.push_back({what, held.queue.front().id, whose, {}});
  held.queue.pop_front();
  --loaded_;
  held.letters -= held.letters > 0 ? 1 : 0;
  letters_ -= letters_ > 0 ? 1 : 0;
}

void HeldEvents::discard_loaded(const HandlerKey& whose, Held& held) {
  while (!held.queue.empty() && !held.running) {
    const EntryId id = held.queue.front().id;
    if (held.request.first <= id && id <= held.request.last) {
      take_away(whose, held, LetterStep::What::discard);
      continue;
    }
    held.queue.pop_front();
    --loaded_;
    ++held.tried;
  }
  if (held.letters > 0 && over(held)) {
    // The rest stays as it is, and goes on holding its key.
    steps_.push_back({LetterStep::What::answered, {}, whose, {}});
    stop(whose, held);
  }
}

const DeadLetter* HeldEvents::take(std::string_view handler, Clock::time_point now) {
  for (const HandlerKey& whose : releasing_) {
    Held& held = keys_.at(whose);
    if (whose.handler == handler && held.state == Held::State::releasing &&
        held.request.what == LetterRequest::What::retry && !held.running && !held.queue.empty() &&
        held.due <= now) {
      held.running = true;
      ++running_;
      return &held.queue.front();
    }
  }
  return nullptr;
}

std::optional<HeldEvents::Clock::time_point> HeldEvents::next_due(std::string_view handler) const {
  std::optional<Clock::time_point> next;
  for (const HandlerKey& whose : releasing_) {
    const Held& held = keys_.at(whose);
    if (whose.handler == handler && !held.running && !held.queue.empty() && (!next || held.due < *next)) {
      next = held.due;
    }
  }
  return next;
}

void HeldEvents::handled(const HandlerKey& whose) {
  Held& held = keys_.at(whose);
  check(held.running, "a letter that is handled was running");
  held.running = false;
  held.due = Clock::time_point::min();
  --running_;
  take_away(whose, held, LetterStep::What::done);
  if (held.request.what == LetterRequest::What::discard) {
    discard_loaded(whose, held);
  }
}

void HeldEvents::retry(const HandlerKey& whose, Clock::time_point due) {
  Held& held = keys_.at(whose);
  check(held.running, "a letter that is tried again was running");
  held.running = false;
  held.due = due;
  --running_;
  if (held.request.what == LetterRequest::What::discard) {
    discard_loaded(whose, held);
  }
}

void HeldEvents::failed(const HandlerKey& whose, const HeldKey::Failure& failure, Then then) {
  Held& held = keys_.at(whose);
  check(held.running, "a letter that failed was running");
  held.running = false;
  held.due = Clock::time_point::min();
  --running_;
  steps_.push_back({LetterStep::What::failed, held.queue.front().id, whose, failure});
  if (held.request.what == LetterRequest::What::discard) {
    discard_loaded(whose, held);
  } else if (then == Then::skip) {
    held.queue.pop_front();
    --loaded_;
    ++held.tried;
  } else {
    steps_.push_back({LetterStep::What::answered, {}, whose, {}});
    stop(whose, held);
  }
}

void HeldEvents::stop(const HandlerKey& whose, Held& held) {
  loaded_ -= held.queue.size();
  held.queue.clear();
  held.tried = 0;
  held.state = Held::State::held;
  releasing_.erase(whose);
  if (!held.holds) {
    forget(whose);
  }
}

// --- commits

// Nothing is left to be done for this release.
bool HeldEvents::over(const Held& held) {
  return held.queue.empty() && !held.running && held.letters == held.tried;
}

bool HeldEvents::waits_for_commit() const {
  return !steps_.empty() || std::any_of(releasing_.begin(), releasing_.end(), [&](const HandlerKey& whose) {
    const Held& held = keys_.at(whose);
    return held.state == Held::State::releasing && over(held) && held.parked == 0;
  });
}

void HeldEvents::collect(Commit& commit) {
  const auto end = parked_letters_.lower_bound(commit.cursor.offset);
  for (auto at = parked_letters_.begin(); at != end; ++at) {
    for (DeadLetter& letter : at->second) {
      parked_bytes_ -= letter.event.size();
      --parked_;
      ++letters_;
      if (letter.state != LetterState::skipped) {
        Held& held = keys_.at(letter.whose);
        --held.parked;
        ++held.letters;
      }
      commit.letters.push_back(std::move(letter));
    }
  }
  parked_letters_.erase(parked_letters_.begin(), end);
  commit.steps = std::exchange(steps_, {});
  for (const HandlerKey& whose : releasing_) {
    Held& held = keys_.at(whose);
    // Events of the key that are parked and not stored would be left behind: the release goes on with them.
    if (held.state == Held::State::releasing && over(held) && held.parked == 0) {
      commit.steps.push_back({LetterStep::What::free, {}, whose, {}});
      held.state = Held::State::freeing;
    }
  }
}

void HeldEvents::committed() {
  for (const HandlerKey& whose : std::set(releasing_)) {
    if (keys_.at(whose).state == Held::State::freeing) {
      forget(whose);
    }
  }
}

void HeldEvents::forget(const HandlerKey& whose) {
  releasing_.erase(whose);
  keys_.erase(whose);
  const auto handler = handlers_.find(whose.handler);
  if (--handler->second == 0) {
    handlers_.erase(handler);
  }
}

}  // namespace continuum
