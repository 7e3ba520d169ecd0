#include "continuum/shared_partitions.hpp"

#include "continuum/dead_letters.hpp"
#include "continuum/error.hpp"
#include "continuum/log.hpp"

#include <algorithm>
#include <map>
#include <set>

namespace continuum {

namespace {

// A worker that dies is seen as silent this much later than it was at most.
constexpr Milliseconds interval_max{500};
constexpr Milliseconds hasty_interval_max{200};
// Looking at very many partitions is worth a longer pause.
constexpr std::size_t partitions_per_millisecond = 10;
// Workers that are started together are counted together.
constexpr Milliseconds steady_after{300};
constexpr Milliseconds tell_after{1'000};
constexpr Milliseconds drained_poll{20};
// Each may have the keys of thousands of letters.
constexpr std::size_t held_read_at_once = 64;

// By partition, for those that are in the ring no more: the first generation without it.
std::map<Partition, Generation> removals_of(const Topic& topic) {
  std::map<Partition, Generation> last;
  for (const auto& [generation, ring] : topic.rings) {
    if (generation > topic.active) {
      break;
    }
    for (const RingMember& member : ring.members) {
      last[member.partition] = generation;
    }
  }
  std::erase_if(last, [&](const auto& entry) { return entry.second == topic.active; });
  for (auto& [partition, generation] : last) {
    ++generation;
  }
  return last;
}

}  // namespace

SharedPartitions::SharedPartitions(Shift& shift, const WorkOptions& options,
                                   std::span<const std::unique_ptr<PartitionWorker>> partitions,
                                   std::function<void()> stop)
    : shift_(shift),
      options_(options),
      stop_(std::move(stop)),
      members_key_(members_key(shift.place.topic.name, options.group)),
      member_(fmt::format("{} {}", shift.me.owner, shift.me.who)),
      interval_(std::min(interval_max, options.lease / 5)),
      hasty_interval_(std::min(hasty_interval_max, interval_)),
      wake_(shift.place.executor) {
  const Milliseconds more(partitions.size() / partitions_per_millisecond);
  interval_ += more;
  hasty_interval_ += more;
  ring_changed(partitions);
  for (const Place& place : places_) {
    told_.first.push_back(place.worker->partition());  // to be alone with all of them is nothing to speak of
  }
}

void SharedPartitions::add(PartitionWorker& worker) {
  const auto behind = std::find_if(places_.begin(), places_.end(), [&](const Place& place) {
    return place.worker->partition() > worker.partition();
  });
  Place place;
  place.worker = &worker;
  place.group_key = group_key(shift_.place.topic.name, worker.partition(), options_.group);
  places_.insert(behind, std::move(place));
}

void SharedPartitions::ring_changed(std::span<const std::unique_ptr<PartitionWorker>> partitions) {
  for (const auto& worker : partitions) {
    const bool known = std::any_of(places_.begin(), places_.end(),
                                   [&](const Place& place) { return place.worker == worker.get(); });
    if (!known) {
      add(*worker);
    }
  }
  const auto removals = removals_of(shift_.place.topic);
  for (Place& place : places_) {
    const auto removal = removals.find(place.worker->partition());
    place.last = removal == removals.end() ? std::nullopt : std::optional(removal->second);
  }
  settled_ = false;
  wake_.notify();
}

void SharedPartitions::close() {
  closed_ = true;
  wake_.notify();
}

asio::awaitable<void> SharedPartitions::run() {
  const bool drains = options_.ending == Ending::drained;
  if (drains) {
    co_await learn_ends();
  }
  Clock::time_point next = Clock::now();
  while (shift_.stopping == Stopping::no && !closed_) {
    if (Clock::now() >= next) {
      co_await look();
      if (shift_.stopping != Stopping::no || closed_) {
        break;
      }
      if (!decide()) {
        co_await say_goodbye();
        fail(ErrorKind::fenced,
             "topic {}: every partition is worked by others for group {}. Without --no-wait this worker "
             "stands by and takes over when one of them ends or is silent",
             shift_.place.topic.name, options_.group);
      }
      next = next_look();
    }
    if (spent() || (drains && finished())) {
      stop_();
      break;
    }
    co_await wake_.wait(drains ? std::min(next, Clock::now() + drained_poll) : next);
  }
  co_await say_goodbye();
}

// Before what we hold is released, and not after it: nobody should keep a place for us any more.
asio::awaitable<void> SharedPartitions::say_goodbye() {
  redis::Request request;
  request.command("ZREM", members_key_, member_);
  try {
    co_await shift_.control.call(std::move(request));
  } catch (const Error&) {
    // It will be noticed that we are gone.
  }
}

asio::awaitable<void> SharedPartitions::learn_ends() {
  redis::Request request;
  std::vector<Partition> asked;
  for (const Place& place : places_) {
    asked.push_back(place.worker->partition());
    request.command("HMGET", meta_key(shift_.place.topic.name, asked.back()), "next", "gen");
  }
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  for (std::size_t i = 0; i < asked.size(); ++i) {
    Place& place = place_of(asked[i]);
    // A log that is gone is found out by who takes the partition.
    const redis::Reply next = replies[i][0];
    place.end = next.is_nil() ? Offset(number_max) : Offset(next.number());
    place.end_generation =
        Generation(next.is_nil() ? 0 : static_cast<Generation::rep>(replies[i][1].number()));
  }
  // One by one: with the id of an entry comes its frame.
  for (std::size_t i = 0; i < asked.size() && options_.archive; ++i) {
    redis::Request last;
    last.command("XREVRANGE", log_key(shift_.place.topic.name, asked[i]), "+", "-", "COUNT", 1);
    const redis::Replies entries = co_await shift_.control.call(std::move(last));
    if (entries[0].size() > 0) {
      place_of(asked[i]).end_entry = EntryId::parse(entries[0][0][0].text()).value_or(EntryId{});
    }
  }
  if (options_.handles()) {
    co_await look_for_requests(std::move(asked));
  }
}

asio::awaitable<void> SharedPartitions::look_for_requests(std::vector<Partition> partitions) {
  redis::Request sizes;
  for (const Partition partition : partitions) {
    place_of(partition).asked = false;
    sizes.command("HLEN", held_key(shift_.place.topic.name, partition, options_.group));
  }
  if (sizes.empty()) {
    co_return;
  }
  const redis::Replies counts = co_await shift_.control.call(std::move(sizes));
  std::size_t with_keys = 0;
  for (std::size_t i = 0; i < partitions.size(); ++i) {
    if (counts[i].number() > 1) {  // its count of letters stays when the last one is gone
      partitions[with_keys++] = partitions[i];
    }
  }
  partitions.resize(with_keys);
  for (std::size_t begin = 0; begin < partitions.size(); begin += held_read_at_once) {
    const std::size_t end = std::min(begin + held_read_at_once, partitions.size());
    redis::Request request;
    for (std::size_t i = begin; i < end; ++i) {
      request.command("HGETALL", held_key(shift_.place.topic.name, partitions[i], options_.group));
    }
    const redis::Replies replies = co_await shift_.control.call(std::move(request));
    for (std::size_t i = begin; i < end; ++i) {
      const HeldKeys held = parse_held(replies[i - begin]);
      place_of(partitions[i]).asked = std::any_of(held.keys.begin(), held.keys.end(),
                                                  [](const HeldKey& key) { return key.request.has_value(); });
    }
  }
}

// Places may be added while we wait for an answer.
SharedPartitions::Place& SharedPartitions::place_of(Partition partition) {
  const auto place = std::find_if(places_.begin(), places_.end(),
                                  [&](const Place& one) { return one.worker->partition() == partition; });
  check(place != places_.end(), "places stay");
  return *place;
}

// --- seeing

asio::awaitable<void> SharedPartitions::look() {
  redis::Request request;
  // Alive for as long as its leases are, but not dead because it looks seldom.
  const Milliseconds alive = std::max(options_.lease, 4 * interval_);
  request.run(redis::Script::join, {members_key_}, member_, alive.count());
  std::vector<Partition> asked;
  for (Place& place : places_) {
    if (place.worker->holding()) {
      place.sighting.reset();
    } else {
      const Partition partition = place.worker->partition();
      request.command("HMGET", place.group_key, "owner", "fence", "beat", "ttl", "who", "offset", "passed",
                      "entry");
      request.command("HGET", held_key(shift_.place.topic.name, partition, options_.group), "total");
      asked.push_back(partition);
    }
  }
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  see_members(replies[0]);
  for (std::size_t i = 0; i < asked.size(); ++i) {
    Place& place = place_of(asked[i]);
    see(place, replies[2 * i + 1]);
    const redis::Reply letters = replies[2 * i + 2];
    place.letters = !letters.is_nil() && letters.number() > 0;
  }
  // Somebody else may have done what was asked for, and is gone.
  std::vector<Partition> unsure;
  for (const Place& place : places_) {
    if (place.asked && !place.sighting && !place.worker->holding()) {
      unsure.push_back(place.worker->partition());
    }
  }
  co_await look_for_requests(std::move(unsure));
}

void SharedPartitions::see_members(redis::Reply reply) {
  std::map<std::string, BootClock::time_point> members;
  bool changed = reply.size() != members_.size();
  for (std::size_t i = 0; i < reply.size(); ++i) {
    const std::string_view member = reply[i].text();
    std::string owner(member.substr(0, member.find(' ')));
    const auto known = members_.find(owner);
    changed = changed || known == members_.end();
    members.emplace(std::move(owner), known == members_.end() ? BootClock::now() : known->second);
  }
  members_ = std::move(members);
  if (changed) {
    members_changed_ = Clock::now();
  }
}

void SharedPartitions::see(Place& place, redis::Reply reply) {
  const auto number = [&](std::size_t i) { return reply[i].is_nil() ? 0 : reply[i].number(); };
  place.cursor = Offset(number(5));
  place.passed = Generation(static_cast<Generation::rep>(number(6)));
  place.cursor_entry = EntryId::parse(reply[7].is_nil() ? "" : reply[7].text()).value_or(EntryId{});
  // Nothing there at all: who takes it finds out what happened.
  if (reply[0].is_nil() || reply[0].text().empty() || reply[0].text() == shift_.me.owner) {
    place.sighting.reset();
    return;
  }
  Held held;
  held.owner = reply[0].text();
  held.fence = reply[1].text();
  held.beat = reply[2].text();
  held.ttl = Milliseconds(static_cast<Milliseconds::rep>(number(3)));
  held.who = reply[4].is_nil() ? std::string_view() : reply[4].text();
  if (!place.sighting || place.sighting->held.fence != held.fence || place.sighting->held.beat != held.beat) {
    place.sighting = {std::move(held), BootClock::now()};
  }
}

bool SharedPartitions::silent(const Place& place) {
  return place.sighting && BootClock::now() - place.sighting->since >= place.sighting->held.ttl;
}

// Silent, and not taken by whose share it is. Somebody who came after the last sign of life has to watch for
// a whole time to live of its own first, and so has who comes after that one: nobody waits for them. Who has
// too much then gives it up.
bool SharedPartitions::overdue(const Place& place) const {
  const auto& sighting = place.sighting;
  return sighting && BootClock::now() - sighting->since >= sighting->held.ttl + hasty_interval_ &&
         std::any_of(members_.begin(), members_.end(),
                     [&](const auto& member) { return member.second > sighting->since; });
}

// Out of the ring, with all that was in it handled. An archive may end before the cursor: who opens it finds
// out.
bool SharedPartitions::retired(const Place& place) {
  if (!place.last || (place.worker->archives() && !place.worker->began())) {
    return false;
  }
  if (place.worker->archives()) {
    return (place.worker->holding() ? place.worker->passed() : place.passed) >= *place.last;
  }
  return place.worker->holding() ? place.worker->retired() : place.passed >= *place.last && !place.letters;
}

// --- deciding

// False when there is nothing for us, will not be before somebody goes, and that is not waited for.
bool SharedPartitions::decide() {
  const SharePlan plan = plan_share(view());
  settled_ = plan.settled;
  obey(plan);
  const auto have = static_cast<std::size_t>(std::count_if(places_.begin(), places_.end(), ours));
  short_since_ = plan.quota > have ? std::min(short_since_, Clock::now()) : Clock::time_point::max();
  if (options_.standby == Standby::refuse && plan.quota == 0 && have == 0) {
    return false;
  }
  tell(plan);
  return true;
}

ShareView SharedPartitions::view() const {
  using Bond = ShareView::Standing::Bond;
  ShareView view;
  view.me = shift_.me.owner;
  for (const auto& [owner, since] : members_) {
    view.members.push_back(owner);
  }
  view.membership = Clock::now() - members_changed_ >= steady_after ? ShareView::Membership::steady
                                                                    : ShareView::Membership::changing;
  for (const Place& place : places_) {
    if (retired(place)) {
      continue;
    }
    const PartitionWorker& worker = *place.worker;
    ShareView::Standing standing{worker.partition(), {}, Bond::usual};
    if (ours(place)) {
      standing.owner = shift_.me.owner;
      standing.bond = worker.leaving() && !worker.wanted() ? Bond::leaving
                      : worker.halted()                    ? Bond::halted
                                                           : Bond::usual;
    } else if (place.sighting && !silent(place)) {
      standing.owner = place.sighting->held.owner;
    }
    view.partitions.push_back(std::move(standing));
  }
  return view;
}

void SharedPartitions::obey(const SharePlan& plan) {
  const auto in = [](const std::vector<Partition>& list, Partition partition) {
    return std::binary_search(list.begin(), list.end(), partition);
  };
  for (Place& place : places_) {
    PartitionWorker& worker = *place.worker;
    if (ours(place)) {
      const bool gives_up = retired(place) || in(plan.give_up, worker.partition());
      if (gives_up && worker.wanted()) {
        worker.give_up();
      } else if (!gives_up && !worker.wanted()) {
        worker.take(std::nullopt);
      }
    } else if ((in(plan.take, worker.partition()) || (overdue(place) && !retired(place))) &&
               !shift_.place.budget.spent()) {
      worker.take(place.sighting);
    }
  }
}

std::size_t SharedPartitions::others() const {
  std::set<std::string_view> owners;
  for (const auto& [owner, since] : members_) {
    owners.insert(owner);
  }
  for (const Place& place : places_) {
    if (place.sighting && !silent(place)) {
      owners.insert(place.sighting->held.owner);
    }
  }
  owners.erase(shift_.me.owner);
  return owners.size();
}

// Once it stands, or nothing moved for a while: not each step on the way.
void SharedPartitions::tell(const SharePlan& plan) {
  std::pair<std::vector<Partition>, std::size_t> present;
  bool moving = !plan.settled;
  for (const Place& place : places_) {
    if (place.worker->holding()) {
      present.first.push_back(place.worker->partition());
    }
    moving = moving || place.worker->holding() != place.worker->wanted();
  }
  present.second = others();
  if (present != present_) {
    present_ = std::move(present);
    present_since_ = Clock::now();
  }
  const bool at_the_start = present_.first.empty() && present_.second == 0;
  if (present_ == told_ || at_the_start || (moving && Clock::now() - present_since_ < tell_after)) {
    return;
  }
  told_ = present_;
  const auto& [held, others] = present_;
  const std::string have = held.empty() ? "no partition to work"
                                        : fmt::format("{} of {} partitions ({})", held.size(), places_.size(),
                                                      partition_list(held));
  const std::string with = others == 0
                               ? "shared with no other worker"
                               : fmt::format("shared with {} other worker{}", others, others == 1 ? "" : "s");
  shift_.place.say(fmt::format("topic {}: {}, {}", shift_.place.topic.name, have, with));
}

// --- ending

bool SharedPartitions::spent() const {
  return shift_.place.budget.spent() &&
         std::none_of(places_.begin(), places_.end(), [](const Place& p) { return p.worker->holding(); });
}

// Whether all that was in the log at the start is handled, or nobody could do it now.
bool SharedPartitions::done(const Place& place) {
  const PartitionWorker& worker = *place.worker;
  if (worker.archives()) {
    const EntryId end = worker.holding() ? worker.archived() : place.cursor_entry;
    return worker.began() && (end >= place.end_entry || worker.paused());  // as above
  }
  if (worker.in_vain()) {
    return true;
  }
  if (worker.holding()) {
    const bool handled = worker.committed() >= place.end && !worker.releasing();
    // Others may wait for us at a barrier at the end.
    return worker.halted() || (handled ? worker.passed() >= place.end_generation : worker.paused());
  }
  return (place.cursor >= place.end && place.passed >= place.end_generation && !place.asked) ||
         retired(place);
}

// Whether all is handled that this worker may handle. It waits for a part of what others have for one lease
// time: they may need long to finish what they are at.
bool SharedPartitions::finished() const {
  bool others_have_some = false;
  for (const Place& place : places_) {
    if (done(place)) {
      continue;
    }
    if (ours(place) || !place.sighting || silent(place)) {
      return false;
    }
    others_have_some = true;
  }
  const Clock::time_point now = Clock::now();
  const bool may_get_some = short_since_ <= now && now - short_since_ < options_.lease;
  return !others_have_some || !may_get_some;
}

Clock::time_point SharedPartitions::next_look() const {
  const bool hasty = !settled_ || options_.ending == Ending::drained;
  Milliseconds pause = hasty ? hasty_interval_ : interval_;
  for (const Place& place : places_) {
    if (place.sighting && !silent(place)) {
      const auto left = place.sighting->since + place.sighting->held.ttl - BootClock::now();
      pause = std::min(pause, std::chrono::ceil<Milliseconds>(left) + Milliseconds(1));
    }
  }
  return Clock::now() + pause;
}

}  // namespace continuum
