// What is chosen for a topic, besides its ring, and may be chosen anew (`continuum topic set`). Pure.
#pragma once

#include "continuum/frame.hpp"
#include "continuum/types.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace continuum {

struct TopicSettings {
  Frames frames = Frames::automatic;
  std::size_t event_bytes_max = 1 << 20;
  // What a log keeps at least of what every group has passed (trim.hpp). Neither: all of it.
  std::optional<Milliseconds> retention;
  std::optional<std::uint64_t> retention_bytes;  // of each partition's log, in the server's memory
  // How long a group may stand still and hold a trim back before that is reported. Nothing: stall_limit_of().
  std::optional<Milliseconds> stall_limit;

  [[nodiscard]] bool trims() const { return retention || retention_bytes; }
};
// What holds: as it is set; else as long as the retention, at most seven days.
[[nodiscard]] Milliseconds stall_limit_of(const TopicSettings& settings);
// The settings that are only there when they were set, as name and value.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> texts_of_limits(const TopicSettings& settings);
[[nodiscard]] std::string_view name_of(Frames frames);     // auto, plain, single
[[nodiscard]] Frames parse_frames(std::string_view text);  // throws Error{usage}

// `name=value`: frames=auto|plain|single, event_bytes_max=SIZE, retention=D, retention_bytes=SIZE,
// stall_limit=D; the last three may be none. Throws Error{usage} for others.
void apply_setting(TopicSettings& settings, std::string_view assignment);

// The limits as the topic's hash has them: field, and milliseconds or bytes where it is set.
using StoredLimit = std::pair<std::string_view, std::optional<std::uint64_t>>;
[[nodiscard]] std::array<StoredLimit, 3> limits_of(const TopicSettings& settings);

}  // namespace continuum
