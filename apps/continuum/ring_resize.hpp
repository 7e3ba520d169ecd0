// continuum ring resize
#pragma once

#include "server.hpp"

namespace CLI {
class App;
}

namespace continuum::app {

void add_ring_resize(CLI::App& command, Context& context);

}  // namespace continuum::app
