// Works a group's partitions: takes their leases, reads their logs, hands each event to the handler (or
// prints it), and commits what is done (PROTOCOLS: Lease, Commit, Barriers; G4 and G5 in docs/guarantees.md).
#pragma once

#include "continuum/handler_spec.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"
#include "continuum/window.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace continuum {

enum class Printing : std::uint8_t { event, data };
enum class Ending : std::uint8_t {
  never,    // waits for more events
  // At the end that each log had when its lease was taken. Workers that share: when all is handled that was
  // there at the start, by whomever, but for what others still have.
  drained,
};
enum class Standby : std::uint8_t {
  wait,    // for a partition that somebody else works
  refuse,  // throws Error{fenced}. Workers that share: when there are more of them than partitions
};

enum class Sharing : std::uint8_t {
  pinned,  // works all of the partitions that it was given
  shared,  // its part of them: the workers of the group that share find each other
};

struct WorkOptions {
  std::string group;                  // registered
  std::vector<Partition> partitions;  // of the topic; all of them, to be shared
  Sharing sharing = Sharing::pinned;
  std::vector<std::string> types;  // globs: what is printed; none: all

  std::vector<HandlerSpec> handlers;  // none: events are printed
  Dispatch dispatch = Dispatch::sequence;
  std::uint64_t held_events_max = 100'000;  // of each partition: it waits when there is no room for another
  std::vector<std::string> environment;     // NAME=value, for handlers; secrets are taken out of it

  Printing printing = Printing::event;
  int output_fd = 1;

  Milliseconds lease{5'000};
  Ending ending = Ending::never;
  Standby standby = Standby::wait;
  std::optional<std::uint64_t> events_max;  // over all partitions
  std::optional<Milliseconds> time_max;

  std::string who;  // this worker for people: HOST:PID
  // A byte (or an eventfd's count) per request to stop. First: start nothing more, finish what runs, commit,
  // release. Second: kill handlers. -1: nobody asks.
  int stop_fd = -1;
  std::function<void(const std::string&)> say;  // for a person; one line each, without a newline
};

struct WorkSummary {
  std::uint64_t handled = 0;      // events that every handler is done with
  std::uint64_t failed = 0;       // events that a handler gave up
  std::vector<Partition> halted;  // by an event that used up its attempts
  bool stopped_at_once = false;   // asked twice: something may have been killed
  bool output_closed = false;     // nobody reads what is printed any more
};

// Until every partition has ended, halted, or been told to stop. Throws Error: fenced (somebody else has a
// lease and waiting is not wanted), loss, usage (the handler cannot be run), server (not answering for longer
// than the session's retry_for). Handlers never outlive the call. The session needs Needs::Access::write.
[[nodiscard]] WorkSummary work(redis::Session& session, const Topic& topic, const WorkOptions& options);

}  // namespace continuum
