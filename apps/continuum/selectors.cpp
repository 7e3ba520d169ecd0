#include "selectors.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/units.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace continuum::app {

std::vector<Partition> parse_partition_list(std::string_view text) {
  if (text == "all") {
    return {};
  }
  const auto number = [](std::string_view digits) {
    return static_cast<std::uint32_t>(parse_number(digits, 0, partitions_max - 1));
  };
  std::vector<Partition> chosen;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t comma = std::min(text.find(',', begin), text.size());
    const std::string_view item = text.substr(begin, comma - begin);
    const std::size_t dash = item.find('-');
    const std::uint32_t first = number(item.substr(0, dash));
    const std::uint32_t last = dash == std::string_view::npos ? first : number(item.substr(dash + 1));
    if (last < first) {
      fail(ErrorKind::usage, "give the lower partition first: {}-{}", last, first);
    }
    for (std::uint32_t p = first; p <= last; ++p) {
      chosen.emplace_back(p);
    }
    begin = comma + 1;
  }
  return chosen;
}

std::vector<Partition> parse_partitions_of(const Topic& topic, std::string_view text) {
  const auto known = topic.partitions();
  auto chosen = known;
  if (text != "all") {
    try {
      chosen = parse_partition_list(text);
    } catch (const Error& error) {
      fail(error.kind(), "--partition {}: {}", text, error.message());
    }
  }
  for (const auto p : chosen) {
    if (std::ranges::find(known, p) == known.end()) {
      fail(ErrorKind::usage, "--partition {}: topic {} has partitions {} to {}", p, topic.name, known.front(),
           known.back());
    }
  }
  std::ranges::sort(chosen);
  const auto repeated = std::ranges::unique(chosen);
  chosen.erase(repeated.begin(), repeated.end());
  return chosen;
}

Moment parse_moment(const std::string& text) {
  if (text == "start" || text == "end") {
    return {text == "start" ? Moment::Is::start : Moment::Is::end, {}, {}};
  }
  for (const std::string_view clock : {"", "T00:00:00Z"}) {
    if (const auto time = parse_time(text + std::string(clock))) {
      return {Moment::Is::time, *time, {}};
    }
  }
  // Ten digits and more: as the entry ids have it. Fewer would rather be a forgotten unit.
  if (text.size() >= 10 && text.find_first_not_of("0123456789") == std::string::npos) {
    return {Moment::Is::time,
            SystemTime(Milliseconds(static_cast<std::int64_t>(parse_number(text, 0, number_max)))),
            {}};
  }
  try {
    return {Moment::Is::ago, {}, parse_duration(text)};
  } catch (const Error&) {
    fail(ErrorKind::usage,
         "not a time; give 2024-05-01T12:00:00Z, 2024-05-01, milliseconds since 1970, how long ago, such as "
         "2h, or start or end");
  }
}

std::string text_of(const Moment& moment) {
  switch (moment.is) {
    case Moment::Is::start:
      return "start";
    case Moment::Is::end:
      return "end";
    case Moment::Is::time:
      return format_time(moment.time);
    case Moment::Is::ago:
      break;
  }
  constexpr std::array<std::pair<std::int64_t, std::string_view>, 4> units{
      {{86'400'000, "d"}, {3'600'000, "h"}, {60'000, "m"}, {1'000, "s"}}};
  const std::int64_t ms = moment.ago.count();
  for (const auto& [length, unit] : units) {
    if (ms % length == 0) {
      return fmt::format("{}{}", ms / length, unit);
    }
  }
  return fmt::format("{}ms", ms);
}

TimeRange parse_time_range(const std::string& text) {
  // Times have colons too: the one that parts the range leaves a moment, or nothing, on both sides.
  for (std::size_t colon = text.find(':'); colon != std::string::npos; colon = text.find(':', colon + 1)) {
    const std::string from = text.substr(1, colon - 1);
    const std::string to = text.substr(colon + 1);
    try {
      TimeRange range;
      if (!from.empty()) {
        range.since = parse_moment(from);
      }
      if (!to.empty()) {
        range.until = parse_moment(to);
      }
      return range;
    } catch (const Error&) {
      continue;
    }
  }
  fail(ErrorKind::usage,
       "{}: not a range of time; give @FROM:TO, such as @2h:1h, @2024-05-01:2024-05-02 or @start:1h", text);
}

SystemTime resolve(const Moment& moment, redis::Session& session) {
  if (moment.is == Moment::Is::time || moment.is == Moment::Is::start) {
    return moment.time;
  }
  redis::Request request;
  request.command("TIME");
  const redis::Replies replies = session.call(std::move(request));
  return SystemTime(Milliseconds(replies[0][0].integer() * 1000 + replies[0][1].integer() / 1000)) -
         moment.ago;
}

void resolve(const TimeRange& range, redis::Session& session, RangeOptions& out) {
  if (range.since && range.since->is != Moment::Is::start) {
    out.since = resolve(*range.since, session);
  }
  if (range.until && range.until->is != Moment::Is::end) {
    out.until = resolve(*range.until, session);
  }
}

}  // namespace continuum::app
