#include "continuum/worker.hpp"

#include "continuum/barrier_watch.hpp"
#include "continuum/decode_pool.hpp"
#include "continuum/error.hpp"
#include "continuum/handler.hpp"
#include "continuum/handler_comparison.hpp"
#include "continuum/handler_watch.hpp"
#include "continuum/log.hpp"
#include "continuum/partition_worker.hpp"
#include "continuum/printer.hpp"
#include "continuum/resize_steps.hpp"
#include "continuum/retention_keeper.hpp"
#include "continuum/service_notify.hpp"
#include "continuum/shared_partitions.hpp"
#include "continuum/units.hpp"

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <thread>

namespace continuum {

namespace {

constexpr Milliseconds leave_within{2'000};           // of giving back what is left when stopped at once
constexpr Milliseconds reader_retry_for{86'400'000};  // the control connection decides when to give up
constexpr Milliseconds tell_together{50};
constexpr Milliseconds status_every{5'000};
constexpr Milliseconds look_at_ring_every{1'000};
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

class Worker {
 public:
  Worker(redis::Session& session, const Topic& topic, const WorkOptions& options);

  WorkSummary run();

 private:
  asio::awaitable<void> work();
  asio::awaitable<void> renew_leases();
  asio::awaitable<void> obey_requests();
  asio::awaitable<void> limit_drain();
  asio::awaitable<void> follow_handlers();
  asio::awaitable<void> report_to_manager();
  void read_handlers(Removals removals);
  void say_state();
  asio::awaitable<void> limit_time();
  asio::awaitable<void> hurry();
  asio::awaitable<Topic> load_topic();
  void prepare_emit();
  void make_partitions();
  PartitionWorker& add_partition(Partition partition);
  void start_partition(PartitionWorker& own);
  void saw_topic(const Topic& topic);
  asio::awaitable<void> follow_ring();
  asio::awaitable<void> take_up_new_partitions();
  asio::awaitable<std::vector<Partition>> register_here(std::vector<Partition> partitions);
  void stop(Stopping how);
  void look_for_end();
  [[nodiscard]] bool takes_up_what_comes() const;
  [[nodiscard]] bool comes_back(Partition partition) const;
  [[nodiscard]] bool more_to_open() const;
  void tell(const std::string& what, Partition partition);
  asio::awaitable<void> say_told();
  void fail_with(const std::exception_ptr& error);
  // Runs beside the others; its error stops all.
  void start(asio::awaitable<void> story);

  asio::io_context& io_;
  asio::any_io_executor executor_;
  const WorkOptions& options_;
  const WorkOptions each_;  // as a partition sees them
  redis::Client& control_;
  Topic topic_;  // its ring may change
  Rings rings_;
  std::unique_ptr<ProcessGuard> guard_;
  HandlerWatch handlers_;
  std::optional<OutputWriter> output_;
  std::optional<DecodePool> disk_;
  DecodePool pool_;
  Workplace place_;
  Shift shift_;
  BarrierWatch watch_;
  std::optional<EmitWrapper> emit_wrapper_;
  std::optional<EmitTarget> emit_target_;
  std::unique_ptr<redis::Client> emit_client_;
  std::vector<std::unique_ptr<redis::Client>> read_clients_;
  std::vector<std::unique_ptr<LogReader>> readers_;
  std::vector<std::unique_ptr<PartitionWorker>> partitions_;
  std::optional<SharedPartitions> sharing_;
  std::optional<HandlerComparison> comparison_;
  std::optional<RetentionKeeper> retention_;

  std::map<std::string, std::vector<Partition>> told_;  // not said yet
  asio::steady_timer say_;

  std::size_t stories_ = 0;   // that have not ended
  bool closing_ = false;      // every partition has ended: the other stories follow
  std::set<Partition> open_;  // partitions whose stories have not ended
  bool reading_ = false;      // readers are started
  Generation followed_;       // whose partitions are taken up
  std::set<Partition> full_;  // that cannot be, because the server is
  Wake ended_;
  Wake ring_;  // it may have changed
  Wake renew_;
  std::optional<asio::posix::stream_descriptor> requests_;
  std::optional<asio::posix::stream_descriptor> handlers_changed_;
  ServiceNotify manager_;
  Wake report_;
  asio::steady_timer time_;
  asio::steady_timer drain_;
  asio::steady_timer hurry_;
  bool hurrying_ = false;
  bool stopped_ = false;
  bool stopped_at_once_ = false;
  bool output_closed_ = false;
  std::exception_ptr error_;
};

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

// --- a ring that changes

void Worker::saw_topic(const Topic& topic) {
  if (topic.active < topic_.active) {
    return;
  }
  const bool changed = topic.active > topic_.active || topic.pending != topic_.pending;
  // Name and id stay: others hold views of them.
  topic_.active = topic.active;
  topic_.pending = topic.pending;
  topic_.rings = topic.rings;
  topic_.groups = topic.groups;
  if (changed) {
    ring_.notify();
  }
}

asio::awaitable<void> Worker::follow_ring() {
  while (!closing_ && shift_.stopping == Stopping::no) {
    co_await ring_.wait(Clock::now() + look_at_ring_every);
    if (closing_ || shift_.stopping != Stopping::no) {
      co_return;
    }
    redis::Request request;
    request.command("HMGET", topic_key(topic_.name), "active", "id");
    const redis::Replies replies = co_await control_.call(std::move(request));
    const redis::Reply now = replies[0];
    // A topic that is gone is found out by those that renew their leases.
    if (now[0].is_nil() || now[1].is_nil() || now[1].text() != topic_.log_id) {
      continue;
    }
    if (now[0].number() > topic_.active.value) {
      const Topic seen = co_await reload_topic(control_, topic_.name, topic_.log_id);
      saw_topic(seen);
    }
    if (followed_ != topic_.active) {
      co_await take_up_new_partitions();
    }
  }
}

// A story that ends before the worker does is that of a partition which was out of the ring.
bool Worker::takes_up_what_comes() const {
  return options_.coverage == Coverage::all && each_.ending == Ending::never && !place_.budget.spent() &&
         shift_.stopping == Stopping::no;
}

bool Worker::comes_back(Partition partition) const {
  const auto& members = topic_.ring().members;
  return takes_up_what_comes() && !open_.contains(partition) &&
         std::any_of(members.begin(), members.end(),
                     [&](const RingMember& member) { return member.partition == partition; });
}

bool Worker::more_to_open() const {
  const auto& members = topic_.ring().members;
  return takes_up_what_comes() && std::any_of(members.begin(), members.end(), [&](const RingMember& member) {
           return !open_.contains(member.partition);
         });
}

// Returns where that has to wait for a server that is full.
asio::awaitable<std::vector<Partition>> Worker::register_here(std::vector<Partition> partitions) {
  std::vector<Partition> refused;
  if (!partitions.empty()) {
    // As the topic is now: a group that was forgotten a moment ago must not come back.
    const Topic now = co_await reload_topic(control_, topic_.name, topic_.log_id);
    std::vector<std::string> groups(1, options_.group);
    refused =
        co_await register_groups(control_, now, std::move(groups), std::move(partitions), WhenFull::leave);
  }
  for (const Partition partition : refused) {
    if (full_.insert(partition).second) {
      tell(fmt::format("the server is full (maxmemory): group {} cannot be registered here yet. Stop "
                       "publishers, trim, or raise maxmemory",
                       options_.group),
           partition);
    }
  }
  full_ = {refused.begin(), refused.end()};
  co_return refused;
}

asio::awaitable<void> Worker::take_up_new_partitions() {
  const Generation seen = topic_.active;
  const bool all = options_.sharing == Sharing::shared || options_.coverage == Coverage::all;
  std::vector<Partition> added;
  for (const Partition partition : topic_.partitions()) {
    const bool known = std::any_of(partitions_.begin(), partitions_.end(),
                                   [&](const auto& own) { return own->partition() == partition; });
    if (all && !known) {
      added.push_back(partition);
    }
  }
  const std::vector<Partition> refused = co_await register_here(added);
  std::erase_if(added, [&](Partition partition) {
    return std::binary_search(refused.begin(), refused.end(), partition);
  });
  if (refused.empty()) {
    followed_ = seen;
  }
  if (closing_) {
    co_return;
  }
  for (const auto& own : partitions_) {
    own->ring_changed();
  }
  for (const Partition partition : added) {
    start_partition(add_partition(partition));
  }
  for (const auto& own : partitions_) {
    if (comes_back(own->partition())) {
      own->begin_again();
      start_partition(*own);
    }
  }
  if (sharing_) {
    sharing_->ring_changed(partitions_);
  }
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

void Worker::tell(const std::string& what, Partition partition) {
  if (told_.empty()) {
    start(say_told());
  }
  told_[what].push_back(partition);
}

asio::awaitable<void> Worker::say_told() {
  say_.expires_after(tell_together);
  co_await say_.async_wait(as_result);
  for (auto& [what, partitions] : std::exchange(told_, {})) {
    std::sort(partitions.begin(), partitions.end());
    std::string list;
    for (const Partition partition : partitions) {
      list += fmt::format("{}{}", list.empty() ? "" : ",", partition);
    }
    place_.say(fmt::format("topic {}, partition{} {}: {}", place_.topic.name,
                           partitions.size() == 1 ? "" : "s", list, what));
  }
}

// --- what is asked of it, and what it tells

asio::awaitable<void> Worker::obey_requests() {
  for (;;) {
    co_await requests_->async_wait(asio::posix::stream_descriptor::wait_read, as_result);
    if (closing_) {
      co_return;
    }
    char request = 0;
    if (::read(requests_->native_handle(), &request, 1) <= 0) {
      co_return;
    }
    if (request == 'h') {
      manager_.reloading();
      read_handlers(Removals::apply);
      manager_.ready();
    } else if (request == 'u') {
      say_state();
    } else if (shift_.stopping == Stopping::no) {
      stopped_ = true;
      manager_.stopping();
      stop(Stopping::drain);
      start(limit_drain());
    } else {
      stopped_at_once_ = true;
      stop(Stopping::now);
    }
  }
}

asio::awaitable<void> Worker::limit_drain() {
  drain_.expires_after(options_.drain_within);
  const auto [error] = co_await drain_.async_wait(as_result);
  if (!error && !closing_ && shift_.stopping == Stopping::drain) {
    place_.say(fmt::format("topic {}: what still runs after {} is killed; it will be handled again",
                           place_.topic.name, format_duration(options_.drain_within)));
    stop(Stopping::now);
  }
}

void Worker::read_handlers(Removals removals) {
  const HandlerWatch::Changed changed = handlers_.refresh(removals);
  // Of the files as they are written: they may differ and mean the same.
  std::string fingerprint = handlers_.fingerprint();
  if (fingerprint != shift_.handlers) {
    shift_.handlers = std::move(fingerprint);
    renew_.notify();
    if (comparison_) {
      comparison_->notify();
    }
  }
  if (changed == HandlerWatch::Changed::no) {
    return;
  }
  place_.handlers = handlers_.handlers();
  for (const auto& partition : partitions_) {
    partition->handlers_changed();
  }
}

asio::awaitable<void> Worker::follow_handlers() {
  while (!closing_) {
    co_await handlers_changed_->async_wait(asio::posix::stream_descriptor::wait_read, as_result);
    if (closing_) {
      co_return;
    }
    handlers_.drain();
    read_handlers(Removals::keep);
  }
}

void Worker::say_state() {
  for (const auto& partition : partitions_) {
    place_.say(partition->state_for_people());
  }
  place_.say(fmt::format("topic {}, group {}: {} events handled, {} given up", place_.topic.name,
                         options_.group, format_count(place_.handled), format_count(place_.failed)));
}

// From the loop that does the work, so that a loop that stands still is noticed.
asio::awaitable<void> Worker::report_to_manager() {
  const Milliseconds every = std::min(options_.watchdog_every.value_or(status_every), status_every);
  manager_.ready();
  while (!closing_) {
    const auto held = std::count_if(partitions_.begin(), partitions_.end(),
                                    [](const auto& partition) { return partition->holding(); });
    manager_.status(fmt::format("{} of {} partitions, {} events handled, {} given up", held,
                                partitions_.size(), format_count(place_.handled),
                                format_count(place_.failed)));
    if (options_.watchdog_every) {
      manager_.watchdog();
    }
    co_await report_.wait(Clock::now() + every);
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
    if (partition->left_events()) {
      summary.waiting.push_back(partition->partition());
    }
  }
  summary.stopped = stopped_;
  summary.stopped_at_once = stopped_at_once_;
  summary.output_closed = output_closed_;
  return summary;
}

}  // namespace

WorkSummary work(redis::Session& session, const Topic& topic, const WorkOptions& options) {
  return Worker(session, topic, options).run();
}

}  // namespace continuum
