// How a partition's worker passes from one generation of the ring to the next (PROTOCOLS: Barriers).
#include "continuum/error.hpp"
#include "continuum/partition_worker.hpp"
#include "continuum/ring_change.hpp"

#include <algorithm>

namespace continuum {

namespace {

constexpr Milliseconds barrier_poll{100};

}  // namespace

// All before the barrier at the front is committed.
asio::awaitable<void> PartitionWorker::cross_barrier() {
  const Entry entry = queue_->front()->entry;
  if (entry.first != expected_) {
    gap_ = entry.first;
    co_return;
  }
  if (*entry.barrier > tenure_.passed) {
    while (!co_await ready_for(*entry.barrier)) {
      if (!co_await pause()) {
        co_return;
      }
    }
  }
  // A new sink: handlers are told the generation.
  co_await sink_->end(Leave::gently);
  tenure_.passed = std::max(tenure_.passed, *entry.barrier);
  if (co_await commit_now({expected_, entry.id})) {
    queue_->take();
    make_sink(committed_);
    co_await learn_held();
  }
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
    while (!co_await ready_for(next)) {
      if (!co_await pause()) {
        co_return;
      }
    }
  }
  if (ours()) {
    tenure_.passed = generation;
    co_await commit_now(committed_);
  }
}

// Whether nothing that `generation` moved here from another partition is still being handled there.
asio::awaitable<bool> PartitionWorker::ready_for(Generation generation) {
  if (generation == Generation(1)) {
    co_return true;  // the creation of the topic: nothing was anywhere before
  }
  redis::Request request;
  request_topic(request, place_.topic.name);
  const redis::Replies topic_replies = co_await shift_.control.call(std::move(request));
  const auto topic = parse_topic(place_.topic.name, topic_replies[0]);
  if (!topic) {
    fail_refused(Kept::no_log);
  }
  if (topic->active < generation) {
    co_return false;
  }
  const auto before = topic->rings.find(Generation(generation.value - 1));
  const auto after = topic->rings.find(generation);
  if (before == topic->rings.end() || after == topic->rings.end()) {
    fail(ErrorKind::loss,
         "{}: the topic does not describe generation {} of its ring, which its log speaks of", where_,
         generation);
  }
  const auto givers = donors(Ring(before->second), Ring(after->second), tenure_.partition);
  if (givers.empty()) {
    co_return true;
  }
  redis::Request passed;
  for (const Partition donor : givers) {
    passed.command("HGET", group_key(place_.topic.name, donor, place_.options.group), "passed");
  }
  const redis::Replies answers = co_await shift_.control.call(std::move(passed));
  for (std::size_t i = 0; i < givers.size(); ++i) {
    if (answers[i].is_nil() || answers[i].number() < generation.value) {
      co_return false;
    }
  }
  co_return true;
}

asio::awaitable<bool> PartitionWorker::pause() {
  if (ours() && staying()) {
    co_await wake_.wait(Clock::now() + barrier_poll);
  }
  co_return ours() && staying();
}

}  // namespace continuum
