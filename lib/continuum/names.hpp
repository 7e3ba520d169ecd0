// Names that people give: which are allowed, and which was probably meant.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace continuum {

// Topic, group and producer names: [A-Za-z0-9._-]{1,64}, no leading '-'. `what` is "topic", "group", …
// Throws Error{usage} saying which character is not allowed.
void require_name(std::string_view what, std::string_view name);

// The candidate that is closest by edit distance, or empty when none is close.
[[nodiscard]] std::string_view nearest(std::string_view name, std::span<const std::string> candidates);

// "; did you mean X?" or "; there are: A, B" or "" for the end of an error message.
[[nodiscard]] std::string hint_of(std::string_view name, std::span<const std::string> candidates);

// `bytes` for a person's terminal: control characters, and what is not UTF-8, as \xNN.
[[nodiscard]] std::string printable(std::string_view bytes);

}  // namespace continuum
