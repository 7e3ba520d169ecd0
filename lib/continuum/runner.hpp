// How a handler is run: a process per event, long-lived processes, or HTTP requests. Private to the library.
#pragma once

#include "continuum/sink.hpp"

#include <memory>

namespace continuum {

class Subscription;

// Takes events from its subscription and settles them there. Its subscription outlives it.
class Runner {
 public:
  Runner() = default;
  virtual ~Runner() = default;
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  // Starts what may start.
  virtual void start_ready() = 0;
  // Something that was started has no verdict yet.
  [[nodiscard]] virtual bool running() const = 0;
  // Ends what is left, and waits for it. Verdicts are no longer believed.
  virtual asio::awaitable<void> end(Leave leave) = 0;
};

[[nodiscard]] std::shared_ptr<Runner> make_exec_runner(Subscription& subscription);
[[nodiscard]] std::shared_ptr<Runner> make_stream_runner(Subscription& subscription);
[[nodiscard]] std::shared_ptr<Runner> make_http_runner(Subscription& subscription);

}  // namespace continuum
