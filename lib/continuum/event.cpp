#include "continuum/event.hpp"

#include "continuum/error.hpp"
#include "continuum/json_text.hpp"
#include "continuum/kcat.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace continuum {

namespace {

using json::Kind;
using json::Value;
using Rejection = std::optional<std::string>;

constexpr std::size_t time_bytes = 24;   // what format_time writes
constexpr std::size_t place_bytes = 64;  // at most, of what after_place skips

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

// `value` is not what `role` needs: why, with the place that was looked at.
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

// What of a JSON object comes behind '{', or behind the place in front: "partition" and "offset", whole
// numbers, as an event has them that was printed with its place.
std::string_view after_place(std::string_view object) {
  json::Members members(object);
  std::string_view name;
  std::string_view value;
  for (const std::string_view wanted : {"partition", "offset"}) {
    if (!members.next(name, value) || name != wanted ||
        !std::all_of(value.begin(), value.end(), json::is_digit)) {
      return object.substr(1);
    }
  }
  const char* const end = object.data() + object.size();
  const char* const comma = json::skip_space(value.data() + value.size(), end);
  return comma != end && *comma == ','
             ? std::string_view(comma + 1, static_cast<std::size_t>(end - comma - 1))
             : object.substr(1);
}

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
  Rejection choose_cloudevent_key(const Value& own);
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
  [[nodiscard]] bool is_place(std::string_view name, const Value& value) const;
  Value select(const Selector& selector);
  void append_id();
  void append_time();
  void append_attribute(const std::string& name, const Value& value);
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

Wrapper::Impl::Impl(WrapOptions given) : options(std::move(given)) {
  require_valid(options);
  for (const auto& [name, selector] : options.attributes) {
    if (name == "source") {
      source_selector = selector;
    }
    attributes.push_back({name, selector, json::Pointer(name)});
  }
  set_producer(options.producer);
  default_source = "/" + options.topic;
}

void Wrapper::Impl::set_producer(std::string_view producer) {
  options.producer = producer;
  begin_with_producer = R"({"specversion":"1.0","id":)" + json::quoted(options.producer + ":");
  begin_with_producer.pop_back();  // the id goes on
}

Value Wrapper::Impl::select(const Selector& selector) {
  if (selector.literal) {
    return {Kind::string, *selector.literal};
  }
  return form == Form::kcat ? message.at(*selector.pointer) : parser.at(*selector.pointer);
}

Rejection Wrapper::Impl::read(std::string_view line, Position line_number) {
  is_event = false;
  input = json::trimmed(line);
  if (input.empty()) {
    return "the line is empty";
  }
  // A message of Kafka is escaped text, and longer than its event.
  if (options.input != InputFormat::kcat && input.size() > options.event_bytes_max + place_bytes) {
    return fmt::format("the event has at least {} bytes, over the limit of {} (--event-bytes-max)",
                       input.size(), options.event_bytes_max);
  }
  if (const auto invalid = parser.parse(input)) {
    const auto skipped = static_cast<std::size_t>(input.data() - line.data());
    return fmt::format("not JSON: {}, at byte {}", invalid->reason, skipped + invalid->byte);
  }
  // Inside of strings there is none: JSON text of several lines becomes one.
  if (input.find('\n') != std::string_view::npos) {
    one_line = input;
    std::replace(one_line.begin(), one_line.end(), '\n', ' ');
    input = one_line;
  }
  head.clear();
  now_at.reset();
  id = {};
  if (auto rejection = choose_form()) {
    return rejection;
  }
  if (auto rejection = choose_position(line_number)) {
    return rejection;
  }
  if (auto rejection = form == Form::cloudevent ? read_cloudevent() : read_plain()) {
    return rejection;
  }
  if (auto rejection = check_size()) {
    return rejection;
  }
  is_event = true;
  return std::nullopt;
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

Rejection Wrapper::Impl::check_size() {
  const std::size_t bytes = head.size() + body.size() + tail.size();
  if (bytes <= options.event_bytes_max) {
    return std::nullopt;
  }
  return fmt::format("the event has {} bytes, over the limit of {} (--event-bytes-max)", bytes,
                     options.event_bytes_max);
}

Rejection Wrapper::Impl::read_plain() {
  for (const auto choose :
       {&Impl::choose_key, &Impl::choose_type, &Impl::choose_id, &Impl::choose_time, &Impl::choose_source}) {
    if (auto rejection = (this->*choose)()) {
      return rejection;
    }
  }
  append_id();
  head += R"(,"source":)";
  json::append_quoted(head, source);
  head += R"(,"type":)";
  json::append_quoted(head, type);
  head += ',';
  append_time();
  head += R"("partitionkey":)";
  json::append_quoted(head, key);
  head += ',';
  if (auto rejection = append_attributes()) {
    return rejection;
  }
  head += R"("data":)";
  body = form == Form::kcat ? message.data() : input;
  tail = "}";
  return std::nullopt;
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

void Wrapper::Impl::append_id() {
  if (!id.empty()) {
    head += R"({"specversion":"1.0","id":)";
    json::append_quoted(head, id);
    return;
  }
  head += begin_with_producer;
  const fmt::format_int digits(position.value);
  head.append(digits.data(), digits.size());
  head += '"';
}

void Wrapper::Impl::append_time() {
  head += R"("time":")";
  if (time.empty()) {
    now_at = head.size();
    head.append(time_bytes, '0');
  } else {
    head += time;
  }
  head += "\",";
}

void Wrapper::Impl::append_attribute(const std::string& name, const Value& value) {
  head += '"';
  head += name;
  head += "\":";
  if (value.kind == Kind::string) {
    json::append_quoted(head, value.text);
  } else {
    head += value.text;
  }
  head += ',';
}

// A CloudEvent may have some of them already.
Rejection Wrapper::Impl::append_attributes() {
  for (const Attribute& attribute : attributes) {
    if (form != Form::cloudevent && attribute.name == "source") {
      continue;
    }
    const Value value = select(attribute.selector);
    if (is_absent(value)) {
      continue;
    }
    if (!is_attribute_value(value)) {
      return problem(attribute.selector.pointer->text(), "attribute " + attribute.name, value,
                     "a string, a number or a boolean");
    }
    const Value own = form == Form::cloudevent ? parser.at(attribute.own) : Value{};
    if (own.kind == Kind::missing || is_place(attribute.name, own)) {
      append_attribute(attribute.name, value);
    } else if (!is_attribute_value(own) || own.text != value.text) {
      return fmt::format("the CloudEvent has the attribute {} already, with another value", attribute.name);
    }
  }
  append_causes();
  if (form == Form::kcat) {
    append_headers();
  }
  return std::nullopt;
}

// It goes with the place in front, and is no attribute of the CloudEvent.
bool Wrapper::Impl::is_place(std::string_view name, const Value& value) const {
  return form == Form::cloudevent && value.kind == Kind::number && body.size() + 1 < input.size() &&
         (name == "partition" || name == "offset");
}

bool Wrapper::Impl::is_set(std::string_view name) const {
  return std::any_of(attributes.begin(), attributes.end(),
                     [&](const Attribute& attribute) { return attribute.name == name; });
}

void Wrapper::Impl::append_headers() {
  for (const auto& [name, value] : message.attributes()) {
    if (!is_set(name)) {
      append_attribute(name, {Kind::string, value});
    }
  }
}

void Wrapper::Impl::append_causes() {
  for (const Inherited& what : inherited) {
    if (!what.value.empty() && !is_set(what.name) &&
        (form != Form::cloudevent || parser.at(what.own).kind == Kind::missing)) {
      append_attribute(what.name, {Kind::string, what.value});
    }
  }
}

Rejection Wrapper::Impl::read_cloudevent() {
  if (auto rejection = check_cloudevent()) {
    return rejection;
  }
  const Value own_key = parser.at(partitionkey_field);
  if (auto rejection = choose_cloudevent_key(own_key)) {
    return rejection;
  }
  body = after_place(input);
  head += '{';
  if (own_key.kind == Kind::missing) {
    append_attribute("partitionkey", {Kind::string, key});
  }
  const Value own_time = parser.at(time_field);
  if (own_time.kind == Kind::missing) {
    if (auto rejection = choose_time()) {
      return rejection;
    }
    append_time();
  } else if (!is_text(own_time)) {
    return "the CloudEvent's " + problem("time", "time", own_time, "a string");
  } else if (!parse_time(own_time.text)) {
    return R"(the CloudEvent's field "time" (the time) is not in RFC 3339, such as 2024-05-01T12:00:00Z)";
  }
  if (auto rejection = append_attributes()) {
    return rejection;
  }
  tail = {};
  return std::nullopt;
}

Rejection Wrapper::Impl::check_cloudevent() {
  for (const json::Pointer* const field : {&id_field, &source_field, &type_field}) {
    const Value value = parser.at(*field);
    if (!is_text(value)) {
      return "the CloudEvent is not valid: " + problem(field->text(), field->text(), value, "a string");
    }
    if (field == &id_field) {
      id = value.text;
    }
  }
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

Wrapper::Wrapper(WrapOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Wrapper::~Wrapper() = default;

std::optional<std::string> Wrapper::read(std::string_view line, Position line_number) {
  return impl_->read(line, line_number);
}

void Wrapper::follow(const Origin& cause) {
  Impl& impl = *impl_;
  impl.is_event = false;
  impl.caused = true;
  impl.caused_key = cause.key;
  impl.caused_type = cause.type;
  impl.inherited[0].value = cause.id;
  impl.inherited[1].value = cause.traceparent;
  impl.set_producer(cause.producer);
}

std::string_view Wrapper::key() const {
  check(impl_->is_event, "an event was read before its key");
  return impl_->key;
}

Position Wrapper::position() const {
  check(impl_->is_event, "an event was read before its position");
  return impl_->position;
}

std::string_view Wrapper::id() {
  check(impl_->is_event, "an event was read before its id");
  if (!impl_->id.empty()) {
    return impl_->id;
  }
  impl_->default_id = fmt::format("{}:{}", impl_->options.producer, impl_->position.value);
  return impl_->default_id;
}

void Wrapper::write(std::string& out, SystemTime now) {
  Impl& impl = *impl_;
  check(impl.is_event, "an event was read before it is written");
  const std::size_t begin = out.size();
  out += impl.head;
  if (impl.now_at) {
    if (impl.formatted_time != now) {
      impl.formatted = format_time(now);
      impl.formatted_time = now;
    }
    impl.formatted.copy(out.data() + begin + *impl.now_at, time_bytes);
  }
  out += impl.body;
  out += impl.tail;
  out += '\n';
}

}  // namespace continuum
