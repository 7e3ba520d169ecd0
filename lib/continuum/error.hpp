// Errors that end a command, and checks for programmer errors.
//
// Expected outcomes (a rejected line, a lost lease, a verdict) are return values. An Error is for what a
// command cannot go on from; main turns it into a message on stderr and the exit code of its kind. Every
// message says what went wrong, which (topic, partition, offset, line, path), and what to do next.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <exception>
#include <source_location>
#include <string>
#include <utility>

namespace continuum {

// The values are the exit codes of every command (docs/commands.md).
enum class ErrorKind : std::uint8_t {
  partial = 1,        // some items failed: rejected, halted
  usage = 2,          // usage, configuration, authentication, a server that is too old
  server = 3,         // unreachable, refusing writes, timed out: a retry makes sense
  loss = 4,           // loss or divergence was detected
  fenced = 5,         // somebody else holds the lease or the producer's name
  interrupted = 130,  // stopped by a signal before the work was done
};

class Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string message) : kind_(kind), message_(std::move(message)) {}

  [[nodiscard]] ErrorKind kind() const noexcept { return kind_; }
  [[nodiscard]] const std::string& message() const noexcept { return message_; }
  [[nodiscard]] const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorKind kind_;
  std::string message_;
};

template <class... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

namespace detail {
[[noreturn]] void check_failed(const char* what, const std::source_location& where) noexcept;
}

// A programmer error: prints the place on stderr and aborts, in release builds too, because going on
// would write wrong data.
inline void check(bool holds, const char* what,
                  const std::source_location& where = std::source_location::current()) noexcept {
  if (!holds) [[unlikely]] {
    detail::check_failed(what, where);
  }
}

}  // namespace continuum
