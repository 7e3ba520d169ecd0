// continuum topic trim. Private to topic.cpp.
#pragma once

#include "server.hpp"

namespace CLI {
class App;
}

namespace continuum::app {

void add_topic_trim(CLI::App& command, Context& context);

}  // namespace continuum::app
