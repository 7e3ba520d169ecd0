#include "continuum/units.hpp"
#include "continuum/worker_process.hpp"

#include <unistd.h>

#include <algorithm>
#include <utility>

namespace continuum {

namespace {

constexpr Milliseconds tell_together{50};
constexpr Milliseconds status_every{5'000};

}  // namespace

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

}  // namespace continuum
