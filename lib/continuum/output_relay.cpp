#include "continuum/output_relay.hpp"

#include "continuum/async.hpp"
#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <asio/buffer.hpp>
#include <asio/posix/stream_descriptor.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

namespace continuum {

namespace {

constexpr std::size_t read_bytes = 64 << 10;
constexpr Milliseconds idle{200};
constexpr std::chrono::seconds window{1};
// More than a pipe holds unless somebody goes on writing.
constexpr std::size_t rest_bytes_max = 1 << 20;

}  // namespace

struct OutputRelay::State : std::enable_shared_from_this<State> {
  State(const asio::any_io_executor& executor, std::string n, std::function<void(const std::string&)> s)
      : name(std::move(n)), say(std::move(s)), pipe(executor), timer(executor) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
      fail(ErrorKind::server, "cannot make a pipe for what handler {} prints: {}", name,
           std::strerror(errno));
    }
    pipe.assign(ends[0]);
    pipe.non_blocking(true);
    write_fd = ends[1];
  }
  ~State() { close(); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void close() {
    if (write_fd >= 0) {
      ::close(std::exchange(write_fd, -1));
    }
    asio::error_code ignored;
    pipe.close(ignored);
    timer.cancel();
  }

  static asio::awaitable<void> read(std::shared_ptr<State> self) {
    std::vector<char> buffer(read_bytes);
    for (;;) {
      const auto [error, n] = co_await self->pipe.async_read_some(asio::buffer(buffer), as_result);
      if (error) {
        co_return;
      }
      if (self->over) {
        continue;  // a read that was on its way
      }
      self->take(std::string_view(buffer.data(), n));
      self->arm();
    }
  }

  void take(std::string_view bytes) {
    last_read = Clock::now();
    if (last_read - window_since >= window) {
      open_window();
    }
    while (!bytes.empty()) {
      const std::size_t end = std::min(bytes.find('\n'), bytes.size());
      add(bytes.substr(0, end));
      if (end == bytes.size()) {
        break;
      }
      end_line();
      bytes.remove_prefix(end + 1);
    }
  }

  void add(std::string_view bytes) {
    if (cut) {
      return;
    }
    const std::size_t room = line_bytes_max - line.size();
    line.append(bytes.substr(0, room));
    if (bytes.size() > room) {
      // Told at once: its end may never come.
      cut = true;
      tell(" [cut at 4 KiB]");
    }
  }

  void end_line() {
    if (!cut) {
      if (line.ends_with('\r')) {
        line.pop_back();
      }
      if (!line.empty()) {
        tell("");
      }
    }
    cut = false;
  }

  void tell(std::string_view suffix) {
    if (told < lines_per_second) {
      ++told;
      say(fmt::format("handler {}: {}{}", name, printable(line), suffix));
    } else {
      ++not_shown;
    }
    line.clear();
  }

  void open_window() {
    if (not_shown > 0) {
      say(fmt::format("handler {}: {} further {} on stderr not shown", name, format_count(not_shown),
                      not_shown == 1 ? "line" : "lines"));
    }
    not_shown = 0;
    told = 0;
    window_since = Clock::now();
  }

  // For half a line, and for lines that were counted only: both are to be told when nothing more comes.
  void arm() {
    if (armed || (line.empty() && not_shown == 0)) {
      return;
    }
    armed = true;
    timer.expires_at(line.empty() ? window_since + window : last_read + idle);
    timer.async_wait([self = shared_from_this()](const asio::error_code& error) {
      self->armed = false;
      if (!error && !self->over) {
        self->on_time();
      }
    });
  }

  void on_time() {
    const auto now = Clock::now();
    if (now - window_since >= window) {
      open_window();
    }
    if (!line.empty() && now - last_read >= idle) {
      tell("");
    }
    arm();
  }

  void finish() {
    if (over) {
      return;
    }
    ::close(std::exchange(write_fd, -1));
    std::vector<char> buffer(read_bytes);
    for (std::size_t bytes = 0; bytes < rest_bytes_max;) {
      const ssize_t n = ::read(pipe.native_handle(), buffer.data(), buffer.size());
      if (n < 0 && errno == EINTR) {
        continue;
      }
      if (n <= 0) {
        break;
      }
      take(std::string_view(buffer.data(), static_cast<std::size_t>(n)));
      bytes += static_cast<std::size_t>(n);
    }
    end_line();
    open_window();
    over = true;
    close();
  }

  std::string name;
  std::function<void(const std::string&)> say;
  asio::posix::stream_descriptor pipe;
  asio::steady_timer timer;
  int write_fd = -1;
  bool over = false;
  bool armed = false;

  std::string line;  // its beginning
  bool cut = false;  // its beginning was told, the rest is left out
  Clock::time_point last_read;
  Clock::time_point window_since;
  std::uint64_t told = 0;  // in this window
  std::uint64_t not_shown = 0;
};

OutputRelay::OutputRelay(const asio::any_io_executor& executor, std::string name,
                         std::function<void(const std::string&)> say)
    : state_(std::make_shared<State>(executor, std::move(name), std::move(say))) {
  asio::co_spawn(executor, State::read(state_), asio::detached);
}

OutputRelay::~OutputRelay() {
  state_->over = true;
  state_->close();
}

int OutputRelay::fd() const {
  return state_->write_fd;
}

void OutputRelay::finish() {
  state_->finish();
}

}  // namespace continuum
