#include "continuum/workers_view.hpp"

#include "continuum/error.hpp"
#include "continuum/log.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <tuple>

namespace continuum {

namespace {

using ByOwner = std::map<std::string, WorkerView>;

// A fence is the time at which it was given, in microseconds, unless clocks went back.
SystemTime time_of(Fence fence) {
  return SystemTime(Milliseconds(static_cast<Milliseconds::rep>(fence.value / 1000)));
}

void add_leases(ByOwner& workers, const Topic& topic, std::span<const PartitionView> partitions,
                std::size_t group, SystemTime now) {
  const auto& ring = topic.ring().members;
  for (const PartitionView& view : partitions) {
    const GroupView& seen = view.groups.at(group);
    const bool in_ring = std::any_of(ring.begin(), ring.end(), [&](const RingMember& member) {
      return member.partition == view.partition;
    });
    if (seen.state.owner.empty() && !in_ring && seen.lag_events == 0) {
      continue;
    }
    WorkerView& worker = workers[seen.state.owner];
    worker.partitions.push_back(view.partition);
    worker.lag_events += seen.lag_events;
    if (seen.state.owner.empty()) {
      continue;
    }
    worker.who = seen.state.who;
    if (!seen.state.handlers.empty()) {
      worker.handlers = seen.state.handlers;
    }
    const SystemTime taken = std::min(time_of(seen.state.fence), now);
    worker.since = std::min(worker.since.value_or(taken), taken);
    worker.since_age = now - *worker.since;
  }
}

// `members`: "OWNER WHO" and when it expires, by turns.
void add_members(ByOwner& workers, redis::Reply members, SystemTime now) {
  for (std::size_t i = 0; i + 1 < members.size(); i += 2) {
    const std::string_view member = members[i].text();
    const std::string_view score = members[i + 1].text();
    const std::size_t blank = std::min(member.find(' '), member.size());
    std::int64_t expires = 0;
    const auto parsed = std::from_chars(score.data(), score.data() + score.size(), expires);
    if (parsed.ec != std::errc()) {
      continue;  // nothing that Continuum wrote
    }
    WorkerView& worker = workers[std::string(member.substr(0, blank))];
    worker.who = member.substr(std::min(blank + 1, member.size()));
    worker.expires_in = SystemTime(Milliseconds(expires)) - now;
  }
}

}  // namespace

std::vector<WorkerView> inspect_workers(redis::Session& session, const Topic& topic,
                                        std::span<const PartitionView> partitions) {
  redis::Request request;
  request.command("TIME");
  for (const auto& [group, registered] : topic.groups) {
    request.command("ZRANGE", members_key(topic.name, group), 0, -1, "WITHSCORES");
  }
  const redis::Replies replies = session.call(std::move(request));
  const SystemTime now(Milliseconds(replies[0][0].integer() * 1000 + replies[0][1].integer() / 1000));
  std::vector<WorkerView> views;
  std::size_t group_index = 0;
  for (const auto& [group, registered] : topic.groups) {
    ByOwner workers;
    add_leases(workers, topic, partitions, group_index, now);
    add_members(workers, replies[group_index + 1], now);
    ++group_index;
    const std::size_t begin = views.size();
    for (auto& [owner, worker] : workers) {
      worker.group = group;
      worker.owner = owner;
      views.push_back(std::move(worker));
    }
    std::sort(views.begin() + static_cast<std::ptrdiff_t>(begin), views.end(),
              [](const WorkerView& a, const WorkerView& b) {
                return std::tuple(a.owner.empty(), a.who, a.owner) <
                       std::tuple(b.owner.empty(), b.who, b.owner);
              });
  }
  return views;
}

}  // namespace continuum
