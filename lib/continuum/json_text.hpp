// Private to the library: steps over JSON text that never read past `end`, whatever the bytes are.
#pragma once

#include "continuum/json.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace continuum::json {

inline constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

inline bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

inline bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

inline const char* skip_space(const char* at, const char* end) {
  while (at != end && is_space(*at)) {
    ++at;
  }
  return at;
}

inline std::string_view trimmed(std::string_view text) {
  const char* const end = text.data() + text.size();
  const char* const begin = skip_space(text.data(), end);
  std::size_t size = static_cast<std::size_t>(end - begin);
  while (size != 0 && is_space(begin[size - 1])) {
    --size;
  }
  return {begin, size};
}

// `at` is the opening quote. Just past the closing one, or nullptr when there is none.
const char* skip_string(const char* at, const char* end);

// Just past the value that begins at `at`, or nullptr when it does not end. Brackets are counted, not
// matched: enough for text that is valid, safe for any other.
const char* skip_value(const char* at, const char* end);

// Length of the UTF-8 sequence at `at` (1 to 4), or 0 when there is none that Unicode allows: overlong
// forms, surrogates and code points above U+10FFFF are none (table 3-7 of the standard).
std::size_t utf8_bytes(const char* at, const char* end);

// RFC 8259 to the letter, without recursion. simdjson is the fast path; this has the last word on what
// simdjson refuses (numbers that fit no machine type, lone surrogates) and says what is wrong and where.
std::optional<Invalid> validate(std::string_view text);

// -1 when it is not a hexadecimal digit.
int hex_digit(char c);

}  // namespace continuum::json
