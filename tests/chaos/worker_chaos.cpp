// G4, G5: workers that are killed and paused at random moments. The seed of a failing run is printed.
#include "chaos/forum.hpp"
#include "support/process.hpp"

#include "continuum/lease.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <ctime>
#include <random>
#include <string>
#include <thread>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;
using test::await;
using test::await_started;
using test::end_of;
using test::Forum;
using test::is_long;

namespace {

int kill_count() {
  return is_long() ? 50 : 12;
}

// Kills one of four workers at random moments while events are published; then lets one handle the rest.
void kill_workers(Forum& forum, std::uint64_t per_second, const std::vector<std::string>& how,
                  const std::string& output) {
  const int kills = kill_count();
  // About as long as the kills take.
  auto publisher =
      forum.start_publishing(per_second * static_cast<std::uint64_t>(kill_count()) / 10, per_second);
  const auto seed = static_cast<std::mt19937::result_type>(std::time(nullptr));
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::vector<test::Process> workers;
  workers.reserve(4);
  const auto start = [&] { return test::Process(forum.work(how), {"/dev/null", output, forum.file("err")}); };
  for (int i = 0; i < 4; ++i) {
    workers.push_back(start());
  }
  for (int i = 0; i < kills; ++i) {
    auto& victim = workers[random() % workers.size()];
    CHECK_FALSE(victim.ended_within(std::chrono::milliseconds(random() % 200)));
    victim.signal(SIGKILL);
    victim.wait();
    victim.~Process();
    new (&victim) test::Process(start());
  }
  CHECK(end_of(publisher) == 0);
  for (auto& worker : workers) {
    await_started(worker);
    worker.signal(SIGTERM);
  }
  for (auto& worker : workers) {
    const int status = end_of(worker);
    CHECK((status == 0 || status == 128 + SIGTERM));  // one that had only just been started
  }
  std::vector<std::string> rest{"--drain"};
  rest.insert(rest.end(), how.begin(), how.end());
  test::Process last(forum.work(rest), {"/dev/null", output, forum.file("err")});
  CHECK_MESSAGE(end_of(last) == 0, test::read_file(forum.file("err")));
}

}  // namespace

TEST_CASE("killed workers that print lose no event and keep the order of every key") {
  Forum forum;
  kill_workers(forum, 200'000, {}, forum.file("printed"));
  const auto found = forum.handled("printed");
  CHECK(found.events == forum.published());
  CHECK(found.out_of_order == 0);
  // A commit is due every 10,000 events and every 50 ms; as much may be on its way to the file.
  CHECK(found.repeats <= static_cast<std::uint64_t>(kill_count()) * Forum::partitions * 30'000);
  MESSAGE("repeats: ", found.repeats);
}

TEST_CASE("killed workers with a stream handler lose no event and keep the order of every key") {
  Forum forum;
  kill_workers(forum, 20'000, forum.recorder(), "/dev/null");
  const auto found = forum.handled("handled");
  CHECK(found.events == forum.published());
  CHECK(found.out_of_order == 0);
  CHECK(found.repeats <= static_cast<std::uint64_t>(kill_count()) * Forum::partitions * 2'000);
  MESSAGE("repeats: ", found.repeats);
}

TEST_CASE("killed workers with exec handlers lose no event and keep the order of every key") {
  Forum forum;
  kill_workers(forum, 1'000, {"--concurrency", "2", "--", "sh", "-c", "cat >>\"$0\"", forum.file("handled")},
               "/dev/null");
  const auto found = forum.handled("handled");
  CHECK(found.events == forum.published());
  CHECK(found.out_of_order == 0);
  CHECK(found.repeats <= static_cast<std::uint64_t>(kill_count()) * Forum::partitions * 200);
  MESSAGE("repeats: ", found.repeats);
}

TEST_CASE("a server that is killed and restarted costs no event") {
  Forum forum;
  forum.publish(60'000);
  test::Process worker(forum.work(forum.recorder()), {"/dev/null", "/dev/null", forum.file("err")});
  for (int i = 0; i < (is_long() ? 20 : 4); ++i) {
    CHECK_FALSE(worker.ended_within(150ms));
    forum.server().kill();
    forum.server().start();
  }
  await("everything is committed", [&] {
    std::uint64_t done = 0;
    for (std::uint32_t p = 0; p < Forum::partitions; ++p) {
      done += forum.state(p).cursor.offset.value;
    }
    return done == forum.published();
  });
  worker.signal(SIGTERM);
  CHECK(end_of(worker) == 0);
  const auto found = forum.handled("handled");
  CHECK(found.events == forum.published());
  CHECK(found.out_of_order == 0);
  MESSAGE("repeats: ", found.repeats);
}

TEST_CASE("a paused worker is fenced: its handlers are stopped and its commits refused") {
  for (const bool waits : {true, false}) {
    CAPTURE(waits);
    Forum forum;
    forum.publish(2'000);
    std::vector<std::string> how{"--mode", "stream"};
    if (!waits) {
      how.push_back("--no-wait");
    }
    // Writes down who it is, then answers nothing: what it holds is not done.
    const std::vector<std::string> handler{"--", "sh", "-c", "echo $$ >>\"$0\"; exec sleep 1000",
                                           forum.file("pids")};
    how.insert(how.end(), handler.begin(), handler.end());
    test::Process paused(forum.work(how), {"/dev/null", "/dev/null", forum.file("paused")});
    const auto pids = [&] {
      const std::string text = test::read_file(forum.file("pids"));
      std::vector<pid_t> found;
      for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
        found.push_back(std::atoi(text.c_str() + at));
      }
      return found;
    };
    await("every partition has its handler", [&] { return pids().size() >= Forum::partitions; });
    const Fence fence = forum.state(0).fence;
    paused.signal(SIGSTOP);

    std::vector<std::string> rest{"--drain"};
    for (const auto& word : forum.recorder()) {
      rest.push_back(word);
    }
    test::Process heir(forum.work(rest), {"/dev/null", "/dev/null", forum.file("heir")});
    CHECK(end_of(heir) == 0);
    CHECK(forum.state(0).fence > fence);
    CHECK(forum.handled("handled").events == forum.published());

    paused.signal(SIGCONT);
    await("its handlers are gone", [&] {
      for (const pid_t pid : pids()) {
        if (::kill(pid, 0) == 0) {
          return false;
        }
      }
      return true;
    });
    if (waits) {
      paused.signal(SIGTERM);
      CHECK(end_of(paused) == 0);
    } else {
      CHECK(end_of(paused) == 5);
    }
    const std::string told = test::read_file(forum.file("paused"));
    CHECK(told.find(waits ? "handlers are stopped" : "") != std::string::npos);
    for (std::uint32_t p = 0; p < Forum::partitions; ++p) {
      CHECK(forum.state(p).owner.empty());
    }
  }
}

TEST_CASE("no child outlives its worker, nor does what the child started") {
  for (const std::string mode : {"exec", "stream"}) {
    CAPTURE(mode);
    Forum forum;
    forum.publish(100);
    test::Process worker(
        forum.work({"--mode", mode, "--", "sh", "-c", "sleep 1000 & echo $! >>\"$0\"; echo $$ >>\"$0\"; wait",
                    forum.file("pids")}),
        {});
    std::vector<pid_t> pids;
    await("handlers and what they started are there", [&] {
      pids.clear();
      const std::string text = test::read_file(forum.file("pids"));
      for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
        pids.push_back(std::atoi(text.c_str() + at));
      }
      return pids.size() >= 2 * Forum::partitions;
    });
    worker.signal(SIGKILL);
    worker.wait();
    for (const pid_t pid : pids) {
      await("it ends", [&] { return ::kill(pid, 0) != 0; });
    }
  }
}
