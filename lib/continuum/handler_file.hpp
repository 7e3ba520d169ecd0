// A handler's file: TOML, one handler each. docs/handlers.md has the keys and what they mean.
#pragma once

#include "continuum/handler_spec.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace continuum {

inline constexpr std::size_t handler_file_bytes_max = 64 << 10;

// As the file and the command line name them: exec, hold-key, stdout.
[[nodiscard]] std::string_view name_of(HandlerMode mode);
[[nodiscard]] std::string_view name_of(OnFailure on_failure);
[[nodiscard]] std::string_view name_of(VerdictsOn verdicts);

// The bytes of a regular file, or of what a symbolic link leads to; nullopt when there is none of that name.
// Throws Error{usage} with the path when it cannot be read or has more than handler_file_bytes_max.
[[nodiscard]] std::optional<std::string> read_handler_text(const std::string& path);

// The handler that `text`, read from `path`, describes. Its name is the file's, without .toml. Its working
// directory is absolute: a relative one begins where the file is. Throws Error{usage} with everything that is
// wrong, each on a line of its own: PATH:LINE:COLUMN: KEY: WHAT.
[[nodiscard]] HandlerSpec parse_handler(const std::string& path, std::string_view text);

}  // namespace continuum
