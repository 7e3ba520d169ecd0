// What `replay --dry-run` shows: how many events there are of each type in each partition, and when.
#pragma once

#include "output.hpp"
#include "server.hpp"

#include "continuum/replay.hpp"

#include <map>
#include <string>
#include <utility>

namespace continuum::app {

class ReplayCounts {
 public:
  explicit ReplayCounts(RangeOptions::By by) : by_(by) {}

  void add(const EventRun& run);
  // A table, or NDJSON.
  void print(const Context& context, Output& out) const;

 private:
  struct Count {
    std::uint64_t events = 0;
    Offset first_offset;
    Offset last_offset;
    SystemTime first_time{};
    SystemTime last_time{};
  };
  // So many in all; what comes beyond is counted as others.
  static constexpr std::size_t counts_max = 100'000;

  Count& count_of(Partition partition, std::string_view raw_type);

  RangeOptions::By by_;
  std::map<std::pair<Partition, std::string>, Count> counts_;
  std::map<Partition, Count> others_;
  std::string scratch_;
};

// When an event was appended, or its own time; the former if it has none.
[[nodiscard]] SystemTime time_of(const EventRun& run, std::string_view raw_time, RangeOptions::By by);

}  // namespace continuum::app
