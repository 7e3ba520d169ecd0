// Hands the events of a replay to handlers, by the contract of a worker (docs/handlers.md) and outside of any
// group: no lease, no commit, no dead letters, nothing is emitted.
//
// The order of a key holds over partitions: all events of one generation are settled before the next begins.
// An event that is given up is said, and what its handler's on_failure says happens within this replay: its
// key's later events are left out, or it is skipped, or the replay ends.
#pragma once

#include "continuum/handler_spec.hpp"
#include "continuum/replay.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"
#include "continuum/window.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace continuum {

struct HandlerReplayOptions {
  std::vector<HandlerSpec> handlers;  // sorted by name
  Dispatch dispatch = Dispatch::sequence;
  std::vector<std::string> environment;  // NAME=value, as a worker's
  // From the first give() on; then it is over as by a first request to stop.
  std::optional<Milliseconds> time_max;
  // Once it is over, for whatever reason, how long what runs may take before it is killed.
  Milliseconds drain_within{30'000};
  // A handler that is down for longer ends the replay.
  Milliseconds down_max{60'000};
  std::function<void(const std::string&)> say;  // for a person, as a worker's
};

class HandlerReplay {
 public:
  // Throws Error{usage} when a handler cannot be run. Forks: to be made before threads are. `topic` must
  // outlive it.
  HandlerReplay(const Topic& topic, HandlerReplayOptions options);
  ~HandlerReplay();  // what still runs is killed
  HandlerReplay(const HandlerReplay&) = delete;
  HandlerReplay& operator=(const HandlerReplay&) = delete;

  // An eventfd that counts requests to stop, and must outlive it: the first starts nothing more and waits for
  // what runs, the second kills it.
  void stop_by(int descriptor);
  // Called a few times a second while it waits for handlers: for limit(), and to throw what ends it.
  void look_by(std::function<void()> look);

  // Why it takes no more events.
  enum class Over : std::uint8_t {
    stopped,
    time_max,
    halted,  // by an event that was given up, or too many keys that were
    down,    // a handler, for too long
  };
  [[nodiscard]] std::optional<Over> over() const;
  // Of a handler that is down: which one, and why. Printable.
  [[nodiscard]] const std::string& down() const;

  // In the order of a Replay. Waits for room. Once it is over the events are not taken, and not accepted.
  void give(const EventRun& run);
  // Lets the handlers go on until then, or until it is over. Of a time that has passed, takes what they have
  // done so far.
  void go_on_until(std::chrono::steady_clock::time_point then);
  // Waits until what was given is settled; once it is over, only for what runs.
  void finish();

  // Of `at`, where a replay that has given what it read would go on: no further than what was accepted. An
  // event is accepted when all handlers that take it are done with it or have skipped it, and so are all
  // events before it in its partition.
  void limit(ResumeAt& at) const;

  // Events that were given and are not behind us, refused ones included.
  [[nodiscard]] std::uint64_t unsettled() const;
  // Events that every handler which takes them has handled; those that handlers gave up, the one that halts
  // among them, and that they left out behind those, of their keys: counted for each handler.
  [[nodiscard]] std::uint64_t handled() const;
  [[nodiscard]] std::uint64_t failed() const;
  [[nodiscard]] std::uint64_t left_out() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace continuum
