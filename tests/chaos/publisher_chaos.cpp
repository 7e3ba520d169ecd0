// G1, G3: publishers and servers that are killed at random moments. The seed of a failing run is printed.
#include "redis/server.hpp"
#include "support/process.hpp"

#include "continuum/event.hpp"
#include "continuum/frame.hpp"
#include "continuum/log.hpp"
#include "continuum/topic.hpp"

#include <doctest/doctest.h>

#include <charconv>
#include <cstdlib>
#include <ctime>
#include <map>
#include <random>
#include <string>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;

namespace {

std::string binary() {
  const char* path = std::getenv("CONTINUUM_BINARY");
  return path == nullptr ? "./continuum" : path;
}

bool is_long() {
  return std::getenv("CONTINUUM_LONG") != nullptr;
}

constexpr std::uint64_t keys = 2'000;

// Line i (from 1) belongs to key k<i*7919 % keys>; "n" counts the key's own events.
std::string forum(std::uint64_t lines, const std::string& salt = "") {
  std::vector<std::uint64_t> count(keys);
  std::string text;
  for (std::uint64_t i = 1; i <= lines; ++i) {
    const auto key = i * 7919 % keys;
    text += "{\"k\":\"k" + std::to_string(key) + "\",\"n\":" + std::to_string(++count[key]) +
            ",\"line\":" + std::to_string(i) + salt + "}\n";
  }
  return text;
}

struct Found {
  std::uint64_t events = 0;
  std::uint64_t out_of_order = 0;
  std::uint64_t twice = 0;
  std::uint64_t gaps = 0;  // in the offsets
};

std::uint64_t number_after(std::string_view line, std::string_view name) {
  const auto at = line.find(name) + name.size();
  std::uint64_t value = 0;
  std::from_chars(line.data() + at, line.data() + line.size(), value);
  return value;
}

// Everything that is in the log, read without replay or worker.
Found read_log(const test::RedisServer& server, const std::string& name) {
  Found found;
  const auto session = server.session(redis::Needs::Access::read);
  const auto topic = load_topic(*session, name);
  std::map<std::string, std::uint64_t> last;
  std::map<std::uint64_t, int> lines;
  FrameDecoder decoder;
  for (const auto partition : topic.partitions()) {
    std::uint64_t expected = 0;
    std::string from = "-";
    for (;;) {
      redis::Request request;
      request.command("XRANGE", log_key(name, partition), from, "+", "COUNT", "100");
      const auto replies = session->call(std::move(request));
      for (std::size_t i = 0; i < replies[0].size(); ++i) {
        const auto entry = parse_entry(replies[0][i], name, partition);
        from = "(" + entry.id.text();
        if (entry.barrier) {
          continue;
        }
        found.gaps += entry.first.value != expected;
        expected = entry.next().value;
        std::string text;
        decoder.decode(entry.encoding, entry.frame, entry.events, text);
        for (std::size_t at = 0; at < text.size();) {
          const auto end = text.find('\n', at);
          const std::string_view line(text.data() + at, end - at);
          at = end + 1;
          std::string scratch;
          const std::string key(key_of(attributes_of(line), scratch));
          const auto n = number_after(line, "\"n\":");
          found.out_of_order += n <= last[key];
          last[key] = n;
          found.twice += ++lines[number_after(line, "\"line\":")] > 1;
          ++found.events;
        }
      }
      if (replies[0].size() == 0) {
        break;
      }
    }
  }
  return found;
}

void pause_at_most(std::chrono::microseconds longest, std::mt19937_64& random) {
  // The moment of a kill has to be random: there is no event to wait for.
  const auto us = static_cast<long>(random() % static_cast<std::uint64_t>(longest.count()));
  const timespec time{us / 1'000'000, us % 1'000'000 * 1000};
  ::nanosleep(&time, nullptr);
}

struct Setup {
  test::RedisServer server;
  test::TemporaryDirectory directory;
  std::uint64_t seed = std::random_device{}();
  std::mt19937_64 random{seed};

  [[nodiscard]] std::vector<std::string> publish(const std::string& file,
                                                 const std::vector<std::string>& more = {}) const {
    std::vector<std::string> command{binary(), "publish",    "-u",    server.url(), "-t",
                                     "forum",  "--create",   "--key", "k",          "--type",
                                     "=post",  "--producer", "P",     "--json",     directory.file(file)};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }
  void require_exactly(std::uint64_t lines) const {
    const auto found = read_log(server, "forum");
    CHECK(found.events == lines);
    CHECK(found.twice == 0);
    CHECK(found.out_of_order == 0);
    CHECK(found.gaps == 0);
  }
};

}  // namespace

TEST_CASE("a publisher that is killed at random moments and run again stores each event once, in order") {
  Setup s;
  CAPTURE(s.seed);
  const std::uint64_t lines = 200'000;
  test::write_file(s.directory.file("in"), forum(lines));
  const int kills = is_long() ? 50 : 15;
  for (int i = 0; i < kills; ++i) {
    test::Process process(s.publish("in", {"--rate", std::to_string(lines / 2)}), {});
    pause_at_most(120ms, s.random);
    process.signal(SIGKILL);
    process.wait();
  }
  const auto last = test::run(s.publish("in"));
  CHECK(last.status == 0);
  CAPTURE(last.err);
  s.require_exactly(lines);
  const auto again = test::run(s.publish("in"));
  CHECK(again.out == "{\"summary\":{\"stored\":0,\"duplicates\":200000,\"rejected\":0,\"unconfirmed\":0}}\n");
}

TEST_CASE("a publisher outlives servers that are killed and started again, and stores each event once") {
  Setup s;
  CAPTURE(s.seed);
  const std::uint64_t lines = 200'000;
  test::write_file(s.directory.file("in"), forum(lines));
  const int kills = is_long() ? 25 : 6;
  int runs = 0;
  std::optional<test::Process> process;
  for (int i = 0; i < kills; ++i) {
    if (!process || process->ended_within(0ms)) {
      process.emplace(s.publish("in", {"--rate", std::to_string(lines / 3)}), test::Process::Redirect{});
      ++runs;
    }
    pause_at_most(200ms, s.random);
    s.server.kill();
    pause_at_most(50ms, s.random);
    s.server.start();
  }
  process.reset();
  CHECK(runs >= 1);
  const auto last = test::run(s.publish("in"));
  CAPTURE(last.err);
  CHECK(last.status == 0);
  s.require_exactly(lines);
}

TEST_CASE("another input under a producer's name publishes nothing and says so") {
  Setup s;
  test::write_file(s.directory.file("in"), forum(5'000));
  test::write_file(s.directory.file("other"), forum(9'000, ",\"other\":true"));
  test::write_file(s.directory.file("shorter"), forum(100));
  CHECK(test::run(s.publish("in")).status == 0);
  for (const auto* file : {"other", "shorter"}) {
    const auto refused = test::run(s.publish(file));
    CHECK(refused.status == 4);
    CHECK(refused.err.find("the input differs from the one stored under producer P") != std::string::npos);
    CHECK(refused.out.find("\"stored\":0") != std::string::npos);
  }
  s.require_exactly(5'000);
  SUBCASE("but the same input that has grown goes on behind its old end") {
    test::write_file(s.directory.file("in"), forum(7'000));
    CHECK(test::run(s.publish("in")).out.find("\"stored\":2000,\"duplicates\":5000") != std::string::npos);
    s.require_exactly(7'000);
  }
}

TEST_CASE("two publishers under one name at once store each event once; the first is told") {
  Setup s;
  const std::uint64_t lines = 60'000;
  test::write_file(s.directory.file("in"), forum(lines));
  test::Process first(s.publish("in", {"--rate", "40000"}), {});
  test::Process second(s.publish("in", {"--rate", "40000"}), {});
  const int a = first.wait();
  const int b = second.wait();
  CHECK(std::min(a, b) == 0);
  CHECK((std::max(a, b) == 5 || std::max(a, b) == 0));
  s.require_exactly(lines);
}
