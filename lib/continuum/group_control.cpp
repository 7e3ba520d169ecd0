#include "continuum/group_control.hpp"

#include "continuum/commit.hpp"
#include "continuum/dead_letters.hpp"
#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/operator_lease.hpp"

#include <string>
#include <utility>

namespace continuum {

void fail_taken_over(const Topic& topic, Partition partition, std::string_view group) {
  fail(ErrorKind::fenced, "{}: a worker took it over from this command for group {}: run it again",
       place(topic.name, partition), group);
}

void fail_not_registered(const Topic& topic, Partition partition, std::string_view group) {
  fail(ErrorKind::usage, "{}: group {} is not registered there: it comes with the next start of a worker",
       place(topic.name, partition), group);
}

void require_group(const Topic& topic, std::string_view group) {
  if (topic.groups.contains(std::string(group))) {
    return;
  }
  std::vector<std::string> known;
  for (const auto& [name, registered] : topic.groups) {
    known.push_back(name);
  }
  fail(ErrorKind::usage, "topic {} has no group {}{}", topic.name, printable(group), hint_of(group, known));
}

std::vector<std::optional<GroupState>> group_states(redis::Session& session, const Topic& topic,
                                                    std::string_view group,
                                                    std::span<const Partition> partitions) {
  std::vector<std::optional<GroupState>> states;
  in_chunks(partitions, [&](std::span<const Partition> some) {
    redis::Request request;
    for (const Partition partition : some) {
      request.command("HGETALL", group_key(topic.name, partition, group));
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      try {
        states.push_back(parse_group(replies[i]));
      } catch (const Error& error) {
        fail(error.kind(), "{}, group {}: {}", place(topic.name, some[i]), group, error.message());
      }
    }
  });
  return states;
}

std::vector<Partition> unregistered(redis::Session& session, const Topic& topic, std::string_view group,
                                    std::span<const Partition> partitions) {
  std::vector<Partition> missing;
  std::vector<Partition> lost;
  in_chunks(partitions, [&](std::span<const Partition> some) {
    constexpr std::size_t each = 3;
    redis::Request request;
    const std::string field = fmt::format("group:{}", group);
    for (const Partition partition : some) {
      // Asked before and after: it may be registered, or forgotten, in between.
      request.command("HEXISTS", meta_key(topic.name, partition), field);
      request.command("EXISTS", group_key(topic.name, partition, group));
      request.command("HEXISTS", meta_key(topic.name, partition), field);
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      if (replies[each * i + 1].integer() == 0) {
        const bool is_lost = replies[each * i].integer() != 0 && replies[each * i + 2].integer() != 0;
        (is_lost ? lost : missing).push_back(some[i]);
      }
    }
  });
  if (!lost.empty()) {
    fail(ErrorKind::loss,
         "{}, group {}: its state is gone{}: was {} deleted or evicted? Nobody knows any more what it has "
         "handled there. A worker that starts registers it anew; until then leave the partition out with "
         "--partition",
         place(topic.name, lost.front()), group,
         lost.size() == 1 ? std::string() : fmt::format(" (and on {} more partitions)", lost.size() - 1),
         group_key(topic.name, lost.front(), group));
  }
  return missing;
}

std::vector<Partition> set_paused(redis::Session& session, const Topic& topic, std::string_view group,
                                  std::span<const Partition> partitions, std::string_view paused) {
  std::vector<Partition> done;
  in_chunks(partitions, [&](std::span<const Partition> some) {
    redis::Request request;
    for (const Partition partition : some) {
      request.run(redis::Script::pause, {group_key(topic.name, partition, group)}, paused);
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      if (replies[i][0].text() == "OK") {
        done.push_back(some[i]);
      }
    }
  });
  return done;
}

// --- leases

Revoked revoke_lease(redis::Session& session, const Topic& topic, std::string_view group, Partition partition,
                     Fence fence) {
  redis::Request request;
  request.run(redis::Script::revoke, {group_key(topic.name, partition, group)}, fence);
  const redis::Replies replies = session.call(std::move(request));
  const std::string_view code = replies[0][0].text();
  if (code == "OK") {
    return Revoked::yes;
  }
  if (code == "FREE") {
    return Revoked::free;
  }
  return code == "CHANGED" ? Revoked::changed : Revoked::not_registered;
}

// --- forget

std::vector<Remains> remains_of(redis::Session& session, const Topic& topic, std::string_view group) {
  std::vector<Remains> all;
  const std::vector<Partition> partitions = topic.partitions();
  in_chunks(partitions, [&](std::span<const Partition> some) {
    redis::Request request;
    const std::string field = fmt::format("group:{}", group);
    for (const Partition partition : some) {
      request.command("HMGET", meta_key(topic.name, partition), field, "next");
      request.command("HGET", group_key(topic.name, partition, group), "offset");
      request.command("XLEN", dead_key(topic.name, partition, group));
      request.command("XLEN", outbox_key(topic.name, partition, group));
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      const redis::Reply meta = replies[4 * i];
      const redis::Reply offset = replies[4 * i + 1];
      Remains remains{some[i], !meta[0].is_nil() || !offset.is_nil(), 0, replies[4 * i + 2].number(),
                      replies[4 * i + 3].number()};
      if (!offset.is_nil() && !meta[1].is_nil()) {
        remains.lag = meta[1].number() - std::min(meta[1].number(), offset.number());
      }
      all.push_back(remains);
    }
  });
  return all;
}

void forget_group(redis::Session& session, const Topic& topic, std::string_view group, std::string_view who,
                  const std::function<void()>& begins) {
  const std::vector<Partition> partitions = topic.partitions();
  OperatorLeases leases(session, topic, std::string(group), std::string(who));
  (void)leases.take_all(partitions);
  if (begins) {
    begins();
  }
  // First the topic: a worker that starts now finds no group that it could register again.
  unregister_group(session, topic, group);
  leases.renew();
  in_chunks(partitions, [&](std::span<const Partition> some) {
    redis::Request request;
    for (const Partition partition : some) {
      const GroupKeys keys(topic.name, partition, group);
      const auto lease = leases.acquired().find(partition);
      const Fence fence = lease == leases.acquired().end() ? Fence() : lease->second.fence;
      request.run(redis::Script::forget, {keys.group, keys.dead, keys.held, keys.outbox, keys.meta, keys.log},
                  fence, group);
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      if (replies[i][0].text() == "FENCED") {
        fail_taken_over(topic, some[i], group);
      }
    }
  });
}

}  // namespace continuum
