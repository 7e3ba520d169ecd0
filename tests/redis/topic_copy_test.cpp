#include "redis/log_data.hpp"
#include "redis/server.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/topic_copy.hpp"

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

using namespace continuum;
using test::event_line;
using test::LogData;
using test::RedisServer;

namespace {

// Events of 20 keys whose ids say their order.
void fill(LogData& data, std::uint32_t partitions, int events) {
  for (int i = 0; i < events; i += 5) {
    std::vector<std::string> lines;
    for (int j = i; j < i + 5; ++j) {
      lines.push_back(event_line(fmt::format("{:05}", j),
                                 fmt::format("k{}-{}", i / 5 % static_cast<int>(partitions), j % 4)));
    }
    data.append(static_cast<std::uint32_t>(i / 5) % partitions, lines);
  }
}

Topic make_target(redis::Session& session, Frames frames = Frames::automatic) {
  TopicSettings settings;
  settings.frames = frames;
  create_topic(session, "copy", RingDescription::uniform(3), settings);
  return load_topic(session, "copy");
}

struct Counts {
  std::uint64_t stored = 0;
  std::uint64_t duplicates = 0;
  friend bool operator==(const Counts&, const Counts&) = default;
};

// `flush_every`: so many events.
Counts copy(redis::Session& session, const Topic& source, ReplayOptions options = {},
            std::uint64_t flush_every = 1000) {
  Replay replay(session, source, std::move(options));
  TopicCopy copy(session, load_topic(session, "copy"), source, "all");
  while (const auto run = replay.next(flush_every)) {
    copy.give(*run);
    copy.flush();
  }
  return {copy.stored(), copy.duplicates()};
}

// How many events there are, each once, those of each key in order.
std::uint64_t require_sound(redis::Session& session) {
  std::map<std::string, std::string> last;
  std::uint64_t events = 0;
  for (const Partition partition : load_topic(session, "copy").partitions()) {
    for (const std::string& line : test::stored_lines(session, "copy", partition.value)) {
      std::string scratch;
      const Attributes attributes = attributes_of(line);
      std::string& before = last[std::string(key_of(attributes, scratch))];
      CHECK(before < std::string(attributes.id));
      before = attributes.id;
      ++events;
    }
  }
  return events;
}

void resize_target(redis::Session& session, std::uint32_t partitions) {
  const Topic topic = load_topic(session, "copy");
  redis::Request begin;
  begin.run(redis::Script::begin, {topic_key("copy")}, topic.active,
            RingDescription::uniform(partitions).text());
  session.call(std::move(begin));
  redis::Request rest;
  for (std::uint32_t p = 0; p < partitions; ++p) {
    rest.run(redis::Script::seal, {meta_key("copy", Partition(p)), log_key("copy", Partition(p))},
             topic.log_id, topic.active + 1, p < 3 ? "old" : "new");
  }
  rest.run(redis::Script::activate, {topic_key("copy")}, topic.active + 1);
  session.call(std::move(rest));
}

}  // namespace

TEST_CASE("a copy has each event once, also when it is made again, or was cut short anywhere") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 4);
  fill(data, 4, 100);
  SUBCASE("in compressed frames") {
    make_target(*session);
  }
  SUBCASE("one event an entry") {
    make_target(*session, Frames::single);
  }
  std::uint64_t before = 0;
  for (const std::uint64_t events : {1U, 2U, 30U, 31U, 77U, 100U}) {
    ReplayOptions options;
    options.events_max = events;
    CHECK(copy(*session, data.topic(), options, 7) == Counts{events - before, before});
    before = events;
    CHECK(require_sound(*session) == events);
  }
  CHECK(copy(*session, data.topic()) == Counts{0, 100});
}

TEST_CASE(
    "what was copied is known also when the beginning of the source was trimmed, or partitions were chosen") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  fill(data, 2, 40);
  make_target(*session);
  ReplayOptions one;
  one.partitions = {Partition(1)};
  CHECK(copy(*session, data.topic(), one) == Counts{20, 0});
  data.command("XTRIM", data.log(0), "MAXLEN", 2);
  data.command("HSET", data.meta(0), "trimmed", 1);
  CHECK(copy(*session, data.topic()) == Counts{10, 20});
  fill(data, 2, 10);
  CHECK(copy(*session, data.topic()) == Counts{10, 30});
}

TEST_CASE("a target that is resized while it is copied to has each event once, in order") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  fill(data, 2, 100);
  make_target(*session);
  Replay replay(*session, data.topic(), {});
  TopicCopy copy_before(*session, load_topic(*session, "copy"), data.topic(), "all");
  std::uint64_t given = 0;
  while (const auto run = replay.next(3)) {
    copy_before.give(*run);
    given += run->events;
    if (given == 50) {
      resize_target(*session, 5);
    }
    if (given % 20 == 0) {
      copy_before.flush();
    }
  }
  copy_before.flush();
  CHECK(copy_before.stored() == 100);
  CHECK(copy_before.duplicates() == 0);
  CHECK(require_sound(*session) == 100);
  CHECK(copy(*session, data.topic()) == Counts{0, 100});
}

TEST_CASE("of two copies of the same the one that came first is refused") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  fill(data, 1, 20);
  make_target(*session);
  Replay replay(*session, data.topic(), {});
  TopicCopy first(*session, load_topic(*session, "copy"), data.topic(), "all");
  first.give(*replay.next(2));
  CHECK(copy(*session, data.topic()) == Counts{20, 0});
  try {
    first.flush();
    FAIL("it was not refused");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::fenced);
  }
  CHECK(require_sound(*session) == 20);
}

TEST_CASE("a topic is not copied to itself, nor an event that its target does not take") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  fill(data, 1, 5);
  CHECK_THROWS_AS(TopicCopy(*session, data.topic(), data.topic(), "all"), Error);
  TopicSettings settings;
  settings.event_bytes_max = 100;
  create_topic(*session, "copy", RingDescription::uniform(1), settings);
  try {
    (void)copy(*session, data.topic());
    FAIL("it was taken");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    CHECK(error.message().find("partition 0, offset 0: the event has") != std::string::npos);
  }
}

TEST_CASE("what earlier runs were told is stored has to be there still") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  fill(data, 1, 20);
  make_target(*session);
  const auto copy_and_tell = [&](const CopiedTo& before) {
    Replay replay(*session, data.topic(), {});
    TopicCopy copy(*session, load_topic(*session, "copy"), data.topic(), "all");
    copy.go_on(before);
    while (const auto run = replay.next()) {
      copy.give(*run);
    }
    copy.flush();
    return copy.copied();
  };
  const auto kind_of_going_on = [&](const CopiedTo& before) {
    try {
      (void)copy_and_tell(before);
    } catch (const Error& error) {
      return error.kind();
    }
    return ErrorKind{0};
  };
  const CopiedTo told = copy_and_tell({});
  CHECK(told.topic == "copy");
  CHECK_FALSE(told.positions.empty());
  // Duplicates are what it has, too.
  CHECK(copy_and_tell({}).positions == told.positions);
  CHECK(copy_and_tell(told).positions == told.positions);
  resize_target(*session, 5);
  CHECK(copy_and_tell(told).positions == told.positions);

  CopiedTo more = told;
  more.positions.begin()->second = Position(1'000);
  CHECK(kind_of_going_on(more) == ErrorKind::loss);
  CopiedTo other = told;
  other.log_id = "other";
  CHECK(kind_of_going_on(other) == ErrorKind::loss);
  other.topic = "other";
  CHECK(kind_of_going_on(other) == ErrorKind::usage);
}

TEST_CASE("a target of which one partition refuses keeps what the others have stored, and goes on refusing") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  fill(data, 2, 100);
  make_target(*session);
  Replay replay(*session, data.topic(), {});
  TopicCopy refused(*session, load_topic(*session, "copy"), data.topic(), "all");
  while (const auto run = replay.next()) {
    refused.give(*run);
  }
  data.command("DEL", meta_key("copy", Partition(1)));
  CHECK_THROWS_AS(refused.flush(), Error);
  const std::uint64_t stored = refused.stored();
  CHECK(stored > 0);
  CHECK(stored < 100);
  CHECK_THROWS_AS(refused.flush(), Error);
  CHECK(refused.stored() == stored);
}

TEST_CASE("events that the target has lost are found, not stored behind a gap") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  fill(data, 1, 20);
  make_target(*session);
  Replay replay(*session, data.topic(), {});
  TopicCopy copy_of_all(*session, load_topic(*session, "copy"), data.topic(), "all");
  copy_of_all.give(*replay.next(4));
  copy_of_all.flush();
  // As a failover to a replica that had not got it.
  redis::Request keys;
  keys.command("KEYS", "continuum:{copy:*}:producer:*");
  const auto found = session->call(std::move(keys));
  for (std::size_t i = 0; i < found[0].size(); ++i) {
    data.command("HDEL", std::string(found[0][i].text()), "pos.1", "dig.1", "end.1");
  }
  copy_of_all.give(*replay.next(1));
  try {
    while (const auto run = replay.next()) {
      copy_of_all.give(*run);
    }
    copy_of_all.flush();
    FAIL("nothing was found");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::loss);
  }
}
