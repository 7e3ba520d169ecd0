#include "continuum/error.hpp"
#include "continuum/json_text.hpp"
#include "continuum/wrapper.hpp"

#include <fmt/format.h>

#include <charconv>

namespace continuum {

using json::Kind;
using json::Value;

namespace {

template <class Integer>
std::optional<Integer> integer_of(std::string_view text) {
  Integer value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

}  // namespace

bool is_text(const Value& value) {
  return value.kind == Kind::string && !value.lone_surrogate && !value.text.empty();
}

bool is_attribute_value(const Value& value) {
  return (value.kind == Kind::string && !value.lone_surrogate) || value.kind == Kind::number ||
         value.kind == Kind::boolean;
}

bool is_absent(const Value& value) {
  return value.kind == Kind::missing || value.kind == Kind::null;
}

std::string problem(std::string_view place, std::string_view role, const Value& value,
                    std::string_view needed) {
  const std::string what = fmt::format("field {} (the {})", json::quoted(place), role);
  if (value.kind == Kind::missing) {
    return "no " + what;
  }
  if (value.kind == Kind::ambiguous) {
    return what + " is there twice";
  }
  if (value.lone_surrogate) {
    return what + " has half of a surrogate pair, which no text has";
  }
  if (value.kind == Kind::string && value.text.empty()) {
    return what + " is an empty string";
  }
  return fmt::format("{} is {}, not {}", what, name_of(value.kind), needed);
}

Value Wrapper::Impl::select(const Selector& selector) {
  if (selector.literal) {
    return {Kind::string, *selector.literal};
  }
  return form == Form::kcat ? message.at(*selector.pointer) : parser.at(*selector.pointer);
}

Rejection Wrapper::Impl::choose_form() {
  form = Form::plain;
  if (options.input == InputFormat::json) {
    return std::nullopt;
  }
  if (options.input == InputFormat::kcat) {
    form = Form::kcat;
    return message.read(parser);
  }
  const Value version = parser.root_kind() == Kind::object ? parser.at(specversion_field) : Value{};
  if (version.kind == Kind::ambiguous) {
    return problem("specversion", "CloudEvents version", version, "a string");
  }
  if (version.kind == Kind::string && version.text == "1.0") {
    form = Form::cloudevent;
    return std::nullopt;
  }
  if (options.input == InputFormat::automatic) {
    return std::nullopt;
  }
  if (parser.root_kind() != Kind::object) {
    return fmt::format("not a CloudEvent: it is {}, not an object", name_of(parser.root_kind()));
  }
  if (version.kind == Kind::string && !version.lone_surrogate && version.text.size() <= 16) {
    return fmt::format("not a CloudEvent of version 1.0: its specversion is {}", json::quoted(version.text));
  }
  return "not a CloudEvent: " + problem("specversion", "CloudEvents version", version, "the string \"1.0\"");
}

Rejection Wrapper::Impl::choose_position(Position line_number) {
  position = line_number;
  if (!options.position) {
    return std::nullopt;
  }
  const json::Pointer& pointer = *options.position->pointer;
  const Value value = select(*options.position);
  constexpr std::string_view needed = "a whole number from 1 to 9007199254740991";
  static_assert(number_max == 9007199254740991);
  if (value.kind != Kind::number) {
    return problem(pointer.text(), "position", value, needed);
  }
  const auto number = integer_of<std::uint64_t>(value.text);
  if (!number || *number == 0 || *number > number_max) {
    return fmt::format("field {} (the position) is not {}", json::quoted(pointer.text()), needed);
  }
  position = Position{*number};
  return std::nullopt;
}

Rejection Wrapper::Impl::choose_key() {
  const Selector* const selector = selector_or(options.key, kcat_key);
  if (selector == nullptr) {
    if (caused) {
      key = caused_key;
      return std::nullopt;
    }
    if (!options.key_missing) {
      return "no key: say which field with --key";
    }
    key = *options.key_missing;
    return std::nullopt;
  }
  const Value value = select(*selector);
  if (is_text(value) || value.kind == Kind::number) {
    key = value.text;
    return std::nullopt;
  }
  if (options.key_missing && value.kind != Kind::ambiguous && !value.lone_surrogate) {
    key = *options.key_missing;
    return std::nullopt;
  }
  return problem(selector->pointer->text(), "key", value, "a string or a number");
}

Rejection Wrapper::Impl::choose_type() {
  const Selector* const selector = selector_or(options.type, kcat_type);
  if (selector == nullptr && caused) {
    type = caused_type;
    return std::nullopt;
  }
  if (selector == nullptr) {
    return "no type: say which field with --type FIELD, or one for all events with --type =LITERAL";
  }
  const Value value = select(*selector);
  if (!is_text(value)) {
    return problem(selector->pointer->text(), "type", value, "a string");
  }
  type = value.text;
  return std::nullopt;
}

Rejection Wrapper::Impl::choose_id() {
  if (!options.id) {
    if (form == Form::kcat) {
      id = message.id();
    }
    return std::nullopt;
  }
  const Value value = select(*options.id);
  if (!is_text(value) && value.kind != Kind::number) {
    return problem(options.id->pointer->text(), "id", value, "a string or a number");
  }
  id = value.text;
  return std::nullopt;
}

Rejection Wrapper::Impl::choose_time() {
  time.clear();
  const Selector* const selector = selector_or(options.time, kcat_time);
  if (selector == nullptr || (!options.time && !message.has_time())) {
    return std::nullopt;
  }
  const Value value = select(*selector);
  if (is_text(value) && parse_time(value.text)) {
    time = value.text;
    return std::nullopt;
  }
  const std::string& place = selector->pointer->text();
  if (value.kind == Kind::number) {
    // format_time has no form for other years than 0 to 9999.
    const auto milliseconds = integer_of<std::int64_t>(value.text);
    if (milliseconds && *milliseconds >= -62'167'219'200'000 && *milliseconds < 253'402'300'800'000) {
      time = format_time(SystemTime{Milliseconds{*milliseconds}});
      return std::nullopt;
    }
    return fmt::format("field {} (the time) is not a number of whole milliseconds since 1970",
                       json::quoted(place));
  }
  if (is_text(value)) {
    return fmt::format("field {} (the time) is not in RFC 3339, such as 2024-05-01T12:00:00Z",
                       json::quoted(place));
  }
  return problem(place, "time", value, "a string or a number");
}

Rejection Wrapper::Impl::choose_source() {
  source = default_source;
  if (!source_selector) {
    return std::nullopt;
  }
  const Value value = select(*source_selector);
  if (is_absent(value)) {
    return std::nullopt;
  }
  if (!is_text(value)) {
    return problem(source_selector->pointer->text(), "source", value, "a string");
  }
  source = value.text;
  return std::nullopt;
}

Rejection Wrapper::Impl::choose_cloudevent_key(const Value& own) {
  const bool has_own = is_text(own) || own.kind == Kind::number;
  if (!has_own && own.kind != Kind::missing) {
    return "the CloudEvent's " + problem("partitionkey", "key", own, "a string");
  }
  if (has_own && !options.key) {
    key = own.text;
    return std::nullopt;
  }
  if (auto rejection = choose_key()) {
    return rejection;
  }
  if (has_own && own.text != key) {
    return "the CloudEvent's partitionkey is not the key that is selected for it";
  }
  return std::nullopt;
}

}  // namespace continuum
