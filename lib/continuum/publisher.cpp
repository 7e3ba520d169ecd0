#include "continuum/publisher.hpp"

#include "continuum/acknowledgement.hpp"
#include "continuum/log.hpp"
#include "continuum/publish_input.hpp"
#include "continuum/redis_client.hpp"
#include "continuum/reroute.hpp"
#include "continuum/resize_steps.hpp"

#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>

#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <iterator>
#include <random>
#include <set>
#include <thread>

namespace continuum {
namespace {

// Bytes of events between reading and acknowledgement.
constexpr std::size_t in_flight_bytes_max = std::size_t{32} << 20;
constexpr Milliseconds progress_interval{100};
// How long the end of a publish may wait for a server that has gone away meanwhile.
constexpr Milliseconds goodbye{1'000};
// After a clean end nobody sends for an unnamed producer again; late bytes of a dead connection still might.
constexpr std::uint64_t ended_producer_seconds = 600;
// As long as append lets it live.
constexpr std::uint64_t unnamed_producer_ms = 86'400'000;

std::string random_name() {
  constexpr std::string_view letters = "0123456789abcdefghjkmnpqrstvwxyz";
  std::random_device device;
  std::string out;
  for (int i = 0; i < 26; ++i) {  // 130 bits
    out += letters[device() % letters.size()];
  }
  return out;
}

void encode(FrameEncoder& encoder, Batch& batch, Frames frames) {
  const auto encoded = encoder.encode(batch.lines, batch.events(), frames);
  batch.encoding = encoded.encoding;
  if (encoded.encoding != Encoding::plain) {
    batch.frame = encoded.bytes;
  }
}

class Publisher {
 public:
  Publisher(redis::Session& session, const Topic& topic, PublishOptions options, const PublishHooks& hooks)
      : client_(redis::client_of(session)),
        io_(redis::io_of(session)),
        topic_(topic),
        frames_(topic.settings.frames),
        options_(std::move(options)),
        hooks_(serialized(hooks)),
        acknowledgement_(client_, options_.acknowledge),
        wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        arrived_(io_.get_executor()),
        helpers_ended_(io_.get_executor()),
        report_timer_(io_.get_executor()),
        stop_(io_.get_executor()) {
    check(wake_ >= 0, "no descriptor for a wake-up");
    named_ = !options_.producer.empty();
    producer_ = named_ ? options_.producer : "~" + random_name();
    options_.wrap.topic = topic.name;
    options_.wrap.producer = named_ ? producer_ : producer_.substr(1, 12);
    options_.wrap.event_bytes_max = topic.settings.event_bytes_max;
  }
  ~Publisher() { ::close(wake_); }
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  PublishSummary run(std::vector<LineSource> sources) {
    run_until_done(io_, story(std::move(sources)));
    summary_.duplicates = counters_.duplicates;
    summary_.rejected = counters_.rejected;
    return std::move(summary_);
  }

 private:
  // A partition's chain of appends.
  struct Lane {
    Position sent;   // last position of the chain as sent
    Position acked;  // last position that is known to be stored
    Position most;   // that was ever sent
    std::size_t outstanding = 0;
    bool broken = false;             // an append was refused: nothing more is sent until all answers are in
    Position resume;                 // where the log stands, when broken
    std::deque<BatchPointer> again;  // to be sent when they are
  };
  struct InFlight {
    BatchPointer batch;
    asio::awaitable<redis::Replies> answer;
  };

  PublishHooks serialized(const PublishHooks& hooks) {
    const auto lock = [this](auto hook) {
      if (!hook) {
        return hook;
      }
      return decltype(hook)([this, hook](const auto& what) {
        const std::lock_guard guard(hooks_mutex_);
        hook(what);
      });
    };
    return {lock(hooks.stored), lock(hooks.duplicate), lock(hooks.rejected), lock(hooks.progress)};
  }

  asio::awaitable<void> story(std::vector<LineSource> sources) {
    co_await acknowledgement_.verify();
    in_memory_ = sources.size() == 1 && sources[0].descriptor < 0;
    // Not `named_ ? co_await … : …`: GCC 12 destroys the result of that too early.
    Stored stored;
    if (named_) {
      stored = co_await take_over();
    }
    if (const auto found = stored.find(topic_.active); found != stored.end()) {
      for (const auto& [partition, state] : found->second) {
        Lane& lane = lanes_[partition];
        lane.sent = lane.acked = lane.most = state.position;
      }
    }
    learn_mine(stored);
    PublishInput input(
        options_, topic_, stored, std::move(sources), wake_, hooks_,
        [this](BatchPointer batch) { encode_and_send(std::move(batch)); },
        [this] { to_encode_.push(BatchQueue::Mark::paused); }, budget_, counters_);
    input_ = &input;
    start_helpers();
    std::thread reading;
    std::thread encoding;
    if (in_memory_) {
      // A few events at hand: threads would cost more than they save.
      read(input);
      input_ended_ = true;
    } else {
      reading = std::thread([&] {
        read(input);
        to_encode_.push(BatchQueue::Mark::ended);
      });
      encoding = std::thread([&] { encode_all(); });
    }
    try {
      co_await acknowledge_all();
      finish_producer();
    } catch (const Error& e) {
      summary_.error = e;
      count_unconfirmed();
    }
    input.stop();
    wake();
    budget_.close();
    to_encode_.close();
    if (reading.joinable()) {
      reading.join();
      encoding.join();
    }
    co_await end_helpers();
    if (!summary_.error) {
      summary_.error = input_error_;
    }
    if (!summary_.error && stops_ > 0) {
      summary_.error =
          Error(ErrorKind::interrupted, named_ ? "interrupted: run it again to continue where it stopped"
                                               : "interrupted: what was read is stored, the rest is not");
    }
  }

  // --- the other threads

  void read(PublishInput& input) {
    try {
      input.run();
    } catch (const Error& e) {
      input_error_ = e;
    } catch (const std::exception& e) {
      input_error_ = Error(ErrorKind::usage, fmt::format("reading the input failed: {}", e.what()));
    }
  }

  void encode_all() {
    for (;;) {
      auto [batch, mark] = to_encode_.pop();
      if (mark == BatchQueue::Mark::closed) {
        return;
      }
      if (batch) {
        encode(encoder_, *batch, frames_);
        asio::post(io_, [this, b = std::move(batch)]() mutable { send(std::move(b)); });
      } else {
        asio::post(io_, [this, m = mark] { arrive(m); });
      }
    }
  }

  // Whatever was put into the queue before has been sent, or is in unstored_.
  void arrive(BatchQueue::Mark mark) {
    switch (mark) {
      case BatchQueue::Mark::paused:
        input_paused_ = true;
        break;
      case BatchQueue::Mark::ended:
        input_ended_ = true;
        break;
      default:
        rerouting_ = false;
        break;
    }
    arrived_.notify();
  }

  void encode_and_send(BatchPointer batch) {
    if (in_memory_) {
      encode(encoder_, *batch, frames_);
      send(std::move(batch));
    } else {
      to_encode_.push(std::move(batch));
    }
  }

  void wake() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(wake_, &one, sizeof one);
  }

  // --- before the first event

  // Fences every earlier process of this name, and learns what it stored (PROTOCOLS: Producer resume).
  asio::awaitable<Stored> take_over() {
    redis::Request ask;
    ask.run(redis::Script::epoch, {topic_key(topic_.name)}, topic_.log_id, producer_);
    const auto answer = co_await client_.call(std::move(ask));
    if (answer[0][0].text() != "OK") {
      no_log();
    }
    epoch_ = answer[0][1].number();
    // Not before: an earlier process may have followed the ring further than we knew.
    topic_ = co_await reload_topic(client_, topic_.name, topic_.log_id);
    co_return co_await open(topic_);
  }

  // What is stored, over all generations up to the active one.
  asio::awaitable<Stored> open(const Topic& topic) {
    redis::Request request;
    const auto partitions = topic.partitions();
    for (const auto p : partitions) {
      const auto key = producer_key(topic.name, p, producer_);
      if (named_) {
        request.run(redis::Script::open, {meta_key(topic.name, p), key}, topic.log_id, epoch_);
      } else {
        // Also a write: what follows on this connection confirms what is read.
        request.command("PEXPIRE", key, unnamed_producer_ms).command("HGETALL", key);
      }
    }
    acknowledgement_.ask(request);
    const auto replies = co_await client_.call(std::move(request));
    Stored stored;
    for (std::size_t i = 0; i < partitions.size(); ++i) {
      if (named_ && replies[i][0].text() != "OK") {
        replies[i][0].text() == "FENCED" ? fenced() : no_log();
      }
      const auto fields = named_ ? replies[i][1] : replies[2 * i + 1];
      for (Generation generation(1); generation <= topic.active; ++generation) {
        if (const auto position = fields.field(fmt::format("pos.{}", generation))) {
          const auto digest = fields.field(fmt::format("dig.{}", generation));
          stored[generation][partitions[i]] = {Position(std::stoull(std::string(*position))),
                                               std::string(digest.value_or(""))};
        }
      }
    }
    const std::size_t writes = partitions.size() * (named_ ? 1 : 2);
    confirmed_ = acknowledgement_.confirmed(replies, writes);
    co_return stored;
  }

  // --- the ring has changed (PROTOCOLS: Producer resume)

  // All answers are in, and nothing more is sent until this is done.
  asio::awaitable<void> follow_ring() {
    co_await pause_input();
    for (auto& [partition, lane] : lanes_) {
      touched_.insert(partition);
      std::move(lane.again.begin(), lane.again.end(), std::back_inserter(unstored_));
      lane.again.clear();
    }
    auto next =
        co_await await_generation(client_, topic_.name, topic_.log_id, *told_, [this] { return stops_ < 2; });
    if (!next) {
      fail(ErrorKind::interrupted, "interrupted while the topic {} is being resized", topic_.name);
    }
    const Stored stored = co_await open(*next);
    require_kept(stored);
    topic_ = *std::move(next);

    std::map<Generation, Ring> rings;
    for (const auto& [generation, ring] : topic_.rings) {
      if (generation == topic_.active || stored.contains(generation)) {
        rings.emplace(generation, ring);
      }
    }
    RerouteRules rules{topic_.active, options_.frame_bytes, frames_, RerouteRules::Digest::none};
    if (named_) {
      rules.digest = options_.wrap.position ? RerouteRules::Digest::position : RerouteRules::Digest::chained;
    }
    auto rerouted = reroute(std::exchange(unstored_, {}), stored, rings, rules);
    lanes_.clear();
    if (const auto begun = stored.find(topic_.active); begun != stored.end()) {
      for (const auto& [partition, state] : begun->second) {
        Lane& lane = lanes_[partition];
        lane.sent = lane.acked = lane.most = state.position;
      }
    }
    told_.reset();
    for (const auto& batch : rerouted.stored) {
      confirm(*batch, std::nullopt,
              confirmed_ ? StoredBatch::Status::stored : StoredBatch::Status::unconfirmed);
      budget_.give(batch->lines.size());
    }
    for (auto& batch : rerouted.unstored) {
      encode_and_send(std::move(batch));
    }
    resume_input(std::make_unique<Ring>(topic_.ring()), rerouted.chains);
  }

  // Until everything that was read is in unstored_.
  asio::awaitable<void> pause_input() {
    if (in_memory_) {
      co_return;
    }
    input_->pause();
    budget_.lift();
    wake();
    while (rerouting_ || (!input_paused_ && !input_ended_)) {
      co_await arrived_.wait();
    }
    budget_.restore();
  }

  void resume_input(std::unique_ptr<Ring> ring, const std::map<Partition, std::uint64_t>& chains) {
    if (in_memory_) {
      return;
    }
    rerouting_ = true;
    to_encode_.push(BatchQueue::Mark::rerouted);
    std::uint64_t count = 0;
    [[maybe_unused]] const auto n = ::read(wake_, &count, sizeof count);
    if (stops_ > 0) {
      wake();
    }
    input_paused_ = false;
    input_->resume(topic_.active, std::move(ring), chains);
  }

  // What was confirmed must still be there, and what we did not send cannot be: positions tell what is ours
  // only as long as nobody else writes under our name.
  void require_kept(const Stored& stored) {
    const auto position_in = [&](Generation generation, Partition partition) {
      const auto in = stored.find(generation);
      if (in == stored.end() || !in->second.contains(partition)) {
        return Position();
      }
      return in->second.at(partition).position;
    };
    for (const auto& [partition, lane] : lanes_) {
      Position& most = mine_[topic_.active][partition];
      most = std::max(most, lane.most);
      if (const auto has = position_in(topic_.active, partition); has < lane.acked) {
        fail_lost(partition, lane.acked, has);
      }
    }
    for (const auto& [generation, partitions] : stored) {
      for (const auto& [partition, state] : partitions) {
        const auto in = mine_.find(generation);
        if (in == mine_.end() || !in->second.contains(partition) ||
            in->second.at(partition) < state.position) {
          fail(ErrorKind::server,
               "{}: an earlier process published as producer {} while this one began: run it again, it "
               "continues where that one stopped",
               place(topic_.name, partition), producer_);
        }
      }
    }
  }

  void learn_mine(const Stored& stored) {
    for (const auto& [generation, partitions] : stored) {
      for (const auto& [partition, state] : partitions) {
        mine_[generation][partition] = state.position;
      }
    }
  }

  // --- sending and acknowledging, on the calling thread

  void send(BatchPointer batch) {
    if (told_) {
      unstored_.push_back(std::move(batch));
      return;
    }
    Lane& lane = lanes_[batch->partition];
    if (lane.broken) {
      lane.again.push_back(std::move(batch));
      return;
    }
    redis::Request request;
    const auto p = batch->partition;
    request.run(redis::Script::append,
                {log_key(topic_.name, p), meta_key(topic_.name, p), producer_key(topic_.name, p, producer_)},
                topic_.log_id, topic_.active, named_ ? "named" : "unnamed", epoch_, lane.sent, batch->last(),
                batch->digest, batch->events(), batch->encoding == Encoding::plain ? "e" : "z",
                batch->encoding == Encoding::plain ? batch->lines : batch->frame, producer_);
    acknowledgement_.ask(request);
    lane.sent = batch->last();
    lane.most = std::max(lane.most, lane.sent);
    ++lane.outstanding;
    auto answer = client_.call(std::move(request));
    in_flight_.push_back({std::move(batch), std::move(answer)});
    arrived_.notify();
  }

  asio::awaitable<void> acknowledge_all() {
    for (;;) {
      while (in_flight_.empty()) {
        if (told_) {
          co_await follow_ring();
          continue;
        }
        if (input_ended_ && !rerouting_) {
          co_return;
        }
        co_await arrived_.wait();
      }
      const auto replies = co_await std::move(in_flight_.front().answer);
      co_await acknowledgement_.verify();
      auto batch = std::move(in_flight_.front().batch);
      in_flight_.pop_front();
      if (replies[0][0].text() == "BEHIND") {
        co_await seal_again(client_, topic_, batch->partition);
      }
      acknowledge(std::move(batch), replies);
    }
  }

  void acknowledge(BatchPointer batch, const redis::Replies& replies) {
    Lane& lane = lanes_[batch->partition];
    --lane.outstanding;
    const auto code = replies[0][0].text();
    if (code == "OK" || code == "DUPLICATE") {
      // A duplicate was stored by this process: its answer was lost with a connection. Of the last append of
      // the chain the server still knows the offset.
      std::optional<Offset> first;
      if (code == "OK") {
        first = Offset(replies[0][1].number());
      } else if (Position(replies[0][1].number()) == batch->last()) {
        first = Offset(replies[0][2].number() - batch->events());
      }
      lane.acked = std::max(lane.acked, batch->last());
      const bool confirmed = acknowledgement_.confirmed(replies, 1);
      confirm(*batch, first, confirmed ? StoredBatch::Status::stored : StoredBatch::Status::unconfirmed);
      budget_.give(batch->lines.size());
    } else if (code == "GAP") {
      const Position position(replies[0][1].number());
      if (position < lane.acked) {
        fail_lost(batch->partition, lane.acked, position);
      }
      lane.broken = true;
      lane.resume = position;
      lane.again.push_back(std::move(batch));
    } else if (code == "STALE") {
      told_ = std::max(told_.value_or(Generation()),
                       Generation(static_cast<Generation::rep>(replies[0][1].number())));
      unstored_.push_back(std::move(batch));
    } else {
      refuse(code, *batch);
    }
    if (lane.broken && lane.outstanding == 0 && !told_) {
      resend(lane);
    }
  }

  // The chain of a partition goes on from where the log stands.
  void resend(Lane& lane) {
    lane.broken = false;
    lane.sent = lane.resume;
    for (auto& batch : std::exchange(lane.again, {})) {
      if (batch->last() <= lane.resume) {
        confirm(*batch, std::nullopt, StoredBatch::Status::stored);
        budget_.give(batch->lines.size());
      } else {
        send(std::move(batch));
      }
    }
  }

  void confirm(const Batch& batch, std::optional<Offset> first, StoredBatch::Status status) {
    (status == StoredBatch::Status::stored ? summary_.stored : summary_.unconfirmed) += batch.events();
    if (hooks_.stored) {
      hooks_.stored({batch.partition, first, batch.lines, batch.positions, status});
    }
  }

  [[noreturn]] void refuse(std::string_view code, const Batch& batch) const {
    const auto at = place(topic_.name, batch.partition);
    if (code == "BEHIND") {
      fail(
          ErrorKind::loss,
          "{}: the partition was at an older ring than the topic: the server lost its part of a resize, and "
          "what was stored there meanwhile under the older one may be out of order. It is sealed now; see {}",
          at, lost_resize_section);
    }
    if (code == "FENCED") {
      fenced();
    }
    if (code == "UNKNOWN" || code == "EXPIRED") {
      fail(ErrorKind::loss,
           "{}: the server no longer knows the producer {}: its state was deleted or evicted", at,
           options_.wrap.producer);
    }
    if (code == "NOLOG") {
      no_log();
    }
    fail(ErrorKind::server, "{}: the server gave an answer to append that this version does not know: {}", at,
         code);
  }

  [[noreturn]] void fail_lost(Partition partition, Position confirmed, Position has) const {
    fail(ErrorKind::loss,
         "{} lost events of topic {}, partition {}: it had confirmed up to line {} and now has only up "
         "to line {}. {}",
         client_.address().text(), topic_.name, partition, confirmed, has,
         named_ ? "Run the same command again to store them again"
                : "Did it restart or fail over? `continuum inspect` shows what it has");
  }

  [[noreturn]] void no_log() const {
    fail(ErrorKind::loss,
         "the log of topic {} is gone from {}, or is another one: was it dropped, flushed, or restarted "
         "empty? "
         "`continuum topic ls` shows what is there",
         topic_.name, client_.address().text());
  }

  [[noreturn]] void fenced() const {
    fail(ErrorKind::fenced, "another process publishes as producer {} to topic {} and has taken over",
         producer_, topic_.name);
  }

  // What was sent or read without a known end counts as unconfirmed.
  void count_unconfirmed() {
    const auto lost = [&](const Batch& batch) {
      confirm(batch, std::nullopt, StoredBatch::Status::unconfirmed);
    };
    try {
      for (const auto& flight : std::exchange(in_flight_, {})) {
        if (flight.batch) {
          lost(*flight.batch);
        }
      }
      for (auto& [partition, lane] : lanes_) {
        for (const auto& batch : std::exchange(lane.again, {})) {
          lost(*batch);
        }
      }
      for (const auto& batch : std::exchange(unstored_, {})) {
        lost(*batch);
      }
    } catch (const Error&) {
      // The output is gone too; the first error is the one to tell.
    }
  }

  void finish_producer() {
    if (named_) {
      return;
    }
    redis::Request request;
    for (const auto& [partition, lane] : lanes_) {
      touched_.insert(partition);
    }
    for (const auto partition : touched_) {
      request.command("EXPIRE", producer_key(topic_.name, partition, producer_), ended_producer_seconds);
    }
    if (!request.empty()) {
      // Its answer changes nothing; the connection carries it before it closes.
      asio::co_spawn(io_, discard(client_.call(std::move(request))), asio::detached);
      ++helpers_;
    }
  }

  asio::awaitable<void> discard(asio::awaitable<redis::Replies> answer) {
    try {
      co_await std::move(answer);
    } catch (const Error&) {
      // It expires by itself a day later.
    }
    --helpers_;
    helpers_ended_.notify();
  }

  // --- helpers: stop and progress

  void start_helpers() {
    if (options_.stop >= 0) {
      stop_.assign(::dup(options_.stop));
      ++helpers_;
      asio::co_spawn(io_, watch_stop(), asio::detached);
    }
    if (hooks_.progress) {
      ++helpers_;
      asio::co_spawn(io_, report(), asio::detached);
    }
  }

  asio::awaitable<void> watch_stop() {
    for (;;) {
      const auto [error] = co_await stop_.async_wait(asio::posix::descriptor_base::wait_read, as_result);
      std::uint64_t count = 0;
      if (error || ::read(stop_.native_handle(), &count, sizeof count) <= 0) {
        break;
      }
      stops_ += count;
      input_->stop();
      wake();
      if (stops_ >= 2) {
        client_.close();
        break;
      }
    }
    --helpers_;
    helpers_ended_.notify();
  }

  asio::awaitable<void> report() {
    while (!ending_) {
      report_timer_.expires_after(progress_interval);
      co_await report_timer_.async_wait(as_result);
      try {
        hooks_.progress({input_->bytes_read(), summary_.stored, counters_.duplicates, counters_.rejected});
      } catch (const Error& e) {
        summary_.error = e;
        client_.close();
        break;
      }
    }
    --helpers_;
    helpers_ended_.notify();
  }

  asio::awaitable<void> end_helpers() {
    ending_ = true;
    asio::error_code ignored;
    stop_.close(ignored);
    report_timer_.cancel();
    const auto deadline = Clock::now() + goodbye;
    while (helpers_ > 0) {
      co_await helpers_ended_.wait_until(deadline);
      if (Clock::now() >= deadline) {
        client_.close();
      }
    }
  }

  redis::Client& client_;
  asio::io_context& io_;
  Topic topic_;
  const Frames frames_;  // also for the encoding thread
  PublishOptions options_;
  std::mutex hooks_mutex_;
  PublishHooks hooks_;
  bool named_ = false;
  std::string producer_;
  std::uint64_t epoch_ = 0;
  Acknowledgement acknowledgement_;
  int wake_;
  Budget budget_{in_flight_bytes_max};
  InputCounters counters_;
  BatchQueue to_encode_;
  FrameEncoder encoder_;
  PublishInput* input_ = nullptr;
  std::optional<Error> input_error_;  // written by the reading thread before it ends
  bool in_memory_ = false;
  bool input_ended_ = false;
  bool input_paused_ = false;
  bool rerouting_ = false;  // batches of the last follow_ring() are still being encoded
  std::map<Partition, Lane> lanes_;
  std::set<Partition> touched_;  // in earlier generations
  // Highest positions that this process found or sent.
  std::map<Generation, std::map<Partition, Position>> mine_;
  std::optional<Generation> told_;      // a partition is there already: nothing is sent
  std::vector<BatchPointer> unstored_;  // meanwhile
  bool confirmed_ = true;               // what open() found
  std::deque<InFlight> in_flight_;
  PublishSummary summary_;
  Signal arrived_;
  std::size_t helpers_ = 0;
  Signal helpers_ended_;
  asio::steady_timer report_timer_;
  asio::posix::stream_descriptor stop_;
  std::uint64_t stops_ = 0;
  bool ending_ = false;
};

}  // namespace

PublishSummary publish(redis::Session& session, const Topic& topic, PublishOptions options,
                       std::vector<LineSource> sources, const PublishHooks& hooks) {
  return Publisher(session, topic, std::move(options), hooks).run(std::move(sources));
}

}  // namespace continuum
