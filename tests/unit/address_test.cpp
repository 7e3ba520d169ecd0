#include "continuum/error.hpp"
#include "continuum/redis.hpp"

#include <doctest/doctest.h>

#include <string>

using continuum::Error;
using continuum::ErrorKind;
using continuum::redis::Address;

namespace {

std::string refusal(const std::string& url) {
  try {
    (void)Address::parse(url);
    return {};
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    return error.message();
  }
}

}  // namespace

TEST_CASE("a redis URL names host, port, user, password and database") {
  const auto a = Address::parse("redis://ann:s%40cret@db.example:7000/3");
  CHECK(a.host == "db.example");
  CHECK(a.port == 7000);
  CHECK(a.user == "ann");
  CHECK(a.password == "s@cret");
  CHECK(a.database == 3);
  CHECK(a.socket_path.empty());
}

TEST_CASE("what a redis URL leaves out has the usual value") {
  const auto a = Address::parse("redis://");
  CHECK(a.host == "127.0.0.1");
  CHECK(a.port == 6379);
  CHECK(a.user.empty());
  CHECK(a.password.empty());
  CHECK(a.database == 0);
  CHECK(Address::parse("redis://host/").database == 0);
  CHECK(Address::parse("redis://:secret@host").password == "secret");
  CHECK(Address::parse("redis://:secret@host").user.empty());
}

TEST_CASE("an IPv6 host stands in brackets") {
  const auto a = Address::parse("redis://[::1]:7000");
  CHECK(a.host == "::1");
  CHECK(a.port == 7000);
  CHECK(a.text() == "redis://[::1]:7000");
}

TEST_CASE("a password with an unescaped @ does not become part of the host") {
  const auto a = Address::parse("redis://ann:p@ss@host");
  CHECK(a.host == "host");
  CHECK(a.password == "p@ss");
}

TEST_CASE("a unix URL names an absolute path, a database and a user") {
  const auto a = Address::parse("unix:///run/redis/redis.sock?db=2&user=ann");
  CHECK(a.socket_path == "/run/redis/redis.sock");
  CHECK(a.database == 2);
  CHECK(a.user == "ann");
  CHECK(Address::parse("unix:///tmp/a%20b").socket_path == "/tmp/a b");
  CHECK(refusal("unix://redis.sock") != "");
  CHECK(refusal("unix://") != "");
  CHECK(refusal("unix:///" + std::string(200, 'x')).find("the system allows 107") != std::string::npos);
}

TEST_CASE("no text for messages has the password in it") {
  CHECK(Address::parse("redis://ann:hunter2@host:7000/1").text() == "redis://host:7000/1");
  CHECK(Address::parse("unix:///run/r.sock?user=ann").text() == "unix:///run/r.sock");
  for (const auto* url :
       {"redis://ann:hunter2@host:port", "redis://ann:hunter2%zz@host", "redis://ann:hunter2@host/x",
        "redis://ann:hunter2@[::1", "redis://ann:hunter2@host?a=b", "http://ann:hunter2@host", "hunter2"}) {
    CAPTURE(url);
    const auto message = refusal(url);
    CHECK(message != "");
    CHECK(message.find("hunter2") == std::string::npos);
  }
}

TEST_CASE("a URL outside of its limits is refused") {
  CHECK(refusal("redis://host:65536") != "");
  CHECK(refusal("redis://host:-1") != "");
  CHECK(refusal("redis://host/1000001") != "");
  CHECK(refusal("") != "");
}

TEST_CASE("a scheme that this version does not speak is named") {
  CHECK(refusal("rediss://host").starts_with("rediss:// is not supported"));
  CHECK(refusal("redis+cluster://host").starts_with("redis+cluster:// is not supported"));
}
