// How a partition's worker passes from one generation of the ring to the next (PROTOCOLS: Barriers).
//
// At a barrier three things happen in this order, each committed under the fence before the next begins:
//
//   1. everything before the barrier is handled; letters that had moved away earlier are dropped; `import` is
//      set to the generation. From here on the letters of keys that it moves away stand still.
//   2. of each partition that gives keys to this one, once it has come to 1: its letters of those keys are
//      copied here.
//   3. `passed` is the generation, the cursor stands behind the barrier.
//
// Partitions that give keys to each other wait for each other's 1, which waits for nobody's 2: there is no
// circle. What was copied is dropped where it came from when the receiver has passed the generation.
#include "continuum/barrier_watch.hpp"
#include "continuum/error.hpp"
#include "continuum/held_events.hpp"
#include "continuum/partition_worker.hpp"
#include "continuum/resize_steps.hpp"

#include <algorithm>
#include <utility>

namespace continuum {

namespace {

constexpr Milliseconds barrier_poll{50};
constexpr Milliseconds cross_pause_min{10};
constexpr Milliseconds cross_pause_max{300};
constexpr Milliseconds tidy_every{500};
// A coordinator that is alive needs far less: after this the worker does the rest of the resize.
constexpr Milliseconds help_after{2'000};
// Copied or dropped by one commit.
constexpr std::size_t letters_at_once = 200;
constexpr std::size_t letter_bytes_at_once = std::size_t{4} << 20;

}  // namespace

const Ring* Rings::of(Generation generation) {
  if (const auto known = rings_.find(generation); known != rings_.end()) {
    return &known->second;
  }
  const auto description = topic_.rings.find(generation);
  if (description == topic_.rings.end() || generation > topic_.active) {
    return nullptr;  // one that is pending may still be aborted, and is another one then
  }
  return &rings_.try_emplace(generation, description->second).first->second;
}

const std::vector<Partition>& Rings::donors(Generation generation, Partition to) {
  auto known = donors_.find(generation);
  if (known == donors_.end()) {
    const Ring* const before = of(Generation(generation.value - 1));
    const Ring* const after = of(generation);
    check(before != nullptr && after != nullptr, "a generation that is in force is described");
    known = donors_.emplace(generation, continuum::donors(*before, *after)).first;
  }
  return known->second[to];
}

bool PartitionWorker::is_mine(Generation generation, std::string_view key) const {
  const Ring* const ring = shift_.rings->of(generation);
  return ring != nullptr && ring->owner(key) == tenure_.partition;
}

// A key that was never ours by any ring is left where somebody put it.
bool PartitionWorker::leaves_with(Generation generation, std::string_view key) const {
  return generation > Generation(1) && is_mine(Generation(generation.value - 1), key) &&
         !is_mine(generation, key);
}

bool PartitionWorker::is_frozen(std::string_view key) const {
  return leaves_with(tenure_.passed, key) ||
         (import_.generation > tenure_.passed && leaves_with(import_.generation, key)) ||
         // Copied, and not ours before we have passed.
         (import_.generation > tenure_.passed && is_mine(import_.generation, key) &&
          !is_mine(Generation(import_.generation.value - 1), key));
}

// --- going past one

// All before the barrier at the front is committed.
asio::awaitable<void> PartitionWorker::cross_barrier() {
  const Entry entry = queue_->front()->entry;
  if (entry.first != expected_) {
    gap_ = entry.first;
    co_return;
  }
  const bool passed = co_await cross(*entry.barrier, {expected_, entry.id});
  if (passed) {
    queue_->take();
  } else {
    co_await stand_at(*entry.barrier);
  }
  cross_pause_ = passed ? Milliseconds(0) : std::clamp(2 * cross_pause_, cross_pause_min, cross_pause_max);
  cross_at_ = Clock::now() + cross_pause_;
}

// It was tried to go past, and others have to come somewhere first. A drained run does not wait for what will
// not come.
asio::awaitable<void> PartitionWorker::stand_at(Generation generation) {
  if (awaited_.what == Awaited::What::nothing || !ours()) {
    co_return;
  }
  co_await shift_.watch->waits(tenure_.partition, generation, awaited_);
  const auto in_vain = shift_.watch->in_vain(tenure_.partition);
  if (std::exchange(in_vain_, in_vain.has_value()) || !in_vain) {
    co_return;
  }
  const bool itself = in_vain->behind == in_vain->idle;
  shift_.tell(fmt::format("waits at generation {} of the ring for partition {}, {}on which nobody goes on: "
                          "this run ends. `continuum inspect why -t {} -g {}` says more",
                          generation, in_vain->behind,
                          itself ? "" : fmt::format("which waits for partition {}, ", in_vain->idle),
                          place_.topic.name, place_.options.group),
              tenure_.partition);
  shift_.on_ended();
}

// Commits when nothing runs, and begins anew: handlers are told the generation, and letters may stand still
// from here on, or no longer. False: something runs still, or it is not ours any more.
asio::awaitable<bool> PartitionWorker::commit_between(Commit what) {
  if (sink_) {
    if (sink_->running()) {
      co_return false;
    }
    co_await sink_->end(Leave::gently);
    sink_->collect(what);
  }
  const bool kept = co_await commit_beside(std::move(what));
  if (kept && sink_) {
    make_sink(committed_);
    co_await learn_held();
  }
  co_return kept;
}

// Catches up with the generations before the cursor, whose barriers are not read any more.
asio::awaitable<void> PartitionWorker::reach(Generation generation) {
  if (generation <= tenure_.passed) {
    co_return;
  }
  // What was emitted before a key came to another partition is published before what is emitted there.
  while (!outbox_drained()) {
    outbox_->throw_if_failed();
    if (outbox_->fenced()) {
      lost_ = Kept::fenced;
    }
    const bool goes_on = co_await pause();
    if (!goes_on) {
      co_return;
    }
  }
  for (Generation next = tenure_.passed + 1; next <= generation; ++next) {
    const bool concerned = next == generation || is_in(next) || is_in(Generation(next.value - 1));
    while (concerned) {
      const bool passed = co_await cross(next, committed_);
      if (passed) {
        break;
      }
      co_await stand_at(next);
      if (in_vain_ && !shared()) {
        co_return;
      }
      const bool goes_on = co_await pause();
      if (!goes_on) {
        co_return;
      }
    }
  }
}

// Tries to. False: others have to do something first, or it is not ours any more.
asio::awaitable<bool> PartitionWorker::cross(Generation generation, Cursor behind) {
  awaited_ = {};
  if (generation > Generation(1) && generation > tenure_.passed) {
    const bool active = co_await in_force(generation);
    if (!active) {
      co_return false;
    }
    if (import_.generation < generation) {
      const bool dropped = co_await drop_departed();
      if (!dropped) {
        co_return false;
      }
      const bool begun = co_await commit_between(
          commit_at(committed_, tenure_.passed, Import{generation, std::nullopt, {}}));
      if (!begun) {
        co_return false;
      }
    }
    const bool taken = co_await take_over_letters(generation);
    if (!taken) {
      co_return false;
    }
  }
  const bool done =
      co_await commit_between(commit_at(behind, std::max(tenure_.passed, generation), Import{}));
  if (done) {
    shift_.watch->passed(tenure_.partition);
  }
  tidying_ = true;
  in_vain_ = false;
  co_return done;
}

Commit PartitionWorker::commit_at(const Cursor& cursor, Generation passed,
                                  std::optional<Import> import) const {
  Commit commit;
  commit.cursor = cursor;
  commit.passed = passed;
  commit.import = import;
  commit.emit_topic = outbox_ ? shift_.emit_target->topic().name : std::string();
  return commit;
}

bool PartitionWorker::is_in(Generation generation) const {
  const auto ring = place_.topic.rings.find(generation);
  return ring != place_.topic.rings.end() &&
         std::any_of(ring->second.members.begin(), ring->second.members.end(),
                     [&](const RingMember& member) { return member.partition == tenure_.partition; });
}

// Commits what is not about events; everything else is committed.
asio::awaitable<bool> PartitionWorker::commit_beside(Commit what) {
  const Generation passed = what.passed;
  const std::optional<Import> import = what.import;
  const Cursor cursor = what.cursor;
  const std::uint64_t number = number_;
  committing_ = true;
  co_await commit(std::move(what));
  if (commit_error_) {
    std::rethrow_exception(std::exchange(commit_error_, nullptr));
  }
  if (number_ == number) {
    co_return false;
  }
  committed_ = cursor;
  tenure_.passed = passed;
  if (import) {
    import_ = *import;
  }
  co_return true;
}

asio::awaitable<void> PartitionWorker::refresh_topic() {
  const Topic topic = co_await reload_topic(shift_.control, place_.topic.name, place_.topic.log_id);
  shift_.saw_topic(topic);
}

asio::awaitable<bool> PartitionWorker::in_force(Generation generation) {
  if (place_.topic.active < generation) {
    co_await shift_.watch->look_at_topic();
  }
  if (place_.topic.active >= generation) {
    not_in_force_since_.reset();
    if (!place_.topic.rings.contains(generation) ||
        !place_.topic.rings.contains(Generation(generation.value - 1))) {
      fail(ErrorKind::loss,
           "{}: the topic does not describe generation {} of its ring, or the one before, which its log "
           "speaks of; see {}",
           where_, generation, lost_resize_section);
    }
    co_return true;
  }
  if (!not_in_force_since_) {
    not_in_force_since_ = Clock::now();
  }
  if (Clock::now() - *not_in_force_since_ >= help_after) {
    not_in_force_since_.reset();
    co_await shift_.watch->help(generation);
  }
  co_return false;
}

// --- letters that others have now

asio::awaitable<bool> PartitionWorker::have_passed(const std::set<Partition>& partitions,
                                                   Generation generation) {
  redis::Request request;
  for (const Partition partition : partitions) {
    request.command("HGET", group_key(place_.topic.name, partition, place_.options.group), "passed");
  }
  if (request.empty()) {
    co_return true;
  }
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  for (std::size_t i = 0; i < replies.size(); ++i) {
    if (replies[i].is_nil() || replies[i].number() < generation.value) {
      co_return false;
    }
  }
  co_return true;
}

// True when nothing of that kind is left here. False: its new owners do not have all of it yet.
asio::awaitable<bool> PartitionWorker::drop_departed() {
  if (import_.generation > tenure_.passed) {
    co_return true;  // done before the mark. What is here of such keys now has been copied here since
  }
  redis::Request request;
  request.command("HGETALL", keys_.held);
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  HeldKeys held = parse_held(replies[0]);
  if (held.keys.empty() || tenure_.passed <= Generation(1)) {
    co_return true;
  }
  const Ring* const ring = shift_.rings->of(tenure_.passed);
  if (ring == nullptr) {
    co_await refresh_topic();
    co_return false;
  }
  std::erase_if(held.keys, [&](const HeldKey& key) { return !leaves_with(tenure_.passed, key.whose.key); });
  if (held.keys.empty()) {
    co_return true;
  }
  std::set<Partition> owners;
  for (const HeldKey& key : held.keys) {
    owners.insert(ring->owner(key.whose.key));
  }
  const bool taken = co_await have_passed(owners, tenure_.passed);
  if (!taken) {
    awaited_ = {Awaited::What::passed, tenure_.passed, {owners.begin(), owners.end()}};
    co_return false;
  }
  co_return co_await drop_letters(held.keys);
}

asio::awaitable<bool> PartitionWorker::drop_letters(const std::vector<HeldKey>& keys) {
  std::set<HandlerKey> gone;
  for (const HeldKey& key : keys) {
    gone.insert(key.whose);
  }
  EntryId after;
  for (bool more = true; more;) {
    redis::Request request;
    request.command("XRANGE", keys_.dead, "(" + after.text(), "+", "COUNT", letters_at_once);
    const redis::Replies replies = co_await shift_.control.call(std::move(request));
    more = replies[0].size() == letters_at_once;
    Commit commit = commit_at(committed_, tenure_.passed, std::nullopt);
    for (std::size_t i = 0; i < replies[0].size(); ++i) {
      const DeadLetter letter = parse_dead_letter(replies[0][i]);
      after = letter.id;
      if (gone.contains(letter.whose)) {
        commit.steps.push_back({LetterStep::What::discard, letter.id, letter.whose, {}});
      }
    }
    for (const HandlerKey& whose : gone) {
      if (!more) {
        commit.steps.push_back({LetterStep::What::free, {}, whose, {}});
      }
    }
    if (commit.steps.empty()) {
      continue;
    }
    const bool kept = co_await commit_beside(std::move(commit));
    if (!kept) {
      co_return false;
    }
  }
  if (HeldEvents* const held = sink_ ? sink_->held() : nullptr) {
    for (const HeldKey& key : keys) {
      held->dropped(key.whose, key.letters);
    }
  }
  co_return true;
}

// --- letters that come from others

asio::awaitable<bool> PartitionWorker::take_over_letters(Generation generation) {
  const auto donors = co_await shift_.watch->donors_with_letters(generation, tenure_.partition, learn_since_);
  if (!donors) {
    awaited_ = {Awaited::What::stands_still, generation, {}};
    co_return false;
  }
  for (const Partition donor : *donors) {
    if (import_.donor && donor < *import_.donor) {
      continue;
    }
    const EntryId after = import_.donor == donor ? import_.last : EntryId();
    const bool copied = co_await copy_letters(generation, donor, after);
    if (!copied) {
      co_return false;
    }
  }
  co_return true;
}

// The donor's letters of keys that are ours now, in their order. They stand still there until we have passed.
asio::awaitable<bool> PartitionWorker::copy_letters(Generation generation, Partition donor, EntryId after) {
  const GroupKeys theirs(place_.topic.name, donor, place_.options.group);
  redis::Request ask;
  ask.command("HGETALL", theirs.held);
  const redis::Replies answer = co_await shift_.control.call(std::move(ask));
  std::map<HandlerKey, HeldKey> keys;
  const Ring* const before = shift_.rings->of(Generation(generation.value - 1));
  check(before != nullptr, "a generation that is in force has one before it");
  for (HeldKey& key : parse_held(answer[0]).keys) {
    if (is_mine(generation, key.whose.key) && before->owner(key.whose.key) == donor) {
      keys.emplace(key.whose, std::move(key));
    }
  }
  if (keys.empty()) {
    co_return true;
  }
  for (bool more = true; more;) {
    redis::Request request;
    request.command("XRANGE", theirs.dead, "(" + after.text(), "+", "COUNT", letters_at_once);
    const redis::Replies replies = co_await shift_.control.call(std::move(request));
    const redis::Reply letters = replies[0];
    Commit commit = commit_at(committed_, tenure_.passed, std::nullopt);
    std::size_t bytes = 0;
    std::size_t read = 0;
    for (; read < letters.size() && bytes < letter_bytes_at_once; ++read) {
      DeadLetter letter = parse_dead_letter(letters[read]);
      after = letter.id;
      const auto key = keys.find(letter.whose);
      if (key == keys.end()) {
        continue;
      }
      // Those that were tried in vain and stay behind hold their key no longer.
      if (key->second.held == HeldKey::Held::no) {
        letter.state = LetterState::skipped;
      }
      letter.from = letter.from.value_or(donor);
      bytes += letter.event.size();
      commit.letters.push_back(std::move(letter));
    }
    more = read < letters.size() || letters.size() == letters_at_once;
    for (const auto& [whose, key] : keys) {
      if (!more && key.failure) {
        commit.steps.push_back({LetterStep::What::failed, {}, whose, *key.failure});
      }
      // What is to be discarded was named by its place there.
      if (!more && key.request && key.request->what == LetterRequest::What::retry) {
        commit.steps.push_back({LetterStep::What::asked, {}, whose, {}, 0, *key.request});
      }
    }
    // Behind the last one: a letter with a higher id than any, so that nothing of it is copied again.
    commit.import = Import{generation, donor, more ? after : EntryId{number_max, 0}};
    const bool kept = co_await commit_beside(std::move(commit));
    if (!kept) {
      co_return false;
    }
  }
  co_return true;
}

// --- beside the events

// Of every generation that its log has not come to the end of.
bool PartitionWorker::out_of_ring() const {
  return std::none_of(place_.topic.rings.begin(), place_.topic.rings.end(),
                      [&](const auto& ring) { return ring.first >= tenure_.passed && is_in(ring.first); });
}

// Lets go of what others have taken over, and finds out whether anything is left to do here.
asio::awaitable<void> PartitionWorker::tidy_up() {
  tidy_at_ = Clock::now() + tidy_every;
  tidying_ = false;
  const bool dropped = co_await drop_departed();
  const bool out = out_of_ring();
  tidying_ = tidying_ || !dropped || out;
  const bool empty = sink_->empty() && !sink_->running() && all_committed() && outbox_drained();
  if (dropped && out && empty && ours() && !std::exchange(retired_, true)) {
    shift_.tell(
        fmt::format("left the ring, and group {} is done with all that was in it", place_.options.group),
        tenure_.partition);
    shift_.on_ended();
  }
}

void PartitionWorker::ring_changed() {
  tidying_ = true;
  retired_ = retired_ && out_of_ring();
  notify();
}

void PartitionWorker::begin_again() {
  finishing_ = false;
  over_ = false;
  retired_ = false;
}

asio::awaitable<bool> PartitionWorker::pause() {
  if (ours() && staying()) {
    co_await wake_.wait(Clock::now() + barrier_poll);
  }
  co_return ours() && staying();
}

}  // namespace continuum
