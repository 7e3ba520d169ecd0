#include "continuum/worker.hpp"

#include "continuum/error.hpp"
#include "continuum/handler.hpp"
#include "continuum/log.hpp"
#include "continuum/worker_process.hpp"

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <fcntl.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <random>
#include <thread>

namespace continuum {

namespace {

constexpr Milliseconds leave_within{2'000};           // of giving back what is left when stopped at once
constexpr Milliseconds reader_retry_for{86'400'000};  // the control connection decides when to give up
constexpr unsigned decode_threads_max = 4;
constexpr unsigned disk_threads = 4;           // mostly they wait for an fsync
constexpr std::size_t processes_max = 16'384;  // of handlers, over all partitions

// A handler that ends while it is written to would otherwise end us.
class PipeSignalBlocked {
 public:
  PipeSignalBlocked() {
    ::sigemptyset(&pipe_);
    ::sigaddset(&pipe_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~PipeSignalBlocked() {
    if (::sigismember(&before_, SIGPIPE) == 0) {
      const timespec at_once{};
      while (::sigtimedwait(&pipe_, nullptr, &at_once) > 0) {
      }
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  PipeSignalBlocked(const PipeSignalBlocked&) = delete;
  PipeSignalBlocked& operator=(const PipeSignalBlocked&) = delete;

 private:
  sigset_t pipe_;
  sigset_t before_;
};

std::string random_owner() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

std::unique_ptr<ProcessGuard> make_guard(const WorkOptions& options) {
  return !options.handles() ? nullptr : std::make_unique<ProcessGuard>(processes_max);
}

// Workers that share wait and end as a whole, not partition by partition.
WorkOptions options_of_each(WorkOptions options) {
  if (options.sharing == Sharing::shared) {
    options.ending = Ending::never;
    options.standby = Standby::wait;
  }
  return options;
}

}  // namespace

Worker::Worker(redis::Session& session, const Topic& topic, const WorkOptions& options)
    : io_(redis::io_of(session)),
      executor_(io_.get_executor()),
      options_(options),
      each_(options_of_each(options)),
      control_(redis::client_of(session)),
      topic_(topic),
      rings_(topic_),
      // Before the threads: it forks.
      guard_(make_guard(options)),
      handlers_(executor_, options),
      pool_(std::clamp(std::thread::hardware_concurrency(), 1U, decode_threads_max)),
      place_{executor_,
             topic_,
             each_,
             pool_,
             nullptr,
             guard_.get(),
             handlers_.handlers(),
             Budget(options.events_max),
             {},
             0,
             0,
             {},
             {},
             {},
             nullptr,
             {},
             0,
             0},
      shift_{place_,
             control_,
             {random_owner(), options.who, options.lease},
             nullptr,
             nullptr,
             Stopping::no,
             {},
             {},
             {},
             handlers_.fingerprint(),
             [this](const Topic& seen) { saw_topic(seen); },
             &rings_,
             &watch_,
             options.ending},
      watch_(shift_),
      say_(executor_),
      ended_(executor_),
      ring_(executor_),
      renew_(executor_),
      manager_(options.notify_socket),
      report_(executor_),
      time_(executor_),
      drain_(executor_),
      hurry_(executor_) {
  place_.on_output_error = [this](int error) {
    output_closed_ = output_closed_ || error == EPIPE;
    if (!output_closed_) {
      fail_with(std::make_exception_ptr(
          Error(ErrorKind::server, fmt::format("cannot write to stdout: {}", std::strerror(error)))));
    }
    stop(Stopping::now);
  };
  shift_.renew_soon = [this] { renew_.notify(); };
  shift_.on_ended = [this] { look_for_end(); };
  shift_.tell = [this](const std::string& what, Partition partition) { tell(what, partition); };
}

void Worker::prepare_emit() {
  if (!options_.emit_to) {
    return;
  }
  emit_wrapper_.emplace(options_.emit, *options_.emit_to, place_.topic.name, options_.group);
  emit_target_.emplace(*options_.emit_to);
  redis::ClientOptions client;
  client.needs.access = redis::Needs::Access::write;
  client.retry_for = reader_retry_for;
  emit_client_ = std::make_unique<redis::Client>(executor_, control_.address(), client);
  run_until_done(io_, emit_client_->ready());  // a server that cannot be reached is heard of at once
  shift_.emit_client = emit_client_.get();
  shift_.emit_target = &*emit_target_;
  place_.emit = [this](const EmitCause& cause, std::string_view printed, Workplace::Printed as,
                       std::string& output) {
    return as == Workplace::Printed::lines ? emit_wrapper_->wrap_lines(cause, printed, output)
                                           : emit_wrapper_->wrap_array(cause, printed, output);
  };
}

asio::awaitable<Topic> Worker::load_topic() {
  redis::Request request;
  request_topic(request, place_.topic.name);
  const redis::Replies replies = co_await control_.call(std::move(request));
  auto topic = parse_topic(place_.topic.name, replies[0]);
  if (!topic || topic->log_id != place_.topic.log_id) {
    fail(ErrorKind::loss, "topic {} is gone, or another one: was the server flushed, or the topic dropped?",
         place_.topic.name);
  }
  co_return std::move(*topic);
}

void Worker::make_partitions() {
  std::vector<Partition> wanted = options_.partitions;
  std::sort(wanted.begin(), wanted.end());
  wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
  for (const Partition partition : wanted) {
    (void)add_partition(partition);
  }
}

PartitionWorker& Worker::add_partition(Partition partition) {
  if (partitions_.size() % LogReader::streams_max == 0) {
    redis::ClientOptions options;
    options.retry_for = reader_retry_for;
    read_clients_.push_back(std::make_unique<redis::Client>(executor_, control_.address(), options));
    readers_.push_back(
        std::make_unique<LogReader>(executor_, *read_clients_.back(), control_, place_.topic.name));
    if (reading_) {
      start(readers_.back()->run());
    }
  }
  partitions_.push_back(std::make_unique<PartitionWorker>(shift_, *readers_.back(), partition));
  return *partitions_.back();
}

void Worker::start(asio::awaitable<void> story) {
  ++stories_;
  asio::co_spawn(executor_, std::move(story), [this](const std::exception_ptr& error) {
    --stories_;
    if (error) {
      fail_with(error);
    }
    ended_.notify();
  });
}

void Worker::fail_with(const std::exception_ptr& error) {
  // Later errors are usually consequences of the first, or of stopping.
  if (!error_ && !output_closed_) {
    error_ = error;
  }
  stop(Stopping::now);
}

void Worker::stop(Stopping how) {
  if (how <= shift_.stopping) {
    return;
  }
  shift_.stopping = how;
  for (const auto& partition : partitions_) {
    partition->notify();
  }
  if (sharing_) {
    sharing_->notify();
  }
  ring_.notify();
  if (how == Stopping::now && !std::exchange(hurrying_, true)) {
    start(hurry());
  }
}

// A server that does not answer must not keep a worker that was told to end at once.
asio::awaitable<void> Worker::hurry() {
  if (closing_) {
    co_return;
  }
  hurry_.expires_after(leave_within);
  const auto [error] = co_await hurry_.async_wait(as_result);
  if (!error && !closing_) {
    control_.close();
    if (emit_client_) {
      emit_client_->close();
    }
  }
}

void Worker::look_for_end() {
  if (sharing_) {
    sharing_->notify();
  }
  if (place_.budget.spent()) {
    // Those that wait for an event need not wait any more.
    for (const auto& partition : partitions_) {
      partition->notify();
    }
  }
  // When every partition is halted, waiting on does not help.
  const auto halted = static_cast<std::size_t>(
      std::count_if(partitions_.begin(), partitions_.end(), [](const auto& p) { return p->halted(); }));
  if (halted >= open_.size() && !more_to_open()) {
    stop(Stopping::drain);
  }
}

asio::awaitable<void> Worker::limit_time() {
  if (closing_) {
    co_return;
  }
  time_.expires_after(*options_.time_max);
  const auto [error] = co_await time_.async_wait(as_result);
  if (!error) {
    stop(Stopping::drain);
  }
}

// All leases in one request, three times in their time, and at once when a state changed.
asio::awaitable<void> Worker::renew_leases() {
  while (!closing_) {
    co_await renew_.wait(Clock::now() + options_.lease / 3);
    redis::Request request;
    std::vector<std::pair<PartitionWorker*, Fence>> asked;
    for (const auto& partition : partitions_) {
      if (const auto fence = partition->add_renewal(request)) {
        asked.emplace_back(partition.get(), *fence);
      }
    }
    if (asked.empty()) {
      continue;
    }
    const auto sent = BootClock::now();
    const redis::Replies replies = co_await control_.call(std::move(request));
    for (std::size_t i = 0; i < asked.size(); ++i) {
      asked[i].first->renewed(asked[i].second, sent, parse_renew(replies[i]));
    }
  }
}

void Worker::start_partition(PartitionWorker& own) {
  open_.insert(own.partition());
  start([](Worker& worker, PartitionWorker& its) -> asio::awaitable<void> {
    std::exception_ptr error;
    try {
      co_await its.run();
    } catch (...) {
      error = std::current_exception();
    }
    worker.open_.erase(its.partition());
    if (error) {
      std::rethrow_exception(error);
    }
    if (worker.comes_back(its.partition())) {
      // The ring changed while it was ending.
      worker.followed_ = Generation();
      worker.ring_.notify();
    }
  }(*this, own));
}

asio::awaitable<void> Worker::work() {
  for (const auto& reader : readers_) {
    start(reader->run());
  }
  reading_ = true;
  start(renew_leases());
  retention_.emplace(shift_, partitions_);
  start(retention_->run());
  if (requests_) {
    start(obey_requests());
  }
  if (handlers_changed_) {
    start(follow_handlers());
    comparison_.emplace(shift_, partitions_);
    start(comparison_->run());
  }
  if (manager_.listened_to()) {
    start(report_to_manager());
  }
  if (options_.time_max) {
    start(limit_time());
  }
  if (options_.sharing == Sharing::shared) {
    sharing_.emplace(shift_, options_, partitions_, [this] { stop(Stopping::drain); });
    start(sharing_->run());
  }
  for (const auto& partition : partitions_) {
    start_partition(*partition);
  }
  start(follow_ring());
  while (!open_.empty() || more_to_open()) {
    co_await ended_.wait();
    look_for_end();
  }
  closing_ = true;
  for (const auto& reader : readers_) {
    reader->stop();
  }
  renew_.notify();
  ring_.notify();
  if (sharing_) {
    sharing_->close();
  }
  if (comparison_) {
    comparison_->close();
  }
  retention_->close();
  time_.cancel();
  hurry_.cancel();
  say_.cancel();
  drain_.cancel();
  report_.notify();
  for (auto* const descriptor : {&requests_, &handlers_changed_}) {
    if (*descriptor) {
      (*descriptor)->cancel();
    }
  }
  while (stories_ > 0) {
    co_await ended_.wait();
  }
}

WorkSummary Worker::run() {
  const PipeSignalBlocked blocked;
  if (options_.archive) {
    disk_.emplace(disk_threads);
    place_.disk = &*disk_;
    place_.load_topic = [this] { return load_topic(); };
  } else if (!options_.handles()) {
    output_.emplace(options_.output_fd, executor_);
    place_.output = &*output_;
  }
  // Duplicates: the owners keep their own.
  if (options_.requests_fd >= 0) {
    requests_.emplace(executor_, ::fcntl(options_.requests_fd, F_DUPFD_CLOEXEC, 3));
  }
  if (const auto changes = handlers_.notify_fd()) {
    handlers_changed_.emplace(executor_, ::fcntl(*changes, F_DUPFD_CLOEXEC, 3));
  }
  prepare_emit();
  make_partitions();
  bool done = false;
  asio::co_spawn(executor_, work(), [&](const std::exception_ptr&) { done = true; });
  io_.restart();
  while (!done) {
    io_.run_one();
  }
  output_.reset();
  if (error_ && !stopped_at_once_) {
    std::rethrow_exception(error_);
  }
  WorkSummary summary;
  summary.handled = place_.handled;
  summary.failed = place_.failed;
  summary.damaged = place_.damaged;
  summary.unarchived = place_.unarchived;
  for (const auto& partition : partitions_) {
    if (partition->halted()) {
      summary.halted.push_back(partition->partition());
    }
    if (partition->left_something()) {
      summary.waiting.push_back(partition->partition());
    }
  }
  summary.stopped = stopped_;
  summary.stopped_at_once = stopped_at_once_;
  summary.output_closed = output_closed_;
  return summary;
}

WorkSummary work(redis::Session& session, const Topic& topic, const WorkOptions& options) {
  return Worker(session, topic, options).run();
}

}  // namespace continuum
