#include "continuum/key_sample.hpp"

#include "continuum/event.hpp"
#include "continuum/frame.hpp"
#include "continuum/log.hpp"

#include <algorithm>
#include <cmath>
#include <unordered_map>

namespace continuum {
namespace {

constexpr std::size_t partitions_at_once = 32;
// An entry may be a whole frame: few are asked for until it is known how many events they have.
constexpr std::uint64_t entries_first = 2;
constexpr std::uint64_t entries_max = 64;
constexpr std::size_t key_bytes_max = std::size_t{64} << 20;

struct Source {
  Partition partition;
  std::uint64_t wanted;      // events that are still to be counted
  std::string before = "+";  // XREVRANGE's upper bound
  std::uint64_t entries = entries_first;
};

class Sampler {
 public:
  Sampler(redis::Session& session, const Topic& topic) : session_(session), topic_(topic) {}

  void read(std::vector<Source> sources) {
    while (!sources.empty() && key_bytes_ <= key_bytes_max) {
      const std::size_t asked = std::min(partitions_at_once, sources.size());
      redis::Request request;
      for (std::size_t i = 0; i < asked; ++i) {
        request.command("XREVRANGE", log_key(topic_.name, sources[i].partition), sources[i].before, "-",
                        "COUNT", std::to_string(sources[i].entries));
      }
      const redis::Replies replies = session_.call(std::move(request));
      for (std::size_t i = 0; i < asked; ++i) {
        take(sources[i], replies[i]);
      }
      std::erase_if(sources, [](const Source& source) { return source.wanted == 0; });
    }
  }

  KeySample result() {
    KeySample sample;
    for (auto& [key, events] : events_) {
      sample.events += events;
      sample.keys.push_back({key, events});
    }
    std::ranges::sort(sample.keys, [](const SampledKey& a, const SampledKey& b) {
      return a.events != b.events ? a.events > b.events : a.key < b.key;
    });
    return sample;
  }

 private:
  void take(Source& source, redis::Reply answer) {
    const std::size_t size = answer.size();
    for (std::size_t i = 0; i < size && source.wanted > 0; ++i) {
      const Entry entry = parse_entry(answer[i], topic_.name, source.partition);
      if (!entry.barrier) {
        decode_entry(decoder_, entry, topic_.name, source.partition, lines_);
        count_newest(source);
      }
    }
    if (size < source.entries) {
      source.wanted = 0;
    } else {
      source.before = "(" + std::string(answer[size - 1][0].text());
      source.entries = std::min(entries_max, 2 * source.entries);
    }
  }

  // From the end of lines_ backwards.
  void count_newest(Source& source) {
    std::string_view rest = lines_;
    while (!rest.empty() && source.wanted > 0) {
      rest.remove_suffix(1);
      const std::size_t newline = rest.rfind('\n');
      const std::size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
      const std::string key(key_of(attributes_of(rest.substr(begin)), scratch_));
      const auto [found, is_new] = events_.try_emplace(key, 0);
      ++found->second;
      key_bytes_ += is_new ? key.size() : 0;
      --source.wanted;
      rest = rest.substr(0, begin);
    }
  }

  redis::Session& session_;
  const Topic& topic_;
  FrameDecoder decoder_;
  std::string lines_;
  std::string scratch_;
  std::unordered_map<std::string, std::uint64_t> events_;
  std::size_t key_bytes_ = 0;
};

}  // namespace

KeySample sample_keys(redis::Session& session, const Topic& topic, const std::vector<StoredEvents>& stored,
                      std::uint64_t events_max) {
  double all = 0;
  for (const StoredEvents& partition : stored) {
    all += static_cast<double>(partition.next - partition.first);
  }
  std::vector<Source> sources;
  for (const StoredEvents& partition : stored) {
    const std::uint64_t events = partition.next - partition.first;
    if (events > 0 && events_max > 0) {
      const double part = static_cast<double>(events) / all * static_cast<double>(events_max);
      const auto wanted = std::max<std::uint64_t>(1, static_cast<std::uint64_t>(std::llround(part)));
      sources.push_back({partition.partition, std::min(events, wanted)});
    }
  }
  Sampler sampler(session, topic);
  sampler.read(std::move(sources));
  return sampler.result();
}

}  // namespace continuum
