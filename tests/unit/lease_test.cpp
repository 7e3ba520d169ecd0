// Requests and answers of leases and commits. The scripts themselves: tests/redis/worker_test.cpp.
#include "continuum/lease.hpp"
#include "continuum/error.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace continuum;

TEST_CASE("an error that is stored is cut to 500 bytes, not inside of a character") {
  Doing doing;
  doing.error = std::string(499, 'x') + "\xC3\xA9" + std::string(100, 'y');
  redis::Request request;
  request_renew(request, "group", "meta", Fence(7), "log", doing);
  CHECK(request.bytes().find(std::string(499, 'x')) != std::string::npos);
  CHECK(request.bytes().find('\xC3') == std::string::npos);
  CHECK(request.bytes().find('y') == std::string::npos);
}

TEST_CASE("a challenge carries what was seen, a first look carries nothing") {
  const LeaseHolder me{"me", "host:1", Milliseconds(500)};
  Held seen;
  seen.fence = "1234567";
  seen.beat = "89";
  redis::Request look;
  request_acquire(look, "group", me, std::nullopt);
  redis::Request challenge;
  request_acquire(challenge, "group", me, seen);
  CHECK(look.bytes().find("1234567") == std::string::npos);
  CHECK(challenge.bytes().find("1234567") != std::string::npos);
  CHECK(challenge.bytes().find("89") != std::string::npos);
}
