// The Lua sources of lib/continuum/scripts, embedded with their SHA1 by lib/CMakeLists.txt.
#pragma once

#include "continuum/redis.hpp"

#include <array>
#include <string_view>

namespace continuum::redis::scripts {

struct Text {
  std::string_view source;
  std::string_view sha1;
};
// In the order of enum Script.
extern const std::array<Text, script_count> texts;

}  // namespace continuum::redis::scripts
