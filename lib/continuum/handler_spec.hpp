// A handler as its owner describes it: what it subscribes to, how it is run, what its failures mean.
// docs/handlers.md is its manual.
#pragma once

#include "continuum/types.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace continuum {

enum class HandlerMode : std::uint8_t {
  exec,    // a process per event, its exit status is the verdict
  stream,  // a long-lived process, events in and verdicts out as lines
  http,    // a CloudEvents webhook, the status of its answer is the verdict
};
// What becomes of an event that used up its attempts.
enum class OnFailure : std::uint8_t {
  hold_key,  // a dead letter; later events of its key wait behind it, in order
  skip,      // a dead letter; its key goes on
  halt,      // its partition waits for a person
};
enum class VerdictsOn : std::uint8_t { standard_output, descriptor_3 };

// The name of a handler that was given on the command line: there is no other, so that messages leave it out.
inline constexpr std::string_view command_line_handler = "handler";

struct HandlerSpec {
  std::string name;                  // the file's, without .toml; or command_line_handler
  std::vector<std::string> types;    // globs over event types; none: all
  std::vector<std::string> command;  // program and arguments; no shell. Empty in mode http
  std::string url;                   // of mode http
  HandlerMode mode = HandlerMode::exec;
  std::optional<Milliseconds> timeout;  // of one event
  std::uint32_t attempts_max = 5;
  Milliseconds backoff_min{100};
  Milliseconds backoff_max{30'000};
  OnFailure on_failure = OnFailure::hold_key;
  std::uint32_t concurrency = 1;  // processes (in mode http: requests) at a time on each partition
  VerdictsOn verdicts = VerdictsOn::standard_output;
  // Names of the worker's environment variables that it gets, besides PATH, HOME, LANG, LC_*, TZ, USER and
  // TMPDIR. Absent: all. Secrets of ours never.
  std::optional<std::vector<std::string>> pass;
  std::vector<std::pair<std::string, std::string>> environment;  // set for it
  std::string working_directory;                                 // empty: the worker's
  bool enabled = true;
  std::optional<double> rate_per_second;  // of events, on each partition

  friend bool operator==(const HandlerSpec&, const HandlerSpec&) = default;
};

}  // namespace continuum
