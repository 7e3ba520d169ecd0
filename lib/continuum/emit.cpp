#include "continuum/emit.hpp"

#include "continuum/json_text.hpp"
#include "continuum/units.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace continuum {

namespace {

WrapOptions wrap_options(const EmitOptions& options, const Topic& target) {
  WrapOptions wrap;
  wrap.topic = target.name;
  wrap.key = options.key;
  wrap.type = options.type;
  wrap.event_bytes_max = target.settings.event_bytes_max;
  return wrap;
}

// The member that links traces, unescaped. Few events have one, so that most are not walked through.
std::string traceparent_of(std::string_view line) {
  constexpr std::string_view wanted = "traceparent";
  if (line.find(wanted) == std::string_view::npos) {
    return {};
  }
  json::Members members(line);
  std::string_view name;
  std::string_view value;
  std::string scratch;
  while (members.next(name, value)) {
    if (name == wanted) {
      return std::string(json::unescape(value, scratch).value_or(""));
    }
  }
  return {};
}

}  // namespace

EmitWrapper::EmitWrapper(const EmitOptions& options, const Topic& target, std::string_view source,
                         std::string_view group)
    : wrapper_(wrap_options(options, target)), source_(source), group_(group) {}

std::optional<std::string> EmitWrapper::wrap_lines(const EmitCause& cause, std::string_view printed,
                                                   std::string& out) {
  begin(cause, printed);
  const std::size_t before = out.size();
  auto error = add_lines(out);
  if (error) {
    out.resize(before);
  }
  return error;
}

std::optional<std::string> EmitWrapper::wrap_array(const EmitCause& cause, std::string_view array,
                                                   std::string& out) {
  begin(cause, array);
  const std::size_t before = out.size();
  auto error = add_elements(out);
  if (error) {
    out.resize(before);
  }
  return error;
}

void EmitWrapper::begin(const EmitCause& cause, std::string_view given) {
  text_ = given;
  text_.append(json::padding_bytes, '\0');
  given_ = std::string_view(text_).substr(0, given.size());
  events_ = 0;
  bytes_ = 0;
  now_ = std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now());
  const Attributes attributes = attributes_of(cause.line);
  std::string id;
  std::string key;
  std::string type;
  const std::string traceparent = traceparent_of(cause.line);
  wrapper_.follow({.id = json::unescape(attributes.id, id).value_or(""),
                   .key = key_of(attributes, key),
                   .type = json::unescape(attributes.type, type).value_or(""),
                   .traceparent = traceparent,
                   .producer = fmt::format("{}/{}/{}/{}/{}", source_, cause.partition, cause.offset, group_,
                                           cause.handler)});
}

std::optional<std::string> EmitWrapper::add_lines(std::string& out) {
  std::uint64_t number = 0;
  for (std::string_view rest = given_; !rest.empty();) {
    ++number;
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (json::trimmed(line).empty()) {
      continue;
    }
    if (auto why = add(line, out)) {
      return fmt::format("output line {}: {}", number, *why);
    }
  }
  return std::nullopt;
}

std::optional<std::string> EmitWrapper::add_elements(std::string& out) {
  if (const auto invalid = parser_.parse(given_)) {
    return fmt::format("the output behind ok is not JSON: {}, at byte {}", invalid->reason, invalid->byte);
  }
  if (parser_.root_kind() != json::Kind::array) {
    return fmt::format("the output behind ok is {}, not an array of events", name_of(parser_.root_kind()));
  }
  const char* const end = given_.data() + given_.size();
  const char* at = json::skip_space(json::skip_space(given_.data(), end) + 1, end);
  while (*at != ']') {
    const char* const value_end = json::skip_value(at, end);
    if (auto why = add({at, static_cast<std::size_t>(value_end - at)}, out)) {
      return fmt::format("output element {}: {}", events_ + 1, *why);
    }
    at = json::skip_space(value_end, end);
    if (*at == ',') {
      at = json::skip_space(at + 1, end);
    }
  }
  return std::nullopt;
}

std::optional<std::string> EmitWrapper::add(std::string_view value, std::string& out) {
  if (events_ == emitted_events_max) {
    return fmt::format("more than {} events for one event", format_count(emitted_events_max));
  }
  if (auto why = wrapper_.read(value, Position(events_ + 1))) {
    return why;
  }
  const std::size_t before = out.size();
  wrapper_.write(out, now_);
  bytes_ += out.size() - before;
  if (bytes_ > emitted_bytes_max) {
    return fmt::format("more than {} of events for one event", format_bytes(emitted_bytes_max));
  }
  ++events_;
  return std::nullopt;
}

}  // namespace continuum
