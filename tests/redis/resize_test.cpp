// G7: the coordinator of a resize.
#include "continuum/resize.hpp"

#include "redis/log_data.hpp"
#include "redis/server.hpp"
#include "redis/work.hpp"

#include "continuum/error.hpp"
#include "continuum/lease.hpp"

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace continuum;
using test::kind_of;
using test::LogData;
using test::RedisServer;

namespace {

struct Resizing {
  RedisServer server;
  std::unique_ptr<redis::Session> session = server.session();
  LogData data{*session, 3};

  [[nodiscard]] Topic topic() { return load_topic(*session, "t"); }
  [[nodiscard]] LogState meta(std::uint32_t partition) {
    return *parse_meta(data.command("HGETALL", data.meta(partition))[0]);
  }
  [[nodiscard]] std::size_t barriers(std::uint32_t partition) {
    std::size_t count = 0;
    const auto replies = data.command("XRANGE", data.log(partition), "-", "+");
    for (std::size_t i = 0; i < replies[0].size(); ++i) {
      count += parse_entry(replies[0][i], "t", Partition(partition)).barrier ? 1U : 0U;
    }
    return count;
  }
  void begin(const RingDescription& ring) {
    redis::Request request;
    request.run(redis::Script::begin, {topic_key("t")}, topic().active, ring.text());
    REQUIRE(session->call(std::move(request))[0][0].text() == "OK");
  }
};

const RingDescription five = RingDescription::uniform(5);
const RingDescription two = RingDescription::uniform(2);

// As a failover of the topic's slot alone leaves it.
void lose_generation(Resizing& r, std::uint32_t generation) {
  r.data.command("HSET", topic_key("t"), "active", generation - 1);
  r.data.command("HDEL", topic_key("t"), fmt::format("gen:{}", generation));
}

}  // namespace

TEST_SUITE("resize") {
  TEST_CASE("a topic that grows seals what it has, and creates and registers what is new") {
    Resizing r;
    Topic before = r.topic();
    register_group(*r.session, before, "g", "start");
    register_group(*r.session, before, "late", "end");
    r.data.append(0, {test::event_line("1", "a")});
    const Resized resized = resize_topic(*r.session, "t", five);
    CHECK(resized.how == Resized::How::resized);
    CHECK(resized.before == Generation(1));
    CHECK(resized.generation == Generation(2));
    CHECK(resized.sealed == 5);
    CHECK(resized.held_up.count() > 0);
    const Topic after = r.topic();
    CHECK(after.active == Generation(2));
    CHECK_FALSE(after.pending);
    CHECK(after.ring() == five);
    for (std::uint32_t p = 0; p < 5; ++p) {
      CHECK(r.meta(p).generation == Generation(2));
      CHECK(r.meta(p).born == Generation(p < 3 ? 1 : 2));
      CHECK(r.barriers(p) == (p < 3 ? 2 : 1));
      for (const char* group : {"g", "late"}) {
        const auto state = parse_group(r.data.command("HGETALL", group_key("t", Partition(p), group))[0]);
        REQUIRE(state);
        // A new partition is the group's from its first event on.
        CHECK((p < 3 || state->cursor.offset == Offset(0)));
      }
    }
    // Offsets go on.
    CHECK(r.meta(0).next == Offset(1));
  }

  TEST_CASE("the same ring again changes nothing") {
    Resizing r;
    CHECK(resize_topic(*r.session, "t", five).how == Resized::How::resized);
    const Resized again = resize_topic(*r.session, "t", five);
    CHECK(again.how == Resized::How::unchanged);
    CHECK(again.generation == Generation(2));
    CHECK(r.barriers(0) == 2);
  }

  TEST_CASE("a partition that returns continues its log and its offsets") {
    Resizing r;
    r.data.append(2, {test::event_line("1", "a"), test::event_line("2", "a")});
    (void)resize_topic(*r.session, "t", two);
    CHECK(r.meta(2).generation == Generation(2));
    (void)resize_topic(*r.session, "t", RingDescription::uniform(4));
    CHECK(r.meta(2).generation == Generation(3));
    CHECK(r.meta(2).born == Generation(1));
    CHECK(r.meta(2).next == Offset(2));
    CHECK(r.meta(3).born == Generation(3));
  }

  TEST_CASE("a coordinator that died anywhere is continued by running it again") {
    for (int sealed = 0; sealed <= 5; ++sealed) {
      CAPTURE(sealed);
      Resizing r;
      r.begin(five);
      for (int p = 0; p < sealed; ++p) {
        r.data.seal(static_cast<std::uint32_t>(p), 2, p < 3 ? "old" : "new");
      }
      const Resized resized =
          sealed % 2 == 0 ? resize_topic(*r.session, "t", five) : continue_resize(*r.session, "t");
      CHECK(resized.how == Resized::How::continued);
      CHECK(resized.sealed == static_cast<std::uint32_t>(5 - sealed));
      CHECK(r.topic().ring() == five);
      for (std::uint32_t p = 0; p < 5; ++p) {
        CHECK(r.barriers(p) == (p < 3 ? 2 : 1));
      }
    }
  }

  TEST_CASE("a resize to another ring is refused while one is pending, and says what to do") {
    Resizing r;
    r.begin(five);
    std::string message;
    CHECK(kind_of([&] { (void)resize_topic(*r.session, "t", two); }, &message) == ErrorKind::usage);
    CHECK(message.find("xxh3:256:0-4") != std::string::npos);
    CHECK(message.find("--abort") != std::string::npos);
    CHECK(r.topic().active == Generation(1));
  }

  TEST_CASE("an aborted resize leaves the ring as it was, in a generation of its own") {
    Resizing r;
    r.begin(two);
    r.data.seal(1, 2, "old");
    const Resized aborted = abort_resize(*r.session, "t");
    CHECK(aborted.how == Resized::How::aborted);
    CHECK(aborted.generation == Generation(2));
    CHECK(r.topic().ring() == RingDescription::uniform(3));
    for (std::uint32_t p = 0; p < 3; ++p) {
      CHECK(r.meta(p).generation == Generation(2));
      CHECK(r.barriers(p) == 2);
    }
    CHECK(kind_of([&] { (void)abort_resize(*r.session, "t"); }) == ErrorKind::usage);
    CHECK(kind_of([&] { (void)continue_resize(*r.session, "t"); }) == ErrorKind::usage);
    // What was begun and given up is no obstacle.
    CHECK(resize_topic(*r.session, "t", two).generation == Generation(3));
  }

  TEST_CASE("two coordinators with one aim help each other") {
    Resizing r;
    for (std::uint32_t partitions : {12U, 5U, 9U, 3U}) {
      std::vector<Resized> results(2);
      std::vector<std::thread> threads;
      for (std::size_t i = 0; i < 2; ++i) {
        threads.emplace_back([&, i] {
          const auto session = r.server.session();
          results[i] = resize_topic(*session, "t", RingDescription::uniform(partitions));
        });
      }
      for (auto& thread : threads) {
        thread.join();
      }
      CHECK(results[0].generation == results[1].generation);
      CHECK(r.topic().ring() == RingDescription::uniform(partitions));
      const int begun = (results[0].how == Resized::How::resized ? 1 : 0) +
                        (results[1].how == Resized::How::resized ? 1 : 0);
      CHECK(begun == 1);
    }
    CHECK(r.topic().active == Generation(5));
    CHECK(r.barriers(0) == 5);
  }

  TEST_CASE("a generation that the server lost is passed over, also to the same ring") {
    for (const std::uint32_t partitions : {3U, 5U, 4U}) {
      Resizing r;
      r.data.append(0, {test::event_line("1", "a")});
      (void)resize_topic(*r.session, "t", five);
      lose_generation(r, 2);
      CHECK(kind_of([&] { (void)continue_resize(*r.session, "t"); }) == ErrorKind::loss);
      const Resized resized = resize_topic(*r.session, "t", RingDescription::uniform(partitions));
      CHECK(resized.how == Resized::How::resized);
      CHECK(resized.generation == Generation(3));
      CHECK(resized.lost == Generation(2));
      const Topic topic = r.topic();
      CHECK(topic.ring() == RingDescription::uniform(partitions));
      CHECK(topic.rings.at(Generation(2)) == RingDescription::uniform(3));
      for (std::uint32_t p = 0; p < partitions; ++p) {
        CHECK(r.meta(p).generation == Generation(3));
      }
      const Resized again = resize_topic(*r.session, "t", RingDescription::uniform(partitions));
      CHECK(again.how == Resized::How::unchanged);
      CHECK_FALSE(again.lost);
    }
  }

  TEST_CASE("one partition that is beyond its topic is enough") {
    Resizing r;
    r.data.seal(1, 2, "old");
    const Resized resized = resize_topic(*r.session, "t", RingDescription::uniform(3));
    CHECK(resized.generation == Generation(3));
    CHECK(r.meta(0).generation == Generation(3));
    CHECK(r.barriers(0) == 2);
    CHECK(r.barriers(1) == 3);
  }

  TEST_CASE("events of a generation that the server lost are read by no other ring") {
    for (const std::uint32_t partition : {0U, 4U}) {
      Resizing r;
      (void)resize_topic(*r.session, "t", five);
      r.data.append(partition, {test::event_line("1", "a")}, Frames::plain, 2);
      lose_generation(r, 2);
      std::string message;
      // Partition 4 is in no ring that is known.
      for (const RingDescription& ring : {RingDescription::uniform(3), two}) {
        CHECK(kind_of([&] { (void)resize_topic(*r.session, "t", ring); }, &message) == ErrorKind::loss);
        CHECK(message.find("partition " + std::to_string(partition)) != std::string::npos);
      }
      CHECK(r.topic().active == Generation(1));
      CHECK_FALSE(r.topic().pending);
      // As docs/operations.md says.
      r.data.command("HSET", topic_key("t"), "gen:2", five.text(), "active", "2");
      CHECK(resize_topic(*r.session, "t", two).generation == Generation(3));
    }
  }

  TEST_CASE("a log that is gone is loss, and nothing is activated") {
    Resizing r;
    r.data.command("DEL", r.data.meta(1));
    CHECK(kind_of([&] { (void)resize_topic(*r.session, "t", five); }) == ErrorKind::loss);
    CHECK(r.topic().active == Generation(1));
    CHECK(r.data.command("EXISTS", r.data.meta(1))[0].integer() == 0);
  }
}
