// The asynchronous client under Session, Publisher and Worker. Private to the library: includes Asio.
//
// Requests are pipelined and answered in order. When the connection is lost, or an answer says that the
// server cannot do it now (LOADING, BUSY, OOM, MISCONF, READONLY, NOSCRIPT, …), the connection is dropped and
// every request that is not answered yet is sent again, in order, on the next one. That is right because
// every script is idempotent under its chain, number or fence (docs/architecture.md); requests that are not
// must not be given to a client that retries.
#pragma once

#include "continuum/async.hpp"
#include "continuum/redis.hpp"

#include <memory>

namespace asio {
class io_context;
}

namespace continuum::redis {

class Client {
 public:
  Client(asio::any_io_executor executor, Address address, ClientOptions options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Waits until the first connection stands and passed the checks. Throws as Session's constructor.
  asio::awaitable<void> ready();
  // Queues the request at once (so that calls keep their order) and waits for its answers.
  asio::awaitable<Replies> call(Request request);
  // How long a request is sent again before it fails.
  [[nodiscard]] Milliseconds retry_for() const;
  // Fails all that waits with Error{interrupted} and closes the connection.
  void close();

  [[nodiscard]] const ServerFacts& facts() const;
  [[nodiscard]] const Address& address() const;
  [[nodiscard]] std::uint64_t connections() const;  // how many stood so far: a change means a reconnect
  [[nodiscard]] std::uint64_t client_id() const;    // CLIENT ID of the present connection, for CLIENT UNBLOCK

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// What a Session is made of, for the modules that run coroutines on it.
[[nodiscard]] Client& client_of(Session& session);
[[nodiscard]] asio::io_context& io_of(Session& session);

}  // namespace continuum::redis
