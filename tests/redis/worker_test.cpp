// A worker against a real server: what is handled, what is committed, and what is refused.
#include "redis/work.hpp"

#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;

using test::kind_of;
using test::Work;

namespace {

std::string offsets_of(const std::string& lines) {
  std::string out;
  for (std::size_t at = lines.find("\"offset\":"); at != std::string::npos;
       at = lines.find("\"offset\":", at + 1)) {
    out += std::to_string(std::atoi(lines.c_str() + at + 9)) + " ";
  }
  return out;
}

}  // namespace

TEST_CASE("events are printed in order, with where they lie, and committed") {
  Work work;
  work.data().append(0, {test::event_line("1", "a"), test::event_line("2", "b")});
  const auto last = work.data().append(0, {test::event_line("3", "a")}, Frames::automatic);
  CHECK(work.run().handled == 3);
  CHECK(work.printed().starts_with(R"({"partition":0,"offset":0,"specversion":"1.0","id":"1",)"));
  CHECK(offsets_of(work.printed()) == "0 1 2 ");
  CHECK(work.state().cursor.offset == Offset(3));
  CHECK(work.state().cursor.entry.text() == last);
  CHECK(work.state().passed == Generation(1));
  CHECK(work.state().owner.empty());
  // A second run has nothing to do.
  CHECK(work.run().handled == 0);
  CHECK(work.printed().empty());
}

TEST_CASE("only the data are printed when that is asked for") {
  Work work;
  work.data().append(0, {test::event_line("1", "a"), test::event_line("2", "b")});
  work.options().printing = Printing::data;
  CHECK(work.run().handled == 2);
  CHECK(work.printed() == "{\"n\":\"1\"}\n{\"n\":\"2\"}\n");
}

TEST_CASE("events of other types count as done and are not printed") {
  Work work;
  work.data().append(0, {test::event_line("1", "a", "like"), test::event_line("2", "b", "post.created")});
  work.options().types = {"post.*"};
  CHECK(work.run().handled == 1);
  CHECK(offsets_of(work.printed()) == "1 ");
  CHECK(work.state().cursor.offset == Offset(2));
}

TEST_CASE("a limit of events is exact, and the next run goes on inside of the entry") {
  for (const bool by_handler : {false, true}) {
    CAPTURE(by_handler);
    Work work;
    work.data().append(0,
                       {test::event_line("1", "a"), test::event_line("2", "b"), test::event_line("3", "c")});
    work.data().append(0, {test::event_line("4", "d")});
    if (by_handler) {
      work.handle("cat >>$OUT");
    }
    const auto seen = [&] { return offsets_of(by_handler ? work.handled() : work.printed()); };
    work.options().events_max = 2;
    CHECK(work.run().handled == 2);
    CHECK(seen() == "0 1 ");
    CHECK(work.state().cursor.offset == Offset(2));
    work.options().events_max.reset();
    CHECK(work.run().handled == 2);
    CHECK(seen() == (by_handler ? "0 1 2 3 " : "2 3 "));
  }
}

TEST_CASE("a failed attempt is repeated, and its number told") {
  Work work;
  work.data().append(0, {test::event_line("1", "a"), test::event_line("2", "a")});
  work.handle(
      "echo $CONTINUUM_OFFSET.$CONTINUUM_ATTEMPT >>$OUT; test $CONTINUUM_OFFSET = 1 -o $CONTINUUM_ATTEMPT = "
      "3");
  CHECK(work.run().handled == 2);
  CHECK(work.handled() == "0.1\n0.2\n0.3\n1.1\n");
}

TEST_CASE("exit status 75 is tried again without counting") {
  Work work;
  work.data().append(0, {test::event_line("1", "a")});
  work.handler().attempts_max = 1;
  work.handle("echo $CONTINUUM_ATTEMPT >>$OUT; test $(wc -l <$OUT) -ge 4 || exit 75");
  CHECK(work.run().handled == 1);
  CHECK(work.handled() == "1\n1\n1\n1\n");
}

TEST_CASE("a handler that is down is waited for without counting") {
  Work work;
  work.data().append(0, {test::event_line("1", "a")});
  work.handler().attempts_max = 1;
  work.handle("echo x >>$OUT; test $(wc -l <$OUT) -ge 3 || exit 127");
  CHECK(work.run().handled == 1);
  CHECK(work.said().find("the handler is down") != std::string::npos);
  CHECK(work.said().find("works again") != std::string::npos);
}

TEST_CASE("an event that uses up its attempts halts its partition and no other") {
  for (const auto mode : {HandlerMode::exec, HandlerMode::stream}) {
    CAPTURE(static_cast<int>(mode));
    Work work(2);
    work.data().append(
        0, {test::event_line("good", "a"), test::event_line("bad", "b"), test::event_line("later", "b")});
    work.data().append(1, {test::event_line("other", "c")});
    work.handler().attempts_max = 2;
    work.handle(mode == HandlerMode::exec
                    ? "grep -v '\"id\":\"bad\"' >>$OUT"
                    : "while read -r l; do case $l in *'\"id\":\"bad\"'*) echo retry 'broken \x1b[31m';; "
                      "*) echo \"$l\" >>$OUT; echo ok;; esac; done",
                mode);
    const auto summary = work.run();
    REQUIRE(summary.halted.size() == 1);
    CHECK(summary.halted[0] == Partition(0));
    CHECK(summary.handled == 2);
    CHECK(work.handled().find("later") == std::string::npos);
    const auto state = work.state();
    CHECK(state.state == "halted");
    CHECK(state.at == Offset(1));
    CHECK(state.attempt == 2);
    CHECK(state.cursor.offset == Offset(1));
    CHECK(state.owner.empty());
    CHECK(work.said().find("offset 1, id \"bad\", key b: gave up after 2 attempts") != std::string::npos);
    CHECK(work.said().find('\x1b') == std::string::npos);
    CHECK(work.state(1).cursor.offset == Offset(1));
  }
}

TEST_CASE("one verdict may name its event, and out of order") {
  Work work;
  work.data().append(0, {test::event_line("1", "a"), test::event_line("2", "b"), test::event_line("3", "c")});
  work.handle("read -r a; read -r b; read -r c; echo ok 2; echo ok 0; echo ok 1; cat >/dev/null",
              HandlerMode::stream);
  CHECK(work.run().handled == 3);
  CHECK(work.state().cursor.offset == Offset(3));
}

TEST_CASE("what is no verdict ends the process and is an attempt of the oldest event") {
  Work work;
  work.data().append(0, {test::event_line("1", "a"), test::event_line("2", "b")});
  work.handler().attempts_max = 1;
  work.handle("read -r a; echo starting; echo ok; echo ok; sleep 1000", HandlerMode::stream);
  const auto summary = work.run();
  CHECK(summary.handled == 0);
  CHECK(summary.halted.size() == 1);
  CHECK(work.said().find("\"starting\", which is no verdict") != std::string::npos);
}

TEST_CASE("a stream handler that crashes costs its oldest event an attempt and the others nothing") {
  Work work;
  std::vector<std::string> events;
  for (int i = 0; i < 20; ++i) {
    events.push_back(test::event_line(std::to_string(i), "k" + std::to_string(i)));
  }
  work.data().append(0, events);
  work.handler().attempts_max = 3;
  work.handler().on_failure = OnFailure::hold_key;
  work.handle(
      "while read -r l; do echo \"$l\" >>$OUT; case $l in *'\"id\":\"7\"'*) exit 9;; esac; echo ok; done",
      HandlerMode::stream);
  const auto summary = work.run();
  CHECK(summary.handled == 19);
  CHECK(summary.failed == 1);
  CHECK(work.state().cursor.offset == Offset(20));
  CHECK(work.said().find("offset 7") != std::string::npos);
  CHECK(work.said().find("offset 8") == std::string::npos);
}

TEST_CASE("a silent stream handler is told about buffering when its time is over") {
  Work work;
  work.data().append(0, {test::event_line("1", "a")});
  work.handler().attempts_max = 1;
  work.handler().timeout = 50ms;
  work.handle("exec sleep 1000", HandlerMode::stream);
  CHECK(work.run().halted.size() == 1);
  CHECK(work.said().find("fflush") != std::string::npos);
}

TEST_CASE("a handler that hangs is killed after its time, with what it started") {
  Work work;
  work.data().append(0, {test::event_line("1", "a")});
  work.handler().attempts_max = 1;
  work.handler().timeout = 50ms;
  work.handle("sleep 1000 & echo $! >$OUT; wait");
  CHECK(work.run().halted.size() == 1);
  // Killed, and gone as soon as init has seen it.
  const pid_t started = std::atoi(work.handled().c_str());
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (::kill(started, 0) == 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(1ms);
  }
  CHECK(::kill(started, 0) != 0);
}

TEST_CASE("a handler that does not read a large event is fine") {
  Work work;
  work.data().append(0, {test::event_line(std::string(900'000, 'x'), "a")});
  work.handle("exit 0");
  CHECK(work.run().handled == 1);
}

TEST_CASE("while somebody else has the lease a worker that will not wait is refused") {
  Work work;
  work.data().append(0, {test::event_line("1", "a")});
  work.data().command("HSET", Work::group(0), "owner", "x", "who", "other:1", "fence", "5", "ttl", "60000");
  work.options().standby = Standby::refuse;
  std::string message;
  CHECK(kind_of([&] { (void)work.run(); }, &message) == ErrorKind::fenced);
  CHECK(message.find("other:1") != std::string::npos);
}

TEST_CASE("a lease that stands still for its own time is taken over, with a higher fence") {
  Work work;
  work.data().append(0, {test::event_line("1", "a")});
  work.data().command("HSET", Work::group(0), "owner", "dead", "who", "dead:1", "fence", "5", "beat", "3",
                      "ttl", "100");
  const auto started = std::chrono::steady_clock::now();
  CHECK(work.run().handled == 1);
  CHECK(std::chrono::steady_clock::now() - started >= 100ms);
  CHECK(work.state().fence > Fence(5));
  CHECK(work.said().find("dead:1 works it") != std::string::npos);
}

TEST_CASE("a worker that is fenced while it works commits nothing more and says so") {
  Work work;
  work.data().append(0, {test::event_line("1", "a"), test::event_line("2", "a")});
  // The first event's handler runs until somebody else has the lease.
  work.handle("echo started >>$OUT; exec sleep 1000");
  std::thread usurper([&] {
    const auto session = work.session();
    const auto call = [&](auto... words) {
      redis::Request request;
      request.command(words...);
      return session->call(std::move(request));
    };
    while (work.handled().empty()) {
      std::this_thread::sleep_for(1ms);
    }
    call("HSET", Work::group(0), "owner", "usurper", "fence", "9007199254740000");
  });
  CHECK(kind_of([&] { (void)work.run(); }) == ErrorKind::fenced);
  usurper.join();
  CHECK(work.state().cursor.offset == Offset(0));
  CHECK(work.state().owner == "usurper");
}

TEST_CASE("events that are gone from the log are reported with their range, and not skipped") {
  for (const bool all : {false, true}) {
    CAPTURE(all);
    Work work;
    work.options().lease = 300ms;
    const auto first = work.data().append(0, {test::event_line("1", "a"), test::event_line("2", "a")});
    const auto second = work.data().append(0, {test::event_line("3", "a")});
    work.data().command("XDEL", work.data().log(0), first);
    if (all) {
      work.data().command("XDEL", work.data().log(0), second);
    }
    std::string message;
    CHECK(kind_of([&] { (void)work.run(); }, &message) == ErrorKind::loss);
    CHECK(message.find("topic t, partition 0") != std::string::npos);
    CHECK(message.find(all ? "offsets 0 to 2" : "offsets 0 to 1") != std::string::npos);
    CHECK(work.state().cursor.offset == Offset(0));
    CHECK(work.state().owner.empty());
  }
}

TEST_CASE("a flipped byte in a frame is loss that names its offsets, and what was before it is committed") {
  Work work;
  work.data().append(0, {test::event_line("1", "a")});
  work.data().command("XADD", work.data().log(0), "*", "n", 1, "o", 1, "g", 1, "z", "no zstd frame");
  work.data().command("HSET", work.data().meta(0), "next", 2);
  std::string message;
  CHECK(kind_of([&] { (void)work.run(); }, &message) == ErrorKind::loss);
  CHECK(message.find("offsets 1 to 1") != std::string::npos);
  CHECK(work.state().cursor.offset <= Offset(1));
}

TEST_CASE("a log of another topic of the same name is loss") {
  Work work;
  work.data().append(0, {test::event_line("1", "a")});
  work.data().command("HSET", work.data().meta(0), "id", "another");
  CHECK(kind_of([&] { (void)work.run(); }) == ErrorKind::loss);
}

TEST_CASE("a group state that vanished is loss") {
  Work work;
  work.data().command("DEL", Work::group(0));
  CHECK(kind_of([&] { (void)work.run(); }) == ErrorKind::loss);
}

TEST_CASE("a resize is passed when every partition that gives keys has passed it") {
  Work work(2);
  auto& data = work.data();
  data.append(0, {test::event_line("1", "a")});
  data.append(1, {test::event_line("2", "b")});
  // The second generation gives partition 1 a larger share: it waits for partition 0.
  data.command("HSET", topic_key("t"), "gen:2", "xxh3:256:0,1*2", "active", 2);
  for (std::uint32_t p = 0; p < 2; ++p) {
    data.seal(p, 2, "old");
    data.append(p, {test::event_line("3", "c")}, Frames::plain, 2);
  }
  CHECK(work.run().handled == 4);
  for (std::uint32_t p = 0; p < 2; ++p) {
    CHECK(work.state(p).passed == Generation(2));
    CHECK(work.state(p).cursor.offset == Offset(2));
  }
}

TEST_CASE("asked to stop, a worker finishes what runs, commits and releases") {
  Work work;
  work.data().append(0, {test::event_line("1", "a"), test::event_line("2", "a")});
  work.options().ending = Ending::never;
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  work.options().requests_fd = ends[0];
  // The handler itself asks, and goes on for a while: it is still finished.
  work.options().environment.push_back("STOP=/proc/" + std::to_string(::getpid()) + "/fd/" +
                                       std::to_string(ends[1]));
  work.handle("printf t >$STOP; sleep 0.2; echo $CONTINUUM_OFFSET >>$OUT");
  const auto summary = work.run();
  ::close(ends[0]);
  ::close(ends[1]);
  CHECK(summary.handled == 1);
  CHECK_FALSE(summary.stopped_at_once);
  CHECK(work.handled() == "0\n");
  CHECK(work.state().cursor.offset == Offset(1));
  CHECK(work.state().owner.empty());
}

TEST_CASE("output that nobody reads any more ends the work without a word") {
  Work work;
  work.data().append(0, {test::event_line("1", "a")});
  work.options().ending = Ending::never;
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  ::close(ends[0]);
  const int closed = ends[1];
  work.options().output_fd = closed;
  const auto session = work.session();
  const auto summary = continuum::work(*session, work.data().topic(), work.options());
  ::close(closed);
  CHECK(summary.output_closed);
  CHECK(work.said().empty());
  CHECK(work.state().cursor.offset == Offset(0));
}
