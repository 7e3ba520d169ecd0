// The commands of `continuum`, and how a command line becomes a call.
#pragma once

#include "server.hpp"

#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace CLI {
class App;
}

namespace continuum::app {

struct Command {
  std::string_view name;
  std::string_view summary;  // one line
  // Adds options to `command` and says by run_with() what to do when it was parsed without an error.
  void (*add)(CLI::App& command, Context& context);
};

// In the order of the help. Only the one that is called gets its options built: a process has to start
// faster than anybody notices.
[[nodiscard]] std::span<const Command> commands();

// `body` runs after parsing when `command` (or subcommand) was named. It returns the exit code.
void run_with(CLI::App& command, Context& context, std::function<int()> body);

// Parses and runs. Returns the exit code; throws Error.
int run(std::span<const std::string> arguments);

void add_publish(CLI::App& command, Context& context);
void add_work(CLI::App& command, Context& context);
void add_handlers(CLI::App& command, Context& context);
void add_handlers_try(CLI::App& command, Context& context);
void add_archive(CLI::App& command, Context& context);
void add_replay(CLI::App& command, Context& context);
void add_cursor(CLI::App& command, Context& context);
void add_inspect(CLI::App& command, Context& context);
void add_dead(CLI::App& command, Context& context);
void add_group(CLI::App& command, Context& context);
void add_topic(CLI::App& command, Context& context);
void add_ring(CLI::App& command, Context& context);
void add_local(CLI::App& command, Context& context);

}  // namespace continuum::app
