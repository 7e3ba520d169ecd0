#include "continuum/publisher.hpp"

#include "continuum/appender.hpp"
#include "continuum/publish_input.hpp"
#include "continuum/redis_client.hpp"

#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>

#include <sys/eventfd.h>
#include <unistd.h>

#include <thread>

namespace continuum {
namespace {

// Bytes of events between reading and acknowledgement.
constexpr std::size_t in_flight_bytes_max = std::size_t{32} << 20;
constexpr Milliseconds progress_interval{100};
// How long the end of a publish may wait for a server that has gone away meanwhile.
constexpr Milliseconds goodbye{1'000};

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
        frames_(topic.settings.frames),
        options_(std::move(options)),
        hooks_(serialized(hooks)),
        appender_(client_, topic, options_,
                  [this](const Batch& batch, std::optional<Offset> first, StoredBatch::Status status) {
                    confirm(batch, first, status);
                  }),
        wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        arrived_(io_.get_executor()),
        helpers_ended_(io_.get_executor()),
        report_timer_(io_.get_executor()),
        stop_(io_.get_executor()) {
    check(wake_ >= 0, "no descriptor for a wake-up");
    options_.wrap.topic = topic.name;
    options_.wrap.producer = appender_.named() ? appender_.producer() : appender_.producer().substr(1, 12);
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
    in_memory_ = sources.size() == 1 && sources[0].descriptor < 0;
    const Stored stored = co_await appender_.begin();
    PublishInput input(
        options_, appender_.topic(), stored, std::move(sources), wake_, hooks_,
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
    }
    input.stop();
    wake();
    budget_.close();
    to_encode_.close();
    if (summary_.error) {
      count_unconfirmed();
    }
    if (reading.joinable()) {
      reading.join();
      encoding.join();
    }
    co_await end_helpers();
    if (!summary_.error) {
      summary_.error = input_error_;
    }
    if (!summary_.error && stops_ > 0) {
      summary_.error = Error(ErrorKind::interrupted,
                             appender_.named() ? "interrupted: run it again to continue where it stopped"
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

  // Whatever was put into the queue before has been given to the appender.
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

  // --- the ring has changed (PROTOCOLS: Producer resume)

  // All answers are in, and nothing more is sent until this is done.
  asio::awaitable<void> follow_ring() {
    co_await pause_input();
    auto followed = co_await appender_.follow([this] { return stops_ < 2; });
    for (auto& batch : followed.unstored) {
      encode_and_send(std::move(batch));
    }
    resume_input(followed.chains);
  }

  // Until the appender has everything that was read.
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

  void resume_input(const std::map<Partition, std::uint64_t>& chains) {
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
    const Topic& topic = appender_.topic();
    input_->resume(topic.active, std::make_unique<Ring>(topic.ring()), chains);
  }

  // --- sending and acknowledging, on the calling thread

  void send(BatchPointer batch) {
    appender_.send(std::move(batch));
    arrived_.notify();
  }

  asio::awaitable<void> acknowledge_all() {
    for (;;) {
      while (appender_.outstanding() == 0) {
        if (appender_.told_of_change()) {
          co_await follow_ring();
          continue;
        }
        if (input_ended_ && !rerouting_) {
          co_return;
        }
        co_await arrived_.wait();
      }
      co_await appender_.take_answer();
    }
  }

  void confirm(const Batch& batch, std::optional<Offset> first, StoredBatch::Status status) {
    (status == StoredBatch::Status::stored ? summary_.stored : summary_.unconfirmed) += batch.events();
    if (hooks_.stored) {
      hooks_.stored({batch.partition, first, batch.lines, batch.positions, status});
    }
    budget_.give(batch.lines.size());
  }

  // What was sent or read without a known end counts as unconfirmed.
  void count_unconfirmed() {
    try {
      appender_.give_up();
    } catch (const Error&) {
      // The output is gone too; the first error is the one to tell.
    }
  }

  void finish_producer() {
    if (auto answer = appender_.farewell()) {
      // It changes nothing; the connection carries what was asked before it closes.
      asio::co_spawn(io_, discard(*std::move(answer)), asio::detached);
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
  const Frames frames_;  // also for the encoding thread
  PublishOptions options_;
  std::mutex hooks_mutex_;
  PublishHooks hooks_;
  Appender appender_;
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
