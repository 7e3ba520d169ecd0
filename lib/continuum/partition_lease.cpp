// How a partition's worker comes to its lease, keeps it and leaves it (PROTOCOLS: Lease).
#include "continuum/barrier_watch.hpp"
#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/partition_worker.hpp"
#include "continuum/units.hpp"

#include <algorithm>

namespace continuum {

namespace {

constexpr std::uint32_t stuck_renewals_max = 2;

Milliseconds poll_interval(Milliseconds ttl) {
  return std::clamp(ttl / 20, Milliseconds(20), Milliseconds(250));
}

}  // namespace

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
      over_ = !shared();
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
      import_ = acquired->import;
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
  finishing_ = false;
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
  began_ = false;
  cross_at_ = {};
  cross_pause_ = Milliseconds(0);
  tidy_at_ = {};
  not_in_force_since_.reset();
  in_vain_ = false;
  left_requests_ = false;
  tidying_ = true;
  retired_ = false;
  learn_since_ = shift_.watch->from_now_on();
  holding_ = true;
  std::exception_ptr error;
  try {
    if (co_await learn_end()) {
      if (std::max(acquired.passed, acquired.import.generation) > place_.topic.active) {
        co_await refresh_topic();
      }
      start_outbox();
      co_await refuse_left_outputs();
      // An archive keeps the order of the log, and waits for nobody.
      if (!place_.options.archive) {
        co_await reach(acquired.from);
      }
      // A shared one stands by: only the worker as a whole comes to an end.
      over_ = in_vain_ && !shared();
      const bool goes_on = ours() && !over_;
      if (goes_on) {
        make_sink(committed_);
        co_await learn_held();
      }
      if (goes_on && ours()) {
        const Beginning beginning = co_await look_at_beginning();
        const std::optional<Cursor> start = co_await sink_->begin(beginning);
        if (start && ours()) {
          began_ = true;
          expected_ = start->offset;
          queue_ = reader_.subscribe(tenure_.partition, start->entry, wake_);
          co_await work();
        }
      }
    }
  } catch (...) {
    error = std::current_exception();
  }
  shift_.watch->left(tenure_.partition);
  reader_.unsubscribe(tenure_.partition);
  queue_.reset();
  left_requests_ = sink_ && knows_held_ && sink_->releasing();
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

asio::awaitable<Beginning> PartitionWorker::look_at_beginning() {
  Beginning beginning{committed_, std::nullopt, [this] { return staying(); },
                      [this](EntryId entry) { return look_at_log(entry); }};
  if (place_.options.archive) {
    redis::Request request;
    request.command("XRANGE", keys_.log, "-", "+", "COUNT", 1);
    request.command("XREVRANGE", keys_.log, "+", "-", "COUNT", 1);
    const redis::Replies replies = co_await shift_.control.call(std::move(request));
    if (replies[0].size() > 0 && replies[1].size() > 0) {
      beginning.log_first = parse_entry(replies[0][0], place_.topic.name, tenure_.partition).first;
      if (!end_entry_) {
        end_entry_ = parse_entry(replies[1][0], place_.topic.name, tenure_.partition).id;
      }
    }
  }
  co_return beginning;
}

// In an order in which nobody who appends or trims meanwhile makes a loss appear.
asio::awaitable<LogExtent> PartitionWorker::look_at_log(EntryId entry) {
  const std::string id = entry.text();
  redis::Request request;
  request.command("HGET", keys_.meta, "next");
  request.command("XRANGE", keys_.log, id, id);
  request.command("XRANGE", keys_.log, "-", "+", "COUNT", 1);
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  if (replies[0].is_nil()) {
    fail_refused(Kept::no_log);
  }
  LogExtent extent;
  extent.next = Offset(replies[0].number());
  extent.first = extent.next;
  if (replies[2].size() > 0) {
    const Entry first = parse_entry(replies[2][0], place_.topic.name, tenure_.partition);
    extent.first = first.first;
    extent.lacks_entry = entry > EntryId{} && replies[1].size() == 0 && first.id <= entry;
  }
  co_return extent;
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
  if (!commit_failed_ && sink_ && !all_committed()) {
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
  doing.handlers = shift_.handlers;
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
    const std::string_view then =
        shift_.ending == Ending::drained ? "; this run does not wait until it is resumed" : "";
    shift_.tell(
        paused_.empty() ? std::string("resumed") : fmt::format("paused by {}{}", printable(paused_), then),
        tenure_.partition);
    wake_.notify();
    if (shift_.ending == Ending::drained) {
      shift_.on_ended();
    }
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
    end_generation_ = answer.generation;
  }
  if (answer.kept == Kept::ok && answer.next < expected_) {
    fail_lost_events(answer.next, expected_);
  }
  co_return ours();
}

}  // namespace continuum
