// G1, G3, G8: replays that are killed at random moments, and run again. The seed of a failing run is printed.
#include "chaos/forum.hpp"
#include "redis/log_data.hpp"

#include "continuum/event.hpp"
#include "continuum/lease.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <ctime>
#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <thread>

using namespace continuum;
using namespace std::chrono_literals;

namespace {

class Random {
 public:
  void pause_at_most(std::chrono::milliseconds longest) {
    // The moment of a kill has to be random: there is no event to wait for.
    const auto us = static_cast<long>(random_() % static_cast<std::uint64_t>(longest.count() * 1000));
    const timespec time{us / 1'000'000, us % 1'000'000 * 1000};
    ::nanosleep(&time, nullptr);
  }
  bool one_of(std::uint64_t n) { return random_() % n == 0; }
  [[nodiscard]] std::uint64_t seed() const { return seed_; }

 private:
  std::uint64_t seed_ = std::random_device{}();
  std::mt19937_64 random_{seed_};
};

std::vector<std::string> replay(test::Forum& forum, const std::vector<std::string>& more) {
  std::vector<std::string> command{test::binary(), "replay", "-u", forum.server().url(), "-t", "forum"};
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

struct Copied {
  std::uint64_t events = 0;
  std::uint64_t twice = 0;
  std::uint64_t out_of_order = 0;
};

Copied copied(test::Forum& forum) {
  Copied out;
  const auto session = forum.server().session(redis::Needs::Access::read);
  std::map<std::string, std::uint64_t> last;
  std::set<std::string> seen;
  for (const Partition partition : load_topic(*session, "copy").partitions()) {
    for (const std::string& line : test::stored_lines(*session, "copy", partition.value)) {
      std::string scratch;
      const Attributes attributes = attributes_of(line);
      const std::string key(key_of(attributes, scratch));
      const std::uint64_t n =
          std::stoull(std::string(attributes.data.substr(attributes.data.find("\"n\":") + 4)));
      out.twice += seen.insert(line).second ? 0U : 1U;
      out.out_of_order += n != last[key] + 1 ? 1U : 0U;
      last[key] = n;
      ++out.events;
    }
  }
  return out;
}

// Removes from the log what the archive has, again and again, as fast as it grows.
class Trimmer {
 public:
  explicit Trimmer(test::Forum& forum) : forum_(forum), thread_([this] { run(); }) {}
  ~Trimmer() {
    ends_ = true;
    thread_.join();
  }
  Trimmer(const Trimmer&) = delete;
  Trimmer& operator=(const Trimmer&) = delete;

 private:
  void run() {
    const auto session = forum_.server().session();
    while (!ends_) {
      for (std::uint32_t p = 0; p < test::Forum::partitions; ++p) {
        const Partition partition(p);
        redis::Request ask;
        ask.command("HGETALL", group_key("forum", partition, "archive"));
        const auto state = parse_group(session->call(std::move(ask))[0]);
        if (state && state->cursor.entry != EntryId()) {
          const EntryId kept{state->cursor.entry.milliseconds, state->cursor.entry.sequence + 1};
          redis::Request trim;
          trim.command("XTRIM", log_key("forum", partition), "MINID", kept.text());
          (void)session->call(std::move(trim));
        }
      }
    }
  }

  test::Forum& forum_;
  std::atomic<bool> ends_ = false;
  std::thread thread_;
};

// What was replayed of each partition, with its places. The offsets follow each other from 0 on.
std::vector<std::string> partitions_of(const std::string& text) {
  std::vector<std::string> out(test::Forum::partitions);
  std::vector<std::uint64_t> next(test::Forum::partitions);
  std::uint64_t wrong = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at) + 1;
    const std::string line = text.substr(at, end - at);
    at = end;
    const std::size_t partition = std::stoul(line.substr(line.find(':') + 1));
    const std::uint64_t offset = std::stoull(line.substr(line.find("\"offset\":") + 9));
    wrong += offset != next.at(partition)++ ? 1U : 0U;
    out[partition] += line;
  }
  CHECK(wrong == 0);
  return out;
}

void create_copy(test::Forum& forum) {
  create_topic(*forum.server().session(), "copy", RingDescription::uniform(3), {});
}

}  // namespace

TEST_CASE("runs of a cursor that are killed and that overlap send on every event, in order") {
  test::Forum forum;
  Random random;
  CAPTURE(random.seed());
  const std::vector<std::string> run =
      replay(forum, {"--cursor", "cron", "--meta", "--lease", "300ms", "--rate", "20000/s"});
  const test::Process::Redirect sent_to{"/dev/null", forum.file("sent"), forum.file("said")};  // at its end
  auto publisher = forum.start_publishing(40'000, 20'000);
  const int runs = test::is_long() ? 60 : 20;
  std::unique_ptr<test::Process> overlapping;
  for (int i = 0; i < runs; ++i) {
    auto process = std::make_unique<test::Process>(run, sent_to);
    random.pause_at_most(250ms);
    if (random.one_of(2)) {
      process->signal(SIGKILL);
      process->wait();
    } else if (random.one_of(2)) {
      process->signal(SIGTERM);
      process->wait();
    } else {
      overlapping = std::move(process);  // kills the one before
    }
  }
  overlapping.reset();
  CHECK(test::end_of(publisher) == 0);
  std::vector<std::string> last = run;
  last.resize(last.size() - 2);
  last.insert(last.end(), {"--if-running", "wait=30s"});
  test::Process end(last, sent_to);
  CHECK(test::end_of(end) == 0);
  const auto sent = forum.handled("sent");
  CHECK(sent.events == forum.published());
  CHECK(sent.out_of_order == 0);
  const auto nothing = test::run(last);
  CHECK(nothing.status == 0);
  CHECK(nothing.out.empty());
}

TEST_CASE("runs of a cursor to handlers, killed and overlapping, have every event handled, in order") {
  test::Forum forum;
  Random random;
  CAPTURE(random.seed());
  forum.publish(8'000);
  // Of many keys some fail for as long as the kills go on: the others go on, and none of their events is
  // lost.
  const std::string handler = "while read -r line; do case $line in *'\"k\":\"k7\"'*) if [ ! -e " +
                              forum.file("mended") +
                              " ]; then echo retry; continue; fi;; esac; printf '%s\\n' \"$line\" >>" +
                              forum.file("sent") + "; echo ok; done";
  const auto run = [&](const std::vector<std::string>& more) {
    std::vector<std::string> options{"--cursor", "cron",       "--lease", "300ms",     "--mode",
                                     "stream",   "--attempts", "2",       "--backoff", "1ms..1ms"};
    options.insert(options.end(), more.begin(), more.end());
    options.insert(options.end(), {"--", "sh", "-c", handler});
    return replay(forum, options);
  };
  const test::Process::Redirect quiet{"/dev/null", forum.file("out"), forum.file("said")};
  const int runs = test::is_long() ? 60 : 15;
  std::unique_ptr<test::Process> overlapping;
  for (int i = 0; i < runs; ++i) {
    auto process = std::make_unique<test::Process>(run({}), quiet);
    random.pause_at_most(250ms);
    if (random.one_of(3)) {
      process->signal(SIGKILL);
      process->wait();
    } else if (random.one_of(2)) {
      process->signal(SIGTERM);
      process->wait();
    } else {
      overlapping = std::move(process);  // kills the one before
    }
  }
  overlapping.reset();
  const auto failing = test::run(run({"--if-running", "wait=30s"}));
  CAPTURE(failing.err);
  CHECK(failing.status == 1);
  test::run({"touch", forum.file("mended")});
  const auto last = test::run(run({}));
  CAPTURE(last.err);
  CHECK(last.status == 0);
  const auto sent = forum.handled("sent");
  CHECK(sent.events == forum.published());
  CHECK(sent.out_of_order == 0);
  CHECK(test::run(run({"--fail-if-empty"})).status == 1);
}

TEST_CASE("a replay to a topic that is killed and run again stores each event once, in order") {
  test::Forum forum;
  Random random;
  CAPTURE(random.seed());
  create_copy(forum);
  forum.publish(60'000);
  const int kills = test::is_long() ? 50 : 15;
  for (int i = 0; i < kills; ++i) {
    test::Process process(replay(forum, {"--to", "copy", "--rate", "100000/s"}), {});
    random.pause_at_most(150ms);
    process.signal(SIGKILL);
    process.wait();
  }
  const auto last = test::run(replay(forum, {"--to", "copy", "--json"}));
  CAPTURE(last.err);
  CHECK(last.status == 0);
  const Copied all = copied(forum);
  CHECK(all.events == forum.published());
  CHECK(all.twice == 0);
  CHECK(all.out_of_order == 0);
  const auto again = test::run(replay(forum, {"--to", "copy", "--json"}));
  CHECK(again.out.find("\"stored\":0,\"duplicates\":60000,") != std::string::npos);
}

TEST_CASE("runs of a cursor to a topic, killed and overlapping, store each event once") {
  test::Forum forum;
  Random random;
  CAPTURE(random.seed());
  create_copy(forum);
  const std::vector<std::string> run =
      replay(forum, {"--cursor", "cron", "--to", "copy", "--lease", "300ms", "--if-running", "wait=30s"});
  auto publisher = forum.start_publishing(40'000, 20'000);
  const int runs = test::is_long() ? 60 : 20;
  std::vector<std::unique_ptr<test::Process>> processes;
  for (int i = 0; i < runs; ++i) {
    processes.push_back(std::make_unique<test::Process>(run, test::Process::Redirect{}));
    random.pause_at_most(200ms);
    if (random.one_of(3)) {
      processes.back()->signal(SIGKILL);
    }
  }
  CHECK(test::end_of(publisher) == 0);
  for (const auto& process : processes) {
    process->wait();
  }
  const auto last = test::run(run);
  CAPTURE(last.err);
  CHECK(last.status == 0);
  const Copied all = copied(forum);
  CHECK(all.events == forum.published());
  CHECK(all.twice == 0);
  CHECK(all.out_of_order == 0);
}

TEST_CASE("a replay to a topic outlives a server that is killed and started again") {
  test::Forum forum;
  Random random;
  CAPTURE(random.seed());
  create_copy(forum);
  forum.publish(40'000);
  const int kills = test::is_long() ? 20 : 5;
  std::unique_ptr<test::Process> process;
  for (int i = 0; i < kills; ++i) {
    if (!process || process->ended_within(0ms)) {
      process = std::make_unique<test::Process>(replay(forum, {"--to", "copy", "--rate", "50000/s"}),
                                                test::Process::Redirect{});
    }
    random.pause_at_most(200ms);
    forum.server().kill();
    random.pause_at_most(50ms);
    forum.server().start();
  }
  process.reset();
  const auto last = test::run(replay(forum, {"--to", "copy"}));
  CAPTURE(last.err);
  CHECK(last.status == 0);
  const Copied all = copied(forum);
  CHECK(all.events == forum.published());
  CHECK(all.twice == 0);
  CHECK(all.out_of_order == 0);
}

TEST_CASE("replays over an archive that grows and a log that is trimmed behind it have every event") {
  test::Forum forum;
  Random random;
  CAPTURE(random.seed());
  std::filesystem::create_directory(forum.file("store"));
  const auto start_archiver = [&] {
    return std::make_unique<test::Process>(
        std::vector<std::string>{test::binary(), "work", "-u", forum.server().url(), "-t", "forum",
                                 "--archive", forum.file("store"), "--lease", "500ms"},
        test::Process::Redirect{"/dev/null", "/dev/null", forum.file("archiver")});
  };
  auto archiver = start_archiver();
  const int rounds = test::is_long() ? 40 : 8;
  std::vector<std::string> before(test::Forum::partitions);
  const auto run = [&](const std::vector<std::string>& more) {
    const std::string name = forum.file("replayed");
    std::filesystem::remove(name);
    test::Process process(replay(forum, more), {"/dev/null", name, forum.file("said")});
    const int status = test::end_of(process);
    CAPTURE(test::read_file(forum.file("said")));
    CHECK(status == 0);
    const auto now = partitions_of(test::read_file(name));
    for (std::size_t p = 0; p < now.size(); ++p) {
      CAPTURE(p);
      CHECK(now[p].starts_with(before[p]));
    }
    before = now;
  };
  {
    const Trimmer trimmer(forum);
    auto publisher = forum.start_publishing(60'000, 10'000);
    for (int i = 0; i < rounds; ++i) {
      // Slow enough to be overtaken by the trimmer, and as fast as it goes.
      run({"--archive", forum.file("store"), "--meta", "--rate", random.one_of(2) ? "40000/s" : "1000000/s"});
      if (random.one_of(3)) {
        archiver->signal(SIGKILL);
        archiver->wait();
        archiver = start_archiver();
      }
    }
    CHECK(test::end_of(publisher) == 0);
    run({"--archive", forum.file("store"), "--meta"});
  }
  const auto all = forum.handled("replayed");
  CHECK(all.events == forum.published());
  CHECK(all.out_of_order == 0);
  CHECK(all.repeats == 0);
  // The archive was needed.
  CHECK(test::run(replay(forum, {})).status == 4);
}
