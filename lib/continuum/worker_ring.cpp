#include "continuum/error.hpp"
#include "continuum/resize_steps.hpp"
#include "continuum/worker_process.hpp"

#include <algorithm>

namespace continuum {

namespace {

constexpr Milliseconds look_at_ring_every{1'000};

}  // namespace

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

}  // namespace continuum
