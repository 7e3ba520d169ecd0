// Lines from files and pipes, read so that the reader knows when the input goes idle.
#pragma once

#include "continuum/types.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// Where lines come from: a descriptor that somebody else owns, or a text.
struct LineSource {
  std::string name;  // for messages
  int descriptor = -1;
  std::string text;  // when there is no descriptor
};

struct Line {
  std::string_view text;      // without the newline; json::padding_bytes readable bytes follow
  std::uint64_t number = 0;   // over all sources, from 1
  std::size_t source = 0;     // index of its source
  std::size_t cut_bytes = 0;  // how much of an overlong line is not in `text`
};

class LineReader {
 public:
  // Bytes of one line that are kept. A longer line is cut, so that one without an end cannot take all memory.
  static constexpr std::size_t line_bytes_max = std::size_t{64} << 20;

  // `wake`: a descriptor whose readability ends a wait; not read from.
  LineReader(std::vector<LineSource> sources, int wake);

  enum class Got : std::uint8_t {
    line,
    idle,  // nothing to read now: wait() before asking again
    end,
  };
  // Throws Error{usage} when a source cannot be read; all lines before that were given.
  [[nodiscard]] Got next(Line& line);

  // Until there is input, the deadline passes or `wake` is readable.
  void wait(std::optional<std::chrono::steady_clock::time_point> deadline) const;
  // The same, but input does not end it.
  void wait_only(std::chrono::steady_clock::time_point deadline) const;

  [[nodiscard]] std::uint64_t bytes_read() const { return bytes_read_.load(std::memory_order_relaxed); }
  // When the bytes of the present line were read: a time for events that bring none.
  [[nodiscard]] SystemTime read_at() const { return read_at_; }
  [[nodiscard]] const LineSource& source(std::size_t i) const { return sources_[i]; }

 private:
  enum class Filled : std::uint8_t { more, idle, end };
  Filled fill();
  void make_room();
  void give(Line& line, std::size_t end, std::size_t skip);

  std::vector<LineSource> sources_;
  int wake_;
  std::size_t source_ = 0;
  bool is_file_ = false;
  bool opened_ = false;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;    // of what was not given yet
  std::size_t end_ = 0;      // of what was read
  std::size_t scanned_ = 0;  // no newline before this
  std::size_t cut_ = 0;
  std::uint64_t number_ = 0;
  std::atomic<std::uint64_t> bytes_read_{0};
  SystemTime read_at_{};
};

}  // namespace continuum
