#include "continuum/json_text.hpp"

#include "continuum/json.hpp"

#include <cstring>

namespace continuum::json {

namespace {

constexpr std::uint64_t each_byte(std::uint8_t byte) {
  return std::uint64_t{0x0101010101010101} * byte;
}

// Eight bytes that a JSON string holds as they are: ASCII, no control character, quote or backslash.
bool is_plain(const char* at) {
  std::uint64_t word;
  std::memcpy(&word, at, sizeof word);
  const std::uint64_t quote = word ^ each_byte('"');
  const std::uint64_t backslash = word ^ each_byte('\\');
  const std::uint64_t special =
      word | (word - each_byte(0x20)) | (quote - each_byte(1)) | (backslash - each_byte(1));
  return (special & each_byte(0x80)) == 0;
}

bool is_plain(unsigned char c) {
  return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

void append_escape(std::string& out, unsigned char c) {
  constexpr char digits[] = "0123456789abcdef";
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\b':
      out += "\\b";
      return;
    case '\f':
      out += "\\f";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      out += "\\u00";
      out += digits[c >> 4U];
      out += digits[c & 15U];
  }
}

void append_utf8(std::string& out, std::uint32_t code_point) {
  const auto add = [&out](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (code_point < 0x80) {
    add(code_point);
  } else if (code_point < 0x800) {
    add(0xC0 | code_point >> 6U);
    add(0x80 | (code_point & 0x3FU));
  } else if (code_point < 0x10000) {
    add(0xE0 | code_point >> 12U);
    add(0x80 | (code_point >> 6U & 0x3FU));
    add(0x80 | (code_point & 0x3FU));
  } else {
    add(0xF0 | code_point >> 18U);
    add(0x80 | (code_point >> 12U & 0x3FU));
    add(0x80 | (code_point >> 6U & 0x3FU));
    add(0x80 | (code_point & 0x3FU));
  }
}

// The four digits at `at`; nullopt when there are not four.
std::optional<std::uint32_t> hex4(const char* at, const char* end) {
  if (end - at < 4) {
    return std::nullopt;
  }
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const int digit = hex_digit(at[i]);
    if (digit < 0) {
      return std::nullopt;
    }
    value = value << 4U | static_cast<std::uint32_t>(digit);
  }
  return value;
}

// `at` is just past "\u". Moves past its digits, and past a second escape that completes a pair.
std::optional<std::uint32_t> code_point_of(const char*& at, const char* end) {
  const auto first = hex4(at, end);
  if (!first) {
    return std::nullopt;
  }
  at += 4;
  if (*first < 0xD800 || *first > 0xDFFF) {
    return first;
  }
  if (*first > 0xDBFF || end - at < 6 || at[0] != '\\' || at[1] != 'u') {
    return std::nullopt;
  }
  const auto second = hex4(at + 2, end);
  if (!second || *second < 0xDC00 || *second > 0xDFFF) {
    return std::nullopt;
  }
  at += 6;
  return 0x10000 + ((*first - 0xD800) << 10U) + (*second - 0xDC00);
}

char unescaped(char c) {
  switch (c) {
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case '"':
    case '\\':
    case '/':
      return c;
    default:
      return '\0';
  }
}

}  // namespace

const char* skip_string(const char* at, const char* end) {
  const char* const begin = at + 1;
  for (const char* from = begin; from < end;) {
    const auto* quote =
        static_cast<const char*>(std::memchr(from, '"', static_cast<std::size_t>(end - from)));
    if (quote == nullptr) {
      return nullptr;
    }
    const char* run = quote;
    while (run != begin && run[-1] == '\\') {
      --run;
    }
    if ((quote - run) % 2 == 0) {
      return quote + 1;
    }
    from = quote + 1;
  }
  return nullptr;
}

const char* skip_value(const char* at, const char* end) {
  if (at == end) {
    return nullptr;
  }
  if (*at == '"') {
    return skip_string(at, end);
  }
  if (*at != '{' && *at != '[') {
    const char* const begin = at;
    while (at != end && *at != ',' && *at != '}' && *at != ']' && *at != ':' && *at != '"' &&
           !is_space(*at)) {
      ++at;
    }
    return at == begin ? nullptr : at;
  }
  std::size_t depth = 0;
  while (at != end) {
    switch (*at) {
      case '"':
        at = skip_string(at, end);
        if (at == nullptr) {
          return nullptr;
        }
        continue;
      case '{':
      case '[':
        ++depth;
        break;
      case '}':
      case ']':
        if (--depth == 0) {
          return at + 1;
        }
        break;
      default:
        break;
    }
    ++at;
  }
  return nullptr;
}

std::size_t utf8_bytes(const char* at, const char* end) {
  const auto byte = [at](std::size_t i) { return static_cast<unsigned char>(at[i]); };
  const auto continues = [&byte](std::size_t i) { return (byte(i) & 0xC0U) == 0x80; };
  const auto left = static_cast<std::size_t>(end - at);
  if (left == 0) {
    return 0;
  }
  const unsigned char lead = byte(0);
  if (lead < 0x80) {
    return 1;
  }
  if (lead >= 0xC2 && lead <= 0xDF) {
    return left >= 2 && continues(1) ? 2 : 0;
  }
  if (lead >= 0xE0 && lead <= 0xEF) {
    if (left < 3 || !continues(1) || !continues(2)) {
      return 0;
    }
    const bool overlong = lead == 0xE0 && byte(1) < 0xA0;
    const bool surrogate = lead == 0xED && byte(1) > 0x9F;
    return overlong || surrogate ? 0 : 3;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    if (left < 4 || !continues(1) || !continues(2) || !continues(3)) {
      return 0;
    }
    const bool overlong = lead == 0xF0 && byte(1) < 0x90;
    const bool too_big = lead == 0xF4 && byte(1) > 0x8F;
    return overlong || too_big ? 0 : 4;
  }
  return 0;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  if (c >= 'A' && c <= 'F') {
    return c - 'A' + 10;
  }
  return -1;
}

void append_quoted(std::string& out, std::string_view bytes) {
  const char* at = bytes.data();
  const char* const end = at + bytes.size();
  const char* run = at;  // bytes from here to `at` go out as they are
  const auto flush = [&out, &run, &at] { out.append(run, static_cast<std::size_t>(at - run)); };
  out += '"';
  while (at != end) {
    if (end - at >= 8 && is_plain(at)) {
      at += 8;
      continue;
    }
    const auto c = static_cast<unsigned char>(*at);
    if (is_plain(c)) {
      ++at;
    } else if (c < 0x80) {
      flush();
      append_escape(out, c);
      run = ++at;
    } else if (const std::size_t length = utf8_bytes(at, end); length != 0) {
      at += length;
    } else {
      flush();
      out += "\xEF\xBF\xBD";
      run = ++at;
    }
  }
  flush();
  out += '"';
}

std::string quoted(std::string_view bytes) {
  std::string out;
  append_quoted(out, bytes);
  return out;
}

std::optional<std::string_view> unescape(std::string_view raw, std::string& scratch) {
  if (raw.size() < 2 || raw.front() != '"' ||
      skip_string(raw.data(), raw.data() + raw.size()) != raw.data() + raw.size()) {
    return std::nullopt;
  }
  const std::string_view inner = raw.substr(1, raw.size() - 2);
  const std::size_t first = inner.find('\\');
  if (first == std::string_view::npos) {
    return inner;
  }
  scratch.assign(inner.substr(0, first));
  const char* const end = inner.data() + inner.size();
  for (const char* at = inner.data() + first; at != end;) {
    if (*at != '\\') {
      scratch += *at++;
      continue;
    }
    if (++at == end) {
      return std::nullopt;
    }
    if (*at == 'u') {
      const auto code_point = code_point_of(++at, end);
      if (!code_point) {
        return std::nullopt;
      }
      append_utf8(scratch, *code_point);
    } else {
      const char c = unescaped(*at++);
      if (c == '\0') {
        return std::nullopt;
      }
      scratch += c;
    }
  }
  return scratch;
}

Members::Members(std::string_view object)
    : at_(skip_space(object.data(), object.data() + object.size())), end_(object.data() + object.size()) {
  damaged_ = at_ == end_ || *at_ != '{';
}

bool Members::next(std::string_view& name, std::string_view& value) {
  if (damaged_ || at_ == end_) {
    return false;
  }
  // Here at_ is the '{', or the ',' or '}' behind the member before.
  const bool first = *at_ == '{';
  const char* at = at_;
  if (*at != '}') {
    at = skip_space(at + 1, end_);
  }
  if (at != end_ && *at == '}' && (first || at == at_)) {
    at_ = skip_space(at + 1, end_);
    damaged_ = at_ != end_;
    return false;
  }
  damaged_ = true;  // until the whole member is read
  if (at == end_ || *at != '"') {
    return false;
  }
  const char* const name_end = skip_string(at, end_);
  if (name_end == nullptr) {
    return false;
  }
  const char* const colon = skip_space(name_end, end_);
  if (colon == end_ || *colon != ':') {
    return false;
  }
  const char* const value_at = skip_space(colon + 1, end_);
  const char* const value_end = skip_value(value_at, end_);
  if (value_end == nullptr) {
    return false;
  }
  const char* const after = skip_space(value_end, end_);
  if (after == end_ || (*after != ',' && *after != '}')) {
    return false;
  }
  name = {at + 1, static_cast<std::size_t>(name_end - at - 2)};
  value = {value_at, static_cast<std::size_t>(value_end - value_at)};
  at_ = after;
  damaged_ = false;
  return true;
}

}  // namespace continuum::json
