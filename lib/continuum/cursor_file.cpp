#include "continuum/cursor_file.hpp"

#include "continuum/error.hpp"
#include "continuum/json.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace continuum {

namespace {

class LineReader {
 public:
  explicit LineReader(const Topic& topic) : topic_(topic) {}

  void read(std::string_view line) {
    text_.assign(line);
    text_.reserve(text_.size() + json::padding_bytes);
    if (const auto invalid = parser_.parse(text_)) {
      fail(ErrorKind::usage, "not JSON: {}, at byte {}", invalid->reason, invalid->byte);
    }
    if (parser_.root_kind() != json::Kind::object) {
      fail(ErrorKind::usage, "not a JSON object");
    }
    if (const std::string topic(member("topic", json::Kind::string)); topic != topic_.name) {
      fail(ErrorKind::usage, "a cursor of topic {}, not of {}", printable(topic), topic_.name);
    }
    if (const std::string log(member("log", json::Kind::string)); log != topic_.log_id) {
      fail(ErrorKind::usage,
           "a cursor of another log of topic {} ({}; now it is {}): the topic was made anew since",
           topic_.name, printable(log), topic_.log_id);
    }
    const Partition partition(static_cast<std::uint32_t>(number("partition", partitions_max - 1)));
    const Offset offset(number("offset", number_max));
    if (!offsets_.emplace(partition, offset).second) {
      fail(ErrorKind::usage, "partition {} comes twice", partition);
    }
  }

  [[nodiscard]] std::map<Partition, Offset> take() { return std::move(offsets_); }

 private:
  std::string_view member(std::string_view name, json::Kind kind) {
    const json::Value value = parser_.at(json::Pointer(name));
    if (value.kind != kind) {
      fail(ErrorKind::usage, "its {} is {}, and has to be {}", name, json::name_of(value.kind),
           json::name_of(kind));
    }
    return value.text;
  }

  std::uint64_t number(std::string_view name, std::uint64_t max) {
    const std::string text(member(name, json::Kind::number));
    try {
      return parse_number(text, 0, max);
    } catch (const Error& error) {
      fail(error.kind(), "its {}: {}", name, error.message());
    }
  }

  const Topic& topic_;
  json::Parser parser_;
  std::string text_;
  std::map<Partition, Offset> offsets_;
};

}  // namespace

std::string cursor_line(const Topic& topic, std::string_view group, Partition partition, Offset offset) {
  return fmt::format(R"({{"topic":{},"log":{},"group":{},"partition":{},"offset":{}}})",
                     json::quoted(topic.name), json::quoted(topic.log_id), json::quoted(group), partition,
                     offset);
}

std::map<Partition, Offset> parse_cursor_file(std::string_view text, const Topic& topic) {
  if (text.size() > cursor_file_bytes_max) {
    fail(ErrorKind::usage, "more than {} bytes: not a file of cursors", cursor_file_bytes_max);
  }
  LineReader reader(topic);
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
      continue;
    }
    try {
      reader.read(line);
    } catch (const Error& error) {
      fail(error.kind(), "line {}: {}", number, error.message());
    }
  }
  auto offsets = reader.take();
  if (offsets.empty()) {
    fail(ErrorKind::usage, "there is no cursor in it");
  }
  return offsets;
}

}  // namespace continuum
