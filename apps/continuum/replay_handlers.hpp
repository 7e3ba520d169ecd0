// A replay to handlers: what the command line says of them, and the target that they are.
#pragma once

#include "replay_targets.hpp"

#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace continuum::app {

// Completes the command in `handlers`: it may begin with a `program` of its own, or have left its first word
// in `range`, where a range of time with its @ stays. Throws Error{usage}.
void take_command(std::optional<std::string>& range, const std::optional<std::string>& program,
                  HandlerArguments& handlers);

// Forks: to be made before threads are. `context` and `topic` must outlive it.
[[nodiscard]] std::unique_ptr<Target> make_handlers_target(const Context& context,
                                                           const HandlerArguments& handlers,
                                                           std::optional<Milliseconds> time_max,
                                                           const Topic& topic);

}  // namespace continuum::app
