// What handlers emitted reaches its topic exactly once and in order, whatever happens on the way.
#include "redis/log_data.hpp"
#include "redis/server.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/lease.hpp"
#include "continuum/outbox.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;

namespace {

std::unique_ptr<redis::Session> patient_session(const test::RedisServer& server) {
  redis::ClientOptions options;
  options.needs.access = redis::Needs::Access::write;
  options.retry_for = 30s;
  return std::make_unique<redis::Session>(redis::Address::parse(server.url()), options);
}

// A worker as far as its outbox goes: a lease, commits, and what forwards them.
class Emitter {
 public:
  explicit Emitter(test::RedisServer& server)
      : server_(server), session_(patient_session(server)), control_(server.session()) {
    // Nobody waits for the lease of one who is gone: only the fence matters here.
    control({"HSET", keys_.group, "owner", ""});
    redis::Request request;
    request_acquire(request, keys_.group, {"o", "w", 5s}, std::nullopt);
    const auto replies = control_->call(std::move(request));
    const auto acquired = std::get<Acquired>(parse_acquire(replies[0]));
    fence_ = acquired.fence;
    number_ = acquired.number;
    target_.emplace(load_topic(*control_, "u"));
    outbox_.emplace(executor(), redis::client_of(*session_), *target_,
                    OutboxSource{"t", load_topic(*control_, "t").log_id, Partition(0), "g", fence_}, wake_);
    outbox_->start();
  }
  // As a crash would.
  ~Emitter() { outbox_.reset(); }
  Emitter(const Emitter&) = delete;
  Emitter& operator=(const Emitter&) = delete;

  Kept commit(std::vector<std::string> outputs, std::string topic = "u") {
    std::size_t bytes = 0;
    for (const auto& output : outputs) {
      bytes += output.size();
    }
    const auto entries = outputs.size();
    redis::Request request;
    request_commit(request, keys_, fence_, ++number_,
                   {{Offset(0), EntryId()}, Generation(1), {}, {}, std::move(outputs), std::move(topic)},
                   "g");
    const auto replies = control_->call(std::move(request));
    const auto kept = parse_commit(replies[0]);
    if (kept == Kept::ok) {
      outbox_->committed(entries, bytes);
    }
    return kept;
  }

  // Until then, or until it has ended.
  void run_until(const std::function<bool()>& done) {
    run_until_done(redis::io_of(*session_), wait_until(done));
    outbox_->throw_if_failed();
  }
  void drain() {
    run_until([this] { return outbox_->drained(); });
  }
  void run_steps(std::size_t steps) {
    auto& io = redis::io_of(*session_);
    io.restart();
    while (steps-- > 0 && !outbox_->drained()) {
      io.run_one();
      outbox_->throw_if_failed();
    }
  }
  void end() { run_until_done(redis::io_of(*session_), outbox_->end()); }
  ErrorKind failure(std::string& message) {
    try {
      drain();
    } catch (const Error& error) {
      message = error.message();
      return error.kind();
    }
    FAIL("no error");
    return ErrorKind::interrupted;
  }

  [[nodiscard]] Outbox& outbox() { return *outbox_; }
  [[nodiscard]] const GroupKeys& keys() const { return keys_; }
  [[nodiscard]] std::uint64_t stored_outputs() { return control({"XLEN", keys_.outbox})[0].number(); }
  redis::Replies control(const std::vector<std::string>& words) {
    redis::Request request;
    const std::vector<std::string_view> views(words.begin(), words.end());
    return control_->call(std::move(request.add(views)));
  }
  // The server was killed.
  void reconnect() { control_ = server_.session(); }

 private:
  asio::any_io_executor executor() { return redis::io_of(*session_).get_executor(); }
  asio::awaitable<void> wait_until(std::function<bool()> done) {
    while (!done() && !outbox_->fenced()) {
      try {
        outbox_->throw_if_failed();
      } catch (const Error&) {
        co_return;
      }
      co_await wake_.wait();
    }
  }

  test::RedisServer& server_;
  std::unique_ptr<redis::Session> session_;
  std::unique_ptr<redis::Session> control_;
  const GroupKeys keys_{"t", Partition(0), "g"};
  Wake wake_{executor()};
  std::optional<EmitTarget> target_;
  std::optional<Outbox> outbox_;
  Fence fence_;
  std::uint64_t number_ = 0;
};

// Numbered events in outputs of one to four, over 17 keys.
class Numbers {
 public:
  std::vector<std::string> outputs(std::size_t count) {
    std::vector<std::string> out(count);
    for (auto& output : out) {
      for (std::uint64_t i = 0; i <= next_ % 4; ++i) {
        output += line(next_ + i) + "\n";
      }
      next_ += next_ % 4 + 1;
    }
    return out;
  }
  [[nodiscard]] std::uint64_t count() const { return next_; }

 private:
  static std::string line(std::uint64_t number) {
    return test::event_line(std::to_string(number), "k" + std::to_string(number * 31 % 17));
  }
  std::uint64_t next_ = 0;
};

void make_topics(test::RedisServer& server, std::uint32_t partitions = 5, TopicSettings settings = {}) {
  const auto session = server.session();
  create_topic(*session, "t", RingDescription::uniform(1), {});
  create_topic(*session, "u", RingDescription::uniform(partitions), settings);
  Topic topic = load_topic(*session, "t");
  register_group(*session, topic, "g", "start");
}

void make_empty(test::RedisServer& server) {
  const auto session = server.session();
  drop_topic(*session, "t");
  drop_topic(*session, "u");
  make_topics(server);
}

struct Stored {
  std::map<std::string, std::vector<std::uint64_t>>
      by_key;  // in the order of the log, older generations first
  std::uint64_t events = 0;
  std::uint64_t entries = 0;
  std::map<std::string, std::uint64_t> producers;  // and their entries
};

// Every event of the topic; checks that each key is where the ring of its generation puts it.
Stored stored(test::RedisServer& server) {
  const auto session = server.session();
  const Topic topic = load_topic(*session, "u");
  Stored out;
  FrameDecoder decoder;
  std::string lines;
  std::string scratch;
  for (const auto& [generation, description] : topic.rings) {
    const Ring ring(description);
    for (const auto p : topic.partitions()) {
      redis::Request request;
      request.command("XRANGE", log_key("u", p), "-", "+");
      const auto replies = session->call(std::move(request));
      for (std::size_t i = 0; i < replies[0].size(); ++i) {
        const Entry entry = parse_entry(replies[0][i], "u", p);
        if (entry.barrier || entry.generation != generation) {
          continue;
        }
        decode_entry(decoder, entry, "u", p, lines);
        ++out.entries;
        ++out.producers[std::string(entry.producer)];
        for (std::string_view rest = lines; !rest.empty();) {
          const auto line = rest.substr(0, rest.find('\n'));
          rest.remove_prefix(line.size() + 1);
          const auto attributes = attributes_of(line);
          const std::string key(key_of(attributes, scratch));
          CHECK(ring.owner(key) == p);
          out.by_key[key].push_back(std::stoull(std::string(attributes.id.substr(1))));
          ++out.events;
        }
      }
    }
  }
  return out;
}

void check_each_once_and_in_order(const Stored& have, std::uint64_t events) {
  CHECK(have.events == events);
  std::vector<bool> seen(events, false);
  for (const auto& [key, numbers] : have.by_key) {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      REQUIRE(numbers[i] < events);
      CHECK_FALSE(seen[numbers[i]]);
      seen[numbers[i]] = true;
      CHECK((i == 0 || numbers[i - 1] < numbers[i]));
    }
  }
}

void begin_resize(redis::Session& session, std::uint32_t generation, const RingDescription& ring) {
  redis::Request begin;
  begin.command("HSET", topic_key("u"), fmt::format("gen:{}", generation), ring.text());
  begin.command("HSET", topic_key("u"), "pending", generation);
  session.call(std::move(begin));
}

void seal(redis::Session& session, std::uint32_t generation, const std::set<Partition>& partitions) {
  const Topic topic = load_topic(session, "u");
  const auto old = topic.partitions();
  redis::Request request;
  for (const auto p : partitions) {
    const bool is_old = std::ranges::find(old, p) != old.end();
    request.run(redis::Script::seal, {meta_key("u", p), log_key("u", p)}, topic.log_id, generation,
                is_old ? "old" : "new");
  }
  session.call(std::move(request));
}

std::set<Partition> first_partitions(std::uint32_t count) {
  std::set<Partition> out;
  for (std::uint32_t i = 0; i < count; ++i) {
    out.insert(Partition(i));
  }
  return out;
}

void activate(redis::Session& session, std::uint32_t generation) {
  redis::Request request;
  request.run(redis::Script::activate, {topic_key("u")}, generation);
  CHECK(session.call(std::move(request))[0][0].text() == "OK");
}

}  // namespace

TEST_CASE("what a commit emitted reaches its topic, and leaves the outbox") {
  test::RedisServer server;
  make_topics(server);
  Emitter emitter(server);
  Numbers numbers;
  CHECK_FALSE(emitter.outbox().drained());
  emitter.drain();
  CHECK(emitter.commit(numbers.outputs(3)) == Kept::ok);
  CHECK_FALSE(emitter.outbox().drained());
  CHECK(emitter.stored_outputs() == 3);
  emitter.drain();
  CHECK(emitter.stored_outputs() == 0);
  for (int i = 0; i < 20; ++i) {
    emitter.commit(numbers.outputs(100));
    emitter.run_steps(static_cast<std::size_t>(i));
  }
  emitter.drain();
  const auto have = stored(server);
  check_each_once_and_in_order(have, numbers.count());
  REQUIRE(have.producers.size() == 1);
  CHECK(have.producers.begin()->first.starts_with("~emit/t/"));
  CHECK(have.entries < have.events / 10);
  const auto state = *parse_group(emitter.control({"HGETALL", emitter.keys().group})[0]);
  CHECK(state.outbox == numbers.count());
  emitter.end();
}

TEST_CASE("each emitted event is an entry of its own in a topic that is read by others") {
  test::RedisServer server;
  TopicSettings settings;
  settings.frames = Frames::single;
  make_topics(server, 5, settings);
  Numbers numbers;
  // Killed at every moment: the events of one output need not be stored together.
  for (std::size_t steps = 0; steps < 40; ++steps) {
    Emitter emitter(server);
    emitter.commit(numbers.outputs(4));
    emitter.run_steps(steps);
  }
  Emitter emitter(server);
  emitter.drain();
  const auto have = stored(server);
  check_each_once_and_in_order(have, numbers.count());
  CHECK(have.entries == have.events);
}

TEST_CASE("a worker that was killed at any moment of forwarding has forwarded each event once") {
  test::RedisServer server;
  make_topics(server);
  Numbers numbers;
  for (std::size_t steps = 0; steps < 60; ++steps) {
    Emitter emitter(server);
    emitter.commit(numbers.outputs(30));
    emitter.run_steps(steps);
    emitter.commit(numbers.outputs(3));
    emitter.run_steps(steps / 2);
  }
  Emitter emitter(server);
  emitter.drain();
  CHECK(emitter.stored_outputs() == 0);
  check_each_once_and_in_order(stored(server), numbers.count());
}

TEST_CASE("connections that are lost while forwarding lose and double nothing") {
  test::RedisServer server;
  make_topics(server);
  Emitter emitter(server);
  Numbers numbers;
  std::minstd_rand random(7);
  for (int i = 0; i < 60; ++i) {
    emitter.commit(numbers.outputs(20));
    emitter.run_steps(random() % 40);
    emitter.control({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"});
  }
  emitter.drain();
  check_each_once_and_in_order(stored(server), numbers.count());
}

TEST_CASE("a server that is killed while it stores emitted events gets each once") {
  test::RedisServer server;
  make_topics(server);
  Emitter emitter(server);
  Numbers numbers;
  for (std::size_t i = 0; i < 6; ++i) {
    emitter.commit(numbers.outputs(50));
    emitter.run_steps(5 + 3 * i);
    server.kill();
    emitter.run_steps(4);
    server.start();
    emitter.reconnect();
  }
  emitter.drain();
  check_each_once_and_in_order(stored(server), numbers.count());
}

TEST_CASE("a server that forgot what it had confirmed is given it again while the outbox has it") {
  test::RedisServer server;
  make_topics(server);
  const auto file = [&] {
    const std::string directory = server.directory().file("appendonlydir");
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      if (entry.path().string().ends_with(".incr.aof")) {
        return entry.path();
      }
    }
    throw std::runtime_error("no append-only file in " + directory);
  };
  Emitter emitter(server);
  Numbers numbers;
  emitter.commit(numbers.outputs(2));
  emitter.drain();
  emitter.commit(numbers.outputs(400));
  const auto kept = std::filesystem::file_size(file());
  while (emitter.stored_outputs() == 400) {
    emitter.run_steps(1);
  }
  CHECK(stored(server).events > 50);
  CHECK_FALSE(emitter.outbox().drained());
  server.kill();
  // The disk had only this much when the machine died.
  std::filesystem::resize_file(file(), kept);
  server.start();
  emitter.reconnect();
  CHECK(emitter.stored_outputs() == 400);
  // As the next commit does. One who waits for none looks by itself, but later.
  emitter.outbox().committed(0, 0);
  emitter.drain();
  check_each_once_and_in_order(stored(server), numbers.count());
}

TEST_CASE("a worker that lost its lease appends nothing more and says so") {
  test::RedisServer server;
  make_topics(server);
  // At every moment of what it was doing, and of what the next one does.
  for (std::size_t steps = 0; steps < 30; ++steps) {
    Numbers numbers;
    Emitter paused(server);
    paused.commit(numbers.outputs(40));
    paused.run_steps(steps);
    Emitter next(server);
    CHECK(paused.commit({}) == Kept::fenced);
    next.commit(numbers.outputs(40));
    next.run_steps(steps % 7);
    paused.run_steps(steps % 5);
    next.commit(numbers.outputs(40));
    next.drain();
    next.commit(numbers.outputs(40));
    paused.outbox().committed(1, 1);
    paused.run_until([&] { return paused.outbox().fenced() || paused.outbox().drained(); });
    CHECK(paused.outbox().fenced());
    next.drain();
    check_each_once_and_in_order(stored(server), numbers.count());
    make_empty(server);
  }
}

TEST_CASE(
    "events that are emitted while their topic is resized are stored once, under one ring or the other") {
  test::RedisServer server;
  make_topics(server, 3);
  const auto session = server.session();
  Numbers numbers;
  Emitter emitter(server);
  std::uint32_t generation = 1;
  for (const std::uint32_t partitions : {6U, 2U, 4U}) {
    emitter.commit(numbers.outputs(300));
    emitter.run_steps(9);
    begin_resize(*session, ++generation, RingDescription::uniform(partitions));
    // What goes to the other partitions is stored under the old ring, and found there.
    seal(*session, generation, {Partition(0)});
    emitter.commit(numbers.outputs(30));
    emitter.run_until([&] { return !emitter.outbox().waits_for().empty(); });
    seal(*session, generation, first_partitions(6));
    CHECK(emitter.outbox().waits_for() == "topic u, which is emitted to, is being resized");
    CHECK_FALSE(emitter.outbox().drained());
    activate(*session, generation);
    if (partitions == 2) {
      // The one who goes on has not seen the resize.
      Emitter next(server);
      next.drain();
      next.end();
      break;
    }
    emitter.drain();
    CHECK(emitter.outbox().waits_for().empty());
  }
  check_each_once_and_in_order(stored(server), numbers.count());
  CHECK(generation == 3);
}

TEST_CASE("each run of a group has a producer of its own, and what one run left is published as its own") {
  test::RedisServer server;
  make_topics(server);
  Numbers numbers;
  {
    Emitter emitter(server);
    emitter.commit(numbers.outputs(40));
    emitter.run_steps(6);
    emitter.control({"HINCRBY", emitter.keys().group, "run", "1"});
    emitter.commit(numbers.outputs(40));
  }
  Emitter emitter(server);
  emitter.drain();
  const auto have = stored(server);
  check_each_once_and_in_order(have, numbers.count());
  CHECK(have.producers.size() == 2);
}

TEST_CASE("a group that was forgotten and registered again does not take its new events for old ones") {
  test::RedisServer server;
  make_topics(server);
  Numbers numbers;
  {
    Emitter emitter(server);
    emitter.commit(numbers.outputs(40));
    emitter.drain();
    emitter.control({"DEL", emitter.keys().group});
    emitter.control({"DEL", emitter.keys().outbox});
    emitter.control({"HDEL", topic_key("t"), "group:g"});
  }
  const auto session = server.session();
  Topic topic = load_topic(*session, "t");
  register_group(*session, topic, "g", "start");
  Emitter emitter(server);
  emitter.commit(numbers.outputs(40));
  emitter.drain();
  check_each_once_and_in_order(stored(server), numbers.count());
}

TEST_CASE("an outbox that holds too much stops the handling until it is forwarded") {
  test::RedisServer server;
  make_topics(server);
  Numbers numbers;
  Emitter emitter(server);
  emitter.commit(numbers.outputs(Outbox::entries_max - 1));
  CHECK_FALSE(emitter.outbox().full());
  emitter.commit(numbers.outputs(1));
  CHECK(emitter.outbox().full());
  emitter.run_until([&] { return !emitter.outbox().full(); });
  emitter.drain();
  CHECK(emitter.outbox().entries() == 0);
  emitter.outbox().committed(1, Outbox::bytes_max);
  CHECK(emitter.outbox().full());
  emitter.drain();
  CHECK_FALSE(emitter.outbox().full());
  // One who comes later learns what there is.
  emitter.commit(numbers.outputs(Outbox::entries_max));
  Emitter next(server);
  next.run_until([&] { return next.outbox().full(); });
  next.drain();
  check_each_once_and_in_order(stored(server), numbers.count());
}

TEST_CASE("events that were emitted to one topic do not go to another") {
  test::RedisServer server;
  make_topics(server);
  Numbers numbers;
  Emitter emitter(server);
  emitter.commit(numbers.outputs(3), "elsewhere");
  std::string message;
  CHECK(emitter.failure(message) == ErrorKind::usage);
  CHECK(message.find("run the worker with --emit elsewhere once more") != std::string::npos);
  CHECK(emitter.stored_outputs() == 3);
}

TEST_CASE("emitted events that are gone are loss, and nothing is skipped silently") {
  test::RedisServer server;
  make_topics(server);
  Numbers numbers;
  Emitter emitter(server);
  emitter.commit(numbers.outputs(5));
  emitter.drain();
  std::string message;
  SUBCASE("from the outbox") {
    emitter.commit(numbers.outputs(3));
    emitter.control({"DEL", emitter.keys().outbox});
    emitter.commit(numbers.outputs(3));
    CHECK(emitter.failure(message) == ErrorKind::loss);
    CHECK(message ==
          "topic t, partition 0, outbox of group g: emitted events number 16 to 27 are gone from it: they "
          "were not "
          "published yet");
  }
  SUBCASE("from the topic's memory of what it has") {
    const auto session = server.session();
    const auto producer = stored(server).producers.begin()->first;
    for (const auto p : load_topic(*session, "u").partitions()) {
      emitter.control({"DEL", producer_key("u", p, producer)});
    }
    emitter.commit(numbers.outputs(3));
    CHECK(emitter.failure(message) == ErrorKind::loss);
    CHECK(message.find("lost events of topic u, partition") != std::string::npos);
  }
  SUBCASE("with the topic") {
    const auto session = server.session();
    drop_topic(*session, "u");
    create_topic(*session, "u", RingDescription::uniform(2), {});
    emitter.commit(numbers.outputs(3));
    CHECK(emitter.failure(message) == ErrorKind::loss);
    CHECK(message.find("the log of topic u, which is emitted to, is gone") != std::string::npos);
  }
  SUBCASE("from the group's state, which is older than what it published") {
    emitter.control({"HSET", emitter.keys().group, "outbox", "2"});
    Emitter next(server);
    next.commit({test::event_line("99", "k") + "\n"});
    CHECK(next.failure(message) == ErrorKind::loss);
    CHECK(message.find("but only 3 were ever numbered") != std::string::npos);
  }
}

TEST_CASE("one who was fenced while it slept takes nothing for loss") {
  test::RedisServer server;
  make_topics(server);
  Numbers numbers;
  Emitter paused(server);
  paused.commit(numbers.outputs(5));
  paused.drain();
  Emitter next(server);
  next.commit(numbers.outputs(40));
  next.drain();
  next.commit(numbers.outputs(2));
  // Numbers are missing between those that it knows and these.
  paused.outbox().committed(1, 1);
  paused.run_until([&] { return paused.outbox().drained(); });
  CHECK(paused.outbox().fenced());
  next.drain();
  check_each_once_and_in_order(stored(server), numbers.count());
}

TEST_CASE("a server that is full makes what is emitted wait, and says so, and goes on when there is room") {
  test::RedisServer server;
  make_topics(server);
  Emitter emitter(server);
  Numbers numbers;
  emitter.commit(numbers.outputs(50));
  emitter.control({"CONFIG", "SET", "maxmemory", "1"});
  emitter.run_until([&] { return !emitter.outbox().waits_for().empty(); });
  CHECK(emitter.outbox().waits_for().find("refuses to store what is emitted") != std::string::npos);
  CHECK(emitter.stored_outputs() == 50);
  emitter.control({"CONFIG", "SET", "maxmemory", "0"});
  emitter.drain();
  CHECK(emitter.outbox().waits_for().empty());
  check_each_once_and_in_order(stored(server), numbers.count());
}
