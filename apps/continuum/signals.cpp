#include "signals.hpp"

#include "continuum/error.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>

namespace continuum::app {
namespace {

int descriptor = -1;

extern "C" void count_signal(int) {
  const int saved = errno;
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(descriptor, &one, sizeof one);
  errno = saved;
}

}  // namespace

int stop_descriptor() {
  descriptor = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  check(descriptor >= 0, "no descriptor for signals");
  struct sigaction action {};
  action.sa_handler = count_signal;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  return descriptor;
}

}  // namespace continuum::app
