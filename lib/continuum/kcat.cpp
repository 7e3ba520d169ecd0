#include "continuum/kcat.hpp"

#include "continuum/event.hpp"
#include "continuum/json_text.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace continuum {
namespace {

using json::Kind;
using json::Value;
using Rejection = std::optional<std::string>;

std::string not_kcat(const json::Pointer& field, const Value& value, std::string_view needed) {
  const std::string name = json::quoted(field.text());
  if (value.kind == Kind::missing) {
    return fmt::format("not a message of kcat -J: no field {}", name);
  }
  if (value.kind == Kind::ambiguous) {
    return fmt::format("not a message of kcat -J: field {} is there twice", name);
  }
  return fmt::format("not a message of kcat -J: field {} is not {}", name, needed);
}

bool is_whole_number(const Value& value) {
  return value.kind == Kind::number && value.text.size() <= 19 &&
         std::all_of(value.text.begin(), value.text.end(), json::is_digit);
}

std::string attribute_name(std::string_view header) {
  std::string name;
  for (const char c : header) {
    if ((c >= 'a' && c <= 'z') || json::is_digit(c)) {
      name += c;
    } else if (c >= 'A' && c <= 'Z') {
      name += static_cast<char>(c - 'A' + 'a');
    }
  }
  return name;
}

// The elements of an array that is valid, as raw JSON text.
class Elements {
 public:
  explicit Elements(std::string_view array)
      : end_(array.data() + array.size()), at_(json::skip_space(array.data() + 1, end_)) {}

  bool next(std::string_view& value) {
    if (at_ == end_ || *at_ == ']') {
      return false;
    }
    const char* const value_end = json::skip_value(at_, end_);
    if (value_end == nullptr) {
      return false;
    }
    value = {at_, static_cast<std::size_t>(value_end - at_)};
    at_ = json::skip_space(value_end, end_);
    if (at_ != end_ && *at_ == ',') {
      at_ = json::skip_space(at_ + 1, end_);
    }
    return true;
  }

 private:
  const char* end_;
  const char* at_;
};

constexpr std::string_view headers_needed = "a list of names and values";

}  // namespace

Rejection KcatMessage::read(json::Parser& line) {
  line_ = &line;
  if (line.root_kind() != Kind::object) {
    return fmt::format("not a message of kcat -J: it is {}, not an object", name_of(line.root_kind()));
  }
  for (const auto part : {&KcatMessage::read_place, &KcatMessage::read_payload, &KcatMessage::read_headers}) {
    if (auto rejection = (this->*part)()) {
      return rejection;
    }
  }
  return std::nullopt;
}

Value KcatMessage::at(const json::Pointer& pointer) {
  constexpr std::string_view payload = "/payload";
  if (pointer.tokens().size() < 2 || pointer.tokens().front() != payload.substr(1)) {
    return line_->at(pointer);
  }
  return payload_.at(json::Pointer(std::string_view(pointer.text()).substr(payload.size())));
}

Rejection KcatMessage::read_place() {
  const Value topic = line_->at(topic_field_);
  if (topic.kind != Kind::string || topic.lone_surrogate || topic.text.empty()) {
    return not_kcat(topic_field_, topic, "a name");
  }
  const Value partition = line_->at(partition_field_);
  if (!is_whole_number(partition)) {
    return not_kcat(partition_field_, partition, "a whole number");
  }
  const Value offset = line_->at(offset_field_);
  if (!is_whole_number(offset)) {
    return not_kcat(offset_field_, offset, "a whole number");
  }
  id_ = fmt::format("{}/{}/{}", topic.text, partition.text, offset.text);
  const Value type = line_->at(tstype_field_);
  const bool unknown = type.kind == Kind::string && type.text == "unknown";
  has_time_ = !unknown && line_->at(ts_field_).kind != Kind::missing;
  return std::nullopt;
}

Rejection KcatMessage::read_payload() {
  for (const json::Pointer* const field : {&key_error_field_, &payload_error_field_}) {
    const Value error = line_->at(*field);
    if (error.kind != Kind::missing) {
      return fmt::format("kcat could not decode the message: {}: {}", field->text(), error.text);
    }
  }
  const Value payload = line_->at(payload_field_);
  if (payload.kind == Kind::missing || payload.kind == Kind::ambiguous) {
    return not_kcat(payload_field_, payload, "there once");
  }
  const auto take = [this](std::string_view text) {
    data_ = text;
    data_bytes_ = data_.size();
    data_.append(json::padding_bytes, '\0');
    return payload_.parse(data());
  };
  const bool is_text = payload.kind == Kind::string && !payload.lone_surrogate;
  if (take(is_text ? json::trimmed(payload.text) : payload.text)) {
    // A payload that is no JSON is a text, with all its bytes.
    if (const auto invalid = take(json::quoted(payload.text))) {
      return fmt::format("the payload has no form in JSON: {}", invalid->reason);
    }
  }
  // Inside of strings there is none.
  std::replace(data_.begin(), data_.end(), '\n', ' ');
  return std::nullopt;
}

Rejection KcatMessage::read_headers() {
  attributes_.clear();
  headers_ = 0;
  const Value headers = line_->at(headers_field_);
  std::string_view name;
  std::string_view value;
  if (headers.kind == Kind::missing || headers.kind == Kind::null) {
    return std::nullopt;
  }
  if (headers.kind == Kind::array) {
    for (Elements elements(headers.text); elements.next(name);) {
      if (!elements.next(value)) {
        return not_kcat(headers_field_, headers, headers_needed);
      }
      if (auto rejection = add_header(name, value)) {
        return rejection;
      }
    }
    return std::nullopt;
  }
  if (headers.kind != Kind::object) {
    return not_kcat(headers_field_, headers, headers_needed);
  }
  for (json::Members members(headers.text); members.next(name, value);) {
    const std::string_view with_quotes(name.data() - 1, name.size() + 2);
    if (!value.starts_with('[')) {
      return not_kcat(headers_field_, headers, headers_needed);
    }
    for (Elements elements(value); elements.next(value);) {
      if (auto rejection = add_header(with_quotes, value)) {
        return rejection;
      }
    }
  }
  return std::nullopt;
}

Rejection KcatMessage::add_header(std::string_view raw_name, std::string_view raw_value) {
  if (++headers_ > headers_max) {
    return fmt::format("the message has more than {} headers", headers_max);
  }
  std::string name_scratch;
  std::string value_scratch;
  const auto header = json::unescape(raw_name, name_scratch);
  const auto value = json::unescape(raw_value, value_scratch);
  if (!header || (!value && raw_value != "null")) {
    return not_kcat(headers_field_, {Kind::array, {}}, headers_needed);
  }
  auto name = attribute_name(*header);
  if (!value || !is_extension_name(name)) {
    return std::nullopt;
  }
  const auto same = std::find_if(attributes_.begin(), attributes_.end(),
                                 [&](const auto& other) { return other.first == name; });
  if (same != attributes_.end()) {
    same->second = *value;
  } else {
    attributes_.emplace_back(std::move(name), *value);
  }
  return std::nullopt;
}

}  // namespace continuum
