#include "continuum/service_notify.hpp"

#include "continuum/names.hpp"

#include <fmt/format.h>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <limits>
#include <system_error>

namespace continuum {
namespace {

constexpr std::size_t status_bytes_max = 256;

// Empty when it is no address of a socket that we know.
std::string address_of(std::string_view socket) {
  sockaddr_un address{};
  const bool abstract = socket.starts_with('@');
  if (socket.size() < 2 || (!abstract && !socket.starts_with('/')) ||
      socket.size() >= sizeof address.sun_path) {
    return {};
  }
  address.sun_family = AF_UNIX;
  std::copy(socket.begin(), socket.end(), std::begin(address.sun_path));
  if (abstract) {
    address.sun_path[0] = '\0';
  }
  // An abstract name is as long as the address says; a path ends with its NUL.
  const std::size_t bytes = offsetof(sockaddr_un, sun_path) + socket.size() + (abstract ? 0 : 1);
  return {reinterpret_cast<const char*>(&address), bytes};
}

// Digits only. nullopt for anything else, also for more than fits.
std::optional<std::uint64_t> number_in(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return number;
}

}  // namespace

ServiceNotify::ServiceNotify(std::string_view socket) : address_(address_of(socket)) {
  if (!address_.empty()) {
    fd_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  }
}

ServiceNotify::~ServiceNotify() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

void ServiceNotify::reloading() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  tell(fmt::format("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1'000'000 + now.tv_nsec / 1'000));
}

void ServiceNotify::status(std::string_view text) {
  // A newline in it would begin another assignment.
  std::string line = printable(text.substr(0, status_bytes_max));
  line.resize(std::min(line.size(), status_bytes_max));
  send("STATUS=" + line);
}

void ServiceNotify::tell(std::string_view assignments) {
  // Only the latest counts: who is stopping need not be told to be ready any more.
  unsent_.clear();
  std::string text(assignments);
  if (!send(text)) {
    unsent_ = std::move(text);
  }
}

bool ServiceNotify::send(const std::string& assignments) {
  if (fd_ < 0) {
    return true;
  }
  const std::string text = unsent_.empty() ? assignments : unsent_ + '\n' + assignments;
  ssize_t sent = 0;
  do {
    sent =
        ::sendto(fd_, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(address_.data()), static_cast<socklen_t>(address_.size()));
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) {
    unsent_.clear();
  }
  return sent >= 0;
}

std::optional<Milliseconds> watchdog_interval(std::string_view usec, std::string_view pid, pid_t self) {
  constexpr std::uint64_t usec_max = std::numeric_limits<std::int64_t>::max();
  const auto limit = number_in(usec);
  if (!limit || *limit == 0 || *limit > usec_max) {
    return std::nullopt;
  }
  if (!pid.empty() && number_in(pid) != static_cast<std::uint64_t>(self)) {
    return std::nullopt;
  }
  const auto half = std::chrono::microseconds(static_cast<std::int64_t>(*limit / 2));
  return std::max(Milliseconds(1), std::chrono::duration_cast<Milliseconds>(half));
}

}  // namespace continuum
