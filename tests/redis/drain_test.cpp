// What a drained run waits for, and for what it does not.
#include "redis/changing.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <exception>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using namespace continuum;
using test::await;
using test::Changing;
using test::count_of;
using test::record;
using test::ring_of;
using test::Running;

namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr Milliseconds far_too_long{20'000};

// Whether runs that end after `far_too_long` at the latest ended by themselves.
class Stopwatch {
 public:
  [[nodiscard]] bool in_time() const { return SteadyClock::now() - began_ < far_too_long; }

 private:
  SteadyClock::time_point began_ = SteadyClock::now();
};

// A drained run of these partitions on a thread of its own, while others run.
class Beside {
 public:
  Beside(Changing& w, WorkOptions options, std::vector<Partition> partitions)
      : session_(w.session()), topic_(w.data().topic()), options_(std::move(options)) {
    options_.handlers = {w.handler()};
    options_.partitions = std::move(partitions);
    options_.ending = Ending::drained;
    options_.time_max = far_too_long;
    thread_ = std::thread([this] {
      try {
        summary_ = work(*session_, topic_, options_);
      } catch (...) {
        error_ = std::current_exception();
      }
    });
  }
  ~Beside() { join(); }
  Beside(const Beside&) = delete;
  Beside& operator=(const Beside&) = delete;
  WorkSummary end() {
    join();
    if (error_) {
      std::rethrow_exception(error_);
    }
    return summary_;
  }

 private:
  void join() {
    if (thread_.joinable()) {
      thread_.join();
    }
  }

  std::unique_ptr<redis::Session> session_;
  const Topic topic_;
  WorkOptions options_;
  WorkSummary summary_;
  std::exception_ptr error_;
  std::thread thread_;
};

// Partition 0 waits in generation 3 for 2, which waits in generation 2 for 1, which a handler halts. Behind
// both barriers there is an event.
void chain(Changing& w) {
  w.handle(R"x(test "$CONTINUUM_PARTITION" != 1 || exit 65; )x" + record);
  w.handler().on_failure = OnFailure::halt;
  const std::string key = w.moving_key(ring_of(3), 1, 2);
  w.append("1", key);
  w.resize(ring_of(3));
  w.append("2", key);
  const std::string back = w.moving_key(ring_of(2), 2, 0);
  w.resize(ring_of(2));
  REQUIRE(w.append("3", back) == Partition(0));
}

}  // namespace

TEST_SUITE("drain") {
  TEST_CASE("a drained run passes the barriers that were there at its start, so that others need not wait") {
    Changing w(2);
    w.handle(record);
    w.resize(ring_of(4));
    (void)w.run();
    for (std::uint32_t p = 0; p < 2; ++p) {
      CHECK(w.state(p).passed == Generation(2));
    }
  }

  TEST_CASE("a drained run does not wait at a barrier for a partition on which nobody goes on") {
    Changing w(2);
    w.handle(record);
    const std::string key = w.moving_key(ring_of(3), 1, 2);
    w.append("1", key);
    w.resize(ring_of(3));
    w.append("2", key);
    w.options().coverage = Coverage::named;
    w.options().partitions = {Partition(2)};
    w.options().waiting_told_after = Milliseconds(50);
    CHECK(w.run().waiting == std::vector{Partition(2)});
    CHECK(count_of(w.said(),
                   "waits at generation 2 of the ring for partition 0, on which nobody goes on: this "
                   "run ends") == 1);
    CHECK(count_of(w.said(), "waits") == 1);
    CHECK(w.handled().empty());
    CHECK(w.state(2).import.generation == Generation(2));
    // One that has nothing behind the barrier has done what it can.
    w.resize(RingDescription::parse("xxh3:256:0-1,2*4"));
    w.options().partitions = {Partition(0)};
    CHECK(w.run().waiting.empty());
    CHECK(w.run_all().waiting.empty());
    CHECK(w.handled() == "1\n2\n");
    CHECK(w.all_passed(3));
  }

  TEST_CASE("a drained run does not wait for one that is to take letters over and on which nobody goes on") {
    Changing w(2);
    w.handle("exit 65");
    w.handler().on_failure = OnFailure::hold_key;
    const std::string key = w.moving_key(ring_of(3), 1, 2);
    w.append("1", key);
    w.resize(ring_of(3));
    w.resize(RingDescription::parse("xxh3:256:0-1,2*4"));
    w.options().coverage = Coverage::named;
    w.options().partitions = {Partition(1)};
    (void)w.run();
    CHECK(
        w.said().find("partition 1: waits at generation 3 of the ring for partition 2, on which nobody goes "
                      "on: this run ends") != std::string::npos);
    CHECK(w.state(1).passed == Generation(2));
    (void)w.run_all();
    CHECK(w.all_passed(3));
    CHECK(w.letters_in(2) == "1\n");
  }

  TEST_CASE("a drained run ends when what a partition waits for is halted") {
    for (const Sharing sharing : {Sharing::pinned, Sharing::shared}) {
      Changing w(2);
      w.options().sharing = sharing;
      w.handle("exit 65");
      w.handler().on_failure = OnFailure::halt;
      const std::string key = w.moving_key(ring_of(3), 1, 2);
      w.append("1", key);
      w.resize(ring_of(3));
      w.append("2", key);
      const WorkSummary summary = w.run_all();
      CHECK(summary.halted == std::vector{Partition(1)});
      CHECK(summary.waiting == std::vector{Partition(2)});
    }
  }

  TEST_CASE("a drained run ends when one partition waits for another, and that one for a halted one") {
    for (const Sharing sharing : {Sharing::pinned, Sharing::shared}) {
      CAPTURE(static_cast<int>(sharing));
      Changing w(2);
      chain(w);
      w.options().sharing = sharing;
      w.options().time_max = far_too_long;
      const Stopwatch watch;
      const WorkSummary summary = w.run_all();
      CHECK(watch.in_time());
      CHECK(summary.halted == std::vector{Partition(1)});
      CHECK(summary.waiting == std::vector{Partition(0), Partition(2)});
      CHECK(w.handled().empty());
      w.handle(record);
      CHECK(w.run_all().waiting.empty());
      CHECK(w.handled() == "1\n2\n3\n");
    }
  }

  TEST_CASE("two runs that wait for each other and for a halted partition both end") {
    Changing w(2);
    chain(w);
    w.options().sharing = Sharing::shared;
    const Stopwatch watch;
    Beside one(w, w.options(), w.data().topic().partitions());
    Beside other(w, w.options(), w.data().topic().partitions());
    const WorkSummary ends[] = {one.end(), other.end()};
    CHECK(watch.in_time());
    std::size_t waiting = 0;
    for (const WorkSummary& summary : ends) {
      waiting += summary.waiting.size();
    }
    CHECK(waiting >= 2);
    CHECK(w.handled().empty());
  }

  TEST_CASE("a drained run does not wait for what another worker's partition waits for in vain") {
    Changing w(2);
    chain(w);
    w.options().coverage = Coverage::named;
    const WorkOptions named = w.options();
    w.options().partitions = {Partition(1), Partition(2)};
    Running running(w);
    await("1 is halted", [&] { return w.state(1).state == "halted"; });
    await("2 stands at the barrier", [&] { return w.state(2).import.generation == Generation(2); });
    const Stopwatch watch;
    CHECK(Beside(w, named, {Partition(0)}).end().waiting == std::vector{Partition(0)});
    CHECK(watch.in_time());
    CHECK(count_of(w.said(),
                   "partition 0: waits at generation 3 of the ring for partition 2, which waits for "
                   "partition 1, on which nobody goes on: this run ends") == 1);
  }

  TEST_CASE("a drained run does not wait for one whose letters nobody takes over") {
    Changing w(3);
    w.handle("exit 65");
    w.handler().on_failure = OnFailure::hold_key;
    const RingDescription second = RingDescription::parse("xxh3:256:0,1,2*4");
    const std::string key = w.moving_key(second, 1, 2);
    w.append("1", key);
    w.resize(second);
    const RingDescription third = RingDescription::parse("xxh3:256:0,2*4");
    const std::string left = w.moving_key(third, 1, 0);
    w.resize(third);
    REQUIRE(w.append("2", left) == Partition(0));
    w.options().coverage = Coverage::named;
    const WorkOptions named = w.options();
    w.options().partitions = {Partition(0), Partition(1)};
    {
      // 0 comes to the last barrier.
      Running running(w);
      await("0 and 1 have passed the first",
            [&] { return w.state(0).passed == Generation(2) && w.state(1).passed == Generation(2); });
    }
    w.options().partitions = {Partition(1)};
    Running running(w);
    await("1 is held", [&] { return !w.state(1).owner.empty(); });
    const Stopwatch watch;
    CHECK(Beside(w, named, {Partition(0)}).end().waiting == std::vector{Partition(0)});
    CHECK(watch.in_time());
    CHECK(count_of(w.said(), "partition 1, which waits for partition 2, on which nobody goes on") == 1);
  }

  TEST_CASE("a drained run does not wait for a worker that died") {
    Changing w(2);
    w.handle(record);
    const std::string key = w.moving_key(ring_of(3), 1, 2);
    w.append("1", key);
    w.resize(ring_of(3));
    w.append("2", key);
    for (const std::uint32_t partition : {0U, 1U}) {
      w.data().command("HSET", Changing::group(partition), "owner", "dead", "fence", 5, "ttl", 1'500);
    }
    w.options().coverage = Coverage::named;
    w.options().partitions = {Partition(2)};
    w.options().time_max = far_too_long;
    const Stopwatch watch;
    CHECK(w.run().waiting == std::vector{Partition(2)});
    CHECK(watch.in_time());
  }

  TEST_CASE("a drained run does not wait until a paused group is resumed, and says what is left") {
    for (const Sharing sharing : {Sharing::pinned, Sharing::shared}) {
      for (const bool letters : {false, true}) {
        CAPTURE(static_cast<int>(sharing));
        CAPTURE(letters);
        Changing w(2);
        w.options().sharing = sharing;
        w.handle(test::record_when_mended);
        w.handler().on_failure = OnFailure::hold_key;
        w.options().time_max = far_too_long;
        const Stopwatch watch;
        CHECK(w.append("1", "k1") == Partition(0));
        if (letters) {
          CHECK(w.run_all().waiting.empty());
          w.release(0, "k1");
        }
        w.mend();
        w.pause("Ann");
        CHECK(w.run_all().waiting == std::vector{Partition(0)});
        CHECK(w.handled().empty());
        CHECK(w.said().find("partition 0: paused by Ann; this run does not wait until it is resumed") !=
              std::string::npos);
        w.pause("");
        CHECK(w.run_all().waiting.empty());
        CHECK(w.handled() == "1\n");
        // Nothing is left.
        w.pause("Ann");
        CHECK(w.run_all().waiting.empty());
        CHECK(watch.in_time());
      }
    }
  }

  TEST_CASE("a drained run ends where one partition waits for another one of its own, which is paused") {
    for (const Sharing sharing : {Sharing::pinned, Sharing::shared}) {
      CAPTURE(static_cast<int>(sharing));
      Changing w(2);
      w.options().sharing = sharing;
      w.handle(record);
      const std::string key = w.moving_key(ring_of(3), 1, 2);
      w.append("1", key);
      w.resize(ring_of(3));
      w.append("2", key);
      w.data().command("HSET", Changing::group(1), "paused", "Ann");
      w.options().time_max = far_too_long;
      const Stopwatch watch;
      CHECK(w.run_all().waiting == std::vector{Partition(1), Partition(2)});
      CHECK(watch.in_time());
      CHECK(w.state(0).passed == Generation(2));
    }
  }

  TEST_CASE("a drained run that is paused while it runs finishes what runs, and ends") {
    for (const Sharing sharing : {Sharing::pinned, Sharing::shared}) {
      CAPTURE(static_cast<int>(sharing));
      Changing w(2);
      w.options().sharing = sharing;
      w.handle(R"x(touch "$DIR/runs"; until test -e "$DIR/go"; do sleep 0.01; done; )x" + record);
      w.append("1", "k1");
      w.append("2", "k1");
      const Stopwatch watch;
      Beside run(w, w.options(), w.data().topic().partitions());
      await("it runs", [&] { return std::filesystem::exists(w.file("runs")); });
      w.pause("Ann");
      await("it knows", [&] { return w.said().find("paused by Ann") != std::string::npos; });
      test::write_file(w.file("go"), "");
      CHECK(run.end().waiting == std::vector{Partition(0)});
      CHECK(watch.in_time());
      CHECK(w.handled() == "1\n");
    }
  }

  TEST_CASE("at the start of a drained run only partitions with letters are asked for them") {
    constexpr std::uint32_t partitions = 32;
    Changing w(partitions);
    w.handle("exit 65");
    w.handler().on_failure = OnFailure::hold_key;
    const Partition with = w.append("1", "k1");
    (void)w.run_all();
    // Somebody else has them all: only what is asked at the start is counted.
    for (std::uint32_t partition = 0; partition < partitions; ++partition) {
      w.data().command("HSET", Changing::group(partition), "owner", "other", "fence", 5, "ttl", 60'000);
    }
    w.release(with.value, "k1");
    w.options().sharing = Sharing::shared;
    w.data().command("CONFIG", "RESETSTAT");
    w.options().time_max = far_too_long;
    const Stopwatch watch;
    (void)w.run_all();
    CHECK(watch.in_time());
    const std::string stats(w.data().command("INFO", "commandstats")[0].text());
    const auto at = stats.find("cmdstat_hgetall:calls=");
    REQUIRE(at != std::string::npos);
    const int calls = std::stoi(stats.substr(at + 22));
    CHECK(calls >= 1);
    CHECK(calls < 8);
  }
}
