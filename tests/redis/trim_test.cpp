// G2: what a trim removes, and what it never removes.
#include "redis/work.hpp"

#include "continuum/audit.hpp"
#include "continuum/commit.hpp"
#include "continuum/group_control.hpp"
#include "continuum/group_seek.hpp"
#include "continuum/inspect.hpp"
#include "continuum/log_range.hpp"
#include "continuum/operator_lease.hpp"
#include "continuum/trim.hpp"
#include "continuum/why.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

using namespace continuum;
using test::await;
using test::event_line;
using test::kind_of;

namespace {

const auto on = [] { return true; };

TrimStand stand_of(const GroupState& state) {
  return {state.cursor.entry, state.run, state.moved};
}

// A topic with groups whose cursors the test moves, and entries whose times it chooses.
class Trimming {
 public:
  explicit Trimming(std::uint32_t partitions = 1, std::vector<std::string> options = {})
      : server_(std::move(options)), session_(server_.session()), data_(*session_, partitions) {}

  test::LogData& data() { return data_; }
  redis::Session& session() { return *session_; }
  test::RedisServer& server() { return server_; }

  void add_group(const std::string& name, const std::string& policy = "start") {
    register_group(*session_, data_.topic(), name, policy);
  }
  void append(std::uint64_t entries, std::size_t padding = 0) {
    for (std::uint64_t i = 0; i < entries; ++i) {
      ids_.push_back(
          data_.append(0, {event_line("e" + std::to_string(ids_.size()), std::string(padding + 1, 'k'))}));
    }
  }
  // One event an entry, with the time of the barrier and so much more. The times are those of days to come.
  void append_at(std::chrono::seconds later) {
    const auto ids = data_.command("XRANGE", data_.log(0), "-", "+", "COUNT", 1);
    begin_ = ids_.empty() ? EntryId::parse(ids[0][0][0].text())->milliseconds : begin_;
    const auto ms = begin_ + static_cast<std::uint64_t>(Milliseconds(later).count());
    ids_.push_back(fmt::format("{}-1", ms));
    data_.command("XADD", data_.log(0), ids_.back(), "n", 1, "o", ids_.size() - 1, "g", 1, "e",
                  event_line("e" + std::to_string(ids_.size()), "k") + "\n");
    data_.command("HINCRBY", data_.meta(0), "next", 1);
  }
  [[nodiscard]] SystemTime at(std::chrono::seconds later) const {
    return SystemTime(Milliseconds(static_cast<std::int64_t>(begin_))) + later;
  }
  // The group has passed so many entries of one event each.
  void pass(const std::string& group, std::uint64_t entries) {
    data_.command("HSET", key(group), "offset", entries, "entry",
                  entries == 0 ? "0-0" : ids_.at(entries - 1));
  }
  [[nodiscard]] TrimStand stand(const std::string& group) {
    return stand_of(*parse_group(data_.command("HGETALL", key(group))[0]));
  }
  [[nodiscard]] static std::string key(const std::string& group) {
    return group_key("t", Partition(0), group);
  }

  [[nodiscard]] LogEnds ends() {
    redis::Request request;
    request_ends(request, "t", Partition(0));
    const auto replies = session_->call(std::move(request));
    return parse_ends(replies[0], replies[1], "t", Partition(0), data_.topic().log_id);
  }
  [[nodiscard]] bool is_sound() {
    const LogEnds ends = this->ends();
    CHECK(ends.loss == "");
    CHECK(ends.head_loss == "");
    return ends.loss.empty() && ends.head_loss.empty();
  }
  // Everything that is not held.
  TrimResult trim_all(const std::vector<TrimGroup>& over = {}, TrimHead head = TrimHead::recorded) {
    TrimGoal goal;
    goal.before = SystemTime::max() - std::chrono::hours(24 * 365 * 1000);
    goal.before = SystemTime(Milliseconds(std::int64_t{1} << 50));
    return trim_log(*session_, data_.topic(), Partition(0), goal, over, head, on);
  }
  TrimResult trim_before(SystemTime before) {
    TrimGoal goal;
    goal.before = before;
    return trim_log(*session_, data_.topic(), Partition(0), goal, {}, TrimHead::recorded, on);
  }
  [[nodiscard]] std::uint64_t entries() { return data_.command("XLEN", data_.log(0))[0].number(); }

 private:
  test::RedisServer server_;
  std::unique_ptr<redis::Session> session_;
  test::LogData data_;
  std::vector<std::string> ids_;
  std::uint64_t begin_ = 0;
};

// That does not wait until a full server is not full any more.
std::unique_ptr<redis::Session> impatient(const std::string& url) {
  redis::ClientOptions options;
  options.needs.access = redis::Needs::Access::write;
  options.patience = Milliseconds(100);
  return std::make_unique<redis::Session>(redis::Address::parse(url), options);
}

}  // namespace

TEST_SUITE("trim") {
  TEST_CASE("nothing goes that a group or the archive has not passed, whatever is wanted") {
    Trimming trimming;
    trimming.add_group("a");
    trimming.add_group("b");
    trimming.add_group("archive");
    trimming.append(10);
    CHECK(trimming.trim_all().entries == 0);
    trimming.pass("a", 10);
    trimming.pass("b", 7);
    CHECK(trimming.trim_all().entries == 0);
    trimming.pass("archive", 4);
    const TrimResult four = trimming.trim_all();
    CHECK(four.entries == 5);  // and the barrier
    CHECK(four.first == Offset(4));
    REQUIRE(four.holder);
    CHECK(four.holder->group == "archive");
    trimming.pass("archive", 9);
    const TrimResult seven = trimming.trim_all();
    CHECK(seven.first == Offset(7));
    REQUIRE(seven.holder);
    CHECK(seven.holder->group == "b");
    CHECK(trimming.entries() == 3);
    CHECK(trimming.is_sound());
  }

  TEST_CASE("an entry stays whole while a group stands inside of it") {
    Trimming trimming;
    trimming.add_group("a");
    trimming.append(1);
    const std::string id = trimming.data().append(0, {event_line("x", "k"), event_line("y", "k")});
    trimming.pass("a", 1);
    trimming.data().command("HSET", Trimming::key("a"), "offset", 2);
    CHECK(trimming.trim_all().first == Offset(1));
    trimming.data().command("HSET", Trimming::key("a"), "offset", 3, "entry", id);
    CHECK(trimming.trim_all().first == Offset(3));
  }

  TEST_CASE("only what is older than the time goes") {
    Trimming trimming;
    trimming.add_group("a");
    for (int day = 1; day <= 6; ++day) {
      trimming.append_at(std::chrono::hours(24 * day));
    }
    trimming.pass("a", 6);
    const TrimResult result = trimming.trim_before(trimming.at(std::chrono::hours(24 * 4)));
    CHECK(result.first == Offset(3));
    CHECK_FALSE(result.holder);
    CHECK(trimming.trim_before(trimming.at(std::chrono::hours(24 * 4))).entries == 0);
  }

  TEST_CASE("a log that is larger than it may be is made smaller, and not much smaller") {
    Trimming trimming;
    trimming.add_group("a");
    trimming.append(40, 50'000);
    const auto bytes = [&] {
      return trimming.data().command("MEMORY", "USAGE", trimming.data().log(0), "SAMPLES", 0)[0].number();
    };
    REQUIRE(bytes() > 2'000'000);
    TrimGoal goal;
    goal.bytes_max = 1'000'000;
    const auto trim = [&] {
      return trim_log(trimming.session(), trimming.data().topic(), Partition(0), goal, {}, TrimHead::recorded,
                      on);
    };
    CHECK(trim().holder);
    CHECK(trimming.entries() == 41);
    trimming.pass("a", 40);
    CHECK_FALSE(trim().holder);
    CHECK(bytes() <= 1'000'000);
    CHECK(bytes() >= 800'000);
    CHECK(trim().entries == 0);
  }

  TEST_CASE("a log of large entries and then many small ones is as large for inspect as for a trim") {
    Trimming trimming;
    trimming.append(6, 100'000);
    trimming.append(300, 3'000);
    const std::uint64_t bytes =
        trimming.data().command("MEMORY", "USAGE", trimming.data().log(0), "SAMPLES", 0)[0].number();
    TrimGoal goal;
    goal.bytes_max = bytes + bytes / 10;
    const auto view =
        inspect_topic(trimming.session(), trimming.data().topic(), goal, Milliseconds(1'000)).front();
    CHECK(view.log_bytes == bytes);
    CHECK(view.retention->wanted == Offset(0));
    CHECK(
        trim_log(trimming.session(), trimming.data().topic(), Partition(0), goal, {}, TrimHead::recorded, on)
            .entries == 0);
  }

  TEST_CASE("without a group everything goes that is wanted") {
    Trimming trimming;
    trimming.append(5);
    CHECK(trimming.trim_all().entries == 6);
  }

  TEST_CASE("steps are short, and a trim that ends between two of them leaves a sound log") {
    Trimming trimming;
    trimming.append(3'000);
    int steps = 0;
    TrimGoal goal;
    goal.before = SystemTime(Milliseconds(std::int64_t{1} << 50));
    const TrimResult some = trim_log(trimming.session(), trimming.data().topic(), Partition(0), goal, {},
                                     TrimHead::recorded, [&] { return ++steps < 2; });
    CHECK(steps == 2);
    CHECK(some.entries == 400);
    CHECK(some.first == Offset(399));
    CHECK(trimming.is_sound());
    CHECK(trimming.trim_all().entries == 2'601);
  }

  TEST_CASE("of large entries a step takes few") {
    Trimming trimming;
    trimming.append(30, 200'000);
    int steps = 0;
    TrimGoal goal;
    goal.before = SystemTime(Milliseconds(std::int64_t{1} << 50));
    (void)trim_log(trimming.session(), trimming.data().topic(), Partition(0), goal, {}, TrimHead::recorded,
                   [&] {
                     ++steps;
                     return true;
                   });
    CHECK(steps >= 4);
    CHECK(trimming.entries() == 0);
  }

  TEST_CASE("large entries behind many small ones go one in a step") {
    Trimming trimming;
    trimming.append(113);
    trimming.append(10, 1'100'000);
    TrimGoal goal;
    goal.before = SystemTime(Milliseconds(std::int64_t{1} << 50));
    const auto step = [&] {
      return trim_log(trimming.session(), trimming.data().topic(), Partition(0), goal, {}, TrimHead::recorded,
                      [] { return false; })
          .entries;
    };
    CHECK(step() == 115);  // and the barrier
    CHECK(step() == 1);
  }

  TEST_CASE("a log whose head was removed by hand is taken as it is, also when nothing else goes") {
    Trimming trimming;
    trimming.append(10);
    TrimGoal goal;
    goal.before = SystemTime(Milliseconds(1));
    std::uint64_t first = 5;
    SUBCASE("a part of it") {
      trimming.data().command("XTRIM", trimming.data().log(0), "MAXLEN", 5);
    }
    SUBCASE("up to a barrier") {
      trimming.data().seal(0, 2, "age");
      trimming.data().append(0, {event_line("x", "k")}, Frames::plain, 2);
      trimming.data().command("XTRIM", trimming.data().log(0), "MAXLEN", 2);
      first = 10;
    }
    SUBCASE("all of it") {
      trimming.data().command("XTRIM", trimming.data().log(0), "MAXLEN", 0);
      first = 10;
    }
    CHECK(trimming.ends().head_loss != "");
    const TrimResult taken =
        trim_log(trimming.session(), trimming.data().topic(), Partition(0), goal, {}, TrimHead::any, on);
    CHECK(taken.entries == 0);
    CHECK(taken.first == Offset(first));
    CHECK(trimming.is_sound());
    CHECK(trimming.trim_before(SystemTime(Milliseconds(1))).entries == 0);
  }

  TEST_CASE("nothing goes by settings that were read a while ago") {
    Trimming trimming;
    trimming.append(5);
    TopicSettings settings;
    apply_setting(settings, "retention=1ms");
    const auto now = trimming.data().command("TIME");
    const SystemTime time(Milliseconds(now[0][0].integer() * 1000));
    TrimGoal goal = goal_of(settings, time + std::chrono::hours(1));
    goal.read = time - std::chrono::seconds(2);
    const auto trim = [&] {
      return trim_log(trimming.session(), trimming.data().topic(), Partition(0), goal, {}, TrimHead::recorded,
                      on);
    };
    TrimResult result = trim();
    CHECK(result.goal_is_old);
    CHECK(result.entries == 0);
    goal.read = time + std::chrono::seconds(1);
    result = trim();
    CHECK_FALSE(result.goal_is_old);
    CHECK(result.entries == 6);
  }

  TEST_CASE("a trimmer that does not know a group of the partition removes nothing") {
    Trimming trimming;
    trimming.append(5);
    const Topic old = trimming.data().topic();
    trimming.add_group("late");  // from the start, while the trimmer slept
    TrimGoal goal;
    goal.before = SystemTime(Milliseconds(std::int64_t{1} << 50));
    redis::Request request;
    request_trim(request, old, Partition(0), {}, goal, TrimHead::recorded);
    const auto answer = parse_trim(trimming.session().call(std::move(request))[0]);
    const auto* groups = std::get_if<TrimGroups>(&answer);
    REQUIRE(groups != nullptr);
    CHECK(groups->registered == std::vector<std::string>{"late"});
    CHECK(trimming.entries() == 6);
    // Nor does a whole trim that begins with what it knew.
    const TrimResult result =
        trim_log(trimming.session(), old, Partition(0), goal, {}, TrimHead::recorded, on);
    CHECK(result.entries == 0);
    REQUIRE(result.holder);
    CHECK(result.holder->group == "late");
  }

  TEST_CASE("a group that is in the topic and not on the partition yet is registered before anything goes") {
    Trimming trimming;
    trimming.add_group("a");
    trimming.append(5);
    trimming.pass("a", 5);
    trimming.data().command("HSET", topic_key("t"), "group:half", "start 1");
    const Topic topic = load_topic(trimming.session(), "t");
    TrimGoal goal;
    goal.before = SystemTime(Milliseconds(std::int64_t{1} << 50));
    const TrimResult result =
        trim_log(trimming.session(), topic, Partition(0), goal, {}, TrimHead::recorded, on);
    CHECK(result.entries == 0);
    CHECK(trimming.data().command("HGET", Trimming::key("half"), "offset")[0].text() == "0");
  }

  TEST_CASE(
      "a group whose forgetting was killed half way still holds the log, and one whose state is gone does") {
    Trimming trimming;
    trimming.add_group("a");
    trimming.append(5);
    SUBCASE("not in the topic any more") {
      trimming.data().command("HDEL", topic_key("t"), "group:a");
      trimming.data().topic() = load_topic(trimming.session(), "t");
    }
    SUBCASE("its state was deleted") {
      trimming.data().command("DEL", Trimming::key("a"));
    }
    const TrimResult result = trimming.trim_all();
    CHECK(result.entries == 0);
    REQUIRE(result.holder);
    CHECK(result.holder->group == "a");
  }

  TEST_CASE("a log that was trimmed until nothing is left goes on where it was, also after a restart") {
    Trimming trimming;
    trimming.add_group("a");
    trimming.append(5);
    trimming.pass("a", 5);
    CHECK(trimming.trim_all().entries == 6);
    CHECK(trimming.entries() == 0);
    CHECK(trimming.is_sound());
    trimming.server().kill();
    trimming.server().start();
    const auto session = trimming.server().session();
    test::LogData& data = trimming.data();
    redis::Request request;
    request_ends(request, "t", Partition(0));
    const auto replies = session->call(std::move(request));
    LogEnds ends = parse_ends(replies[0], replies[1], "t", Partition(0), data.topic().log_id);
    CHECK(ends.loss == "");
    CHECK(ends.head_loss == "");
    CHECK(ends.first() == Offset(5));
    CHECK(ends.last_id == ends.state.trimmed_entry);
    CHECK(stored_events(*session, data.topic()).front().first == Offset(5));
    // Groups begin there.
    for (const std::string policy : {"start", "end"}) {
      register_group(*session, data.topic(), policy, policy);
      redis::Request ask;
      ask.command("HMGET", Trimming::key(policy), "offset", "from");
      const auto got = session->call(std::move(ask));
      CHECK(got[0][0].text() == "5");
      CHECK(got[0][1].text() == "1");
    }
  }

  TEST_CASE("events that come into a log that was emptied are handled") {
    test::Work work;
    work.handle("cat >>$OUT");
    work.data().append(0, {event_line("e1", "k")});
    (void)work.run();
    TrimGoal goal;
    goal.before = SystemTime(Milliseconds(std::int64_t{1} << 50));
    const auto session = work.session();
    CHECK(trim_log(*session, work.data().topic(), Partition(0), goal, {}, TrimHead::recorded, on).entries ==
          2);
    CHECK(work.run().handled == 0);
    work.data().append(0, {event_line("e2", "k")});
    CHECK(work.run().handled == 1);
    CHECK(work.state().cursor.offset == Offset(2));
  }

  TEST_CASE(
      "the last barrier that was removed is remembered, and a group that starts at the head is told it") {
    Trimming trimming;
    trimming.append(2);
    trimming.data().seal(0, 4, "old");
    trimming.data().append(0, {event_line("x", "k")}, Frames::plain, 4);
    const auto ids = trimming.data().command("XRANGE", trimming.data().log(0), "-", "+");
    trimming.add_group("a");
    const auto trimmed_to = [&](std::uint64_t offset, std::size_t entry) {
      trimming.data().command("HSET", Trimming::key("a"), "offset", offset, "entry", ids[0][entry][0].text());
      (void)trimming.trim_all();
      return trimming.data().command("HGET", trimming.data().meta(0), "trimmed")[0].number();
    };
    CHECK(trimmed_to(2, 2) == 1);
    CHECK(trimming.is_sound());  // a barrier at its head
    CHECK(trimmed_to(2, 3) == 4);
    CHECK(trimming.is_sound());
    trimming.add_group("b");
    CHECK(trimming.data().command("HGET", Trimming::key("b"), "from")[0].text() == "4");
  }

  TEST_CASE("a group is passed over only where it was seen to stand") {
    Trimming trimming;
    trimming.add_group("a");
    trimming.add_group("b");
    trimming.append(10);
    trimming.pass("a", 10);
    trimming.pass("b", 2);
    const std::vector<TrimGroup> over{{"b", trimming.stand("b")}};
    trimming.pass("b", 3);  // it goes on
    const TrimResult held = trimming.trim_all(over);
    CHECK(held.first == Offset(3));
    CHECK(held.holder);
    trimming.pass("b", 2);
    CHECK(trimming.trim_all(over).first == Offset(10));
  }

  TEST_CASE("a group that was registered since somebody looked is not passed over, wherever it stands") {
    Trimming trimming;
    trimming.append(10);
    trimming.add_group("b");
    trimming.pass("b", 0);
    TrimGroup seen{"b", trimming.stand("b")};
    SUBCASE("forgotten and registered again") {
      forget_group(trimming.session(), trimming.data().topic(), "b", "test");
      trimming.data().topic() = load_topic(trimming.session(), "t");
      trimming.add_group("b");
      trimming.pass("b", 0);
    }
    SUBCASE("it was in the topic, and not on the partition yet") {
      seen.pass_at = TrimStand{EntryId{}, 1, SystemTime()};
    }
    SUBCASE("somebody moved it and it came back") {
      trimming.data().command("HINCRBY", Trimming::key("b"), "run", 1);
    }
    const TrimResult held = trimming.trim_all({seen});
    CHECK(held.entries == 0);
    CHECK(held.holder);
    CHECK(trimming.trim_all({TrimGroup{"b", trimming.stand("b")}}).first == Offset(10));
  }

  TEST_CASE("a worker whose group was trimmed over says which events it lost, and goes on after a seek") {
    test::Work work;
    work.handle("cat >>$OUT");
    for (int i = 0; i < 6; ++i) {
      work.data().append(0, {event_line("e" + std::to_string(i), "k")});
    }
    work.options().events_max = 2;
    CHECK(work.run().handled == 2);
    work.options().events_max.reset();
    const auto session = work.session();
    TrimGoal goal;
    std::uint64_t left = 4;
    SUBCASE("a part of the log") {
      // Up to but without the fifth.
      const auto ids = work.data().command("XRANGE", work.data().log(0), "-", "+");
      register_group(*session, work.data().topic(), "h", "start");
      work.data().command("HSET", group_key("t", Partition(0), "h"), "offset", 4, "entry",
                          ids[0][4][0].text());
      left = 2;
    }
    SUBCASE("all of it") {
      left = 0;
    }
    goal.before = SystemTime(Milliseconds(std::int64_t{1} << 50));
    (void)trim_log(*session, work.data().topic(), Partition(0), goal,
                   {TrimGroup{"g", stand_of(work.state())}}, TrimHead::recorded, on);
    if (left == 0) {
      work.data().append(0, {event_line("new", "k")});
      left = 1;
    }
    std::string message;
    CHECK(kind_of([&] { (void)work.run(); }, &message) == ErrorKind::loss);
    CHECK_MESSAGE(message.find("offsets 2 to ") != std::string::npos, message);
    const std::vector<Partition> all{Partition(0)};
    SeekTarget target;
    target.to = SeekTarget::To::start;
    (void)seek(*session, work.data().topic(), "g", all, target, "test");
    CHECK(work.run().handled == left);
  }

  TEST_CASE("a log whose head somebody removed by hand is not trimmed until that is accepted") {
    Trimming trimming;
    trimming.append(10);
    SUBCASE("before any trim") {}
    SUBCASE("after a trim") {
      trimming.add_group("a");
      trimming.pass("a", 3);
      CHECK(trimming.trim_all().first == Offset(3));
      trimming.pass("a", 10);
    }
    trimming.data().command("XTRIM", trimming.data().log(0), "MAXLEN", 5);
    CHECK(trimming.ends().head_loss.find("offsets") != std::string::npos);
    std::string message;
    CHECK(kind_of([&] { (void)trimming.trim_all(); }, &message) == ErrorKind::loss);
    CHECK(message.find("begins at offset 5") != std::string::npos);
    CHECK(trimming.entries() == 5);
    CHECK(trimming.trim_all({}, TrimHead::any).entries == 5);
    CHECK(trimming.is_sound());
  }

  TEST_CASE("a full server can be trimmed") {
    Trimming trimming(1, {"--maxmemory", "8mb", "--maxmemory-policy", "noeviction"});
    trimming.append(20, 100'000);
    trimming.data().command("CONFIG", "SET", "maxmemory", "1mb");
    CHECK(trimming.trim_all().entries == 21);
  }

  TEST_CASE("a full server on which a group is not registered everywhere is not waited for") {
    Trimming trimming(1, {"--maxmemory-policy", "noeviction"});
    trimming.append(20, 100'000);
    trimming.data().command("HSET", topic_key("t"), "group:half", "start 1");
    trimming.data().topic() = load_topic(trimming.session(), "t");
    trimming.data().command("CONFIG", "SET", "maxmemory", "1mb");
    std::string message;
    CHECK(kind_of([&] { (void)trimming.trim_all(); }, &message) == ErrorKind::server);
    CHECK(message.find("the server is full") != std::string::npos);
    CHECK(trimming.entries() == 21);
  }

  TEST_CASE("a full server takes the audit of what makes room, and forgets a group") {
    Trimming trimming;
    trimming.add_group("a");
    trimming.append(3);
    trimming.data().topic() = load_topic(trimming.session(), "t");
    trimming.data().command("CONFIG", "SET", "maxmemory", 1);
    const auto session = impatient(trimming.server().url());
    write_audit(*session, "t", {{}, AuditEntry::Step::begun, "me", "trim", std::string(5'000, 'x'), "all"});
    const auto audit = read_audit(*session, "t", 10);
    REQUIRE(audit.size() == 1);
    CHECK(audit.front().what == "trim");
    CHECK(audit.front().why.size() == 1'000);
    forget_group(*session, trimming.data().topic(), "a", "test");
    CHECK_FALSE(load_topic(*session, "t").groups.contains("a"));
    CHECK(trimming.data().command("EXISTS", Trimming::key("a"))[0].integer() == 0);
    CHECK(trimming.trim_all().entries == 4);
  }

  TEST_CASE("a seek on a full server moves the group") {
    Trimming trimming;
    trimming.add_group("a");
    trimming.append(3);
    const Topic topic = load_topic(trimming.session(), "t");
    trimming.data().command("CONFIG", "SET", "maxmemory", 1);
    const auto session = impatient(trimming.server().url());
    const std::vector<Partition> all{Partition(0)};
    for (const auto& [to, offset] :
         {std::pair(SeekTarget::To::end, Offset(3)), std::pair(SeekTarget::To::start, Offset(0))}) {
      SeekTarget target;
      target.to = to;
      CHECK(plan_seek(*session, topic, "a", all, target).moves.front().to.offset == offset);
      (void)seek(*session, topic, "a", all, target, "test");
      CHECK(group_states(*session, topic, "a", all).front()->cursor.offset == offset);
    }
    SeekTarget target;
    target.to = SeekTarget::To::offsets;
    target.offsets[Partition(0)] = Offset(1);
    (void)seek(*session, topic, "a", all, target, "test");
    CHECK(group_states(*session, topic, "a", all).front()->cursor.offset == Offset(1));
  }

  TEST_CASE("a full server says what its logs have, and in which range of time") {
    Trimming trimming;
    trimming.append(3);
    trimming.data().command("CONFIG", "SET", "maxmemory", 1);
    const auto session = impatient(trimming.server().url());
    RangeOptions options;
    options.since = SystemTime(Milliseconds(1));
    options.until = SystemTime(Milliseconds(std::int64_t{1} << 50));
    const LogRange range = find_ranges(*session, trimming.data().topic(), {Partition(0)}, options).front();
    CHECK(range.from == Offset(0));
    CHECK(range.stop == Offset(3));
  }

  TEST_CASE("a worker of a group that is registered everywhere starts on a full server, and handles events") {
    test::Work work(2);
    work.handle("cat >/dev/null");
    work.data().append(0, {event_line("e1", "k")});
    work.data().append(1, {event_line("e2", "k")});
    work.data().command("CONFIG", "SET", "maxmemory", 1);
    const auto session = impatient(work.url());
    register_group(*session, work.data().topic(), "g", std::nullopt);
    CHECK(work.run().handled == 2);
    // One that has to grow is still refused.
    CHECK(kind_of([&] { register_group(*session, work.data().topic(), "new", "start"); }) ==
          ErrorKind::server);
  }

  TEST_CASE("a time before which all was removed is still kept, and one that was cut is not") {
    Trimming trimming;
    trimming.add_group("a");
    for (int day = 1; day <= 6; ++day) {
      trimming.append_at(std::chrono::hours(24 * day));
    }
    trimming.pass("a", 3);
    CHECK(trimming.trim_all().first == Offset(3));
    RangeOptions range;
    // Between the newest that was removed and the oldest that is there.
    range.since = trimming.at(std::chrono::hours(24 * 3 + 1));
    const auto found = find_ranges(trimming.session(), trimming.data().topic(), {Partition(0)}, range);
    CHECK(found.front().from == Offset(3));
    CHECK(found.front().events() == 3);
    range.since = trimming.at(std::chrono::hours(24 * 3));
    CHECK(kind_of([&] {
            (void)find_ranges(trimming.session(), trimming.data().topic(), {Partition(0)}, range);
          }) == ErrorKind::loss);
    // Also when nothing is left.
    trimming.pass("a", 6);
    CHECK(trimming.trim_all().first == Offset(6));
    range.since = trimming.at(std::chrono::hours(24 * 6 + 1));
    CHECK(find_ranges(trimming.session(), trimming.data().topic(), {Partition(0)}, range).front().events() ==
          0);
    range.since = trimming.at(std::chrono::hours(24 * 6));
    CHECK(kind_of([&] {
            (void)find_ranges(trimming.session(), trimming.data().topic(), {Partition(0)}, range);
          }) == ErrorKind::loss);
  }

  TEST_CASE("a seek to what was trimmed a moment ago is refused") {
    Trimming trimming;
    trimming.add_group("a");
    trimming.append(5);
    trimming.pass("a", 3);
    (void)trimming.trim_all();
    OperatorLeases leases(trimming.session(), trimming.data().topic(), "a", "test");
    const std::vector<Partition> all{Partition(0)};
    (void)leases.take_all(all);
    const auto try_seek = [&](std::uint64_t offset) {
      redis::Request request;
      const GroupKeys keys("t", Partition(0), "a");
      request.run(redis::Script::seek, {keys.group, keys.log, keys.dead, keys.held, keys.outbox, keys.meta},
                  leases.of(Partition(0)).fence, offset, "0-0", 1, "a");
      return std::string(trimming.session().call(std::move(request))[0][0].text());
    };
    CHECK(try_seek(2) == "TRIMMED");
    CHECK(try_seek(3) == "OK");
  }

  TEST_CASE("inspect says what should go, who holds it and since when") {
    Trimming trimming;
    trimming.add_group("a");
    trimming.add_group("b");
    trimming.append(6);
    trimming.pass("a", 6);
    trimming.pass("b", 2);
    TrimGoal goal;
    CHECK_FALSE(inspect_topic(trimming.session(), trimming.data().topic()).front().retention);
    goal.before = SystemTime(Milliseconds(std::int64_t{1} << 50));
    const auto look = [&](Milliseconds limit) {
      return *inspect_topic(trimming.session(), trimming.data().topic(), goal, limit).front().retention;
    };
    RetentionView view = look(Milliseconds(3'600'000));
    CHECK(view.wanted == Offset(6));
    CHECK(view.until() == Offset(2));
    REQUIRE(view.holders.size() == 1);
    CHECK(view.holders.front().group == "b");
    CHECK_FALSE(view.holders.front().stalled);
    // It stands there from when it moved last, but not from before there was something to handle.
    trimming.data().command("HSET", Trimming::key("b"), "moved", 1'000);
    view = look(Milliseconds(3'600'000));
    CHECK_FALSE(view.holders.front().stalled);
    CHECK(view.holders.front().since > SystemTime(Milliseconds(1'000)));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    trimming.data().command("HSET", Trimming::key("b"), "moved", 1'000);
    CHECK(look(Milliseconds(10)).holders.front().stalled);

    // And why says so, of topics that have a retention.
    TopicSettings settings;
    apply_setting(settings, "retention=1ms");
    set_topic(trimming.session(), trimming.data().topic(), settings);
    const Topic topic = load_topic(trimming.session(), "t");
    const auto situation = look_why(trimming.session(), topic, "b");
    CHECK(situation.standings.front().holds_back_events == 4);
    CHECK(why_of(situation.standings.front()).text.find("4 events that the topic's retention would remove") !=
          std::string::npos);
  }

  TEST_CASE("a group whose registration is under way has not stood still") {
    Trimming trimming;
    trimming.append(6);
    trimming.data().command("HSET", topic_key("t"), "group:half", "start 1");
    TrimGoal goal;
    goal.before = SystemTime(Milliseconds(std::int64_t{1} << 50));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const Topic topic = load_topic(trimming.session(), "t");
    const auto views = inspect_topic(trimming.session(), topic, goal, Milliseconds(1));
    REQUIRE(views.front().retention->holders.size() == 1);
    CHECK_FALSE(views.front().retention->holders.front().stalled);
  }

  TEST_CASE("settings of retention are kept, changed and taken away") {
    Trimming trimming;
    TopicSettings settings = trimming.data().topic().settings;
    for (const std::string text : {"retention=7d", "retention_bytes=2GiB", "stall_limit=36h"}) {
      apply_setting(settings, text);
    }
    set_topic(trimming.session(), trimming.data().topic(), settings);
    Topic topic = load_topic(trimming.session(), "t");
    CHECK(topic.settings.retention == Milliseconds(std::chrono::days(7)));
    CHECK(topic.settings.retention_bytes == std::uint64_t{2} << 30);
    CHECK(topic.settings.stall_limit == Milliseconds(std::chrono::hours(36)));
    for (const std::string text : {"retention=none", "retention_bytes=none", "stall_limit=none"}) {
      apply_setting(settings, text);
    }
    set_topic(trimming.session(), topic, settings);
    topic = load_topic(trimming.session(), "t");
    CHECK_FALSE(topic.settings.trims());
    CHECK(stall_limit_of(topic.settings) == Milliseconds(std::chrono::days(7)));
    for (const std::string text : {"retention=0", "retention=-1", "retention_bytes=0", "retention=soon"}) {
      CAPTURE(text);
      CHECK(kind_of([&] { apply_setting(settings, text); }) == ErrorKind::usage);
    }
  }

  TEST_CASE("a log that must not be trimmed does not keep a worker from trimming the others, and is said") {
    test::Work work(2);
    work.handle("cat >/dev/null");
    TopicSettings settings;
    apply_setting(settings, "retention=1ms");
    set_topic(*work.session(), work.data().topic(), settings);
    work.data().append(0, {event_line("e1", "k")});
    work.data().append(0, {event_line("e2", "k")});
    work.data().append(1, {event_line("e3", "k")});
    work.options().trim_every = Milliseconds(3'600'000);
    (void)work.run();
    work.data().command("XTRIM", work.data().log(0), "MAXLEN", 1);  // by hand
    work.options().trim_every = Milliseconds(20);
    test::Running running(work);
    await("the other is trimmed",
          [&] { return work.data().command("XLEN", work.data().log(1))[0].number() == 0; });
    await("it is said", [&] {
      return work.said().find("nothing is trimmed: topic t, partition 0: the log begins at offset 1") !=
             std::string::npos;
    });
    CHECK(work.data().command("XLEN", work.data().log(0))[0].number() == 1);
    running.stop();
  }

  TEST_CASE(
      "a worker trims what the retention wants, takes up that it was set, and says which group stands "
      "still") {
    test::Work work;
    work.handle("cat >/dev/null");
    work.options().trim_every = Milliseconds(20);
    register_group(*work.session(), work.data().topic(), "stopped", "start");
    for (int i = 0; i < 3; ++i) {
      work.data().append(0, {event_line("e" + std::to_string(i), "k")});
    }
    const auto length = [&] { return work.data().command("XLEN", work.data().log(0))[0].number(); };
    test::Running running(work);
    await("all is handled", [&] { return work.state().cursor.offset == Offset(3); });
    TopicSettings settings;
    apply_setting(settings, "retention=1ms");
    apply_setting(settings, "stall_limit=10ms");
    const auto session = work.session();
    set_topic(*session, work.data().topic(), settings);
    await("it is said", [&] {
      return work.said().find("group stopped has stood still for more than 10ms") != std::string::npos;
    });
    CHECK(length() == 4);
    const auto ids = work.data().command("XRANGE", work.data().log(0), "-", "+");
    work.data().command("HSET", group_key("t", Partition(0), "stopped"), "offset", 2, "entry",
                        ids[0][2][0].text());
    await("what both have passed is gone", [&] { return length() == 1; });
    work.data().command("HSET", group_key("t", Partition(0), "stopped"), "offset", 3, "entry",
                        ids[0][3][0].text());
    await("all is gone", [&] { return length() == 0; });
    work.data().append(0, {event_line("last", "k")});
    await("what comes then is handled", [&] { return work.state().cursor.offset == Offset(4); });
    running.stop();
    // Once, not at each look.
    const std::string said = work.said();
    CHECK(said.find("stood still") == said.rfind("stood still"));
  }

  TEST_CASE(
      "a worker says of a group that was not forgotten to the end that it holds events, and what helps") {
    test::Work work;
    work.handle("cat >/dev/null");
    work.options().trim_every = Milliseconds(20);
    register_group(*work.session(), work.data().topic(), "left", "start");
    work.data().append(0, {event_line("e", "k")});
    work.data().command("HDEL", topic_key("t"), "group:left");
    TopicSettings settings;
    apply_setting(settings, "retention=1ms");
    set_topic(*work.session(), work.data().topic(), settings);
    test::Running running(work);
    await("it is said", [&] {
      return work.said().find("`continuum group forget -t t -g left --yes`") != std::string::npos;
    });
    running.stop();
    CHECK(work.said().find("inspect why") == std::string::npos);
  }
}
