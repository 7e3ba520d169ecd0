// Runs one handler over events, and hears what it says of each: nothing is committed, tried again or held.
#pragma once

#include "continuum/handler.hpp"
#include "continuum/handler_spec.hpp"
#include "continuum/replay.hpp"
#include "continuum/topic.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace continuum {

// A handler without a timeout is given this long for an event.
inline constexpr Milliseconds trial_timeout{30'000};

struct TrialVerdict {
  Partition partition;
  Offset offset;
  Verdict verdict = Verdict::done;
  std::string why;     // when it is not done; printable
  std::string output;  // what exec printed on its stdout, or stream behind "ok"; any bytes
};

struct TrialOptions {
  HandlerSpec handler;
  std::string group = "try";                    // what the handler is told
  std::vector<std::string> environment;         // NAME=value, as a worker's
  std::function<void(const std::string&)> say;  // for a person: what the handler prints on stderr, and more
};

class HandlerTrial {
 public:
  // Throws Error{usage} when the handler cannot be run. Forks: to be made before threads are.
  HandlerTrial(const Topic& topic, TrialOptions options, std::function<void(const TrialVerdict&)> told);
  ~HandlerTrial();  // what still runs is killed
  HandlerTrial(const HandlerTrial&) = delete;
  HandlerTrial& operator=(const HandlerTrial&) = delete;

  // Events of a partition without gaps: the first of a partition says where they begin. Waits for room.
  // Throws Error{usage} when the handler is down: with why.
  void give(const EventRun& run);
  // Waits until the handler is done with all of them. Throws likewise.
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace continuum
