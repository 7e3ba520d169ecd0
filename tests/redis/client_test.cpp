// The client against servers that are there, are not, come back, refuse, or are something else.
#include "redis/server.hpp"

#include "continuum/error.hpp"
#include "continuum/redis.hpp"
#include "continuum/redis_client.hpp"

#include <doctest/doctest.h>

#include <sys/socket.h>
#include <sys/un.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;

namespace {

redis::ClientOptions writer() {
  redis::ClientOptions options;
  options.needs.access = redis::Needs::Access::write;
  options.timeout = 2s;
  return options;
}

// What connecting there says.
Error refused(const std::string& url, redis::ClientOptions options) {
  try {
    const redis::Session session(redis::Address::parse(url), options);
  } catch (const Error& e) {
    return e;
  }
  return Error(ErrorKind::partial, "it connected");
}

bool mentions(const Error& error, std::string_view text) {
  return error.message().find(text) != std::string::npos;
}

// Something on a socket that answers every first message with `answer`, as a proxy or an older server would:
// what it says is the input of the test, so it cannot be a redis-server of today.
class OtherServer {
 public:
  explicit OtherServer(std::string answer) : answer_(std::move(answer)) {
    fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path().copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(fd_, 8) == 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~OtherServer() {
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
  }
  OtherServer(const OtherServer&) = delete;
  OtherServer& operator=(const OtherServer&) = delete;
  [[nodiscard]] std::string path() const { return directory_.file("s"); }
  [[nodiscard]] std::string url() const { return "unix://" + path(); }

 private:
  void serve() {
    for (;;) {
      const int client = ::accept(fd_, nullptr, nullptr);
      if (client < 0) {
        return;
      }
      char request[4096];
      if (::read(client, request, sizeof request) > 0 && !answer_.empty()) {
        [[maybe_unused]] const auto n = ::write(client, answer_.data(), answer_.size());
      }
      while (::read(client, request, sizeof request) > 0) {
      }
      ::close(client);
    }
  }
  test::TemporaryDirectory directory_;
  std::string answer_;
  int fd_ = -1;
  std::thread thread_;
};

std::string bulk(const std::string& text) {
  return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}

}  // namespace

TEST_CASE("a socket that is not there is a server error that names it") {
  const auto error = refused("unix:///nonexistent/redis.sock", writer());
  CHECK(error.kind() == ErrorKind::server);
  CHECK(mentions(error, "cannot connect to unix:///nonexistent/redis.sock"));
}

TEST_CASE("a port where nobody listens is a server error") {
  const auto error = refused("redis://127.0.0.1:1", writer());
  CHECK(error.kind() == ErrorKind::server);
  CHECK(mentions(error, "redis://127.0.0.1:1"));
}

TEST_CASE("a web server is told apart from Redis, and its answer is shown") {
  const OtherServer web("HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n");
  const auto error = refused(web.url(), writer());
  CHECK(error.kind() == ErrorKind::usage);
  CHECK(mentions(error, "is not a Redis server"));
  CHECK(mentions(error, "HTTP/1.1 400"));
}

TEST_CASE("a server that never answers times out") {
  const OtherServer silent("");
  auto options = writer();
  options.timeout = 100ms;
  const auto error = refused(silent.url(), options);
  CHECK(error.kind() == ErrorKind::server);
  CHECK(mentions(error, "no answer for 100 ms"));
}

TEST_CASE("Redis 6 is too old, and the message says which version there is") {
  const OtherServer old(bulk("redis_version:6.2.14\r\n") + bulk("maxmemory_policy:noeviction\r\n") +
                        bulk("aof_enabled:1\r\n") + bulk("role:master\r\n") + ":7\r\n" + "*0\r\n");
  const auto error = refused(old.url(), writer());
  CHECK(error.kind() == ErrorKind::usage);
  CHECK(mentions(error, "is Redis 6.2.14; Continuum needs Redis 7.0 or later"));
}

TEST_CASE("a password that is wanted, wrong, and right") {
  const test::RedisServer server({"--requirepass", "s3cret"});
  const auto wanted = refused(server.url(), writer());
  CHECK(wanted.kind() == ErrorKind::usage);
  CHECK(mentions(wanted, "wants a password"));
  auto address = redis::Address::parse(server.url());
  address.password = "wrong-one";
  try {
    const redis::Session session(address, writer());
    FAIL("a wrong password was taken");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    CHECK(mentions(error, "refused the user name or password"));
    CHECK_FALSE(mentions(error, "wrong-one"));
  }
  address.password = "s3cret";
  redis::Session session(address, writer());
  CHECK(session.call(std::move(redis::Request().command("PING")))[0].text() == "PONG");
}

TEST_CASE("a server that evicts any key is refused unless that is allowed") {
  const test::RedisServer server({"--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"});
  const auto error = refused(server.url(), writer());
  CHECK(error.kind() == ErrorKind::usage);
  CHECK(mentions(error, "allkeys-lru"));
  auto options = writer();
  options.needs.eviction = redis::Needs::Eviction::allow;
  const redis::Session session(redis::Address::parse(server.url()), options);
  CHECK(session.facts().eviction == "allkeys-lru");
}

TEST_CASE("a replica takes no writes, and its primary is named") {
  const test::RedisServer server({"--replicaof", "127.0.0.1 6"});
  const auto error = refused(server.url(), writer());
  CHECK(error.kind() == ErrorKind::server);
  CHECK(mentions(error, "is a replica of 127.0.0.1:6"));
  CHECK(server.session(redis::Needs::Access::read)->facts().replica);
}

TEST_CASE("a server that is full refuses writes with what to do") {
  const test::RedisServer server({"--maxmemory", "1"});
  auto session = server.session();
  try {
    session->call(std::move(redis::Request().command("SET", "a", "b")));
    FAIL("a full server took a write");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::server);
    CHECK(mentions(error, "is full (maxmemory)"));
  }
}

TEST_CASE("requests that were not answered are sent again, in order, when the server comes back") {
  test::RedisServer server({"--appendfsync", "always"});
  auto options = writer();
  options.retry_for = 20s;
  std::vector<std::string> notices;
  options.notice = [&](const std::string& text) { notices.push_back(text); };
  redis::Session session(redis::Address::parse(server.url()), options);
  session.call(std::move(redis::Request().command("SET", "a", "1")));
  server.kill();
  server.start();
  const auto replies = session.call(std::move(redis::Request().command("INCR", "a").command("INCR", "a")));
  CHECK(replies[0].integer() == 2);
  CHECK(replies[1].integer() == 3);
}

TEST_CASE("scripts that the server forgot are loaded again") {
  const test::RedisServer server;
  auto session = server.session();
  session->call(std::move(redis::Request().command("SCRIPT", "FLUSH")));
  const auto replies =
      session->call(std::move(redis::Request().run(redis::Script::activate, {"continuum:{x}:topic"}, "1")));
  CHECK(replies[0][0].text() == "NO");
}

TEST_CASE("a key of another type under our name is said, not overwritten") {
  const test::RedisServer server;
  auto session = server.session();
  session->call(std::move(redis::Request().command("SET", "continuum:{x}:topic", "mine")));
  try {
    session->call(std::move(redis::Request().run(redis::Script::activate, {"continuum:{x}:topic"}, "1")));
    FAIL("it went through");
  } catch (const Error& error) {
    CHECK(error.message().find("WRONGTYPE") != std::string::npos);
  }
}

TEST_CASE("an answer of another form is an error, never undefined behaviour") {
  const test::RedisServer server;
  auto session = server.session();
  const auto replies = session->call(std::move(redis::Request().command("PING").command("LLEN", "none")));
  CHECK_THROWS_AS((void)replies[0].integer(), Error);
  CHECK_THROWS_AS((void)replies[0][0], Error);
  CHECK_THROWS_AS((void)replies[1].text(), Error);
}

TEST_CASE("a request that belongs to a connection is not sent over the next one") {
  test::RedisServer server;
  auto options = writer();
  options.retry_for = 10s;
  redis::Session session(redis::Address::parse(server.url()), options);
  const auto set = [&](std::uint64_t connection) {
    redis::Request request;
    request.command("INCR", "n").only_on(connection);
    return session.call(std::move(request)).size();
  };
  CHECK(set(1) == 1);
  CHECK(set(2) == 0);
  const auto control = server.session();
  redis::Request kill;
  kill.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
  control->call(std::move(kill));
  // Whether the end was noticed before or after it was sent.
  CHECK(set(1) == 0);
  CHECK(set(1) == 0);
  // Others are, and with them comes the next connection.
  redis::Request get;
  get.command("GET", "n");
  CHECK(session.call(std::move(get))[0].text() == "1");
  CHECK(set(1) == 0);
  CHECK(set(2) == 1);
}

TEST_CASE("a client that was closed takes no request: nobody would answer it") {
  const test::RedisServer server;
  auto session = server.session();
  redis::Client& client = redis::client_of(*session);
  asio::io_context& io = redis::io_of(*session);
  const auto ping = [&]() -> asio::awaitable<void> {
    redis::Request request;
    request.command("PING");
    static_cast<void>(co_await client.call(std::move(request)));
  };
  run_until_done(io, ping());
  client.close();
  // Also when it has seen the end of its connection.
  while (io.poll() > 0) {
  }
  CHECK_THROWS_WITH_AS(run_until_done(io, ping()), "interrupted", Error);
}
