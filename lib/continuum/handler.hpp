// Handlers as processes: how they are started, watched and ended, and what their verdicts mean.
#pragma once

#include "continuum/handler_spec.hpp"
#include "continuum/types.hpp"

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// --- verdicts

enum class Verdict : std::uint8_t {
  done,
  retry,  // an attempt is used up
  fail,   // no further attempt
  later,  // not the event's fault: again, for ever, without counting
  down,   // not about the event at all: the handler cannot work
};

// The end of a process.
struct ExitStatus {
  bool by_signal = false;
  int number = 0;  // exit status or signal

  [[nodiscard]] bool success() const { return !by_signal && number == 0; }
  [[nodiscard]] std::string text() const;  // "exit status 3", "killed by signal 9 (Killed)"
};
// What the exit of a process that had one event says: 0 done, 65 fail, 75 later, 126 and 127 down, all else
// retry.
[[nodiscard]] Verdict verdict_of(const ExitStatus& status);

// A line that a stream handler answers with.
//
//   verdict = "ok" [ SP offset ] [ SP output ] / ( "retry" / "fail" ) [ SP offset ] [ SP why ]
//   output  = a JSON array of events that it emits
struct VerdictLine {
  Verdict verdict = Verdict::done;
  std::optional<Offset> offset;  // absent: the oldest event that is not answered
  std::string_view why;
  std::string_view output;  // not looked into
};
enum class Emitting : std::uint8_t { no, yes };
// `line` without its newline. nullopt when it is no verdict; an output is one only from those that emit.
[[nodiscard]] std::optional<VerdictLine> parse_verdict(std::string_view line,
                                                       Emitting emitting = Emitting::no);

// --- processes

// The process groups that must not outlive this process. A tiny process of its own watches for our death, by
// whatever signal, and kills them: the parent-death signal reaches only direct children, not what they
// started.
class ProcessGuard {
 public:
  // Forks: to be made before threads are. At most `groups_max` groups at a time. Throws Error{server}.
  explicit ProcessGuard(std::size_t groups_max);
  ~ProcessGuard();
  ProcessGuard(const ProcessGuard&) = delete;
  ProcessGuard& operator=(const ProcessGuard&) = delete;

 private:
  friend class Process;
  using Slot = std::atomic<pid_t>;
  Slot* free_slot();

  Slot* slots_ = nullptr;  // shared with the watching process
  std::size_t count_ = 0;
  std::size_t next_ = 0;
  int alive_fd_ = -1;  // closed by our death
  pid_t watcher_ = -1;
};

// What to run, resolved and prepared once.
class HandlerCommand {
 public:
  // `environment`: NAME=value of the worker, passed on as the handler's description says, without the names
  // that hold secrets.
  HandlerCommand(const HandlerSpec& spec, const std::vector<std::string>& environment);

  [[nodiscard]] const std::string& program() const { return arguments_.front(); }
  // Throws Error{usage} when the program cannot be found or executed now. A deploy may change that later.
  void require_runnable() const;

 private:
  friend class Process;
  std::vector<std::string> arguments_;
  std::vector<std::string> environment_;
  std::vector<std::string> directories_;  // of PATH
  std::string working_directory_;         // empty: ours
};

// NAME=value pairs for one process, in one buffer that is used again.
class Variables {
 public:
  void clear() {
    text_.clear();
    starts_.clear();
  }
  // Left out when the value has a NUL or more than 32 KiB: the event on stdin has it.
  void set(std::string_view name, std::string_view value);

 private:
  friend class Process;
  std::string text_;
  std::vector<std::size_t> starts_;
};

// A child in a process group of its own. It dies with this thread (parent-death signal) and with this
// process (the guard). Ends with its Process: destroying it kills the group.
class Process {
 public:
  struct Descriptors {
    int input = -1;     // becomes stdin
    int output = -1;    // becomes stdout; -1: ours
    int error = -1;     // becomes stderr; -1: ours
    int verdicts = -1;  // becomes descriptor 3; -1: there is none
  };
  // nullptr when it cannot be started; `why` says the reason. The caller keeps its descriptors.
  static std::unique_ptr<Process> start(ProcessGuard& guard, const HandlerCommand& command,
                                        const Variables& variables, const Descriptors& descriptors,
                                        std::string& why);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] int pidfd() const { return pidfd_; }  // becomes readable when the child exits
  void kill_group() const;
  // Ends what is left of the group and waits for the child.
  ExitStatus reap();

 private:
  Process(pid_t pid, int pidfd, ProcessGuard::Slot* slot) : pid_(pid), pidfd_(pidfd), slot_(slot) {}
  pid_t pid_ = -1;
  int pidfd_ = -1;
  ProcessGuard::Slot* slot_ = nullptr;
};

// An anonymous file with these bytes, at its start: a stdin that needs nobody to write it, and that a handler
// may leave unread. Throws Error{server} when the system has none left.
class InputFile {
 public:
  explicit InputFile(std::string_view bytes);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

}  // namespace continuum
