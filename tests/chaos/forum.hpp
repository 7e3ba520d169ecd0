// A topic with a load and workers on it as real processes, for tests that kill them.
#pragma once

#include "chaos/real_process.hpp"
#include "redis/server.hpp"

#include "continuum/lease.hpp"
#include "continuum/log.hpp"
#include "continuum/topic.hpp"

#include <doctest/doctest.h>

#include <charconv>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace test {

class Forum {
 public:
  static constexpr std::uint64_t keys = 500;
  static constexpr std::uint32_t partitions = 8;

  Forum() {
    const auto session = server_.session();
    continuum::create_topic(*session, "forum", continuum::RingDescription::uniform(partitions), {});
    auto topic = continuum::load_topic(*session, "forum");
    continuum::register_group(*session, topic, "g", "start");
  }

  [[nodiscard]] std::string file(const std::string& name) const { return directory_.file(name); }

  void publish(std::uint64_t events) {
    auto publisher = start_publishing(events, 100'000'000);
    const int status = end_of(publisher);
    REQUIRE_MESSAGE(status == 0, read_file(file("publisher")));
  }

  [[nodiscard]] Process start_publishing(std::uint64_t events, std::uint64_t per_second) {
    std::string text;
    for (std::uint64_t i = 0; i < events; ++i) {
      const auto key = (published_ * 7919) % keys;
      text += "{\"k\":\"k" + std::to_string(key) + "\",\"n\":" + std::to_string(++count_[key]) + "}\n";
      ++published_;
    }
    write_file(file("input"), text);
    return Process({binary(), "publish", "-u", server_.url(), "-t", "forum", "-k", "k", "--type", "=post",
                    "--rate", std::to_string(per_second), file("input")},
                   {"/dev/null", "/dev/null", file("publisher")});
  }

  [[nodiscard]] std::vector<std::string> work(const std::vector<std::string>& more) const {
    std::vector<std::string> command = share({"--partition", "all", "--lease", "500ms"});
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }
  // Without telling it its partitions.
  [[nodiscard]] std::vector<std::string> share(const std::vector<std::string>& more) const {
    std::vector<std::string> command{binary(), "work", "-u", server_.url(), "-t", "forum", "-g", "g"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }

  // Appends the fence and the event to the file, one write each, and answers.
  [[nodiscard]] std::vector<std::string> recorder() const {
    return {"--mode",
            "stream",
            "--",
            "sh",
            "-c",
            "while IFS= read -r line; do printf '%s %s\\n' \"$CONTINUUM_FENCE\" \"$line\" >>\"$0\"; echo ok; "
            "done",
            file("handled")};
  }

  [[nodiscard]] continuum::GroupState state(std::uint32_t partition) const {
    const auto session = server_.session(continuum::redis::Needs::Access::read);
    continuum::redis::Request request;
    request.command("HGETALL", continuum::group_key("forum", continuum::Partition(partition), "g"));
    return *continuum::parse_group(session->call(std::move(request))[0]);
  }

  struct Handled {
    std::uint64_t events = 0;
    std::uint64_t repeats = 0;
    std::uint64_t out_of_order = 0;  // among first times
    std::uint64_t refused = 0;       // came from an owner when a later one had been there: no effect
  };
  // What became of the lines that handlers or workers wrote, in a sink that compares fences where there are
  // some.
  [[nodiscard]] Handled handled(const std::string& name) const {
    Handled handled;
    std::map<std::string, std::uint64_t> last;
    std::map<std::uint64_t, std::uint64_t> fences;
    const std::string text = read_file(file(name));
    for (std::size_t at = 0; at < text.size();) {
      const auto end = std::min(text.find('\n', at), text.size());
      std::string_view line(text.data() + at, end - at);
      at = end + 1;
      // A worker that was killed while it wrote leaves half a line, and the next one's begins behind it.
      const auto begin = std::min(line.rfind("{\"partition\":"), line.size());
      const std::string_view before_event = line.substr(0, begin);
      line.remove_prefix(begin);
      const auto data = line.find("\"data\":{\"k\":\"");
      if (data == std::string_view::npos || !line.ends_with("}}")) {
        continue;
      }
      auto& fence = fences[number_after(line, "{\"partition\":")];
      if (before_event.ends_with(' ')) {
        const auto digits = before_event.find_last_not_of("0123456789 ") + 1;
        const std::uint64_t mine = number_after(before_event.substr(digits), "");
        if (mine < fence) {
          ++handled.refused;
          continue;
        }
        fence = mine;
      }
      const auto key = line.substr(data + 13, line.find('"', data + 13) - data - 13);
      const std::uint64_t n = number_after(line.substr(data), "\"n\":");
      auto& before = last[std::string(key)];
      if (n <= before) {
        ++handled.repeats;
        continue;
      }
      handled.out_of_order += n != before + 1 ? 1 : 0;
      before = n;
      ++handled.events;
    }
    return handled;
  }

  [[nodiscard]] std::uint64_t published() const { return published_; }
  RedisServer& server() { return server_; }

 private:
  static std::uint64_t number_after(std::string_view text, std::string_view name) {
    const auto at = text.find(name) + name.size();
    std::uint64_t value = 0;
    std::from_chars(text.data() + at, text.data() + text.size(), value);
    return value;
  }

  RedisServer server_;
  TemporaryDirectory directory_;
  std::map<std::uint64_t, std::uint64_t> count_;
  std::uint64_t published_ = 0;
};

}  // namespace test
