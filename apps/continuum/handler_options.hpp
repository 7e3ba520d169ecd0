// Which handlers a command runs, and how: those of a directory, or one that is given behind --.
#pragma once

#include "continuum/handler_spec.hpp"
#include "continuum/window.hpp"

#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace continuum::app {

struct HandlerArguments {
  HandlerSpec handler;                   // of the command behind --
  bool about_it = false;                 // an option was given that makes sense only with it
  std::optional<std::string> directory;  // of the others
  Dispatch dispatch = Dispatch::sequence;
};

// All but the command itself, and its rate.
void add_handler_options(CLI::App& command, HandlerArguments& arguments);

// The environment of this process, for handlers.
[[nodiscard]] std::vector<std::string> environment_of_process();

}  // namespace continuum::app
