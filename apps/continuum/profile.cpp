#include "profile.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"

// Nothing is written as TOML: the same in every source that includes it.
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <vector>

namespace continuum::app {
namespace {

std::string profile_path() {
  const char* base = std::getenv("XDG_CONFIG_HOME");
  if (base != nullptr && *base == '/') {  // the specification: a relative one is ignored
    return std::string(base) + "/continuum/config.toml";
  }
  const char* home = std::getenv("HOME");
  return home != nullptr && *home == '/' ? std::string(home) + "/.config/continuum/config.toml"
                                         : std::string();
}

}  // namespace

Profile read_profile() {
  Profile profile;
  profile.path = profile_path();
  std::error_code none;
  if (profile.path.empty() || !std::filesystem::exists(profile.path, none)) {
    return profile;
  }
  try {
    const auto table = toml::parse_file(profile.path);
    for (const auto& [name, value] : table) {
      const std::vector<std::string> known{"redis"};
      if (name.str() != "redis") {
        fail(ErrorKind::usage, "{}:{}: unknown setting {}{}", profile.path, value.source().begin.line,
             printable(name.str()), hint_of(name.str(), known));
      }
      profile.redis = value.value_exact<std::string>();
      if (!profile.redis) {
        fail(ErrorKind::usage, "{}:{}: redis must be a string: redis = \"URL\"", profile.path,
             value.source().begin.line);
      }
    }
  } catch (const toml::parse_error& error) {
    fail(ErrorKind::usage, "{}:{}: {}", profile.path, error.source().begin.line, error.description());
  }
  return profile;
}

}  // namespace continuum::app
