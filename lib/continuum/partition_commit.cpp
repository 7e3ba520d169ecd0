// What a partition's worker commits, and what it knows of its held keys (PROTOCOLS: Commit, Held keys).
#include "continuum/error.hpp"
#include "continuum/held_events.hpp"
#include "continuum/names.hpp"
#include "continuum/partition_worker.hpp"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>

#include <algorithm>
#include <numeric>

namespace continuum {

namespace {

constexpr std::uint64_t commit_events = 10'000;
constexpr std::size_t letters_at_once = 100;  // read of the dead letters
constexpr Milliseconds full_retry_min{50};
constexpr Milliseconds full_retry_max{1'000};

bool same(const Cursor& a, const Cursor& b) {
  return a.offset == b.offset && a.entry == b.entry;
}

}  // namespace

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
  if (HeldEvents* const held = sink_->held()) {
    redis::Request request;
    request.command("HGETALL", keys_.held);
    const redis::Replies replies = co_await shift_.control.call(std::move(request));
    held->learn(parse_held(replies[0]));
  }
  knows_held_ = true;
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

}  // namespace continuum
