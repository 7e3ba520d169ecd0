// What the views of `continuum inspect` have in common. Private to apps/continuum/inspect*.cpp.
#pragma once

#include "output.hpp"
#include "server.hpp"

#include "continuum/inspect.hpp"

#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace continuum::app {

[[nodiscard]] double seconds_of(Milliseconds time);
// Throws Error{loss} with every loss; else returns the exit code, 0.
int report_loss(const std::vector<PartitionView>& views);

// `-t` is an option of the command that the views belong to: it may stand before or behind them. Throws
// Error{usage} when it was not given.
[[nodiscard]] std::string require_topic(const std::string& topic);

// Each adds its subcommand.
using SharedTopic = std::shared_ptr<std::string>;
void add_inspect_workers(CLI::App& command, Context& context, const SharedTopic& topic);

}  // namespace continuum::app
