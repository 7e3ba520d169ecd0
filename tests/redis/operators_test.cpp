#include "redis/log_data.hpp"
#include "redis/server.hpp"
#include "redis/work.hpp"

#include "continuum/audit.hpp"
#include "continuum/commit.hpp"
#include "continuum/dead_letter_discards.hpp"
#include "continuum/dead_letter_listing.hpp"
#include "continuum/dead_letter_requests.hpp"
#include "continuum/group_control.hpp"
#include "continuum/group_seek.hpp"
#include "continuum/group_skip.hpp"
#include "continuum/inspect.hpp"
#include "continuum/key_life.hpp"
#include "continuum/operator_lease.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;
using test::await;
using test::event_line;
using test::kind_of;
using test::LogData;
using test::RedisServer;
using test::Running;
using test::Work;

namespace {

constexpr std::string_view group = "g";
const std::string me = "ann@desk";

// A topic with a group, whose letters are stored by hand.
struct Operated {
  explicit Operated(std::uint32_t partitions = 1) : session(server.session()), data(*session, partitions) {
    register_group(*session, data.topic(), group, "start");
  }

  Acquired acquire(std::uint32_t partition = 0, Milliseconds ttl = 5s) {
    redis::Request request;
    request_acquire(request, group_key("t", Partition(partition), group), {"worker", "host:17", ttl},
                    std::nullopt);
    const auto acquired = parse_acquire(session->call(std::move(request))[0]);
    REQUIRE(std::holds_alternative<Acquired>(acquired));
    return std::get<Acquired>(acquired);
  }
  void renew(const Acquired& lease, const Doing& doing, std::uint32_t partition = 0) {
    redis::Request request;
    request_renew(request, group_key("t", Partition(partition), group), data.meta(partition), lease.fence,
                  data.topic().log_id, doing);
    REQUIRE(parse_renew(session->call(std::move(request))[0]).kept == Kept::ok);
  }
  void release(const Acquired& lease, std::uint32_t partition = 0) {
    redis::Request request;
    request_release(request, group_key("t", Partition(partition), group), lease.fence);
    session->call(std::move(request));
  }
  Kept commit(Acquired& lease, Commit what, std::uint32_t partition = 0) {
    redis::Request request;
    request_commit(request, GroupKeys("t", Partition(partition), group), lease.fence, ++lease.number, what,
                   group);
    return parse_commit(session->call(std::move(request))[0]);
  }
  // As a worker would that sets the events of "bad" aside. Everything in the log counts as handled.
  void store(const std::vector<DeadLetter>& letters, Offset next, std::uint32_t partition = 0) {
    Acquired lease = acquire(partition);
    const auto last = data.command("XREVRANGE", data.log(partition), "+", "-", "COUNT", 1);
    REQUIRE(commit(lease, {{next, *EntryId::parse(last[0][0][0].text())}, Generation(1), letters, {}, {}},
                   partition) == Kept::ok);
    release(lease, partition);
  }
  void pass_first_barrier() {
    const auto first = data.command("XRANGE", data.log(0), "-", "+", "COUNT", 1);
    Acquired lease = acquire();
    REQUIRE(commit(lease, {{Offset(0), *EntryId::parse(first[0][0][0].text())}, Generation(1), {}, {}, {}}) ==
            Kept::ok);
    release(lease);
  }
  GroupState state(std::uint32_t partition = 0) {
    return *parse_group(data.command("HGETALL", group_key("t", Partition(partition), group))[0]);
  }
  std::vector<DeadLetter> letters(const LetterSelection& selection = {}) {
    std::vector<DeadLetter> all;
    (void)for_each_letter(*session, data.topic(), group, selection,
                          [&](Partition, const DeadLetter& letter) { all.push_back(letter); });
    return all;
  }
  HeldKeys held(std::uint32_t partition = 0) {
    const std::vector<Partition> one{Partition(partition)};
    return held_keys(*session, data.topic(), group, one).front().held;
  }
  std::vector<Partition> partitions() { return data.topic().partitions(); }

  RedisServer server;
  std::unique_ptr<redis::Session> session;
  LogData data;
};

DeadLetter letter(std::uint64_t offset, const std::string& key, LetterState state,
                  const std::string& reason) {
  return {{},
          {"mail", key},
          Offset(offset),
          state,
          state == LetterState::behind ? 0U : 3U,
          SystemTime(1'000ms + Milliseconds(offset)),
          reason,
          event_line(std::to_string(offset), key)};
}

// Offsets 0 to 5: "a" fails at 0 and 2 waits behind it, "b" fails at 1 for another reason, "c" was skipped
// at 3.
std::vector<DeadLetter> some_letters() {
  return {letter(0, "a", LetterState::failed, "exit status 1"),
          letter(1, "b", LetterState::failed, "timeout"), letter(2, "a", LetterState::behind, ""),
          letter(3, "c", LetterState::skipped, "exit status 1")};
}
void append_six(LogData& data) {
  data.append(0, {event_line("0", "a"), event_line("1", "b"), event_line("2", "a")});
  data.append(0, {event_line("3", "c"), event_line("4", "d"), event_line("5", "d")});
}

std::string offsets_of(const std::vector<DeadLetter>& letters) {
  std::string text;
  for (const DeadLetter& one : letters) {
    text += std::to_string(one.offset.value) + " ";
  }
  return text;
}

SeekTarget to_offset(std::uint64_t offset) {
  return {SeekTarget::To::offsets, {{Partition(0), Offset(offset)}}, {}};
}

std::vector<Move> seek_to(Operated& operated, SeekTarget target) {
  return seek(*operated.session, operated.data.topic(), group, operated.partitions(), target, me).moves;
}

}  // namespace

// --- looking at dead letters

TEST_CASE("dead letters are chosen by handler, key, event and reason") {
  Operated operated;
  append_six(operated.data);
  operated.store(some_letters(), Offset(6));
  const auto chosen = [&](auto change) {
    LetterSelection selection;
    change(selection);
    return offsets_of(operated.letters(selection));
  };
  CHECK(chosen([](auto&) {}) == "0 1 2 3 ");
  CHECK(chosen([](auto& s) { s.key = "a"; }) == "0 2 ");
  CHECK(chosen([](auto& s) { s.event_id = "2"; }) == "2 ");
  CHECK(chosen([](auto& s) { s.reason = "exit*"; }) == "0 3 ");
  CHECK(chosen([](auto& s) { s.reason = "*"; }) == "0 1 3 ");  // 2 has none: it waits
  CHECK(chosen([](auto& s) { s.handler = "mail"; }) == "0 1 2 3 ");
  CHECK(chosen([](auto& s) { s.handler = "search"; }).empty());
}

TEST_CASE("more letters than one answer holds are read in their order") {
  Operated operated;
  operated.data.append(0, {event_line("0", "a")});
  std::vector<DeadLetter> many;
  for (std::uint64_t i = 0; i < 300; ++i) {
    many.push_back(letter(i, "a", i == 0 ? LetterState::failed : LetterState::behind, "r"));
  }
  operated.store(many, Offset(1));
  const auto read = operated.letters();
  REQUIRE(read.size() == 300);
  CHECK(std::is_sorted(read.begin(), read.end(),
                       [](const auto& x, const auto& y) { return x.offset < y.offset; }));
}

TEST_CASE("letters are summed up by the reason of their key's first failure, and by key") {
  Operated operated;
  append_six(operated.data);
  operated.store(some_letters(), Offset(6));
  const auto summary = summarize_letters(*operated.session, operated.data.topic(), group, {});
  CHECK(summary.letters == 4);
  REQUIRE(summary.reasons.size() == 2);
  CHECK(summary.reasons[0].reason == "exit status 1");
  CHECK(summary.reasons[0].failed == 1);
  CHECK(summary.reasons[0].behind == 1);
  CHECK(summary.reasons[0].skipped == 1);
  CHECK(summary.reasons[0].keys == 2);
  CHECK(summary.reasons[1].reason == "timeout");
  REQUIRE(summary.keys.size() == 3);
  CHECK(summary.keys[0].place.whose.key == "a");
  CHECK(summary.keys[0].letters == 2);
  CHECK(summary.keys[0].first == Offset(0));
  CHECK(summary.keys[0].held.held == HeldKey::Held::yes);
}

// --- discarding without a worker

TEST_CASE("letters are discarded without a worker, and a key without any is free") {
  Operated operated;
  append_six(operated.data);
  operated.store(some_letters(), Offset(6));
  LetterSelection selection;
  selection.key = "a";
  std::string seen;
  const Discards discards = collect_discards(
      *operated.session, operated.data.topic(), group, selection,
      [&](Partition, const DeadLetter& one) { seen += std::to_string(one.offset.value) + " "; });
  CHECK(seen == "0 2 ");
  CHECK(discards.count == 2);
  OperatorLeases leases(*operated.session, operated.data.topic(), std::string(group), me);
  CHECK(leases.take(operated.partitions()).refused.empty());
  discard_letters(*operated.session, operated.data.topic(), group, leases, discards);
  leases.release();
  CHECK(offsets_of(operated.letters()) == "1 3 ");
  const HeldKeys held = operated.held();
  CHECK(held.letters == 2);
  CHECK(std::none_of(held.keys.begin(), held.keys.end(),
                     [](const HeldKey& key) { return key.whose.key == "a"; }));
  CHECK(operated.state().cursor.offset == Offset(6));
  CHECK(operated.state().owner.empty());
}

TEST_CASE("a discarded failure leaves its key held while others wait behind it") {
  Operated operated;
  append_six(operated.data);
  operated.store(some_letters(), Offset(6));
  LetterSelection selection;
  selection.event_id = "0";
  const Discards discards = collect_discards(*operated.session, operated.data.topic(), group, selection,
                                             [](Partition, const DeadLetter&) {});
  OperatorLeases leases(*operated.session, operated.data.topic(), std::string(group), me);
  (void)leases.take_all(operated.partitions());
  discard_letters(*operated.session, operated.data.topic(), group, leases, discards);
  CHECK(offsets_of(operated.letters()) == "1 2 3 ");
  const HeldKeys held = operated.held();
  REQUIRE(held.keys.size() == 3);
  CHECK(held.keys[0].whose.key == "a");
  CHECK(held.keys[0].held == HeldKey::Held::yes);
  CHECK(held.keys[0].letters == 1);
}

TEST_CASE("letters to discard that have others of their key between them are asked for in pieces") {
  Operated operated;
  operated.data.append(0, {event_line("0", "a")});
  operated.store({letter(0, "a", LetterState::failed, "x"), letter(1, "a", LetterState::failed, "x"),
                  letter(2, "a", LetterState::failed, "y"), letter(3, "b", LetterState::failed, "x"),
                  letter(4, "a", LetterState::failed, "x")},
                 Offset(1));
  LetterSelection selection;
  selection.reason = "x";
  const Discards discards = collect_discards(*operated.session, operated.data.topic(), group, selection,
                                             [](Partition, const DeadLetter&) {});
  const auto all = operated.letters();
  const auto& pieces = discards.requests.at({Partition(0), {"mail", "a"}});
  REQUIRE(pieces.size() == 2);
  CHECK(pieces[0].text() == fmt::format("discard {} {}", all[0].id.text(), all[1].id.text()));
  CHECK(pieces[1].text() == fmt::format("discard {} {}", all[4].id.text(), all[4].id.text()));
  CHECK(discards.requests.at({Partition(0), {"mail", "b"}}).size() == 1);
}

// --- leases

TEST_CASE("a worker that lives keeps its lease, and nothing is moved; one that is silent loses it") {
  Operated operated(2);
  append_six(operated.data);
  Acquired lease = operated.acquire(0, 300ms);
  std::atomic<bool> stop = false;
  std::thread worker([&] {
    const auto other = operated.server.session();
    while (!stop) {
      redis::Request request;
      request_renew(request, group_key("t", Partition(0), group), operated.data.meta(0), lease.fence,
                    operated.data.topic().log_id, {});
      (void)other->call(std::move(request));
      std::this_thread::sleep_for(20ms);
    }
  });
  std::string message;
  CHECK(kind_of([&] { (void)seek_to(operated, {SeekTarget::To::end, {}, {}}); }, &message) ==
        ErrorKind::fenced);
  CHECK(message.find("partition 0 by host:17") != std::string::npos);
  stop = true;
  worker.join();
  CHECK(operated.state(0).cursor.offset == Offset(0));
  CHECK(operated.state(1).owner.empty());  // given back

  const auto moves = seek_to(operated, {SeekTarget::To::end, {}, {}});
  CHECK(moves.size() == 2);
  CHECK(operated.state(0).cursor.offset == Offset(6));
  CHECK(operated.state(0).owner.empty());
  CHECK(operated.state(0).fence > lease.fence);
  CHECK(operated.commit(lease, {{Offset(1), {}}, Generation(1), {}, {}, {}}) == Kept::fenced);
}

TEST_CASE("a state of halted outlives a lease of ours that moved nothing") {
  Operated operated;
  append_six(operated.data);
  const Acquired lease = operated.acquire();
  operated.renew(lease, {"halted", "mail", Offset(0), SystemTime(5'000ms), 3, "exit status 1"});
  operated.release(lease);
  {
    OperatorLeases leases(*operated.session, operated.data.topic(), std::string(group), me);
    (void)leases.take_all(operated.partitions());
    CHECK(operated.state().state == "running");
  }
  CHECK(operated.state().state == "halted");
  CHECK(operated.state().error == "exit status 1");
  CHECK(operated.state().attempt == 3);
  CHECK(operated.state().owner.empty());
}

TEST_CASE("a lease that is taken away is lost for its owner, and free for the next") {
  Operated operated;
  Acquired lease = operated.acquire();
  const auto revoke = [&](Fence fence) {
    return revoke_lease(*operated.session, operated.data.topic(), group, Partition(0), fence);
  };
  CHECK(revoke(Fence(7)) == Revoked::changed);
  CHECK(revoke(lease.fence) == Revoked::yes);
  CHECK(operated.state().owner.empty());
  CHECK(operated.state().fence > lease.fence);
  CHECK(operated.commit(lease, {{Offset(0), {}}, Generation(1), {}, {}, {}}) == Kept::fenced);
  CHECK(revoke(operated.state().fence) == Revoked::free);
  CHECK(operated.acquire().fence > lease.fence);
}

// --- seek

TEST_CASE("a seek goes to the start, the end, an offset inside of an entry, and a time") {
  Operated operated;
  append_six(operated.data);
  const auto entries = operated.data.command("XRANGE", operated.data.log(0), "-", "+");
  const auto id_of = [&](std::size_t i) { return *EntryId::parse(entries[0][i][0].text()); };
  const std::uint64_t run = operated.state().run;

  auto moves = seek_to(operated, {SeekTarget::To::end, {}, {}});
  REQUIRE(moves.size() == 1);
  CHECK(moves[0].from == Offset(0));
  CHECK(moves[0].to.offset == Offset(6));
  CHECK(operated.state().cursor.entry == id_of(2));
  CHECK(operated.state().from == Generation(1));
  CHECK(operated.state().passed == Generation(0));
  CHECK(operated.state().run == run + 1);

  seek_to(operated, to_offset(4));
  CHECK(operated.state().cursor.offset == Offset(4));
  CHECK(operated.state().cursor.entry == id_of(1));
  CHECK(operated.state().from == Generation(1));

  seek_to(operated, to_offset(0));
  CHECK(operated.state().cursor.offset == Offset(0));
  CHECK(operated.state().cursor.entry == id_of(0));  // behind the barrier, which `from` says

  seek_to(operated, {SeekTarget::To::start, {}, {}});
  CHECK(operated.state().cursor.entry == EntryId{});
  CHECK(operated.state().from == Generation(0));  // the barrier is still to be passed

  seek_to(operated, to_offset(6));
  CHECK(operated.state().cursor.offset == Offset(6));
  CHECK(operated.state().cursor.entry == id_of(2));

  std::string message;
  CHECK(kind_of([&] { (void)seek_to(operated, to_offset(7)); }, &message) == ErrorKind::usage);
  CHECK(message.find("offset 7 is not in the log, which has 0 to 6") != std::string::npos);
}

TEST_CASE("a seek to a time goes to the first event that was stored then or later") {
  Operated operated;
  operated.data.command("DEL", operated.data.log(0));
  operated.data.command("XADD", operated.data.log(0), "1-0", "barrier", 1, "o", 0);
  operated.data.command("XADD", operated.data.log(0), "1000-0", "n", 1, "o", 0, "g", 1, "e",
                        event_line("0", "k") + "\n");
  operated.data.command("XADD", operated.data.log(0), "2000-0", "n", 2, "o", 1, "g", 1, "e",
                        event_line("1", "k") + "\n" + event_line("2", "k") + "\n");
  operated.data.command("HSET", operated.data.meta(0), "next", 3);
  const auto offset_at = [&](Milliseconds time) {
    return seek_to(operated, {SeekTarget::To::time, {}, SystemTime(time)}).at(0).to.offset;
  };
  CHECK(offset_at(0ms) == Offset(0));
  CHECK(offset_at(1'000ms) == Offset(0));
  CHECK(offset_at(1'001ms) == Offset(1));
  CHECK(operated.state().cursor.entry == EntryId{1'000, 0});
  CHECK(offset_at(2'001ms) == Offset(3));
}

TEST_CASE("a seek is refused while there are dead letters, whatever was planned before") {
  Operated operated;
  append_six(operated.data);
  operated.store(some_letters(), Offset(6));
  std::string message;
  CHECK(kind_of([&] { (void)seek_to(operated, {SeekTarget::To::start, {}, {}}); }, &message) ==
        ErrorKind::usage);
  CHECK(message.find("has 4 dead letters") != std::string::npos);
  CHECK(message.find("continuum dead ls -t t -g g -p 0") != std::string::npos);
  CHECK(operated.state().cursor.offset == Offset(6));
  CHECK(operated.state().owner.empty());
}

TEST_CASE("a worker handles again what a seek went back over, and nothing of what it passed") {
  Work work;
  append_six(work.data());
  work.handle("echo \"$CONTINUUM_OFFSET\" >>$OUT");
  CHECK(work.run().handled == 6);
  const auto session = work.session();
  const auto partitions = work.data().topic().partitions();
  seek(*session, work.data().topic(), group, partitions, to_offset(4), me);
  CHECK(work.run().handled == 2);
  seek(*session, work.data().topic(), group, partitions, {SeekTarget::To::start, {}, {}}, me);
  seek(*session, work.data().topic(), group, partitions, to_offset(5), me);
  CHECK(work.run().handled == 1);
  CHECK(work.handled() == "0\n1\n2\n3\n4\n5\n4\n5\n5\n");
}

// --- skip

TEST_CASE("a skip passes the event that halted its partition, and keeps it as a letter of its handler") {
  Work work;
  append_six(work.data());
  work.handle("test $CONTINUUM_OFFSET != 1 && echo \"$CONTINUUM_OFFSET\" >>$OUT");
  work.handler().attempts_max = 2;
  CHECK(work.run().halted.size() == 1);
  CHECK(work.state().state == "halted");
  const auto session = work.session();
  const Skip planned = plan_skip(*session, work.data().topic(), group, Partition(0), {});
  REQUIRE(planned.events.size() == 1);
  CHECK(planned.events[0].offset == Offset(1));
  CHECK(planned.handler == "handler");
  CHECK(work.state().cursor.offset == Offset(1));  // nothing was changed

  const Skip skipped = skip(*session, work.data().topic(), group, Partition(0), {}, me, "skipped by ann");
  CHECK(skipped.handler == "handler");
  CHECK(work.state().cursor.offset == Offset(2));
  CHECK(work.state().state != "halted");
  const auto letters = work.letters();
  REQUIRE(letters.size() == 1);
  CHECK(letters[0].offset == Offset(1));
  CHECK(letters[0].state == LetterState::skipped);
  CHECK(letters[0].whose.key == "b");
  CHECK(letters[0].attempts == 2);
  CHECK(letters[0].reason == "sh: exit status 1; skipped by ann");
  CHECK(letters[0].event == event_line("1", "b"));
  CHECK(work.run().handled == 4);
  // Each of the others once: an event of another key may have been done before its partition halted.
  CHECK(work.handled().find("1\n") == std::string::npos);
}

TEST_CASE("a skip over many entries ends inside of one, and keeps every event") {
  Operated operated;
  append_six(operated.data);
  const auto entries = operated.data.command("XRANGE", operated.data.log(0), "-", "+");
  operated.pass_first_barrier();
  const Skip skipped = skip(*operated.session, operated.data.topic(), group, Partition(0), {Offset(4), 1}, me,
                            "skipped by ann");
  CHECK(skipped.handler == skip_handler);
  CHECK(operated.state().cursor.offset == Offset(4));
  CHECK(operated.state().cursor.entry == *EntryId::parse(entries[0][1][0].text()));
  CHECK(offsets_of(operated.letters()) == "0 1 2 3 ");
  CHECK(operated.state().owner.empty());
}

TEST_CASE("a skip stops at the end of the log, at a barrier, and at what is behind it") {
  Operated operated;
  append_six(operated.data);
  operated.data.seal(0, 2, "old");
  operated.data.append(0, {event_line("6", "a")}, Frames::plain, 2);
  const auto plan = [&](const SkipRange& range) {
    std::string message = "nothing was wrong";
    try {
      (void)plan_skip(*operated.session, operated.data.topic(), group, Partition(0), range);
    } catch (const Error& error) {
      message = error.message();
    }
    return message;
  };
  CHECK(plan({}).find("the barrier of generation 1 stands there, which only a worker") != std::string::npos);
  operated.pass_first_barrier();
  CHECK(plan({std::nullopt, 6}) == "nothing was wrong");
  CHECK(
      plan({std::nullopt, 7}).find("only 6 of 7 events stand before group g: the barrier of generation 2") !=
      std::string::npos);
  CHECK(plan({Offset(0), 1}).find("stands at offset 0 already") != std::string::npos);
  operated.store({}, Offset(7));
  CHECK(plan({}).find("no event stands before group g at offset 7: the log ends there") != std::string::npos);
}

// --- pause, forget, audit

TEST_CASE("a pause says who and why where the group is, and is taken away again") {
  Operated operated(2);
  operated.data.command("DEL", group_key("t", Partition(1), group));
  const auto paused =
      set_paused(*operated.session, operated.data.topic(), group, operated.partitions(), "ann: x");
  CHECK(paused == std::vector{Partition(0)});
  CHECK(operated.state().paused == "ann: x");
  CHECK(set_paused(*operated.session, operated.data.topic(), group, operated.partitions(), "").size() == 1);
  CHECK(operated.state().paused.empty());
}

TEST_CASE("a group that is forgotten leaves nothing, and can be forgotten again after half of it") {
  Operated operated(2);
  append_six(operated.data);
  operated.store(some_letters(), Offset(6));
  auto remains = remains_of(*operated.session, operated.data.topic(), group);
  REQUIRE(remains.size() == 2);
  CHECK(remains[0].registered);
  CHECK(remains[0].letters == 4);

  Acquired lease = operated.acquire(1, 300ms);
  std::atomic<bool> stop = false;
  std::thread worker([&] {
    const auto other = operated.server.session();
    while (!stop) {
      redis::Request request;
      request_renew(request, group_key("t", Partition(1), group), operated.data.meta(1), lease.fence,
                    operated.data.topic().log_id, {});
      (void)other->call(std::move(request));
      std::this_thread::sleep_for(20ms);
    }
  });
  CHECK(kind_of([&] { forget_group(*operated.session, operated.data.topic(), group, me); }) ==
        ErrorKind::fenced);
  stop = true;
  worker.join();
  CHECK(load_topic(*operated.session, "t").groups.size() == 1);
  CHECK(operated.letters().size() == 4);
  operated.release(lease, 1);

  unregister_group(*operated.session, operated.data.topic(), group);  // as one that was killed then
  const Topic topic = load_topic(*operated.session, "t");
  CHECK(topic.groups.empty());
  CHECK(remains_of(*operated.session, topic, group)[1].registered);
  forget_group(*operated.session, topic, group, me);
  remains = remains_of(*operated.session, topic, group);
  CHECK_FALSE(remains[0].registered);
  CHECK_FALSE(remains[1].registered);
  CHECK(remains[0].letters == 0);
  const auto keys = operated.data.command("KEYS", "*:g");
  CHECK(keys[0].size() == 0);
  CHECK(operated.data.command("XINFO", "GROUPS", operated.data.log(0))[0].size() == 0);

  register_group(*operated.session, operated.data.topic() = topic, group, "start");
  CHECK(operated.state().cursor.offset == Offset(0));
}

TEST_CASE("the audit keeps the last entries, cut to a bounded length") {
  Operated operated;
  write_audit(*operated.session, "t", {{}, AuditEntry::Step::begun, me, "group seek", "because", "all"});
  write_audit(*operated.session, "t", {{}, AuditEntry::Step::done, me, std::string(1'500, 'x'), "", ""});
  auto entries = read_audit(*operated.session, "t", 10);
  REQUIRE(entries.size() == 2);
  CHECK(entries[0].step == AuditEntry::Step::begun);
  CHECK(entries[0].who == me);
  CHECK(entries[0].what == "group seek");
  CHECK(entries[0].why == "because");
  CHECK(entries[0].touched == "all");
  CHECK(entries[1].what.size() == 1'000);
  entries = read_audit(*operated.session, "t", 1);
  REQUIRE(entries.size() == 1);
  CHECK(entries[0].step == AuditEntry::Step::done);
}

// --- asking a worker that lives

namespace {

// A worker whose handler fails for the key "a" until mended.
struct Failing : Work {
  Failing() {
    append_six(data());
    handler().on_failure = OnFailure::hold_key;
    handler().attempts_max = 2;
    handle(
        "if test -e $DIR/mended || test $CONTINUUM_KEY != a; then echo \"$CONTINUUM_OFFSET\" >>$OUT; else "
        "exit 1; fi");
    (void)run();
  }
  void mend() { test::write_file(file("mended"), ""); }
};

void await_answers(LetterRequests& requests) {
  await("the worker answers", [&] { return !requests.look(); });
}

const KeyPlace place_of_a{Partition(0), {"handler", "a"}};

}  // namespace

TEST_CASE("a retry through a living worker says what failed again, and what was released") {
  Failing work;
  const auto session = work.session();
  Running running(work);
  await("the worker has the lease", [&] { return !work.state().owner.empty(); });
  LetterRequests first(*session, work.data().topic(), "g");
  first.ask({{place_of_a, {}}});
  await_answers(first);
  auto standing = first.standings().at(place_of_a);
  CHECK(standing.state == LetterRequests::State::failed_again);
  CHECK(standing.letters == 2);
  CHECK(standing.failure.reason.find("exit status 1") != std::string::npos);

  work.mend();
  LetterRequests second(*session, work.data().topic(), "g");
  second.ask({{place_of_a, {}}, {{Partition(0), {"handler", "nobody"}}, {}}});
  CHECK(second.standings().size() == 2);
  await_answers(second);
  standing = second.standings().at(place_of_a);
  CHECK(standing.state == LetterRequests::State::answered);
  CHECK(standing.letters == 0);
  CHECK(work.handled().ends_with("0\n2\n"));
  (void)running.stop();
}

TEST_CASE("letters are discarded by a living worker, and no others") {
  Failing work;
  const auto session = work.session();
  LetterSelection selection;
  selection.event_id = "0";
  const Discards discards =
      collect_discards(*session, work.data().topic(), group, selection, [](Partition, const DeadLetter&) {});
  Running running(work);
  await("the worker has the lease", [&] { return !work.state().owner.empty(); });
  LetterRequests requests(*session, work.data().topic(), "g");
  requests.ask({{place_of_a, discards.requests.at(place_of_a).at(0)}});
  await_answers(requests);
  CHECK(requests.standings().at(place_of_a).state == LetterRequests::State::answered);
  CHECK(requests.standings().at(place_of_a).letters == 1);
  CHECK(offsets_of(work.letters()) == "2 ");
  CHECK(work.held().keys.at(0).held == HeldKey::Held::yes);
  (void)running.stop();
}

TEST_CASE("who asks and finds no worker, a paused one or a silent one is told so") {
  Failing work;
  const auto session = work.session();
  const auto attendance = [&] {
    LetterRequests requests(*session, work.data().topic(), "g");
    requests.ask({{place_of_a, {}}});
    await_answers(requests);
    CHECK(requests.standings().at(place_of_a).state == LetterRequests::State::waiting);
    return requests.standings().at(place_of_a).attendance;
  };
  CHECK(attendance() == Attendance::nobody);
  work.pause("ann");
  CHECK(attendance() == Attendance::paused);
  work.pause("");
  work.data().command("HSET", Work::group(0), "owner", "dead", "ttl", 200);
  CHECK(attendance() == Attendance::nobody);
  work.data().command("HSET", Work::group(0), "owner", "", "state", "halted");
  CHECK(attendance() == Attendance::halted);
}

TEST_CASE("a key's life has its partitions, its events, and what became of each") {
  Failing work;
  const auto session = work.session();
  const KeyLife life = life_of(*session, work.data().topic(), "a", 10);
  REQUIRE(life.partitions.size() == 1);
  CHECK(life.partitions[0].first == Generation(1));
  REQUIRE(life.events.size() == 2);
  REQUIRE(life.standings.size() == 1);
  CHECK(life.fate_of(life.standings[0], Offset(0)) == "failed (handler)");
  CHECK(life.fate_of(life.standings[0], Offset(2)) == "behind (handler)");
  CHECK(life.fate_of(life.standings[0], Offset(1)) == "passed");
  CHECK(life.fate_of(life.standings[0], Offset(6)) == "waiting");
  REQUIRE(life.standings[0].handlers.size() == 1);
  CHECK(life.standings[0].handlers[0].letters == 2);
}
