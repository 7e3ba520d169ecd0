// What a service manager wants to hear from a service: the datagrams of sd_notify(3) and the watchdog of
// sd_watchdog_enabled(3), as systemd documents them, without its library.
#pragma once

#include "continuum/types.hpp"

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

namespace continuum {

// Never waits and never fails: a service works the same when nobody listens. Words about the life of the
// service (ready, reloading, stopping) that found no room go out with the next datagram.
class ServiceNotify {
 public:
  // `socket`: the value of NOTIFY_SOCKET, a path or '@' and an abstract name. Empty, or anything else: nobody
  // listens.
  explicit ServiceNotify(std::string_view socket);
  ~ServiceNotify();
  ServiceNotify(const ServiceNotify&) = delete;
  ServiceNotify& operator=(const ServiceNotify&) = delete;

  [[nodiscard]] bool listened_to() const { return fd_ >= 0; }

  // At work; also what ends reloading().
  void ready() { tell("READY=1"); }
  // Between this and ready() the service takes up its configuration anew.
  void reloading();
  void stopping() { tell("STOPPING=1"); }
  // One line for `systemctl status`; made printable, and cut at 256 bytes.
  void status(std::string_view text);
  // To be called from where the work is done, at least every watchdog_interval().
  void watchdog() { send("WATCHDOG=1"); }

 private:
  void tell(std::string_view assignments);
  bool send(const std::string& assignments);

  int fd_ = -1;
  std::string address_;  // bytes of a sockaddr_un
  std::string unsent_;
};

// How often to call watchdog(): half of the time after which the manager gives the service up. `usec`, `pid`:
// the values of WATCHDOG_USEC and WATCHDOG_PID, empty when they are not set. nullopt: no watchdog, or not one
// for the process `self`.
[[nodiscard]] std::optional<Milliseconds> watchdog_interval(std::string_view usec, std::string_view pid,
                                                            pid_t self);

}  // namespace continuum
