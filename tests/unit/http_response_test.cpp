// Responses as servers send them, and as no server should.
#include "continuum/http_response.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace continuum;
using State = HttpResponse::State;

namespace {

HttpResponse response(std::string_view bytes) {
  HttpResponse r;
  r.take(bytes);
  return r;
}

}  // namespace

TEST_CASE("a response is the same in whatever pieces it comes") {
  const std::string text =
      "HTTP/1.1 503 Service Unavailable\r\nRetry-After:  7 \r\nContent-Length: 9\r\nX: y\r\n\r\nnot today";
  for (std::size_t piece = 1; piece <= text.size(); ++piece) {
    HttpResponse r;
    for (std::size_t at = 0; at < text.size(); at += piece) {
      REQUIRE(r.state() != State::complete);
      r.take(std::string_view(text).substr(at, piece));
    }
    REQUIRE(r.state() == State::complete);
    REQUIRE(r.status() == 503);
    REQUIRE(r.retry_after() == "7");
    REQUIRE(r.excerpt() == "not today");
    REQUIRE(r.keeps_alive());
  }
}

TEST_CASE("a chunked body ends with its last chunk") {
  HttpResponse r =
      response("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5\r\nhello\r\n7;x=y\r\n, world\r\n");
  CHECK(r.state() == State::body);
  r.take("0\r\nTrailer: x\r\n");
  CHECK(r.state() == State::body);
  r.take("\r\n");
  CHECK(r.state() == State::complete);
  CHECK(r.excerpt() == "hello, world");
  CHECK(r.keeps_alive());
}

TEST_CASE("a body without a length ends with its connection") {
  HttpResponse r = response("HTTP/1.1 200 OK\n\nhello");
  CHECK(r.state() == State::body);
  r.end();
  CHECK(r.state() == State::complete);
  CHECK(r.excerpt() == "hello");
  CHECK_FALSE(r.keeps_alive());
}

TEST_CASE("responses without a body are complete with their head") {
  for (const char* text :
       {"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        "HTTP/1.1 202\r\nContent-Length: 0\r\n\r\n"}) {
    CAPTURE(text);
    CHECK(response(text).state() == State::complete);
    CHECK(response(text).keeps_alive());
  }
}

TEST_CASE("interim responses are passed over") {
  const HttpResponse r =
      response("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 X\r\n\r\n");
  CHECK(r.state() == State::complete);
  CHECK(r.status() == 204);
}

TEST_CASE("a connection is used again only when both sides mean to") {
  const auto keeps = [](std::string_view head) {
    return response(std::string(head) + "\r\nContent-Length: 0\r\n\r\n").keeps_alive();
  };
  CHECK(keeps("HTTP/1.1 200 OK"));
  CHECK_FALSE(keeps("HTTP/1.1 200 OK\r\nConnection: x, Close"));
  CHECK_FALSE(keeps("HTTP/1.0 200 OK"));
  CHECK(keeps("HTTP/1.0 200 OK\r\nConnection: Keep-Alive"));
  CHECK_FALSE(response("HTTP/1.1 204 OK\r\n\r\nmore").keeps_alive());
  CHECK_FALSE(response("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
                  .keeps_alive());
}

TEST_CASE("what is no HTTP is broken") {
  for (const char* text : {"SSH-2.0-OpenSSH_9.2\r\n", "\r\n", "HTTP/2 200\r\n", "HTTP/1.1 20 OK\r\n",
                           "HTTP/1.1 -20 OK\r\n", "HTTP/1.1 2000\r\n", "HTTP/1.1 099 Low\r\n",
                           "HTTP/1.1 101 Switching\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n",
                           "HTTP/1.1 200 OK\r\n: empty\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                           "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
                           "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n",
                           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
                           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n"}) {
    CAPTURE(text);
    const HttpResponse r = response(text);
    CHECK(r.state() == State::broken);
    CHECK_FALSE(r.problem().empty());
    CHECK_FALSE(r.keeps_alive());
  }
}

TEST_CASE("a response that ends early is broken, wherever it ends") {
  for (const std::string text :
       {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"}) {
    for (std::size_t end = 0; end < text.size(); ++end) {
      CAPTURE(end);
      HttpResponse r = response(text.substr(0, end));
      CHECK(r.begun() == (end > 0));
      r.end();
      CHECK(r.state() == State::broken);
      CHECK(r.has_status() == (end >= text.find("\r\n\r\n") + 4));
    }
  }
}

TEST_CASE("a response without end costs no memory") {
  HttpResponse head = response("HTTP/1.1 200 OK\r\n");
  HttpResponse interim;
  HttpResponse line;
  HttpResponse body = response("HTTP/1.1 500 Error\r\n\r\n");
  for (int i = 0; i < 2'000; ++i) {
    head.take("A: bcdefghijkl\r\n");
    interim.take("HTTP/1.1 100 Continue\r\n\r\n");
    line.take("HTTP/1.1 200 and so on ");
    body.take(std::string(1'000, 'x'));
  }
  CHECK(head.state() == State::broken);
  CHECK(interim.state() == State::broken);
  CHECK(line.state() == State::broken);
  // Its status is known, and is all that matters.
  CHECK(body.state() == State::complete);
  CHECK_FALSE(body.keeps_alive());
  CHECK(body.excerpt() == std::string(300, 'x'));
}

TEST_CASE("a time to wait is seconds or a date") {
  // Sun, 06 Nov 1994 08:49:37 GMT
  const SystemTime now{std::chrono::seconds(784'111'777)};
  CHECK(parse_retry_after("0", now) == Milliseconds(0));
  CHECK(parse_retry_after("120", now) == Milliseconds(120'000));
  CHECK(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now) == Milliseconds(0));
  CHECK(parse_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now) == Milliseconds(60'000));
  CHECK(parse_retry_after("Sat, 05 Nov 1994 08:50:37 GMT", now) == Milliseconds(0));
  const Milliseconds day = std::chrono::hours(24);
  CHECK(parse_retry_after("Sun, 06 Nov 2094 08:50:37 GMT", now) == day);
  CHECK(parse_retry_after("99999999999999999999999", now) == day);
  for (const char* text :
       {"", "-1", "1.5", "soon", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 nov 1994 08:49:37 GMT"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_retry_after(text, now));
  }
}
