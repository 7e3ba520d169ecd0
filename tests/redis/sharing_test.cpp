// Workers of one group that share its partitions, each with a connection and a thread of its own.
#include "redis/log_data.hpp"
#include "redis/server.hpp"

#include "continuum/error.hpp"
#include "continuum/lease.hpp"
#include "continuum/log.hpp"
#include "continuum/worker.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;
using SteadyClock = std::chrono::steady_clock;

namespace {

// A worker that prints to a file. Its end is awaited.
class SharingWorker {
 public:
  SharingWorker(std::unique_ptr<redis::Session> session, const Topic& topic, WorkOptions options,
                const std::string& printed)
      : session_(std::move(session)), topic_(topic), options_(std::move(options)) {
    REQUIRE(::pipe2(stop_, O_CLOEXEC) == 0);
    options_.requests_fd = stop_[0];
    options_.output_fd = ::open(printed.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    options_.say = [this](const std::string& text) {
      const std::lock_guard lock(saying_);
      said_ += text + "\n";
    };
    thread_ = std::thread([this] {
      try {
        summary_ = work(*session_, topic_, options_);
      } catch (...) {
        error_ = std::current_exception();
      }
    });
  }
  ~SharingWorker() {
    stop();
    if (thread_.joinable()) {
      thread_.join();
    }
    ::close(stop_[0]);
    ::close(stop_[1]);
    ::close(options_.output_fd);
  }
  SharingWorker(const SharingWorker&) = delete;
  SharingWorker& operator=(const SharingWorker&) = delete;

  void stop() { CHECK(::write(stop_[1], "x", 1) == 1); }
  // Its end is near, or was asked for.
  WorkSummary end() {
    thread_.join();
    if (error_) {
      std::rethrow_exception(error_);
    }
    return summary_;
  }
  [[nodiscard]] const std::string& who() const { return options_.who; }
  [[nodiscard]] bool has_said(std::string_view text) { return said().find(text) != std::string::npos; }
  [[nodiscard]] std::string said() {
    const std::lock_guard lock(saying_);
    return said_;
  }

 private:
  std::unique_ptr<redis::Session> session_;
  const Topic topic_;
  WorkOptions options_;
  int stop_[2] = {-1, -1};
  std::mutex saying_;
  std::string said_;
  WorkSummary summary_;
  std::exception_ptr error_;
  std::thread thread_;
};

class Crew {
 public:
  explicit Crew(std::uint32_t partitions) : session_(server_.session()), data_(*session_, partitions) {
    register_group(*session_, data_.topic(), "g", "start");
    options_.group = "g";
    options_.partitions = data_.topic().partitions();
    options_.sharing = Sharing::shared;
    options_.printing = Printing::data;
    options_.lease = 1s;
  }

  test::LogData& data() { return data_; }
  WorkOptions& options() { return options_; }
  std::unique_ptr<SharingWorker> start() {
    options_.who = "host:" + std::to_string(++started_);
    return std::make_unique<SharingWorker>(server_.session(), data_.topic(), options_,
                                           directory_.file("printed"));
  }
  [[nodiscard]] std::string file(const std::string& name) const { return directory_.file(name); }
  [[nodiscard]] std::string printed() const { return test::read_file(directory_.file("printed")); }

  [[nodiscard]] static std::string group(std::uint32_t partition) {
    return group_key("t", Partition(partition), "g");
  }
  GroupState state(std::uint32_t partition) {
    return *parse_group(data_.command("HGETALL", group(partition))[0]);
  }
  // How many partitions each has; "" are those that are free.
  std::map<std::string, std::size_t> shares() {
    redis::Request request;
    for (const Partition partition : options_.partitions) {
      request.command("HMGET", group_key("t", partition, "g"), "owner", "who");
    }
    const auto replies = session_->call(std::move(request));
    std::map<std::string, std::size_t> shares;
    for (std::size_t i = 0; i < replies.size(); ++i) {
      ++shares[replies[i][0].text().empty() ? "" : std::string(replies[i][1].text())];
    }
    return shares;
  }
  std::size_t members() { return data_.command("ZRANGE", members_key("t", "g"), 0, -1)[0].size(); }

  // The shares of `workers` workers differ by one at most, and nothing is free.
  bool even(std::size_t workers) {
    const auto present = shares();
    if (present.contains("") || present.size() != std::min(workers, options_.partitions.size())) {
      return false;
    }
    const auto [least, most] = std::minmax_element(
        present.begin(), present.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    return most->second - least->second <= 1;
  }

 private:
  test::RedisServer server_;
  test::TemporaryDirectory directory_;
  std::unique_ptr<redis::Session> session_;
  test::LogData data_;
  WorkOptions options_;
  int started_ = 0;
};

// Another thread's doing: there is no event of ours to wait for.
SteadyClock::duration await(const char* what, const std::function<bool()>& holds) {
  CAPTURE(what);
  const auto started = SteadyClock::now();
  while (!holds()) {
    REQUIRE_MESSAGE(SteadyClock::now() - started < 30s, what);
    std::this_thread::sleep_for(2ms);
  }
  return SteadyClock::now() - started;
}

std::size_t lines_of(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace

TEST_CASE("twenty workers share 64 partitions evenly within 5 seconds, and leave nothing behind") {
  Crew crew(64);
  crew.options().lease = 5s;
  for (std::uint32_t p = 0; p < 64; ++p) {
    crew.data().append(p, {test::event_line("1", "a"), test::event_line("2", "b")});
  }
  std::vector<std::unique_ptr<SharingWorker>> workers;
  for (int i = 0; i < 20; ++i) {
    workers.push_back(crew.start());
  }
  CHECK(await("the shares are even", [&] { return crew.even(20); }) < 5s);
  CHECK(crew.members() == 20);
  for (std::uint32_t p = 0; p < 64; ++p) {
    crew.data().append(p, {test::event_line("3", "a")});
  }
  await("all is printed", [&] { return lines_of(crew.printed()) == 64 * 3; });
  for (const auto& worker : workers) {
    worker->stop();
  }
  std::uint64_t handled = 0;
  for (const auto& worker : workers) {
    handled += worker->end().handled;
  }
  CHECK(handled == 64 * 3);
  CHECK(crew.shares().at("") == 64);
  CHECK(crew.members() == 0);
}

TEST_CASE("a worker that joins is given its share, and one that leaves gives it to the others, at once") {
  Crew crew(9);
  crew.options().lease = 20s;  // nobody waits for the end of one
  const auto first = crew.start();
  await("it has all", [&] { return crew.even(1); });
  std::vector<std::unique_ptr<SharingWorker>> others;
  for (std::size_t count = 2; count <= 4; ++count) {
    others.push_back(crew.start());
    CHECK(await("it has its share", [&] { return crew.even(count); }) < 5s);
  }
  await("its share is told", [&] { return others.front()->has_said(", shared with 3 other workers\n"); });
  others.front()->stop();
  others.front()->end();
  CHECK(await("what it had is taken", [&] { return crew.even(3); }) < 5s);
  for (const auto& other : {others[1].get(), others[2].get()}) {
    other->stop();
    other->end();
  }
  CHECK(await("the first has all again", [&] { return crew.even(1); }) < 5s);
  await("it is told",
        [&] { return first->has_said("topic t: 9 of 9 partitions (0-8), shared with no other worker\n"); });
  first->stop();
  first->end();
}

TEST_CASE("what a dead worker had is taken over after its lease, and not a second later than that") {
  Crew crew(4);
  const auto alive = crew.start();
  await("it has all", [&] { return crew.even(1); });
  // One that had two of them gave its last sign of life just now.
  const auto died = SteadyClock::now();
  const auto now = crew.data().command("TIME");
  crew.data().command("ZADD", members_key("t", "g"), now[0][0].integer() * 1000 + 1000, "dead host:0");
  for (std::uint32_t p = 0; p < 2; ++p) {
    crew.data().command("HSET", Crew::group(p), "owner", "dead", "who", "host:0", "fence", "9000000000000000",
                        "beat", p, "ttl", "1000");
  }
  await("it is taken over", [&] { return crew.shares().contains("host:1") && crew.even(1); });
  const auto taken = SteadyClock::now() - died;
  CHECK(taken >= 1s);
  CHECK(taken <= 2s);
  CHECK(crew.state(0).fence > Fence(9'000'000'000'000'000));
  alive->stop();
  alive->end();
  // In one line, unless one was taken a moment later.
  const bool told = alive->has_said("topic t, partitions 0,1: took over for group g\n") ||
                    (alive->has_said("topic t, partition 0: took over for group g\n") &&
                     alive->has_said("topic t, partition 1: took over for group g\n"));
  CHECK_MESSAGE(told, alive->said());
}

TEST_CASE("those that come while a dead worker is believed to be alive do not delay who takes over") {
  Crew crew(4);
  crew.options().lease = 2s;
  const auto last_sign_of_life = [&](int beat) {
    for (std::uint32_t p = 0; p < 2; ++p) {
      crew.data().command("HSET", Crew::group(p), "owner", "dead", "who", "host:0", "fence", "5", "beat",
                          beat, "ttl", "2000");
    }
  };
  last_sign_of_life(1);
  const auto old = crew.start();
  await("it has the rest", [&] { return crew.even(2); });
  const auto died = SteadyClock::now();
  last_sign_of_life(2);
  std::this_thread::sleep_until(died + 1'800ms);
  // To be the newcomer's, as soon as it has watched for 2 s itself.
  const auto newcomer = crew.start();
  await("it is taken over", [&] { return !crew.shares().contains("host:0"); });
  const auto taken = SteadyClock::now() - died;
  CHECK(taken >= 2s);
  CHECK(taken <= 3s);
  await("both have their share", [&] { return crew.even(2); });
  old->stop();
  newcomer->stop();
  old->end();
  newcomer->end();
}

TEST_CASE("what a worker that was told its partitions has is not touched, and shared once it is free") {
  Crew crew(3);
  const auto shared = crew.options();
  crew.options().sharing = Sharing::pinned;
  crew.options().partitions = {Partition(1)};
  const auto pinned = crew.start();
  await("it has its own", [&] { return crew.state(1).who == "host:1" && !crew.state(1).owner.empty(); });
  crew.options() = shared;
  const auto sharing = crew.start();
  await("the others are taken", [&] { return crew.even(2); });
  CHECK(crew.shares().at("host:2") == 2);
  CHECK(crew.state(1).who == "host:1");
  pinned->stop();
  pinned->end();
  await("the rest is taken", [&] { return crew.even(1); });
  sharing->stop();
  sharing->end();
}

TEST_CASE("workers that drain together handle each event once, and end") {
  Crew crew(16);
  for (std::uint32_t p = 0; p < 16; ++p) {
    for (int i = 0; i < 50; ++i) {
      crew.data().append(p, {test::event_line(std::to_string(i), "k")});
    }
  }
  crew.options().ending = Ending::drained;
  std::vector<std::unique_ptr<SharingWorker>> workers;
  for (int i = 0; i < 3; ++i) {
    workers.push_back(crew.start());
  }
  std::uint64_t handled = 0;
  for (const auto& worker : workers) {
    handled += worker->end().handled;
  }
  CHECK(handled == 16 * 50);
  CHECK(lines_of(crew.printed()) == 16 * 50);
  CHECK(crew.shares().at("") == 16);
  CHECK(crew.members() == 0);
}

TEST_CASE("a drained run does not wait for what somebody else has") {
  Crew crew(2);
  crew.data().append(0, {test::event_line("1", "a")});
  crew.data().append(1, {test::event_line("2", "b")});
  // Alive, by a beat now and then, and getting nowhere.
  crew.data().command("HSET", Crew::group(1), "owner", "other", "who", "host:0", "fence", "5", "ttl",
                      "60000");
  crew.options().ending = Ending::drained;
  const auto worker = crew.start();
  CHECK(worker->end().handled == 1);
  CHECK(crew.state(1).owner == "other");
  CHECK(crew.state(0).cursor.offset == Offset(1));
}

TEST_CASE("a worker that finds no share left waits, or is refused if it will not") {
  Crew crew(1);
  const auto first = crew.start();
  await("it has all", [&] { return crew.even(1); });
  crew.options().standby = Standby::refuse;
  const auto refused = crew.start();
  try {
    refused->end();
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::fenced);
    CHECK(error.message().find("--no-wait") != std::string::npos);
  }
  CHECK(crew.members() == 1);
  crew.options().standby = Standby::wait;
  const auto waiting = crew.start();
  await("it is there", [&] { return crew.members() == 2; });
  first->stop();
  first->end();
  await("it takes over", [&] { return crew.shares().contains("host:3"); });
  waiting->stop();
  waiting->end();
}

TEST_CASE("a limit of events ends a worker that shares, also where it has nothing to do") {
  Crew crew(3);
  crew.data().append(0, {test::event_line("1", "a"), test::event_line("2", "a"), test::event_line("3", "a")});
  crew.options().events_max = 2;
  const auto worker = crew.start();
  CHECK(worker->end().handled == 2);
  CHECK(crew.state(0).cursor.offset == Offset(2));
  CHECK(crew.shares().at("") == 3);
}

TEST_CASE("a partition that left the ring is worked to its last barrier, and then nobody's") {
  Crew crew(3);
  auto& data = crew.data();
  data.append(2, {test::event_line("1", "a")});
  data.command("HSET", topic_key("t"), "gen:2", "xxh3:256:0,1", "active", 2);
  for (std::uint32_t p = 0; p < 3; ++p) {
    data.seal(p, 2, "old");
  }
  data.topic().active = Generation(2);
  data.topic().rings[Generation(2)] = RingDescription::uniform(2);
  const auto worker = crew.start();
  await("the rest is shared", [&] {
    return crew.state(2).passed == Generation(2) && crew.state(2).owner.empty() &&
           crew.shares()["host:1"] == 2;
  });
  CHECK(crew.state(2).cursor.offset == Offset(1));
  worker->stop();
  worker->end();
}

TEST_CASE("a worker says once that another one runs other handlers, and nothing of those that run the same") {
  Crew crew(6);
  crew.options().handlers_compared_every = 10ms;
  crew.options().handlers_differ_for = 100ms;
  const auto deploy = [&](const std::string& directory, const std::string& program) {
    std::filesystem::create_directory(crew.file(directory));
    test::write_file(crew.file(directory + "/.new"), "command = [\"" + program + "\"]\n");
    std::filesystem::rename(crew.file(directory + "/.new"), crew.file(directory + "/h.toml"));
  };
  const auto start = [&](const std::string& directory) {
    crew.options().handlers_directory = crew.file(directory);
    return crew.start();
  };
  deploy("one", "/bin/true");
  deploy("two", "/bin/true");
  deploy("three", "/bin/false");
  std::vector<std::unique_ptr<SharingWorker>> workers;
  for (const std::string directory : {"one", "two", "three"}) {
    workers.push_back(start(directory));
  }
  SharingWorker& one = *workers[0];
  SharingWorker& three = *workers[2];
  await("the shares are even", [&] { return crew.even(3); });
  const auto handlers_of = [&](const SharingWorker& worker) {
    for (std::uint32_t p = 0; p < 6; ++p) {
      if (const auto state = crew.state(p); state.who == worker.who()) {
        return state.handlers;
      }
    }
    return std::string();
  };
  await("all are known", [&] {
    return std::none_of(workers.begin(), workers.end(),
                        [&](const auto& worker) { return handlers_of(*worker).empty(); });
  });
  const std::string same = handlers_of(one);
  const std::string other = handlers_of(three);
  CHECK(same.size() == 16);
  CHECK(handlers_of(*workers[1]) == same);
  CHECK(other.size() == 16);
  CHECK(other != same);
  const auto says = [](const std::string& ours, const std::string& who, const std::string& theirs) {
    return "topic t: the handlers of group g differ: this worker has " + ours + "; " + who + " " + theirs +
           ". ";
  };
  await("all have told", [&] {
    return one.has_said(says(same, "host:3 has", other)) &&
           workers[1]->has_said(says(same, "host:3 has", other)) && three.has_said(same + ". ");
  });

  const std::uint64_t beat = crew.state(0).beat;
  await("many looks later", [&] { return crew.state(0).beat > beat + 1; });
  deploy("three", "/bin/cat");
  await("it is in force", [&] { return handlers_of(three) != other; });
  const std::string changed = handlers_of(three);
  CHECK(changed != same);
  await("it is told", [&] { return one.has_said(says(same, "host:3 has", changed)); });
  // Each once.
  const std::string said = one.said();
  CHECK(said.find(" differ: ") != said.rfind(" differ: "));
  CHECK(said.find(" differ: ", said.find(" differ: ") + 1) == said.rfind(" differ: "));
  CHECK_FALSE(one.has_said("host:2"));
  for (const auto& worker : workers) {
    worker->stop();
    worker->end();
  }
}
