#include "continuum/event.hpp"

#include "continuum/error.hpp"
#include "continuum/json_text.hpp"
#include "continuum/wrapper.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace continuum {

using json::Kind;
using json::Value;

namespace {

constexpr std::size_t time_bytes = 24;   // what format_time writes
constexpr std::size_t place_bytes = 64;  // at most, of what after_place skips

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

}  // namespace

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
