#include "continuum/http_client.hpp"

#include "continuum/async.hpp"
#include "continuum/decode_pool.hpp"
#include "continuum/error.hpp"
#include "continuum/http_response.hpp"
#include "continuum/names.hpp"
#include "continuum/tls.hpp"

#include <netdb.h>
#include <sys/socket.h>
#include <asio/buffer.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/write.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace continuum {

// --- addresses and verdicts

namespace {

constexpr Milliseconds connect_limit{10'000};
constexpr std::size_t read_bytes = 4 << 10;
constexpr std::size_t idle_max = 1024;
constexpr std::size_t url_bytes_max = 8 << 10;
constexpr std::size_t host_bytes_max = 253;  // of a name in DNS

bool is_host_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
         c == '_';
}

bool is_address_byte(char c) {
  return (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || (c >= '0' && c <= '9') || c == ':' || c == '.';
}

[[noreturn]] void fail_url(std::string_view why) {
  fail(ErrorKind::usage, "{}; give \"http://HOST:PORT/PATH\"", why);
}

std::uint16_t parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) {
    fail_url("has no port from 1 to 65535 behind its host");
  }
  return port;
}

}  // namespace

HttpUrl parse_http_url(std::string_view text) {
  HttpUrl url;
  url.is_secure = text.starts_with("https://");
  url.port = url.is_secure ? 443 : 80;
  const std::string_view scheme = url.is_secure ? "https://" : "http://";
  if (!text.starts_with(scheme)) {
    fail_url("is no address");
  }
  if (text.size() > url_bytes_max) {
    fail_url(fmt::format("is longer than {} bytes", url_bytes_max));
  }
  text.remove_prefix(scheme.size());
  url.authority = text.substr(0, text.find_first_of("/?#"));
  text.remove_prefix(url.authority.size());
  if (url.authority.find('@') != std::string::npos) {
    fail(ErrorKind::usage, "holds a user or password, which logs would show; leave it out");
  }
  if (text.find('#') != std::string_view::npos) {
    fail_url("has a fragment (#), which no server gets");
  }
  if (std::ranges::any_of(text, [](char c) { return c <= ' ' || c >= 0x7f; })) {
    fail_url("has bytes in its path that must be percent-encoded, such as a blank (%20)");
  }
  url.target = text.starts_with('/') ? std::string(text) : "/" + std::string(text);

  const std::string_view authority = url.authority;
  const bool bracket = authority.starts_with('[');
  const auto host_end = bracket ? authority.find(']') : std::min(authority.find(':'), authority.size());
  url.host = host_end == std::string_view::npos ? ""
             : bracket                          ? authority.substr(1, host_end - 1)
                                                : authority.substr(0, host_end);
  if (url.host.empty() || url.host.size() > host_bytes_max ||
      !std::ranges::all_of(url.host, bracket ? is_address_byte : is_host_byte)) {
    fail_url("is no address");
  }
  const std::string_view port = authority.substr(host_end + (bracket ? 1 : 0));
  if (!port.empty() && port[0] != ':') {
    fail_url("is no address");
  }
  if (!port.empty()) {
    url.port = parse_port(port.substr(1));
  }
  return url;
}

Verdict verdict_of_status(int status) {
  if (status >= 200 && status < 300) {
    return Verdict::done;
  }
  const bool again = status == 408 || status == 425 || status == 429 || (status >= 500 && status < 600);
  return again ? Verdict::retry : Verdict::fail;
}

Verdict verdict_of(const HttpAnswer& answer) {
  switch (answer.outcome) {
    case HttpAnswer::Outcome::answered:
      return verdict_of_status(answer.status);
    case HttpAnswer::Outcome::no_connection:
      return Verdict::down;
    default:
      return Verdict::retry;
  }
}

// --- looking a host up

namespace {

using Endpoints = std::vector<asio::ip::tcp::endpoint>;

struct Found {
  Endpoints endpoints;
  std::string error;
};

Found look_up(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* list = nullptr;
  Found found;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (error != 0) {
    found.error = ::gai_strerror(error);
    return found;
  }
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    asio::ip::tcp::endpoint endpoint;
    if (entry->ai_addrlen <= endpoint.capacity()) {
      endpoint.resize(entry->ai_addrlen);
      std::copy_n(reinterpret_cast<const char*>(entry->ai_addr), entry->ai_addrlen,
                  reinterpret_cast<char*>(endpoint.data()));
      found.endpoints.push_back(endpoint);
    }
  }
  ::freeaddrinfo(list);
  return found;
}

// The resolver of the system may take half a minute and cannot be interrupted: it has a thread that is left
// behind when nobody wants to know any more. (Asio's own would be waited for at the end of the program.)
struct Lookup {
  std::mutex mutex;
  bool wanted = true;  // the executor is there
  bool done = false;   // on the executor's thread, as `found` then
  Found found;
};

}  // namespace

// --- one connection, one request

namespace {

// What came of reading: bytes, or an error.
struct Arrived {
  asio::error_code error;
  std::string_view bytes;
};

struct Connection {
  explicit Connection(const asio::any_io_executor& executor) : socket(executor) {}

  // A server closes what has been idle for long. (With TLS there may be something to read that is for TLS
  // alone.)
  [[nodiscard]] bool usable() {
    char byte = 0;
    const ssize_t n = ::recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n < 0 ? errno == EAGAIN || errno == EWOULDBLOCK : n > 0 && tls;
  }

  // Returns why not; empty when the connection is secure.
  asio::awaitable<std::string> secure(const std::string& host) {
    tls = std::make_unique<TlsSession>(host);
    for (;;) {
      const auto step = tls->handshake();
      const asio::error_code unsent = co_await send_output();
      if (step == TlsSession::Step::done) {
        co_return unsent ? unsent.message() : std::string();
      }
      if (step != TlsSession::Step::wants_input) {
        co_return tls->problem().empty() ? "TLS ended in the handshake" : tls->problem();
      }
      if (const asio::error_code error = co_await receive_input()) {
        co_return error == asio::error::eof ? "closed in the TLS handshake" : error.message();
      }
    }
  }

  asio::awaitable<asio::error_code> write(std::string_view head, std::string_view body) {
    if (tls) {
      bool failed = tls->write(head) != TlsSession::Step::done;
      failed = failed || (!body.empty() && tls->write(body) != TlsSession::Step::done);
      if (failed) {
        co_return asio::error::broken_pipe;
      }
      co_return co_await send_output();
    }
    const std::array<asio::const_buffer, 2> both{asio::buffer(head), asio::buffer(body)};
    const auto [error, n] = co_await asio::async_write(socket, both, as_result);
    co_return error;
  }

  // The bytes are valid until the next call.
  asio::awaitable<Arrived> read() {
    while (tls) {
      std::size_t size = 0;
      const auto step = tls->read(plain, size);
      if (step == TlsSession::Step::done) {
        co_return Arrived{{}, std::string_view(plain.data(), size)};
      }
      if (step != TlsSession::Step::wants_input) {
        co_return Arrived{asio::error::eof, {}};
      }
      if (const asio::error_code error = co_await receive_input()) {
        co_return Arrived{error, {}};
      }
    }
    const auto [error, n] = co_await socket.async_read_some(asio::buffer(buffer), as_result);
    co_return Arrived{error, std::string_view(buffer.data(), n)};
  }

  asio::ip::tcp::socket socket;
  bool connected = false;

 private:
  asio::awaitable<asio::error_code> send_output() {
    const std::string output = tls->take_output();
    const auto [error, n] = co_await asio::async_write(socket, asio::buffer(output), as_result);
    co_return error;
  }

  asio::awaitable<asio::error_code> receive_input() {
    const auto [error, n] = co_await socket.async_read_some(asio::buffer(buffer), as_result);
    tls->give(std::string_view(buffer.data(), n));
    co_return error;
  }

  std::unique_ptr<TlsSession> tls;
  std::array<char, read_bytes> buffer{};
  std::array<char, read_bytes> plain{};
};

struct Exchange {
  explicit Exchange(const asio::any_io_executor& executor) : limit(executor), connecting(executor) {}

  void close() {
    if (connection) {
      asio::error_code ignored;
      connection->socket.close(ignored);
    }
  }

  std::string head;
  std::string event;
  std::function<void(const HttpAnswer&)> done;
  std::shared_ptr<Connection> connection;
  asio::steady_timer limit;       // for everything
  asio::steady_timer connecting;  // for each address
  bool timed_out = false;
  bool cut = false;  // nobody waits for it any more

  [[nodiscard]] bool over() const { return timed_out || cut; }
};

}  // namespace

struct HttpClient::State : std::enable_shared_from_this<State> {
  State(const asio::any_io_executor& e, HttpUrl u) : executor(e), url(std::move(u)), looked_up(e) {}

  // Story of one request. Holds what it needs until its last operation has ended.
  static asio::awaitable<void> run(std::shared_ptr<State> self, std::shared_ptr<Exchange> x) {
    HttpAnswer answer;
    for (bool again = true; again;) {
      x->connection = self->take_idle();
      const bool kept = x->connection != nullptr;
      if (!kept) {
        answer.why = co_await self->connect(*x);
        if (!answer.why.empty()) {
          answer.outcome = HttpAnswer::Outcome::no_connection;
          break;
        }
      }
      HttpResponse response;
      const asio::error_code error = co_await talk(*x, response);
      again = kept && error && !response.begun() && !x->over();
      if (!again) {
        self->judge(*x, response, error, answer);
      }
    }
    x->limit.cancel();
    std::erase(self->pending, x);
    if (!x->cut) {
      std::exchange(x->done, nullptr)(answer);
    }
  }

  std::shared_ptr<Connection> take_idle() {
    while (!idle.empty()) {
      auto connection = std::move(idle.back());
      idle.pop_back();
      if (connection->usable()) {
        return connection;
      }
    }
    return nullptr;
  }

  // --- connecting

  // Returns why it cannot; empty when the connection stands.
  asio::awaitable<std::string> connect(Exchange& x) {
    const auto begun = Clock::now();
    Found found;
    co_await find(x, begun + connect_limit, found);
    std::string why = found.error;
    for (std::size_t i = 0; i < found.endpoints.size() && !x.over(); ++i) {
      // What the addresses before it have left, in equal parts: one that is dead does not use up all of it.
      const auto left = begun + connect_limit - Clock::now();
      why = co_await connect_to(x, found.endpoints[i], left / static_cast<int>(found.endpoints.size() - i));
      if (why.empty()) {
        break;
      }
    }
    if (x.over()) {
      why = "no answer in the time that the handler has for an event";
    }
    co_return why.empty() ? why : fmt::format("cannot connect to {}: {}", url.authority, why);
  }

  asio::awaitable<std::string> connect_to(Exchange& x, const asio::ip::tcp::endpoint& endpoint,
                                          Clock::duration limit) {
    const auto connection = std::make_shared<Connection>(executor);
    x.connection = connection;
    x.connecting.expires_after(limit);
    x.connecting.async_wait([connection](const asio::error_code& stopped) {
      asio::error_code ignored;
      if (!stopped && !connection->connected) {
        connection->socket.close(ignored);
      }
    });
    const auto [error] = co_await connection->socket.async_connect(endpoint, as_result);
    std::string why = error ? error.message() : "";
    if (!error) {
      asio::error_code ignored;
      connection->socket.set_option(asio::ip::tcp::no_delay(true), ignored);
      connection->socket.set_option(asio::socket_base::keep_alive(true), ignored);
      if (url.is_secure) {
        why = co_await connection->secure(url.host);
      }
    }
    x.connecting.cancel();
    if (!connection->socket.is_open()) {
      co_return "no answer";
    }
    connection->connected = why.empty();
    co_return why;
  }

  asio::awaitable<void> find(Exchange& x, Clock::time_point deadline, Found& found) {
    asio::error_code error;
    const auto address = asio::ip::make_address(url.host, error);
    if (!error) {
      found.endpoints.emplace_back(address, url.port);
      co_return;
    }
    // One for all that wait: a resolver that hangs costs one thread.
    if (!lookup) {
      start_lookup();
    }
    const auto mine = lookup;
    x.connecting.expires_at(deadline);
    x.connecting.async_wait(
        [self = shared_from_this()](const asio::error_code&) { self->looked_up.notify(); });
    while (!mine->done && !x.over() && Clock::now() < deadline) {
      co_await looked_up.wait();
    }
    x.connecting.cancel();
    if (mine->done) {
      found = mine->found;
    } else {
      found.error = "its name is still being looked up";
    }
  }

  void start_lookup() {
    lookup = std::make_shared<Lookup>();
    const SignalsBlocked blocked;
    std::thread([self = weak_from_this(), ex = executor, shared = lookup, host = url.host, port = url.port] {
      Found found = look_up(host, port);
      const std::lock_guard lock(shared->mutex);
      if (!shared->wanted) {
        return;
      }
      shared->found = std::move(found);
      asio::post(ex, [self, shared] {
        shared->done = true;
        if (const auto state = self.lock()) {
          state->lookup.reset();
          state->looked_up.notify();
        }
      });
    }).detach();
  }

  // --- asking and listening

  static asio::awaitable<asio::error_code> talk(Exchange& x, HttpResponse& response) {
    const auto connection = x.connection;
    const asio::error_code unsent = co_await connection->write(x.head, x.event);
    // A server that refuses an event may answer and close without having read it all.
    while (response.state() == HttpResponse::State::head || response.state() == HttpResponse::State::body) {
      const Arrived arrived = co_await connection->read();
      response.take(arrived.bytes);
      if (arrived.error) {
        response.end();
        co_return unsent ? unsent : arrived.error;
      }
    }
    co_return unsent;
  }

  void judge(Exchange& x, const HttpResponse& response, const asio::error_code& error, HttpAnswer& answer) {
    if (response.keeps_alive() && response.state() == HttpResponse::State::complete && !error && !x.over() &&
        idle.size() < idle_max) {
      idle.push_back(std::move(x.connection));
    }
    // The status alone decides, also when the body behind it is damaged or late.
    if (response.has_status()) {
      answer.outcome = HttpAnswer::Outcome::answered;
      answer.status = response.status();
      explain(response, answer);
    } else if (x.timed_out) {
      answer.outcome = HttpAnswer::Outcome::timed_out;
      answer.why = fmt::format("{} gave no answer in time", url.authority);
    } else {
      answer.outcome = HttpAnswer::Outcome::broken;
      answer.why = response.begun()
                       ? fmt::format("{} sent no proper answer: {}", url.authority, response.problem())
                       : fmt::format("lost the connection to {} before its answer: {}", url.authority,
                                     error == asio::error::eof ? "closed" : error.message());
    }
  }

  void explain(const HttpResponse& response, HttpAnswer& answer) const {
    if (verdict_of_status(answer.status) == Verdict::done) {
      return;
    }
    answer.why = fmt::format("{} answered {}", url.authority, answer.status);
    if (answer.status >= 300 && answer.status < 400 && !response.location().empty()) {
      answer.why += fmt::format(" (to {}): redirections are not followed, give the final URL",
                                response.location().substr(0, HttpResponse::excerpt_bytes_max));
    } else if (!response.excerpt().empty()) {
      answer.why += ": " + response.excerpt();
    }
    const auto now = std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now());
    answer.retry_after = parse_retry_after(response.retry_after(), now);
  }

  void stop() {
    over = true;
    if (lookup) {
      const std::lock_guard lock(lookup->mutex);
      lookup->wanted = false;
    }
    for (const auto& x : pending) {
      x->cut = true;
      x->done = nullptr;
      x->limit.cancel();
      x->connecting.cancel();
      x->close();
    }
    pending.clear();
    idle.clear();
    looked_up.notify();
  }

  asio::any_io_executor executor;
  HttpUrl url;
  std::vector<std::shared_ptr<Exchange>> pending;
  std::vector<std::shared_ptr<Connection>> idle;  // the one used last at the end
  std::shared_ptr<Lookup> lookup;                 // while one runs
  Signal looked_up;
  bool over = false;
};

HttpClient::HttpClient(const asio::any_io_executor& executor, HttpUrl url)
    : state_(std::make_shared<State>(executor, std::move(url))) {
  if (state_->url.is_secure) {
    require_tls();
  }
}

HttpClient::~HttpClient() {
  stop();
}

void HttpClient::stop() {
  state_->stop();
}

void HttpClient::post(const HttpDelivery& delivery, std::string_view event, Milliseconds timeout,
                      std::function<void(const HttpAnswer&)> done) {
  if (state_->over) {
    return;
  }
  const auto x = std::make_shared<Exchange>(state_->executor);
  // Names of topics and groups have no bytes that could end a header.
  x->head = fmt::format(
      "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: continuum/{}\r\n"
      "Content-Type: application/cloudevents+json; charset=UTF-8\r\nContent-Length: {}\r\n"
      "Continuum-Topic: {}\r\nContinuum-Group: {}\r\nContinuum-Partition: {}\r\nContinuum-Offset: {}\r\n"
      "Continuum-Attempt: {}\r\nContinuum-Generation: {}\r\nContinuum-Fence: {}\r\n{}\r\n",
      state_->url.target, state_->url.authority, CONTINUUM_VERSION, event.size(), delivery.topic,
      delivery.group, delivery.partition, delivery.offset, delivery.attempt, delivery.generation,
      delivery.fence,
      delivery.how == HttpDelivery::How::replayed ? "Continuum-Replay: 1\r\n" : std::string_view());
  x->event = event;
  x->done = std::move(done);
  x->limit.expires_after(timeout);
  x->limit.async_wait([x, state = state_](const asio::error_code& stopped) {
    if (!stopped) {
      x->timed_out = true;
      x->connecting.cancel();
      x->close();
      state->looked_up.notify();
    }
  });
  state_->pending.push_back(x);
  asio::co_spawn(state_->executor, State::run(state_, x), asio::detached);
}

}  // namespace continuum
