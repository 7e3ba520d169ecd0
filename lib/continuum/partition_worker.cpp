#include "continuum/partition_worker.hpp"

#include "continuum/error.hpp"
#include "continuum/held_events.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>

#include <algorithm>
#include <numeric>

namespace continuum {

namespace {

constexpr Milliseconds commit_every{50};
constexpr std::uint64_t commit_events = 10'000;
constexpr std::uint32_t stuck_renewals_max = 2;
constexpr std::size_t letters_at_once = 100;  // read of the dead letters
constexpr Milliseconds full_retry_min{50};
constexpr Milliseconds full_retry_max{1'000};

// What our clock and the server's may disagree on, and what stopping handlers takes.
Milliseconds margin_of(Milliseconds ttl) {
  return std::min(ttl / 10, Milliseconds(500));
}

Milliseconds poll_interval(Milliseconds ttl) {
  return std::clamp(ttl / 20, Milliseconds(20), Milliseconds(250));
}

bool same(const Cursor& a, const Cursor& b) {
  return a.offset == b.offset && a.entry == b.entry;
}

}  // namespace

PartitionWorker::PartitionWorker(Shift& shift, LogReader& reader, Partition partition)
    : shift_(shift),
      place_(shift.place),
      reader_(reader),
      wake_(shift.place.executor),
      keys_(place_.topic.name, partition, place_.options.group),
      where_(place(place_.topic.name, partition)),
      wanted_(!shared()),
      full_(shift.place.executor) {
  tenure_.partition = partition;
}

asio::awaitable<void> PartitionWorker::run() {
  while (shift_.stopping == Stopping::no && !finishing_) {
    if (!wanted_) {
      co_await wake_.wait();
    } else if (const auto acquired = co_await acquire()) {
      co_await hold(*acquired);
      if (std::exchange(leaving_, false)) {
        halted_ = false;
      }
      if (shared()) {
        finishing_ = false;  // it may come back: only the worker as a whole comes to an end
        shift_.on_ended();
      }
    }
  }
}

void PartitionWorker::take(std::optional<Sighting> silent) {
  wanted_ = true;
  told_held_ = silent.has_value();
  silent_ = std::move(silent);
  wake_.notify();
}

void PartitionWorker::give_up() {
  wanted_ = false;
  leaving_ = holding_;
  wake_.notify();
}

// --- the lease

// nullopt: stopping, or there is nothing left to do, or somebody else has what is shared.
asio::awaitable<std::optional<Acquired>> PartitionWorker::acquire() {
  std::optional<Held> seen;
  BootClock::time_point seen_since;
  if (const auto silent = std::exchange(silent_, std::nullopt)) {
    seen = silent->held;
    seen_since = silent->since;
  }
  while (shift_.stopping == Stopping::no) {
    if (place_.budget.spent()) {
      finishing_ = !shared();
      wanted_ = false;
      break;
    }
    const bool stood_still = seen && BootClock::now() - seen_since >= seen->ttl;
    redis::Request request;
    request_acquire(request, keys_.group, shift_.me, stood_still ? seen : std::nullopt);
    const auto sent = BootClock::now();
    const redis::Replies replies = co_await shift_.control.call(std::move(request));
    const auto answer = parse_acquire(replies[0]);
    if (const auto* acquired = std::get_if<Acquired>(&answer)) {
      const auto lapsed = std::exchange(lapsed_, std::nullopt);
      const bool fenced = lapsed && *lapsed != acquired->fence;
      tenure_.fence = acquired->fence;
      tenure_.passed = acquired->passed;
      tenure_.lapsed = false;
      extend(sent);
      if (std::exchange(told_held_, false)) {
        shift_.tell(fmt::format("took over for group {}", place_.options.group), tenure_.partition);
      }
      if (fenced && gives_up_when_fenced()) {
        redis::Request release;
        request_release(release, keys_.group, tenure_.fence);
        co_await shift_.control.call(std::move(release));
        fail(ErrorKind::fenced, "{}: another worker had it for group {} while this one was silent", where_,
             place_.options.group);
      }
      co_return *acquired;
    }
    if (std::holds_alternative<NotRegistered>(answer)) {
      fail_refused(Kept::not_registered);
    }
    const Held& held = std::get<Held>(answer);
    if (shared()) {
      wanted_ = false;
      break;
    }
    if (!seen || held.fence != seen->fence || held.beat != seen->beat) {
      seen = held;
      seen_since = BootClock::now();
    }
    tell_held(held);
    co_await wake_.wait(Clock::now() + poll_interval(held.ttl));
  }
  co_return std::nullopt;
}

void PartitionWorker::tell_held(const Held& held) {
  const std::string holder = printable(held.who.empty() ? held.owner : held.who);
  if (place_.options.standby == Standby::refuse) {
    fail(ErrorKind::fenced,
         "{}: {} works it for group {}. Without --no-wait this worker stands by and takes over when that one "
         "is silent for {}",
         where_, holder, place_.options.group, format_duration(held.ttl));
  }
  if (!std::exchange(told_held_, true)) {
    shift_.tell(fmt::format("{} works it for group {}; standing by", holder, place_.options.group),
                tenure_.partition);
  }
}

void PartitionWorker::extend(BootClock::time_point sent) {
  tenure_.until = sent + shift_.me.ttl - margin_of(shift_.me.ttl);
}

asio::awaitable<void> PartitionWorker::hold(const Acquired& acquired) {
  number_ = acquired.number;
  committed_ = acquired.cursor;
  committed_at_ = Clock::now();
  expected_ = acquired.cursor.offset;
  first_entry_ = true;
  lost_.reset();
  gap_.reset();
  asked_at_.reset();
  stuck_renewals_ = 0;
  suspicious_ = false;
  told_ = Doing();
  requests_ = 0;
  look_at_held_ = false;
  paused_.clear();
  commit_failed_ = false;
  abandoned_ = false;
  holding_ = true;
  std::exception_ptr error;
  try {
    if (co_await learn_end()) {
      start_outbox();
      co_await refuse_left_outputs();
      co_await reach(acquired.from);
      if (ours()) {
        make_sink(committed_);
        co_await learn_held();
      }
      if (ours()) {
        queue_ = reader_.subscribe(tenure_.partition, committed_.entry, wake_);
        co_await work();
      }
    }
  } catch (...) {
    error = std::current_exception();
  }
  reader_.unsubscribe(tenure_.partition);
  queue_.reset();
  // Handlers first, whatever happened: after this nothing of ours runs.
  const bool idle = sink_ && !sink_->running() && ours() && !error;
  if (sink_) {
    co_await sink_->end(idle ? Leave::gently : Leave::at_once);
  }
  try {
    co_await leave(error != nullptr);
  } catch (...) {
    error = error ? error : std::current_exception();
  }
  while (committing_) {
    co_await wake_.wait();
  }
  if (commit_error_) {
    error = error ? error : commit_error_;
    commit_error_ = nullptr;
  }
  if (outbox_) {
    co_await outbox_->end();
    outbox_.reset();
  }
  sink_.reset();
  holding_ = false;
  if (error) {
    std::rethrow_exception(error);
  }
}

// Commits what is done and gives the lease back, unless it is not ours any more.
asio::awaitable<void> PartitionWorker::leave(bool failed) {
  while (committing_) {
    co_await wake_.wait();
  }
  // One that is not known to have been taken may have had dead letters: nothing is committed behind it.
  if (commit_failed_ && !abandoned_) {
    co_return;
  }
  if (!ours()) {
    tell_lost();
    co_return;
  }
  std::exception_ptr refused;
  if (!commit_failed_ && sink_ && (!same(sink_->finished(), committed_) || sink_->wants_commit())) {
    try {
      if (!co_await commit_now(sink_->finished())) {
        tell_lost();
        co_return;
      }
    } catch (...) {
      refused = std::current_exception();
    }
    if (refused && !abandoned_) {
      std::rethrow_exception(refused);
    }
  }
  redis::Request request;
  if (failed || !halted_) {
    request_release(request, keys_.group, tenure_.fence);
  } else {
    // The state that is left behind says why nobody goes on.
    request_renew(request, keys_.group, keys_.meta, tenure_.fence, place_.topic.log_id, sink_->doing());
    request_release(request, keys_.group, tenure_.fence);
  }
  co_await shift_.control.call(std::move(request));
  if (refused) {
    std::rethrow_exception(refused);
  }
}

void PartitionWorker::tell_lost() {
  const Kept why = lost_.value_or(Kept::ok);
  if (why == Kept::not_registered || why == Kept::no_log) {
    fail_refused(why);
  }
  const bool fenced = why == Kept::fenced;
  const std::string_view group = place_.options.group;
  const std::string what =
      fenced ? fmt::format(
                   "another worker has taken over for group {}; handlers are stopped and nothing more is "
                   "committed",
                   group)
      : why == Kept::conflict
          ? fmt::format("the state of group {} was changed under us; starting again from it", group)
          : fmt::format("the lease of group {} ran out before it could be renewed; handlers are stopped",
                        group);
  if (!fenced && why == Kept::ok) {
    lapsed_ = tenure_.fence;
  }
  if (fenced && gives_up_when_fenced()) {
    fail(ErrorKind::fenced, "{}: {}", where_, what);
  }
  shift_.tell(what, tenure_.partition);
}

bool PartitionWorker::gives_up_when_fenced() const {
  return place_.options.standby == Standby::refuse || place_.options.ending == Ending::drained;
}

std::optional<Fence> PartitionWorker::add_renewal(redis::Request& request) {
  if (!holding_ || !ours()) {
    return std::nullopt;
  }
  Doing doing = this->doing();
  if (sink_) {
    doing.busy_permille = sink_->busy_permille();
  }
  request_renew(request, keys_.group, keys_.meta, tenure_.fence, place_.topic.log_id, doing);
  told_ = std::move(doing);
  asked_at_ = expected_;
  return tenure_.fence;
}

void PartitionWorker::renewed(Fence fence, BootClock::time_point sent, const Renewed& renewed) {
  if (!holding_ || fence != tenure_.fence) {
    return;
  }
  if (renewed.kept != Kept::ok) {
    lost_ = renewed.kept;
    notify();
    return;
  }
  extend(sent);
  if (std::exchange(requests_, renewed.requests) != renewed.requests) {
    look_at_held_ = true;
    wake_.notify();
  }
  if (std::exchange(paused_, renewed.paused) != renewed.paused) {
    shift_.tell(paused_.empty() ? std::string("resumed") : "paused by " + printable(paused_),
                tenure_.partition);
  }
  pause_sink();
  log_end_ = renewed.next;
  if (!queue_ || !asked_at_) {
    return;
  }
  const bool idle = queue_->empty() && expected_ == *asked_at_;
  stuck_renewals_ = idle && log_end_ > expected_ ? stuck_renewals_ + 1 : 0;
  if (log_end_ < *asked_at_ || stuck_renewals_ > stuck_renewals_max) {
    stuck_renewals_ = 0;
    suspicious_ = true;
    wake_.notify();
  }
}

// The first renewal, which also says where the log ends. False when the lease is lost already.
asio::awaitable<bool> PartitionWorker::learn_end() {
  redis::Request request;
  const auto fence = add_renewal(request);
  if (!fence) {
    co_return false;
  }
  const auto sent = BootClock::now();
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  const Renewed answer = parse_renew(replies[0]);
  renewed(*fence, sent, answer);
  if (answer.kept == Kept::ok && !end_) {
    end_ = answer.next;
  }
  if (answer.kept == Kept::ok && answer.next < expected_) {
    fail_lost_events(answer.next, expected_);
  }
  co_return ours();
}

// --- events

void PartitionWorker::make_sink(const Cursor& start) {
  sink_ = place_.options.handles() ? make_dispatcher(place_, tenure_, start, wake_)
                                   : make_printer(place_, tenure_, start, wake_);
  pause_sink();
}

// What is done while nothing can be committed would be done again after a crash: it is not begun.
void PartitionWorker::pause_sink() {
  if (sink_) {
    sink_->pause(paused_.empty() ? refused_ : paused_);
  }
}

Doing PartitionWorker::doing() const {
  Doing doing;
  if (sink_) {
    doing = sink_->doing();
  } else {
    doing.at = committed_.offset;
  }
  if (!refused_.empty()) {
    doing.state = "refused";
    doing.handler.clear();
    doing.at = committed_.offset;
    doing.since = refused_since_;
    doing.attempt = 0;
    doing.error = refused_;
  }
  return doing;
}

std::string PartitionWorker::state_for_people() const {
  if (!holding_ || !sink_) {
    return fmt::format("{}: not held by this worker", where_);
  }
  const Doing doing = this->doing();
  std::string text = fmt::format("{}: {}, at offset {} of {}, committed {}", where_, doing.state, doing.at,
                                 std::max(log_end_, expected_), committed_.offset);
  if (!doing.handler.empty() && doing.handler != command_line_handler) {
    text += fmt::format(", handler {}", doing.handler);
  }
  if (doing.attempt > 0) {
    text += fmt::format(", attempts {}", doing.attempt);
  }
  if (const HeldEvents* const held = sink_->held(); held != nullptr && held->letters() > 0) {
    text += fmt::format(", dead letters and events behind them {}", held->letters());
  }
  if (outbox_ && outbox_->entries() > 0) {
    text += fmt::format(", events whose derived events wait {}", outbox_->entries());
  }
  return doing.error.empty() ? text : fmt::format("{}: {}", text, printable(doing.error));
}

void PartitionWorker::handlers_changed() {
  if (sink_) {
    sink_->set_handlers(place_.handlers);
  }
}

asio::awaitable<void> PartitionWorker::work() {
  for (;;) {
    // Before anything else: the process may have been stopped for longer than the lease.
    if (!ours() || shift_.stopping == Stopping::now) {
      co_return;
    }
    if (commit_error_) {
      std::rethrow_exception(std::exchange(commit_error_, nullptr));
    }
    look_at_outbox();
    sink_->pump();
    while (feed()) {
      sink_->pump();
    }
    if (gap_) {
      if (co_await still_ours()) {
        fail_lost_events(expected_, *gap_);
      }
      co_return;
    }
    if (std::exchange(suspicious_, false)) {
      co_await examine_log();
    }
    if (HeldEvents* const held = sink_->held(); held != nullptr && !committing_ && !finishing_) {
      if (std::exchange(look_at_held_, false)) {
        co_await learn_held();
      }
      if (const auto after = held->wants_letters_after()) {
        co_await read_letters(*after);
        sink_->pump();
        wake_.notify();  // there may be more
      }
    }
    if (!ours()) {
      co_return;
    }
    tell_state();
    if (commit_due(Clock::now())) {
      start_commit();
    }
    if (ended()) {
      co_return;
    }
    if (sink_->halted() && !sink_->running() && all_committed()) {
      co_await stand_halted();
      co_return;
    }
    const FetchedEntry* const front = queue_->front();
    if (front != nullptr && front->entry.barrier && !finishing_ && sink_->empty() && !sink_->running() &&
        all_committed() && outbox_drained()) {
      co_await cross_barrier();
      continue;
    }
    co_await wake_.wait(next_time());
  }
}

// Gives the sink what it has room for. False when that was nothing.
bool PartitionWorker::feed() {
  bool gave = false;
  while (!gap_ && sink_->wants_entry()) {
    const FetchedEntry* const front = queue_->front();
    if (front == nullptr || front->entry.barrier) {
      break;
    }
    const Entry& entry = front->entry;
    if (place_.options.ending == Ending::drained && entry.first >= *end_) {
      break;
    }
    const bool follows =
        first_entry_ ? entry.first <= expected_ && entry.next() > expected_ : entry.first == expected_;
    if (!follows) {
      gap_ = entry.first;
      break;
    }
    first_entry_ = false;
    expected_ = entry.next();
    sink_->give(queue_->take());
    gave = true;
  }
  return gave;
}

// True when the story of this tenure is over and all of it is committed.
bool PartitionWorker::ended() {
  const bool drained =
      place_.options.ending == Ending::drained && sink_->finished().offset >= *end_ && !sink_->releasing();
  const bool spent = place_.budget.spent() && sink_->settled();
  if (!staying() || drained || spent) {
    sink_->finish();
    finishing_ = true;
  }
  return finishing_ && !sink_->running() && all_committed() && outbox_may_be_left();
}

// A change for the worse is told at once; what is told regularly is always fresh enough otherwise.
void PartitionWorker::tell_state() {
  const Doing doing = this->doing();
  if (doing.state != told_.state || doing.error != told_.error) {
    told_.state = doing.state;
    told_.error = doing.error;
    shift_.renew_soon();
  }
}

Clock::time_point PartitionWorker::next_time() const {
  const auto lease_left = tenure_.until - BootClock::now();
  auto next = Clock::now() + std::chrono::duration_cast<Clock::duration>(lease_left);
  if (!committing_ && !all_committed()) {
    next = std::min(next, committed_at_ + std::chrono::duration_cast<Clock::duration>(commit_every));
  }
  return std::min(next, sink_->next_time().value_or(next));
}

asio::awaitable<void> PartitionWorker::stand_halted() {
  halted_ = true;
  co_await sink_->end(Leave::gently);
  shift_.renew_soon();
  shift_.on_ended();
  // Kept, so that no other worker runs into the same event.
  while (ours() && staying()) {
    co_await wake_.wait(next_time());
  }
  halted_ = ours();
}

// --- commits

bool PartitionWorker::all_committed() const {
  return !committing_ && same(sink_->finished(), committed_) && !sink_->wants_commit();
}

bool PartitionWorker::commit_due(Clock::time_point now) const {
  const Cursor finished = sink_->finished();
  if (committing_ || all_committed()) {
    return false;
  }
  const bool nothing_waits = sink_->empty() && queue_->empty();
  const bool ending = (finishing_ || sink_->halted()) && !sink_->running();
  return nothing_waits || ending || now - committed_at_ >= commit_every ||
         finished.offset - committed_.offset >= commit_events;
}

Commit PartitionWorker::gather_commit(const Cursor& cursor) {
  Commit commit;
  commit.cursor = cursor;
  commit.passed = tenure_.passed;
  commit.emit_topic = outbox_ ? shift_.emit_target->topic().name : std::string();
  if (sink_) {
    sink_->collect(commit);
  }
  return commit;
}

void PartitionWorker::start_commit() {
  committing_ = true;
  asio::co_spawn(place_.executor, commit(gather_commit(sink_->finished())), asio::detached);
}

// Never throws. hold() waits for its end.
asio::awaitable<void> PartitionWorker::commit(Commit what) {
  committed_at_ = Clock::now();
  try {
    const std::optional<Kept> kept = co_await send_commit(what);
    if (kept == Kept::ok) {
      ++number_;
      committed_ = what.cursor;
      if (sink_) {
        sink_->committed();
      }
      if (outbox_ && !what.outputs.empty()) {
        const auto add = [](std::size_t bytes, const std::string& output) { return bytes + output.size(); };
        outbox_->committed(what.outputs.size(),
                           std::accumulate(what.outputs.begin(), what.outputs.end(), std::size_t{0}, add));
      }
    } else if (kept) {
      lost_ = kept;
    }
  } catch (...) {
    commit_error_ = std::current_exception();
    commit_failed_ = true;
  }
  if (!std::exchange(refused_, {}).empty()) {
    pause_sink();
  }
  committing_ = false;
  wake_.notify();
}

// Sends it until the server takes or refuses it. One that is full takes it later; meanwhile the lease is
// kept, which needs no memory. nullopt: it is over nevertheless.
asio::awaitable<std::optional<Kept>> PartitionWorker::send_commit(const Commit& what) {
  const auto since = Clock::now();
  for (std::uint32_t refusals = 0;; ++refusals) {
    redis::Request request;
    request_commit(request, keys_, tenure_.fence, number_ + 1, what, place_.options.group);
    request.keep_full();
    const auto sent = BootClock::now();
    const redis::Replies replies = co_await shift_.control.call(std::move(request));
    if (!replies[0].is_error()) {
      const Kept kept = parse_commit(replies[0]);
      if (kept == Kept::ok) {
        extend(sent);
      }
      if (!refused_.empty() && kept == Kept::ok) {
        shift_.tell(fmt::format("the server takes what group {} writes again", place_.options.group),
                    tenure_.partition);
      }
      co_return kept;
    }
    if (refused_.empty()) {
      refused_ =
          "the server is full (maxmemory), so that failed events cannot be set aside; raise it, or trim";
      refused_since_ = std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now());
      shift_.tell(fmt::format("{}. Group {} waits", refused_, place_.options.group), tenure_.partition);
      pause_sink();
      wake_.notify();
    }
    co_await wait_for_memory(since, refusals);
    if (!ours()) {
      co_return std::nullopt;
    }
  }
}

asio::awaitable<void> PartitionWorker::wait_for_memory(Clock::time_point since, std::uint32_t refusals) {
  const auto until =
      Clock::now() + std::min(full_retry_max, full_retry_min * (std::int64_t{1} << std::min(refusals, 10U)));
  while (Clock::now() < until) {
    if (shift_.stopping == Stopping::now || Clock::now() - since >= shift_.control.retry_for()) {
      abandoned_ = true;
      fail(ErrorKind::server, "{}: {}. What group {} has not committed is handled again", where_, refused_,
           place_.options.group);
    }
    if (!ours()) {
      co_return;
    }
    co_await full_.wait(until);
  }
}

asio::awaitable<bool> PartitionWorker::commit_now(Cursor cursor) {
  committing_ = true;
  co_await commit(gather_commit(cursor));
  if (commit_error_) {
    std::rethrow_exception(std::exchange(commit_error_, nullptr));
  }
  co_return same(committed_, cursor);
}

// --- held keys

// Only we store letters: what the server has now is all, as long as no commit of ours is on its way.
asio::awaitable<void> PartitionWorker::learn_held() {
  HeldEvents* const held = sink_->held();
  if (held == nullptr) {
    co_return;
  }
  redis::Request request;
  request.command("HGETALL", keys_.held);
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  held->learn(parse_held(replies[0]));
}

asio::awaitable<void> PartitionWorker::read_letters(EntryId after) {
  redis::Request request;
  request.command("XRANGE", keys_.dead, "(" + after.text(), "+", "COUNT", letters_at_once);
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  std::vector<DeadLetter> letters;
  for (std::size_t i = 0; i < replies[0].size(); ++i) {
    letters.push_back(parse_dead_letter(replies[0][i]));
  }
  const auto more = letters.size() < letters_at_once ? HeldEvents::More::no : HeldEvents::More::yes;
  const EntryId read_up_to = letters.empty() ? after : letters.back().id;
  sink_->held()->give(std::move(letters), read_up_to, more);
}

// --- loss

// Reads the group's state again: one who was fenced while it slept may find its cursor trimmed, and that is
// no loss.
asio::awaitable<bool> PartitionWorker::still_ours() {
  redis::Request request;
  request.command("HGETALL", keys_.group);
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  const auto state = parse_group(replies[0]);
  if (!state) {
    fail_refused(Kept::not_registered);
  }
  if (state->fence != tenure_.fence || state->owner != shift_.me.owner) {
    lost_ = Kept::fenced;
    co_return false;
  }
  co_return true;
}

// The log says that it ends elsewhere than where reading stands. Is that so?
asio::awaitable<void> PartitionWorker::examine_log() {
  redis::Request request;
  request.command("HGET", keys_.meta, "next");
  request.command("XRANGE", keys_.log, "(" + queue_->position().text(), "+", "COUNT", 1);
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  if (replies[0].is_nil()) {
    fail_refused(Kept::no_log);
  }
  const Offset next(replies[0].number());
  const Offset read = std::max(expected_, queue_->read_up_to().value_or(expected_));
  const bool nothing_follows = replies[1].size() == 0;
  if (next >= read && !(next > read && nothing_follows)) {
    co_return;
  }
  if (!co_await still_ours()) {
    co_return;
  }
  // Read again after the server was asked, what came meanwhile is no loss.
  if (next > read && queue_->read_up_to().value_or(expected_) > read) {
    co_return;
  }
  fail_lost_events(std::min(next, read), std::max(next, read));
}

void PartitionWorker::fail_lost_events(Offset from, Offset until) const {
  if (until < from) {
    std::swap(from, until);
  }
  fail(ErrorKind::loss,
       "{}: the log and group {} disagree about offsets {} to {}: these events are gone from the log (a "
       "failover, a "
       "restart without a synced append-only file, or a trim by hand). Nothing was skipped; see "
       "docs/operations.md",
       where_, place_.options.group, from, until.value == 0 ? 0 : until.value - 1);
}

void PartitionWorker::fail_refused(Kept kept) const {
  if (kept == Kept::not_registered) {
    fail(ErrorKind::loss,
         "{}: the state of group {} is gone, and with it what was handled: was the server flushed, or "
         "restored from an "
         "older copy?",
         where_, place_.options.group);
  }
  fail(ErrorKind::loss,
       "{}: the log that group {} was reading is gone, or is another one: was the server flushed, or the "
       "topic "
       "dropped?",
       where_, place_.options.group);
}

}  // namespace continuum
