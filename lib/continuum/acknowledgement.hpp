// When an append counts as stored: what is asked with it, and what the answer says. Private to the publisher:
// includes Asio.
#pragma once

#include "continuum/publisher.hpp"
#include "continuum/redis_client.hpp"

namespace continuum {

class Acknowledgement {
 public:
  Acknowledgement(redis::Client& client, Acknowledge level) : client_(client), level_(level) {}

  // Throws Error{usage} when this server cannot promise the level. To be called again after every reconnect:
  // the server may be another one then, or run with other settings. Cheap while the connection is the same.
  asio::awaitable<void> verify();
  // Adds what has to follow the writes of `request` on the same connection. Its answer is the last one.
  void ask(redis::Request& request) const;
  // Whether the answers of such a request, beyond its `writes` own ones, confirm the level.
  [[nodiscard]] bool confirmed(const redis::Replies& replies, std::size_t writes) const;

 private:
  redis::Client& client_;
  Acknowledge level_;
  std::uint64_t verified_connection_ = 0;
  bool wait_for_file_ = false;
};

}  // namespace continuum
