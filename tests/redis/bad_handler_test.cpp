// Handlers that misbehave: what is said, what becomes of the event, and that the worker lives.
#include "redis/work.hpp"

#include <signal.h>

#include <cstdlib>
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

// One event, or one of each key, and a handler that gets one attempt at each.
struct Bad : Work {
  explicit Bad(const std::vector<std::string>& keys = {"a"}) {
    std::vector<std::string> lines;
    for (const std::string& key : keys) {
      lines.push_back(event_line(std::to_string(lines.size()), key));
    }
    data().append(0, lines);
    handler().on_failure = OnFailure::hold_key;
    handler().attempts_max = 1;
  }
  // Why the only dead letter is one.
  [[nodiscard]] std::string reason() {
    const auto all = letters();
    REQUIRE(all.size() == 1);
    return all[0].reason;
  }
  [[nodiscard]] bool has_said(const std::string& text) const {
    return said().find(text) != std::string::npos;
  }
};

}  // namespace

TEST_CASE("a handler that may not be executed is told at the start") {
  Bad work;
  test::write_file(work.file("program"), "#!/bin/sh\n");
  work.handler().command = {work.file("program")};
  std::string message;
  CHECK(kind_of([&] { (void)work.run(); }, &message) == ErrorKind::usage);
  CHECK(message == "the handler " + work.file("program") + " cannot be run: Permission denied");
}

TEST_CASE("a handler that is killed by a signal has failed, and the signal is named") {
  for (const auto mode : {HandlerMode::exec, HandlerMode::stream}) {
    CAPTURE(static_cast<int>(mode));
    Bad work({"a", "b"});
    work.handle(mode == HandlerMode::exec ? "test $CONTINUUM_KEY = a && kill -SEGV $$; exit 0"
                                          : "while read -r l; do case $l in *'key\":\"a\"'*) kill -SEGV $$;; "
                                            "*) echo ok;; esac; done",
                mode);
    CHECK(work.run().handled == 1);
    CHECK(work.reason() == "sh: killed by signal 11 (Segmentation fault)");
  }
}

TEST_CASE("a handler that hangs is killed when its time is over, and others get their events") {
  for (const auto mode : {HandlerMode::exec, HandlerMode::stream}) {
    CAPTURE(static_cast<int>(mode));
    Bad work({"a", "b"});
    work.handler().timeout = 100ms;
    work.handle(mode == HandlerMode::exec
                    ? "test $CONTINUUM_KEY = a && exec sleep 1000; exit 0"
                    : "while read -r l; do case $l in *'key\":\"a\"'*) sleep 1000;; *) echo ok;; esac; done",
                mode);
    CHECK(work.run().handled == 1);
    CHECK(work.reason() == (mode == HandlerMode::exec
                                ? "the handler did not end within 100 ms and was killed"
                                : "the handler gave no verdict within 100 ms: is its output buffered? Try "
                                  "python -u, stdbuf -oL, or fflush after each verdict"));
  }
}

TEST_CASE("a flood on stderr is drained, bounded, and does not stand in the way") {
  Bad work;
  work.handle("yes 'all is not well' | head -c 100000000 >&2; head -c 100000000 /dev/zero >&2");
  CHECK(work.run().handled == 1);
  CHECK(work.has_said("handler sh: all is not well"));
  CHECK(work.has_said("further lines on stderr not shown"));
  CHECK(work.said().size() < 1'000'000);
}

TEST_CASE("a handler that does not read its event, or closes its stdin, is fine") {
  for (const std::string line : {"exit 0", "exec <&-; exit 0", "exec <&- >&-; exit 0"}) {
    CAPTURE(line);
    Bad work({"a", "b", "c"});
    work.handle(line);
    CHECK(work.run().handled == 3);
  }
}

TEST_CASE("a stream handler that closes its stdin gets no event any more, and is ended") {
  Bad work;
  work.handle(
      "read -r l; exec <&-; test -e $DIR/again && echo ok && exit 0; touch $DIR/again; exec sleep 1000",
      HandlerMode::stream);
  work.handler().attempts_max = 2;
  CHECK(work.run().handled == 1);
  CHECK(work.has_said("the handler closed its stdin and did not end; trying again"));
}

TEST_CASE("half a verdict is none, and what was written of it is told") {
  Bad work({"a", "b", "c"});
  work.handle(
      "while read -r l; do case $l in *'key\":\"b\"'*) test -e $DIR/again || { touch $DIR/again; printf o; "
      "exit 0; };; esac; echo ok; done",
      HandlerMode::stream);
  work.handler().attempts_max = 2;
  CHECK(work.run().handled == 3);
  CHECK(work.has_said("exit status 0 in the middle of the line \"o\""));
  CHECK(work.letters().empty());
}

TEST_CASE("a child that lives on holds nothing up") {
  for (const std::string child :
       {"sleep 1000 & echo $! >>$DIR/children", "setsid sleep 1000 & echo $! >>$DIR/children"}) {
    for (const auto mode : {HandlerMode::exec, HandlerMode::stream}) {
      CAPTURE(child);
      CAPTURE(static_cast<int>(mode));
      Bad work({"a", "b"});
      work.handler().attempts_max = 2;
      const auto started = std::chrono::steady_clock::now();
      work.handle(mode == HandlerMode::exec ? child : "read -r l; " + child + "; echo ok", mode);
      CHECK(work.run().handled == 2);
      CHECK(std::chrono::steady_clock::now() - started < 4s);
      // One that has left its process group is nobody's any more.
      std::istringstream children(test::read_file(work.file("children")));
      for (pid_t pid = 0; child.starts_with("setsid") && children >> pid;) {
        ::kill(pid, SIGKILL);
      }
    }
  }
}

TEST_CASE("a verdict about an event that waits for none is told, and changes nothing") {
  Bad work({"a", "b"});
  work.handle("read -r l; echo ok 77; echo ok 0; echo ok 0; read -r l; echo ok 1; cat >/dev/null",
              HandlerMode::stream);
  CHECK(work.run().handled == 2);
  CHECK(work.has_said("the handler wrote \"ok 77\", but no such event waits for a verdict"));
  CHECK(work.has_said("the handler wrote \"ok 0\", but no such event waits for a verdict"));
  CHECK(work.letters().empty());
}

TEST_CASE("a gigabyte where a verdict should be is no verdict, line by line or in one") {
  for (const std::string output : {"head -c 1073741824 /dev/zero", "yes | head -c 1073741824"}) {
    CAPTURE(output);
    Bad work;
    work.handle("read -r l; " + output + "; sleep 1000", HandlerMode::stream);
    const auto started = std::chrono::steady_clock::now();
    CHECK(work.run().failed == 1);
    CHECK(work.reason().find("which is no verdict") != std::string::npos);
    CHECK(work.reason().size() < 1'000);
    CHECK(work.said().size() < 10'000);
    CHECK(std::chrono::steady_clock::now() - started < 5s);
  }
}

TEST_CASE("a stream handler that answers nothing and ends is down, and no event is to blame") {
  Bad work;
  work.handle("read -r l; test -e $DIR/again && echo ok && exit 0; touch $DIR/again; exit 3",
              HandlerMode::stream);
  CHECK(work.run().handled == 1);
  CHECK(work.has_said("the handler is down: sh: exit status 3 before its first verdict"));
  CHECK(work.letters().empty());
}

TEST_CASE("several processes of a stream handler share the keys, and each key keeps its order") {
  Work work;
  std::vector<std::string> lines;
  std::map<std::string, int> sent;
  for (int i = 0; i < 600; ++i) {
    const std::string key = std::to_string((i * 7) % 40);
    lines.push_back(event_line(std::to_string(++sent[key]), key));
  }
  work.data().append(0, lines);
  work.handler().concurrency = 4;
  // PID KEY NUMBER, one write each.
  work.handle(
      "while read -r l; do k=${l##*partitionkey\\\":\\\"}; n=${l##*n\\\":\\\"}; "
      "echo $$ ${k%%\\\"*} ${n%%\\\"*} >>$OUT; sleep 0.001; echo ok; done",
      HandlerMode::stream);
  CHECK(work.run().handled == 600);
  std::set<std::string> processes;
  std::map<std::string, int> last;
  std::istringstream handled(work.handled());
  std::string process;
  std::string key;
  for (int n = 0; handled >> process >> key >> n;) {
    processes.insert(process);
    CHECK(n == ++last[key]);
  }
  CHECK(processes.size() == 4);
  CHECK(last == sent);
}

TEST_CASE("verdicts on descriptor 3 leave stdout to the handler") {
  Work work;
  work.data().append(0, {event_line("1", "a"), event_line("2", "b")});
  work.handler().verdicts = VerdictsOn::descriptor_3;
  work.handle("while read -r l; do echo ok, or so; echo ok >&3; done", HandlerMode::stream);
  CHECK(work.run().handled == 2);
  CHECK(work.said().find("handler sh: ok, or so") != std::string::npos);
  CHECK(work.said().find("no verdict") == std::string::npos);
}

TEST_CASE("handlers of a directory that are all switched off are none, also behind a barrier") {
  Work work;
  const auto handler = [&](bool enabled) {
    std::filesystem::create_directory(work.file("handlers"));
    test::write_file(work.file("handlers/.new"),
                     "command = [\"sh\", \"-c\", \"echo $CONTINUUM_OFFSET >>$OUT\"]\nenabled = " +
                         std::string(enabled ? "true" : "false") + "\n");
    std::filesystem::rename(work.file("handlers/.new"), work.file("handlers/h.toml"));
  };
  handler(true);
  work.options().handlers_directory = work.file("handlers");
  auto& data = work.data();
  data.append(0, {event_line("0", "a")});
  Running running(work);
  const auto passed = [&](std::uint64_t offset) {
    return [&work, offset] { return work.state().cursor.offset == Offset(offset); };
  };
  await("it is handled", passed(1));
  handler(false);
  await("it is out of service", [&] { return work.said().find("\n") != std::string::npos; });
  data.append(0, {event_line("1", "a")});
  await("it is passed", passed(2));
  data.command("HSET", topic_key("t"), "gen:2", data.topic().ring().text(), "active", 2);
  data.seal(0, 2, "old");
  data.append(0, {event_line("2", "a")}, Frames::plain, 2);
  await("it is passed", passed(3));
  handler(true);
  std::uint64_t offset = 3;
  await("it is in service again", [&] {
    data.append(0, {event_line(std::to_string(offset), "a")}, Frames::plain, 2);
    await("it is passed", passed(++offset));
    return work.handled().size() > 2;
  });
  (void)running.stop();
  CHECK(work.handled().starts_with("0\n"));
  CHECK(work.handled().find("2\n") == std::string::npos);
}
