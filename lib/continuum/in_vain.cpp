// For whom partitions wait in vain at barriers: for one on which nobody goes on, or for one that itself waits
// for it, and so on, whoever works it.
//
// What a partition waits for can be seen from the group's state. One with the mark of a generation (`import`)
// waits for those that give it keys in that generation, to have their mark. One without waits before its next
// mark for those that got keys from it in the last generation that it passed, if it has letters of such keys.
#include "continuum/barrier_watch.hpp"
#include "continuum/dead_letters.hpp"
#include "continuum/partition_worker.hpp"

#include <algorithm>
#include <utility>

namespace continuum {

// All partitions of the group, as one look finds them.
struct BarrierWatch::Scene {
  struct One {
    Headway headway;
    Awaited awaited;  // nothing: it goes on, as far as is known
    bool knows_letters = false;
    std::optional<Partition> idle;  // it does not go on before somebody does here
  };

  Scene(std::vector<Partition> whose, const std::vector<Headway>& headway)
      : partitions(std::move(whose)), all(partitions_max) {
    for (std::size_t i = 0; i < partitions.size(); ++i) {
      One& one = of(partitions[i]);
      one.headway = headway[i];
      if (one.headway.going != Headway::Going::on) {
        one.idle = partitions[i];
      }
    }
  }

  [[nodiscard]] One& of(Partition partition) { return all[partition.value]; }
  [[nodiscard]] const One& of(Partition partition) const { return all[partition.value]; }

  std::vector<Partition> partitions;
  std::vector<One> all;  // by number; one that came just now goes on
};

std::optional<InVain> BarrierWatch::in_vain(Partition partition) const {
  const auto waiting = waiting_.find(partition);
  if (waiting == waiting_.end() || !waiting->second.since || !waiting->second.in_vain_before) {
    return std::nullopt;
  }
  return waiting->second.in_vain;
}

asio::awaitable<void> BarrierWatch::look_who_goes_on() {
  const auto now = Clock::now();
  std::vector<Partition> partitions = shift_.place.topic.partitions();
  const std::vector<Headway> headway = co_await look_at(partitions);
  Scene scene(std::move(partitions), headway);
  for (const auto& [partition, waiting] : waiting_) {
    if (waiting.since) {
      scene.of(partition).awaited = waiting.awaited;
    }
  }
  for (const Partition partition : scene.partitions) {
    Scene::One& one = scene.of(partition);
    const Generation mark = one.headway.stands_still;
    if (one.awaited.what == Awaited::What::nothing && mark > one.headway.passed && is_described(mark)) {
      one.awaited = {Awaited::What::stands_still, mark, {}};
    }
  }
  spread(scene);
  for (auto unsure = may_keep_letters(scene); !unsure.empty(); unsure = may_keep_letters(scene)) {
    co_await learn_who_takes_over(scene, std::move(unsure));
    spread(scene);
  }
  for (auto& [partition, waiting] : waiting_) {
    waiting.in_vain_before = waiting.in_vain.has_value();
    waiting.in_vain.reset();
    if (waiting.since && now - *waiting.since >= look_who_goes_on_every) {
      if (const auto behind = waits_in_vain_for(scene, partition, waiting.awaited)) {
        waiting.in_vain = {*behind, *scene.of(*behind).idle};
      }
    }
  }
}

// Another worker may know a ring that this one does not know yet.
bool BarrierWatch::is_described(Generation generation) const {
  return generation > Generation(1) && shift_.rings->of(generation) != nullptr &&
         shift_.rings->of(Generation(generation.value - 1)) != nullptr;
}

std::optional<Partition> BarrierWatch::waits_in_vain_for(const Scene& scene, Partition who,
                                                         const Awaited& awaited) const {
  if (awaited.what == Awaited::What::nothing) {
    return std::nullopt;
  }
  const std::vector<Partition>& others = awaited.of(*shift_.rings, who);
  const auto behind = std::find_if(others.begin(), others.end(), [&](Partition other) {
    return scene.of(other).idle && !awaited.came(scene.of(other).headway);
  });
  return behind == others.end() ? std::nullopt : std::optional(*behind);
}

// From those on which nobody goes on to those that wait for them.
void BarrierWatch::spread(Scene& scene) const {
  for (bool more = true; std::exchange(more, false);) {
    for (const Partition partition : scene.partitions) {
      Scene::One& one = scene.of(partition);
      if (one.idle) {
        continue;
      }
      if (const auto behind = waits_in_vain_for(scene, partition, one.awaited)) {
        one.idle = scene.of(*behind).idle;
        more = true;
      }
    }
  }
}

// Those that gave keys to one which is idle and has not taken them over: there may be letters among them. The
// others need not be asked for theirs, which may be many.
std::vector<Partition> BarrierWatch::may_keep_letters(const Scene& scene) const {
  std::vector<Partition> unsure;
  for (const Partition receiver : scene.partitions) {
    if (!scene.of(receiver).idle) {
      continue;
    }
    for (Generation generation = scene.of(receiver).headway.passed + 1;
         generation <= shift_.place.topic.active; ++generation) {
      if (!is_described(generation)) {
        continue;
      }
      for (const Partition donor : shift_.rings->donors(generation, receiver)) {
        const Scene::One& one = scene.of(donor);
        if (!one.idle && !one.knows_letters && one.awaited.what == Awaited::What::nothing &&
            one.headway.passed == generation) {
          unsure.push_back(donor);
        }
      }
    }
  }
  std::sort(unsure.begin(), unsure.end());
  unsure.erase(std::unique(unsure.begin(), unsure.end()), unsure.end());
  return unsure;
}

asio::awaitable<void> BarrierWatch::learn_who_takes_over(Scene& scene, std::vector<Partition> donors) {
  for (std::size_t begin = 0; begin < donors.size(); begin += held_read_at_once) {
    const std::size_t end = std::min(begin + held_read_at_once, donors.size());
    redis::Request request;
    for (std::size_t i = begin; i < end; ++i) {
      request.command("HGETALL", held_key(shift_.place.topic.name, donors[i], shift_.place.options.group));
    }
    const redis::Replies replies = co_await shift_.control.call(std::move(request));
    for (std::size_t i = begin; i < end; ++i) {
      Scene::One& one = scene.of(donors[i]);
      one.knows_letters = true;
      std::vector<Partition> owners = receivers_of(one.headway.passed, donors[i], replies[i - begin]);
      if (!owners.empty()) {
        one.awaited = {Awaited::What::passed, one.headway.passed, std::move(owners)};
      }
    }
  }
}

}  // namespace continuum
