// Logs as a publisher writes them, for tests of readers.
#pragma once

#include "continuum/frame.hpp"
#include "continuum/log.hpp"
#include "continuum/redis.hpp"
#include "continuum/ring.hpp"
#include "continuum/topic.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace test {

inline std::string event_line(std::string_view id, std::string_view key,
                              std::string_view type = "post.created") {
  return fmt::format(
      R"({{"specversion":"1.0","id":"{}","source":"/t","type":"{}","time":"2024-05-01T12:00:00.000Z","partitionkey":"{}","data":{{"n":"{}"}}}})",
      id, type, key, id);
}

// The events of one partition, without their newlines.
inline std::vector<std::string> stored_lines(continuum::redis::Session& session, std::string_view topic,
                                             std::uint32_t partition) {
  const continuum::Partition p(partition);
  continuum::redis::Request request;
  request.command("XRANGE", continuum::log_key(topic, p), "-", "+");
  const auto replies = session.call(std::move(request));
  continuum::FrameDecoder decoder;
  std::string lines;
  std::vector<std::string> out;
  for (std::size_t i = 0; i < replies[0].size(); ++i) {
    const auto entry = continuum::parse_entry(replies[0][i], topic, p);
    if (!entry.barrier) {
      continuum::decode_entry(decoder, entry, topic, p, lines);
      for (std::string_view rest = lines; !rest.empty(); rest.remove_prefix(out.back().size() + 1)) {
        out.emplace_back(rest.substr(0, rest.find('\n')));
      }
    }
  }
  return out;
}

// A topic "t" whose logs are written by this test, entry by entry.
class LogData {
 public:
  LogData(continuum::redis::Session& session, std::uint32_t partitions) : session_(session) {
    continuum::create_topic(session, "t", continuum::RingDescription::uniform(partitions), {});
    topic_ = continuum::load_topic(session, "t");
  }

  [[nodiscard]] const continuum::Topic& topic() const { return topic_; }
  [[nodiscard]] continuum::Topic& topic() { return topic_; }
  [[nodiscard]] std::string log(std::uint32_t partition) const {
    return continuum::log_key("t", continuum::Partition(partition));
  }
  [[nodiscard]] std::string meta(std::uint32_t partition) const {
    return continuum::meta_key("t", continuum::Partition(partition));
  }

  void seal(std::uint32_t partition, std::uint32_t generation, std::string_view age) {
    call(std::move(continuum::redis::Request().run(
        continuum::redis::Script::seal, {meta(partition), log(partition)}, topic_.log_id, generation, age)));
  }

  // Appends one entry; returns its id.
  std::string append(std::uint32_t partition, const std::vector<std::string>& events,
                     continuum::Frames frames = continuum::Frames::plain, std::uint32_t generation = 1) {
    std::string lines;
    for (const std::string& event : events) {
      lines += event + "\n";
    }
    const auto count = static_cast<std::uint32_t>(events.size());
    const auto encoded = encoder_.encode(lines, count, frames);
    const std::string key =
        continuum::producer_key("t", continuum::Partition(partition), std::to_string(++producers_));
    const auto replies = call(std::move(continuum::redis::Request().run(
        continuum::redis::Script::append, {log(partition), meta(partition), key}, topic_.log_id, generation,
        "unnamed", 0, 0, count, "0", count, encoded.encoding == continuum::Encoding::zstd ? "z" : "e",
        encoded.bytes, "")));
    return std::string(replies[0][2].text());
  }

  template <class... Args>
  continuum::redis::Replies command(const Args&... args) {
    return call(std::move(continuum::redis::Request().command(args...)));
  }

 private:
  continuum::redis::Replies call(continuum::redis::Request request) {
    return session_.call(std::move(request));
  }

  continuum::redis::Session& session_;
  continuum::Topic topic_;
  continuum::FrameEncoder encoder_;
  std::uint64_t producers_ = 0;
};

}  // namespace test
