// A topic whose events two handlers write down, one of which fails for some keys until it is mended; for
// tests with real workers.
#pragma once

#include "chaos/real_process.hpp"
#include "redis/server.hpp"

#include "continuum/dead_letters.hpp"
#include "continuum/lease.hpp"
#include "continuum/log.hpp"
#include "continuum/topic.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace test {

inline constexpr std::uint64_t lease_ms = 500;

// One key in a hundred is a bad one.
inline constexpr std::uint32_t bad_one_in = 100;
inline bool is_bad(std::uint32_t key) {
  return key % bad_one_in == 0;
}

// What one handler wrote down, judged key by key.
struct Seen {
  std::map<std::uint32_t, std::uint32_t> last;   // by key: the highest number
  std::map<std::uint32_t, std::uint32_t> again;  // by key: how often it began again at an earlier one
  std::uint64_t repeats = 0;                     // numbers that had been there before
  std::uint64_t gaps = 0;                        // numbers that came before the one in front of them

  [[nodiscard]] std::uint64_t events() const {
    std::uint64_t sum = 0;
    for (const auto& [key, number] : last) {
      sum += number;
    }
    return sum;
  }
  [[nodiscard]] std::uint32_t most_again() const {
    std::uint32_t most = 0;
    for (const auto& [key, times] : again) {
      most = std::max(most, times);
    }
    return most;
  }
};

class RecordedForum {
 public:
  static constexpr std::uint32_t partitions = 8;
  static constexpr const char* handler = "10-first";

  explicit RecordedForum(std::uint32_t its_keys = is_long() ? 10'000 : 1'000)
      : keys(its_keys), events(20 * its_keys) {
    const auto session = server_.session();
    continuum::create_topic(*session, "forum", continuum::RingDescription::uniform(partitions), {});
    auto topic = continuum::load_topic(*session, "forum");
    continuum::register_group(*session, topic, "g", "start");
    std::filesystem::create_directory(file("handlers"));
  }

  const std::uint32_t keys;
  const std::uint32_t events;  // that a test publishes in all

  [[nodiscard]] std::string file(const std::string& name) const { return directory_.file(name); }
  [[nodiscard]] const RedisServer& server() const { return server_; }

  // A handler that writes down what it handled, as `name`, and fails for one key in `divisor` until it is
  // mended (recording_handler.c).
  struct Recorder {
    std::string name = handler;
    std::uint32_t divisor = 0;
    std::string mode = "stream";
    std::vector<std::string> program = {recording_handler()};
    std::uint32_t concurrency = 1;
  };
  void write_handler(const Recorder& recorder) const {
    auto command = recorder.program;
    command.insert(command.end(), {file(recorder.name), std::to_string(recorder.divisor), file("mended")});
    std::string text = "command = [";
    for (const std::string& word : command) {
      text += "'" + word + "', ";
    }
    text += "]\nmode = \"" + recorder.mode + "\"\nconcurrency = " + std::to_string(recorder.concurrency) +
            "\nattempts = 2\nbackoff = \"5ms..10ms\"\n";
    // Whole or not at all.
    write_file(file("handlers/." + recorder.name), text);
    std::filesystem::rename(file("handlers/." + recorder.name), file("handlers/" + recorder.name + ".toml"));
  }
  void mend() const { write_file(file("mended"), ""); }
  void break_again() const { std::filesystem::remove(file("mended")); }

  [[nodiscard]] Process start_publishing(std::uint32_t count, std::uint64_t per_second) {
    std::string text;
    for (const std::uint32_t end = published_ + count; published_ < end; ++published_) {
      // Each round has every key once: 7919 is prime.
      const std::uint64_t key = std::uint64_t{published_} * 7919 % keys;
      text +=
          "{\"k\":\"k" + std::to_string(key) + "\",\"n\":" + std::to_string(published_ / keys + 1) + "}\n";
    }
    write_file(file("input"), text);
    return Process({binary(), "publish", "-u", server_.url(), "-t", "forum", "-k", "k", "--type", "=post",
                    "--rate", std::to_string(per_second), file("input")},
                   {"/dev/null", "/dev/null", file("publisher")});
  }
  void publish(std::uint32_t count) {
    auto publisher = start_publishing(count, 100'000'000);
    const int status = end_of(publisher);
    REQUIRE_MESSAGE(status == 0, read_file(file("publisher")));
  }
  [[nodiscard]] std::uint32_t published() const { return published_; }
  // Of the events that were published, how many are this key's.
  [[nodiscard]] std::uint32_t published_of(std::uint32_t key) const {
    std::uint32_t count = published_ / keys;
    for (std::uint64_t i = std::uint64_t{count} * keys; i < published_; ++i) {
      count += i * 7919 % keys == key ? 1U : 0U;
    }
    return count;
  }

  [[nodiscard]] Process work(std::vector<std::string> more) const {
    std::vector<std::string> command{binary(), "work", "-u", server_.url(), "-t",
                                     "forum",  "-g",   "g",  "--lease",     "500ms"};
    command.insert(command.end(), more.begin(), more.end());
    return Process(command, {"/dev/null", "/dev/null", file("err")});
  }
  [[nodiscard]] Process work_directory(std::vector<std::string> more) const {
    more.insert(more.end(), {"--handlers", file("handlers")});
    return work(std::move(more));
  }

  // The last of what workers and their handlers said.
  [[nodiscard]] std::string said() const {
    const std::string all = read_file(file("err"));
    return all.substr(all.size() - std::min<std::size_t>(all.size(), 4'000));
  }

  [[nodiscard]] Seen seen(const std::string& name) const {
    const std::string bytes = read_file(file(name));
    Seen seen;
    std::map<std::uint32_t, std::uint32_t> before;
    for (std::size_t at = 0; at + 8 <= bytes.size(); at += 8) {
      std::uint32_t record[2];
      std::memcpy(record, bytes.data() + at, sizeof record);
      const auto [key, number] = record;
      seen.gaps += number > before[key] + 1 ? 1U : 0U;
      seen.again[key] += number <= before[key] ? 1U : 0U;
      before[key] = number;
      auto& last = seen.last[key];
      seen.repeats += number <= last ? 1U : 0U;
      last = std::max(last, number);
    }
    return seen;
  }

  // While everything goes on.
  void resize(std::uint32_t to) {
    const Process::Redirect said{"/dev/null", "/dev/null", file("resize")};
    Process process(
        {binary(), "ring", "resize", "-u", server_.url(), "-t", "forum", "--partitions", std::to_string(to)},
        said);
    const int status = end_of(process);
    REQUIRE_MESSAGE(status == 0, read_file(file("resize")));
    ever_ = std::max(ever_, to);
  }

  [[nodiscard]] continuum::GroupState state(std::uint32_t partition) const {
    const auto session = server_.session(continuum::redis::Needs::Access::read);
    continuum::redis::Request request;
    request.command("HGETALL", continuum::group_key("forum", continuum::Partition(partition), "g"));
    return *continuum::parse_group(session->call(std::move(request))[0]);
  }
  // And every barrier passed.
  [[nodiscard]] bool everything_is_committed() const {
    const auto session = server_.session(continuum::redis::Needs::Access::read);
    std::uint64_t committed = 0;
    for (std::uint32_t p = 0; p < ever_; ++p) {
      continuum::redis::Request request;
      request.command("HGETALL", continuum::group_key("forum", continuum::Partition(p), "g"));
      request.command("HGETALL", continuum::meta_key("forum", continuum::Partition(p)));
      const auto replies = session->call(std::move(request));
      const auto group = continuum::parse_group(replies[0]);
      const auto log = continuum::parse_meta(replies[1]);
      if (!group || !log || (group->passed != log->generation && log->generation.value > 1)) {
        return false;
      }
      committed += group->cursor.offset.value;
    }
    return committed == published_;
  }
  [[nodiscard]] bool all_partitions_are(const std::string& what) const {
    for (std::uint32_t p = 0; p < partitions; ++p) {
      if (state(p).state != what) {
        return false;
      }
    }
    return true;
  }

  [[nodiscard]] continuum::HeldKeys held(std::uint32_t partition) const {
    const auto session = server_.session(continuum::redis::Needs::Access::read);
    continuum::redis::Request request;
    request.command("HGETALL", continuum::held_key("forum", continuum::Partition(partition), "g"));
    return continuum::parse_held(session->call(std::move(request))[0]);
  }
  [[nodiscard]] std::uint64_t letters() const {
    std::uint64_t sum = 0;
    for (std::uint32_t p = 0; p < ever_; ++p) {
      sum += held(p).letters;
    }
    return sum;
  }
  [[nodiscard]] std::uint64_t held_keys() const {
    std::uint64_t sum = 0;
    for (std::uint32_t p = 0; p < ever_; ++p) {
      sum += held(p).keys.size();
    }
    return sum;
  }
  // Asks for the held keys to be released, at most so many of each partition.
  void release(std::size_t most_of_each = std::size_t(-1)) const {
    const auto session = server_.session();
    for (std::uint32_t p = 0; p < ever_; ++p) {
      for (const continuum::HeldKey& key : held(p).keys) {
        if (key.request) {
          continue;
        }
        continuum::redis::Request request;
        continuum::request_release(request, continuum::group_key("forum", continuum::Partition(p), "g"),
                                   continuum::held_key("forum", continuum::Partition(p), "g"), key.whose,
                                   continuum::LetterRequest{});
        static_cast<void>(session->call(std::move(request)));
        if (--most_of_each == 0) {
          break;
        }
      }
    }
  }

  struct Letter {
    std::uint32_t number;
    continuum::LetterState state;
    std::uint32_t attempts;
  };
  // In their order, by key.
  [[nodiscard]] std::map<std::uint32_t, std::vector<Letter>> all_letters() const {
    std::map<std::uint32_t, std::vector<Letter>> all;
    const auto session = server_.session(continuum::redis::Needs::Access::read);
    for (std::uint32_t p = 0; p < ever_; ++p) {
      continuum::redis::Request request;
      request.command("XRANGE", continuum::dead_key("forum", continuum::Partition(p), "g"), "-", "+");
      const auto replies = session->call(std::move(request));
      for (std::size_t i = 0; i < replies[0].size(); ++i) {
        const continuum::DeadLetter letter = continuum::parse_dead_letter(replies[0][i]);
        CHECK(letter.whose.handler == handler);
        const auto number = letter.event.find("\"n\":");
        REQUIRE(number != std::string::npos);
        all[number_at(letter.whose.key, 1)].push_back(
            {number_at(letter.event, number + 4), letter.state, letter.attempts});
      }
    }
    return all;
  }

 private:
  static std::uint32_t number_at(const std::string& text, std::size_t at) {
    std::uint32_t number = 0;
    std::from_chars(text.data() + at, text.data() + text.size(), number);
    return number;
  }

  RedisServer server_;
  TemporaryDirectory directory_;
  std::uint32_t published_ = 0;
  std::uint32_t ever_ = partitions;  // 0 to this, less one, are or were in the ring
};

enum class Bad : std::uint8_t { unseen, seen };

// The handler saw every event of the keys that it should have.
inline void check_complete(const RecordedForum& forum, const Seen& seen, Bad bad) {
  CHECK(seen.gaps == 0);
  std::uint32_t wrong = 0;
  for (std::uint32_t key = 0; key < forum.keys; ++key) {
    const auto found = seen.last.find(key);
    const std::uint32_t last = found == seen.last.end() ? 0 : found->second;
    wrong += last != (is_bad(key) && bad == Bad::unseen ? 0 : forum.published_of(key)) ? 1U : 0U;
  }
  CHECK(wrong == 0);
}

inline void check_once(const RecordedForum& forum, const Seen& seen, Bad bad) {
  check_complete(forum, seen, bad);
  CHECK(seen.repeats == 0);
}

}  // namespace test
