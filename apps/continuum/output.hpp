// What commands show: checked writing to stdout, tables, JSON objects, a progress bar.
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace continuum::app {

// The reader of our stdout went away: the command ends without a word, as if by SIGPIPE (exit 141).
struct OutputClosed {};

// Buffered stdout. Every failure is noticed: throws OutputClosed when the reader is gone, and Error{server}
// when a disk is full. What is still buffered when it is destroyed is lost: call flush() at the end.
class Output {
 public:
  Output& write(std::string_view text);
  Output& line(std::string_view text);
  void flush();
  // Once this descriptor is readable, a reader that takes nothing for a second is waited for no longer:
  // throws Error{interrupted}. Not owned.
  void stop_by(int descriptor) { stop_ = descriptor; }

 private:
  [[nodiscard]] std::size_t write_some(std::string_view bytes) const;

  int stop_ = -1;
  std::string buffer_;
};

enum class Stream : std::uint8_t { out, err };
[[nodiscard]] bool is_terminal(Stream stream);
// A terminal, and NO_COLOR is not set.
[[nodiscard]] bool has_colour(Stream stream);

enum class Colour : std::uint8_t { none, bold, dim, red, green, yellow };
// `text` in that colour where the stream shows colours, else as it is.
[[nodiscard]] std::string coloured(Stream stream, Colour colour, std::string_view text);

struct Cell {
  std::string text;
  Colour colour = Colour::none;
  Cell(std::string t, Colour c = Colour::none) : text(std::move(t)), colour(c) {}
  Cell(std::string_view t) : text(t) {}
  Cell(const char* t) : text(t) {}
  // Counts get their thousands marked.
  Cell(std::uint64_t count);
  Cell(std::uint32_t count) : Cell(std::uint64_t{count}) {}
};

// Aligned columns under upper-case headers without blanks; two blanks between columns. Cells are made safe
// for a terminal. An empty cell shows as "-", so that columns can be cut.
class Table {
 public:
  enum class Align : std::uint8_t { left, right };
  struct Column {
    std::string header;
    Align align = Align::left;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void row(std::vector<Cell> cells);
  [[nodiscard]] bool empty() const { return rows_.empty(); }
  void print(Output& out) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

// A JSON object, member by member, on one line.
class JsonObject {
 public:
  JsonObject& add(std::string_view name, std::string_view value);
  JsonObject& add(std::string_view name, const char* value) { return add(name, std::string_view(value)); }
  JsonObject& add(std::string_view name, const std::string& value) {
    return add(name, std::string_view(value));
  }
  template <std::same_as<bool> T>
  JsonObject& add(std::string_view name, T value) {
    return add_raw(name, value ? "true" : "false");
  }
  template <std::integral T>
    requires(!std::same_as<T, bool> && !std::same_as<T, char>)
  JsonObject& add(std::string_view name, T value) {
    return add_raw(name, std::to_string(value));
  }
  // Offset, Partition, Generation, Fence, Position
  template <class T>
    requires requires(T v) {
      typename T::rep;
      v.value;
    }
  JsonObject& add(std::string_view name, T value) {
    return add(name, value.value);
  }
  JsonObject& add(std::string_view name, double value);  // at most six digits behind the point
  // null for nullopt
  template <class T>
  JsonObject& add(std::string_view name, const std::optional<T>& value) {
    return value ? add(name, *value) : add_raw(name, "null");
  }
  JsonObject& add_raw(std::string_view name, std::string_view json);
  [[nodiscard]] std::string text() const { return text_.empty() ? "{}" : text_ + "}"; }

 private:
  std::string text_;
};
// [a,b,c] of JSON texts.
[[nodiscard]] std::string json_array(std::span<const std::string> elements);

// On stderr, only when that is a terminal and the command is not quiet; redrawn at most ten times a second.
//   publish   45% [#########...........] 450,000/1,000,000  1.2 M/s  0.5s left
//   work     450,000  1.2 M/s
class Progress {
 public:
  enum class Show : std::uint8_t { automatic, never };
  // `total`: 0 when it is not known.
  Progress(std::string label, std::uint64_t total, Show show);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Cheap: looks at the clock only. `done` counts what `total` counts; `shown` (else done) is what the
  // numbers and the rate show, such as events where `done` are bytes of the input.
  void update(std::uint64_t done, std::optional<std::uint64_t> shown = std::nullopt);
  // Before anything else is written to the terminal, and at the end.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  std::uint64_t total_;
  bool enabled_;
  bool drawn_ = false;
  Clock::time_point started_;
  Clock::time_point drawn_at_;
};

}  // namespace continuum::app
