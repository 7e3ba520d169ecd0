#include "continuum/topic_settings.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <algorithm>
#include <chrono>

namespace continuum {

namespace {

constexpr std::size_t event_bytes_least = 1 << 10;
constexpr std::size_t event_bytes_most = frame_bytes_max / 2;
constexpr Milliseconds stall_limit_most{std::chrono::days(7)};

constexpr std::array frames_names{"auto", "plain", "single"};

// Nothing is a limit of its own kind: what is to go at once is not said by a zero.
std::optional<Milliseconds> parse_limit(std::string_view name, std::string_view value) {
  if (value == "none") {
    return std::nullopt;
  }
  const Milliseconds duration = parse_duration(value);
  if (duration == Milliseconds(0)) {
    fail(ErrorKind::usage, "{} is a duration such as 7d, or none", name);
  }
  return duration;
}

}  // namespace

Frames parse_frames(std::string_view text) {
  const auto found = std::ranges::find(frames_names, text);
  if (found == frames_names.end()) {
    fail(ErrorKind::usage, "frames is auto, plain or single, not {}", printable(text));
  }
  return static_cast<Frames>(found - frames_names.begin());
}

std::string_view name_of(Frames frames) {
  return frames_names.at(static_cast<std::size_t>(frames));
}

Milliseconds stall_limit_of(const TopicSettings& settings) {
  return settings.stall_limit.value_or(
      std::min(settings.retention.value_or(stall_limit_most), stall_limit_most));
}

std::vector<std::pair<std::string, std::string>> texts_of_limits(const TopicSettings& settings) {
  std::vector<std::pair<std::string, std::string>> texts;
  if (settings.retention) {
    texts.emplace_back("retention", exact_duration(*settings.retention));
  }
  if (settings.retention_bytes) {
    texts.emplace_back("retention_bytes", std::to_string(*settings.retention_bytes));
  }
  if (settings.stall_limit) {
    texts.emplace_back("stall_limit", exact_duration(*settings.stall_limit));
  }
  return texts;
}

std::array<StoredLimit, 3> limits_of(const TopicSettings& settings) {
  const auto ms = [](std::optional<Milliseconds> time) {
    return time ? std::optional(static_cast<std::uint64_t>(time->count())) : std::nullopt;
  };
  return {{{"retention", ms(settings.retention)},
           {"retention_bytes", settings.retention_bytes},
           {"stall_limit", ms(settings.stall_limit)}}};
}

void apply_setting(TopicSettings& settings, std::string_view assignment) {
  const auto equals = assignment.find('=');
  const auto name = assignment.substr(0, equals);
  if (equals == std::string_view::npos) {
    fail(ErrorKind::usage, "\"{}\" is not a setting: give name=value", printable(assignment));
  }
  const auto value = assignment.substr(equals + 1);
  if (name == "frames") {
    settings.frames = parse_frames(value);
  } else if (name == "event_bytes_max") {
    const auto bytes = parse_bytes(value);
    if (bytes < event_bytes_least || bytes > event_bytes_most) {
      fail(ErrorKind::usage, "event_bytes_max is {} to {}, not {}", format_bytes(event_bytes_least),
           format_bytes(event_bytes_most), printable(value));
    }
    settings.event_bytes_max = bytes;
  } else if (name == "retention") {
    settings.retention = parse_limit(name, value);
  } else if (name == "retention_bytes") {
    settings.retention_bytes = value == "none" ? std::nullopt : std::optional(parse_bytes(value));
    if (settings.retention_bytes &&
        (*settings.retention_bytes == 0 || *settings.retention_bytes > number_max)) {
      fail(ErrorKind::usage, "retention_bytes is a size such as 2GiB, or none");
    }
  } else if (name == "stall_limit") {
    settings.stall_limit = parse_limit(name, value);
  } else {
    const std::vector<std::string> known{"frames", "event_bytes_max", "retention", "retention_bytes",
                                         "stall_limit"};
    fail(ErrorKind::usage, "a topic has no setting \"{}\"{}", printable(name), hint_of(name, known));
  }
}

}  // namespace continuum
