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

// The words that are no options: a range of time, and a command with its arguments, of which `program` may be
// the first. Puts the command into `handlers`, and returns the range. Throws Error{usage}.
[[nodiscard]] std::optional<std::string> take_words(std::vector<std::string> words,
                                                    const std::optional<std::string>& program,
                                                    HandlerArguments& handlers);

// Forks: to be made before threads are. `context` and `topic` must outlive it.
[[nodiscard]] std::unique_ptr<Target> make_handlers_target(const Context& context,
                                                           const HandlerArguments& handlers,
                                                           std::optional<Milliseconds> time_max,
                                                           const Topic& topic);

}  // namespace continuum::app
