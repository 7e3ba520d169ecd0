#include "redis/log_data.hpp"
#include "redis/server.hpp"

#include "continuum/replay_cursor.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <functional>
#include <string>

using namespace continuum;
using test::LogData;
using test::RedisServer;

namespace {

ReplayCursor::Options nightly(std::string selection = "all events",
                              Milliseconds lease = Milliseconds(60'000)) {
  return {"nightly", std::move(selection), "here:1", lease};
}

ResumeAt at(std::uint64_t offset) {
  return {{{Partition(0), Cursor{Offset(offset), EntryId{offset, 1}}}}, Generation(1)};
}

std::string data_of(redis::Session& session, std::string_view field) {
  redis::Request request;
  request.command("HGET", replay_cursor_key("t", "nightly"), field);
  return std::string(session.call(std::move(request))[0].text());
}

ErrorKind kind_of(const std::function<void()>& what) {
  try {
    what();
  } catch (const Error& error) {
    return error.kind();
  }
  return ErrorKind{0};
}

}  // namespace

TEST_CASE("a cursor is where it was moved to, and says of what it is one") {
  const RedisServer server;
  const auto session = server.session();
  const LogData data(*session, 2);
  {
    ReplayCursor cursor(*session, data.topic(), nightly());
    REQUIRE_FALSE(cursor.take(Milliseconds(0)));
    CHECK_FALSE(cursor.state().at);
    cursor.advance(at(3), 3);
    cursor.advance(at(7), 7);
  }
  ReplayCursor cursor(*session, data.topic(), nightly());
  REQUIRE_FALSE(cursor.take(Milliseconds(0)));
  REQUIRE(cursor.state().at);
  CHECK(cursor.state().at->places.at(Partition(0)).offset == Offset(7));
  CHECK(cursor.state().at->places.at(Partition(0)).entry == EntryId{7, 1});
  CHECK(cursor.state().at->generation == Generation(1));
  cursor.advance(at(9), 2);
  const auto all = list_replay_cursors(*session, data.topic());
  REQUIRE(all.size() == 1);
  CHECK(all[0].name == "nightly");
  CHECK(all[0].selection == "all events");
  CHECK(all[0].events == 9);
  CHECK(all[0].who == "here:1");
  CHECK(place_of_cursor(*session, data.topic(), "nightly", "all events")->places.at(Partition(0)).offset ==
        Offset(9));
  CHECK_FALSE(place_of_cursor(*session, data.topic(), "other", "all events"));
}

TEST_CASE("a cursor of another selection is refused, and left as it is") {
  const RedisServer server;
  const auto session = server.session();
  const LogData data(*session, 1);
  {
    ReplayCursor cursor(*session, data.topic(), nightly("--key a"));
    REQUIRE_FALSE(cursor.take(Milliseconds(0)));
    cursor.advance(at(0), 0);
  }
  ReplayCursor other(*session, data.topic(), nightly("--key b"));
  CHECK(kind_of([&] { (void)other.take(Milliseconds(0)); }) == ErrorKind::usage);
  CHECK(kind_of([&] { (void)place_of_cursor(*session, data.topic(), "nightly", "--key b"); }) ==
        ErrorKind::usage);
  CHECK(list_replay_cursors(*session, data.topic()).at(0).selection == "--key a");
}

TEST_CASE("a cursor that no run has moved is of no selection yet, and goes with its run") {
  const RedisServer server;
  const auto session = server.session();
  const auto other_session = server.session();
  const LogData data(*session, 1);
  {
    ReplayCursor cursor(*session, data.topic(), nightly("--key a"));
    REQUIRE_FALSE(cursor.take(Milliseconds(0)));
  }
  CHECK(list_replay_cursors(*session, data.topic()).empty());
  ReplayCursor killed(*session, data.topic(), nightly("--key a", Milliseconds(100)));
  REQUIRE_FALSE(killed.take(Milliseconds(0)));
  ReplayCursor next(*other_session, data.topic(), nightly("--key b"));
  REQUIRE_FALSE(next.take(Milliseconds(0)));
  next.advance(at(0), 0);
  CHECK(list_replay_cursors(*session, data.topic()).at(0).selection == "--key b");
}

TEST_CASE("one run at a time moves a cursor, and a run that lives is not waited for longer than asked") {
  const RedisServer server;
  const auto session = server.session();
  const auto other_session = server.session();
  const LogData data(*session, 1);
  ReplayCursor first(*session, data.topic(), nightly("all events", Milliseconds(1'000)));
  REQUIRE_FALSE(first.take(Milliseconds(0)));
  first.keep(server.session());
  ReplayCursor second(*other_session, data.topic(), nightly());
  CHECK(second.take(Milliseconds(0)) == "here:1");
  first.advance(at(1), 1);
  first.release();
  CHECK_FALSE(second.take(Milliseconds(0)));
}

TEST_CASE("the lease of a run that died is taken over when it has run out, and the dead run is refused") {
  const RedisServer server;
  const auto session = server.session();
  const auto other_session = server.session();
  const LogData data(*session, 1);
  ReplayCursor dead(*session, data.topic(), nightly("all events", Milliseconds(300)));
  REQUIRE_FALSE(dead.take(Milliseconds(0)));
  dead.advance(at(1), 1);
  const auto begin = std::chrono::steady_clock::now();
  ReplayCursor next(*other_session, data.topic(), nightly());
  CHECK_FALSE(next.take(Milliseconds(0)));
  CHECK(std::chrono::steady_clock::now() - begin >= Milliseconds(300));
  CHECK(next.state().at->places.at(Partition(0)).offset == Offset(1));
  CHECK(kind_of([&] { dead.advance(at(5), 5); }) == ErrorKind::fenced);
  CHECK(kind_of([&] { dead.require_ours(); }) == ErrorKind::fenced);
  next.advance(at(2), 1);
  CHECK(place_of_cursor(*session, data.topic(), "nightly", "all events")->places.at(Partition(0)).offset ==
        Offset(2));
}

TEST_CASE(
    "a run that was stopped for longer than its lease goes on only when nobody has taken the cursor over") {
  const RedisServer server;
  const auto session = server.session();
  const auto other_session = server.session();
  const LogData data(*session, 1);
  // Nothing keeps its lease, as while a process is stopped.
  ReplayCursor stopped(*session, data.topic(), nightly("all events", Milliseconds(1'000)));
  REQUIRE_FALSE(stopped.take(Milliseconds(0)));
  const auto beat = [&] { return data_of(*session, "beat"); };
  const std::string before = beat();
  stopped.require_ours();
  CHECK(beat() == before);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (beat() == before && std::chrono::steady_clock::now() < until) {
    stopped.require_ours();
  }
  CHECK(beat() != before);
  ReplayCursor next(*other_session, data.topic(), nightly());
  REQUIRE_FALSE(next.take(Milliseconds(0)));
  CHECK(kind_of([&] { stopped.require_ours(); }) == ErrorKind::fenced);
}

TEST_CASE("a cursor that was removed is not moved any more, and the next run begins anew") {
  const RedisServer server;
  const auto session = server.session();
  const LogData data(*session, 1);
  ReplayCursor gone(*session, data.topic(), {"gone", {}, "here:1"});
  CHECK(kind_of([&] { (void)gone.take(Milliseconds(0)); }) == ErrorKind::usage);
  std::uint64_t run = 0;
  {
    ReplayCursor cursor(*session, data.topic(), nightly());
    REQUIRE_FALSE(cursor.take(Milliseconds(0)));
    cursor.advance(at(4), 4);
    run = cursor.state().run;
    cursor.forget();
    CHECK(list_replay_cursors(*session, data.topic()).empty());
  }
  ReplayCursor cursor(*session, data.topic(), nightly("--key a"));
  REQUIRE_FALSE(cursor.take(Milliseconds(0)));
  CHECK_FALSE(cursor.state().at);
  CHECK(cursor.state().run > run);
}

TEST_CASE("a cursor remembers what its runs have stored in another topic") {
  const RedisServer server;
  const auto session = server.session();
  const LogData data(*session, 1);
  CopiedTo copied{"copy", "log", {{{Partition(0), Partition(3)}, Position(7)}}};
  {
    ReplayCursor cursor(*session, data.topic(), nightly());
    REQUIRE_FALSE(cursor.take(Milliseconds(0)));
    CHECK(cursor.state().copied.topic.empty());
    cursor.advance(at(6), 6, &copied);
    copied.positions[{Partition(0), Partition(3)}] = Position(9);
    copied.positions[{Partition(1), Partition(0)}] = Position(1);
    cursor.advance(at(9), 9, &copied);
  }
  ReplayCursor cursor(*session, data.topic(), nightly());
  REQUIRE_FALSE(cursor.take(Milliseconds(0)));
  CHECK(cursor.state().copied.topic == "copy");
  CHECK(cursor.state().copied.log_id == "log");
  CHECK(cursor.state().copied.positions == copied.positions);
}

TEST_CASE("a cursor that was changed by hand is reported and not believed") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  {
    ReplayCursor cursor(*session, data.topic(), nightly());
    REQUIRE_FALSE(cursor.take(Milliseconds(0)));
    cursor.advance(at(4), 4);
  }
  for (const char* text : {"", "4", "x 1-1", "4 1", "4  1-1", "99999999999999999999 1-1"}) {
    CAPTURE(text);
    data.command("HSET", replay_cursor_key("t", "nightly"), "at.0", text);
    CHECK_FALSE(list_replay_cursors(*session, data.topic()).at(0).damage.empty());
    CHECK(kind_of([&] { (void)place_of_cursor(*session, data.topic(), "nightly", "all events"); }) ==
          ErrorKind::loss);
    ReplayCursor cursor(*session, data.topic(), nightly());
    CHECK(kind_of([&] { (void)cursor.take(Milliseconds(0)); }) == ErrorKind::loss);
  }
  ReplayCursor any(*session, data.topic(), nightly(""));
  REQUIRE_FALSE(any.take(Milliseconds(0)));
  any.forget();
  CHECK(list_replay_cursors(*session, data.topic()).empty());
}

TEST_CASE("a topic that is dropped takes its cursors along") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  ReplayCursor cursor(*session, data.topic(), nightly());
  REQUIRE_FALSE(cursor.take(Milliseconds(0)));
  drop_topic(*session, "t");
  CHECK(kind_of([&] { cursor.advance(at(1), 1); }) == ErrorKind::loss);
  CHECK(data.command("EXISTS", replay_cursor_key("t", "nightly"))[0].integer() == 0);
}

TEST_CASE("a server that was flushed is loss, and nobody's lease") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  ReplayCursor cursor(*session, data.topic(), nightly());
  REQUIRE_FALSE(cursor.take(Milliseconds(0)));
  cursor.advance(at(1), 1);
  data.command("FLUSHALL");
  CHECK(kind_of([&] { cursor.advance(at(2), 1); }) == ErrorKind::loss);
  CHECK(kind_of([&] { cursor.require_ours(); }) == ErrorKind::loss);
}
