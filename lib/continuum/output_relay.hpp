// What a handler's processes print on stderr, on its way to a person: named, printable, bounded.
// Private to the library: includes Asio.
#pragma once

#include <asio/any_io_executor.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace continuum {

// One for each handler; all of its processes on all partitions share the pipe. Always reads on, so that a
// process waits for us no longer than the loop is busy, and holds one line at most.
//
//   "handler NAME: " line                               cut at line_bytes_max, which it then says
//   "handler NAME: 12,345 further lines on stderr not shown"    once a second, beyond lines_per_second
//
// Empty lines are left out. A line without its newline is told when nothing has followed for a moment.
class OutputRelay {
 public:
  static constexpr std::size_t line_bytes_max = 4 << 10;
  static constexpr std::uint64_t lines_per_second = 200;

  // `say` gets one line each, without a newline, on the executor's thread, also from finish(). Reading begins
  // when the executor runs. Throws Error{server} when the system has no pipe left.
  OutputRelay(const asio::any_io_executor& executor, std::string name,
              std::function<void(const std::string&)> say);
  ~OutputRelay();  // what finish() has not told is lost
  OutputRelay(const OutputRelay&) = delete;
  OutputRelay& operator=(const OutputRelay&) = delete;

  // The end that becomes fd 2 of a process. Blocks when the pipe is full, as programs expect; closes on exec.
  // Ours until finish(); -1 from then on.
  [[nodiscard]] int fd() const;

  // To be called when the processes have ended: tells what the pipe still holds, and closes it. Does not wait
  // for a process that got away and still has the other end: that one gets SIGPIPE.
  void finish();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace continuum
