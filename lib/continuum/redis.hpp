// The server: where it is, whether it can be relied on, requests and replies, and a session for commands
// that ask and wait. Publisher and worker, which overlap their requests, use redis_client.hpp.
#pragma once

#include "continuum/error.hpp"
#include "continuum/types.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

struct redisReply;
namespace asio {
class io_context;
}

namespace continuum::redis {

// redis://[USER[:PASSWORD]@]HOST[:PORT][/DB], unix://PATH[?db=N&user=U], with %XX escapes.
struct Address {
  std::string host;  // empty for a unix socket
  std::uint16_t port = 6379;
  std::string socket_path;  // empty for TCP
  std::string user;
  std::string password;  // never shown
  std::uint32_t database = 0;
  bool embedded = false;  // our own server: local.hpp

  // Throws Error{usage} saying which forms there are. `local:` is resolved by local.hpp, not here.
  static Address parse(std::string_view url);
  [[nodiscard]] std::string text() const;  // for messages: without the password
};

// The operations that run in the server as one step. PROTOCOLS: lib/continuum/scripts/*.lua.
enum class Script : std::uint8_t {
  epoch,
  open,
  append,
  register_group,
  acquire,
  renew,
  release,
  commit,
  commit_grow,
  request_release,
  pause,
  seek,
  revoke,
  forget,
  begin,
  seal,
  activate,
  abort,
  join,
  take_cursor,
  move_cursor,
  forget_cursor,
  restore,
  restored,
  trim,
  audit,
  unregister,
};
inline constexpr std::size_t script_count = 27;

// One or more commands that are sent together and answered together.
class Request {
 public:
  // Each argument is a string or an integer.
  template <class... Args>
  Request& command(const Args&... args) {
    const std::string texts[] = {text(args)...};
    std::vector<std::string_view> views(std::begin(texts), std::end(texts));
    return add(views);
  }
  Request& add(std::span<const std::string_view> args);
  Request& script(Script script, std::span<const std::string_view> keys,
                  std::span<const std::string_view> args);
  Request& script(Script which, std::initializer_list<std::string_view> keys,
                  std::span<const std::string_view> args) {
    return script(which, std::span(keys.begin(), keys.size()), args);
  }
  template <class... Args>
  Request& run(Script which, std::initializer_list<std::string_view> keys, const Args&... args) {
    const std::string texts[] = {text(args)..., std::string()};
    std::vector<std::string_view> views(std::begin(texts), std::end(texts) - 1);
    return script(which, keys, views);
  }
  // Error replies are given to the caller instead of being thrown.
  Request& keep_errors() {
    keep_errors_ = true;
    return *this;
  }
  // That the server is full is an answer for the caller (an error reply that begins with OOM), and not a
  // reason to try again until it is not: others that need no memory must not wait behind this one.
  Request& keep_full() {
    keep_full_ = true;
    return *this;
  }
  // The server may hold the answer back this long on purpose (BLOCK, WAIT).
  Request& may_block(Milliseconds d) {
    block_ = d;
    return *this;
  }
  // Never sent over another connection than this one (Client::connections()): once it is gone there is no
  // answer, Replies of size 0. For what builds on answers that a server may forget when it is restarted.
  Request& only_on(std::uint64_t connection) {
    connection_ = connection;
    return *this;
  }

  [[nodiscard]] const std::string& bytes() const { return bytes_; }
  [[nodiscard]] std::size_t replies() const { return replies_; }
  [[nodiscard]] bool empty() const { return replies_ == 0; }
  [[nodiscard]] bool keeps_errors() const { return keep_errors_; }
  [[nodiscard]] bool keeps_full() const { return keep_full_; }
  [[nodiscard]] Milliseconds block() const { return block_; }
  [[nodiscard]] std::optional<std::uint64_t> connection() const { return connection_; }

 private:
  template <class T>
  static std::string text(const T& v) {
    if constexpr (std::is_integral_v<T>) {
      return std::to_string(v);
    } else if constexpr (requires { v.value; }) {
      return std::to_string(v.value);
    } else {
      return std::string(std::string_view(v));
    }
  }

  std::string bytes_;
  std::size_t replies_ = 0;
  bool keep_errors_ = false;
  bool keep_full_ = false;
  Milliseconds block_{0};
  std::optional<std::uint64_t> connection_;
};

// A view of one reply; valid while its Replies lives. Asking for what it is not throws Error{server}:
// the server answered something that this version does not understand.
class Reply {
 public:
  explicit Reply(const redisReply* reply) : reply_(reply) {}

  [[nodiscard]] bool is_nil() const;
  [[nodiscard]] bool is_error() const;
  [[nodiscard]] bool is_array() const;
  [[nodiscard]] std::string_view text() const;  // string, status, error
  [[nodiscard]] std::int64_t integer() const;   // an integer, or a string of digits
  [[nodiscard]] std::uint64_t number() const;   // integer() that is not negative
  [[nodiscard]] std::size_t size() const;       // elements of an array; 0 for nil
  [[nodiscard]] Reply operator[](std::size_t i) const;
  // The value of a field in an array of field, value, field, value.
  [[nodiscard]] std::optional<std::string_view> field(std::string_view name) const;

 private:
  const redisReply* reply_;
};

class Replies {
 public:
  Replies() = default;
  void push(redisReply* owned);  // takes ownership
  [[nodiscard]] std::size_t size() const { return replies_.size(); }
  [[nodiscard]] Reply operator[](std::size_t i) const { return Reply(replies_.at(i).get()); }

 private:
  struct Free {
    void operator()(redisReply* r) const;
  };
  std::vector<std::unique_ptr<redisReply, Free>> replies_;
};

// What was learned on connect.
struct ServerFacts {
  std::string version;         // as the server states it
  std::string name = "Redis";  // or Valkey
  std::string eviction;        // maxmemory-policy
  bool append_only_file = false;
  bool replica = false;
  std::string master;  // host:port, of a replica
};

// What a command asks of its server. Version 7.0 and a passing handshake always.
struct Needs {
  enum class Access : std::uint8_t { read, write };
  enum class Eviction : std::uint8_t { refuse, allow };
  Access access = Access::read;
  Eviction eviction = Eviction::refuse;  // of any key (allkeys-*)
};

struct ClientOptions {
  Needs needs;
  Milliseconds timeout{10'000};  // for one answer; the connection is dropped after it
  // How long a request is sent again over new connections before it fails with Error{server}. The first
  // connection is tried once: a wrong address should be heard of at once.
  Milliseconds retry_for{0};
  // A server that is loading, busy or full is waited for this long even at the start.
  Milliseconds patience{30'000};
  // For a person: lost connections, waiting for a server that is loading or full, and their end. May be
  // empty.
  std::function<void(const std::string&)> notice;
};

class Client;

// One connection whose requests wait for their answers. Not for use by several threads.
class Session {
 public:
  // Connects, authenticates, checks. Throws Error{server} when it cannot be reached and Error{usage} when it
  // refuses us, is too old, or is not Redis.
  Session(Address address, ClientOptions options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // All answers, in order. Throws for error answers unless request.keep_errors().
  Replies call(Request request);
  // A descriptor that is readable once somebody wants an end, and outlives this: from then on a call has a
  // second for its answers, and throws Error{interrupted} when they have not come. So does every call after
  // it.
  void stop_by(int descriptor);
  [[nodiscard]] const ServerFacts& facts() const;
  [[nodiscard]] const Address& address() const;

 private:
  friend Client& client_of(Session& session);
  friend asio::io_context& io_of(Session& session);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace continuum::redis
