// A private redis-server on a unix socket in a directory of its own. It ends with the test, and with the
// test's process.
#pragma once

#include "support/process.hpp"

#include "continuum/redis.hpp"

#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace test {

class RedisServer {
 public:
  // `options`: further redis-server options, such as {"--maxmemory", "100mb"}.
  explicit RedisServer(std::vector<std::string> options = {}) : options_(std::move(options)) { start(); }

  // A server that is killed, not its machine, keeps all that it answered: with everysec a write may come up
  // to two seconds after its answer, while an fsync is under way.
  void start() {
    std::vector<std::string> command{"redis-server",
                                     "--port",
                                     "0",
                                     "--unixsocket",
                                     socket(),
                                     "--dir",
                                     directory_.path(),
                                     "--save",
                                     "",
                                     "--appendonly",
                                     "yes",
                                     "--appendfsync",
                                     "no"};
    command.insert(command.end(), options_.begin(), options_.end());
    process_.emplace(command, Process::Redirect{"/dev/null", log(), log()});
    while (!answers()) {
      if (process_->ended_within(std::chrono::milliseconds(2))) {
        throw std::runtime_error("redis-server did not start: " + read_file(log()));
      }
    }
  }
  // As a crash of the machine's process table would: no clean shutdown. The data stay.
  void kill() {
    process_->signal(SIGKILL);
    process_->wait();
    process_.reset();
    std::filesystem::remove(socket());
  }

  [[nodiscard]] std::string socket() const { return directory_.file("s"); }
  [[nodiscard]] std::string url() const { return "unix://" + socket(); }
  [[nodiscard]] std::string log() const { return directory_.file("log"); }
  [[nodiscard]] const TemporaryDirectory& directory() const { return directory_; }
  [[nodiscard]] pid_t pid() const { return process_->pid(); }

  [[nodiscard]] std::unique_ptr<continuum::redis::Session> session(
      continuum::redis::Needs::Access access = continuum::redis::Needs::Access::write) const {
    continuum::redis::ClientOptions options;
    options.needs.access = access;
    return std::make_unique<continuum::redis::Session>(continuum::redis::Address::parse(url()), options);
  }

 private:
  [[nodiscard]] bool answers() const {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket().copy(address.sun_path, sizeof address.sun_path - 1);
    bool ready = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    if (ready) {
      // PONG only when the data are loaded; a server that wants a password also is one that answers.
      ready = ::write(fd, "PING\r\n", 6) == 6;
      char answer[64] = {};
      const auto n = ::read(fd, answer, sizeof answer - 1);
      ready = ready && n > 0 && std::string(answer).find("LOADING") == std::string::npos;
    }
    ::close(fd);
    return ready;
  }

  TemporaryDirectory directory_;
  std::vector<std::string> options_;
  std::optional<Process> process_;
};

}  // namespace test
