// A worker whose handlers give out events, against a real server.
#include "redis/log_data.hpp"
#include "redis/server.hpp"
#include "redis/work.hpp"

#include "continuum/error.hpp"
#include "continuum/lease.hpp"
#include "continuum/worker.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;

namespace {

// One partition of topic t is handled; what handlers give out goes to one partition of topic u. The lease is
// longer than any of these tests, so that a slow machine handles nothing twice. A handler that writes t to
// $STOP asks the worker to end.
class Emitting {
 public:
  Emitting() : session_(server_.session()), data_(*session_, 1) {
    register_group(*session_, data_.topic(), "g", "start");
    create_topic(*session_, "u", RingDescription::uniform(1), {});
    options_.group = "g";
    options_.partitions = data_.topic().partitions();
    options_.ending = Ending::drained;
    REQUIRE(::pipe2(stop_, O_CLOEXEC) == 0);
    options_.requests_fd = stop_[0];
    options_.environment = {"PATH=/usr/bin:/bin", "OUT=" + directory_.file("handled"),
                            "SOCKET=" + server_.socket(),
                            "STOP=/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(stop_[1])};
    options_.lease = 60s;
    options_.say = [this](const std::string& text) {
      said_ += text + "\n";
      if (on_waiting_ && text.find("what is emitted waits") != std::string::npos) {
        std::exchange(on_waiting_, nullptr)();
      }
    };
    options_.emit_to = load_topic(*session_, "u");
    handler_.name = "h";
    handler_.attempts_max = 2;
    handler_.backoff_min = 1ms;
    handler_.backoff_max = 2ms;
    handler_.on_failure = OnFailure::skip;
  }
  ~Emitting() {
    ::close(stop_[0]);
    ::close(stop_[1]);
  }
  Emitting(const Emitting&) = delete;
  Emitting& operator=(const Emitting&) = delete;

  void append(std::uint32_t events) {
    std::vector<std::string> lines;
    for (std::uint32_t i = 0; i < events; ++i) {
      lines.push_back(test::event_line(std::to_string(i), "k" + std::to_string(i % 3)));
    }
    data_.append(0, lines);
  }
  void handle(const std::string& line, HandlerMode mode = HandlerMode::exec) {
    handler_.command = {"sh", "-c", line};
    handler_.mode = mode;
    options_.handlers = {handler_};
  }
  WorkSummary run() { return work(*session_, data_.topic(), options_); }

  // The data of what was emitted.
  [[nodiscard]] std::string emitted() {
    std::string out;
    for (const auto& line : test::stored_lines(*session_, "u", 0)) {
      const auto data = line.find("\"data\":") + 7;
      out += line.substr(data, line.size() - data - 1) + " ";
    }
    return out;
  }
  // The topic that is emitted to takes nothing from here on, until it is resized wholly.
  void seal_target() {
    // Not as pending: the worker would finish it.
    change({"HSET", topic_key("u"), "gen:2", "xxh3:256:0"});
    redis::Request request;
    request.run(redis::Script::seal, {meta_key("u", Partition(0)), log_key("u", Partition(0))},
                options_.emit_to->log_id, 2, "old");
    session_->call(std::move(request));
  }
  void activate_target() {
    change({"HSET", topic_key("u"), "pending", "2"});
    redis::Request request;
    request.run(redis::Script::activate, {topic_key("u")}, 2);
    session_->call(std::move(request));
  }
  // Like activate_target(), on a connection of its own: while run() has the other one. The server answers
  // nobody until `after`.
  void activate_target_from_elsewhere(Milliseconds after) {
    redis::Request request;
    request.command("CLIENT", "PAUSE", after.count(), "ALL");
    request.command("HSET", topic_key("u"), "pending", "2");
    request.run(redis::Script::activate, {topic_key("u")}, 2);
    server_.session()->call(std::move(request));
  }
  void stop() { CHECK(::write(stop_[1], "t", 1) == 1); }
  // Once, in run(), when it is told that the topic that is emitted to takes nothing.
  void when_emitted_waits(std::function<void()> then) { on_waiting_ = std::move(then); }
  redis::Replies change(const std::vector<std::string>& words) {
    redis::Request request;
    const std::vector<std::string_view> views(words.begin(), words.end());
    return session_->call(std::move(request.add(views)));
  }
  [[nodiscard]] std::uint64_t waiting() {
    return change({"XLEN", outbox_key("t", Partition(0), "g")})[0].number();
  }
  [[nodiscard]] GroupState state() {
    return *parse_group(change({"HGETALL", group_key("t", Partition(0), "g")})[0]);
  }

  // For another thread than the one in run().
  [[nodiscard]] std::unique_ptr<redis::Session> session() const { return server_.session(); }

  WorkOptions& options() { return options_; }
  test::LogData& data() { return data_; }
  HandlerSpec& handler() { return handler_; }
  [[nodiscard]] const std::string& said() const { return said_; }
  [[nodiscard]] std::string handled() const { return test::read_file(directory_.file("handled")); }

 private:
  test::RedisServer server_;
  test::TemporaryDirectory directory_;
  std::unique_ptr<redis::Session> session_;
  test::LogData data_;
  WorkOptions options_;
  HandlerSpec handler_;
  std::string said_;
  std::function<void()> on_waiting_;
  int stop_[2] = {-1, -1};
};

}  // namespace

TEST_CASE("what exec handlers print is in its topic when a drained run has ended") {
  Emitting work;
  work.append(3);
  work.handle("echo $CONTINUUM_OFFSET; test $CONTINUUM_OFFSET = 1 || echo true");
  CHECK(work.run().handled == 3);
  CHECK(work.emitted() == "0 true 1 2 true ");
  CHECK(work.waiting() == 0);
}

TEST_CASE("what stream handlers answer behind ok is in its topic") {
  Emitting work;
  work.append(4);
  work.handle(R"(n=0; while read -r line; do echo "ok [$n, {}]"; n=$((n + 1)); done)", HandlerMode::stream);
  CHECK(work.run().handled == 4);
  CHECK(work.emitted() == "0 {} 1 {} 2 {} 3 {} ");
}

TEST_CASE("only the run of a handler that was right emits") {
  Emitting work;
  work.append(1);
  SUBCASE("others failed") {
    work.handle("echo $CONTINUUM_ATTEMPT; test $CONTINUUM_ATTEMPT = 2");
    CHECK(work.run().handled == 1);
    CHECK(work.emitted() == "2 ");
  }
  SUBCASE("others printed what is no event") {
    work.handle("test $CONTINUUM_ATTEMPT = 2 || echo oops; echo $CONTINUUM_ATTEMPT");
    CHECK(work.run().handled == 1);
    CHECK(work.emitted() == "2 ");
    CHECK(work.said().find("output line 1: not JSON: expected a value, at byte 0; trying again") !=
          std::string::npos);
  }
  SUBCASE("others answered what is no array") {
    work.handle(R"(read -r l; echo 'ok [1,'; read -r l; echo 'ok [2]'; read -r l)", HandlerMode::stream);
    CHECK(work.run().handled == 1);
    CHECK(work.emitted() == "2 ");
    CHECK(work.said().find("the output behind ok is not JSON: ") != std::string::npos);
  }
  SUBCASE("none was") {
    work.handle("echo oops");
    CHECK(work.run().failed == 1);
    CHECK(work.emitted().empty());
  }
}

TEST_CASE("handlers of one event emit in the order of their names") {
  Emitting work;
  work.append(3);
  work.handle("echo 1$CONTINUUM_OFFSET");
  HandlerSpec other = work.handler();
  other.name = "a";
  other.command = {"sh", "-c", "echo 2$CONTINUUM_OFFSET; sleep 0.01"};
  work.options().handlers = {other, work.handler()};
  work.options().dispatch = Dispatch::parallel;
  CHECK(work.run().handled == 3);
  CHECK(work.emitted() == "20 10 21 11 22 12 ");
}

TEST_CASE("what could not be published is left to the next worker, which must emit to the same topic") {
  Emitting work;
  work.append(4);
  work.seal_target();
  work.handle("echo $CONTINUUM_OFFSET; test $CONTINUUM_OFFSET != 3 || printf t >$STOP");
  work.options().ending = Ending::never;
  CHECK(work.run().handled == 4);
  CHECK(work.said().find("what is emitted waits: topic u, which is emitted to, is being resized") !=
        std::string::npos);
  CHECK(work.state().cursor.offset == Offset(4));
  CHECK(work.waiting() == 4);
  CHECK(work.emitted().empty());

  const auto target = std::exchange(work.options().emit_to, std::nullopt);
  std::string message;
  try {
    work.run();
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    message = error.message();
  }
  CHECK(message ==
        "topic t, partition 0: what handlers of group g emitted to topic u for 4 events is not published "
        "yet: work "
        "with --emit u until it is");

  work.activate_target();
  work.options().emit_to = target;
  work.options().ending = Ending::drained;
  CHECK(work.run().handled == 0);
  CHECK(work.waiting() == 0);
  CHECK(work.emitted() == "0 1 2 3 ");
}

TEST_CASE("a barrier is passed when what was emitted before it is published") {
  Emitting work;
  work.append(2);
  work.seal_target();
  work.change({"HSET", topic_key("t"), "gen:2", "xxh3:256:0", "active", "2"});
  work.data().seal(0, 2, "old");
  work.data().append(0, {test::event_line("2", "k")}, Frames::plain, 2);
  // Only the last one before the barrier emits: when that waits, both are handled.
  work.handle("test $CONTINUUM_OFFSET = 0 || echo $CONTINUUM_OFFSET");
  work.options().ending = Ending::never;
  work.when_emitted_waits([&] { work.stop(); });
  work.run();
  CHECK(work.state().cursor.offset == Offset(2));
  CHECK(work.state().passed == Generation(1));
  work.activate_target();
  work.options().ending = Ending::drained;
  work.run();
  CHECK(work.state().passed == Generation(2));
  CHECK(work.emitted() == "1 2 ");
}

TEST_CASE("handling stops when too much of what was emitted waits") {
  Emitting work;
  work.append(150);
  work.seal_target();
  // A million bytes each: 64 MiB in the outbox, and 16 MiB each that no commit has and that the one under way
  // has.
  work.handle(R"(printf '"'; head -c 1000000 /dev/zero | tr '\0' x; printf '"')");
  work.options().ending = Ending::never;
  std::uint64_t handled = 0;
  std::thread worker([&] { handled = work.run().handled; });
  const auto session = work.session();
  const auto full = [&] {
    redis::Request request;
    request.command("HGETALL", group_key("t", Partition(0), "g"));
    return parse_group(session->call(std::move(request))[0])->state == "full";
  };
  test::await("handling stops", full, 120s);
  work.stop();
  worker.join();
  CHECK(handled < 110);
  CHECK(work.waiting() == handled);
  work.activate_target();
  work.options().ending = Ending::drained;
  CHECK(work.run().handled == 150 - handled);
  CHECK(work.emitted().size() == 150 * 1'000'003);
}

TEST_CASE("handling waits for the commit under way when much is emitted behind it") {
  Emitting work;
  work.append(50);
  // The server takes no commit for a while; later the handler asks whether it has one by now.
  work.handle(R"(
    case $CONTINUUM_OFFSET in
      0)  redis-cli -s $SOCKET CLIENT PAUSE 2000 WRITE >/dev/null ;;
      45) redis-cli -s $SOCKET HGET continuum:{t:0}:group:g offset >$OUT ;;
    esac
    printf '"'; head -c 1000000 /dev/zero | tr '\0' x; printf '"')");
  CHECK(work.run().handled == 50);
  // 16 MiB are in the commit under way, and 16 MiB wait for the next one.
  CHECK(std::stoul(work.handled()) >= 45 - 2 * 18);
}

TEST_CASE("a drained run whose lease runs out at its end publishes what was emitted") {
  Emitting work;
  work.append(3);
  work.seal_target();
  work.handle("test $CONTINUUM_OFFSET != 2 || echo $CONTINUUM_OFFSET");
  work.options().lease = 1s;
  // For longer than the lease this worker stands still; only publishing is left to be done.
  work.when_emitted_waits([&] { work.activate_target_from_elsewhere(1'200ms); });
  work.run();
  CHECK(work.said().find("the lease of group g ran out") != std::string::npos);
  CHECK(work.waiting() == 0);
  CHECK(work.emitted() == "2 ");
}
