// `group seek` and `group skip`. Private to the group command.
#pragma once

#include "server.hpp"

namespace CLI {
class App;
}

namespace continuum::app {

void add_group_seek(CLI::App& command, Context& context);
void add_group_skip(CLI::App& command, Context& context);

}  // namespace continuum::app
