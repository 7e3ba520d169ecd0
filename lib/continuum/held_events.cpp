#include "continuum/held_events.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"

#include <algorithm>

namespace continuum {

namespace {

std::uint64_t without(std::uint64_t count, std::uint64_t taken) {
  return count - std::min(count, taken);
}

}  // namespace

// --- what the server has

void HeldEvents::learn(const HeldKeys& stored) {
  std::map<HandlerKey, std::uint64_t> taken;
  for (const LetterStep& step : steps_) {
    taken[step.whose] += taken_.contains(step.id) && step.what != LetterStep::What::failed ? 1U : 0U;
  }
  letters_ = without(stored.letters, taken_.size());
  for (const HeldKey& stored_key : stored.keys) {
    const bool frozen = frozen_ && frozen_(stored_key.whose.key);
    if (stored_key.held == HeldKey::Held::no && (!stored_key.request || frozen) &&
        !keys_.contains(stored_key.whose)) {
      continue;  // only skipped events: its key goes on
    }
    Key& key = add(stored_key.whose);
    Held& held = key.second;
    held.holds = stored_key.held == HeldKey::Held::yes || held.parked > 0;
    const auto mine = taken.find(stored_key.whose);
    held.letters = without(stored_key.letters, mine == taken.end() ? 0 : mine->second);
    if (stored_key.request && !frozen &&
        (held.state == Held::State::held || stored_key.request->text() != held.request.text())) {
      start(key, *stored_key.request);
    }
    settle(key);
  }
}

void HeldEvents::dropped(const HandlerKey& whose, std::uint64_t letters) {
  letters_ = without(letters_, letters);
  const auto found = keys_.find(whose);
  if (found == keys_.end()) {
    return;
  }
  const Held& held = found->second;
  check(held.state == Held::State::held && held.parked == 0, "nothing is done for a key that is frozen");
  unlist(*found);
  forget(*found);
}

HeldEvents::Key& HeldEvents::add(const HandlerKey& whose) {
  const auto [key, added] = keys_.try_emplace(whose);
  hashes_[hash_of_key(whose.key)] += added ? 1 : 0;
  return *key;
}

void HeldEvents::start(Key& key, const LetterRequest& request) {
  auto& [whose, held] = key;
  // What is running goes on to its end.
  while (held.queue.size() > (held.running ? 1U : 0U)) {
    loaded_bytes_ -= held.queue.back().event.size();
    --loaded_;
    held.queue.pop_back();
  }
  // The answer to an earlier request must not take this one away.
  std::erase_if(steps_, [&mine = whose](const LetterStep& step) {
    return step.what == LetterStep::What::answered && step.whose == mine;
  });
  held.state = Held::State::releasing;
  held.request = request;
  held.tried = 0;
  held.read_up_to = held.running ? held.queue.front().id : EntryId();
  held.due = Clock::time_point::min();
  releasing_.insert(&key);
}

// --- lists

bool HeldEvents::over(const Held& held) {
  return held.queue.empty() && !held.running && held.letters <= held.tried;
}

void HeldEvents::list(Key& key) {
  unlist(key);
  auto& [whose, held] = key;
  if (held.state != Held::State::releasing || held.running) {
    return;
  }
  if (!held.queue.empty()) {
    if (held.request.what == LetterRequest::What::retry) {
      held.listed = Held::Listed::ready;
      held.listed_due = held.due;
      ready_[whose.handler].emplace(held.due, &key);
    }
  } else if (!over(held)) {
    held.listed = Held::Listed::wanting;
    held.listed_after = held.read_up_to;
    wanting_.emplace(held.read_up_to, &key);
    held.in_reading = !reading_ || held.read_up_to >= *reading_;
    in_reading_ += held.in_reading ? 1U : 0U;
  } else if (held.parked == 0) {
    // Events of the key that are parked and not stored would be left behind: the release goes on with those.
    held.listed = Held::Listed::over;
    over_.insert(&key);
  }
}

void HeldEvents::unlist(Key& key) {
  auto& [whose, held] = key;
  switch (std::exchange(held.listed, Held::Listed::nowhere)) {
    case Held::Listed::nowhere:
      break;
    case Held::Listed::ready: {
      const auto mine = ready_.find(whose.handler);
      mine->second.erase({held.listed_due, &key});
      if (mine->second.empty()) {
        ready_.erase(mine);
      }
      break;
    }
    case Held::Listed::wanting:
      wanting_.erase({held.listed_after, &key});
      in_reading_ -= std::exchange(held.in_reading, false) ? 1U : 0U;
      break;
    case Held::Listed::over:
      over_.erase(&key);
      break;
  }
}

// --- events that come

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
    Key& key = add(letter.whose);
    key.second.holds = true;
    ++key.second.parked;
    list(key);
  }
  ++parked_;
  parked_bytes_ += letter.event.size();
  parked_letters_[letter.offset].push_back(std::move(letter));
}

// --- letters that are released

std::optional<EntryId> HeldEvents::wants_letters_after() {
  if (wanting_.empty()) {
    return std::nullopt;
  }
  if (!reading_) {
    reading_ = wanting_.begin()->first;
  }
  return reading_;
}

void HeldEvents::load(Held& held, DeadLetter letter) {
  held.read_up_to = letter.id;
  ++loaded_;
  loaded_bytes_ += letter.event.size();
  held.queue.push_back(std::move(letter));
}

void HeldEvents::unload_front(Held& held) {
  --loaded_;
  loaded_bytes_ -= held.queue.front().event.size();
  held.queue.pop_front();
}

void HeldEvents::give(std::vector<DeadLetter> letters, EntryId read_up_to, More more) {
  enum class Passed : std::uint8_t { nothing, some };
  std::map<Key*, Passed> takers;
  for (DeadLetter& letter : letters) {
    const auto found = keys_.find(letter.whose);
    if (found == keys_.end() || taken_.contains(letter.id)) {
      continue;
    }
    Held& held = found->second;
    const auto taker = takers.find(&*found);
    const bool first = taker == takers.end();
    if (letter.id <= held.read_up_to || (first && !held.in_reading)) {
      continue;
    }
    if (!first && (loaded_ >= loaded_max || loaded_bytes_ >= loaded_bytes_max)) {
      taker->second = Passed::some;
    }
    if (first || taker->second == Passed::nothing) {  // what comes later of a key must not be taken before
      takers.try_emplace(&*found, Passed::nothing);
      load(held, std::move(letter));
    }
  }
  if (more == More::no) {
    for (const auto& [read, key] : wanting_) {
      if (key->second.in_reading) {
        takers.try_emplace(key, Passed::nothing);
      }
    }
  }
  reading_.reset();
  if (more == More::yes) {
    reading_ = read_up_to;
  }
  for (const auto& [key, passed] : takers) {
    Held& held = key->second;
    if (passed == Passed::nothing) {
      held.read_up_to = std::max(held.read_up_to, read_up_to);
      if (more == More::no) {
        // Somebody may have removed letters by hand.
        const std::uint64_t there = held.queue.size() + held.tried;
        letters_ = without(letters_, without(held.letters, there));
        held.letters = there;
      }
    }
    settle(*key);
  }
  begin_reading();
}

// A reading goes through the letters once, for all keys that want some when it begins. Those that want some
// when it has come further than they have wait for the next one.
void HeldEvents::begin_reading() {
  if (reading_ && in_reading_ > 0) {
    return;
  }
  reading_.reset();
  for (const auto& [after, key] : wanting_) {
    in_reading_ += key->second.in_reading ? 0U : 1U;
    key->second.in_reading = true;
  }
}

bool HeldEvents::has_ready(std::string_view handler, Clock::time_point now) const {
  const auto mine = ready_.find(handler);
  return mine != ready_.end() && mine->second.begin()->first <= now;
}

const DeadLetter* HeldEvents::take(std::string_view handler, Clock::time_point now) {
  if (!has_ready(handler, now)) {
    return nullptr;
  }
  Key& key = *ready_.find(handler)->second.begin()->second;
  key.second.running = true;
  ++running_;
  list(key);
  return &key.second.queue.front();
}

std::optional<HeldEvents::Clock::time_point> HeldEvents::next_due(std::string_view handler,
                                                                  Clock::time_point now) const {
  const auto mine = ready_.find(handler);
  if (mine == ready_.end()) {
    return std::nullopt;
  }
  const auto later = mine->second.lower_bound({now + Clock::duration(1), nullptr});
  return later == mine->second.end() ? std::nullopt : std::optional(later->first);
}

bool HeldEvents::releasing(std::string_view handler) const {
  return std::any_of(releasing_.begin(), releasing_.end(),
                     [&](const Key* key) { return key->first.handler == handler; });
}

bool HeldEvents::discarding() const {
  return std::any_of(releasing_.begin(), releasing_.end(), [&](const Key* key) {
    return key->second.state == Held::State::releasing &&
           key->second.request.what == LetterRequest::What::discard;
  });
}

bool HeldEvents::is_next(const HandlerKey& whose, Offset offset) const {
  const auto found = keys_.find(whose);
  return found != keys_.end() && !found->second.queue.empty() && found->second.queue.front().offset == offset;
}

HeldEvents::Key& HeldEvents::running(const HandlerKey& whose) {
  const auto found = keys_.find(whose);
  check(found != keys_.end() && found->second.running, "a verdict is about a letter that is running");
  return *found;
}

void HeldEvents::handled(const HandlerKey& whose) {
  Key& key = running(whose);
  key.second.running = false;
  key.second.due = Clock::time_point::min();
  --running_;
  take_away(key, LetterStep::What::done);
  settle(key);
}

void HeldEvents::retry(const HandlerKey& whose, Clock::time_point due) {
  Key& key = running(whose);
  key.second.running = false;
  key.second.due = due;
  --running_;
  settle(key);
}

void HeldEvents::failed(const HandlerKey& whose, const HeldKey::Failure& failure, Then then) {
  Key& key = running(whose);
  Held& held = key.second;
  held.running = false;
  held.due = Clock::time_point::min();
  --running_;
  steps_.push_back({LetterStep::What::failed, held.queue.front().id, key.first, failure});
  if (held.request.what == LetterRequest::What::retry && then == Then::hold) {
    steps_.push_back({LetterStep::What::answered, {}, key.first, {}});
    stop(key);
    return;
  }
  if (held.request.what == LetterRequest::What::retry) {
    unload_front(held);
    ++held.tried;
  }
  settle(key);
}

void HeldEvents::take_away(Key& key, LetterStep::What what) {
  Held& held = key.second;
  steps_.push_back({what, held.queue.front().id, key.first, {}});
  taken_.insert(held.queue.front().id);
  unload_front(held);
  held.letters = without(held.letters, 1);
  letters_ = without(letters_, 1);
}

// Something has changed: discards what is to be discarded, and lists the key.
void HeldEvents::settle(Key& key) {
  if (key.second.state == Held::State::releasing && key.second.request.what == LetterRequest::What::discard) {
    discard_loaded(key);
    return;
  }
  list(key);
}

void HeldEvents::discard_loaded(Key& key) {
  Held& held = key.second;
  while (!held.queue.empty() && !held.running) {
    const EntryId id = held.queue.front().id;
    if (held.request.first <= id && id <= held.request.last) {
      take_away(key, LetterStep::What::discard);
      continue;
    }
    unload_front(held);
    ++held.tried;
  }
  if (held.letters > 0 && over(held)) {
    // The rest stays as it is, and goes on holding its key.
    steps_.push_back({LetterStep::What::answered, {}, key.first, {}});
    stop(key);
    return;
  }
  list(key);
}

void HeldEvents::stop(Key& key) {
  Held& held = key.second;
  while (!held.queue.empty()) {
    unload_front(held);
  }
  held.tried = 0;
  held.state = Held::State::held;
  releasing_.erase(&key);
  list(key);
  if (!held.holds) {
    forget(key);
  }
}

// --- commits

bool HeldEvents::waits_for_commit() const {
  return !steps_.empty() || !over_.empty();
}

void HeldEvents::collect(Commit& commit) {
  const auto end = parked_letters_.lower_bound(commit.cursor.offset);
  for (auto at = parked_letters_.begin(); at != end; ++at) {
    for (DeadLetter& letter : at->second) {
      parked_bytes_ -= letter.event.size();
      --parked_;
      ++letters_;
      if (letter.state != LetterState::skipped) {
        Key& key = *keys_.find(letter.whose);
        --key.second.parked;
        ++key.second.letters;
        list(key);
      }
      commit.letters.push_back(std::move(letter));
    }
  }
  parked_letters_.erase(parked_letters_.begin(), end);
  commit.steps = std::exchange(steps_, {});
  taken_.clear();
  for (Key* const key : std::exchange(over_, {})) {
    Held& held = key->second;
    held.listed = Held::Listed::nowhere;
    held.state = Held::State::freeing;
    commit.steps.push_back({LetterStep::What::free, {}, key->first, {}, held.tried});
  }
}

void HeldEvents::committed() {
  for (auto at = releasing_.begin(); at != releasing_.end();) {
    Key& key = **at++;
    if (key.second.state == Held::State::freeing) {
      forget(key);
    }
  }
}

void HeldEvents::forget(Key& key) {
  releasing_.erase(&key);
  const auto hash = hashes_.find(hash_of_key(key.first.key));
  if (--hash->second == 0) {
    hashes_.erase(hash);
  }
  keys_.erase(keys_.find(key.first));
}

}  // namespace continuum
