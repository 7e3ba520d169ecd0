#include "continuum/redis_client.hpp"

namespace continuum::redis {

struct Session::Impl {
  Impl(Address address, ClientOptions options)
      : client(io.get_executor(), std::move(address), std::move(options)) {}

  asio::io_context io{1};
  Client client;
};

Session::Session(Address address, ClientOptions options)
    : impl_(std::make_unique<Impl>(std::move(address), std::move(options))) {
  run_until_done(impl_->io, impl_->client.ready());
}

Session::~Session() = default;

Replies Session::call(Request request) {
  return run_until_done(impl_->io, impl_->client.call(std::move(request)));
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
