// Reads what event.cpp writes: on the path of every event that is handled, filtered or replayed.
#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/json_text.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

namespace continuum {

namespace {

// Steps through a line in the order that Wrapper writes. Each step is false where the line has anything
// else; it is then read by json::Members.
class InOrder {
 public:
  explicit InOrder(std::string_view line) : at_(line.data()), end_(at_ + line.size()) {}

  bool read(Attributes& out) {
    return skip(R"({"specversion":"1.0","id":)") && string(out.id) && skip(R"(,"source":)") &&
           string(out.source) && skip(R"(,"type":)") && string(out.type) && skip(R"(,"time":)") &&
           string(out.time) && skip(R"(,"partitionkey":)") && string(out.partitionkey) && to_data() &&
           data(out.data);
  }

 private:
  [[nodiscard]] std::size_t left() const { return static_cast<std::size_t>(end_ - at_); }

  bool skip(std::string_view bytes) {
    if (left() < bytes.size() || std::memcmp(at_, bytes.data(), bytes.size()) != 0) {
      return false;
    }
    at_ += bytes.size();
    return true;
  }

  bool string(std::string_view& raw) {
    if (at_ == end_ || *at_ != '"') {
      return false;
    }
    const auto* quote = static_cast<const char*>(std::memchr(at_ + 1, '"', left() - 1));
    if (quote == nullptr || quote[-1] == '\\') {
      return false;
    }
    raw = {at_, static_cast<std::size_t>(quote + 1 - at_)};
    at_ = quote + 1;
    return true;
  }

  // Past the attributes of the publisher and the name of the data.
  bool to_data() {
    while (!skip(R"(,"data":)")) {
      std::string_view ignored;
      if (!skip(",") || !string(ignored) || !skip(":") || (!string(ignored) && !scalar())) {
        return false;
      }
    }
    return true;
  }

  bool scalar() {
    const char* const begin = at_;
    while (at_ != end_ && (json::is_digit(*at_) || (*at_ >= 'a' && *at_ <= 'z') || *at_ == '-' ||
                           *at_ == '+' || *at_ == '.' || *at_ == 'E')) {
      ++at_;
    }
    return at_ != begin;
  }

  // Wrapper puts the data last, but an event that came as a CloudEvent may have members behind it.
  bool data(std::string_view& raw) {
    if (left() < 2 || end_[-1] != '}' || json::is_space(*at_) || json::is_space(end_[-2])) {
      return false;
    }
    raw = {at_, left() - 1};
    return ends_at_first_chance(raw) || json::skip_value(at_, end_) == end_ - 1;
  }

  // True only if the value that begins `text` ends where `text` does. Where another member follows it, its
  // last byte has a comma behind it; memchr looks for that much faster than brackets can be counted.
  static bool ends_at_first_chance(std::string_view text) {
    const char first = text.front();
    if (first == '"') {
      return text.size() > 1 && std::memchr(text.data() + 1, '"', text.size() - 1) == &text.back() &&
             text[text.size() - 2] != '\\';
    }
    if (first != '{' && first != '[') {
      return std::memchr(text.data(), ',', text.size()) == nullptr;
    }
    const char closing = first == '{' ? '}' : ']';
    if (text.back() != closing) {
      return false;
    }
    const char* const last = &text.back();
    for (const char* at = text.data();;) {
      at = static_cast<const char*>(std::memchr(at, closing, static_cast<std::size_t>(last + 1 - at)));
      if (at == last) {
        return true;
      }
      ++at;
      if (*json::skip_space(at, last) == ',') {
        return false;
      }
    }
  }

  const char* at_;
  const char* end_;
};

std::string_view* slot_of(Attributes& attributes, std::string_view name) {
  if (name == "id") {
    return &attributes.id;
  }
  if (name == "source") {
    return &attributes.source;
  }
  if (name == "type") {
    return &attributes.type;
  }
  if (name == "time") {
    return &attributes.time;
  }
  if (name == "partitionkey") {
    return &attributes.partitionkey;
  }
  return name == "data" ? &attributes.data : nullptr;
}

Attributes in_any_order(std::string_view line) {
  Attributes out;
  json::Members members(line);
  std::string_view name;
  std::string_view value;
  std::string scratch;
  while (members.next(name, value)) {
    std::string_view plain_name = name;
    if (name.find('\\') != std::string_view::npos) {
      const std::string_view with_quotes{name.data() - 1, name.size() + 2};
      plain_name = json::unescape(with_quotes, scratch).value_or(name);
    }
    std::string_view* const slot = slot_of(out, plain_name);
    if (slot != nullptr && slot->empty()) {
      *slot = value;
    }
  }
  if (members.damaged()) {
    fail(ErrorKind::loss, "the stored event is damaged: its {} bytes are not a JSON object", line.size());
  }
  return out;
}

}  // namespace

Attributes attributes_of(std::string_view line) {
  Attributes out;
  return InOrder(line).read(out) ? out : in_any_order(line);
}

std::uint64_t hash_of_key(std::string_view key) {
  return XXH3_64bits(key.data(), key.size());
}

std::string_view key_of(const Attributes& attributes, std::string& scratch) {
  // A CloudEvent may have a number there: its literal text is the key.
  return json::unescape(attributes.partitionkey, scratch).value_or(attributes.partitionkey);
}

bool glob_matches(std::string_view pattern, std::string_view text) {
  std::size_t p = 0;
  std::size_t t = 0;
  // Where to go on when the bytes after the last '*' do not match: one byte more for that '*'.
  std::size_t star = std::string_view::npos;
  std::size_t star_text = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_text = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

}  // namespace continuum
