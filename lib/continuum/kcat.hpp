// A message of Kafka as a line of `kcat -C -J`. Private to the wrapper.
//
//   {"topic":"orders","partition":3,"offset":17,"tstype":"create","ts":1714564800123,"broker":1,
//    "headers":["name","value",…],"key":"ann","payload":"{\"total\":12.50}"}
//
// https://github.com/edenhill/kcat/blob/master/json.c: key and payload are null where Kafka has none; `ts`
// and `headers` may be missing; with -X the headers can be an object of arrays; with -s avro key and payload
// are JSON themselves, or null beside `key_error`, `payload_error`.
#pragma once

#include "continuum/json.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace continuum {

class KcatMessage {
 public:
  static constexpr std::size_t headers_max = 256;

  // Takes the message out of the line that `line` has parsed. nullopt: the other members speak of it until
  // the next read() or parse(). Else why it is none, for a person.
  [[nodiscard]] std::optional<std::string> read(json::Parser& line);

  // As Parser::at of the line, but a pointer below "/payload" goes on inside of a payload that is JSON.
  [[nodiscard]] json::Value at(const json::Pointer& pointer);

  // TOPIC/PARTITION/OFFSET: the same whenever the message is read again. No Kafka topic has a '/'.
  [[nodiscard]] const std::string& id() const { return id_; }

  // Whether Kafka says when it was.
  [[nodiscard]] bool has_time() const { return has_time_; }

  // The payload as JSON text in one line: its own bytes when it is JSON, else as a string; "null" when the
  // message is a tombstone.
  [[nodiscard]] std::string_view data() const { return {data_.data(), data_bytes_}; }

  // The headers that an event can have as attributes: names in lower case without what is neither letter nor
  // digit, the last of several with one name.
  [[nodiscard]] const std::vector<std::pair<std::string, std::string>>& attributes() const {
    return attributes_;
  }

 private:
  std::optional<std::string> read_place();
  std::optional<std::string> read_payload();
  std::optional<std::string> read_headers();
  std::optional<std::string> add_header(std::string_view raw_name, std::string_view raw_value);

  const json::Pointer topic_field_{"topic"};
  const json::Pointer partition_field_{"partition"};
  const json::Pointer offset_field_{"offset"};
  const json::Pointer tstype_field_{"tstype"};
  const json::Pointer ts_field_{"ts"};
  const json::Pointer headers_field_{"headers"};
  const json::Pointer payload_field_{"payload"};
  const json::Pointer key_error_field_{"key_error"};
  const json::Pointer payload_error_field_{"payload_error"};

  json::Parser* line_ = nullptr;
  json::Parser payload_;  // of data_
  std::string id_;
  bool has_time_ = false;
  std::string data_;  // with padding behind
  std::size_t data_bytes_ = 0;
  std::size_t headers_ = 0;
  std::vector<std::pair<std::string, std::string>> attributes_;
};

}  // namespace continuum
