// The user's profile: ~/.config/continuum/config.toml.
//
//   redis = "unix:///run/redis/redis.sock"
#pragma once

#include <optional>
#include <string>

namespace continuum::app {

struct Profile {
  std::string path;
  std::optional<std::string> redis;
};

// An empty profile when there is no such file. Throws Error{usage} naming the line when it cannot be read.
[[nodiscard]] Profile read_profile();

}  // namespace continuum::app
