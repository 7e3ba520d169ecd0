#include "redis/work.hpp"

#include "continuum/why.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <string>

using namespace continuum;
using namespace std::chrono_literals;
using test::await;
using test::event_line;
using test::Running;
using test::Work;

namespace {

// As the command does it: over a connection that does not wait for better times.
Situation look(Work& work) {
  redis::Session session(redis::Address::parse(work.url()), {});
  return look_why(session, work.data().topic(), std::nullopt);
}
Why why(Work& work) {
  return why_of(look(work).standings.at(0));
}

void append(Work& work, std::uint64_t first = 0, std::uint64_t count = 4) {
  std::vector<std::string> events;
  for (std::uint64_t i = first; i < first + count; ++i) {
    events.push_back(event_line(std::to_string(i), i == 1 ? "bad" : "good"));
  }
  work.data().append(0, events);
}

// The worker has said it: why() would otherwise look at what it said before.
void await_state(Work& work, const std::string& state) {
  await("the worker tells its state", [&] { return work.state().state == state; });
}

void check_cause(Work& work, std::string_view cause, std::string_view part) {
  const Why told = why(work);
  CHECK(name_of(told.cause) == cause);
  INFO(told.text);
  CHECK(told.text.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("inspect why names: no owner, caught up, held keys") {
  Work work;
  append(work);
  check_cause(work, "no owner", "no worker has the lease; 4 events wait");
  work.handle("test $CONTINUUM_KEY = good");
  work.handler().on_failure = OnFailure::hold_key;
  work.handler().attempts_max = 1;
  (void)work.run();
  check_cause(work, "held keys", "1 event of 1 held key waits");
  work.handle("true");
  work.ask({std::string(command_line_handler), "bad"});
  (void)work.run();
  check_cause(work, "caught up", "no event waits");
}

TEST_CASE("inspect why names an owner that is silent, and not what it said last") {
  Work work;
  append(work);
  work.data().command("HSET", Work::group(0), "owner", "dead", "who", "host:17", "ttl", 300, "state",
                      "retrying");
  check_cause(work, "no owner", "host:17 is silent for longer than its lease of 300ms");
}

TEST_CASE("inspect why names a handler that takes long") {
  Work work;
  append(work);
  work.handle("sleep 600");
  Running running(work);
  await("an event is with the handler", [&] { return work.state().since > SystemTime(); });
  check_cause(work, "handler running", "offset 0 has been with the handler");
  (void)running.stop_at_once();
}

TEST_CASE("inspect why names an event that is tried again") {
  Work work;
  append(work);
  work.handle("exit 1");
  work.handler().attempts_max = 1'000'000;
  Running running(work);
  await_state(work, "retrying");
  check_cause(work, "retrying", "exit status 1");
  (void)running.stop_at_once();
}

TEST_CASE("inspect why names a halted partition, also when its worker is gone") {
  Work work;
  append(work);
  work.handle("exit 65");
  {
    Running running(work);
    await_state(work, "halted");
    check_cause(work, "halted", "halted at offset 0");
    (void)running.stop();
  }
  check_cause(work, "halted", "halted at offset 0");
}

TEST_CASE("inspect why names a handler that is down") {
  Work work;
  append(work);
  work.handle("exit 127");
  Running running(work);
  await_state(work, "down");
  check_cause(work, "handler down", "exit status 127");
  (void)running.stop_at_once();
}

TEST_CASE("inspect why names the limit of held events") {
  Work work;
  append(work);
  work.options().held_events_max = 1;
  work.handle("exit 1");
  work.handler().on_failure = OnFailure::hold_key;
  work.handler().attempts_max = 1;
  Running running(work);
  await_state(work, "full");
  await("what was handled is committed", [&] { return work.state().cursor.offset == Offset(1); });
  check_cause(work, "held limit", "which is the limit");
  (void)running.stop_at_once();
}

TEST_CASE("inspect why names who paused the group, and why") {
  Work work;
  append(work);
  work.handle("true");
  work.pause("ann@desk: deploy");
  check_cause(work, "paused", "paused by ann@desk: deploy; 4 events wait");
  Running running(work);
  await("the worker has it", [&] { return !work.state().owner.empty(); });
  check_cause(work, "paused", "paused by ann@desk: deploy; 4 events wait");
  (void)running.stop();
}

TEST_CASE("inspect why names a server that is full, and one that takes no writes at all") {
  Work work;
  append(work);
  work.handle("exit 1");
  work.handler().on_failure = OnFailure::hold_key;
  work.handler().attempts_max = 1;
  {
    work.data().command("CONFIG", "SET", "maxmemory", 1);
    Running running(work);
    await_state(work, "refused");
    check_cause(work, "server refuses writes", "is full (maxmemory)");
    work.data().command("CONFIG", "SET", "maxmemory", 0);
    (void)running.stop_at_once();
  }
  append(work, 4);
  work.data().command("CONFIG", "SET", "min-replicas-to-write", 1);
  check_cause(work, "server refuses writes", "NOREPLICAS");
  CHECK_FALSE(look(work).refusal.empty());
  work.data().command("CONFIG", "SET", "min-replicas-to-write", 0);
  CHECK(look(work).refusal.empty());
}

TEST_CASE("inspect why names a barrier whose resize is not finished") {
  Work work;
  append(work);
  work.handle("true");
  (void)work.run();
  work.data().seal(0, 2, "old");
  work.data().append(0, {event_line("4", "good")}, Frames::plain, 2);
  Running running(work);
  await("the worker has it", [&] { return !work.state().owner.empty(); });
  check_cause(work, "barrier", "the barrier of generation 2 stands before offset 4");
  (void)running.stop_at_once();
}

TEST_CASE("inspect why says of a partition that moves that it does") {
  Work work;
  append(work, 0, 1'000);
  work.handle("true");
  Running running(work);
  await("it begins to move", [&] { return work.state().cursor.offset > Offset(0); });
  check_cause(work, "moving", "events to go");
  (void)running.stop_at_once();
}
