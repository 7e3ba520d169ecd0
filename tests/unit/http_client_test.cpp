// Events to a webhook, on a server that behaves well or badly.
#include "continuum/http_client.hpp"
#include "continuum/error.hpp"

#include <doctest/doctest.h>
#include <asio/io_context.hpp>

#include "support/http_server.hpp"

#include <chrono>
#include <condition_variable>
#include <optional>
#include <string>
#include <vector>

using namespace continuum;
using test::HttpServer;
using Outcome = HttpAnswer::Outcome;

namespace {

using Clock = std::chrono::steady_clock;
constexpr Milliseconds long_enough{20'000};
constexpr HttpDelivery delivery{.topic = "posts",
                                .group = "mail",
                                .partition = Partition(3),
                                .offset = Offset(17),
                                .attempt = 2,
                                .fence = Fence(1'700'000'000'000'000),
                                .generation = Generation(4)};

struct Posting {
  asio::io_context io;
  HttpClient client;
  std::vector<HttpAnswer> answers;

  explicit Posting(const std::string& url) : client(io.get_executor(), parse_http_url(url)) {}

  void begin(std::string_view event = "{}", Milliseconds timeout = long_enough) {
    client.post(delivery, event, timeout, [this](const HttpAnswer& answer) { answers.push_back(answer); });
  }
  void run_until_answers(std::size_t count) {
    while (answers.size() < count) {
      REQUIRE(io.run_one_for(std::chrono::seconds(30)) == 1);
    }
  }
  HttpAnswer post(std::string_view event = "{}", Milliseconds timeout = long_enough) {
    const std::size_t before = answers.size();
    begin(event, timeout);
    run_until_answers(before + 1);
    return answers.back();
  }
};

// A server that answers every request the same way, on connections that stay.
HttpServer::Serve always(int status, const std::string& body, const std::string& headers = "") {
  return [=](HttpServer::Connection& c) {
    while (!c.request().empty() && c.answer(status, body, headers)) {
    }
  };
}

// Keeps a connection until the client has closed it.
void hold(HttpServer::Connection& c) {
  while (!c.request().empty()) {
  }
}

std::uint16_t port_without_server() {
  std::uint16_t port = 0;
  ::close(HttpServer::listen_on_loopback(port));
  return port;
}

std::string refused(std::string_view url) {
  try {
    static_cast<void>(parse_http_url(url));
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    return error.message();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("a webhook gets an event as CloudEvents wants it, and where it lies") {
  HttpServer server(always(204, ""));
  Posting posting(server.url("/hooks/mail?token=a%20b"));
  const std::string event = R"({"specversion":"1.0","id":"1","source":"/posts","type":"t"})";
  const HttpAnswer answer = posting.post(event);
  CHECK(answer.outcome == Outcome::answered);
  CHECK(answer.status == 204);
  CHECK(answer.why.empty());
  CHECK(verdict_of(answer) == Verdict::done);
  REQUIRE(server.requests().size() == 1);
  CHECK(server.requests()[0] ==
        "POST /hooks/mail?token=a%20b HTTP/1.1\r\n"
        "Host: " +
            server.url("").substr(7) +
            "\r\n"
            "User-Agent: continuum/0.1.0\r\n"
            "Content-Type: application/cloudevents+json; charset=UTF-8\r\n"
            "Content-Length: " +
            std::to_string(event.size()) +
            "\r\n"
            "Continuum-Topic: posts\r\nContinuum-Group: mail\r\nContinuum-Partition: 3\r\n"
            "Continuum-Offset: 17\r\nContinuum-Attempt: 2\r\nContinuum-Generation: 4\r\n"
            "Continuum-Fence: 1700000000000000\r\n\r\n" +
            event);
}

TEST_CASE("a connection is kept for the next event, and there is one for each that is under way") {
  HttpServer server(always(200, "ok"));
  Posting posting(server.url());
  for (int i = 0; i < 20; ++i) {
    REQUIRE(posting.post().status == 200);
  }
  CHECK(server.connections() == 1);
  for (int i = 0; i < 8; ++i) {
    posting.begin();
  }
  posting.run_until_answers(28);
  CHECK(server.connections() <= 8);
  CHECK(server.requests().size() == 28);
}

TEST_CASE("a server that closes after each answer, with or without saying so, loses no event") {
  for (const std::string headers : {"Connection: close\r\n", ""}) {
    CAPTURE(headers);
    HttpServer server([&](HttpServer::Connection& c) {
      c.request();
      c.answer(200, "", headers);
    });
    Posting posting(server.url());
    for (int i = 0; i < 20; ++i) {
      const HttpAnswer answer = posting.post();
      REQUIRE_MESSAGE(answer.outcome == Outcome::answered, answer.why);
    }
    CHECK(server.connections() == 20);
    CHECK(server.requests().size() == 20);
  }
}

TEST_CASE("a kept connection that the server closes instead of answering is replaced") {
  HttpServer server([](HttpServer::Connection& c) {
    c.request();
    c.answer(200, "");
    if (c.number() == 0) {
      c.request();  // and gone
      return;
    }
    hold(c);
  });
  Posting posting(server.url());
  CHECK(posting.post("1").status == 200);
  CHECK(posting.post("2").status == 200);
  CHECK(server.connections() == 2);
  CHECK(server.requests().size() == 3);
}

TEST_CASE("a new connection that the server closes instead of answering is an attempt") {
  HttpServer server([](HttpServer::Connection& c) { c.request(); });
  Posting posting(server.url());
  const HttpAnswer answer = posting.post();
  CHECK(answer.outcome == Outcome::broken);
  CHECK(verdict_of(answer) == Verdict::retry);
  CHECK(answer.why.find("before its answer") != std::string::npos);
  CHECK(server.connections() == 1);
}

TEST_CASE("the reason of a refused event is the beginning of the answer, without what the URL may hide") {
  const std::string body = "no such account" + std::string(100'000, '.');
  HttpServer server(always(422, body));
  Posting posting(server.url("/?secret"));
  const HttpAnswer answer = posting.post();
  CHECK(answer.status == 422);
  CHECK(verdict_of(answer) == Verdict::fail);
  CHECK(answer.why.find("answered 422: no such account...") != std::string::npos);
  CHECK(answer.why.size() < 400);
  CHECK(answer.why.find("secret") == std::string::npos);
}

TEST_CASE("a busy server says when to come again") {
  HttpServer server(always(503, "later", "Retry-After: 7\r\n"));
  Posting posting(server.url());
  const HttpAnswer answer = posting.post();
  CHECK(answer.retry_after == Milliseconds(7'000));
  CHECK(verdict_of(answer) == Verdict::retry);
}

TEST_CASE("a redirection is not followed, and told") {
  HttpServer server(always(301, "", "Location: https://example.org/new\r\n"));
  Posting posting(server.url());
  const HttpAnswer answer = posting.post();
  CHECK(verdict_of(answer) == Verdict::fail);
  CHECK(answer.why.find("301 (to https://example.org/new)") != std::string::npos);
}

TEST_CASE("a server that is not there is down") {
  Posting posting("http://127.0.0.1:" + std::to_string(port_without_server()));
  const HttpAnswer answer = posting.post();
  CHECK(answer.outcome == Outcome::no_connection);
  CHECK(verdict_of(answer) == Verdict::down);
  CHECK(answer.why.find("Connection refused") != std::string::npos);
}

TEST_CASE("a host that has no address is down") {
  Posting posting("http://no-such-host.invalid/");
  posting.begin();
  posting.begin();
  posting.run_until_answers(2);
  for (const HttpAnswer& answer : posting.answers) {
    CHECK(answer.outcome == Outcome::no_connection);
    CHECK(answer.why.find("no-such-host.invalid") != std::string::npos);
  }
}

TEST_CASE("a host is found by its name") {
  HttpServer server(always(200, ""));
  Posting posting("http://localhost" + server.url("/").substr(16));
  CHECK(posting.post().status == 200);
}

TEST_CASE("a server that takes too long is an attempt, whatever it does meanwhile") {
  const std::vector<HttpServer::Serve> slow{hold,
                                            [](HttpServer::Connection& c) {
                                              c.request();
                                              c.send("HTTP/1.1 200 OK\r\n");
                                              hold(c);
                                            },
                                            // Drips for ever.
                                            [](HttpServer::Connection& c) {
                                              c.request();
                                              c.send("HTTP/1.1 200 OK\r\nX: ");
                                              while (c.send("x")) {
                                                std::this_thread::sleep_for(std::chrono::milliseconds(5));
                                              }
                                            }};
  for (const auto& serve : slow) {
    HttpServer server(serve);
    Posting posting(server.url());
    const auto begun = Clock::now();
    const HttpAnswer answer = posting.post("{}", Milliseconds(150));
    CHECK(answer.outcome == Outcome::timed_out);
    CHECK(verdict_of(answer) == Verdict::retry);
    CHECK(Clock::now() - begun >= std::chrono::milliseconds(150));
    CHECK(Clock::now() - begun < std::chrono::seconds(10));
  }
}

TEST_CASE("an answer whose body never ends counts by its status") {
  HttpServer server([](HttpServer::Connection& c) {
    c.request();
    if (c.number() == 0) {
      c.send("HTTP/1.1 200 OK\r\n\r\n");
      while (c.send(std::string(100'000, 'x'))) {
      }
    } else {
      c.send("HTTP/1.1 500 X\r\nContent-Length: 10\r\n\r\nhalf");
      hold(c);
    }
  });
  Posting posting(server.url());
  CHECK(posting.post().status == 200);
  const HttpAnswer answer = posting.post("{}", Milliseconds(150));
  CHECK(answer.status == 500);
  CHECK(answer.why.ends_with("answered 500: half"));
}

TEST_CASE("what is no HTTP is an attempt, and shown") {
  HttpServer server([](HttpServer::Connection& c) { c.send("SSH-2.0-OpenSSH_9.2\r\n"); });
  Posting posting(server.url());
  const HttpAnswer answer = posting.post();
  CHECK(answer.outcome == Outcome::broken);
  CHECK(verdict_of(answer) == Verdict::retry);
}

TEST_CASE("a server that refuses a large event before it has read it is heard") {
  HttpServer server([](HttpServer::Connection& c) {
    c.answer(413, "too large", "Connection: close\r\n");
    c.request();  // Connection::request() reads on, so that no reset overtakes the answer
  });
  Posting posting(server.url());
  const HttpAnswer answer = posting.post(std::string(8 << 20, ' '));
  CHECK(answer.status == 413);
  CHECK(verdict_of(answer) == Verdict::fail);
}

TEST_CASE("stopping cuts what is under way and waits for nothing") {
  std::mutex mutex;
  std::condition_variable arrived;
  int requests = 0;
  HttpServer server([&](HttpServer::Connection& c) {
    c.request();
    {
      const std::lock_guard lock(mutex);
      ++requests;
    }
    arrived.notify_all();
    hold(c);
  });
  std::optional<Posting> posting(server.url());
  for (int i = 0; i < 3; ++i) {
    posting->begin();
  }
  const auto all_arrived = [&] {
    const std::lock_guard lock(mutex);
    return requests == 3;
  };
  while (!all_arrived()) {
    posting->io.run_for(std::chrono::milliseconds(10));
  }
  posting->begin();  // has not even begun
  const auto begun = Clock::now();
  posting->client.stop();
  posting->begin();
  posting->io.run();  // ends: nothing is left
  CHECK(posting->answers.empty());
  posting.reset();
  CHECK(Clock::now() - begun < std::chrono::seconds(5));
}

TEST_CASE("a client may end while its requests are at any point") {
  HttpServer server(always(200, "ok"));
  for (int steps = 0; steps < 20; ++steps) {
    asio::io_context io;
    bool answered = false;
    {
      HttpClient client(io.get_executor(), parse_http_url("http://localhost" + server.url("/").substr(16)));
      client.post(delivery, "{}", long_enough, [&](const HttpAnswer&) { answered = true; });
      for (int i = 0; i < steps && !answered; ++i) {
        io.run_one_for(std::chrono::seconds(1));
      }
      answered = false;
    }
    io.run();
    CHECK_FALSE(answered);
  }
}

TEST_CASE("statuses are verdicts") {
  for (const int status : {200, 201, 202, 204, 299}) {
    CHECK(verdict_of_status(status) == Verdict::done);
  }
  for (const int status : {408, 425, 429, 500, 502, 503, 504, 599}) {
    CHECK(verdict_of_status(status) == Verdict::retry);
  }
  for (const int status : {300, 301, 307, 400, 401, 404, 409, 410, 415, 422, 600, 999}) {
    CHECK(verdict_of_status(status) == Verdict::fail);
  }
}

TEST_CASE("the URL of a webhook has a host, perhaps a port, and a path") {
  const HttpUrl url = parse_http_url("http://Hooks.example.org:8080/a/b?c=d");
  CHECK(url.host == "Hooks.example.org");
  CHECK(url.port == 8080);
  CHECK(url.authority == "Hooks.example.org:8080");
  CHECK(url.target == "/a/b?c=d");
  CHECK(parse_http_url("http://h").target == "/");
  CHECK(parse_http_url("http://h").port == 80);
  CHECK(parse_http_url("http://h?q").target == "/?q");
  CHECK(parse_http_url("https://h/x").is_secure);
  CHECK(parse_http_url("https://h/x").port == 443);
  CHECK(parse_http_url("https://h:8443/x").port == 8443);
  const HttpUrl six = parse_http_url("http://[::1]:81/");
  CHECK(six.host == "::1");
  CHECK(six.port == 81);
  CHECK(six.authority == "[::1]:81");
}

TEST_CASE("a URL that cannot be asked is a usage error that hides path and query") {
  for (const char* text :
       {"", "h/secret", "ftp://h/secret", "http://", "http:///secret", "http://h:0/secret",
        "http://h:65536/secret", "http://h:/secret", "http://h:80x/secret", "http://u:secret@h/",
        "http://h/secret#x", "http://h/secret x", "http://h/secret\r\nX: y", "http://h/secret\xc3\xa4",
        "http://[::1/secret", "http://[::1]80/secret", "http://[secret]/", "http://h h/secret",
        "http://h\r\n/secret"}) {
    CAPTURE(text);
    const std::string message = refused(text);
    CHECK(message != "accepted");
    CHECK(message.find("secret") == std::string::npos);
  }
  CHECK(refused("http://" + std::string(254, 'h')) != "accepted");
}
