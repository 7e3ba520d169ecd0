// What a service manager hears, on a socket as its own.
#include "continuum/service_notify.hpp"

#include <doctest/doctest.h>

#include "support/process.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>

using namespace continuum;

namespace {

// The manager's end.
class Manager {
 public:
  // '@' and a name: abstract.
  explicit Manager(const std::string& name) : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name[0] == '@') {
      address.sun_path[0] = '\0';
    }
    const auto bytes = offsetof(sockaddr_un, sun_path) + name.size();
    REQUIRE(::bind(fd_, reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(bytes)) == 0);
  }
  ~Manager() { ::close(fd_); }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  // The next datagram; "-" when there is none.
  [[nodiscard]] std::string heard() const {
    std::array<char, 4096> buffer{};
    const ssize_t n = ::recv(fd_, buffer.data(), buffer.size(), 0);
    return n < 0 ? "-" : std::string(buffer.data(), static_cast<std::size_t>(n));
  }

 private:
  int fd_;
};

}  // namespace

TEST_CASE("a service manager hears of a service's life through a path and through an abstract name") {
  const test::TemporaryDirectory directory;
  for (const std::string& name :
       {directory.file("notify"), "@continuum-test-" + std::to_string(::getpid())}) {
    CAPTURE(name);
    const Manager manager(name);
    ServiceNotify notify(name);
    CHECK(notify.listened_to());
    notify.ready();
    CHECK(manager.heard() == "READY=1");
    notify.status("8 partitions");
    CHECK(manager.heard() == "STATUS=8 partitions");
    notify.watchdog();
    CHECK(manager.heard() == "WATCHDOG=1");
    notify.stopping();
    CHECK(manager.heard() == "STOPPING=1");
    CHECK(manager.heard() == "-");
  }
}

TEST_CASE("a reload carries the time of the monotonic clock") {
  const test::TemporaryDirectory directory;
  const Manager manager(directory.file("notify"));
  timespec before{};
  ::clock_gettime(CLOCK_MONOTONIC, &before);
  ServiceNotify(directory.file("notify")).reloading();
  timespec after{};
  ::clock_gettime(CLOCK_MONOTONIC, &after);
  long long usec = 0;
  const std::string heard = manager.heard();
  REQUIRE(std::sscanf(heard.c_str(), "RELOADING=1\nMONOTONIC_USEC=%lld", &usec) == 1);
  CHECK(usec >= before.tv_sec * 1'000'000LL + before.tv_nsec / 1'000);
  CHECK(usec <= after.tv_sec * 1'000'000LL + after.tv_nsec / 1'000);
}

TEST_CASE("a status is one line, however it was made") {
  const test::TemporaryDirectory directory;
  const Manager manager(directory.file("notify"));
  ServiceNotify notify(directory.file("notify"));
  notify.status("halted:\nMAINPID=1");
  CHECK(manager.heard() == "STATUS=halted:\\x0AMAINPID=1");
  notify.status(std::string(10'000, '\x01'));
  CHECK(manager.heard().size() == std::strlen("STATUS=") + 256);
}

TEST_CASE("what found no room is told with the next datagram, and nobody waits for room") {
  const test::TemporaryDirectory directory;
  const Manager manager(directory.file("notify"));
  ServiceNotify notify(directory.file("notify"));
  for (int i = 0; i < 10'000; ++i) {
    notify.watchdog();  // more than any queue takes
  }
  notify.ready();
  while (manager.heard() == "WATCHDOG=1") {
  }
  CHECK(manager.heard() == "-");
  notify.watchdog();
  CHECK(manager.heard() == "READY=1\nWATCHDOG=1");
  notify.watchdog();
  CHECK(manager.heard() == "WATCHDOG=1");
}

TEST_CASE("without a manager a service says nothing and does not fail") {
  const test::TemporaryDirectory directory;
  for (const std::string& socket :
       {std::string(), std::string("@"), std::string("/"), std::string("relative"),
        std::string("vsock:2:1234"), "/" + std::string(200, 'x'), directory.file("nobody-listens"),
        directory.path()}) {
    CAPTURE(socket);
    ServiceNotify notify(socket);
    notify.ready();
    notify.status("text");
    notify.watchdog();
    notify.reloading();
    notify.stopping();
  }
  CHECK_FALSE(ServiceNotify("").listened_to());
  CHECK_FALSE(ServiceNotify("relative").listened_to());
}

TEST_CASE("a manager that comes late is told where the service's life stands") {
  const test::TemporaryDirectory directory;
  ServiceNotify notify(directory.file("notify"));
  notify.ready();
  const Manager manager(directory.file("notify"));
  notify.status("text");
  CHECK(manager.heard() == "READY=1\nSTATUS=text");
}

TEST_CASE("the watchdog is fed at half its time, by the process that it is for") {
  CHECK(watchdog_interval("30000000", "", 7) == Milliseconds(15'000));
  CHECK(watchdog_interval("30000000", "7", 7) == Milliseconds(15'000));
  CHECK(watchdog_interval("1", "7", 7) == Milliseconds(1));
  CHECK_FALSE(watchdog_interval("30000000", "8", 7));
  CHECK_FALSE(watchdog_interval("30000000", "x", 7));
  for (const char* usec : {"", "0", "-1", "1s", " 1", "18446744073709551615", "99999999999999999999"}) {
    CAPTURE(usec);
    CHECK_FALSE(watchdog_interval(usec, "", 7));
  }
}
