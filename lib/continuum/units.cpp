#include "continuum/units.hpp"

#include "continuum/error.hpp"

#include <array>
#include <charconv>
#include <cmath>

namespace continuum {
namespace {

constexpr std::int64_t duration_ms_max = std::int64_t{36'500} * 86'400'000;

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};
constexpr std::array duration_units{Unit{"ms", 1}, Unit{"s", 1'000}, Unit{"m", 60'000}, Unit{"h", 3'600'000},
                                    Unit{"d", 86'400'000}};
constexpr std::array byte_units{Unit{"", 1}, Unit{"B", 1}, Unit{"KiB", 1 << 10}, Unit{"MiB", 1 << 20},
                                Unit{"GiB", 1 << 30}};
constexpr std::array rate_units{Unit{"/s", 1}, Unit{"/m", 60}, Unit{"/h", 3'600}};

struct Number {
  std::uint64_t value;
  std::string_view unit;
};

// Digits and what is behind them. False when it does not begin with digits, or they are too many.
bool split(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number.value);
  number.unit = text.substr(static_cast<std::size_t>(end - text.data()));
  return error == std::errc();
}

}  // namespace

Milliseconds parse_duration(std::string_view text) {
  Number number{};
  if (split(text, number)) {
    if (number.unit.empty() && number.value == 0) {
      return Milliseconds{0};
    }
    for (const auto& unit : duration_units) {
      if (unit.name != number.unit) {
        continue;
      }
      if (number.value > static_cast<std::uint64_t>(duration_ms_max) / unit.factor) {
        fail(ErrorKind::usage, "longer than 36500d, the longest duration");
      }
      return Milliseconds{static_cast<std::int64_t>(number.value * unit.factor)};
    }
  }
  fail(ErrorKind::usage, "not a duration; give 500ms, 10s, 5m, 2h or 7d");
}

std::string exact_duration(Milliseconds duration) {
  const auto ms = duration.count();
  std::string text = "0";
  std::uint64_t best = 0;
  for (const auto& unit : duration_units) {
    if (ms > 0 && unit.factor > best && static_cast<std::uint64_t>(ms) % unit.factor == 0) {
      best = unit.factor;
      text = fmt::format("{}{}", static_cast<std::uint64_t>(ms) / unit.factor, unit.name);
    }
  }
  return text;
}

std::string format_duration(Milliseconds duration) {
  const auto ms = duration.count();
  if (ms < 0) {
    return "-" + format_duration(-duration);
  }
  const auto seconds = ms / 1000;
  if (ms < 1000) {
    return ms == 0 ? "0s" : fmt::format("{}ms", ms);
  }
  if (seconds < 60) {
    return fmt::format("{}.{}s", seconds, ms % 1000 / 100);
  }
  if (seconds < 3600) {
    return fmt::format("{}m{:02}s", seconds / 60, seconds % 60);
  }
  if (seconds < 86400) {
    return fmt::format("{}h{:02}m", seconds / 3600, seconds % 3600 / 60);
  }
  return fmt::format("{}d{:02}h", seconds / 86400, seconds % 86400 / 3600);
}

Backoff parse_backoff(std::string_view text) {
  const auto dots = text.find("..");
  if (dots == std::string_view::npos) {
    fail(ErrorKind::usage, "give the first and the longest pause, such as 100ms..30s");
  }
  const Backoff backoff{parse_duration(text.substr(0, dots)), parse_duration(text.substr(dots + 2))};
  if (backoff.min < Milliseconds(1) || backoff.max < backoff.min) {
    fail(ErrorKind::usage, "the first pause must be at least 1ms and not longer than the longest");
  }
  return backoff;
}

std::uint64_t parse_bytes(std::string_view text) {
  Number number{};
  if (split(text, number)) {
    for (const auto& unit : byte_units) {
      if (unit.name == number.unit && number.value <= number_max / unit.factor) {
        return number.value * unit.factor;
      }
    }
  }
  fail(ErrorKind::usage, "not a size; give 4096, 64KiB, 1MiB or 2GiB");
}

std::string format_bytes(std::uint64_t bytes) {
  if (bytes < 1024) {
    return fmt::format("{} B", bytes);
  }
  constexpr std::array names{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t i = 0;
  while (value >= 1023.95 && i + 1 < names.size()) {
    value /= 1024;
    ++i;
  }
  return fmt::format("{:.1f} {}", value, names[i]);
}

std::uint64_t parse_number(std::string_view text, std::uint64_t min, std::uint64_t max) {
  Number number{};
  if (!split(text, number) || !number.unit.empty() || number.value < min || number.value > max) {
    fail(ErrorKind::usage, "not a number from {} to {}", min, max);
  }
  return number.value;
}

double parse_rate(std::string_view text) {
  Number number{};
  if (split(text, number) && number.value > 0 && number.value <= number_max) {
    for (const auto& unit : rate_units) {
      if (unit.name == number.unit) {
        return static_cast<double>(number.value) / static_cast<double>(unit.factor);
      }
    }
  }
  fail(ErrorKind::usage, "not a rate; give 100/s, 10/m or 5000/h");
}

std::string format_count(std::uint64_t count) {
  std::string digits = std::to_string(count);
  for (std::size_t i = digits.size(); i > 3;) {
    i -= 3;
    digits.insert(i, 1, ',');
  }
  return digits;
}

std::string format_rate(double per_second) {
  if (per_second < 999.5) {
    return fmt::format("{:.0f}", per_second);
  }
  if (per_second < 999'950) {
    return fmt::format("{:.1f} k", per_second / 1e3);
  }
  return fmt::format("{:.1f} M", per_second / 1e6);
}

}  // namespace continuum
