// Handlers that get events of a replay: their order, what is given up, and what counts as accepted.
#include "redis/log_data.hpp"
#include "redis/server.hpp"

#include "continuum/handler_replay.hpp"
#include "continuum/replay.hpp"

#include <doctest/doctest.h>

#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

using namespace continuum;
using test::event_line;
using test::LogData;
using test::RedisServer;

namespace {

// A directory with a handler that writes down what it gets, and says what the test has put there.
class Place {
 public:
  Place() {
    std::string name = (std::filesystem::temp_directory_path() / "handler-replay-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Place() { std::filesystem::remove_all(path_); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  [[nodiscard]] HandlerSpec handler(const std::string& script) const {
    const std::string program = path_ / "handler";
    std::ofstream(program) << "#!/bin/sh\n" << script << "\n";
    ::chmod(program.c_str(), 0700);
    HandlerSpec spec;
    spec.name = std::string(command_line_handler);
    spec.command = {program};
    spec.working_directory = path_;
    spec.attempts_max = 1;
    spec.backoff_min = spec.backoff_max = Milliseconds(1);
    return spec;
  }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::vector<std::string> lines(const std::string& file) const {
    std::ifstream in(path_ / file);
    std::vector<std::string> out;
    for (std::string line; std::getline(in, line);) {
      out.push_back(line);
    }
    return out;
  }

 private:
  std::filesystem::path path_;
};

// Writes down the event's id, and fails those whose id begins with "bad".
constexpr const char* writes_ids = "echo \"$CONTINUUM_ID\" >>ids; case $CONTINUUM_ID in bad*) exit 1;; esac";

HandlerReplayOptions with(HandlerSpec spec) {
  HandlerReplayOptions options;
  options.handlers = {std::move(spec)};
  options.environment = {"PATH=/usr/bin:/bin"};
  return options;
}

// Where a later replay goes on.
ResumeAt play(Replay& replay, HandlerReplay& handlers) {
  while (const auto run = replay.next()) {
    handlers.give(*run);
  }
  handlers.finish();
  ResumeAt at = replay.resume_at();
  handlers.limit(at);
  return at;
}

// Partition 0, and then partition 1, where the keys go in the second generation.
void move_to_another_partition(LogData& data) {
  data.seal(0, 2, "old");
  data.seal(1, 2, "old");
  data.topic().active = Generation(2);
  data.topic().rings.emplace(Generation(2), RingDescription::uniform(2));
}

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE("handlers are done with a generation before the next one begins") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  data.append(0, {event_line("old1", "k"), event_line("old2", "k")});
  move_to_another_partition(data);
  data.append(1, {event_line("new1", "k"), event_line("new2", "k")}, Frames::plain, 2);
  const Place place;
  HandlerReplay handlers(
      data.topic(), with(place.handler("case $CONTINUUM_ID in old*) sleep 0.05;; esac; echo \"$CONTINUUM_ID "
                                       "$CONTINUUM_GENERATION\" >>ids")));
  Replay replay(*session, data.topic(), {});
  const ResumeAt at = play(replay, handlers);
  CHECK(place.lines("ids") == Strings{"old1 1", "old2 1", "new1 2", "new2 2"});
  CHECK(handlers.handled() == 4);
  CHECK(at.places.at(Partition(0)).offset == Offset(2));
  CHECK(at.places.at(Partition(1)).offset == Offset(2));
}

TEST_CASE("the key of an event that was given up is left out behind it, also where it has moved to") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  data.append(0, {event_line("1", "other"), event_line("bad", "k"), event_line("2", "other")});
  data.append(0, {event_line("left", "k"), event_line("3", "other")});
  move_to_another_partition(data);
  data.append(1, {event_line("4", "other"), event_line("moved", "k"), event_line("5", "other")},
              Frames::plain, 2);
  const Place place;
  std::vector<std::string> said;
  HandlerReplayOptions options = with(place.handler(writes_ids));
  options.say = [&](const std::string& text) { said.push_back(text); };
  ResumeAt at;
  {
    HandlerReplay handlers(data.topic(), options);
    Replay replay(*session, data.topic(), {});
    at = play(replay, handlers);
    CHECK(place.lines("ids") == Strings{"1", "bad", "2", "3", "4", "5"});
    CHECK(handlers.failed() == 1);
    CHECK(handlers.left_out() == 2);
    CHECK(handlers.unsettled() == 0);
    CHECK_FALSE(handlers.over());
  }
  REQUIRE(said.size() == 1);
  CHECK(said[0].find("topic t, partition 0, offset 1, id \"bad\", key k: gave up after 1 attempt") !=
        std::string::npos);
  CHECK(at.places.at(Partition(0)).offset == Offset(1));
  CHECK(at.places.at(Partition(1)).offset == Offset(1));

  // A later run has them in order.
  HandlerReplay handlers(data.topic(), with(place.handler("echo \"$CONTINUUM_ID\" >>again")));
  ReplayOptions from_there;
  from_there.range.resume = at;
  Replay replay(*session, data.topic(), from_there);
  const ResumeAt end = play(replay, handlers);
  CHECK(place.lines("again") == Strings{"bad", "2", "left", "3", "moved", "5"});
  CHECK(end.places.at(Partition(0)).offset == Offset(5));
  CHECK(end.places.at(Partition(1)).offset == Offset(3));
}

TEST_CASE("one handler's failure leaves the key to the others") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, {event_line("bad", "k"), event_line("2", "k"), event_line("3", "other")});
  const Place place;
  HandlerReplayOptions options = with(place.handler(writes_ids));
  options.handlers[0].name = "a";
  options.handlers.push_back(options.handlers[0]);
  options.handlers[1].name = "b";
  options.handlers[1].command = {"/bin/sh", "-c", "echo \"$CONTINUUM_ID\" >>b"};
  HandlerReplay handlers(data.topic(), options);
  Replay replay(*session, data.topic(), {});
  const ResumeAt at = play(replay, handlers);
  CHECK(place.lines("ids") == Strings{"bad", "3"});
  CHECK(place.lines("b") == Strings{"bad", "2", "3"});
  CHECK(handlers.handled() == 1);
  CHECK(handlers.failed() == 1);
  CHECK(handlers.left_out() == 1);
  CHECK(at.places.at(Partition(0)).offset == Offset(0));
}

TEST_CASE("what nobody chose leaves gaps that handlers pass, in the order of every key") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 3);
  std::mt19937 random(7);
  std::map<std::string, Strings> chosen;
  for (int entry = 0; entry < 60; ++entry) {
    std::vector<std::string> events;
    const auto partition = static_cast<std::uint32_t>(random() % 3);
    // Longer than a window, now and then.
    for (std::size_t n = random() % 20 == 0 ? 6'000 : 1 + random() % 9; n > 0; --n) {
      const std::string key = std::to_string(partition) + "-" + std::to_string(random() % 4);
      const std::string id = std::to_string(entry) + "." + std::to_string(n);
      const bool wanted = random() % 3 == 0 && events.size() < 12;
      events.push_back(event_line(id, key, wanted ? "wanted" : "other"));
      if (wanted) {
        chosen[key].push_back(id);
      }
    }
    data.append(partition, events);
  }
  const Place place;
  HandlerSpec spec = place.handler(
      "while read -r line; do echo \"$line\" | sed "
      "'s/.*\"id\":\"\\([^\"]*\\)\".*\"partitionkey\":\"\\([^\"]*\\)\".*/\\2 "
      "\\1/' >>ids; echo ok; done");
  spec.mode = HandlerMode::stream;
  HandlerReplay handlers(data.topic(), with(spec));
  ReplayOptions options;
  options.filter.types = {"wanted"};
  Replay replay(*session, data.topic(), options);
  const ResumeAt at = play(replay, handlers);
  std::map<std::string, Strings> got;
  for (const std::string& line : place.lines("ids")) {
    got[line.substr(0, line.find(' '))].push_back(line.substr(line.find(' ') + 1));
  }
  CHECK(got == chosen);
  for (const LogPlace& end : replay.ends()) {
    CHECK(at.places.at(end.partition).offset == end.next);
  }
}

TEST_CASE("a replay whose handler halts, or is asked to stop, has accepted what is done and no more") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 2);
  data.append(0, {event_line("1", "k"), event_line("2", "k")});
  data.append(0, {event_line("bad", "k"), event_line("4", "k")});
  move_to_another_partition(data);
  data.append(1, {event_line("not taken", "k")}, Frames::plain, 2);
  const Place place;
  SUBCASE("it halts") {
    HandlerReplayOptions options = with(place.handler(writes_ids));
    options.handlers[0].on_failure = OnFailure::halt;
    HandlerReplay handlers(data.topic(), options);
    Replay replay(*session, data.topic(), {});
    const ResumeAt at = play(replay, handlers);
    CHECK(handlers.over() == HandlerReplay::Over::halted);
    CHECK(place.lines("ids") == Strings{"1", "2", "bad"});
    CHECK(at.places.at(Partition(0)).offset == Offset(2));
    CHECK(at.places.at(Partition(1)).offset == Offset(0));
    CHECK(handlers.unsettled() == 3);
    CHECK(handlers.handled() == 2);
    CHECK(handlers.failed() == 1);
  }
  SUBCASE("it is asked to stop by its first event") {
    HandlerReplay handlers(
        data.topic(), with(place.handler("echo \"$CONTINUUM_ID\" >>ids; while [ ! -e go ]; do :; done")));
    const int stop = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    handlers.stop_by(stop);
    handlers.look_by([&] {
      if (!place.lines("ids").empty() && !handlers.over()) {
        const std::uint64_t one = 1;
        REQUIRE(::write(stop, &one, sizeof one) == sizeof one);
      } else if (handlers.over()) {
        std::ofstream(place.path() / "go") << "";
      }
    });
    Replay replay(*session, data.topic(), {});
    const ResumeAt at = play(replay, handlers);
    CHECK(handlers.over() == HandlerReplay::Over::stopped);
    CHECK(place.lines("ids") == Strings{"1"});
    CHECK(at.places.at(Partition(0)).offset == Offset(1));
    CHECK(at.places.at(Partition(1)).offset == Offset(0));
    ::close(stop);
  }
  SUBCASE("its time is over") {
    HandlerReplayOptions options = with(place.handler("exit 75"));
    options.time_max = Milliseconds(50);
    HandlerReplay handlers(data.topic(), options);
    Replay replay(*session, data.topic(), {});
    const ResumeAt at = play(replay, handlers);
    CHECK(handlers.over() == HandlerReplay::Over::time_max);
    CHECK(at.places.at(Partition(0)).offset == Offset(0));
    CHECK(handlers.handled() == 0);
  }
}

TEST_CASE("a handler that never ends is killed some time after the replay's") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, {event_line("1", "k")});
  const Place place;
  std::string said;
  HandlerReplayOptions options = with(place.handler("echo \"$CONTINUUM_ID\" >>ids; exec sleep 100"));
  options.time_max = Milliseconds(100);
  options.drain_within = Milliseconds(100);
  options.say = [&](const std::string& text) { said += text; };
  const auto began = std::chrono::steady_clock::now();
  {
    HandlerReplay handlers(data.topic(), options);
    Replay replay(*session, data.topic(), {});
    const ResumeAt at = play(replay, handlers);
    CHECK(handlers.over() == HandlerReplay::Over::time_max);
    CHECK(at.places.at(Partition(0)).offset == Offset(0));
    CHECK(handlers.handled() == 0);
  }
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(50));
  CHECK(said.find("what still runs, 100ms after the end, is killed") != std::string::npos);
}

TEST_CASE("a handler that never ends is killed some time after another event halted the replay") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, {event_line("slow", "a"), event_line("bad", "b")});
  const Place place;
  std::string said;
  HandlerReplayOptions options =
      with(place.handler("if test $CONTINUUM_ID = slow; then touch began; exec sleep 100; fi; "
                         "until test -e began; do sleep 0.01; done; exit 65"));
  options.handlers[0].on_failure = OnFailure::halt;
  options.handlers[0].concurrency = 2;
  options.drain_within = Milliseconds(100);
  options.say = [&](const std::string& text) { said += text; };
  const auto began = std::chrono::steady_clock::now();
  {
    HandlerReplay handlers(data.topic(), options);
    Replay replay(*session, data.topic(), {});
    const ResumeAt at = play(replay, handlers);
    CHECK(handlers.over() == HandlerReplay::Over::halted);
    CHECK(at.places.at(Partition(0)).offset == Offset(0));
  }
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(50));
  CHECK(said.find("what still runs, 100ms after the end, is killed") != std::string::npos);
}

TEST_CASE("what handlers have done is taken without waiting for more") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, {event_line("1", "k"), event_line("2", "k")});
  const Place place;
  HandlerReplay handlers(data.topic(), with(place.handler(writes_ids)));
  Replay replay(*session, data.topic(), {});
  while (const auto run = replay.next()) {
    handlers.give(*run);
  }
  const auto began = std::chrono::steady_clock::now();
  while (handlers.handled() < 2 && std::chrono::steady_clock::now() - began < std::chrono::seconds(20)) {
    handlers.go_on_until(began);
  }
  CHECK(handlers.handled() == 2);
  handlers.finish();
}

TEST_CASE("a handler that is down for too long ends the replay, and no event is to blame") {
  const RedisServer server;
  const auto session = server.session();
  LogData data(*session, 1);
  data.append(0, {event_line("1", "k")});
  const Place place;
  HandlerReplayOptions options = with(place.handler("exit 127"));
  options.down_max = Milliseconds(100);
  HandlerReplay handlers(data.topic(), options);
  Replay replay(*session, data.topic(), {});
  const ResumeAt at = play(replay, handlers);
  CHECK(handlers.over() == HandlerReplay::Over::down);
  CHECK(handlers.down().find("exit status 127") != std::string::npos);
  CHECK(handlers.failed() == 0);
  CHECK(at.places.at(Partition(0)).offset == Offset(0));
}
