#include "continuum/barrier_watch.hpp"

#include "continuum/partition_worker.hpp"
#include "continuum/resize_steps.hpp"

#include <algorithm>

namespace continuum {

namespace {

constexpr Milliseconds pause_min{10};

// True while it lives.
class Under {
 public:
  explicit Under(bool& way) : way_(way) { way_ = true; }
  ~Under() { way_ = false; }
  Under(const Under&) = delete;
  Under& operator=(const Under&) = delete;

 private:
  bool& way_;
};

// Most of the time is for others.
Clock::time_point after(Clock::time_point began, Milliseconds pause) {
  const auto now = Clock::now();
  return now + std::max<Clock::duration>(pause, 2 * (now - began));
}

}  // namespace

asio::awaitable<void> BarrierWatch::look_at_topic() {
  if (looking_ || Clock::now() < look_at_) {
    co_return;
  }
  const Under way(looking_);
  const auto began = Clock::now();
  const Topic topic =
      co_await reload_topic(shift_.control, shift_.place.topic.name, shift_.place.topic.log_id);
  shift_.saw_topic(topic);
  look_at_ = after(began, pause_min);
}

asio::awaitable<void> BarrierWatch::help(Generation generation) {
  if (helping_ || shift_.place.topic.active >= generation) {
    co_return;
  }
  const Under way(helping_);
  Topic topic = co_await reload_topic(shift_.control, shift_.place.topic.name, shift_.place.topic.log_id);
  if (!topic.pending || *topic.pending < generation) {
    co_return;
  }
  const FinishedResize finished = co_await finish_resize(shift_.control, std::move(topic), WhenFull::leave);
  if (finished.refused.empty()) {
    told_full_ = false;
  } else if (!std::exchange(told_full_, true)) {
    for (const Partition partition : finished.refused) {
      shift_.tell(
          "the server is full (maxmemory): the topic's groups cannot be registered here, and the resize "
          "waits "
          "for that. Stop publishers, trim, or raise maxmemory",
          partition);
    }
  }
}

}  // namespace continuum
