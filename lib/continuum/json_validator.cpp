#include "continuum/json.hpp"
#include "continuum/json_text.hpp"

#include <array>

namespace continuum::json {

namespace {

class Validator {
 public:
  explicit Validator(std::string_view text) : begin_(text.data()), at_(begin_), end_(begin_ + text.size()) {}

  std::optional<Invalid> run() {
    if (std::string_view(begin_, static_cast<std::size_t>(end_ - begin_)).starts_with(byte_order_mark)) {
      return Invalid{"a byte order mark (BOM), which JSON must not begin with", 0};
    }
    at_ = skip_space(at_, end_);
    if (at_ == end_) {
      return Invalid{"empty", 0};
    }
    while (value() && !done_) {
    }
    if (done_) {
      return std::nullopt;
    }
    return Invalid{reason_, static_cast<std::size_t>(at_ - begin_)};
  }

 private:
  bool fail_here(const char* reason) {
    reason_ = reason;
    return false;
  }

  bool in_object() const { return is_object_[depth_ - 1]; }

  bool ends_here() {
    if (depth_ == 0) {
      return fail_here("the text ends where a value is expected");
    }
    return fail_here(in_object() ? "the text ends inside an object" : "the text ends inside an array");
  }

  // From the first byte of a value to the first byte of the next one, or done_.
  bool value() {
    if (at_ == end_) {
      return ends_here();
    }
    switch (*at_) {
      case '{':
        return open('}');
      case '[':
        return open(']');
      case '"':
        return string() && after_value();
      case 't':
        return literal("true") && after_value();
      case 'f':
        return literal("false") && after_value();
      case 'n':
        return literal("null") && after_value();
      default:
        break;
    }
    if (*at_ == '-' || is_digit(*at_)) {
      return number() && after_value();
    }
    return fail_here("expected a value");
  }

  bool open(char closing) {
    if (depth_ == depth_max) {
      return fail_here("nested deeper than 1000");
    }
    static_assert(depth_max == 1000);
    is_object_[depth_++] = closing == '}';
    at_ = skip_space(at_ + 1, end_);
    if (at_ != end_ && *at_ == closing) {
      ++at_;
      --depth_;
      return after_value();
    }
    return closing == ']' || name();
  }

  bool name() {
    if (at_ == end_) {
      return ends_here();
    }
    if (*at_ != '"') {
      return fail_here("expected a name in double quotes");
    }
    if (!string()) {
      return false;
    }
    at_ = skip_space(at_, end_);
    if (at_ == end_) {
      return ends_here();
    }
    if (*at_ != ':') {
      return fail_here("expected ':' after a name");
    }
    at_ = skip_space(at_ + 1, end_);
    return true;
  }

  bool after_value() {
    for (;;) {
      at_ = skip_space(at_, end_);
      if (depth_ == 0) {
        done_ = at_ == end_;
        return done_ || fail_here("more text after the value");
      }
      if (at_ == end_) {
        return ends_here();
      }
      if (*at_ == ',') {
        at_ = skip_space(at_ + 1, end_);
        return !in_object() || name();
      }
      if (*at_ != (in_object() ? '}' : ']')) {
        return fail_here(in_object() ? "expected ',' or '}'" : "expected ',' or ']'");
      }
      ++at_;
      --depth_;
    }
  }

  bool literal(std::string_view word) {
    if (!std::string_view(at_, static_cast<std::size_t>(end_ - at_)).starts_with(word)) {
      return fail_here("expected a value");
    }
    at_ += word.size();
    return true;
  }

  bool digits() {
    if (at_ == end_ || !is_digit(*at_)) {
      return fail_here("expected a digit");
    }
    while (at_ != end_ && is_digit(*at_)) {
      ++at_;
    }
    return true;
  }

  bool number() {
    if (*at_ == '-') {
      ++at_;
    }
    if (at_ != end_ && *at_ == '0') {
      ++at_;
      if (at_ != end_ && is_digit(*at_)) {
        return fail_here("a number with a leading zero");
      }
    } else if (!digits()) {
      return false;
    }
    if (at_ != end_ && *at_ == '.') {
      ++at_;
      if (!digits()) {
        return false;
      }
    }
    if (at_ != end_ && (*at_ == 'e' || *at_ == 'E')) {
      ++at_;
      if (at_ != end_ && (*at_ == '+' || *at_ == '-')) {
        ++at_;
      }
      return digits();
    }
    return true;
  }

  bool string() {
    for (++at_; at_ != end_;) {
      const auto c = static_cast<unsigned char>(*at_);
      if (c == '"') {
        ++at_;
        return true;
      }
      if (c < 0x20) {
        return fail_here("a control character in a string");
      }
      if (c == '\\') {
        if (!escape()) {
          return false;
        }
        continue;
      }
      const std::size_t length = utf8_bytes(at_, end_);
      if (length == 0) {
        return fail_here("not UTF-8");
      }
      at_ += length;
    }
    return fail_here("the text ends inside a string");
  }

  bool escape() {
    const auto left = static_cast<std::size_t>(end_ - at_);
    if (left < 2) {
      at_ = end_;
      return fail_here("the text ends inside a string");
    }
    if (at_[1] != 'u') {
      if (std::string_view(R"("\/bfnrt)").find(at_[1]) == std::string_view::npos) {
        return fail_here("an escape that JSON does not have");
      }
      at_ += 2;
      return true;
    }
    for (std::size_t i = 2; i < 6; ++i) {
      if (i >= left) {
        at_ = end_;
        return fail_here("the text ends inside a string");
      }
      if (hex_digit(at_[i]) < 0) {
        return fail_here("\\u without four hexadecimal digits");
      }
    }
    at_ += 6;
    return true;
  }

  const char* begin_;
  const char* at_;
  const char* end_;
  const char* reason_ = "";
  bool done_ = false;
  std::size_t depth_ = 0;
  std::array<bool, depth_max> is_object_;  // of the containers that are open
};

}  // namespace

std::optional<Invalid> validate(std::string_view text) {
  return Validator(text).run();
}

}  // namespace continuum::json
