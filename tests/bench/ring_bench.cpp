// Speed of the ring, in CPU time: `ring-bench [ROUNDS]` prints one JSON line with the medians, and the least
// and most of all rounds: milliseconds to build 1,000 partitions of 256 virtual nodes, nanoseconds per lookup
// over 200,000 short keys (throughput: nothing waits for the lookup before), the same by a binary search of
// the standard library over the same points, and the largest of 8 shares. Then the medians of build and
// lookup of every algorithm at 8, 64 and 1,000 partitions: of one key after the other, and of many at once.
#include "continuum/ring.hpp"

#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

namespace {

using continuum::Ring;
using continuum::RingDescription;
using continuum::RingPoint;

struct Spread {
  double median;
  double least;
  double most;
};

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

// Of this thread's own time: whatever else runs on the machine is not the ring's.
double nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

std::string json_of(const Spread& spread) {
  return fmt::format(R"({{"median":{:.3f},"min":{:.3f},"max":{:.3f}}})", spread.median, spread.least,
                     spread.most);
}

// One JSON object an algorithm and number of partitions. Adds the owners to `sum`. `agree`: whether those of
// one key at a time and those of many are the same, looked at here and there.
std::string json_of_algorithms(const std::vector<std::string>& keys, int rounds, std::uint64_t& sum,
                               bool& agree) {
  std::string json;
  const std::vector<std::string_view> views(keys.begin(), keys.end());
  std::vector<continuum::Partition> owners(keys.size());
  for (const char* name : {"xxh3", "murmur3", "uhashring", "ketama", "kafka", "crc32"}) {
    for (const std::uint32_t partitions : {8U, 64U, 1000U}) {
      std::vector<double> build_ms;
      std::vector<double> lookup_ns;
      std::vector<double> lookups_ns;
      for (int round = 0; round < rounds; ++round) {
        double start = nanoseconds();
        const Ring ring(RingDescription::uniform(partitions, continuum::parse_ring_algorithm(name)));
        build_ms.push_back((nanoseconds() - start) / 1e6);
        start = nanoseconds();
        for (const std::string& key : keys) {
          sum += ring.owner(key).value;
        }
        lookup_ns.push_back((nanoseconds() - start) / static_cast<double>(keys.size()));
        start = nanoseconds();
        ring.owners(views, owners);
        lookups_ns.push_back((nanoseconds() - start) / static_cast<double>(keys.size()));
        for (std::size_t i = 0; i < keys.size(); i += keys.size() / 100) {
          agree = agree && owners[i] == ring.owner(keys[i]);
        }
      }
      json += fmt::format(
          R"({}{{"algorithm":"{}","partitions":{},"lookup_ns":{:.3f},"lookups_ns":{:.3f},"build_ms":{:.5f}}})",
          json.empty() ? "" : ",", name, partitions, spread_of(lookup_ns).median,
          spread_of(lookups_ns).median, spread_of(build_ms).median);
    }
  }
  return "[" + json + "]";
}

// What one would write without Ring.
std::uint32_t owner_by_binary_search(const std::vector<RingPoint>& points, const std::string& key) {
  const std::uint64_t hash = XXH3_64bits(key.data(), key.size());
  const auto found =
      std::lower_bound(points.begin(), points.end(), hash,
                       [](const RingPoint& point, std::uint64_t value) { return point.hash < value; });
  return (found == points.end() ? points.front() : *found).partition.value;
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = std::max(1, argc > 1 ? std::atoi(argv[1]) : 11);
  constexpr std::size_t keys_count = 200'000;
  constexpr int passes = 5;  // so that the caches are those of lookups, not of the build
  std::vector<std::string> keys;
  keys.reserve(keys_count);
  for (std::size_t i = 0; i < keys_count; ++i) {
    keys.push_back(fmt::format("thread-{}", i * 7919 % 1'000'003));
  }

  std::vector<double> build_ms;
  std::vector<double> lookup_ns;
  std::vector<double> binary_search_ns;
  std::uint64_t sum = 0;  // printed, so that no lookup can be left out
  std::uint64_t check_sum = 0;
  for (int round = 0; round < rounds; ++round) {
    double start = nanoseconds();
    const Ring ring(RingDescription::uniform(1000));
    build_ms.push_back((nanoseconds() - start) / 1e6);

    start = nanoseconds();
    for (int pass = 0; pass < passes; ++pass) {
      for (const std::string& key : keys) {
        sum += ring.owner(key).value;
      }
    }
    lookup_ns.push_back((nanoseconds() - start) / (static_cast<double>(keys_count) * passes));

    const std::vector<RingPoint> points = ring.points();
    start = nanoseconds();
    for (int pass = 0; pass < passes; ++pass) {
      for (const std::string& key : keys) {
        check_sum += owner_by_binary_search(points, key);
      }
    }
    binary_search_ns.push_back((nanoseconds() - start) / (static_cast<double>(keys_count) * passes));
  }
  const std::vector<double> shares = Ring(RingDescription::uniform(8)).shares();
  const double largest = *std::max_element(shares.begin(), shares.end()) * static_cast<double>(shares.size());
  bool agree = sum == check_sum;
  const std::string algorithms = json_of_algorithms(keys, rounds, sum, agree);
  if (!agree) {
    fmt::print(stderr, "ring-bench: two lookups disagree\n");
    return 1;
  }
  fmt::print(
      R"({{"rounds":{},"lookup_ns":{},"binary_search_ns":{},"build_ms":{},"largest_share_of_8":{:.4f},"algorithms":{},"sum":{}}})"
      "\n",
      rounds, json_of(spread_of(lookup_ns)), json_of(spread_of(binary_search_ns)),
      json_of(spread_of(build_ms)), largest, algorithms, sum);
  return std::ferror(stdout) != 0 ? 1 : 0;
}
