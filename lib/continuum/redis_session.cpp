#include "continuum/redis_client.hpp"

#include "continuum/error.hpp"

#include <poll.h>

#include <optional>

namespace continuum::redis {

namespace {

constexpr Milliseconds stop_poll{100};
constexpr Milliseconds stop_grace{1'000};

}  // namespace

struct Session::Impl {
  Impl(Address address, ClientOptions options)
      : client(io.get_executor(), std::move(address), std::move(options)) {}

  // What is not answered is left where it is: nothing of it is looked at any more.
  [[nodiscard]] bool is_over() {
    pollfd readable{stop, POLLIN, 0};
    if (!asked_to_stop && ::poll(&readable, 1, 0) > 0) {
      asked_to_stop = Clock::now();
    }
    return asked_to_stop && Clock::now() - *asked_to_stop >= stop_grace;
  }

  [[noreturn]] void interrupt() {
    interrupted = true;
    fail(ErrorKind::interrupted, "interrupted: {} does not answer", client.address().text());
  }

  Replies call_until_stopped(Request request) {
    if (interrupted) {
      interrupt();
    }
    bool done = false;
    std::exception_ptr error;
    Replies replies;
    asio::co_spawn(io, client.call(std::move(request)), [&](std::exception_ptr thrown, Replies answers) {
      error = std::move(thrown);
      replies = std::move(answers);
      done = true;
    });
    while (!done) {
      if (io.stopped()) {
        io.restart();
      }
      io.run_one_for(stop_poll);
      if (!done && is_over()) {
        interrupt();
      }
    }
    if (error) {
      std::rethrow_exception(error);
    }
    return replies;
  }

  asio::io_context io{1};
  Client client;
  int stop = -1;
  std::optional<Clock::time_point> asked_to_stop;
  bool interrupted = false;
};

Session::Session(Address address, ClientOptions options)
    : impl_(std::make_unique<Impl>(std::move(address), std::move(options))) {
  run_until_done(impl_->io, impl_->client.ready());
}

Session::~Session() = default;

Replies Session::call(Request request) {
  return impl_->stop < 0 ? run_until_done(impl_->io, impl_->client.call(std::move(request)))
                         : impl_->call_until_stopped(std::move(request));
}

void Session::stop_by(int descriptor) {
  impl_->stop = descriptor;
}

const ServerFacts& Session::facts() const {
  return impl_->client.facts();
}
const Address& Session::address() const {
  return impl_->client.address();
}

Client& client_of(Session& session) {
  return session.impl_->client;
}
asio::io_context& io_of(Session& session) {
  return session.impl_->io;
}

}  // namespace continuum::redis
