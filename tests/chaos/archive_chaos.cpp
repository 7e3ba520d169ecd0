// G8: archives whose worker, server or disk fails at random moments. The seed of a failing run is printed.
#include "chaos/real_process.hpp"
#include "redis/server.hpp"

#include "continuum/archive_check.hpp"
#include "continuum/archive_directory.hpp"
#include "continuum/archive_reader.hpp"
#include "continuum/descriptor.hpp"
#include "continuum/error.hpp"
#include "continuum/frame.hpp"
#include "continuum/lease.hpp"
#include "continuum/log.hpp"
#include "continuum/topic.hpp"

#include <doctest/doctest.h>

#include <sys/mount.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <random>
#include <thread>

using namespace continuum;
using test::await;
using test::binary;
using test::end_of;
using test::is_long;

namespace {

constexpr std::uint32_t partitions = 4;

// The moment of a kill has to be random: there is no event to wait for.
void pause_for(std::chrono::milliseconds time) {
  std::this_thread::sleep_for(time);
}

class Place {
 public:
  Place() {
    const auto session = server.session();
    create_topic(*session, "t", RingDescription::uniform(partitions), {});
    std::filesystem::create_directory(store());
  }
  [[nodiscard]] std::string file(const std::string& name) const { return directory.file(name); }
  [[nodiscard]] std::string store() const { return file("store"); }

  [[nodiscard]] std::vector<std::string> command(const std::vector<std::string>& words) const {
    std::vector<std::string> all{binary()};
    all.insert(all.end(), words.begin(), words.end());
    all.insert(all.end(), {"-u", server.url(), "-t", "t"});
    return all;
  }
  [[nodiscard]] std::vector<std::string> archive(const std::vector<std::string>& more) const {
    auto all = command({"work", "--archive", store(), "--partition", "all", "--lease", "200ms"});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  [[nodiscard]] test::Process start_archiving() const {
    return test::Process(archive({}), {"/dev/null", "/dev/null", file("err")});
  }
  void archive_the_rest() const {
    test::Process worker(archive({"--drain"}), {"/dev/null", "/dev/null", file("err")});
    REQUIRE_MESSAGE(end_of(worker) == 0, test::read_file(file("err")));
  }
  [[nodiscard]] GroupState state(std::uint32_t partition) const {
    const auto session = server.session(redis::Needs::Access::read);
    redis::Request request;
    request.command("HGETALL", group_key("t", Partition(partition), "archive"));
    return parse_group(session->call(std::move(request))[0]).value_or(GroupState());
  }

  test::RedisServer server;
  test::TemporaryDirectory directory;
};

std::string line_of(std::uint64_t n, std::mt19937_64& random) {
  return fmt::format("{{\"k\":\"k{}\",\"n\":{},\"text\":\"{:x}{:x}\"}}\n", random() % 500, n, random(),
                     random());
}

// The log and its archive, entry by entry. Returns how many events they have.
std::uint64_t compare(Place& place, std::uint32_t partition) {
  const auto session = place.server.session(redis::Needs::Access::read);
  const ArchiveDirectory archive(place.store());
  ArchiveReader reader(archive, "t", Partition(partition), std::nullopt, {});
  FrameDecoder decoder;
  std::string lines;
  std::string after = "-";
  std::uint64_t events = 0;
  for (;;) {
    redis::Request request;
    request.command("XRANGE", log_key("t", Partition(partition)), after, "+", "COUNT", 500);
    const auto replies = session->call(std::move(request));
    if (replies[0].size() == 0) {
      break;
    }
    for (std::size_t i = 0; i < replies[0].size(); ++i) {
      const Entry entry = parse_entry(replies[0][i], "t", Partition(partition));
      const auto archived = reader.next();
      REQUIRE(archived);
      REQUIRE(archived->id == entry.id);
      REQUIRE(archived->first == entry.first);
      REQUIRE(archived->events == entry.events);
      REQUIRE(archived->generation == entry.generation);
      if (!entry.barrier) {
        decode_entry(decoder, entry, "t", Partition(partition), lines);
        REQUIRE(archived->lines == lines);
      }
      events += entry.events;
      after = "(" + entry.id.text();
    }
  }
  CHECK(!reader.next());
  return events;
}

std::uint64_t compare_all(Place& place) {
  std::uint64_t events = 0;
  for (std::uint32_t partition = 0; partition < partitions; ++partition) {
    events += compare(place, partition);
  }
  return events;
}

std::size_t problems_of(const Place& place) {
  ArchiveCheckOptions options;
  std::size_t problems = 0;
  options.on_problem = [&](const ArchiveProblem& problem) {
    ++problems;
    MESSAGE(problem.path, ": ", problem.what);
  };
  (void)verify_archive(place.store(), options);
  return problems;
}

// A publisher that is fed in bursts and trickles.
class Feed {
 public:
  Feed(const Place& place, std::uint64_t events, std::uint64_t seed) : input_(place.file("input")) {
    const std::string pipe = place.file("pipe");
    REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
    thread_ = std::thread([this, pipe, events, seed] { feed(pipe, events, seed); });
    publisher_.emplace(place.command({"publish", "--producer", "feed", "-k", "k", "--type", "=post"}),
                       test::Process::Redirect{pipe, "/dev/null", place.file("publisher")});
  }
  ~Feed() {
    stopped_ = true;
    publisher_.reset();
    thread_.join();
  }
  Feed(const Feed&) = delete;
  Feed& operator=(const Feed&) = delete;

  [[nodiscard]] bool ended() const { return ended_; }
  int end() { return end_of(*publisher_); }

 private:
  void feed(const std::string& pipe, std::uint64_t events, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::signal(SIGPIPE, SIG_IGN);
    // Servers and workers that are started meanwhile must not keep it open.
    const Descriptor out(::open(pipe.c_str(), O_WRONLY | O_CLOEXEC));
    std::ofstream copy(input_, std::ios::binary);
    const auto put = [&](const std::string& text) {
      copy << text;
      return write_all(out.get(), text) == 0;
    };
    bool taken = true;
    for (std::uint64_t n = 0; n < events && !stopped_ && taken;) {
      const bool burst = random() % 3 == 0;
      const std::uint64_t count =
          std::min(events - n, burst ? events / (is_long() ? 200 : 30) + 1 : 1 + random() % 40);
      std::string text;
      for (std::uint64_t i = 0; i < count; ++i) {
        text += line_of(n++, random);
        if (!burst) {
          taken = put(std::exchange(text, {}));
          pause_for(std::chrono::milliseconds(1));
        }
      }
      taken = taken && put(text);
      pause_for(std::chrono::milliseconds(random() % 100));
    }
    ended_ = true;
  }

  std::string input_;
  std::atomic<bool> stopped_ = false;
  std::atomic<bool> ended_ = false;
  std::optional<test::Process> publisher_;
  std::thread thread_;
};

void restore_killed(Place& place, std::mt19937_64& random) {
  for (int run = 0; run < (is_long() ? 20 : 4); ++run) {
    test::Process restore(place.command({"archive", "restore", place.store()}),
                          {"/dev/null", "/dev/null", place.file("restore")});
    if (restore.ended_within(std::chrono::milliseconds(10 + random() % (is_long() ? 500 : 150)))) {
      REQUIRE_MESSAGE(restore.wait() == 0, test::read_file(place.file("restore")));
      return;
    }
    restore.signal(SIGKILL);
    restore.wait();
  }
  test::Process last(place.command({"archive", "restore", place.store()}),
                     {"/dev/null", "/dev/null", place.file("restore")});
  REQUIRE_MESSAGE(end_of(last) == 0, test::read_file(place.file("restore")));
}

}  // namespace

TEST_CASE("an archive whose worker and server are killed equals the log, and is restored as it was") {
  const std::uint64_t events = is_long() ? 1'000'000 : 40'000;
  const int kills = is_long() ? 50 : 8;
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  Place place;
  Feed feed(place, events, seed);
  for (int i = 0; i < kills || !feed.ended(); ++i) {
    auto worker = place.start_archiving();
    CHECK_MESSAGE(!worker.ended_within(std::chrono::milliseconds(200 + random() % 500)),
                  test::read_file(place.file("err")));
    if (random() % 6 == 0) {
      place.server.kill();
      place.server.start();
      // It goes on with the new server, unless it had never met one: a wrong address is heard of at once.
      if (worker.ended_within(std::chrono::milliseconds(random() % 400))) {
        CHECK_MESSAGE(worker.wait() == 3, test::read_file(place.file("err")));
        continue;
      }
    }
    worker.signal(SIGKILL);
    worker.wait();
  }
  CHECK_MESSAGE(feed.end() == 0, test::read_file(place.file("publisher")));
  place.archive_the_rest();
  CHECK(compare_all(place) == events);
  CHECK(problems_of(place) == 0);

  const auto session = place.server.session();
  (void)session->call(std::move(redis::Request().command("FLUSHALL")));
  restore_killed(place, random);
  CHECK(compare_all(place) == events);
  // The same input again: nothing of it is stored twice.
  auto again = test::Process(
      place.command({"publish", "--producer", "feed", "-k", "k", "--type", "=post", place.file("input")}),
      {"/dev/null", "/dev/null", place.file("publisher")});
  CHECK_MESSAGE(end_of(again) == 0, test::read_file(place.file("publisher")));
  place.archive_the_rest();
  CHECK(compare_all(place) == events);
  CHECK(problems_of(place) == 0);
}

TEST_CASE("while a disk is full its worker says so and commits nothing that is not durable, then goes on") {
  Place place;
  if (::mount("none", place.store().c_str(), "tmpfs", 0, "size=1m") != 0) {
    MESSAGE("skipped: no small disk can be mounted here (", std::strerror(errno), ")");
    return;
  }
  struct Unmount {
    std::string path;
    ~Unmount() { ::umount2(path.c_str(), MNT_DETACH); }
  } const unmount{place.store()};
  std::mt19937_64 random(5);
  std::string text;
  for (std::uint64_t n = 0; n < 60'000; ++n) {
    text += line_of(n, random);
  }
  test::write_file(place.file("input"), text);
  auto worker = place.start_archiving();
  auto publisher =
      test::Process(place.command({"publish", "-k", "k", "--type", "=post", place.file("input")}),
                    {"/dev/null", "/dev/null", place.file("publisher")});
  CHECK_MESSAGE(end_of(publisher) == 0, test::read_file(place.file("publisher")));
  await("it is said", [&] {
    return test::read_file(place.file("err")).find("No space left on device") != std::string::npos;
  });
  std::uint64_t committed = 0;
  for (std::uint32_t p = 0; p < partitions; ++p) {
    const Offset to = place.state(p).cursor.offset;
    committed += to.value;
    if (to > Offset(0)) {
      const ArchiveDirectory archive(place.store());
      ArchiveReader reader(archive, "t", Partition(p), std::nullopt, {.to = to});
      Offset end;
      while (const auto entry = reader.next()) {
        end = entry->next();
      }
      CHECK(end >= to);
    }
  }
  CHECK(committed < 60'000);
  CHECK(!worker.ended_within(std::chrono::milliseconds(0)));
  REQUIRE(::mount("none", place.store().c_str(), "tmpfs", MS_REMOUNT, "size=64m") == 0);
  await("all of it is archived", [&] {
    std::uint64_t done = 0;
    for (std::uint32_t p = 0; p < partitions; ++p) {
      done += place.state(p).cursor.offset.value;
    }
    return done == 60'000;
  });
  worker.signal(SIGTERM);
  CHECK(end_of(worker) == 0);
  CHECK(test::read_file(place.file("err")).find("is written again") != std::string::npos);
  CHECK(compare_all(place) == 60'000);
  CHECK(problems_of(place) == 0);
}
