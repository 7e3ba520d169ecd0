#include "continuum/json.hpp"

#include "continuum/error.hpp"
#include "continuum/json_text.hpp"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <deque>

namespace continuum::json {

namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// The element that a token of a pointer names: no sign, no leading zero (RFC 6901 section 4).
std::optional<std::size_t> array_index(std::string_view token) {
  if (token.empty() || token.size() > 15 || (token.size() > 1 && token.front() == '0') ||
      !std::all_of(token.begin(), token.end(), is_digit)) {
    return std::nullopt;
  }
  std::size_t index = 0;
  std::from_chars(token.data(), token.data() + token.size(), index);
  return index;
}

Kind kind_of(char first) {
  switch (first) {
    case '{':
      return Kind::object;
    case '[':
      return Kind::array;
    case '"':
      return Kind::string;
    case 't':
    case 'f':
      return Kind::boolean;
    case 'n':
      return Kind::null;
    default:
      return Kind::number;
  }
}

// Element `index` of an array that is valid; empty when it has fewer.
std::string_view raw_element(std::string_view array, std::size_t index) {
  const char* const end = array.data() + array.size();
  const char* at = skip_space(array.data() + 1, end);
  if (at != end && *at == ']') {
    return {};
  }
  while (at != end) {
    const char* const value_end = skip_value(at, end);
    if (value_end == nullptr) {
      return {};
    }
    if (index-- == 0) {
      return {at, static_cast<std::size_t>(value_end - at)};
    }
    at = skip_space(value_end, end);
    if (at == end || *at != ',') {
      return {};
    }
    at = skip_space(at + 1, end);
  }
  return {};
}

enum class Names : std::uint8_t { unchecked, known_unique };

struct RawValue {
  Kind kind = Kind::missing;
  std::string_view text;
};

RawValue raw_member(std::string_view object, std::string_view name, Names names, std::string& scratch) {
  Members members(object);
  std::string_view raw_name;
  std::string_view value;
  RawValue found;
  while (members.next(raw_name, value)) {
    const std::string_view with_quotes{raw_name.data() - 1, raw_name.size() + 2};
    if (unescape(with_quotes, scratch) != name) {
      continue;
    }
    if (found.kind != Kind::missing) {
      return {Kind::ambiguous, {}};
    }
    found = {kind_of(value.front()), value};
    if (names == Names::known_unique) {
      break;
    }
  }
  return found;
}

RawValue raw_at(std::string_view text, const std::vector<std::string>& tokens, Names names,
                std::string& scratch) {
  RawValue value{kind_of(text.front()), text};
  for (const std::string& token : tokens) {
    if (value.kind == Kind::object) {
      value = raw_member(value.text, token, names, scratch);
    } else if (value.kind == Kind::array) {
      const auto index = array_index(token);
      const std::string_view element = index ? raw_element(value.text, *index) : std::string_view{};
      value = element.empty() ? RawValue{} : RawValue{kind_of(element.front()), element};
    } else {
      return {};
    }
  }
  return value;
}

}  // namespace

Pointer::Pointer(std::string_view text) : text_(text) {
  if (text.empty()) {
    return;
  }
  if (text.front() != '/') {
    tokens_.emplace_back(text);
    return;
  }
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '/') {
      tokens_.emplace_back();
    } else if (text[i] != '~') {
      tokens_.back() += text[i];
    } else if (i + 1 < text.size() && (text[i + 1] == '0' || text[i + 1] == '1')) {
      tokens_.back() += text[++i] == '0' ? '~' : '/';
    } else {
      fail(ErrorKind::usage, "JSON Pointer {}: write ~0 for '~' and ~1 for '/' in a name", quoted(text));
    }
  }
}

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::missing:
      return "nothing";
    case Kind::null:
      return "null";
    case Kind::boolean:
      return "a boolean";
    case Kind::number:
      return "a number";
    case Kind::string:
      return "a string";
    case Kind::array:
      return "an array";
    case Kind::object:
      return "an object";
    case Kind::ambiguous:
      return "there twice";
  }
  return "";
}

struct Parser::Impl {
  // The form in which the last text can be looked into.
  enum class Form : std::uint8_t { none, tree, raw };

  simdjson::dom::parser parser;
  simdjson::dom::document document;
  simdjson::dom::element root;
  std::string_view text;
  Form form = Form::none;
  // Texts that values point to and that are neither in `text` nor in simdjson's buffers. A deque: growing
  // it moves none of them.
  std::deque<std::string> texts;
  std::size_t texts_used = 0;
  std::string scratch;

  std::string& fresh_text() {
    if (texts_used == texts.size()) {
      texts.emplace_back();
    }
    return texts[texts_used++];
  }

  void reserve(std::size_t bytes) {
    if (bytes <= parser.capacity() && bytes <= document.capacity()) {
      return;
    }
    // Powers of two, so that lines that grow slowly do not allocate each time. Where it fails, parsing
    // fails and the validator takes over.
    const std::size_t capacity = std::bit_ceil(std::max(bytes, std::size_t{4096}));
    // simdjson does not count an empty container as a level, so its limit must be one less than ours for
    // it to accept nothing that the validator refuses.
    if (parser.allocate(capacity, depth_max) != simdjson::SUCCESS ||
        document.allocate(capacity) != simdjson::SUCCESS) {
      return;
    }
  }

  Value raw_value(const RawValue& raw) {
    if (raw.kind != Kind::string) {
      return {raw.kind, raw.text};
    }
    if (const auto unescaped = unescape(raw.text, fresh_text())) {
      return {Kind::string, *unescaped};
    }
    return {Kind::string, raw.text, true};
  }

  Value number(simdjson::dom::element element, const std::vector<std::string>& tokens);
  Value tree_at(const std::vector<std::string>& tokens);
};

namespace {

using simdjson::dom::element_type;

Kind kind_of(element_type type) {
  switch (type) {
    case element_type::ARRAY:
      return Kind::array;
    case element_type::OBJECT:
      return Kind::object;
    case element_type::STRING:
      return Kind::string;
    case element_type::BOOL:
      return Kind::boolean;
    case element_type::NULL_VALUE:
      return Kind::null;
    default:
      return Kind::number;
  }
}

template <class T>
T as(simdjson::dom::element element) {
  T out;
  check(element.get(out) == simdjson::SUCCESS, "a JSON element has the type that it says");
  return out;
}

struct TreeValue {
  Kind kind = Kind::missing;
  simdjson::dom::element element{};
};

TreeValue tree_member(simdjson::dom::object object, std::string_view name) {
  TreeValue found;
  for (const auto field : object) {
    if (field.key != name) {
      continue;
    }
    if (found.kind != Kind::missing) {
      return {Kind::ambiguous, {}};
    }
    found = {kind_of(field.value.type()), field.value};
  }
  return found;
}

TreeValue tree_element(simdjson::dom::array array, std::string_view token) {
  const auto index = array_index(token);
  simdjson::dom::element element;
  if (!index || array.at(*index).get(element) != simdjson::SUCCESS) {
    return {};
  }
  return {kind_of(element.type()), element};
}

template <class Integer>
void assign_decimal(std::string& out, Integer value) {
  std::array<char, 24> digits;
  const auto result = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  out.assign(digits.data(), result.ptr);
}

}  // namespace

Value Parser::Impl::tree_at(const std::vector<std::string>& tokens) {
  TreeValue at{kind_of(root.type()), root};
  for (const std::string& token : tokens) {
    if (at.kind == Kind::object) {
      at = tree_member(as<simdjson::dom::object>(at.element), token);
    } else if (at.kind == Kind::array) {
      at = tree_element(as<simdjson::dom::array>(at.element), token);
    } else {
      return {};
    }
  }
  switch (at.kind) {
    case Kind::missing:
    case Kind::ambiguous:
      return {at.kind, {}};
    case Kind::string:
      return {at.kind, as<std::string_view>(at.element)};
    case Kind::number:
      return number(at.element, tokens);
    case Kind::boolean:
      return {at.kind, as<bool>(at.element) ? "true" : "false"};
    case Kind::null:
      return {at.kind, "null"};
    default:
      return raw_value(raw_at(text, tokens, Names::known_unique, scratch));
  }
}

// The literal text. JSON has one way to write an integer other than 0 (there is -0), so such a number is
// printed; for any other the text is searched.
Value Parser::Impl::number(simdjson::dom::element element, const std::vector<std::string>& tokens) {
  const element_type type = element.type();
  if (type == element_type::INT64 && as<std::int64_t>(element) != 0) {
    std::string& digits = fresh_text();
    assign_decimal(digits, as<std::int64_t>(element));
    return {Kind::number, digits};
  }
  if (type == element_type::UINT64) {
    std::string& digits = fresh_text();
    assign_decimal(digits, as<std::uint64_t>(element));
    return {Kind::number, digits};
  }
  return raw_value(raw_at(text, tokens, Names::known_unique, scratch));
}

bool is_utf8(std::string_view bytes) {
  return simdjson::validate_utf8(bytes.data(), bytes.size());
}

Parser::Parser() : impl_(std::make_unique<Impl>()) {}
Parser::~Parser() = default;

std::optional<Invalid> Parser::parse(std::string_view text) {
  Impl& impl = *impl_;
  impl.form = Impl::Form::none;
  impl.texts_used = 0;
  impl.text = trimmed(text);
  // Newer releases of simdjson skip a byte order mark.
  if (!impl.text.empty() && !impl.text.starts_with(byte_order_mark)) {
    impl.reserve(text.size());
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
    const auto parsed = impl.parser.parse_into_document(impl.document, bytes, text.size(), false);
    if (parsed.get(impl.root) == simdjson::SUCCESS) {
      impl.form = Impl::Form::tree;
      return std::nullopt;
    }
  }
  auto invalid = validate(text);
  if (!invalid) {
    impl.form = Impl::Form::raw;
  }
  return invalid;
}

Value Parser::at(const Pointer& pointer) {
  switch (impl_->form) {
    case Impl::Form::tree:
      return impl_->tree_at(pointer.tokens());
    case Impl::Form::raw:
      return impl_->raw_value(raw_at(impl_->text, pointer.tokens(), Names::unchecked, impl_->scratch));
    case Impl::Form::none:
      break;
  }
  check(false, "a JSON value is read from a text that was accepted");
  return {};
}

Kind Parser::root_kind() const {
  check(impl_->form != Impl::Form::none, "a JSON value is read from a text that was accepted");
  return kind_of(impl_->text.front());
}

}  // namespace continuum::json
