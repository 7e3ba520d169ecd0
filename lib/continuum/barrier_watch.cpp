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

std::vector<Partition> partitions_in(const std::vector<bool>& set) {
  std::vector<Partition> partitions;
  for (std::uint32_t number = 0; number < set.size(); ++number) {
    if (set[number]) {
      partitions.emplace_back(number);
    }
  }
  return partitions;
}

std::string_view text_of(Headway::Going going) {
  switch (going) {
    case Headway::Going::paused:
      return "is paused";
    case Headway::Going::halted:
      return "is halted";
    case Headway::Going::without_worker:
      return "no worker has";
    case Headway::Going::on:
      break;
  }
  return "is behind";
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
    const Generation passed(state[0].is_nil() ? 0 : static_cast<Generation::rep>(state[0].number()));
    const Generation import = state[1].is_nil() ? Generation() : Import::parse(state[1].text()).generation;
    const Generation reached = std::max(passed, import);
    if (reached < generation) {
      continue;
    }
    news = true;
    // One that has come further has dropped what it gave away here. Who passes the barrier once more, after a
    // seek, would take letters of keys for that which have come back there since.
    if (reached == generation && replies[2 * i + 1].number() > 0) {
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
  for (std::size_t begin = 0; begin < donors.size(); begin += held_read_at_once) {
    const std::size_t end = std::min(begin + held_read_at_once, donors.size());
    redis::Request request;
    for (std::size_t i = begin; i < end; ++i) {
      request.command("HGETALL", held_key(shift_.place.topic.name, donors[i], shift_.place.options.group));
    }
    const redis::Replies replies = co_await shift_.control.call(std::move(request));
    for (std::size_t i = begin; i < end; ++i) {
      Donor& donor = crossing.donors[donors[i].value];
      donor.receivers = receivers_of(generation, donors[i], replies[i - begin]);
      donor.learned = look;
    }
  }
}

std::vector<Partition> BarrierWatch::receivers_of(Generation generation, Partition donor,
                                                  redis::Reply held) const {
  const Ring* const before = shift_.rings->of(Generation(generation.value - 1));
  const Ring* const now = shift_.rings->of(generation);
  check(before != nullptr && now != nullptr, "a generation that is in force is described");
  std::set<Partition> receivers;
  for (const HeldKey& key : parse_held(held).keys) {
    const Partition owner = now->owner(key.whose.key);
    if (owner != donor && before->owner(key.whose.key) == donor) {
      receivers.insert(owner);
    }
  }
  return {receivers.begin(), receivers.end()};
}

// --- who waits for whom

const std::vector<Partition>& Awaited::of(Rings& rings, Partition who) const {
  return what == What::stands_still ? rings.donors(generation, who) : owners;
}

asio::awaitable<std::vector<Headway>> BarrierWatch::look_at(const std::vector<Partition>& partitions) {
  std::vector<Headway> all;
  redis::Request request;
  for (const Partition partition : partitions) {
    request.command("HMGET", group_key(shift_.place.topic.name, partition, shift_.place.options.group),
                    "passed", "import", "owner", "state", "paused", "fence", "beat", "ttl");
  }
  if (request.empty()) {
    co_return all;
  }
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  for (std::size_t i = 0; i < partitions.size(); ++i) {
    const auto text = [state = replies[i]](std::size_t field) {
      return state[field].is_nil() ? std::string_view() : state[field].text();
    };
    Headway& one = all.emplace_back();
    one.passed =
        Generation(replies[i][0].is_nil() ? 0 : static_cast<Generation::rep>(replies[i][0].number()));
    one.stands_still = Import::parse(text(1)).generation;
    const Milliseconds lease(replies[i][7].is_nil() ? 0
                                                    : static_cast<Milliseconds::rep>(replies[i][7].number()));
    const bool silent = is_silent(partitions[i], fmt::format("{} {}", text(5), text(6)), lease);
    one.going = !text(4).empty()            ? Headway::Going::paused
                : text(3) == "halted"       ? Headway::Going::halted
                : text(2).empty() || silent ? Headway::Going::without_worker
                                            : Headway::Going::on;
  }
  co_return all;
}

// No beat has come for as long as the lease lasts.
bool BarrierWatch::is_silent(Partition partition, std::string beat, Milliseconds lease) {
  const auto now = Clock::now();
  Sign& sign = signs_[partition];
  if (sign.beat == beat) {
    return now - sign.since >= lease;
  }
  sign = {std::move(beat), now};
  return false;
}

void BarrierWatch::passed(Partition partition) {
  waiting_.erase(partition);
}

void BarrierWatch::left(Partition partition) {
  if (const auto waiting = waiting_.find(partition); waiting != waiting_.end()) {
    waiting->second.since.reset();
  }
}

asio::awaitable<void> BarrierWatch::waits(Partition partition, Generation barrier, const Awaited& awaited) {
  const auto now = Clock::now();
  Waiting& mine = waiting_[partition];
  if (mine.barrier != barrier) {
    mine = Waiting();
    mine.barrier = barrier;
  }
  if (!mine.since) {
    mine.since = now;
    mine.in_vain.reset();
    mine.in_vain_before = false;
  }
  mine.awaited = awaited;
  if (shift_.ending == Ending::drained && !looking_who_goes_on_ && now >= look_who_goes_on_at_ &&
      now - *mine.since >= look_who_goes_on_every) {
    const Under way(looking_who_goes_on_);
    co_await look_who_goes_on();
    look_who_goes_on_at_ = after(now, look_who_goes_on_every);
  }
  // A little later: others came here at nearly the same time, and are told of together.
  const Milliseconds after = shift_.place.options.waiting_told_after;
  if (!in_vain(partition) && !mine.told && !telling_ && now >= tell_at_ &&
      now - *mine.since >= after + after / 10) {
    co_await tell_who_waits(barrier);
  }
}

// One line for all, however many wait for however many: who is named is one that somebody has to deal with,
// if there is one.
asio::awaitable<void> BarrierWatch::tell_who_waits(Generation barrier) {
  const Under way(telling_);
  const Milliseconds after = shift_.place.options.waiting_told_after;
  const auto now = Clock::now();
  tell_at_ = now + after;
  const auto concerned = [&](const Waiting& waiting) {
    return waiting.barrier == barrier && waiting.since && !waiting.told && now - *waiting.since >= after;
  };
  std::vector<bool> wanted(partitions_max);
  for (const auto& [partition, waiting] : waiting_) {
    if (concerned(waiting)) {
      for (const Partition other : waiting.awaited.of(*shift_.rings, partition)) {
        wanted[other.value] = true;
      }
    }
  }
  const std::vector<Partition> asked = partitions_in(wanted);
  const std::vector<Headway> seen = co_await look_at(asked);
  std::vector<const Headway*> headway(partitions_max);
  for (std::size_t i = 0; i < asked.size(); ++i) {
    headway[asked[i].value] = &seen[i];
  }

  std::vector<Partition> who;
  std::vector<bool> behind(partitions_max);
  for (auto& [partition, waiting] : waiting_) {
    if (!concerned(waiting)) {
      continue;
    }
    std::vector<Partition> others;
    bool in_vain = false;
    for (const Partition other : waiting.awaited.of(*shift_.rings, partition)) {
      if (headway[other.value] != nullptr && !waiting.awaited.came(*headway[other.value])) {
        others.push_back(other);
        in_vain = in_vain || headway[other.value]->going != Headway::Going::on;
      }
    }
    // A drained run says that otherwise, when it ends for it.
    if (others.empty() || (in_vain && shift_.ending == Ending::drained)) {
      continue;
    }
    waiting.told = true;
    who.push_back(partition);
    for (const Partition other : others) {
      behind[other.value] = true;
    }
  }
  if (who.empty()) {
    co_return;
  }
  const std::vector<Partition> all = partitions_in(behind);
  const auto idle = std::find_if(all.begin(), all.end(), [&](Partition partition) {
    return headway[partition.value]->going != Headway::Going::on;
  });
  const Partition named = idle == all.end() ? all.front() : *idle;
  const std::string text = fmt::format(
      "waits at generation {} of the ring for partition {}, which {}{}. `continuum inspect why -t {} -g {}` "
      "says more",
      barrier, named, text_of(headway[named.value]->going),
      all.size() > 1 ? fmt::format(" (and {} more)", all.size() - 1) : "", shift_.place.topic.name,
      shift_.place.options.group);
  for (const Partition partition : who) {
    shift_.tell(text, partition);
  }
}

}  // namespace continuum
