#include "continuum/partition_worker.hpp"

#include "continuum/error.hpp"
#include "continuum/held_events.hpp"
#include "continuum/names.hpp"

#include <algorithm>

namespace continuum {

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
  while (shift_.stopping == Stopping::no && !over_) {
    if (!wanted_) {
      co_await wake_.wait();
    } else if (const auto acquired = co_await acquire()) {
      co_await hold(*acquired);
      if (std::exchange(leaving_, false)) {
        halted_ = false;
      }
      if (shared()) {
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

// --- events

void PartitionWorker::make_sink(const Cursor& start) {
  knows_held_ = false;
  if (place_.options.archive) {
    sink_ = make_archiver(place_, tenure_, start, wake_);
  } else {
    sink_ = place_.options.handles() ? make_dispatcher(place_, tenure_, start, wake_)
                                     : make_printer(place_, tenure_, start, wake_);
  }
  if (HeldEvents* const held = sink_->held()) {
    held->set_frozen([this](std::string_view key) { return is_frozen(key); });
  }
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
    if (tidying_ && Clock::now() >= tidy_at_ && !committing_ && !finishing_ && !sink_->takes_barriers()) {
      co_await tidy_up();
      if (!ours()) {
        co_return;
      }
    }
    tell_state();
    if (commit_due(Clock::now())) {
      start_commit();
    }
    if (ended()) {
      over_ = !shared();  // what is shared may come back: only the worker as a whole comes to an end
      co_return;
    }
    if (sink_->halted() && !sink_->running() && all_committed()) {
      co_await stand_halted();
      co_return;
    }
    const FetchedEntry* const front = queue_->front();
    if (front != nullptr && front->entry.barrier && !sink_->takes_barriers() && !finishing_ &&
        Clock::now() >= cross_at_ && sink_->empty() && !sink_->running() && all_committed() &&
        outbox_drained()) {
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
    if (front == nullptr || (front->entry.barrier && !sink_->takes_barriers())) {
      break;
    }
    const Entry& entry = front->entry;
    if (place_.options.ending == Ending::drained &&
        (end_entry_ ? entry.id > *end_entry_ : entry.first >= *end_)) {
      break;
    }
    const bool inside = first_entry_ && !entry.barrier;
    const bool follows =
        inside ? entry.first <= expected_ && entry.next() > expected_ : entry.first == expected_;
    if (!follows) {
      gap_ = entry.first;
      break;
    }
    first_entry_ = first_entry_ && entry.barrier;
    expected_ = entry.next();
    sink_->give(queue_->take());
    gave = true;
  }
  return gave;
}

// True when the story of this tenure is over and all of it is committed.
bool PartitionWorker::ended() {
  const Cursor finished = sink_->finished();
  const bool handled =
      !sink_->releasing() && (end_entry_ ? finished.entry >= *end_entry_ : finished.offset >= *end_);
  const bool drained = place_.options.ending == Ending::drained &&
                       // Others may wait for us at the barrier there.
                       (handled ? tenure_.passed >= end_generation_ || sink_->takes_barriers() : paused());
  const bool spent = place_.budget.spent() && sink_->settled();
  const bool left_ring = retired_ && !shared();
  if (!staying() || drained || spent || left_ring || (in_vain_ && !shared())) {
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
  // What is due and cannot be done yet is looked at when something ends.
  const auto sooner = [&](Clock::time_point due) { next = due > Clock::now() ? std::min(next, due) : next; };
  if (tidying_ && !finishing_) {
    sooner(tidy_at_);
  }
  if (const FetchedEntry* const front = queue_->front(); front != nullptr && front->entry.barrier) {
    sooner(cross_at_);
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
  const auto read_up_to = [this] { return std::max(expected_, queue_->read_up_to().value_or(expected_)); };
  // What is read after the server was asked says nothing about its answer.
  const Offset read = read_up_to();
  redis::Request request;
  request.command("HGET", keys_.meta, "next");
  request.command("XRANGE", keys_.log, "(" + queue_->position().text(), "+", "COUNT", 1);
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  if (replies[0].is_nil()) {
    fail_refused(Kept::no_log);
  }
  const Offset next(replies[0].number());
  const bool nothing_follows = replies[1].size() == 0;
  const bool shorter = next < read;
  const bool skipped = nothing_follows && next > read_up_to();
  if (!shorter && !skipped) {
    co_return;
  }
  const bool still = co_await still_ours();
  if (still && (shorter || next > read_up_to())) {
    fail_lost_events(next, read);
  }
}

void PartitionWorker::fail_lost_events(Offset from, Offset until) const {
  if (until < from) {
    std::swap(from, until);
  }
  fail(ErrorKind::loss,
       "{}: the log and group {} disagree about offsets {} to {}: these events are gone from the log (a "
       "failover, a "
       "restart without a synced append-only file, or a trim by hand or by force). Nothing was skipped; see "
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
