// Works a group's partitions: takes their leases, reads their logs, hands each event to the handler (or
// prints it), and commits what is done (PROTOCOLS: Lease, Commit, Barriers; G4 and G5 in docs/guarantees.md).
#pragma once

#include "continuum/emit.hpp"
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
  never,  // waits for more events
  // At the end that each log had when its lease was taken. Workers that share: when all is handled that was
  // there at the start, by whomever, but for what others still have. What was asked for about dead letters is
  // done, too. A partition that is halted or paused is not waited for, nor one that waits for such a one at a
  // barrier.
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

// Whose cursor says what is archived: no other worker may have it.
inline constexpr std::string_view archive_group = "archive";

// Of a ring that changes.
enum class Coverage : std::uint8_t {
  named,  // just these partitions
  all,    // also those that come; workers that share always do
};

struct WorkOptions {
  std::string group;                  // registered
  std::vector<Partition> partitions;  // of the topic; all of them, to be shared
  Sharing sharing = Sharing::pinned;
  Coverage coverage = Coverage::named;
  std::vector<std::string> types;  // globs: what is printed; none: all

  std::vector<HandlerSpec> handlers;
  std::string handlers_directory;  // instead: followed while running. Neither: events are printed
  // Of a directory: how often it is compared with those of the group's other workers, and how long one must
  // be seen to differ before that is said.
  Milliseconds handlers_compared_every{10'000};
  Milliseconds handlers_differ_for{30'000};
  // At a barrier of a resize: how long one stands there before it is said for whom it waits.
  Milliseconds waiting_told_after{5'000};
  Dispatch dispatch = Dispatch::sequence;
  std::uint64_t held_events_max = 100'000;  // of each partition: it waits when there is no room for another
  std::vector<std::string> environment;     // NAME=value, for handlers; secrets are taken out of it
  // What handlers give out becomes events of this topic, on the same server.
  std::optional<Topic> emit_to;
  EmitOptions emit;

  // Instead of both: the directory that events are archived in (archive_writer.hpp), barriers too.
  std::optional<std::string> archive;

  Printing printing = Printing::event;
  int output_fd = 1;

  Milliseconds lease{5'000};
  Milliseconds trim_every{10'000};  // how often the topic's retention is seen to
  Ending ending = Ending::never;
  Standby standby = Standby::wait;
  std::optional<std::uint64_t> events_max;  // over all partitions
  std::optional<Milliseconds> time_max;

  std::string who;  // this worker for people: HOST:PID
  // A byte per request. 't': stop; the first starts nothing more, finishes what runs, commits and releases,
  // the second kills handlers. 'h': read the handlers again, and let go of those that are gone. 'u': say what
  // is going on. -1: nobody asks.
  int requests_fd = -1;
  Milliseconds drain_within{30'000};  // of the first request to stop; what runs longer is killed
  // What a service manager gave us (service_notify.hpp). Empty: there is none.
  std::string notify_socket;
  std::optional<Milliseconds> watchdog_every;
  std::function<void(const std::string&)> say;  // for a person; one line each, without a newline

  [[nodiscard]] bool handles() const { return !handlers.empty() || !handlers_directory.empty(); }
};

struct WorkSummary {
  std::uint64_t handled = 0;      // events that every handler is done with
  std::uint64_t failed = 0;       // events that a handler gave up
  std::vector<Partition> halted;  // by an event that used up its attempts
  // Of a drained run, with something left: they are paused, or others have to come to a barrier first, and
  // nobody goes on with those.
  std::vector<Partition> waiting;
  bool stopped = false;          // asked to
  bool stopped_at_once = false;  // asked twice: something may have been killed
  bool output_closed = false;    // nobody reads what is printed any more
  std::uint64_t damaged = 0;     // places in an archive that stay damaged; each was said
  std::uint64_t unarchived = 0;  // partitions whose events wait in the log for a disk that takes them
};

// Until every partition has ended, halted, or been told to stop. Throws Error: fenced (somebody else has a
// lease and waiting is not wanted), loss, usage (the handler cannot be run), server (not answering for longer
// than the session's retry_for). Handlers never outlive the call. The session needs Needs::Access::write.
[[nodiscard]] WorkSummary work(redis::Session& session, const Topic& topic, const WorkOptions& options);

}  // namespace continuum
