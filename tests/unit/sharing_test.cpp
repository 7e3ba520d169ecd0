#include "continuum/sharing.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

using namespace continuum;
using Bond = ShareView::Standing::Bond;
using Membership = ShareView::Membership;

namespace {

std::vector<Partition> partitions(std::initializer_list<std::uint32_t> numbers) {
  std::vector<Partition> all;
  for (const auto number : numbers) {
    all.emplace_back(number);
  }
  return all;
}

// A view of partitions 0, 1, 2… by their owners.
ShareView view_of(const std::string& me, std::vector<std::string> members,
                  const std::vector<std::string>& owners) {
  ShareView view;
  view.me = me;
  view.members = std::move(members);
  for (std::uint32_t p = 0; p < owners.size(); ++p) {
    view.partitions.push_back({Partition(p), owners[p], Bond::usual});
  }
  return view;
}

// What must be taken away from somebody before all have their share, whatever else is free.
std::size_t moves_least(std::vector<std::size_t> counts, std::size_t total) {
  std::sort(counts.rbegin(), counts.rend());
  std::size_t moves = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const std::size_t quota = total / counts.size() + (i < total % counts.size() ? 1 : 0);
    moves += counts[i] > quota ? counts[i] - quota : 0;
  }
  return moves;
}

// A group of workers in steps. Each looks every few steps, at a moment of its own, and acts on what it saw
// then; draining takes its time; who dies is found out later. Only the lease decides.
class Group {
 public:
  Group(std::size_t partition_count, std::mt19937::result_type seed)
      : leases_(partition_count), random_(seed) {}

  std::string join() {
    const std::string id = "w" + std::to_string(random_() % 1'000'000) + "." + std::to_string(++joined_);
    workers_[id];
    members_[id] = 0;
    return id;
  }
  void leave(const std::string& id) {
    members_.erase(id);
    for (auto& lease : leases_) {
      if (lease.owner == id) {
        lease.drained_at = lease.drained_at.value_or(now_ + random_() % 8);
      }
    }
    workers_.erase(id);
  }
  void die(const std::string& id) {
    const std::uint64_t noticed = now_ + silence;
    members_[id] = noticed + random_() % 3;
    for (auto& lease : leases_) {
      if (lease.owner == id) {
        lease.drained_at = noticed + random_() % 3;  // seen as silent then
      }
    }
    workers_.erase(id);
  }
  std::string any() {
    auto at = workers_.begin();
    std::advance(at, static_cast<std::ptrdiff_t>(random_() % workers_.size()));
    return at->first;
  }

  void step() {
    ++now_;
    std::erase_if(members_, [&](const auto& member) { return member.second != 0 && member.second <= now_; });
    for (auto& lease : leases_) {
      if (lease.drained_at && *lease.drained_at <= now_) {
        lease = Lease();
      }
    }
    for (auto& [id, worker] : workers_) {
      if (worker.next_look <= now_) {
        look(id, worker);
        worker.next_look = now_ + 1 + random_() % 4;
      }
    }
  }
  // Steps until every living worker has its share. False after too many.
  bool settle() {
    for (std::size_t steps = 0; steps < 200; ++steps) {
      step();
      if (even()) {
        return true;
      }
    }
    return false;
  }
  [[nodiscard]] std::vector<std::size_t> counts() const {
    std::vector<std::size_t> counts;
    for (const auto& [id, worker] : workers_) {
      counts.push_back(held_by(id));
    }
    return counts;
  }
  [[nodiscard]] std::size_t held_by(const std::string& id) const {
    return static_cast<std::size_t>(
        std::count_if(leases_.begin(), leases_.end(), [&](const Lease& l) { return l.owner == id; }));
  }
  [[nodiscard]] std::size_t given_up() const { return given_up_; }
  [[nodiscard]] std::size_t size() const { return workers_.size(); }

 private:
  static constexpr std::uint64_t silence = 25;
  static constexpr std::uint64_t steady_after = 8;  // more than two looks

  struct Lease {
    std::string owner;
    std::optional<std::uint64_t> drained_at;
  };
  struct Worker {
    std::uint64_t next_look = 0;
    std::vector<std::string> members;
    std::uint64_t members_changed = 0;
    std::optional<SharePlan> planned;  // at the last look, done at this one: views are stale
  };

  [[nodiscard]] bool even() const {
    const auto all = counts();
    const auto [least, most] = std::minmax_element(all.begin(), all.end());
    return *most - *least <= 1 && std::none_of(leases_.begin(), leases_.end(), [](const Lease& lease) {
      return lease.owner.empty() || lease.drained_at;
    });
  }

  void look(const std::string& id, Worker& worker) {
    for (const Partition partition : worker.planned ? worker.planned->take : std::vector<Partition>()) {
      auto& lease = leases_[partition.value];
      if (lease.owner.empty()) {
        lease.owner = id;
      }
    }
    ShareView view;
    view.me = id;
    for (const auto& [member, expires] : members_) {
      view.members.push_back(member);
    }
    if (view.members != worker.members) {
      worker.members = view.members;
      worker.members_changed = now_;
    }
    view.membership =
        now_ - worker.members_changed >= steady_after ? Membership::steady : Membership::changing;
    for (std::uint32_t p = 0; p < leases_.size(); ++p) {
      const bool leaving = leases_[p].owner == id && leases_[p].drained_at;
      view.partitions.push_back({Partition(p), leases_[p].owner, leaving ? Bond::leaving : Bond::usual});
    }
    worker.planned = plan_share(view);
    for (const Partition partition : worker.planned->give_up) {
      auto& lease = leases_[partition.value];
      if (!lease.drained_at) {
        lease.drained_at = now_ + random_() % 8;
        ++given_up_;
      }
    }
  }

  std::vector<Lease> leases_;
  std::mt19937 random_;
  std::map<std::string, std::uint64_t> members_;  // and when they are noticed to be dead; 0: alive
  std::map<std::string, Worker> workers_;
  std::uint64_t now_ = 0;
  std::size_t joined_ = 0;
  std::size_t given_up_ = 0;
};

}  // namespace

TEST_CASE("one that is alone takes all that is free") {
  const auto plan = plan_share(view_of("a", {"a"}, {"", "", ""}));
  CHECK(plan.quota == 3);
  CHECK(plan.take == partitions({0, 1, 2}));
  CHECK(plan.give_up.empty());
  CHECK_FALSE(plan.settled);
  CHECK(plan_share(view_of("a", {"a"}, {"a", "a", "a"})).settled);
}

TEST_CASE("those that see the same take different partitions, and all of them") {
  std::vector<Partition> taken;
  for (const std::string me : {"a", "b", "c"}) {
    const auto plan = plan_share(view_of(me, {"a", "b", "c"}, {"", "", "b", "", "", "", "", ""}));
    CHECK(plan.take.size() + (me == "b" ? 1 : 0) == plan.quota);
    taken.insert(taken.end(), plan.take.begin(), plan.take.end());
  }
  CHECK(taken == partitions({0, 1, 3, 4, 5, 6, 7}));
}

TEST_CASE("only a surplus is given up, and the larger shares stay with those that have them") {
  const std::vector<std::string> owners{"b", "b", "b", "b", "c", "c", "c"};
  CHECK(plan_share(view_of("b", {"a", "b", "c"}, owners)).give_up == partitions({3}));
  CHECK(plan_share(view_of("c", {"a", "b", "c"}, owners)).give_up == partitions({6}));
  CHECK(plan_share(view_of("a", {"a", "b", "c"}, owners)).take.empty());
  // 3, 2 and 2 is even: nobody has to give one to "a", who would be first by name.
  const std::vector<std::string> even{"c", "c", "c", "b", "b", "a", "a"};
  for (const std::string me : {"a", "b", "c"}) {
    const auto plan = plan_share(view_of(me, {"a", "b", "c"}, even));
    CHECK(plan.settled);
    CHECK(plan.give_up.empty());
    CHECK(plan.take.empty());
  }
}

TEST_CASE("what a worker outside of the group's sharing has is not shared and not taken") {
  const auto plan = plan_share(view_of("a", {"a", "b"}, {"pinned", "pinned", "pinned", "a", "a", "b", "b"}));
  CHECK(plan.quota == 2);
  CHECK(plan.settled);
  CHECK(plan.take.empty());
}

TEST_CASE("more workers than partitions leave some with none") {
  CHECK(plan_share(view_of("c", {"a", "b", "c"}, {"b", "a"})).quota == 0);
  CHECK(plan_share(view_of("c", {"a", "b", "c"}, {"b", "a"})).settled);
}

TEST_CASE("of a surplus goes first what is leaving already, and last what is halted") {
  auto view = view_of("a", {"a", "b"}, {"a", "a", "a", "a", "b", "b"});
  view.partitions[3].bond = Bond::halted;
  CHECK(plan_share(view).give_up == partitions({2}));
  view.partitions[0].bond = Bond::leaving;
  CHECK(plan_share(view).give_up == partitions({0}));
}

TEST_CASE("while workers come and go nothing more is given up") {
  auto view = view_of("a", {"a", "b"}, {"a", "a", "a", "a"});
  view.membership = Membership::changing;
  CHECK(plan_share(view).give_up.empty());
  view.partitions[1].bond = Bond::leaving;
  CHECK(plan_share(view).give_up == partitions({1}));
}

TEST_CASE("a worker that joins a group at rest gets its share by the fewest moves") {
  for (std::mt19937::result_type seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    Group group(1 + random() % 64, seed);
    for (int joins = 0; joins < 12; ++joins) {
      auto counts = group.counts();
      const std::size_t before = group.given_up();
      const std::size_t total = [&] {
        std::size_t sum = 0;
        for (const auto count : counts) {
          sum += count;
        }
        return sum;
      }();
      counts.push_back(0);
      group.join();
      REQUIRE(group.settle());
      CHECK(group.given_up() - before == (total == 0 ? 0 : moves_least(counts, total)));
    }
  }
}

TEST_CASE("a worker that leaves or dies costs the others no partition that they have") {
  for (std::mt19937::result_type seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    Group group(1 + random() % 64, seed);
    for (int i = 0; i < 10; ++i) {
      group.join();
    }
    REQUIRE(group.settle());
    while (group.size() > 1) {
      const std::size_t before = group.given_up();
      if (random() % 2 == 0) {
        group.die(group.any());
      } else {
        group.leave(group.any());
      }
      REQUIRE(group.settle());
      CHECK(group.given_up() == before);
    }
  }
}

TEST_CASE("twenty workers that start together settle with the moves of one hand-over") {
  for (std::mt19937::result_type seed = 0; seed < 30; ++seed) {
    CAPTURE(seed);
    Group group(64, seed);
    const std::string first = group.join();
    for (int steps = 0; steps < 8; ++steps) {
      group.step();
    }
    REQUIRE(group.held_by(first) == 64);
    for (int i = 1; i < 20; ++i) {
      group.join();
      group.step();
    }
    REQUIRE(group.settle());
    CHECK(group.given_up() <= 64);  // 60 would do if all saw the others at the same moment
  }
}

TEST_CASE("whatever comes and goes, the shares are even soon after the last change") {
  for (std::mt19937::result_type seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    Group group(random() % 100 + 1, seed);
    group.join();
    for (int changes = 0; changes < 60; ++changes) {
      const auto what = random() % 4;
      if (what < 2 || group.size() == 1) {
        group.join();
      } else if (what == 2) {
        group.leave(group.any());
      } else {
        group.die(group.any());
      }
      for (std::size_t steps = random() % 30; steps > 0; --steps) {
        group.step();
      }
    }
    CHECK(group.settle());
  }
}

TEST_CASE("a list of partitions is as short as --partition takes it") {
  CHECK(partition_list({}).empty());
  CHECK(partition_list(partitions({3})) == "3");
  CHECK(partition_list(partitions({0, 1, 4, 5, 6, 9})) == "0,1,4-6,9");
}
