#include "redis/log_data.hpp"
#include "redis/server.hpp"

#include "continuum/event.hpp"
#include "continuum/replay.hpp"
#include "continuum/tail.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace continuum;
using test::event_line;
using test::LogData;
using test::RedisServer;

namespace {

std::string replayed(redis::Session& session, const Topic& topic, ReplayOptions options = {},
                     EventForm form = EventForm::stored) {
  Replay replay(session, topic, std::move(options));
  std::string out;
  while (const auto run = replay.next()) {
    append_events(out, *run, form);
  }
  return out;
}

std::string lines_of(const std::vector<std::string>& events) {
  std::string out;
  for (const std::string& event : events) {
    out += event + "\n";
  }
  return out;
}

// What a replay that must find loss says.
std::string loss_of(redis::Session& session, const Topic& topic, ReplayOptions options = {}) {
  try {
    (void)replayed(session, topic, std::move(options));
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::loss);
    return error.message();
  }
  return "nothing was reported";
}

void check_contains(const std::string& text, std::string_view part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
}

SystemTime time_of(const std::string& entry_id) {
  return SystemTime(Milliseconds(static_cast<std::int64_t>(EntryId::parse(entry_id)->milliseconds)));
}

// The server's clock moves on, so that the next entry has another time.
void pass_a_millisecond(LogData& data) {
  const auto now = [&] {
    const auto replies = data.command("TIME");
    return replies[0][0].number() * 1000 + replies[0][1].number() / 1000;
  };
  const auto begin = now();
  while (now() == begin) {
  }
}

std::vector<std::string> many_events(std::string_view prefix, std::size_t count) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < count; ++i) {
    out.push_back(event_line(fmt::format("{}{}", prefix, i), "k" + std::to_string(i % 7)));
  }
  return out;
}

ReplayOptions by_offset(std::uint64_t from, std::uint64_t to) {
  ReplayOptions options;
  options.partitions = {Partition(0)};
  options.range.from = Offset(from);
  options.range.to = Offset(to);
  return options;
}

}  // namespace

TEST_CASE("events come back byte for byte and in order, whatever their frames are") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  const auto plain = many_events("plain", 3);
  const auto compressed = many_events("zstd", 100);
  data.append(0, plain);
  data.append(0, compressed, Frames::automatic);
  data.append(0, {event_line("single", "k")});
  CHECK(replayed(*session, data.topic()) ==
        lines_of(plain) + lines_of(compressed) + lines_of({event_line("single", "k")}));
}

TEST_CASE("a topic without events replays to nothing") {
  const RedisServer server;
  const auto session = server.session();
  const LogData data(*session, 4);
  Replay replay(*session, data.topic(), {});
  CHECK(replay.events_in_range() == 0);
  CHECK_FALSE(replay.next());
}

TEST_CASE("partitions are merged in the order in which their entries were appended") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 3);
  std::string expected;
  for (std::uint32_t i = 0; i < 60; ++i) {
    const std::string line = event_line(std::to_string(i), "k");
    data.append((i * 7) % 3, {line});
    expected += line + "\n";
    pass_a_millisecond(data);
  }
  CHECK(replayed(*session, data.topic()) == expected);
}

TEST_CASE("a partition of many small entries is read in many answers without losing its place") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  std::string expected_first;
  for (std::uint32_t i = 0; i < 3000; ++i) {
    const std::string line = event_line(std::to_string(i), std::string(200, 'x'));
    data.append(0, {line});
    expected_first += line + "\n";
  }
  data.append(1, {event_line("other", "k")});
  ReplayOptions first;
  first.partitions = {Partition(0)};
  CHECK(replayed(*session, data.topic(), first) == expected_first);
  Replay both(*session, data.topic(), {});
  while (both.next()) {
  }
  CHECK(both.events_passed() == 3001);
}

TEST_CASE("a whole generation is replayed before the next one begins") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  data.append(0, {event_line("old0", "k")});
  data.seal(0, 2, "old");
  data.append(0, {event_line("new0", "k")}, Frames::plain, 2);
  pass_a_millisecond(data);
  data.append(1, {event_line("old1", "k")});
  data.seal(1, 2, "old");
  data.append(1, {event_line("new1", "k")}, Frames::plain, 2);
  data.topic().active = Generation(2);
  data.topic().rings.emplace(Generation(2), RingDescription::uniform(2));
  CHECK(replayed(*session, data.topic()) == lines_of({event_line("old0", "k"), event_line("old1", "k"),
                                                      event_line("new0", "k"), event_line("new1", "k")}));
}

TEST_CASE("a replay ends at the end that the logs had at its start") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, {event_line("before", "k")});
  Replay replay(*session, data.topic(), {});
  data.append(0, {event_line("after", "k")});
  const auto run = replay.next();
  REQUIRE(run);
  CHECK(run->lines == lines_of({event_line("before", "k")}));
  CHECK_FALSE(replay.next());
}

TEST_CASE("a range of offsets may begin and end inside of entries") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  const auto events = many_events("e", 40);
  for (std::size_t i = 0; i < 40; i += 10) {
    data.append(0, {events.begin() + static_cast<std::ptrdiff_t>(i),
                    events.begin() + static_cast<std::ptrdiff_t>(i + 10)});
    if (i == 10) {
      pass_a_millisecond(data);
    }
  }
  for (std::size_t from = 0; from <= 40; from += 1) {
    for (const std::size_t to : {from, from + 1, from + 9, from + 23, std::size_t{99}}) {
      CAPTURE(from);
      CAPTURE(to);
      const std::size_t end = std::min<std::size_t>(40, to);
      const std::vector<std::string> expected(
          events.begin() + static_cast<std::ptrdiff_t>(std::min(from, end)),
          events.begin() + static_cast<std::ptrdiff_t>(end));
      CHECK(replayed(*session, data.topic(), by_offset(from, to)) == lines_of(expected));
    }
  }
}

TEST_CASE("a range of times holds its begin and not its end") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  std::vector<std::string> ids;
  for (const char* id : {"a", "b", "c"}) {
    ids.push_back(data.append(0, {event_line(id, "k")}));
    pass_a_millisecond(data);
  }
  ReplayOptions options;
  options.range.since = time_of(ids[1]);
  CHECK(replayed(*session, data.topic(), options) == lines_of({event_line("b", "k"), event_line("c", "k")}));
  options.range.until = time_of(ids[2]);
  CHECK(replayed(*session, data.topic(), options) == lines_of({event_line("b", "k")}));
  options.range.since = std::nullopt;
  CHECK(replayed(*session, data.topic(), options) == lines_of({event_line("a", "k"), event_line("b", "k")}));
  options.range.until = time_of(ids[0]) - Milliseconds(60'000);
  CHECK(replayed(*session, data.topic(), options).empty());
  options = {};
  options.range.since = time_of(ids[2]) + Milliseconds(60'000);
  CHECK(replayed(*session, data.topic(), options).empty());
}

TEST_CASE("a key is read from its own partition of each generation, and compared by its bytes") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 8);
  const std::string key = "thread \\u00e9";  // as the line has it
  const Partition owner = Ring(data.topic().ring()).owner("thread é");
  data.append(owner.value, {event_line("1", key), event_line("2", "other"), event_line("3", key)});
  // In a partition that cannot have it, damage does not matter.
  data.command("XADD", data.log((owner.value + 1) % 8), "*", "foreign", "x");
  ReplayOptions options;
  options.filter.key = "thread é";
  CHECK(replayed(*session, data.topic(), options) == lines_of({event_line("1", key), event_line("3", key)}));
  options.filter.key = "thread e";
  options.partitions = {owner};
  CHECK(replayed(*session, data.topic(), options).empty());
}

TEST_CASE("types are chosen by patterns, and at most so many events come") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, {event_line("1", "k", "post.created"), event_line("2", "k", "post.deleted"),
                  event_line("3", "k", "user.created"), event_line("4", "k", "post.created")});
  ReplayOptions options;
  options.filter.types = {"post.*"};
  CHECK(replayed(*session, data.topic(), options) ==
        lines_of({event_line("1", "k", "post.created"), event_line("2", "k", "post.deleted"),
                  event_line("4", "k", "post.created")}));
  options.events_max = 1;
  CHECK(replayed(*session, data.topic(), options) == lines_of({event_line("1", "k", "post.created")}));
  options.filter.types = {"none", "*.created"};
  options.events_max = 2;
  CHECK(replayed(*session, data.topic(), options) ==
        lines_of({event_line("1", "k", "post.created"), event_line("3", "k", "user.created")}));
}

TEST_CASE("events are chosen by their values, strings by their characters and numbers by their text") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  const auto event = [](std::string_view payload) {
    return fmt::format(
        R"({{"specversion":"1.0","id":"1","source":"/t","type":"x","time":"2024-05-01T12:00:00Z","partitionkey":"k","data":{}}})",
        payload);
  };
  const std::vector<std::string> events{event(R"({"a":{"b":7},"u":"Caf\u00e9"})"),
                                        event(R"({"a":{"b":"7"}})"), event(R"({"a":{"b":7.0}})"),
                                        event(R"([{"b":true}])"), event(R"({"a":{"b":7,"b":7}})")};
  data.append(0, events);
  const auto chosen = [&](std::initializer_list<std::string_view> wheres) {
    ReplayOptions options;
    for (const std::string_view text : wheres) {
      options.filter.where.push_back(Where::parse(text));
    }
    return replayed(*session, data.topic(), options);
  };
  CHECK(chosen({"/data/a/b=7"}) == lines_of({events[0], events[1]}));
  CHECK(chosen({"/data/a/b=7", "/data/u=Café"}) == lines_of({events[0]}));
  CHECK(chosen({"/data/0/b=true"}) == lines_of({events[3]}));
  CHECK(chosen({"/data/u="}).empty());
  CHECK(chosen({"type=x", "id=1"}) == lines_of(events));
  CHECK_THROWS_AS((void)Where::parse("=7"), Error);
  CHECK_THROWS_AS((void)Where::parse("/data"), Error);
  CHECK_THROWS_AS((void)Where::parse("/a~2=7"), Error);
}

TEST_CASE("a range of the events' own times is taken out of the whole log") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  const auto event = [](std::string_view time) {
    return fmt::format(
        R"({{"specversion":"1.0","id":"1","source":"/t","type":"x","time":"{}","partitionkey":"k","data":1}})",
        time);
  };
  const std::vector<std::string> events{event("2024-05-03T00:00:00Z"), event("2024-05-01T00:00:00Z"),
                                        event("2024-05-02T02:00:00+02:00")};
  data.append(0, events);
  ReplayOptions options;
  options.range.by = RangeOptions::By::event_time;
  options.range.since = parse_time("2024-05-02T00:00:00Z");
  CHECK(replayed(*session, data.topic(), options) == lines_of({events[0], events[2]}));
  options.range.until = parse_time("2024-05-03T00:00:00Z");
  CHECK(replayed(*session, data.topic(), options) == lines_of({events[2]}));
  options.range.since = options.range.until;
  CHECK(replayed(*session, data.topic(), options).empty());

  // What was removed may have belonged to it, whenever that was stored: events have any time of their own.
  pass_a_millisecond(data);
  const SystemTime kept = time_of(data.append(0, {event("2024-05-03T00:00:00Z")}));
  data.command("XTRIM", data.log(0), "MAXLEN", 1);
  data.command("HSET", data.meta(0), "trimmed", 1);
  options.range.until = std::nullopt;
  for (const auto since : {*parse_time("2024-05-02T00:00:00Z"), kept + Milliseconds(1)}) {
    options.range.since = since;
    check_contains(loss_of(*session, data.topic(), options), "the log is kept from offset 3");
  }
  options.range.since = parse_time("2024-05-02T00:00:00Z");
  options.range.from = Offset(3);
  options.partitions = {Partition(0)};
  CHECK(replayed(*session, data.topic(), options) == lines_of({events[0]}));
}

TEST_CASE("a replay that is taken up where another one stopped gives every event once") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  for (int i = 0; i < 6; ++i) {
    data.append(static_cast<std::uint32_t>(i) % 2, many_events(fmt::format("e{}-", i), 7),
                i % 3 == 0 ? Frames::automatic : Frames::plain);
    pass_a_millisecond(data);
  }
  for (const bool filtered : {false, true}) {
    ReplayOptions options;
    if (filtered) {
      options.filter.where = {Where::parse("/partitionkey=k3"), Where::parse("/specversion=1.0")};
    }
    const std::string all = replayed(*session, data.topic(), options);
    for (std::uint64_t stop = 0; stop < 43; ++stop) {
      CAPTURE(stop);
      std::string out;
      ReplayOptions first = options;
      first.events_max = stop;
      Replay before(*session, data.topic(), first);
      while (const auto run = before.next(3)) {
        append_events(out, *run, EventForm::stored);
      }
      ReplayOptions rest = options;
      rest.range.resume = before.resume_at();
      out += replayed(*session, data.topic(), rest);
      CHECK(out == all);
    }
  }
}

TEST_CASE("what next() has returned last is not passed yet") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, many_events("a", 4));
  data.append(0, many_events("b", 4));
  Replay replay(*session, data.topic(), {});
  CHECK(replay.resume_at().places.at(Partition(0)).offset == Offset(0));
  for (const std::uint64_t passed : {0U, 3U, 4U, 7U}) {
    REQUIRE(replay.next(3));
    CHECK(replay.resume_at().places.at(Partition(0)).offset == Offset(passed));
  }
  REQUIRE_FALSE(replay.next(3));
  CHECK(replay.resume_at().places.at(Partition(0)).offset == Offset(8));
}

TEST_CASE("a replay that finds nothing for long says so, and can be taken up there") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  for (int i = 0; i < 10; ++i) {
    data.append(0, many_events("a", 5));
  }
  data.append(0, {event_line("last", "wanted")});
  ReplayOptions options;
  options.filter.where = {Where::parse("/partitionkey=wanted")};
  Replay replay(*session, data.topic(), options);
  for (const std::uint64_t passed : {10U, 20U, 30U}) {
    const auto run = replay.next(Replay::all, 10);
    REQUIRE(run);
    CHECK(run->events == 0);
    CHECK(replay.events_passed() == passed);
    CHECK(replay.resume_at().places.at(Partition(0)).offset == Offset(passed));
  }
  ReplayOptions rest = options;
  rest.range.resume = replay.resume_at();
  CHECK(replayed(*session, data.topic(), rest) == lines_of({event_line("last", "wanted")}));
  CHECK(replay.next()->events == 1);
  CHECK_FALSE(replay.next(Replay::all, 1));
}

TEST_CASE("taken up again, a replay begins with what was stored since, also in partitions that are new") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  ReplayOptions options;
  data.append(0, {event_line("1", "k")});
  Replay first(*session, data.topic(), {});
  while (first.next()) {
  }
  options.range.resume = first.resume_at();
  CHECK(replayed(*session, data.topic(), options).empty());
  data.append(0, {event_line("2", "k")});
  data.seal(0, 2, "old");
  data.seal(1, 2, "new");
  data.topic().active = Generation(2);
  data.topic().rings.emplace(Generation(2), RingDescription::uniform(2));
  data.append(1, {event_line("3", "k")}, Frames::plain, 2);
  CHECK(replayed(*session, data.topic(), options) == lines_of({event_line("2", "k"), event_line("3", "k")}));
}

TEST_CASE("taken up again before the time that its range begins at, a replay begins at that time") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  ReplayOptions options;
  data.append(0, {event_line("1", "k")});
  options.range.since = time_of(data.append(0, {event_line("2", "k")})) + Milliseconds(100);
  Replay first(*session, data.topic(), options);
  REQUIRE_FALSE(first.next());
  options.range.resume = first.resume_at();
  SystemTime time;
  do {
    time = time_of(data.append(0, {event_line("early", "k")}));
  } while (time + Milliseconds(20) < *options.range.since);
  CHECK(replayed(*session, data.topic(), options).empty());
  do {
    pass_a_millisecond(data);
    time = time_of(data.append(0, {event_line("late", "k")}));
  } while (time < *options.range.since);
  data.append(0, {event_line("last", "k")});
  const std::string out = replayed(*session, data.topic(), options);
  CHECK(out.find("early") == std::string::npos);
  CHECK(out.ends_with(lines_of({event_line("last", "k")})));

  // What was removed meanwhile was before it.
  const SystemTime later = time_of(data.append(0, {event_line("4", "k")})) + Milliseconds(3'600'000);
  options.range.since = later;
  CHECK(replayed(*session, data.topic(), options).empty());
  data.command("XTRIM", data.log(0), "MAXLEN", 0);
  data.command("HSET", data.meta(0), "trimmed", 1);
  CHECK(replayed(*session, data.topic(), options).empty());
}

TEST_CASE("taken up again, what is not there any more is loss") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, many_events("a", 5));
  ReplayOptions options;
  options.range.resume = ResumeAt{{{Partition(0), Cursor{Offset(3), EntryId()}}}, Generation(1)};
  CHECK(replayed(*session, data.topic(), options) ==
        lines_of({many_events("a", 5)[3], many_events("a", 5)[4]}));
  data.append(0, many_events("b", 5));
  data.command("XTRIM", data.log(0), "MAXLEN", 1);
  data.command("HSET", data.meta(0), "trimmed", 1);
  check_contains(loss_of(*session, data.topic(), options), "offsets 3 to 4 are no longer kept");
  options.range.resume->places[Partition(0)].offset = Offset(5);
  CHECK(replayed(*session, data.topic(), options) == lines_of(many_events("b", 5)));
  options.range.resume->places[Partition(0)].offset = Offset(11);
  check_contains(loss_of(*session, data.topic(), options), "the log ends at offset 10");
}

TEST_CASE("taken up again for a key that has moved, what its new partition has lost since is loss") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  const Partition before = Ring(data.topic().ring()).owner("k");
  const Partition after(1 - before.value);
  data.append(after.value, {event_line("other", "another")});
  ReplayOptions options;
  options.filter.key = "k";
  options.range.resume = ResumeAt{{{before, Cursor{Offset(0), EntryId()}}}, Generation(1)};
  // A ring of the other partition alone.
  RingDescription moved = data.topic().ring();
  std::erase_if(moved.members, [&](const auto& member) { return member.partition == before; });
  data.seal(0, 2, "old");
  data.seal(1, 2, "old");
  data.topic().active = Generation(2);
  data.topic().rings.emplace(Generation(2), moved);
  data.append(after.value, {event_line("moved", "k")}, Frames::plain, 2);
  CHECK(replayed(*session, data.topic(), options) == lines_of({event_line("moved", "k")}));
  SUBCASE("by hand") {
    data.command("XTRIM", data.log(after.value), "MAXLEN", 0);
  }
  SUBCASE("by a trim") {
    data.command("XTRIM", data.log(after.value), "MAXLEN", 0);
    data.command("HSET", data.meta(after.value), "trimmed", 2);
  }
  check_contains(loss_of(*session, data.topic(), options), "the cursor had not passed it");
}

TEST_CASE("no event of a generation comes while an older one may still grow") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  data.append(0, {event_line("old0", "k")});
  data.seal(0, 2, "old");
  data.append(0, {event_line("new0", "k")}, Frames::plain, 2);
  data.topic().active = Generation(2);
  data.topic().rings.emplace(Generation(2), RingDescription::uniform(2));
  // Partition 1 was seen before its seal: it may have got more since.
  data.append(1, {event_line("old1", "k")});
  Replay replay(*session, data.topic(), {});
  std::string out;
  while (const auto run = replay.next()) {
    append_events(out, *run, EventForm::stored);
  }
  CHECK(out == lines_of({event_line("old0", "k"), event_line("old1", "k")}));
  ReplayOptions options;
  options.range.resume = replay.resume_at();
  data.append(1, {event_line("late1", "k")});
  data.seal(1, 2, "old");
  CHECK(replayed(*session, data.topic(), options) ==
        lines_of({event_line("late1", "k"), event_line("new0", "k")}));
}

TEST_CASE("place and data are written as asked") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  data.append(1, {event_line("1", "k"), event_line("2", "k")});
  CHECK(replayed(*session, data.topic(), {}, EventForm::with_place) ==
        "{\"partition\":1,\"offset\":0," + event_line("1", "k").substr(1) + "\n" +
            "{\"partition\":1,\"offset\":1," + event_line("2", "k").substr(1) + "\n");
  CHECK(replayed(*session, data.topic(), {}, EventForm::data) == "{\"n\":\"1\"}\n{\"n\":\"2\"}\n");
}

TEST_CASE("options that contradict each other are refused before anything is read") {
  const RedisServer server;
  const auto session = server.session();
  const LogData data(*session, 2);
  const auto check_refused = [&](const ReplayOptions& options) {
    try {
      (void)replayed(*session, data.topic(), options);
      FAIL("the options were taken");
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::usage);
    }
  };
  ReplayOptions options;
  options.range.from = Offset(1);
  check_refused(options);  // no partition
  options.partitions = {Partition(0)};
  options.range.since = SystemTime(Milliseconds(5));
  check_refused(options);  // both
  options.range = {SystemTime(Milliseconds(5)), SystemTime(Milliseconds(4)), {}, {}};
  check_refused(options);
  options.range = {{}, {}, Offset(5), Offset(4)};
  check_refused(options);
  options.range = {};
  options.partitions = {Partition(2)};
  check_refused(options);
}

TEST_CASE("a log that was deleted by hand is loss") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  data.append(1, {event_line("1", "k")});
  data.command("DEL", data.log(1));
  check_contains(loss_of(*session, data.topic()),
                 "topic t, partition 1: the log continuum:{t:1}:log is gone");
  data.command("DEL", data.meta(1));
  check_contains(loss_of(*session, data.topic()),
                 "topic t, partition 1: the state continuum:{t:1}:meta is gone");
}

TEST_CASE("a log of another creation of the topic is not read") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, {event_line("1", "k")});
  data.command("HSET", data.meta(0), "id", "other");
  check_contains(loss_of(*session, data.topic()), "another creation of the topic");
}

TEST_CASE("a log that was cut by hand is loss, and what is left can be asked for") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  const auto first = time_of(data.append(0, many_events("a", 5)));
  pass_a_millisecond(data);
  data.append(0, many_events("b", 5));
  data.command("XTRIM", data.log(0), "MAXLEN", 1);
  check_contains(loss_of(*session, data.topic()), "topic t, partition 0: offsets 0 to 4 are gone");
  check_contains(loss_of(*session, data.topic(), by_offset(3, 9)), "offsets 3 to 4 are no longer kept");
  ReplayOptions since;
  since.range.since = first;
  check_contains(loss_of(*session, data.topic(), since), "the log is kept from offset 5");
  CHECK(replayed(*session, data.topic(), by_offset(5, 99)) == lines_of(many_events("b", 5)));
}

TEST_CASE("events that a trim removed are no loss unless their range is asked for") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, many_events("a", 5));
  data.append(0, many_events("b", 5));
  data.command("XTRIM", data.log(0), "MAXLEN", 1);
  data.command("HSET", data.meta(0), "trimmed", 1);  // as a trim that removes the first barrier records it
  CHECK(replayed(*session, data.topic()) == lines_of(many_events("b", 5)));
  check_contains(loss_of(*session, data.topic(), by_offset(0, 9)), "offsets 0 to 4 are no longer kept");
}

TEST_CASE("an entry that was deleted is loss of exactly its offsets, wherever it was") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  std::vector<std::string> ids;
  for (const char* name : {"a", "b", "c"}) {
    ids.push_back(data.append(0, many_events(name, 4)));
    pass_a_millisecond(data);
  }
  SUBCASE("in the middle") {
    data.command("XDEL", data.log(0), ids[1]);
    check_contains(loss_of(*session, data.topic()),
                   "topic t, partition 0: offsets 4 to 7 are not in the log");
    check_contains(loss_of(*session, data.topic(), by_offset(5, 6)), "offsets 4 to 7 are not in the log");
    CHECK(replayed(*session, data.topic(), by_offset(8, 12)) == lines_of(many_events("c", 4)));
    ReplayOptions range;
    range.range.since = time_of(ids[1]);
    check_contains(loss_of(*session, data.topic(), range), "offsets 4 to 7 are not in the log");
    range.range = {std::nullopt, time_of(ids[2]), {}, {}};
    check_contains(loss_of(*session, data.topic(), range), "offsets 4 to 7 are not in the log");
  }
  SUBCASE("at the end") {
    data.command("XDEL", data.log(0), ids[2]);
    check_contains(loss_of(*session, data.topic()), "offsets 8 to 11 are missing at the end of the log");
  }
  SUBCASE("at the beginning") {
    data.command("XDEL", data.log(0), ids[0]);
    check_contains(loss_of(*session, data.topic()), "offsets 0 to 3 are not in the log");
  }
}

TEST_CASE("an entry that is removed while we read is loss") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, many_events("a", 4));
  const auto id = data.append(0, many_events("b", 4));
  Replay replay(*session, data.topic(), {});
  data.command("XDEL", data.log(0), id);
  const auto run = replay.next();
  REQUIRE(run);
  CHECK(run->events == 4);
  CHECK_THROWS_AS((void)replay.next(), Error);
}

TEST_CASE("an entry that somebody else added is reported with its id") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, many_events("a", 4));
  data.command("XADD", data.log(0), "*", "message", "hello");
  check_contains(loss_of(*session, data.topic()), "is not one that Continuum wrote");
}

TEST_CASE("a flipped byte in a compressed frame is reported with partition, offsets and entry") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  FrameEncoder encoder;
  std::string frame(encoder.encode(lines_of(many_events("a", 100)), 100, Frames::automatic).bytes);
  frame[frame.size() / 2] = static_cast<char>(frame[frame.size() / 2] ^ 1);
  const auto add = [&](std::string_view bytes) {
    data.command("XADD", data.log(0), "9999999999999-1", "n", 100, "o", 0, "g", 1, "z", bytes);
    data.command("HSET", data.meta(0), "next", 100);
  };
  SUBCASE("flipped") {
    add(frame);
    check_contains(loss_of(*session, data.topic()),
                   "topic t, partition 0, offsets 0 to 99 (entry 9999999999999-1)");
  }
  SUBCASE("truncated") {
    add(std::string_view(frame).substr(0, frame.size() - 20));
    check_contains(loss_of(*session, data.topic()),
                   "topic t, partition 0, offsets 0 to 99 (entry 9999999999999-1)");
  }
}

TEST_CASE("the last events are the newest of all partitions, in replay order") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 3);
  std::vector<std::string> events;
  for (std::uint32_t i = 0; i < 50; ++i) {
    events.push_back(event_line(std::to_string(i), "k" + std::to_string(i % 5), i % 2 == 0 ? "even" : "odd"));
    data.append(i % 2, {events.back()});
    pass_a_millisecond(data);
  }
  const auto last = [&](const TailOptions& options) {
    std::string out;
    for (const SeenEvent& event : last_events(*session, data.topic(), options).events) {
      out += event.line + "\n";
    }
    return out;
  };
  TailOptions options;
  options.last = 3;
  CHECK(last(options) == lines_of({events[47], events[48], events[49]}));
  options.last = 1000;
  CHECK(last(options) == lines_of(events));
  options.last = 2;
  options.filter.types = {"even"};
  CHECK(last(options) == lines_of({events[46], events[48]}));
  options.partitions = {Partition(1), Partition(2)};
  CHECK(last(options).empty());
  options.last = 0;
  CHECK(last(options).empty());
}

TEST_CASE("the last events of a large compressed entry are its last lines") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  const auto events = many_events("e", 500);
  data.append(0, events, Frames::automatic);
  TailOptions options;
  options.last = 2;
  const Tail tail = last_events(*session, data.topic(), options);
  REQUIRE(tail.events.size() == 2);
  CHECK(tail.events[0].line == events[498]);
  CHECK(tail.events[0].offset == Offset(498));
  CHECK(tail.events[1].line == events[499]);
  CHECK(tail.ends.at(0).next == Offset(500));
}

TEST_CASE("reading backwards finds an entry that was deleted") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, many_events("a", 2));
  const auto id = data.append(0, many_events("b", 2));
  data.append(0, many_events("c", 2));
  data.command("XDEL", data.log(0), id);
  TailOptions options;
  options.last = 6;
  CHECK_THROWS_AS((void)last_events(*session, data.topic(), options), Error);
}

TEST_CASE("a follower gets what is appended, from where the last events ended") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  data.append(0, {event_line("before", "k")});
  const Tail tail = last_events(*session, data.topic(), {});
  Follower follower(*session, data.topic(), {}, {}, tail.ends);
  CHECK(follower.next(Milliseconds(1)).empty());
  data.append(1, {event_line("after", "k"), event_line("later", "k")});
  const auto events = follower.next(Milliseconds(10'000));
  REQUIRE(events.size() == 2);
  CHECK(events[0].line == event_line("after", "k"));
  CHECK(events[1].line == event_line("later", "k"));
  CHECK(events[1].partition == Partition(1));
  CHECK(events[1].offset == Offset(1));
}

TEST_CASE("a follower says that its log was replaced") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, {event_line("1", "k")});
  const Tail tail = last_events(*session, data.topic(), {});
  data.command("DEL", data.log(0));
  Follower follower(*session, data.topic(), {}, {}, tail.ends);
  CHECK_THROWS_AS((void)follower.next(Milliseconds(1)), Error);
}
