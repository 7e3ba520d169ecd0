// A server on the loopback that does to each connection what a test says.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace test {

class HttpServer {
 public:
  // One connection, closed when the function returns. Reads and writes fail once the server ends.
  class Connection {
   public:
    Connection(HttpServer& server, int fd, int number) : number_(number), server_(server), fd_(fd) {}
    // One request with its body; empty when there is none any more.
    std::string request() {
      std::string text = std::move(rest_);
      for (;;) {
        if (const auto end = text.find("\r\n\r\n"); end != std::string::npos) {
          const std::size_t size = end + 4 + length_of(text);
          if (text.size() >= size) {
            rest_ = text.substr(size);
            text.resize(size);
            const std::lock_guard lock(server_.mutex_);
            server_.requests_.push_back(text);
            return text;
          }
        }
        std::array<char, 16 << 10> buffer{};
        const ssize_t n = ::recv(fd_, buffer.data(), buffer.size(), 0);
        if (n <= 0) {
          return {};
        }
        text.append(buffer.data(), static_cast<std::size_t>(n));
      }
    }
    bool send(std::string_view bytes) const {
      while (!bytes.empty()) {
        const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (n <= 0) {
          return false;
        }
        bytes.remove_prefix(static_cast<std::size_t>(n));
      }
      return true;
    }
    // With a body.
    bool answer(int status, std::string_view body, std::string_view headers = "") const {
      return send("HTTP/1.1 " + std::to_string(status) + " X\r\n" + std::string(headers) +
                  "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body));
    }
    [[nodiscard]] int number() const { return number_; }  // from 0

   private:
    static std::size_t length_of(const std::string& text) {
      const auto at = text.find("Content-Length: ");
      return at == std::string::npos ? 0 : std::stoul(text.substr(at + 16));
    }
    const int number_;
    HttpServer& server_;
    const int fd_;
    std::string rest_;
  };
  using Serve = std::function<void(Connection&)>;

  explicit HttpServer(Serve serve) : serve_(std::move(serve)), listener_(listen_on_loopback(port_)) {
    accepting_ = std::thread([this] { accept_all(); });
  }
  ~HttpServer() {
    ::shutdown(listener_, SHUT_RDWR);
    accepting_.join();
    {
      const std::lock_guard lock(mutex_);
      for (const int fd : open_) {
        ::shutdown(fd, SHUT_RDWR);
      }
    }
    for (auto& thread : serving_) {
      thread.join();
    }
    ::close(listener_);
  }
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  [[nodiscard]] std::string url(const std::string& target = "/hook") const {
    return "http://127.0.0.1:" + std::to_string(port_) + target;
  }
  [[nodiscard]] std::vector<std::string> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  [[nodiscard]] int connections() {
    const std::lock_guard lock(mutex_);
    return connections_;
  }

  // A listening socket, and its port.
  static int listen_on_loopback(std::uint16_t& port) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(fd, any, size) != 0 || ::listen(fd, 64) != 0 || ::getsockname(fd, any, &size) != 0) {
      throw std::runtime_error("no port to listen on");
    }
    port = ntohs(address.sin_port);
    return fd;
  }

 private:
  void accept_all() {
    for (;;) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) {
        return;
      }
      const std::lock_guard lock(mutex_);
      open_.push_back(fd);
      serving_.emplace_back([this, fd, number = connections_++] {
        Connection connection(*this, fd, number);
        serve_(connection);
        const std::lock_guard own(mutex_);
        std::erase(open_, fd);
        ::close(fd);
      });
    }
  }

  Serve serve_;
  std::uint16_t port_ = 0;
  int listener_;
  std::mutex mutex_;
  std::vector<std::string> requests_;
  std::vector<int> open_;
  int connections_ = 0;
  std::vector<std::thread> serving_;
  std::thread accepting_;
};

}  // namespace test
