#include "continuum/daemon.hpp"

#include "continuum/error.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

namespace continuum {
namespace {

using Clock = std::chrono::steady_clock;

std::vector<char*> pointers_of(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const auto& text : texts) {
    pointers.push_back(const_cast<char*>(text.c_str()));
  }
  pointers.push_back(nullptr);
  return pointers;
}

// All that the new process needs, made before fork: after it only system calls are safe.
struct Launch {
  std::vector<char*> arguments;
  std::vector<char*> environment;
  const char* directory;
  const char* log;
  int report;
};

// Runs in the grandchild. Answers over `report`: its pid, and errno when it could not become the server.
[[noreturn]] void become_server(const Launch& launch) {
  constexpr int report = 3;
  if (launch.report != report) {
    dup3(launch.report, report, O_CLOEXEC);
  }
  close_range(report + 1, ~0U, 0);
  const pid_t me = getpid();
  bool fine = write(report, &me, sizeof me) == sizeof me;
  for (int signal = 1; signal < NSIG; ++signal) {
    std::signal(signal, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  umask(077);
  fine = fine && chdir(launch.directory) == 0;
  const int null = open("/dev/null", O_RDWR);
  // Before it opens its log, redis-server complains on its stdout.
  const int log = open(launch.log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
  fine = fine && null >= 0 && log >= 0 && dup2(null, STDIN_FILENO) == STDIN_FILENO &&
         dup2(log, STDOUT_FILENO) == STDOUT_FILENO && dup2(log, STDERR_FILENO) == STDERR_FILENO;
  if (fine) {
    close_range(report + 1, ~0U, 0);
    execvpe(launch.arguments[0], launch.arguments.data(), launch.environment.data());
  }
  const int error = errno;
  (void)!write(report, &error, sizeof error);
  _exit(127);
}

}  // namespace

[[noreturn]] void fail_by_errno(std::string_view doing, std::string_view path) {
  const int error = errno;
  const auto advice = error == ENOSPC || error == EDQUOT ? ": free some space there" : "";
  fail(ErrorKind::server, "cannot {} {}: {}{}", doing, path, std::strerror(error), advice);
}

Spawned spawn_daemon(const std::vector<std::string>& words, const std::vector<std::string>& environment,
                     const std::string& directory, const std::string& log) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    fail_by_errno("create a pipe for", words.front());
  }
  const Descriptor reading(ends[0]);
  Descriptor writing(ends[1]);
  const Launch launch{pointers_of(words), pointers_of(environment), directory.c_str(), log.c_str(),
                      writing.get()};
  const pid_t child = fork();
  if (child < 0) {
    fail_by_errno("fork for", words.front());
  }
  if (child == 0) {
    setsid();
    const pid_t grandchild = fork();
    if (grandchild == 0) {
      become_server(launch);
    }
    _exit(grandchild < 0 ? 1 : 0);
  }
  writing.close();
  int ended = 0;
  while (waitpid(child, &ended, 0) < 0 && errno == EINTR) {
  }
  Spawned spawned;
  std::array<char, sizeof(pid_t) + sizeof(int)> answer{};
  std::size_t have = 0;
  for (;;) {
    const auto n = read(reading.get(), answer.data() + have, answer.size() - have);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      break;
    }
    have += static_cast<std::size_t>(n);
  }
  if (have >= sizeof spawned.pid) {
    std::memcpy(&spawned.pid, answer.data(), sizeof spawned.pid);
  }
  if (have == answer.size()) {
    std::memcpy(&spawned.error, answer.data() + sizeof spawned.pid, sizeof spawned.error);
  } else if (have < sizeof spawned.pid) {
    spawned.error = EAGAIN;
  }
  return spawned;
}

ForeignProcess::ForeignProcess(pid_t pid) : fd_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))) {}

bool ForeignProcess::ended_within(Milliseconds limit) const {
  if (fd_.get() < 0) {
    return true;
  }
  pollfd one{fd_.get(), POLLIN, 0};
  const auto until = Clock::now() + limit;
  for (;;) {
    const auto left = std::chrono::ceil<Milliseconds>(until - Clock::now());
    const int n = poll(&one, 1, static_cast<int>(std::max<std::int64_t>(0, left.count())));
    if (n > 0) {
      return true;
    }
    if (n == 0) {
      return false;
    }
  }
}

void ForeignProcess::terminate() const {
  if (fd_.get() >= 0) {
    syscall(SYS_pidfd_send_signal, fd_.get(), SIGTERM, nullptr, 0);
  }
}

}  // namespace continuum
