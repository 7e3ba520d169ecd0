// The handlers of one worker, ready to run. Private to the library.
#pragma once

#include "continuum/handler.hpp"
#include "continuum/handler_spec.hpp"
#include "continuum/output_relay.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace continuum {

// Whether a handler works at all, as far as this worker has seen on all of its partitions: one that fails for
// key after key is down, and no event is to blame.
class HandlerHealth {
 public:
  static constexpr std::size_t keys_max = 5;

  [[nodiscard]] bool down() const { return keys_.size() >= keys_max; }
  // An event of this key used up its attempts.
  void exhausted(std::uint64_t key_hash) { keys_.insert(key_hash); }
  void succeeded() {
    if (!keys_.empty()) {
      keys_.clear();
    }
  }

 private:
  std::set<std::uint64_t> keys_;  // with no success since
};

struct Handler {
  Handler(HandlerSpec description, const std::vector<std::string>& environment)
      : spec(std::move(description)) {
    if (spec.mode != HandlerMode::http) {
      command.emplace(spec, environment);
    }
  }

  HandlerSpec spec;
  std::optional<HandlerCommand> command;  // of modes exec and stream
  HandlerHealth health;
  std::shared_ptr<OutputRelay> log;  // of its processes; none: their stderr is ours
  // Where its stderr goes; -1: to ours.
  [[nodiscard]] int log_fd() const { return log ? log->fd() : -1; }
};

// By name.
using HandlerSet = std::vector<std::shared_ptr<Handler>>;

}  // namespace continuum
