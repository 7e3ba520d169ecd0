// Coroutines on one thread: the little that Asio leaves to us. Private to the library.
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#if __has_include(<asio/as_tuple.hpp>)
#include <asio/as_tuple.hpp>
namespace continuum {
inline constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
}
#else  // Asio 1.22 (Debian 12)
#include <asio/experimental/as_tuple.hpp>
namespace continuum {
inline constexpr auto as_result = asio::experimental::as_tuple(asio::use_awaitable);
}
#endif

#include <chrono>
#include <exception>
#include <type_traits>
#include <utility>

namespace continuum {

using Clock = std::chrono::steady_clock;

// Something that coroutines of one thread wait for. A notification wakes all who wait now; none is kept,
// so a waiter looks at its condition before it waits and again afterwards.
class Signal {
 public:
  explicit Signal(const asio::any_io_executor& executor) : timer_(executor, Clock::time_point::max()) {}
  void notify() { timer_.cancel(); }
  asio::awaitable<void> wait() { co_await timer_.async_wait(as_result); }
  // Also wakes at `deadline`; the other waiters then wake too and look again.
  asio::awaitable<void> wait_until(Clock::time_point deadline) {
    asio::steady_timer limit(timer_.get_executor(), deadline);
    limit.async_wait([this](const asio::error_code& error) {
      if (!error) {
        timer_.cancel();
      }
    });
    co_await timer_.async_wait(as_result);
  }

 private:
  asio::steady_timer timer_;
};

// Runs `story`, and all else that is on `io`, until the story has ended. Returns or throws what it did.
template <class T>
T run_until_done(asio::io_context& io, asio::awaitable<T> story) {
  bool done = false;
  std::exception_ptr error;
  std::conditional_t<std::is_void_v<T>, char, T> result{};
  asio::co_spawn(io, std::move(story), [&](std::exception_ptr e, auto... value) {
    error = std::move(e);
    ((result = std::move(value)), ...);
    done = true;
  });
  io.restart();
  while (!done) {
    io.run_one();
  }
  if (error) {
    std::rethrow_exception(error);
  }
  if constexpr (!std::is_void_v<T>) {
    return result;
  }
}

}  // namespace continuum
