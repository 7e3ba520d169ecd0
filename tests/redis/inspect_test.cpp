#include "redis/log_data.hpp"
#include "redis/server.hpp"

#include "continuum/commit.hpp"
#include "continuum/inspect.hpp"
#include "continuum/lease.hpp"

#include <doctest/doctest.h>

#include <string>
#include <variant>
#include <vector>

using namespace continuum;
using test::event_line;
using test::LogData;
using test::RedisServer;

namespace {

constexpr std::string_view group = "g";

void join(redis::Session& session, LogData& data, const std::string& policy = "start") {
  register_group(session, data.topic(), group, policy);
}

// A worker takes the lease of the group on a partition.
Acquired acquire(redis::Session& session, std::uint32_t partition) {
  redis::Request request;
  request_acquire(request, group_key("t", Partition(partition), group),
                  {"owner-1", "host:17", Milliseconds(5000)}, std::nullopt);
  const auto replies = session.call(std::move(request));
  const auto acquired = parse_acquire(replies[0]);
  REQUIRE(std::holds_alternative<Acquired>(acquired));
  return std::get<Acquired>(acquired);
}

void commit(redis::Session& session, std::uint32_t partition, const Acquired& lease, const Cursor& cursor) {
  redis::Request request;
  request_commit(request, GroupKeys("t", Partition(partition), group), lease.fence, lease.number + 1,
                 {cursor, Generation(1), {}, {}, {}}, group);
  const auto replies = session.call(std::move(request));
  REQUIRE(parse_commit(replies[0]) == Kept::ok);
}

void renew(redis::Session& session, const LogData& data, std::uint32_t partition, const Acquired& lease,
           const Doing& doing) {
  redis::Request request;
  request_renew(request, group_key("t", Partition(partition), group), data.meta(partition), lease.fence,
                data.topic().log_id, doing);
  const auto replies = session.call(std::move(request));
  REQUIRE(parse_renew(replies[0]).kept == Kept::ok);
}

PartitionView look(redis::Session& session, const LogData& data, std::size_t partition = 0) {
  return inspect_topic(session, data.topic()).at(partition);
}

void check_contains(const std::string& text, std::string_view part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("a partition with only its barrier has no events and no newest one") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 3);
  join(*session, data);
  const auto views = inspect_topic(*session, data.topic());
  REQUIRE(views.size() == 3);
  for (std::uint32_t p = 0; p < 3; ++p) {
    CHECK(views[p].partition == Partition(p));
    CHECK(views[p].first == Offset(0));
    CHECK(views[p].next == Offset(0));
    CHECK(views[p].events() == 0);
    CHECK(views[p].log_bytes.value_or(0) > 0);
    CHECK_FALSE(views[p].newest);
    CHECK(views[p].loss.empty());
    REQUIRE(views[p].groups.size() == 1);
    CHECK(name_of(views[p].groups[0].motion) == "caught up");
  }
}

TEST_CASE("lag is counted in events, and its age is that of the first event that is not handled") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  join(*session, data);
  const std::string first = data.append(0, {event_line("1", "k"), event_line("2", "k")});
  data.append(0, {event_line("3", "k")});
  auto view = look(*session, data);
  CHECK(view.next == Offset(3));
  CHECK(view.newest);
  CHECK(view.groups[0].lag_events == 3);
  CHECK(name_of(view.groups[0].motion) == "no owner");

  const Acquired lease = acquire(*session, 0);
  commit(*session, 0, lease, {Offset(1), lease.cursor.entry});  // inside of the first entry
  view = look(*session, data);
  CHECK(view.groups[0].lag_events == 2);
  CHECK(view.groups[0].state.cursor.offset == Offset(1));
  CHECK(view.groups[0].state.fence == lease.fence);
  CHECK(view.groups[0].state.who == "host:17");
  CHECK(name_of(view.groups[0].motion) == "running");

  // An hour later by the clock of the entries: the age of the older one would show.
  data.command("XADD", data.log(0), "9999999999999-0", "n", 1, "o", 3, "g", 1, "e",
               event_line("4", "k") + "\n");
  data.command("HSET", data.meta(0), "next", 4);
  Acquired next = lease;
  ++next.number;
  commit(*session, 0, next, {Offset(3), *EntryId::parse(first)});
  CHECK(look(*session, data).groups[0].lag_events == 1);
}

TEST_CASE("the age of the lag looks past barriers, and of the newest event before them") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  join(*session, data);
  // An event of 1970 between barriers makes both ages visible. The log is built by hand for that.
  data.command("DEL", data.log(0));
  data.command("XADD", data.log(0), "1-0", "barrier", 1, "o", 0);
  data.command("XADD", data.log(0), "1000-0", "n", 1, "o", 0, "g", 1, "e", event_line("1", "k") + "\n");
  data.command("XADD", data.log(0), "2000-0", "barrier", 2, "o", 1);
  data.command("HSET", data.meta(0), "next", 1, "gen", 2);
  data.command("HSET", group_key("t", Partition(0), group), "entry", "0-0", "offset", 0);
  const auto view = look(*session, data);
  CHECK(view.loss.empty());
  REQUIRE(view.newest);
  CHECK(view.newest->time_since_epoch() == Milliseconds(1000));
  CHECK(view.newest_age == view.groups[0].lag);
  CHECK(view.groups[0].lag > std::chrono::hours(24 * 365 * 50));
}

TEST_CASE("what a worker says of itself is the state of its group") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  join(*session, data);
  data.append(0, {event_line("1", "k")});
  const Acquired lease = acquire(*session, 0);
  const auto motion = [&] { return name_of(look(*session, data).groups[0].motion); };
  CHECK(motion() == "running");
  renew(*session, data, 0, lease, {"retrying", "handler", Offset(0), {}, 2, "exit status 1"});
  CHECK(motion() == "retrying");
  CHECK(look(*session, data).groups[0].state.error == "exit status 1");
  renew(*session, data, 0, lease, {"halted", "handler", Offset(0), {}, 3, "exit status 1"});
  CHECK(motion() == "halted");
  redis::Request release;
  request_release(release, group_key("t", Partition(0), group), lease.fence);
  (void)session->call(std::move(release));
  CHECK(motion() == "halted");
  (void)acquire(*session, 0);
  CHECK(motion() == "running");
}

TEST_CASE("a topic of many partitions and groups is seen whole") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 150);
  for (const char* name : {"a", "b"}) {
    register_group(*session, data.topic(), name, "start");
  }
  for (std::uint32_t p = 0; p < 150; ++p) {
    data.append(p, {event_line("1", "k")});
  }
  const auto views = inspect_topic(*session, data.topic());
  REQUIRE(views.size() == 150);
  for (const PartitionView& view : views) {
    CHECK(view.events() == 1);
    REQUIRE(view.groups.size() == 2);
    CHECK(view.groups[1].group == "b");
    CHECK(view.groups[1].lag_events == 1);
  }
}

TEST_CASE("a log that was deleted is said, and the other partitions are still seen") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  join(*session, data);
  data.append(0, {event_line("1", "k")});
  data.append(1, {event_line("1", "k")});
  data.command("DEL", data.log(0));
  const auto views = inspect_topic(*session, data.topic());
  check_contains(views[0].loss, "topic t, partition 0: the log continuum:{t:0}:log is gone");
  CHECK(views[0].log_bytes == 0);
  CHECK(views[1].loss.empty());
  CHECK(views[1].events() == 1);
}

TEST_CASE("a log whose state was deleted, and one of another kind, are said") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 3);
  data.command("DEL", data.meta(0));
  data.command("DEL", data.log(1));
  data.command("SET", data.log(1), "text");
  data.command("HDEL", data.meta(2), "next");
  const auto views = inspect_topic(*session, data.topic());
  check_contains(views[0].loss, "the state continuum:{t:0}:meta is gone");
  check_contains(views[1].loss, "WRONGTYPE");
  check_contains(views[2].loss, "has no field \"next\"");
}

TEST_CASE("a log that was cut by hand is said, with the events that a group lost") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  join(*session, data);
  data.append(0, {event_line("1", "k"), event_line("2", "k")});
  data.append(0, {event_line("3", "k")});
  data.command("XTRIM", data.log(0), "MAXLEN", 1);
  const auto view = look(*session, data);
  CHECK(view.first == Offset(2));
  CHECK(view.events() == 1);
  check_contains(view.loss, "offsets 0 to 1 are gone");
  check_contains(view.groups[0].loss, "topic t, partition 0, group g: offsets 0 to 1 were removed");
}

TEST_CASE("a log that was cut by hand just before a later barrier is said") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, {event_line("1", "k")});
  data.seal(0, 2, "old");
  data.command("XTRIM", data.log(0), "MAXLEN", 1);
  check_contains(look(*session, data).loss, "offsets 0 to 0 are gone");
}

TEST_CASE("a log that is emptied by hand is said") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, {event_line("1", "k")});
  data.command("XTRIM", data.log(0), "MAXLEN", 0);
  check_contains(look(*session, data).loss, "offsets 0 to 0 are gone");
}

TEST_CASE("a trim that is recorded is no loss") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, {event_line("1", "k")});
  data.append(0, {event_line("2", "k")});
  data.command("XTRIM", data.log(0), "MAXLEN", 1);
  data.command("HSET", data.meta(0), "trimmed", 1);
  const auto view = look(*session, data);
  CHECK(view.loss.empty());
  CHECK(view.first == Offset(1));
}

TEST_CASE("a log that lost its end is said, also when a group was further") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  join(*session, data);
  data.append(0, {event_line("1", "k")});
  const std::string last = data.append(0, {event_line("2", "k")});
  const Acquired lease = acquire(*session, 0);
  commit(*session, 0, lease, {Offset(2), *EntryId::parse(last)});
  data.command("XDEL", data.log(0), last);
  check_contains(look(*session, data).loss, "offsets 1 to 1 are missing at the end of the log");
  // As after a failover: the log and its state are of an earlier moment, the group is not.
  data.command("HSET", data.meta(0), "next", 1);
  const auto view = look(*session, data);
  CHECK(view.loss.empty());
  check_contains(view.groups[0].loss, "it has handled events up to offset 2, but the log ends at 1");
}

TEST_CASE("a group whose state was deleted or damaged is said") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  join(*session, data);
  data.command("DEL", group_key("t", Partition(0), group));
  data.command("HSET", group_key("t", Partition(1), group), "offset", "many");
  const auto views = inspect_topic(*session, data.topic());
  check_contains(views[0].groups[0].loss, "group g: its state is gone");
  check_contains(views[1].groups[0].loss, "\"offset\"");
}

TEST_CASE("a group that is still being registered has everything before it, and lost nothing") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, {event_line("1", "k")});
  data.topic().groups.emplace(std::string(group), Topic::Group{"start", Generation(1)});
  const auto view = look(*session, data);
  REQUIRE(view.groups.size() == 1);
  CHECK(view.groups[0].loss.empty());
  CHECK(view.groups[0].lag_events == 1);
  CHECK(name_of(view.groups[0].motion) == "no owner");
}

TEST_CASE("a group that is on a partition and not in the topic is told apart from one registered just now") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  join(*session, data);
  register_group(*session, data.topic(), "late", "start");
  data.append(1, {event_line("1", "k"), event_line("2", "k")});
  data.command("HDEL", topic_key("t"), fmt::format("group:{}", group));
  data.command("HDEL", meta_key("t", Partition(0)), fmt::format("group:{}", group));
  Topic topic = load_topic(*session, "t");
  topic.groups.clear();  // as it was before the one came and the other went
  TrimGoal goal;
  goal.before = SystemTime(Milliseconds(std::int64_t{1} << 50));
  const auto views = inspect_topic(*session, topic, goal, Milliseconds(3'600'000));
  CHECK(views[0].orphans.empty());
  REQUIRE(views[1].orphans.size() == 1);
  CHECK(views[1].orphans[0].group == group);
  CHECK(views[1].orphans[0].lag_events == 2);
  CHECK(views[1].orphans[0].loss.empty());
  REQUIRE(views[1].retention->holders.size() == 1);
  CHECK(views[1].retention->holders[0].orphan);
  CHECK(views[1].retention->holders[0].since > SystemTime());
  CHECK(views[1].retention->until() == Offset(0));
}

TEST_CASE("as many partitions are enough as keep each busy for seven tenths of the time") {
  std::vector<PartitionView> views(4);
  const auto busy = [&](std::size_t partition, std::uint32_t permille, const std::string& owner) {
    GroupView view;
    view.group = group;
    view.state.owner = owner;
    view.state.busy_permille = permille;
    views[partition].groups = {view};
  };
  CHECK_FALSE(partitions_enough(views, group));
  busy(0, 0, "a");
  CHECK_FALSE(partitions_enough(views, group));  // nobody has said how busy it is
  busy(0, 700, "a");
  CHECK(partitions_enough(views, group) == 1);
  busy(1, 1, "a");
  CHECK(partitions_enough(views, group) == 2);
  busy(2, 1'000, "b");
  busy(3, 1'000, "");  // of a worker that is gone
  CHECK(partitions_enough(views, group) == 3);
  CHECK_FALSE(partitions_enough(views, "other"));
}
