// The thread that writes what is printed. Private to the library.
#pragma once

#include <asio/any_io_executor.hpp>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace continuum {

// Output may be a pipe that nobody reads for an hour: it belongs to a thread of its own, which writes one
// piece after the other.
class OutputWriter {
 public:
  OutputWriter(int fd, asio::any_io_executor executor);
  // Waits for what is being written, but not for a reader that does not read: that thread is left behind.
  ~OutputWriter();
  OutputWriter(const OutputWriter&) = delete;
  OutputWriter& operator=(const OutputWriter&) = delete;

  struct Piece {
    std::string_view bytes;  // kept alive by `done`
    std::shared_ptr<std::atomic<bool>> cancelled;
    // On the executor's thread: 0 or the error. Not called when this object has gone meanwhile.
    std::function<void(int error)> done;
  };
  void write(Piece piece);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace continuum
