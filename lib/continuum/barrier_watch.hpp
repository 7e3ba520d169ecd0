// What the partitions of one worker ask the server while they stand at barriers: together, and no more often
// than it helps, so that a thousand of them are not a million requests. Private to the library: includes
// Asio.
#pragma once

#include "continuum/async.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

namespace continuum {

struct Shift;

class BarrierWatch {
 public:
  explicit BarrierWatch(Shift& shift) : shift_(shift) {}

  // The topic is read, unless it was a moment ago: Shift::saw_topic is told.
  asio::awaitable<void> look_at_topic();
  // Does the rest of a resize whose coordinator seems to be gone, as far as a server that is full takes it.
  asio::awaitable<void> help(Generation generation);

 private:
  Shift& shift_;
  bool looking_ = false;
  Clock::time_point look_at_{};  // not before
  bool helping_ = false;
  bool told_full_ = false;
};

}  // namespace continuum
