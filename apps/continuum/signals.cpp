#include "signals.hpp"

#include "continuum/error.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>

namespace continuum::app {
namespace {

// What the signal handlers below use. Set before they are installed.
int descriptor = -1;
HangUp on_hang_up = HangUp::stops;
Again on_second_stop = Again::counts;
bool had_terminal = false;

bool stderr_is_terminal() {
  termios ignored{};
  return ::tcgetattr(STDERR_FILENO, &ignored) == 0;
}

char request_of(int signal) {
  switch (signal) {
    case SIGHUP:
      // Somebody closed the window that the worker was started in: it would go on unseen.
      return on_hang_up == HangUp::stops || (had_terminal && !stderr_is_terminal()) ? 't' : 'h';
    case SIGUSR1:
      return 'u';
    default:
      return 't';
  }
}

extern "C" void pass_signal_on(int signal) {
  const int saved = errno;
  const char request = request_of(signal);
  [[maybe_unused]] const auto n = ::write(descriptor, &request, 1);
  errno = saved;
}

void on_signal(int signal, void (*handler)(int)) {
  struct sigaction action{};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  ::sigaction(signal, &action, nullptr);
}

extern "C" void count_signal(int) {
  const int saved = errno;
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(descriptor, &one, sizeof one);
  if (on_second_stop == Again::ends) {
    on_signal(SIGINT, SIG_DFL);
    on_signal(SIGTERM, SIG_DFL);
  }
  errno = saved;
}

// There is nothing to reread or to print yet.
extern "C" void let_request_pass(int signal) {
  if (request_of(signal) == 't') {
    on_signal(signal, SIG_DFL);
    ::raise(signal);
  }
}

void on_requests(HangUp hang_up, void (*handler)(int)) {
  on_hang_up = hang_up;
  had_terminal = stderr_is_terminal();
  on_signal(SIGUSR1, handler);
  struct sigaction before{};
  ::sigaction(SIGHUP, nullptr, &before);
  if (before.sa_handler != SIG_IGN) {
    on_signal(SIGHUP, handler);
  }
}

}  // namespace

void let_requests_pass(HangUp hang_up) {
  on_requests(hang_up, let_request_pass);
}

int stop_descriptor(Again again) {
  on_second_stop = again;
  descriptor = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  check(descriptor >= 0, "no descriptor for signals");
  on_signal(SIGINT, count_signal);
  on_signal(SIGTERM, count_signal);
  return descriptor;
}

int request_descriptor(HangUp hang_up) {
  std::array<int, 2> ends{};
  check(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) == 0, "no descriptors for signals");
  descriptor = ends[1];
  on_signal(SIGINT, pass_signal_on);
  on_signal(SIGTERM, pass_signal_on);
  on_requests(hang_up, pass_signal_on);
  return ends[0];
}

}  // namespace continuum::app
