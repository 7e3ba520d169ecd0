// The client side of mode http: events as CloudEvents in structured mode (HTTP protocol binding 1.0.2),
// POSTed to a webhook. Private to the library: includes Asio.
#pragma once

#include "continuum/handler.hpp"
#include "continuum/types.hpp"

#include <asio/any_io_executor.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace continuum {

// For a handler that names no timeout: a server that never answers must not hold a key for ever.
inline constexpr Milliseconds http_timeout_default{30'000};

struct HttpUrl {
  std::string host;  // a name, or a numeric address (IPv6 without its brackets)
  std::uint16_t port = 80;
  bool is_secure = false;  // https
  std::string authority;   // host and port as the URL has them
  std::string target;      // path and query

  friend bool operator==(const HttpUrl&, const HttpUrl&) = default;
};
// http[s]://HOST[:PORT][/PATH][?QUERY]. Throws Error{usage} whose message follows a name: "url: " or "--url
// ". It never repeats the path or the query, which may hold a secret.
[[nodiscard]] HttpUrl parse_http_url(std::string_view text);

struct HttpAnswer {
  enum class Outcome : std::uint8_t {
    answered,
    no_connection,  // refused, no such host, a certificate that is not accepted, or not within 10 s
    timed_out,
    broken,  // the connection was lost before the status was known, or what came is no HTTP
  };
  Outcome outcome = Outcome::broken;
  int status = 0;                           // when answered
  std::optional<Milliseconds> retry_after;  // the server's wish, at most a day
  std::string why;                          // one line for people when it is not done: any bytes
};

// 2xx done; 408, 425, 429 and 5xx retry; all else fail.
[[nodiscard]] Verdict verdict_of_status(int status);
// No connection is down; lost and late ones are retry.
[[nodiscard]] Verdict verdict_of(const HttpAnswer& answer);

// What the server is told besides the event, as headers Continuum-Topic, Continuum-Offset and so on.
struct HttpDelivery {
  std::string_view topic;
  std::string_view group;
  Partition partition{};
  Offset offset{};
  std::uint32_t attempt = 1;
  Fence fence{};
  Generation generation{};
  enum class How : std::uint8_t { worked, replayed } how = How::worked;
};

// Connections to one URL, kept alive; one for each request that is under way. On the executor's thread only.
//
// A request that found its kept connection closed before any byte of an answer is sent again on a new one:
// the server may then see it twice, as after a crash. Redirections are not followed. Of an answer 64 KiB are
// read at most.
class HttpClient {
 public:
  // Throws Error{usage} when the URL is https and this machine has no OpenSSL 3.
  HttpClient(const asio::any_io_executor& executor, HttpUrl url);
  ~HttpClient();  // as stop()
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // `event`: one CloudEvent in JSON. `timeout` is for everything, from the connection to the end of the
  // answer. `done` is called once, later.
  void post(const HttpDelivery& delivery, std::string_view event, Milliseconds timeout,
            std::function<void(const HttpAnswer&)> done);

  // Cuts every request that is under way; their `done` is not called any more. Never waits. What was sent may
  // still be handled by the server. What is posted afterwards is dropped.
  void stop();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace continuum
