// Derived events: what a handler gave out for an event becomes events of another topic (PROTOCOLS: Emit).
//
//   exec    standard output: one JSON value per line
//   stream  behind the verdict: ok [OFFSET] [VALUE, VALUE, …]
//
// A value that is a CloudEvent keeps its attributes. Any other becomes the data of an event with the key and
// the type of its cause, unless options select others. Either way the attribute causationid names the cause,
// and its traceparent is passed on, where the event has none of its own.
#pragma once

#include "continuum/event.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace continuum {

// What an event has instead of its cause's. Literals, or pointers into the value that was given out.
struct EmitOptions {
  std::optional<Selector> key;
  std::optional<Selector> type;
};

// Of one event in one handler.
inline constexpr std::uint32_t emitted_events_max = 1'000;
inline constexpr std::size_t emitted_bytes_max = std::size_t{8} << 20;

// The event that a handler was given.
struct EmitCause {
  Partition partition;
  Offset offset;
  std::string_view line;
  std::string_view handler;
};

// One per thread; keeps its buffers.
class EmitWrapper {
 public:
  // `source` and `group`: what is being handled. Throws Error{usage} for options that no event can have.
  EmitWrapper(const EmitOptions& options, const Topic& target, std::string_view source,
              std::string_view group);

  // Appends the events as lines. Else why nothing was appended, for a person: `output line 2: not JSON: …`.
  // The id of the Nth event is "SOURCE/PARTITION/OFFSET/GROUP/HANDLER:N": of all runs of a handler on an
  // event only one is ever stored, so that it is unique; it does not grow along a chain of topics.
  [[nodiscard]] std::optional<std::string> wrap_lines(const EmitCause& cause, std::string_view printed,
                                                      std::string& out);
  [[nodiscard]] std::optional<std::string> wrap_array(const EmitCause& cause, std::string_view array,
                                                      std::string& out);

 private:
  void begin(const EmitCause& cause, std::string_view given);
  [[nodiscard]] std::optional<std::string> add(std::string_view value, std::string& out);
  [[nodiscard]] std::optional<std::string> add_lines(std::string& out);
  [[nodiscard]] std::optional<std::string> add_elements(std::string& out);

  Wrapper wrapper_;
  json::Parser parser_;
  const std::string source_;
  const std::string group_;
  std::string text_;        // what was given out, and padding
  std::string_view given_;  // without the padding
  std::uint32_t events_ = 0;
  std::size_t bytes_ = 0;  // of the events
  SystemTime now_{};
};

}  // namespace continuum
