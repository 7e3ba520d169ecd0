#include "continuum/barrier_watch.hpp"

#include "continuum/dead_letters.hpp"
#include "continuum/error.hpp"
#include "continuum/partition_worker.hpp"
#include "continuum/resize_steps.hpp"

#include <algorithm>
#include <set>
#include <utility>

namespace continuum {

namespace {

constexpr Milliseconds pause_min{10};
constexpr Milliseconds pause_max{300};
// Each may have the keys of thousands of letters.
constexpr std::size_t donors_read_at_once = 64;

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
    // It is begun before the first partition is sealed.
    if (topic.active < generation) {
      fail(ErrorKind::loss,
           "the log of a partition of topic {} speaks of generation {} of the ring, and the topic is at "
           "generation "
           "{}: the server lost a resize; see {}",
           topic.name, generation, topic.active, lost_resize_section);
    }
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

asio::awaitable<std::optional<std::vector<Partition>>> BarrierWatch::donors_with_letters(
    Generation generation, Partition to, std::uint64_t since) {
  const std::vector<Partition>& donors = shift_.rings->donors(generation, to);
  Crossing& crossing = crossings_[generation];
  crossing.since = std::max(crossing.since, since);
  for (const Partition donor : donors) {
    if (crossing.donors.size() <= donor.value) {
      crossing.donors.resize(donor.value + 1);
    }
    if (!std::exchange(crossing.donors[donor.value].wanted, true)) {
      crossing.wanted.push_back(donor);
    }
  }
  const auto all_stand_still = [&] {
    return std::all_of(donors.begin(), donors.end(),
                       [&](Partition donor) { return crossing.donors[donor.value].learned >= since; });
  };
  if (!all_stand_still() && !crossing.looking && Clock::now() >= crossing.look_at) {
    co_await look_at_donors(generation, crossing);
  }
  if (!all_stand_still()) {
    co_return std::nullopt;
  }
  std::vector<Partition> with_letters;
  for (const Partition donor : donors) {
    const std::vector<Partition>& receivers = crossing.donors[donor.value].receivers;
    if (std::binary_search(receivers.begin(), receivers.end(), to)) {
      with_letters.push_back(donor);
    }
  }
  co_return std::optional(std::move(with_letters));
}

asio::awaitable<void> BarrierWatch::look_at_donors(Generation generation, Crossing& crossing) {
  const Under way(crossing.looking);
  const auto began = Clock::now();
  const std::uint64_t look = ++looks_;
  const std::string_view topic = shift_.place.topic.name;
  const std::string_view group = shift_.place.options.group;
  redis::Request request;
  std::vector<Partition> asked;
  for (const Partition donor : crossing.wanted) {
    if (crossing.donors[donor.value].learned < crossing.since) {
      asked.push_back(donor);
      request.command("HMGET", group_key(topic, donor, group), "passed", "import");
      request.command("HLEN", held_key(topic, donor, group));
    }
  }
  if (asked.empty()) {
    co_return;
  }
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  std::vector<Partition> have_letters;
  bool news = false;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const redis::Reply state = replies[2 * i];
    const bool passed = !state[0].is_nil() && state[0].number() >= generation.value;
    const bool stands_still = !state[1].is_nil() && Import::parse(state[1].text()).generation >= generation;
    if (!passed && !stands_still) {
      continue;
    }
    news = true;
    if (replies[2 * i + 1].number() > 0) {
      have_letters.push_back(asked[i]);
    } else {
      crossing.donors[asked[i].value].receivers.clear();
      crossing.donors[asked[i].value].learned = look;
    }
  }
  co_await look_at_letters(generation, crossing, have_letters, look);
  crossing.pause = news ? pause_min : std::clamp(2 * crossing.pause, pause_min, pause_max);
  crossing.look_at = after(began, crossing.pause);
}

asio::awaitable<void> BarrierWatch::look_at_letters(Generation generation, Crossing& crossing,
                                                    const std::vector<Partition>& donors,
                                                    std::uint64_t look) {
  for (std::size_t begin = 0; begin < donors.size(); begin += donors_read_at_once) {
    const std::size_t end = std::min(begin + donors_read_at_once, donors.size());
    redis::Request request;
    for (std::size_t i = begin; i < end; ++i) {
      request.command("HGETALL", held_key(shift_.place.topic.name, donors[i], shift_.place.options.group));
    }
    const redis::Replies replies = co_await shift_.control.call(std::move(request));
    const Ring* const before = shift_.rings->of(Generation(generation.value - 1));
    const Ring* const now = shift_.rings->of(generation);
    check(before != nullptr && now != nullptr, "a generation that is in force is described");
    for (std::size_t i = begin; i < end; ++i) {
      std::set<Partition> receivers;
      for (const HeldKey& key : parse_held(replies[i - begin]).keys) {
        const Partition owner = now->owner(key.whose.key);
        if (owner != donors[i] && before->owner(key.whose.key) == donors[i]) {
          receivers.insert(owner);
        }
      }
      Donor& donor = crossing.donors[donors[i].value];
      donor.receivers.assign(receivers.begin(), receivers.end());
      donor.learned = look;
    }
  }
}

}  // namespace continuum
