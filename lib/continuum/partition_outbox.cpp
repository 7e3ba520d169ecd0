// What the handlers of a partition emit, on its way to its topic (PROTOCOLS: Emit).
#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/partition_worker.hpp"

namespace continuum {

void PartitionWorker::start_outbox() {
  if (shift_.emit_client == nullptr || !ours()) {
    return;
  }
  outbox_told_.clear();
  outbox_.emplace(place_.executor, *shift_.emit_client, *shift_.emit_target,
                  OutboxSource{place_.topic.name, place_.topic.log_id, tenure_.partition,
                               place_.options.group, tenure_.fence},
                  wake_);
  outbox_->start();
}

// A worker that emits nothing cannot publish what an earlier one left, and must not work as if it were not
// there.
asio::awaitable<void> PartitionWorker::refuse_left_outputs() {
  if (outbox_ || !ours()) {
    co_return;
  }
  redis::Request request;
  request.command("XLEN", keys_.outbox);
  request.command("XRANGE", keys_.outbox, "-", "+", "COUNT", 1);
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  if (replies[1].size() == 0) {
    co_return;
  }
  const std::string topic = printable(replies[1][0][1].field("t").value_or(""));
  fail(ErrorKind::usage,
       "{}: what handlers of group {} emitted to topic {} for {} events is not published yet: work with "
       "--emit {} "
       "until it is",
       where_, place_.options.group, topic, replies[0].number(), topic);
}

void PartitionWorker::look_at_outbox() {
  if (!outbox_) {
    return;
  }
  outbox_->throw_if_failed();
  if (outbox_->fenced()) {
    lost_ = Kept::fenced;
  }
  const std::string& waits_for = outbox_->waits_for();
  if (std::exchange(outbox_told_, waits_for) != waits_for && !waits_for.empty()) {
    shift_.tell(fmt::format("what is emitted waits: {}", waits_for), tenure_.partition);
  }
  sink_->hold_back(!outbox_->full()
                       ? std::string()
                       : fmt::format("the derived events of {} events wait to be published{}{}",
                                     outbox_->entries(), waits_for.empty() ? "" : ": ", waits_for));
}

// Who was told to end leaves to the next one what cannot be published now.
bool PartitionWorker::outbox_may_be_left() const {
  return outbox_drained() || (!staying() && !outbox_->waits_for().empty());
}

}  // namespace continuum
