// A coroutine's reason to look again. Private to the library: includes Asio.
#pragma once

#include "continuum/async.hpp"

namespace continuum {

// For one waiter, on one thread. Unlike Signal it keeps a notification that comes while nobody waits, so that
// a loop of "look at everything, then wait" misses nothing.
class Wake {
 public:
  explicit Wake(const asio::any_io_executor& executor) : timer_(executor) {}

  void notify() {
    pending_ = true;
    timer_.cancel();
  }
  asio::awaitable<void> wait(Clock::time_point deadline = Clock::time_point::max()) {
    if (!pending_) {
      timer_.expires_at(deadline);
      co_await timer_.async_wait(as_result);
    }
    pending_ = false;
  }

 private:
  asio::steady_timer timer_;
  bool pending_ = false;
};

}  // namespace continuum
