// How an input line becomes an event. Private to the wrapper: event.cpp puts the event together, and
// event_choice.cpp chooses what its attributes are.
#pragma once

#include "continuum/event.hpp"
#include "continuum/json.hpp"
#include "continuum/kcat.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// Why a line is rejected, for a person. Nothing: it is not.
using Rejection = std::optional<std::string>;

// Values that a string attribute, any attribute, or none can have.
[[nodiscard]] bool is_text(const json::Value& value);
[[nodiscard]] bool is_attribute_value(const json::Value& value);
[[nodiscard]] bool is_absent(const json::Value& value);

// `value` is not what `role` needs: why, with the place that was looked at.
[[nodiscard]] std::string problem(std::string_view place, std::string_view role, const json::Value& value,
                                  std::string_view needed);

struct Wrapper::Impl {
  enum class Form : std::uint8_t { plain, cloudevent, kcat };

  explicit Impl(WrapOptions given);

  Rejection read(std::string_view line, Position line_number);
  Rejection read_plain();
  Rejection read_cloudevent();
  Rejection check_cloudevent();
  Rejection choose_form();

  Rejection choose_position(Position line_number);
  Rejection choose_key();
  Rejection choose_cloudevent_key(const json::Value& own);
  Rejection choose_type();
  Rejection choose_id();
  Rejection choose_time();
  Rejection choose_source();

  // The selector that was given, or that of a message of Kafka. nullptr: neither.
  [[nodiscard]] const Selector* selector_or(const std::optional<Selector>& given,
                                            const Selector& kcat) const {
    return given ? &*given : form == Form::kcat ? &kcat : nullptr;
  }
  [[nodiscard]] bool is_set(std::string_view attribute) const;
  [[nodiscard]] bool is_place(std::string_view name, const json::Value& value) const;
  json::Value select(const Selector& selector);
  void append_id();
  void append_time();
  void append_attribute(const std::string& name, const json::Value& value);
  Rejection append_attributes();
  void append_causes();
  void append_headers();
  Rejection check_size();
  void set_producer(std::string_view producer);

  struct Attribute {
    std::string name;
    Selector selector;
    json::Pointer own;  // the same attribute of an event that is a CloudEvent
  };

  // What an event has from its cause, unless it brings its own.
  struct Inherited {
    std::string name;
    json::Pointer own;
    std::string value;  // empty: nothing
  };

  WrapOptions options;
  std::optional<Selector> source_selector;  // also among `attributes`
  std::vector<Attribute> attributes;
  bool caused = false;
  std::string caused_key;
  std::string caused_type;
  std::array<Inherited, 2> inherited{
      {{"causationid", json::Pointer("causationid"), {}}, {"traceparent", json::Pointer("traceparent"), {}}}};
  std::string begin_with_producer;  // an event up to the position in its default id
  std::string default_source;

  const json::Pointer specversion_field{"specversion"};
  const json::Pointer id_field{"id"};
  const json::Pointer source_field{"source"};
  const json::Pointer type_field{"type"};
  const json::Pointer time_field{"time"};
  const json::Pointer partitionkey_field{"partitionkey"};
  const Selector kcat_key = Selector::parse("key");
  const Selector kcat_type = Selector::parse("topic");
  const Selector kcat_time = Selector::parse("ts");

  json::Parser parser;
  KcatMessage message;  // of form kcat

  // Of the event read last. It is written as head, body, tail; a time of its own is in the head at now_at.
  bool is_event = false;
  Form form = Form::plain;
  std::string_view input;
  std::string one_line;
  std::string_view key;
  Position position;
  std::string_view type;
  std::string_view source;
  std::string_view id;  // empty: the default
  std::string default_id;
  std::string time;  // empty: now
  std::string head;
  std::optional<std::size_t> now_at;
  std::string_view body;
  std::string_view tail;

  SystemTime formatted_time{};
  std::string formatted = format_time(formatted_time);
};

}  // namespace continuum
