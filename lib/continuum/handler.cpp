#include "continuum/handler.hpp"

#include "continuum/error.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <utility>

namespace continuum {

// --- verdicts

namespace {

constexpr int exit_fail = 65;   // EX_DATAERR
constexpr int exit_later = 75;  // EX_TEMPFAIL
constexpr int exit_not_executable = 126;
constexpr int exit_not_found = 127;

}  // namespace

std::string ExitStatus::text() const {
  if (!by_signal) {
    return fmt::format("exit status {}", number);
  }
  const char* const name = ::sigdescr_np(number);
  return fmt::format("killed by signal {} ({})", number, name == nullptr ? "unknown" : name);
}

Verdict verdict_of(const ExitStatus& status) {
  if (status.by_signal) {
    return Verdict::retry;
  }
  switch (status.number) {
    case 0:
      return Verdict::done;
    case exit_fail:
      return Verdict::fail;
    case exit_later:
      return Verdict::later;
    case exit_not_executable:
    case exit_not_found:
      return Verdict::down;
    default:
      return Verdict::retry;
  }
}

std::optional<VerdictLine> parse_verdict(std::string_view line, Emitting emitting) {
  if (line.ends_with('\r')) {
    line.remove_suffix(1);
  }
  const auto word = [&] {
    const std::size_t end = std::min(line.find(' '), line.size());
    return line.substr(0, end);
  };
  const auto drop = [&](std::size_t bytes) {
    line.remove_prefix(bytes);
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  };
  VerdictLine found;
  const std::string_view verdict = word();
  if (verdict == "ok") {
    found.verdict = Verdict::done;
  } else if (verdict == "retry") {
    found.verdict = Verdict::retry;
  } else if (verdict == "fail") {
    found.verdict = Verdict::fail;
  } else {
    return std::nullopt;
  }
  drop(verdict.size());
  const std::string_view digits = word();
  std::uint64_t offset = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), offset);
  if (!digits.empty() && error == std::errc() && end == digits.data() + digits.size()) {
    found.offset = Offset(offset);
    drop(digits.size());
  }
  if (found.verdict == Verdict::done) {
    // "ok" says all there is to say: more behind it is a log line that only begins like a verdict.
    if (!line.empty() && (emitting == Emitting::no || line.front() != '[')) {
      return std::nullopt;
    }
    found.output = line;
    return found;
  }
  found.why = line;
  return found;
}

// --- the guard

namespace {

std::string system_error(int error) {
  std::array<char, 128> text{};
  return ::strerror_r(error, text.data(), text.size());
}

// Without close_range (a kernel before 5.9, a filter of system calls) the usual range has to do.
void close_from(unsigned first) {
  if (::syscall(SYS_close_range, first, ~0U, 0U) != 0) {
    for (unsigned fd = first; fd < 1024; ++fd) {
      ::close(static_cast<int>(fd));
    }
  }
}

// The watching process: no allocation, no locks, nothing of ours but the table.
[[noreturn]] void watch_over(std::atomic<pid_t>* groups, std::size_t count, int alive_fd) {
  // A session of its own, so that a signal to the whole group of the worker leaves it to do its work.
  ::setsid();
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  ::prctl(PR_SET_NAME, "continuum-guard");
  ::dup2(alive_fd, 0);
  // Other descriptors would keep our pipes and sockets open beyond the worker.
  close_from(1);
  char byte = 0;
  while (::read(0, &byte, 1) < 0 && errno == EINTR) {
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (const pid_t group = groups[i].load(); group > 0) {
      ::kill(-group, SIGKILL);
    }
  }
  ::_exit(0);
}

}  // namespace

ProcessGuard::ProcessGuard(std::size_t groups_max) : count_(groups_max) {
  static_assert(Slot::is_always_lock_free, "the table is shared between processes");
  void* const memory =
      ::mmap(nullptr, count_ * sizeof(Slot), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  std::array<int, 2> ends{};
  if (memory == MAP_FAILED || ::pipe2(ends.data(), O_CLOEXEC) != 0) {
    fail(ErrorKind::server, "cannot prepare for starting handlers: {}", system_error(errno));
  }
  slots_ = static_cast<Slot*>(memory);  // zeros: no group
  watcher_ = ::fork();
  if (watcher_ == 0) {
    ::close(ends[1]);
    watch_over(slots_, count_, ends[0]);
  }
  const int error = errno;
  ::close(ends[0]);
  alive_fd_ = ends[1];
  if (watcher_ < 0) {
    ::close(alive_fd_);
    ::munmap(memory, count_ * sizeof(Slot));
    fail(ErrorKind::server, "cannot start the process that guards handlers: {}", system_error(error));
  }
}

ProcessGuard::~ProcessGuard() {
  ::close(alive_fd_);
  while (::waitpid(watcher_, nullptr, 0) < 0 && errno == EINTR) {
  }
  ::munmap(static_cast<void*>(slots_), count_ * sizeof(Slot));
}

ProcessGuard::Slot* ProcessGuard::free_slot() {
  for (std::size_t i = 0; i < count_; ++i) {
    next_ = (next_ + 1) % count_;
    if (slots_[next_].load(std::memory_order_relaxed) == 0) {
      return &slots_[next_];
    }
  }
  return nullptr;
}

// --- commands

namespace {

// What every handler needs to find itself at home, whatever else it is passed.
constexpr std::array<std::string_view, 6> always_passed{"PATH", "HOME", "LANG", "TZ", "USER", "TMPDIR"};

// Secrets, and what a worker under another worker would otherwise pass on.
constexpr std::array<std::string_view, 19> withheld{
    "REDISCLI_AUTH",       "CONTINUUM_REDIS",  "REDIS_URL",         "CONTINUUM_TOPIC", "CONTINUUM_GROUP",
    "CONTINUUM_PARTITION", "CONTINUUM_OFFSET", "CONTINUUM_ID",      "CONTINUUM_TYPE",  "CONTINUUM_SOURCE",
    "CONTINUUM_TIME",      "CONTINUUM_KEY",    "CONTINUUM_ATTEMPT", "CONTINUUM_FENCE", "CONTINUUM_GENERATION",
    "CONTINUUM_HANDLER",   "NOTIFY_SOCKET",    "WATCHDOG_USEC",     "WATCHDOG_PID"};
constexpr std::size_t variable_bytes_max = 32 << 10;

std::vector<std::string> split_path(std::string_view path) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at <= path.size();) {
    const std::size_t colon = std::min(path.find(':', at), path.size());
    out.emplace_back(colon == at ? "." : path.substr(at, colon - at));
    at = colon + 1;
  }
  return out;
}

// Where the program is now; a deploy may move it while we run. Empty and errno when it is nowhere.
std::string find_program(const std::string& name, const std::vector<std::string>& directories) {
  if (name.find('/') != std::string::npos) {
    return name;
  }
  int error = ENOENT;
  for (const std::string& directory : directories) {
    std::string path = directory + "/" + name;
    if (::access(path.c_str(), X_OK) == 0) {
      return path;
    }
    error = errno == EACCES ? EACCES : error;
  }
  errno = error;
  return {};
}

std::string cannot_start(const std::string& program, int error) {
  std::string text = fmt::format("cannot start {}: {}", program, system_error(error));
  if (error == ENOEXEC) {
    text += " (a script needs a first line such as #!/bin/sh)";
  }
  return text;
}

}  // namespace

HandlerCommand::HandlerCommand(const HandlerSpec& spec, const std::vector<std::string>& environment)
    : arguments_(spec.command), working_directory_(spec.working_directory) {
  check(!arguments_.empty(), "a handler has a command");
  const auto passed = [&](std::string_view name) {
    if (std::find(withheld.begin(), withheld.end(), name) != withheld.end()) {
      return false;
    }
    const bool set = std::any_of(spec.environment.begin(), spec.environment.end(),
                                 [&](const auto& variable) { return variable.first == name; });
    return !set && (!spec.pass || name.starts_with("LC_") ||
                    std::find(always_passed.begin(), always_passed.end(), name) != always_passed.end() ||
                    std::find(spec.pass->begin(), spec.pass->end(), name) != spec.pass->end());
  };
  for (const std::string& variable : environment) {
    if (passed(std::string_view(variable).substr(0, variable.find('=')))) {
      environment_.push_back(variable);
    }
  }
  for (const auto& [name, value] : spec.environment) {
    environment_.push_back(fmt::format("{}={}", name, value));
  }
  std::string_view path = "/usr/local/bin:/usr/bin:/bin";
  for (const std::string& variable : environment_) {
    if (variable.starts_with("PATH=")) {
      path = std::string_view(variable).substr(5);
    }
  }
  directories_ = split_path(path);
}

void HandlerCommand::require_runnable() const {
  const std::string found = find_program(arguments_.front(), directories_);
  // A relative one is looked for from where the handler will run.
  const std::string path = found.starts_with('/') || working_directory_.empty() || found.empty()
                               ? found
                               : working_directory_ + "/" + found;
  if (path.empty() || ::access(path.c_str(), X_OK) != 0) {
    fail(ErrorKind::usage, "the handler {} cannot be run: {}", arguments_.front(), system_error(errno));
  }
}

void Variables::set(std::string_view name, std::string_view value) {
  if (value.size() > variable_bytes_max || value.find('\0') != std::string_view::npos) {
    return;
  }
  starts_.push_back(text_.size());
  text_.append(name);
  text_ += '=';
  text_.append(value);
  text_ += '\0';
}

// --- processes

namespace {

// Everything the child needs, made before it exists: it shares our memory until it executes.
struct Launch {
  const char* path;
  char* const* arguments;
  char* const* environment;
  Process::Descriptors descriptors;
  const char* directory;  // nullptr: ours
  pid_t parent;
  std::atomic<pid_t>* slot;
};

void put_at(int fd, int target) {
  if (fd == target) {
    ::fcntl(fd, F_SETFD, 0);
  } else if (fd >= 0) {
    ::dup2(fd, target);
  }
}

// Runs in the child. Returns the error when the program could not be executed.
int become(const Launch& launch) {
  ::setpgid(0, 0);
  launch.slot->store(::getpid());
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before the signal was asked for.
  if (::getppid() != launch.parent) {
    ::_exit(exit_not_found);
  }
  struct sigaction standard{};
  standard.sa_handler = SIG_DFL;
  ::sigaction(SIGPIPE, &standard, nullptr);
  // In this order, because what becomes 3 may be 3 already, and what becomes the others lies above it.
  put_at(launch.descriptors.input, 0);
  put_at(launch.descriptors.output, 1);
  put_at(launch.descriptors.error, 2);
  put_at(launch.descriptors.verdicts, 3);
  close_from(launch.descriptors.verdicts >= 0 ? 4 : 3);
  if (launch.directory != nullptr && ::chdir(launch.directory) != 0) {
    return errno;
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execve(launch.path, launch.arguments, launch.environment);
  return errno;
}

// vfork: copying the page tables of a worker that holds megabytes of events would cost more than the rest.
// Not inlined, because the child runs on this very stack frame.
[[gnu::noinline]] pid_t launch_child(const Launch& launch, volatile int* error) {
  const pid_t pid = ::vfork();
  if (pid == 0) {
    *error = become(launch);
    ::_exit(exit_not_found);
  }
  if (pid < 0) {
    *error = errno;
  }
  return pid;
}

}  // namespace

std::unique_ptr<Process> Process::start(ProcessGuard& guard, const HandlerCommand& command,
                                        const Variables& variables, const Descriptors& descriptors,
                                        std::string& why) {
  const std::string path = find_program(command.program(), command.directories_);
  if (path.empty()) {
    why = cannot_start(command.program(), errno);
    return nullptr;
  }
  // execve takes pointers to char that it does not write through.
  const auto pointer = [](const char* text) { return const_cast<char*>(text); };
  std::vector<char*> arguments;
  for (const std::string& argument : command.arguments_) {
    arguments.push_back(pointer(argument.c_str()));
  }
  arguments.push_back(nullptr);
  std::vector<char*> environment;
  for (const std::string& variable : command.environment_) {
    environment.push_back(pointer(variable.c_str()));
  }
  for (const std::size_t start : variables.starts_) {
    environment.push_back(pointer(variables.text_.data() + start));
  }
  environment.push_back(nullptr);

  ProcessGuard::Slot* const slot = guard.free_slot();
  if (slot == nullptr) {
    why = fmt::format("cannot start {}: there are {} handler processes already", path, guard.count_);
    return nullptr;
  }
  const char* const directory =
      command.working_directory_.empty() ? nullptr : command.working_directory_.c_str();
  const Launch launch{path.c_str(), arguments.data(), environment.data(), descriptors, directory, ::getpid(),
                      slot};
  volatile int error = 0;
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  // A handler of ours must not run in the child while it shares our memory.
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = launch_child(launch, &error);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) {
    if (pid > 0) {
      ::waitpid(pid, nullptr, 0);
    }
    slot->store(0);
    why = cannot_start(path, error);
    return nullptr;
  }
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0U));
  const int pidfd_error = errno;
  std::unique_ptr<Process> process(new Process(pid, pidfd, slot));
  if (pidfd < 0) {
    why = cannot_start(path, pidfd_error);
    return nullptr;
  }
  return process;
}

Process::~Process() {
  if (pid_ > 0) {
    kill_group();
    reap();
  }
}

void Process::kill_group() const {
  if (pid_ > 0) {
    ::kill(-pid_, SIGKILL);
  }
}

ExitStatus Process::reap() {
  check(pid_ > 0, "a process is reaped once");
  // Wait without reaping first: as long as the child is a zombie nobody else can get its number, and what it
  // left running in its group can still be ended by it.
  siginfo_t info{};
  while (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
  }
  kill_group();
  slot_->store(0);
  while (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED) < 0 && errno == EINTR) {
  }
  ::close(pidfd_);
  pid_ = -1;
  pidfd_ = -1;
  return ExitStatus{info.si_code != CLD_EXITED, info.si_status};
}

InputFile::InputFile(std::string_view bytes)
    : fd_(static_cast<int>(::syscall(SYS_memfd_create, "event", 1U /* MFD_CLOEXEC */))) {
  // Written at its start without moving there: the child reads from the beginning.
  for (std::size_t at = 0; fd_ >= 0 && at < bytes.size();) {
    const ssize_t n = ::pwrite(fd_, bytes.data() + at, bytes.size() - at, static_cast<off_t>(at));
    if (n < 0 && errno != EINTR) {
      const int error = errno;
      ::close(fd_);
      fd_ = -1;
      errno = error;
      break;
    }
    at += n > 0 ? static_cast<std::size_t>(n) : 0;
  }
  if (fd_ < 0) {
    fail(ErrorKind::server, "cannot hold an event for a handler: {}", system_error(errno));
  }
}

InputFile::~InputFile() {
  ::close(fd_);
}

}  // namespace continuum
