// What the views of `continuum inspect` have in common. Private to apps/continuum/inspect*.cpp.
#pragma once

#include "output.hpp"
#include "server.hpp"

#include "continuum/inspect.hpp"
#include "continuum/topic.hpp"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace continuum::app {

[[nodiscard]] double seconds_of(Milliseconds time);
// Whoever has the lease, for people.
[[nodiscard]] std::optional<std::string> owner_of(const GroupState& state);
[[nodiscard]] Cell state_cell(const PartitionView& partition, const GroupView* group);

enum class Naming : std::uint8_t { named, listed };
// Of topics that were listed, those that are gone by now are left out.
[[nodiscard]] std::vector<PartitionView> look(redis::Session& session, const std::vector<std::string>& topics,
                                              Naming naming);
// Throws Error{loss} with every loss; else returns the exit code, 0.
int report_loss(const std::vector<PartitionView>& views);

// `-t` is an option of the command that the views belong to: it may stand before or behind them. Throws
// Error{usage} when it was not given.
[[nodiscard]] std::string require_topic(const std::string& topic);

// Each adds its subcommand.
using SharedTopic = std::shared_ptr<std::string>;
void add_inspect_groups(CLI::App& command, Context& context, const SharedTopic& topic);
void add_inspect_events(CLI::App& command, Context& context, const SharedTopic& topic);
void add_inspect_key(CLI::App& command, Context& context, const SharedTopic& topic);
void add_inspect_why(CLI::App& command, Context& context, const SharedTopic& topic);
void add_inspect_workers(CLI::App& command, Context& context, const SharedTopic& topic);
void add_inspect_dead(CLI::App& command, Context& context, const SharedTopic& topic);
void add_inspect_audit(CLI::App& command, Context& context, const SharedTopic& topic);

}  // namespace continuum::app
