// An event: one immutable fact with its context, as one line of CloudEvents 1.0 JSON.
// https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md and the partitioning extension
// https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/partitioning.md
//
//   event = '{"specversion":"1.0","id":' string ',"source":' string ',"type":' string ',"time":' string
//           ',"partitionkey":' string *(',"' attribute '":' value) ',"data":' json '}'
//
// That is how a plain JSON value is wrapped. An input that already is a CloudEvent keeps its bytes, but not
// the place that `replay --meta` and a worker without a handler print in front of it.
#pragma once

#include "continuum/json.hpp"
#include "continuum/types.hpp"

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace continuum {

// Where an attribute comes from: `=literal`, or a pointer into the event.
struct Selector {
  std::optional<std::string> literal;
  std::optional<json::Pointer> pointer;

  // Throws Error{usage} for an empty text or a bad pointer.
  static Selector parse(std::string_view text);
};

enum class InputFormat : std::uint8_t {
  automatic,    // a JSON object with specversion "1.0" is a CloudEvent, all else is plain
  json,         // always wrapped
  cloudevents,  // anything else is rejected
  kcat,         // a message of Kafka as `kcat -J` prints it; anything else is rejected
};

struct WrapOptions {
  std::string topic;     // source defaults to "/TOPIC"
  std::string producer;  // id defaults to "PRODUCER:POSITION"
  InputFormat input = InputFormat::automatic;
  std::optional<Selector> key;
  std::optional<Selector> type;
  std::optional<Selector> id;
  std::optional<Selector> time;      // RFC 3339 is kept, a number is milliseconds since the epoch
  std::optional<Selector> position;  // see Wrapper::read
  // name and source; a literal is given as NAME=value, a pointer as NAME=/pointer
  std::vector<std::pair<std::string, Selector>> attributes;
  std::optional<std::string> key_missing;  // the key of events that have none
  std::size_t event_bytes_max = 1 << 20;   // of the whole line that is stored
};

// What an event has from the one that caused it, where it brings none of its own. All unescaped.
struct Origin {
  std::string_view id;           // becomes the attribute causationid
  std::string_view key;          // unless options.key selects one
  std::string_view type;         // unless options.type selects one
  std::string_view traceparent;  // empty: none
  std::string_view producer;     // ids default to "PRODUCER:POSITION"
};

// Whether an event can have an attribute of this name besides those of the form above.
[[nodiscard]] bool is_extension_name(std::string_view name);

// Throws Error{usage} for a literal or an attribute that no event can have.
void require_valid(const WrapOptions& options);

// Turns input lines into event lines. One per thread; keeps its buffers.
class Wrapper {
 public:
  // Throws as require_valid.
  explicit Wrapper(WrapOptions options);
  ~Wrapper();
  Wrapper(const Wrapper&) = delete;
  Wrapper& operator=(const Wrapper&) = delete;

  // Reads one line (without its newline; json::padding_bytes readable bytes behind it). nullopt: it is
  // an event, and key(), position() and write() speak of it until the next read(). Else why it is
  // rejected, for a person: says what and where, e.g. `no field "thread_id" (the key)`. The line must stay
  // as it is until then. A newline between the tokens of a JSON text of several lines becomes a blank.
  // `line_number` is the position unless options.position selects another.
  [[nodiscard]] std::optional<std::string> read(std::string_view line, Position line_number);

  // Events that are read from here on were caused by this one.
  void follow(const Origin& cause);

  [[nodiscard]] std::string_view key() const;
  [[nodiscard]] Position position() const;
  [[nodiscard]] std::string_view id();  // unescaped

  // Appends the event and a newline. `now` is the time of events that bring none. Bytes added are at
  // most event_bytes_max + 1: read() has checked it.
  void write(std::string& out, SystemTime now);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The context attributes of a stored event, as raw JSON text that points into the line. Absent ones are
// empty. Fast for the order that Wrapper writes, right for any.
struct Attributes {
  std::string_view id;
  std::string_view source;
  std::string_view type;
  std::string_view time;
  std::string_view partitionkey;
  std::string_view data;
};
// Throws Error{loss} when the line is not a JSON object: a stored event always is.
[[nodiscard]] Attributes attributes_of(std::string_view line);

// Tells keys apart in memory, mostly: two keys may have the same. Not the ring's, and stored nowhere.
[[nodiscard]] std::uint64_t hash_of_key(std::string_view key);

// Unescaped key of a stored event; `scratch` holds it when it had escapes.
[[nodiscard]] std::string_view key_of(const Attributes& attributes, std::string& scratch);

// Shell-like pattern over an event type: '*' any run, '?' one byte, all else itself.
[[nodiscard]] bool glob_matches(std::string_view pattern, std::string_view text);

// RFC 3339 in UTC with milliseconds: 2024-05-01T12:00:00.123Z.
[[nodiscard]] std::string format_time(SystemTime time);
// Any RFC 3339 time (any offset, any fraction). nullopt when it is not one.
[[nodiscard]] std::optional<SystemTime> parse_time(std::string_view text);

}  // namespace continuum
