// Signals that come as bytes, each case in a process of its own.
#include "signals.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>

using namespace continuum::app;

namespace {

// What `story` returns, told by a child.
std::string in_child(const std::function<std::string()>& story) {
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    for (const int signal : {SIGHUP, SIGUSR1, SIGTERM, SIGINT}) {
      std::signal(signal, SIG_DFL);
    }
    const std::string told = story();
    const auto n = ::write(ends[1], told.data(), told.size());
    ::_exit(n == static_cast<ssize_t>(told.size()) ? 0 : 1);
  }
  ::close(ends[1]);
  std::array<char, 256> buffer{};
  const ssize_t n = ::read(ends[0], buffer.data(), buffer.size());
  ::close(ends[0]);
  int status = 0;
  ::waitpid(pid, &status, 0);
  CHECK(status == 0);
  return n < 0 ? "nothing" : std::string(buffer.data(), static_cast<std::size_t>(n));
}

std::string bytes_in(int fd) {
  std::array<char, 64> buffer{};
  const ssize_t n = ::read(fd, buffer.data(), buffer.size());
  return n < 0 ? "none" : std::string(buffer.data(), static_cast<std::size_t>(n));
}

}  // namespace

TEST_CASE("each signal is a byte, in the order in which they came") {
  CHECK(in_child([] {
          const int fd = request_descriptor(HangUp::rereads);
          for (const int signal : {SIGHUP, SIGUSR1, SIGTERM, SIGHUP, SIGINT, SIGTERM}) {
            ::raise(signal);
          }
          const std::string bytes = bytes_in(fd);
          return bytes + bytes_in(fd);
        }) == "huthttnone");
}

TEST_CASE("a request that comes too early ends nothing, and one to stop does") {
  CHECK(in_child([] {
          let_requests_pass(HangUp::rereads);
          ::raise(SIGHUP);
          ::raise(SIGUSR1);
          const int fd = request_descriptor(HangUp::rereads);
          return bytes_in(fd);
        }) == "none");
  const pid_t pid = ::fork();
  if (pid == 0) {
    std::signal(SIGHUP, SIG_DFL);
    let_requests_pass(HangUp::stops);
    ::raise(SIGHUP);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGHUP);
}

TEST_CASE("a worker without a directory of handlers takes a hangup for a request to stop") {
  CHECK(in_child([] {
          const int fd = request_descriptor(HangUp::stops);
          ::raise(SIGHUP);
          return bytes_in(fd);
        }) == "t");
}

TEST_CASE("a terminal that was closed stops a worker that would reread") {
  CHECK(in_child([] {
          const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
          ::grantpt(terminal);
          ::unlockpt(terminal);
          ::dup2(::open(::ptsname(terminal), O_RDWR | O_NOCTTY), STDERR_FILENO);
          const int fd = request_descriptor(HangUp::rereads);
          ::raise(SIGHUP);
          ::close(terminal);
          ::raise(SIGHUP);
          return bytes_in(fd);
        }) == "ht");
}

TEST_CASE("a hangup that was ignored at the start stays ignored") {
  CHECK(in_child([] {
          std::signal(SIGHUP, SIG_IGN);
          const int fd = request_descriptor(HangUp::rereads);
          ::raise(SIGHUP);
          return bytes_in(fd);
        }) == "none");
}

TEST_CASE("the descriptor of stops counts both signals") {
  CHECK(in_child([] {
          const int fd = stop_descriptor(Again::counts);
          ::raise(SIGINT);
          ::raise(SIGTERM);
          return bytes_in(fd).substr(0, 1);
        }) == "\x02");
}

TEST_CASE("a second request to stop ends who waits for something else") {
  const pid_t pid = ::fork();
  if (pid == 0) {
    std::signal(SIGTERM, SIG_DFL);
    const int fd = stop_descriptor(Again::ends);
    ::raise(SIGTERM);
    std::uint64_t count = 0;
    const bool counted = ::read(fd, &count, sizeof count) == sizeof count && count == 1;
    ::raise(counted ? SIGTERM : SIGABRT);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  REQUIRE(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGTERM);
}
