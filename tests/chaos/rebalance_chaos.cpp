// G4, G5 with workers that share: under load they come, are killed, are paused and go, and the partitions
// move with them. The seed of a failing run is printed.
#include "chaos/forum.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <ctime>
#include <list>
#include <random>
#include <string>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;
using test::await;
using test::await_started;
using test::end_of;
using test::Forum;
using test::is_long;
using SteadyClock = std::chrono::steady_clock;

namespace {

constexpr auto lease = 2s;
constexpr std::uint64_t per_second = 4'000;

// Who has a partition, as the server says.
struct Tenure {
  std::string owner;  // empty: nobody
  std::string who;    // HOST:PID, also of the last owner
  std::string fence;
};

class Crew {
 public:
  explicit Crew(Forum& forum) : forum_(forum), session_(forum.server().session(redis::Needs::Access::read)) {}

  std::list<test::Process>& workers() { return workers_; }
  [[nodiscard]] std::string said() const { return test::read_file(forum_.file("err")); }

  test::Process start(std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"--lease", "2s"});
    const auto recorder = forum_.recorder();
    more.insert(more.end(), recorder.begin(), recorder.end());
    return test::Process(forum_.share(more), {"/dev/null", "/dev/null", forum_.file("err")});
  }
  void join(int count) {
    for (int i = 0; i < count; ++i) {
      workers_.push_back(start());
    }
  }

  [[nodiscard]] std::vector<Tenure> tenures() const {
    redis::Request request;
    for (std::uint32_t p = 0; p < Forum::partitions; ++p) {
      request.command("HMGET", group_key("forum", Partition(p), "g"), "owner", "who", "fence");
    }
    const auto replies = session_->call(std::move(request));
    const auto text = [](redis::Reply reply) {
      return reply.is_nil() ? std::string() : std::string(reply.text());
    };
    std::vector<Tenure> tenures;
    for (std::uint32_t p = 0; p < Forum::partitions; ++p) {
      tenures.push_back({text(replies[p][0]), text(replies[p][1]), text(replies[p][2])});
    }
    return tenures;
  }
  [[nodiscard]] static bool has(const test::Process& worker, const Tenure& tenure) {
    return !tenure.owner.empty() && tenure.who.ends_with(":" + std::to_string(worker.pid()));
  }
  // Every worker has its part.
  [[nodiscard]] bool even() const {
    const auto now = tenures();
    const std::size_t least = Forum::partitions / workers_.size();
    std::size_t sum = 0;
    for (const auto& worker : workers_) {
      const auto its = static_cast<std::size_t>(
          std::count_if(now.begin(), now.end(), [&](const Tenure& t) { return has(worker, t); }));
      if (its < least || its > least + 1) {
        return false;
      }
      sum += its;
    }
    return sum == Forum::partitions;
  }

  // What workers had when they were silenced, and since when they are silent.
  struct Orphans {
    SteadyClock::time_point since;
    std::vector<std::pair<std::size_t, std::string>> fences;  // by partition
  };
  [[nodiscard]] Orphans silence(const std::vector<const test::Process*>& victims, int with) const {
    const auto since = SteadyClock::now();
    for (const auto* victim : victims) {
      victim->signal(with);
    }
    // A last word that was on its way has come by then.
    std::this_thread::sleep_for(20ms);
    Orphans orphans{since, {}};
    const auto now = tenures();
    for (std::size_t p = 0; p < now.size(); ++p) {
      for (const auto* victim : victims) {
        if (has(*victim, now[p])) {
          orphans.fences.emplace_back(p, now[p].fence);
        }
      }
    }
    return orphans;
  }
  void check_taken_over(const Orphans& orphans) const {
    CHECK_FALSE(orphans.fences.empty());
    await("what they had is taken over", [&] {
      const auto now = tenures();
      return std::all_of(orphans.fences.begin(), orphans.fences.end(), [&](const auto& orphan) {
        const auto& [partition, fence] = orphan;
        return now[partition].fence != fence;
      });
    });
    const auto taken = std::chrono::ceil<std::chrono::milliseconds>(SteadyClock::now() - orphans.since);
    CHECK_MESSAGE(taken <= lease + 1s, taken.count(), " ms; ", said());
    MESSAGE(orphans.fences.size(), " partitions taken over after ", taken.count(), " ms");
  }

  // In good order: nobody has anything then.
  void stop() {
    for (auto& worker : workers_) {
      await_started(worker);
      worker.signal(SIGTERM);
    }
    for (auto& worker : workers_) {
      CHECK_MESSAGE(end_of(worker) == 0, said());
    }
    workers_.clear();
    for (const Tenure& tenure : tenures()) {
      CHECK(tenure.owner.empty());
    }
  }

 private:
  Forum& forum_;
  std::unique_ptr<redis::Session> session_;
  std::list<test::Process> workers_;
};

std::chrono::milliseconds at_most(std::chrono::milliseconds most, std::mt19937& random) {
  return std::chrono::milliseconds(random() % static_cast<std::uint64_t>(most.count()));
}

// Four workers; two are killed; three more come within the time that the dead ones are still believed to be
// alive; one is paused for longer than its lease; all are stopped.
void turn(Crew& crew, std::mt19937& random) {
  crew.join(4);
  await("four share", [&] { return crew.even(); });
  std::this_thread::sleep_for(at_most(300ms, random));
  auto& workers = crew.workers();
  const auto orphans = crew.silence({&workers.front(), &workers.back()}, SIGKILL);
  workers.pop_front();
  workers.pop_back();
  std::this_thread::sleep_for(at_most(lease, random));
  crew.join(3);
  crew.check_taken_over(orphans);
  await("five share", [&] { return crew.even(); });

  const auto paused = std::next(workers.begin(), static_cast<std::ptrdiff_t>(random() % workers.size()));
  const auto left = crew.silence({&*paused}, SIGSTOP);
  crew.check_taken_over(left);
  std::this_thread::sleep_for(at_most(300ms, random));
  paused->signal(SIGCONT);
  await("five share again", [&] { return crew.even(); });
  std::this_thread::sleep_for(at_most(300ms, random));
  crew.stop();
}

}  // namespace

TEST_CASE(
    "workers that share lose no event, keep the order of every key and write nothing after their fence") {
  const std::uint64_t turns = is_long() ? 10 : 1;
  const auto seed = static_cast<std::mt19937::result_type>(std::time(nullptr));
  CAPTURE(seed);
  std::mt19937 random(seed);
  Forum forum;
  Crew crew(forum);
  // Longer than the turns take.
  auto publisher = forum.start_publishing(turns * 12 * per_second, per_second);
  for (std::uint64_t i = 0; i < turns; ++i) {
    turn(crew, random);
  }
  CHECK(end_of(publisher) == 0);
  auto last = crew.start({"--drain"});
  CHECK_MESSAGE(end_of(last) == 0, crew.said());

  const auto found = forum.handled("handled");
  CHECK(found.events == forum.published());
  CHECK(found.out_of_order == 0);
  CHECK(found.refused == 0);
  // At most a window of each partition of the two that were killed and the one that was paused.
  CHECK(found.repeats <= turns * Forum::partitions * 4'096);
  MESSAGE("repeats: ", found.repeats);
}
