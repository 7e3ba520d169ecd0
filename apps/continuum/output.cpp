#include "output.hpp"

#include "continuum/error.hpp"
#include "continuum/json.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace continuum::app {
namespace {

constexpr std::size_t buffer_bytes = 64 << 10;
constexpr std::size_t bar_columns = 20;
constexpr auto redraw_every = std::chrono::milliseconds(100);
// So that one that is only slow gets whole lines.
constexpr auto patience_when_stopped = std::chrono::seconds(1);

int descriptor(Stream stream) {
  return stream == Stream::out ? STDOUT_FILENO : STDERR_FILENO;
}

// Columns on a terminal: code points, which is right for all but wide and combining characters.
std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::size_t terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string_view escape_of(Colour colour) {
  switch (colour) {
    case Colour::bold:
      return "\x1b[1m";
    case Colour::dim:
      return "\x1b[2m";
    case Colour::red:
      return "\x1b[31m";
    case Colour::green:
      return "\x1b[32m";
    case Colour::yellow:
      return "\x1b[33m";
    case Colour::none:
      break;
  }
  return {};
}

}  // namespace

Output& Output::write(std::string_view text) {
  buffer_ += text;
  if (buffer_.size() >= buffer_bytes) {
    flush();
  }
  return *this;
}

Output& Output::line(std::string_view text) {
  write(text);
  return write("\n");
}

namespace {

// Waits until stdout takes something.
void wait_for_reader(int stop) {
  std::array<pollfd, 2> both{{{STDOUT_FILENO, POLLOUT, 0}, {stop, POLLIN, 0}}};
  while (::poll(both.data(), both.size(), -1) < 0 && errno == EINTR) {
  }
  if (both[0].revents != 0 || both[1].revents == 0) {
    return;
  }
  const auto until = std::chrono::steady_clock::now() + patience_when_stopped;
  int ready = 0;
  do {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
    ready = ::poll(both.data(), 1, static_cast<int>(std::max<std::int64_t>(0, left)));
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) {
    fail(ErrorKind::interrupted,
         "interrupted: whoever reads standard output takes nothing. Run it again to go on where it stopped");
  }
}

}  // namespace

// How many of them. A pipe that takes something takes at least PIPE_BUF bytes without waiting.
std::size_t Output::write_some(std::string_view bytes) const {
  for (;;) {
    if (stop_ >= 0) {
      wait_for_reader(stop_);
      bytes = bytes.substr(0, PIPE_BUF);
    }
    const auto n = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
    if (n >= 0) {
      return static_cast<std::size_t>(n);
    }
    if (errno == EPIPE) {
      throw OutputClosed{};
    }
    if (errno == EBADF) {
      fail(ErrorKind::usage, "standard output is closed: there is nowhere to write to");
    }
    if (errno != EINTR) {
      fail(ErrorKind::server, "cannot write to standard output: {}", std::strerror(errno));
    }
  }
}

void Output::flush() {
  // What could not be written is not tried again.
  struct Clear {
    std::string& buffer;
    ~Clear() { buffer.clear(); }
  } const clear{buffer_};
  for (std::string_view rest = buffer_; !rest.empty();) {
    rest.remove_prefix(write_some(rest));
  }
}

bool is_terminal(Stream stream) {
  return isatty(descriptor(stream)) == 1;
}

bool has_colour(Stream stream) {
  const char* refused = std::getenv("NO_COLOR");  // https://no-color.org: set and not empty
  const char* kind = std::getenv("TERM");
  return is_terminal(stream) && (refused == nullptr || *refused == '\0') &&
         (kind == nullptr || std::string_view(kind) != "dumb");
}

std::string coloured(Stream stream, Colour colour, std::string_view text) {
  if (colour == Colour::none || !has_colour(stream)) {
    return std::string(text);
  }
  return fmt::format("{}{}\x1b[0m", escape_of(colour), text);
}

Cell::Cell(std::uint64_t count) : text(format_count(count)) {}

void Table::row(std::vector<Cell> cells) {
  check(cells.size() == columns_.size(), "a row has as many cells as the table has columns");
  for (auto& cell : cells) {
    cell.text = cell.text.empty() ? "-" : printable(cell.text);
  }
  rows_.push_back(std::move(cells));
}

void Table::print(Output& out) const {
  const bool colours = has_colour(Stream::out);
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    std::size_t width = columns_[c].header.size();
    for (const auto& row : rows_) {
      width = std::max(width, columns_of(row[c].text));
    }
    widths.push_back(width);
  }
  const auto put = [&](std::string& line, std::size_t c, std::string_view text, Colour colour) {
    const std::string padding(widths[c] - columns_of(text), ' ');
    const bool right = columns_[c].align == Table::Align::right;
    line += c == 0 ? "" : "  ";
    line += right ? padding : "";
    line += colours && colour != Colour::none ? fmt::format("{}{}\x1b[0m", escape_of(colour), text)
                                              : std::string(text);
    line += right || c + 1 == columns_.size() ? "" : padding;
  };
  std::string line;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    put(line, c, columns_[c].header, Colour::bold);
  }
  out.line(line);
  for (const auto& row : rows_) {
    line.clear();
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      put(line, c, row[c].text, row[c].colour);
    }
    out.line(line);
  }
}

JsonObject& JsonObject::add(std::string_view name, std::string_view value) {
  return add_raw(name, json::quoted(value));
}

JsonObject& JsonObject::add(std::string_view name, double value) {
  if (!std::isfinite(value)) {
    return add_raw(name, "null");
  }
  std::string text = fmt::format("{:.6f}", value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) {
    text.pop_back();
  }
  return add_raw(name, text == "-0" ? "0" : text);
}

JsonObject& JsonObject::add_raw(std::string_view name, std::string_view value) {
  text_ += text_.empty() ? '{' : ',';
  json::append_quoted(text_, name);
  text_ += ':';
  text_ += value;
  return *this;
}

std::string json_array(std::span<const std::string> elements) {
  return fmt::format("[{}]", fmt::join(elements, ","));
}

Progress::Progress(std::string label, std::uint64_t total, Show show)
    : label_(std::move(label)),
      total_(total),
      enabled_(show == Show::automatic && is_terminal(Stream::err)),
      started_(Clock::now()),
      drawn_at_(started_) {}

void Progress::update(std::uint64_t done, std::optional<std::uint64_t> shown) {
  if (!enabled_) {
    return;
  }
  const auto now = Clock::now();
  if (now - drawn_at_ < redraw_every) {
    return;
  }
  drawn_at_ = now;
  drawn_ = true;
  const double seconds = std::chrono::duration<double>(now - started_).count();
  const std::uint64_t count = shown.value_or(done);
  std::string text = label_ + "  ";
  if (total_ > 0) {
    const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total_));
    const auto full = static_cast<std::size_t>(share * bar_columns);
    text += fmt::format("{:3.0f}% [{}{}] ", std::floor(share * 100), std::string(full, '#'),
                        std::string(bar_columns - full, '.'));
  }
  text += format_count(count);
  if (total_ > 0 && !shown) {
    text += "/" + format_count(total_);
  }
  text += fmt::format("  {}/s", format_rate(static_cast<double>(count) / seconds));
  if (total_ > 0 && done > 0 && done <= total_) {
    const double left = seconds * static_cast<double>(total_ - done) / static_cast<double>(done);
    text += fmt::format("  {} left", format_duration(Milliseconds(static_cast<std::int64_t>(left * 1000))));
  }
  // A line that wraps could not be taken back.
  text = "\r" + text.substr(0, terminal_columns() - 1) + "\x1b[K";
  (void)!::write(STDERR_FILENO, text.data(), text.size());
}

void Progress::clear() {
  if (std::exchange(drawn_, false)) {
    constexpr std::string_view erase = "\r\x1b[K";
    (void)!::write(STDERR_FILENO, erase.data(), erase.size());
  }
}

}  // namespace continuum::app
