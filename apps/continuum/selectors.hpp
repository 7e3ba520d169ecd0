// How commands that read are told what to read: partitions, moments, ranges of time.
#pragma once

#include "continuum/log_range.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum::app {

// N, or a list such as 0,2,5-7; all is an empty one. Throws Error{usage}.
[[nodiscard]] std::vector<Partition> parse_partition_list(std::string_view text);

// The partitions of `topic` that the list names, each once, ascending. Throws Error{usage} for one that is
// not there.
[[nodiscard]] std::vector<Partition> parse_partitions_of(const Topic& topic, std::string_view text);

// A point in time as people give it: RFC 3339, a date (its begin in UTC), milliseconds since 1970, how long
// ago (2h), or an end of the log.
struct Moment {
  enum class Is : std::uint8_t { time, ago, start, end };
  Is is = Is::time;
  SystemTime time{};
  Milliseconds ago{0};  // before the server's present time
};
// Throws Error{usage}.
[[nodiscard]] Moment parse_moment(const std::string& text);

struct TimeRange {
  std::optional<Moment> since;
  std::optional<Moment> until;
};
// As an option takes it; the same text for the same moment.
[[nodiscard]] std::string text_of(const Moment& moment);

// @FROM:TO, each a moment or nothing. Throws Error{usage}.
[[nodiscard]] TimeRange parse_time_range(const std::string& text);

// By the server's clock, which also gave the entries their times. The start is before all times, the end is
// now; a range that begins at the start or ends at the end has no bound there.
[[nodiscard]] SystemTime resolve(const Moment& moment, redis::Session& session);
void resolve(const TimeRange& range, redis::Session& session, RangeOptions& out);

}  // namespace continuum::app
