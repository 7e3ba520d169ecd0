// G6: an event that fails stops its key and nothing else, whatever happens meanwhile.
#include "redis/work.hpp"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <set>
#include <sstream>

using namespace continuum;
using namespace std::chrono_literals;

using test::await;
using test::event_line;
using test::kind_of;
using test::Running;
using test::Work;

namespace {

const HandlerKey bad{"handler", "bad"};

// A poison key, until somebody mends it. Notes what it is called for, and what it does.
const std::string fails_bad =
    "echo \"$CONTINUUM_OFFSET.$CONTINUUM_ATTEMPT\" >>$DIR/calls; "
    "test $CONTINUUM_KEY != bad -o -e $DIR/mended || { echo broken >&2; exit 1; }; "
    "echo $CONTINUUM_OFFSET >>$OUT";

// Events of these keys, named after their offsets.
std::vector<std::string> events(const std::vector<std::string>& keys, std::uint64_t first = 0) {
  std::vector<std::string> lines;
  for (const std::string& key : keys) {
    lines.push_back(event_line(std::to_string(first++), key));
  }
  return lines;
}

std::string words(const std::string& lines) {
  std::string out = lines;
  std::replace(out.begin(), out.end(), '\n', ' ');
  return out;
}

std::string offsets_of(const std::vector<DeadLetter>& letters) {
  std::string out;
  for (const DeadLetter& letter : letters) {
    out += std::to_string(letter.offset.value) + " ";
  }
  return out;
}

std::string calls(const Work& work) {
  return words(test::read_file(work.file("calls")));
}

void mend(const Work& work) {
  test::write_file(work.file("mended"), "");
}

// A worker whose handler fails for the key "bad".
struct Poisoned : Work {
  explicit Poisoned(const std::vector<std::string>& keys) {
    if (!keys.empty()) {
      data().append(0, events(keys));
    }
    handler().on_failure = OnFailure::hold_key;
    handler().attempts_max = 2;
    handle(fails_bad);
  }
  [[nodiscard]] bool is_asked() { return held().keys.at(0).request.has_value(); }
  [[nodiscard]] bool nothing_held() { return held().keys.empty() && letters().empty(); }
};

// What the server may use from now on; 0: what it wants.
void limit_memory(Work& work, int bytes) {
  work.data().command("CONFIG", "SET", "maxmemory", bytes);
}

}  // namespace

TEST_CASE("a poison event holds its key, its later events are parked in order, and all other keys go on") {
  for (const auto mode : {HandlerMode::exec, HandlerMode::stream}) {
    CAPTURE(static_cast<int>(mode));
    Poisoned work({"bad", "a", "bad", "b", "bad", "a"});
    if (mode == HandlerMode::stream) {
      work.handle(
          "while read -r l; do case $l in *'key\":\"bad\"'*) echo retry broken;; *) echo \"$l\" | "
          "sed 's/.*offset\":\\([0-9]*\\),.*/\\1/' >>$OUT; echo ok;; esac; done",
          mode);
    }
    const auto summary = work.run();
    CHECK(summary.handled == 3);
    CHECK(summary.failed == 1);
    CHECK(summary.halted.empty());
    CHECK(words(work.handled()) == "1 3 5 ");
    CHECK(work.state().cursor.offset == Offset(6));
    CHECK(work.state().owner.empty());
    const auto letters = work.letters();
    REQUIRE(letters.size() == 3);
    CHECK(offsets_of(letters) == "0 2 4 ");
    CHECK(letters[0].state == LetterState::failed);
    CHECK(letters[0].attempts == 2);
    CHECK(letters[0].reason.find(mode == HandlerMode::exec ? "exit status 1" : "broken") !=
          std::string::npos);
    CHECK(letters[0].event == event_line("0", "bad"));
    CHECK(letters[0].time > SystemTime());
    CHECK(letters[1].state == LetterState::behind);
    CHECK(letters[2].state == LetterState::behind);
    REQUIRE(work.held().keys.size() == 1);
    CHECK(work.held().letters == 3);
    CHECK(work.held().keys[0].whose == bad);
    CHECK(work.held().keys[0].letters == 3);
    CHECK(work.held().keys[0].held == HeldKey::Held::yes);
    CHECK(work.said().find("offset 0, id \"0\", key bad: gave up after 2 attempts") != std::string::npos);
  }
}

TEST_CASE("a worker that comes later goes on holding the key, without trying it") {
  Poisoned work({"bad", "a"});
  (void)work.run();
  work.data().append(0, events({"bad", "a"}, 2));
  CHECK(work.run().handled == 1);
  CHECK(calls(work) == "0.1 0.2 1.1 3.1 ");
  CHECK(offsets_of(work.letters()) == "0 2 ");
}

TEST_CASE("a release that is asked for handles the key's events in order and sets it free") {
  for (const auto& [sharing, drained] : {std::pair(Sharing::pinned, false), std::pair(Sharing::pinned, true),
                                         std::pair(Sharing::shared, true)}) {
    CAPTURE(drained);
    CAPTURE(static_cast<int>(sharing));
    Poisoned work({"bad", "a", "bad", "bad"});
    work.options().sharing = sharing;
    (void)work.run();
    mend(work);
    const auto appended = [&] { work.data().append(0, events({"bad", "a"}, 4)); };
    if (drained) {
      // There is nothing else to be done: what was asked for is done nevertheless.
      CHECK(work.ask(bad) == Asked::yes);
      CHECK(work.run().handled == 3);
      CHECK(work.nothing_held());
      appended();
      CHECK(work.run().handled == 2);
    } else {
      Running running(work);
      CHECK(work.ask(bad) == Asked::yes);
      await("the key is free", [&] { return work.nothing_held(); });
      appended();
      await("later events are handled", [&] { return work.state().cursor.offset == Offset(6); });
      CHECK(running.stop().handled == 5);
    }
    CHECK(words(work.handled()) == "1 0 2 3 4 5 ");
    CHECK(calls(work) == "0.1 0.2 1.1 0.3 2.1 3.1 4.1 5.1 ");
    CHECK(work.nothing_held());
  }
}

TEST_CASE("a drained run waits until all letters of a release are handled, however long each takes") {
  for (const Sharing sharing : {Sharing::pinned, Sharing::shared}) {
    CAPTURE(static_cast<int>(sharing));
    Poisoned work({"bad", "bad", "bad"});
    work.options().sharing = sharing;
    (void)work.run();
    mend(work);
    work.handle("sleep 0.1; " + fails_bad);
    CHECK(work.ask(bad) == Asked::yes);
    CHECK(work.run().handled == 3);
    CHECK(work.nothing_held());
  }
}

TEST_CASE("a release of letters that lie behind many others does not wait") {
  Poisoned work({});
  std::vector<std::string> keys;
  for (int i = 0; i < 1'500; ++i) {
    keys.push_back(i % 3 == 0 ? "worse" : "bad");
  }
  keys.push_back("last");
  work.data().append(0, events(keys));
  work.handler().attempts_max = 1;
  work.options().lease = 60s;
  work.handle("test -e $DIR/mended || exit 65; echo $CONTINUUM_OFFSET >>$OUT");
  (void)work.run();
  REQUIRE(work.letters().size() == 1'501);
  mend(work);
  CHECK(work.ask({"handler", "last"}) == Asked::yes);
  const auto started = std::chrono::steady_clock::now();
  CHECK(work.run().handled == 1);
  CHECK(words(work.handled()) == "1500 ");
  CHECK(std::chrono::steady_clock::now() - started < 10s);
}

TEST_CASE("a release that fails again leaves everything where it was, says so, and ends") {
  Poisoned work({"bad", "bad"});
  (void)work.run();
  {
    Running running(work);
    CHECK(work.ask(bad) == Asked::yes);
    await("it is answered", [&] { return !work.is_asked(); });
    // Other events pass, and it is not tried on.
    work.data().append(0, events({"a", "bad", "a"}, 2));
    await("later events are handled", [&] { return work.state().cursor.offset == Offset(5); });
    CHECK(running.stop().failed == 1);
  }
  CHECK(calls(work) == "0.1 0.2 0.3 0.4 2.1 4.1 ");
  CHECK(offsets_of(work.letters()) == "0 1 3 ");
  const auto held = work.held();
  REQUIRE(held.keys.size() == 1);
  CHECK(held.letters == 3);
  CHECK(held.keys[0].held == HeldKey::Held::yes);
  REQUIRE(held.keys[0].failure);
  CHECK(held.keys[0].failure->attempts == 4);
  CHECK(held.keys[0].failure->reason.find("exit status 1") != std::string::npos);
  CHECK(work.said().find("failed again after its release") != std::string::npos);
  mend(work);
  CHECK(work.ask(bad) == Asked::yes);
  CHECK(work.run().handled == 3);
  CHECK(words(work.handled()) == "2 4 0 1 3 ");
  CHECK(work.nothing_held());
}

TEST_CASE("while letters are released the other keys of their handler go on") {
  Poisoned work({});
  work.data().append(0, events(std::vector<std::string>(40, "bad")));
  work.handler().attempts_max = 1;
  (void)work.run();
  REQUIRE(work.letters().size() == 40);
  mend(work);
  CHECK(work.ask(bad) == Asked::yes);
  work.data().append(0, events({"a", "b", "c"}, 40));
  (void)work.run();
  // In turn, and not behind all of them.
  std::istringstream handled(work.handled());
  std::vector<int> order(std::istream_iterator<int>(handled), {});
  REQUIRE(order.size() == 43);
  CHECK(std::find(order.begin(), order.end(), 42) - order.begin() < 20);
  order.erase(std::remove_if(order.begin(), order.end(), [](int offset) { return offset >= 40; }),
              order.end());
  CHECK(std::is_sorted(order.begin(), order.end()));
}

TEST_CASE("a second handler is not held up by one that fails, and does not get its events again") {
  for (const auto dispatch : {Dispatch::sequence, Dispatch::parallel}) {
    CAPTURE(static_cast<int>(dispatch));
    Work work;
    work.data().append(0, events({"bad", "a", "bad"}));
    work.handler().on_failure = OnFailure::hold_key;
    work.handler().attempts_max = 2;
    work.options().dispatch = dispatch;
    work.add_handler("first", fails_bad);
    work.add_handler("second", "echo $CONTINUUM_OFFSET >>$DIR/second");
    const auto second = [&] { return words(test::read_file(work.file("second"))); };
    CHECK(work.run().failed == 1);
    CHECK(work.held().keys.at(0).whose == HandlerKey{"first", "bad"});
    const std::string seen = second();
    CHECK(std::set<char>(seen.begin(), seen.end()) == std::set<char>{'0', '1', '2', ' '});
    CHECK(seen.size() == 6);
    CHECK(seen.find('0') < seen.find('2'));
    mend(work);
    CHECK(work.ask({"first", "bad"}) == Asked::yes);
    CHECK(work.run().handled == 2);
    CHECK(words(work.handled()) == "1 0 2 ");
    CHECK(second() == seen);
  }
}

TEST_CASE("an event that is skipped becomes a letter, and its key goes on") {
  Poisoned work({"bad", "a", "bad"});
  work.handler().on_failure = OnFailure::skip;
  CHECK(work.run().failed == 2);
  CHECK(calls(work) == "0.1 0.2 1.1 2.1 2.2 ");
  CHECK(offsets_of(work.letters()) == "0 2 ");
  CHECK(work.letters()[1].state == LetterState::skipped);
  REQUIRE(work.held().keys.size() == 1);
  CHECK(work.held().keys[0].held == HeldKey::Held::no);
  CHECK(work.said().find("It is skipped") != std::string::npos);
  // In vain: they stay. Then not.
  CHECK(work.ask(bad) == Asked::yes);
  CHECK(work.run().failed == 2);
  REQUIRE(work.held().keys.size() == 1);
  CHECK(work.held().keys[0].letters == 2);
  CHECK(work.held().keys[0].failure);
  CHECK_FALSE(work.is_asked());
  mend(work);
  CHECK(work.ask(bad) == Asked::yes);
  CHECK(work.run().handled == 2);
  CHECK(words(work.handled()) == "1 0 2 ");
  CHECK(work.nothing_held());
}

TEST_CASE("a skipped letter that is released does not run beside a later event of its key") {
  Poisoned work({"bad"});
  work.handler().on_failure = OnFailure::skip;
  work.handler().concurrency = 2;
  (void)work.run();
  mend(work);
  work.handle(
      "mkdir $DIR/lock || echo overlap >>$OUT; touch $DIR/began; while test -e $DIR/hold; do sleep 0.01; "
      "done; rmdir $DIR/lock; echo $CONTINUUM_OFFSET >>$OUT");
  test::write_file(work.file("hold"), "");
  work.data().append(0, events({"bad"}, 1));
  Running running(work);
  await("the later event runs",
        [&] { return !work.handled().empty() || ::access(work.file("began").c_str(), F_OK) == 0; });
  CHECK(work.ask(bad) == Asked::yes);
  // Seen by the worker, as an event of another key behind it shows.
  const auto requests = work.state().beat;
  await("the request is seen", [&] { return work.state().beat >= requests + 3; });
  std::filesystem::remove(work.file("hold"));
  await("nothing is held", [&] { return work.nothing_held(); });
  CHECK(running.stop().handled == 2);
  CHECK(words(work.handled()) == "1 0 ");
}

TEST_CASE("at the limit of held events the partition waits and says so, and goes on when there is room") {
  Poisoned work({"bad", "bad", "bad", "a", "bad"});
  work.options().held_events_max = 2;
  work.handler().attempts_max = 1;
  work.options().lease = 300ms;
  Running running(work);
  await("it says that it is full",
        [&] { return work.state().state == "full" && work.state().cursor.offset == Offset(2); });
  CHECK(work.state().error.find("2 events wait behind held keys") != std::string::npos);
  const auto first = work.letters().at(0).id;
  CHECK(work.ask(bad, {LetterRequest::What::discard, first, first}) == Asked::yes);
  await("there was room for one more", [&] { return work.state().cursor.offset == Offset(4); });
  CHECK(offsets_of(work.letters()) == "1 2 ");
  await("it is full again", [&] { return work.state().state == "full"; });
  mend(work);
  CHECK(work.ask(bad) == Asked::yes);
  await("everything is handled",
        [&] { return work.state().cursor.offset == Offset(5) && work.nothing_held(); });
  CHECK(running.stop().failed == 1);
  CHECK(words(work.handled()) == "3 1 2 4 ");
}

TEST_CASE("a handler whose program is gone for a while, as in a deploy, costs no event an attempt") {
  Work work;
  work.data().append(0, events({"a"}));
  work.handler().on_failure = OnFailure::hold_key;
  work.handler().attempts_max = 1;
  work.handler().command = {work.file("program")};
  const auto deploy = [&] {
    test::write_file(work.file("new"), "#!/bin/sh\necho $CONTINUUM_OFFSET.$CONTINUUM_ATTEMPT >>$OUT\n");
    std::filesystem::permissions(work.file("new"), std::filesystem::perms::owner_all);
    std::filesystem::rename(work.file("new"), work.file("program"));
  };
  deploy();
  Running running(work);
  await("it works", [&] { return work.state().cursor.offset == Offset(1); });
  for (const bool there : {false, true}) {
    CAPTURE(there);
    if (there) {
      std::filesystem::permissions(work.file("program"), std::filesystem::perms::owner_read);
    } else {
      std::filesystem::remove(work.file("program"));
    }
    const std::uint64_t offset = there ? 2 : 1;
    work.data().append(0, events({"a"}, offset));
    await("it is down", [&] { return work.state().state == "down"; });
    CHECK(work.state().error.find("cannot start " + work.file("program")) != std::string::npos);
    deploy();
    await("it goes on by itself", [&] { return work.state().cursor.offset == Offset(offset + 1); });
  }
  CHECK(running.stop().handled == 3);
  CHECK(words(work.handled()) == "0.1 1.1 2.1 ");
  CHECK(work.letters().empty());
}

TEST_CASE(
    "a handler that fails for everything is down: few keys are held, and all others go on by themselves") {
  for (const auto mode : {HandlerMode::exec, HandlerMode::stream}) {
    CAPTURE(static_cast<int>(mode));
    Work work(2);
    for (std::uint32_t p = 0; p < 2; ++p) {
      std::vector<std::string> keys;
      for (int i = 0; i < 60; ++i) {
        keys.push_back(std::to_string(p) + "-" + std::to_string(i % 30));
      }
      work.data().append(p, events(keys));
    }
    work.handler().on_failure = OnFailure::hold_key;
    work.handler().attempts_max = 3;
    work.handle(
        mode == HandlerMode::exec
            ? "test -e $DIR/mended || exit 1; echo $CONTINUUM_ATTEMPT >>$OUT"
            : "while read -r l; do test -e $DIR/mended && echo 1 >>$OUT && echo ok || echo retry; done",
        mode);
    Running running(work);
    await("it is down", [&] { return work.state(0).state == "down" && work.state(1).state == "down"; });
    CHECK(work.state(0).error.find("5 keys in a row") != std::string::npos);
    // It is tried on and on, and nothing more is given up.
    const auto beat = work.state().beat;
    await("it was tried again", [&] { return work.state().beat > beat + 2; });
    const auto given_up = [&] { return work.held(0).keys.size() + work.held(1).keys.size(); };
    CHECK(given_up() <= 5);
    mend(work);
    await("all goes on by itself", [&] {
      return work.state(0).cursor.offset == Offset(60) && work.state(1).cursor.offset == Offset(60);
    });
    const auto summary = running.stop();
    CHECK(given_up() <= 5);
    CHECK(summary.failed == given_up());
    CHECK(summary.handled == 120 - work.letters(0).size() - work.letters(1).size());
    // What failed meanwhile was not counted: an event that then fails has its attempts still.
    CHECK(work.handled().find('4') == std::string::npos);
    CHECK(work.said().find("works again") != std::string::npos);
  }
}

TEST_CASE("an event that is not to blame is tried for ever, and other keys go on") {
  Poisoned work({"bad", "a", "b"});
  work.handler().attempts_max = 1;
  work.handle(
      "echo $CONTINUUM_KEY.$CONTINUUM_ATTEMPT >>$DIR/calls; test $CONTINUUM_KEY != bad -o $(grep -c bad "
      "$DIR/calls) -gt 20 || exit 75; echo $CONTINUUM_OFFSET >>$OUT");
  CHECK(work.run().handled == 3);
  CHECK(words(work.handled()) == "1 2 0 ");
  CHECK(calls(work).find("bad.2") == std::string::npos);
  CHECK(work.letters().empty());
}

TEST_CASE("a paused group starts nothing, also from its beginning, and goes on when it is resumed") {
  Work work;
  work.data().append(0, events({"a"}));
  work.options().lease = 300ms;
  work.handle("echo $CONTINUUM_OFFSET >>$OUT");
  work.pause("ops: moving the database");
  Running running(work);
  await("it says that it is paused", [&] { return work.state().state == "paused"; });
  CHECK(work.state().error == "ops: moving the database");
  const auto beat = work.state().beat;
  await("it keeps its lease", [&] { return work.state().beat > beat + 3; });
  CHECK(work.handled().empty());
  work.pause("");
  await("it goes on", [&] { return work.state().cursor.offset == Offset(1); });
  work.pause("again");
  await("it is paused again", [&] { return work.state().state == "paused"; });
  work.data().append(0, events({"a"}, 1));
  const auto later = work.state().beat;
  await("it keeps its lease", [&] { return work.state().beat > later + 3; });
  CHECK(work.state().cursor.offset == Offset(1));
  CHECK(running.stop().handled == 1);
  CHECK(words(work.handled()) == "0 ");
}

TEST_CASE("a full server: no failed event is lost, the lease is kept, and it goes on when there is memory") {
  Work work(2);
  work.data().append(0, events({"bad", "a"}));
  work.data().append(1, events({"a", "b"}));
  work.handler().on_failure = OnFailure::hold_key;
  work.handler().attempts_max = 1;
  work.handle(fails_bad);
  work.options().lease = 300ms;
  limit_memory(work, 1);
  Running running(work);
  await("it says what is wrong", [&] { return work.state().state == "refused"; });
  CHECK(work.state().error.find("maxmemory") != std::string::npos);
  const GroupState before = work.state();
  // Longer than the lease, several times.
  await("it keeps its lease", [&] { return work.state().beat > before.beat + 10; });
  CHECK(work.state().fence == before.fence);
  CHECK(work.state().cursor.offset == Offset(0));
  CHECK(work.letters().empty());
  // A commit that needs no memory does not wait.
  CHECK(work.state(1).cursor.offset == Offset(2));
  limit_memory(work, 0);
  await("it goes on", [&] { return work.state().cursor.offset == Offset(2); });
  CHECK(offsets_of(work.letters()) == "0 ");
  work.data().append(0, events({"c", "bad"}, 2));
  await("as before", [&] { return work.state().cursor.offset == Offset(4); });
  CHECK(offsets_of(work.letters()) == "0 3 ");
  CHECK(work.state().state == "running");
  CHECK(running.stop().failed == 1);
  CHECK(work.said().find("ran out") == std::string::npos);
}

TEST_CASE(
    "a server that stays full: a worker that gives up, or is told to, passes no event whose letter is not "
    "stored") {
  for (const bool told : {false, true}) {
    CAPTURE(told);
    Poisoned work({"bad", "a"});
    work.handler().attempts_max = 1;
    work.retry_for = told ? 60s : 200ms;
    limit_memory(work, 1);
    {
      Running running(work);
      await("it waits", [&] { return work.said().find("maxmemory") != std::string::npos; });
      if (told) {
        CHECK(running.stop_at_once().stopped_at_once);
      } else {
        await("it gave up", [&] { return work.state().owner.empty(); });
        CHECK(kind_of([&] { (void)running.stop(); }) == ErrorKind::server);
      }
    }
    CHECK(work.state().owner.empty());  // nobody has to wait for its lease
    CHECK(work.state().cursor.offset == Offset(0));
    limit_memory(work, 0);
    CHECK(work.run().failed == 1);
    CHECK(offsets_of(work.letters()) == "0 ");
    CHECK(work.state().cursor.offset == Offset(2));
  }
}

TEST_CASE("what a fenced worker wanted to set aside is not stored, and what its successor does is") {
  Poisoned work({"bad", "a"});
  // Another one has the lease before the verdict is known.
  work.handle("redis-cli -s $SOCKET HSET '" + Work::group(0) +
              "' fence 9007199254740000 owner usurper who other:1 >/dev/null; exit 65");
  CHECK(kind_of([&] { (void)work.run(); }) == ErrorKind::fenced);
  CHECK(work.letters().empty());
  CHECK(work.held().keys.empty());
  CHECK(work.state().cursor.offset == Offset(0));
  work.data().command("HSET", Work::group(0), "owner", "");
  work.handle(fails_bad);
  CHECK(work.run().failed == 1);
  CHECK(offsets_of(work.letters()) == "0 ");
}

TEST_CASE(
    "a worker that is killed before its commit: the event is handled again, and there is one letter of it") {
  Poisoned work({"bad", "a"});
  work.handler().attempts_max = 1;
  work.options().lease = 300ms;
  // Full, so that the commit is on its way for as long as we like.
  limit_memory(work, 1);
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    work.options().ending = Ending::never;
    try {
      (void)work.run();
    } catch (const Error&) {
    }
    ::_exit(0);
  }
  await("its commit waits", [&] { return work.state().state == "refused"; });
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  limit_memory(work, 0);
  CHECK(work.letters().empty());
  CHECK(work.run().failed == 1);
  CHECK(offsets_of(work.letters()) == "0 ");
  CHECK(work.held().letters == 1);
  CHECK(calls(work) == "0.1 1.1 0.1 1.1 ");
}

TEST_CASE("a key that is held stays held behind a barrier, and a release goes on there") {
  Poisoned work({"bad", "a"});
  auto& data = work.data();
  data.command("HSET", topic_key("t"), "gen:2", data.topic().ring().text(), "active", 2);
  data.seal(0, 2, "old");
  data.append(0, events({"bad", "a"}, 2), Frames::plain, 2);
  CHECK(work.run().handled == 2);
  CHECK(work.state().passed == Generation(2));
  CHECK(calls(work) == "0.1 0.2 1.1 3.1 ");
  CHECK(offsets_of(work.letters()) == "0 2 ");
  mend(work);
  data.command("HSET", topic_key("t"), "gen:3", data.topic().ring().text(), "active", 3);
  data.seal(0, 3, "old");
  data.append(0, events({"bad"}, 4), Frames::plain, 3);
  CHECK(work.ask(bad) == Asked::yes);
  CHECK(work.run().handled == 3);
  CHECK(words(work.handled()) == "1 3 0 2 4 ");
  CHECK(work.nothing_held());
}

TEST_CASE("a worker that waits uses no processor, whatever it waits for") {
  const auto cpu = [] {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
  };
  enum class For { process, verdict, resumption, rate };
  for (const auto what : {For::process, For::verdict, For::resumption, For::rate}) {
    CAPTURE(static_cast<int>(what));
    Poisoned work({"bad", "a"});
    (void)work.run();
    work.handler().attempts_max = 100'000;
    work.handler().backoff_min = 50ms;
    work.data().append(0, events({"fails", "slow", "slow"}, 2));
    const std::string slow = "echo $CONTINUUM_OFFSET >>$DIR/began; ";
    if (what == For::verdict) {
      work.handle("read -r l; echo retry; echo x >>$DIR/began; while read -r l; do :; done",
                  HandlerMode::stream);
    } else if (what == For::process) {
      work.handle(slow + "test $CONTINUUM_KEY = slow && exec sleep 1000; exit 75");
    } else {
      work.handle(slow + "exit 75");
    }
    if (what == For::rate) {
      work.handler().rate_per_second = 0.01;
    }
    Running running(work);
    CHECK(work.ask(bad) == Asked::yes);  // letters wait, too
    await("it has begun", [&] { return ::access(work.file("began").c_str(), F_OK) == 0; });
    if (what == For::resumption) {
      work.pause("a while");
      await("it is paused", [&] { return work.state().state == "paused"; });
    }
    std::this_thread::sleep_for(300ms);  // until what failed is due again
    const double before = cpu();
    std::this_thread::sleep_for(500ms);
    CHECK(cpu() - before < 0.2);
    (void)running.stop_at_once();
  }
}
