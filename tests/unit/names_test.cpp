#include "continuum/names.hpp"

#include "continuum/error.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace continuum;

namespace {

std::string refusal(std::string_view name) {
  try {
    require_name("topic", name);
    return {};
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    return error.message();
  }
}

const std::string rule = "letters, digits, '.', '_' and '-' are allowed, up to 64, not '-' first";

}  // namespace

TEST_CASE("a name of allowed bytes up to the limit is taken") {
  CHECK(refusal("posts") == "");
  CHECK(refusal("A.b_c-9") == "");
  CHECK(refusal(std::string(64, 'x')) == "");
}

TEST_CASE("a refused name is told with the reason") {
  CHECK(refusal("") == "the topic name is empty: " + rule);
  CHECK(refusal("-x") == "the topic name \"-x\" begins with '-': " + rule);
  CHECK(refusal("a b") == "the topic name \"a b\" has ' ' in it: " + rule);
  CHECK(refusal("a{b}") == "the topic name \"a{b}\" has '{' in it: " + rule);
  CHECK(refusal("caf\u00e9") == "the topic name \"caf\u00e9\" has '\u00e9' in it: " + rule);
  CHECK(refusal(std::string(65, 'x')) == "the topic name xxxxxxxxxxxxxxxxxxxx… has 65 bytes: " + rule);
}

TEST_CASE("a refused name cannot write to the terminal") {
  CHECK(refusal("a\x1b[2Jb").find('\x1b') == std::string::npos);
  CHECK(refusal(std::string("a\0b", 3)) == "the topic name \"a\\x00b\" has '\\x00' in it: " + rule);
}

TEST_CASE("the nearest name is the one with the fewest changes") {
  const std::vector<std::string> options{"--partitions", "--position", "--producer"};
  CHECK(nearest("--partitons", options) == "--partitions");
  CHECK(nearest("--positoin", options) == "--position");
  const std::vector<std::string> commands{"publish", "work", "ring"};
  CHECK(nearest("wrok", commands) == "work");
  CHECK(nearest("replay", commands) == "");
  CHECK(nearest("", commands) == "");
}

TEST_CASE("two letters that changed places are one mistake") {
  const std::vector<std::string> names{"abc"};
  CHECK(nearest("acb", names) == "abc");
  CHECK(nearest("axy", names) == "");
}

TEST_CASE("a hint names what was meant, else what there is") {
  const std::vector<std::string> topics{"payments", "posts"};
  CHECK(hint_of("post", topics) == "; did you mean posts?");
  CHECK(hint_of("orders", topics) == "; there are: payments, posts");
  CHECK(hint_of("orders", {}) == "");
  const std::vector<std::string> many{"a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "b1"};
  CHECK(hint_of("something", many) == "; there are: a1, a2, a3, a4, a5, a6, a7, a8 and 2 more");
}

TEST_CASE("text in any language is printable as it is") {
  CHECK(printable("gr\u00fc\u00df dich, \u4e16\u754c \U0001F600") ==
        "gr\u00fc\u00df dich, \u4e16\u754c \U0001F600");
}

TEST_CASE("control characters are printed as their bytes") {
  CHECK(printable("\x1b[31m\n\t\x7f") == "\\x1B[31m\\x0A\\x09\\x7F");
  CHECK(printable("\u009b2J") == "\\xC2\\x9B2J");  // the one-character form of ESC [
  CHECK(printable("a\u202eb") ==
        "a\\xE2\\x80\\xAE"
        "b");  // shows the rest from right to left
  CHECK(printable("a\u2066b") ==
        "a\\xE2\\x81\\xA6"
        "b");
}

TEST_CASE("bytes that are not UTF-8 are printed as bytes") {
  CHECK(printable("\xff\xfe") == "\\xFF\\xFE");
  CHECK(printable("\xc0\xaf") == "\\xC0\\xAF");                    // overlong
  CHECK(printable("\xed\xa0\x80") == "\\xED\\xA0\\x80");           // a surrogate
  CHECK(printable("\xf4\x90\x80\x80") == "\\xF4\\x90\\x80\\x80");  // past U+10FFFF
  CHECK(printable("ab\xe4\xb8") == "ab\\xE4\\xB8");                // cut off
}
