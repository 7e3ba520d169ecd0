// JSON text (RFC 8259) as bytes: validate it, look into it, escape into it. Nothing here builds a tree
// that outlives a call: events are kept byte for byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum::json {

inline constexpr std::size_t depth_max = 1000;
// Parser::parse may read this many bytes past the end of its text; they may hold anything.
inline constexpr std::size_t padding_bytes = 64;

// Why a text is not JSON, and where: `byte` counts from 0 in the text.
struct Invalid {
  std::string reason;
  std::size_t byte = 0;
};

// A JSON Pointer (RFC 6901), or the name of a top-level member when it does not begin with '/'.
class Pointer {
 public:
  // Throws Error{usage} when a '~' is not followed by 0 or 1.
  explicit Pointer(std::string_view text);

  [[nodiscard]] const std::vector<std::string>& tokens() const { return tokens_; }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::vector<std::string> tokens_;
};

enum class Kind : std::uint8_t { missing, null, boolean, number, string, array, object, ambiguous };
[[nodiscard]] std::string_view name_of(Kind kind);  // "a string", "an object", …: for messages

// What a pointer selects. `text` is the unescaped bytes of a string, or the literal text of any other
// value; it is valid until the parser parses again. `ambiguous`: an object on the way has the name twice.
// A string with a lone surrogate escape has no UTF-8 form: its `text` is the raw JSON with its quotes.
struct Value {
  Kind kind = Kind::missing;
  std::string_view text;
  bool lone_surrogate = false;
};

// Validates texts and selects values. Keeps its buffers between texts: one per thread.
class Parser {
 public:
  Parser();
  ~Parser();
  Parser(const Parser&) = delete;
  Parser& operator=(const Parser&) = delete;

  // Accepts exactly RFC 8259 in UTF-8 up to depth_max: any number of digits, any exponent, lone
  // surrogate escapes and duplicate names are allowed, as the RFC does. Surrounding white space is
  // allowed. The text must stay alive while values are read.
  [[nodiscard]] std::optional<Invalid> parse(std::string_view text);

  // Of the text that parse() accepted last.
  [[nodiscard]] Value at(const Pointer& pointer);

  [[nodiscard]] Kind root_kind() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Appends `bytes` (UTF-8) as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
void append_quoted(std::string& out, std::string_view bytes);
[[nodiscard]] std::string quoted(std::string_view bytes);

[[nodiscard]] bool is_utf8(std::string_view bytes);

// The bytes of a JSON string given with its quotes. Returns a view into `raw` when nothing is escaped,
// else into `scratch`. nullopt when it is not a string or has a lone surrogate.
[[nodiscard]] std::optional<std::string_view> unescape(std::string_view raw, std::string& scratch);

// Walks the members of a JSON object that is already known to be valid, such as a stored event. Safe on
// any bytes: a text that is not an object, or damaged, ends the walk with damaged() true.
class Members {
 public:
  explicit Members(std::string_view object);
  // Name and value as raw JSON text (the name without quotes but still escaped). False at the end.
  [[nodiscard]] bool next(std::string_view& name, std::string_view& value);
  [[nodiscard]] bool damaged() const { return damaged_; }

 private:
  const char* at_;
  const char* end_;
  bool damaged_ = false;
};

}  // namespace continuum::json
