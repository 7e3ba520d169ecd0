#include "continuum/why.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <string>

using namespace continuum;
using namespace std::chrono_literals;

namespace {

constexpr SystemTime now{Milliseconds(1'700'000'000'000)};

// A partition with events to handle and a worker that lives and has nothing in flight.
Standing worked() {
  Standing standing;
  standing.topic = "forum";
  standing.partition = Partition(3);
  standing.group = "mailer";
  standing.state.cursor.offset = Offset(17);
  standing.state.owner = "o";
  standing.state.who = "host:42";
  standing.state.ttl = 5s;
  standing.state.state = "running";
  standing.state.at = Offset(17);
  standing.lag_events = 5;
  standing.owner = Standing::Owner::alive;
  standing.active = Generation(2);
  standing.now = now;
  return standing;
}

Standing told(const std::string& state, const std::string& error = {}) {
  Standing standing = worked();
  standing.state.state = state;
  standing.state.handler = "mail";
  standing.state.since = now - 90s;
  standing.state.attempt = 3;
  standing.state.error = error;
  return standing;
}

void check_why(const Standing& standing, std::string_view cause, std::string_view text,
               std::string_view next) {
  const Why why = why_of(standing);
  CHECK(name_of(why.cause) == cause);
  CHECK(why.text == text);
  CHECK(why.next == next);
}

constexpr std::string_view show_17 = "continuum replay -t forum -p 3 --from-offset 17 --to-offset 18";

}  // namespace

TEST_CASE("why: no event waits") {
  Standing standing = worked();
  standing.lag_events = 0;
  check_why(standing, "caught up", "no event waits", "");
  standing.owner = Standing::Owner::none;
  check_why(standing, "caught up", "no event waits", "");
}

TEST_CASE("why: nothing waits but what is held, which blocks nobody") {
  Standing standing = worked();
  standing.lag_events = 0;
  standing.held_keys = 2;
  standing.letters = 1'234;
  check_why(standing, "held keys",
            "1,234 events of 2 held keys wait behind failed ones; all else is handled, and other keys go on",
            "continuum dead ls -t forum -g mailer -p 3");
}

TEST_CASE("why: a partition that moves says so, whatever its worker stumbles over") {
  Standing standing = told("retrying", "exit status 1");
  standing.motion = Standing::Motion::moving;
  standing.held_keys = 1;
  standing.letters = 2;
  check_why(standing, "moving", "5 events to go (2 events of 1 held key wait, blocking nobody else)", "");
}

TEST_CASE("why: no owner, or one that is silent for longer than its lease") {
  Standing standing = worked();
  standing.owner = Standing::Owner::none;
  const std::string_view next = "continuum work -t forum -g mailer --partition 3 -- HANDLER";
  check_why(standing, "no owner", "no worker has the lease; 5 events wait", next);
  standing.owner = Standing::Owner::silent;
  // What it said last is no cause any more.
  standing.state.state = "retrying";
  standing.lag_events = 1;
  check_why(standing, "no owner", "host:42 is silent for longer than its lease of 5.0s; 1 event waits", next);
}

TEST_CASE("why: an event is with the handler for long") {
  Standing standing = worked();
  standing.state.since = now - 600s;
  standing.state.handler = "mail";
  check_why(standing, "handler running", "offset 17 has been with the handler mail for 10m00s on host:42",
            show_17);
}

TEST_CASE("why: an event is tried again") {
  check_why(told("retrying", "exit status 1"), "retrying",
            "offset 17 is tried again with handler mail for 1m30s, attempt 3: exit status 1", show_17);
}

TEST_CASE("why: halted for a person, with or without a worker") {
  Standing standing = told("halted", "exit \033[31m1");
  const std::string_view text =
      "halted at offset 17 with handler mail for 1m30s, attempt 3: exit \\x1B[31m1; repair the handler and "
      "start the worker "
      "again, or pass the event";
  check_why(standing, "halted", text, "continuum group skip -t forum -g mailer -p 3");
  standing.owner = Standing::Owner::none;
  check_why(standing, "halted", text, "continuum group skip -t forum -g mailer -p 3");
}

TEST_CASE("why: the handler is down, and no event is to blame") {
  check_why(
      told("down", "cannot be run: No such file or directory"), "handler down",
      "the handler mail is down for 1m30s: cannot be run: No such file or directory; no event is to blame",
      "repair the handler on host:42: the worker tries again by itself");
}

TEST_CASE("why: no more events can be set aside") {
  Standing standing = told("full", "100 events wait behind held keys, which is the limit");
  standing.letters = 100;
  check_why(standing, "held limit",
            "100 events wait behind held keys, which is the limit: no more can be set aside, and offset 17 "
            "would be "
            "one more",
            "continuum dead ls -t forum -g mailer -p 3");
}

TEST_CASE("why: emitted events cannot be published") {
  const std::string_view text = "the derived events of 7 events wait to be published: topic x does not exist";
  check_why(told("full", std::string(text)), "outbox", text, "continuum inspect groups -t forum");
}

TEST_CASE("why: paused by an operator, before everything that a worker says") {
  Standing standing = told("retrying", "exit status 1");
  standing.state.paused = "ann@desk: deploy";
  check_why(standing, "paused", "paused by ann@desk: deploy; 5 events wait",
            "continuum group resume -t forum -g mailer -p 3");
  standing.owner = Standing::Owner::none;
  standing.lag_events = 0;
  check_why(standing, "paused", "paused by ann@desk: deploy",
            "continuum group resume -t forum -g mailer -p 3");
}

TEST_CASE("why: a server that refuses all writes comes before a worker that seems to be gone because of it") {
  Standing standing = worked();
  standing.owner = Standing::Owner::silent;
  standing.writes = Standing::Writes::refused;
  standing.refusal = "unix://s takes no writes (it answered: MISCONF)";
  check_why(standing, "server refuses writes", "unix://s takes no writes (it answered: MISCONF)",
            "redis-cli INFO");
}

TEST_CASE("why: a full server is the cause only where nothing else is") {
  Standing standing = worked();
  standing.writes = Standing::Writes::refused_when_growing;
  standing.refusal = "unix://s is full";
  check_why(standing, "server refuses writes", "unix://s is full; failed events cannot be set aside",
            "redis-cli INFO memory");
  standing.state.since = now - 600s;
  CHECK(why_of(standing).cause == Obstacle::handler_running);
  standing.owner = Standing::Owner::none;
  CHECK(why_of(standing).cause == Obstacle::no_owner);
  standing = told("refused", "the server is full (maxmemory)");
  CHECK(why_of(standing).cause == Obstacle::server_refuses);
  CHECK(why_of(standing).text == "the server is full (maxmemory); failed events cannot be set aside");
}

TEST_CASE("why: a barrier that others have not passed, or whose resize is not finished") {
  Standing standing = worked();
  standing.barrier = Generation(2);
  standing.behind = {Partition(1), Partition(4)};
  check_why(
      standing, "barrier",
      "the barrier of generation 2 stands before offset 17; partition 1 (and 1 more) has not come to it",
      "continuum inspect groups -t forum");
  standing.barrier = Generation(3);
  check_why(standing, "barrier",
            "the barrier of generation 3 stands before offset 17, and generation 2 is still in force: its "
            "resize is "
            "not finished",
            "continuum ring resize -t forum");
}

TEST_CASE("why: a partition that others wait for is not caught up") {
  Standing standing = worked();
  standing.lag_events = 0;
  standing.waited_by = {Partition(0), Partition(2), Partition(5)};
  check_why(standing, "waiting",
            "no event waits here, and partition 0 (and 2 more) waits until this one has come to the barrier",
            "continuum inspect groups -t forum");
  standing.owner = Standing::Owner::none;
  check_why(standing, "no owner",
            "no worker has the lease; no event waits here, but partition 0 (and 2 more) waits for it",
            "continuum work -t forum -g mailer --partition 3 -- HANDLER");
}

TEST_CASE("why: loss comes before everything") {
  Standing standing = told("halted");
  standing.state.paused = "ann";
  standing.loss = "topic forum, partition 3: the log is gone";
  check_why(standing, "loss", "topic forum, partition 3: the log is gone",
            "continuum inspect groups -t forum");
}

TEST_CASE("why: a worker that lives and does nothing is said as that") {
  CHECK(why_of(worked()).cause == Obstacle::waiting);
}
