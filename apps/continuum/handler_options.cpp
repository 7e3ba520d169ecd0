#include "handler_options.hpp"

#include "options.hpp"

#include "continuum/error.hpp"
#include "continuum/handler_file.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

extern char** environ;

namespace continuum::app {
namespace {

HandlerMode parse_mode(const std::string& text) {
  if (text == "exec") {
    return HandlerMode::exec;
  }
  if (text == "stream") {
    return HandlerMode::stream;
  }
  fail(ErrorKind::usage,
       "give exec (a process per event) or stream (one process, events in and verdicts out as lines)");
}

OnFailure parse_on_failure(const std::string& text) {
  for (const OnFailure value : {OnFailure::hold_key, OnFailure::skip, OnFailure::halt}) {
    if (text == name_of(value)) {
      return value;
    }
  }
  fail(ErrorKind::usage,
       "give hold-key (later events of its key wait), skip (its key goes on) or halt (the partition waits "
       "for you)");
}

Dispatch parse_dispatch(const std::string& text) {
  if (text == "sequence" || text == "parallel") {
    return text == "sequence" ? Dispatch::sequence : Dispatch::parallel;
  }
  fail(ErrorKind::usage, "give sequence (one handler after the other, by name) or parallel");
}

}  // namespace

void add_handler_options(CLI::App& command, HandlerArguments& arguments) {
  const auto parsed = [&](const std::string& name, const std::string& placeholder, const std::string& help,
                          auto parse) {
    add_parsed(command, name, placeholder, help, [&arguments, parse](const std::string& text) {
      arguments.about_it = true;
      parse(arguments.handler, text);
    });
  };
  parsed("--mode", "exec|stream",
         "a process per event, or one process with events in and verdicts out as lines (exec)",
         [](HandlerSpec& o, const std::string& text) { o.mode = parse_mode(text); });
  parsed("--attempts", "N", "how often an event is tried before it is given up (5)",
         [](HandlerSpec& o, const std::string& text) {
           o.attempts_max = static_cast<std::uint32_t>(parse_number(text, 1, 1'000'000));
         });
  parsed("--backoff", "A..B", "the pause before the second attempt, doubled up to the longest (100ms..30s)",
         [](HandlerSpec& o, const std::string& text) {
           const Backoff backoff = parse_backoff(text);
           o.backoff_min = backoff.min;
           o.backoff_max = backoff.max;
         });
  parsed("--timeout", "D",
         "kill a handler that takes longer for an event; that is an attempt (default: no limit)",
         [](HandlerSpec& o, const std::string& text) {
           o.timeout = parse_duration(text);
           if (*o.timeout < Milliseconds(1)) {
             fail(ErrorKind::usage, "must be at least 1ms");
           }
         });
  parsed("--concurrency", "N", "processes at a time on each partition, of different keys (1)",
         [](HandlerSpec& o, const std::string& text) {
           o.concurrency = static_cast<std::uint32_t>(parse_number(text, 1, 1024));
         });
  parsed("--on-failure", "hold-key|skip|halt",
         "what an event that is given up does: holds its key, is skipped, or halts its partition (hold-key)",
         [](HandlerSpec& o, const std::string& text) { o.on_failure = parse_on_failure(text); });
  add_text(command, "--handlers", "DIR", arguments.directory,
           "the handlers, one TOML file each (docs/handlers.md)");
  add_parsed(command, "--dispatch", "sequence|parallel",
             "whether the handlers of one event get it one after the other, or at once (sequence)",
             [&arguments](const std::string& text) { arguments.dispatch = parse_dispatch(text); });
}

std::vector<std::string> environment_of_process() {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    environment.emplace_back(*entry);
  }
  return environment;
}

}  // namespace continuum::app
