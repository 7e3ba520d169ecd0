#include "continuum/error.hpp"
#include "continuum/event.hpp"

#include <algorithm>
#include <array>

namespace continuum {
namespace {

// The attributes that have their own options, or that an event's form gives.
constexpr std::array<std::string_view, 7> reserved_names = {"specversion",  "id",   "type",       "time",
                                                            "partitionkey", "data", "data_base64"};

bool is_attribute_name(std::string_view name) {
  const auto allowed = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), allowed);
}

bool is_reserved(std::string_view name) {
  return std::find(reserved_names.begin(), reserved_names.end(), name) != reserved_names.end();
}

void check_attribute_name(std::string_view name) {
  if (!is_attribute_name(name)) {
    fail(ErrorKind::usage, "attribute name {}: CloudEvents allows 1 to 64 of a-z and 0-9",
         json::quoted(name));
  }
  if (is_reserved(name)) {
    fail(ErrorKind::usage, "attribute {}: it cannot be set as an attribute of its own; {}", name,
         "key, type, id and time have their own options, and the data is the input");
  }
}

void check_literal(std::string_view what, const std::optional<std::string>& literal) {
  if (!literal) {
    return;
  }
  if (literal->empty()) {
    fail(ErrorKind::usage, "the {} is set to an empty text", what);
  }
  if (!json::is_utf8(*literal)) {
    fail(ErrorKind::usage, "the {} {} is not UTF-8", what, json::quoted(*literal));
  }
}

void check_literal(std::string_view what, const std::optional<Selector>& selector) {
  if (selector) {
    check_literal(what, selector->literal);
  }
}

}  // namespace

Selector Selector::parse(std::string_view text) {
  if (text.empty()) {
    fail(ErrorKind::usage, "an empty selector: give FIELD, /JSON/POINTER or =LITERAL");
  }
  Selector selector;
  if (text.front() == '=') {
    selector.literal = std::string(text.substr(1));
  } else {
    selector.pointer = json::Pointer(text);
  }
  return selector;
}

bool is_extension_name(std::string_view name) {
  return is_attribute_name(name) && !is_reserved(name) && name != "source";
}

void require_valid(const WrapOptions& options) {
  check_literal("key", options.key);
  check_literal("type", options.type);
  check_literal("id", options.id);
  check_literal("time", options.time);
  check_literal("key of events that have none", options.key_missing);
  if (options.time && options.time->literal && !parse_time(*options.time->literal)) {
    fail(ErrorKind::usage, "the time {} is not in RFC 3339, such as 2024-05-01T12:00:00Z",
         json::quoted(*options.time->literal));
  }
  if (options.position && options.position->literal) {
    fail(ErrorKind::usage, "the position must come from a field of the event, not from a literal");
  }
  for (const auto& [name, selector] : options.attributes) {
    check_attribute_name(name);
    const auto same = [&name = name](const auto& other) { return other.first == name; };
    if (std::count_if(options.attributes.begin(), options.attributes.end(), same) > 1) {
      fail(ErrorKind::usage, "attribute {} is set twice", name);
    }
    if (selector.literal && !json::is_utf8(*selector.literal)) {
      fail(ErrorKind::usage, "attribute {}: its value is not UTF-8", name);
    }
    if (name == "source") {
      check_literal("source", selector.literal);
    }
  }
}

}  // namespace continuum
