// Of every way in which a partition can stand still: the cause that is named, and what to do next.
#include "continuum/why.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace continuum;
using namespace std::chrono_literals;

namespace {

const SystemTime now{Milliseconds(1'800'000'000'000)};

// A partition that has a living worker, events to handle, and does not move.
Standing standing() {
  Standing s;
  s.topic = "forum";
  s.group = "mail";
  s.partition = Partition(3);
  s.lag_events = 17;
  s.owner = Standing::Owner::alive;
  s.state.owner = "abc";
  s.state.who = "host:17";
  s.state.state = "running";
  s.state.ttl = 5s;
  s.active = Generation(1);
  s.now = now;
  return s;
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a group that has handled everything is caught up") {
  Standing s = standing();
  s.lag_events = 0;
  CHECK(why_of(s).cause == Cause::caught_up);
  CHECK(why_of(s).next.empty());
}

TEST_CASE("held keys are named when they are all that is left, and block nobody") {
  Standing s = standing();
  s.lag_events = 0;
  s.letters = 12;
  s.held_keys = 1;
  const Why why = why_of(s);
  CHECK(why.cause == Cause::held_keys);
  CHECK(has(why.text, "12 events of 1 held key"));
  CHECK(why.next == "continuum dead ls -t forum -g mail -p 3");
}

TEST_CASE("no owner: nobody has the lease, or its holder is silent") {
  Standing s = standing();
  s.owner = Standing::Owner::none;
  CHECK(why_of(s).cause == Cause::no_owner);
  CHECK(has(why_of(s).next, "continuum work -t forum -g mail --partition 3"));
  s.owner = Standing::Owner::silent;
  CHECK(why_of(s).cause == Cause::no_owner);
  CHECK(has(why_of(s).text, "host:17 is silent"));
}

TEST_CASE("a handler that takes long is named with its event and how long it has had it") {
  Standing s = standing();
  s.state.handler = "index";
  s.state.at = Offset(40);
  s.state.since = now - 90s;
  const Why why = why_of(s);
  CHECK(why.cause == Cause::handler_running);
  CHECK(has(why.text, "offset 40"));
  CHECK(has(why.text, "index"));
  CHECK(has(why.next, "--from-offset 40"));
}

TEST_CASE("retrying names the handler, the attempts and the error") {
  Standing s = standing();
  s.state.state = "retrying";
  s.state.handler = "index";
  s.state.at = Offset(40);
  s.state.since = now - 5s;
  s.state.attempt = 3;
  s.state.error = "exit status 1";
  const Why why = why_of(s);
  CHECK(why.cause == Cause::retrying);
  CHECK(has(why.text, "exit status 1"));
  CHECK(has(why.text, "3"));
}

TEST_CASE("halted is named with or without a worker, and how to pass the event") {
  Standing s = standing();
  s.state.state = "halted";
  s.state.at = Offset(40);
  s.state.error = "exit status 1";
  for (const auto owner : {Standing::Owner::alive, Standing::Owner::none}) {
    s.owner = owner;
    CHECK(why_of(s).cause == Cause::halted);
    CHECK(has(why_of(s).next, "continuum group skip -t forum -g mail -p 3"));
  }
}

TEST_CASE("the limit of held events, and a handler that is down") {
  Standing s = standing();
  s.state.state = "full";
  s.letters = 100'000;
  CHECK(why_of(s).cause == Cause::held_limit);
  s.state.state = "down";
  s.state.error = "cannot start ./index: No such file or directory";
  CHECK(why_of(s).cause == Cause::handler_down);
  CHECK(has(why_of(s).text, "no event is to blame"));
  CHECK(has(why_of(s).text, "No such file"));
}

TEST_CASE("paused says by whom, also when there is nothing to do") {
  Standing s = standing();
  s.state.paused = "ann@host: deploy";
  for (const std::uint64_t lag : {std::uint64_t{17}, std::uint64_t{0}}) {
    s.lag_events = lag;
    CHECK(why_of(s).cause == Cause::paused);
    CHECK(has(why_of(s).text, "ann@host: deploy"));
    CHECK(why_of(s).next == "continuum group resume -t forum -g mail -p 3");
  }
}

TEST_CASE("a server that refuses writes is the cause, whatever the worker was at") {
  Standing s = standing();
  s.state.state = "retrying";
  s.writes = Standing::Writes::refused;
  s.refusal = "MISCONF: it cannot save to disk";
  CHECK(why_of(s).cause == Cause::server_refuses);
  CHECK(has(why_of(s).text, "MISCONF"));
  // A full one only matters to what grows.
  s.writes = Standing::Writes::refused_when_growing;
  CHECK(why_of(s).cause == Cause::retrying);
  s.state.state = "running";
  CHECK(why_of(s).cause == Cause::server_refuses);
}

TEST_CASE("a barrier says which partition has not passed it") {
  Standing s = standing();
  s.barrier = Generation(2);
  CHECK(why_of(s).cause == Cause::barrier);
  CHECK(has(why_of(s).text, "generation 1 is still in force"));
  s.active = Generation(2);
  s.behind = {Partition(5)};
  CHECK(has(why_of(s).text, "partition 5 has not passed it"));
}

TEST_CASE("what moves needs nothing, and loss comes before everything") {
  Standing s = standing();
  s.motion = Standing::Motion::moving;
  CHECK(why_of(s).cause == Cause::moving);
  CHECK(why_of(s).next.empty());
  s.loss = "offsets 3 to 9 are gone";
  s.state.paused = "ann";
  CHECK(why_of(s).cause == Cause::loss);
}

TEST_CASE("bytes of an event in an error reach no terminal") {
  Standing s = standing();
  s.state.state = "retrying";
  s.state.error = "\x1b[2Jgone";
  CHECK_FALSE(has(why_of(s).text, "\x1b"));
}
