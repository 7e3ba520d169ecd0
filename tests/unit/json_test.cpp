#include "continuum/json.hpp"

#include "continuum/error.hpp"
#include "continuum/json_text.hpp"
#include "padded.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace continuum;
using namespace std::string_literals;
using json::Kind;

namespace {

std::optional<json::Invalid> parse(std::string_view text) {
  const Padded padded(text);
  json::Parser parser;
  const auto invalid = parser.parse(padded.text());
  // Both paths agree on every text.
  CHECK(invalid.has_value() == json::validate(text).has_value());
  return invalid;
}

struct Selected {
  Kind kind;
  std::string text;
  bool lone_surrogate = false;
  friend bool operator==(const Selected&, const Selected&) = default;
};

Selected select(std::string_view text, std::string_view pointer) {
  const Padded padded(text);
  json::Parser parser;
  REQUIRE_FALSE(parser.parse(padded.text()));
  const json::Value value = parser.at(json::Pointer(pointer));
  return {value.kind, std::string(value.text), value.lone_surrogate};
}

// What the tree of simdjson selects, after a check that the scan of the raw text selects the same: a number
// that simdjson refuses, next to the text, brings the parser on that path.
Selected select_both_ways(const std::string& text, const std::string& pointer) {
  const Selected tree = select("[" + text + ",0]", "/0" + pointer);
  const Selected raw = select("[" + text + ",1e400]", "/0" + pointer);
  CHECK(tree == raw);
  return tree;
}

std::string nested(std::size_t depth, std::string_view innermost) {
  return std::string(depth, '[') + std::string(innermost) + std::string(depth, ']');
}

}  // namespace

TEST_SUITE("json") {
  TEST_CASE("every kind of value is accepted, with white space around it") {
    for (const auto* text : {"{}", "[]", "0", "-0", "-0.0e-0", "1E+9", "\"\"", "true", "false", "null",
                             " \t\r\n{ \"a\" : [ 1 , 2 ] } \r\n",
                             R"({"a":{"b":[null,true,false,"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"]}})",
                             "\"\x7F\"", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\""}) {
      CAPTURE(text);
      CHECK_FALSE(parse(text));
    }
  }

  TEST_CASE("a number of any length is accepted and keeps its text") {
    const std::string digits(400, '7');
    for (const std::string& number :
         {digits, "-" + digits, "0." + digits, digits + "." + digits + "e" + digits, "1e400"s, "-1E-4000"s,
          "18446744073709551616"s, "9223372036854775808"s, "-9223372036854775809"s, "18446744073709551615"s,
          "-9223372036854775808"s, "1.50"s, "1e2"s, "-0"s, "0"s, "-0.0"s, "12"s, "-7"s}) {
      CAPTURE(number);
      CHECK(select(number, "") == Selected{Kind::number, number});
      CHECK(select("{\"a\":[" + number + "],\"b\":1}", "/a/0") == Selected{Kind::number, number});
      CHECK(select("{\"b\":1,\"a\": " + number + " }", "a") == Selected{Kind::number, number});
    }
  }

  TEST_CASE("what is wrong is named, with its byte") {
    struct Case {
      std::string text;
      std::string reason;
      std::size_t byte;
    };
    const std::vector<Case> cases = {
        {"", "empty", 0},
        {" \n", "empty", 0},
        {"\xEF\xBB\xBF{}", "a byte order mark (BOM), which JSON must not begin with", 0},
        {"{\"a\":1", "the text ends inside an object", 6},
        {"{\"a\"", "the text ends inside an object", 4},
        {"{\"a\":", "the text ends inside an object", 5},
        {"{", "the text ends inside an object", 1},
        {"[1,", "the text ends inside an array", 3},
        {"[", "the text ends inside an array", 1},
        {"\"abc", "the text ends inside a string", 4},
        {"\"abc\\", "the text ends inside a string", 5},
        {"\"abc\\\"", "the text ends inside a string", 6},
        {"\"\\u12", "the text ends inside a string", 5},
        {"{\"a\":1 \"b\":2}", "expected ',' or '}'", 7},
        {"[1 2]", "expected ',' or ']'", 3},
        {"[1}", "expected ',' or ']'", 2},
        {"{\"a\":1]", "expected ',' or '}'", 6},
        {"{\"a\" 1}", "expected ':' after a name", 5},
        {"{a:1}", "expected a name in double quotes", 1},
        {"{\"a\":1,}", "expected a name in double quotes", 7},
        {"[1,]", "expected a value", 3},
        {"[,1]", "expected a value", 1},
        {"{'a':1}", "expected a name in double quotes", 1},
        {"tru", "expected a value", 0},
        {"nullx", "more text after the value", 4},
        {"{} {}", "more text after the value", 3},
        {"{}\0"s, "more text after the value", 2},
        {"\0"s, "expected a value", 0},
        {"[\0]"s, "expected a value", 1},
        {"\"a\0b\""s, "a control character in a string", 2},
        {"\"a\nb\"", "a control character in a string", 2},
        {"{\"a\tb\":1}", "a control character in a string", 3},
        {"\"\\x\"", "an escape that JSON does not have", 1},
        {"\"\\u12g4\"", "\\u without four hexadecimal digits", 1},
        {"01", "a number with a leading zero", 1},
        {"-01", "a number with a leading zero", 2},
        {"-", "expected a digit", 1},
        {"1.", "expected a digit", 2},
        {"[1.]", "expected a digit", 3},
        {"1e", "expected a digit", 2},
        {"1e+", "expected a digit", 3},
        {"+1", "expected a value", 0},
        {".5", "expected a value", 0},
        {"NaN", "expected a value", 0},
        {"Infinity", "expected a value", 0},
        {"0x10", "more text after the value", 1},
        {"/* */1", "expected a value", 0},
        {"\v1", "expected a value", 0},
        {"\xC2\xA0"
         "1",
         "expected a value", 0},
    };
    for (const Case& each : cases) {
      CAPTURE(each.text);
      const auto invalid = parse(each.text);
      REQUIRE(invalid);
      CHECK(invalid->reason == each.reason);
      CHECK(invalid->byte == each.byte);
    }
  }

  TEST_CASE("invalid UTF-8 of every class is refused where it begins") {
    const std::vector<std::string> classes = {
        "\x80",              // a continuation alone
        "\xBF",              //
        "\xC0\xAF",          // overlong in two bytes
        "\xC1\xBF",          //
        "\xC3",              // cut in two bytes
        "\xC3(",             //
        "\xE0\x80\xAF",      // overlong in three
        "\xE0\x9F\xBF",      //
        "\xE2\x82",          // cut in three
        "\xE2(\xA1",         //
        "\xED\xA0\x80",      // surrogates
        "\xED\xBF\xBF",      //
        "\xF0\x80\x80\xAF",  // overlong in four
        "\xF0\x8F\xBF\xBF",  //
        "\xF0\x9F\x98",      // cut in four
        "\xF4\x90\x80\x80",  // above U+10FFFF
        "\xF5\x80\x80\x80",  //
        "\xF8\x88\x80\x80\x80",
        "\xFC\x84\x80\x80\x80\x80",
        "\xFE",
        "\xFF",
    };
    for (const std::string& bytes : classes) {
      for (const std::string& before :
           {""s, std::string(61, 'x'), std::string(64, 'x'), std::string(127, 'x')}) {
        CAPTURE(bytes);
        const auto invalid = parse("{\"" + before + "\":\"" + before + bytes + "\"}");
        REQUIRE(invalid);
        CHECK(invalid->reason == "not UTF-8");
        CHECK(invalid->byte == 2 * before.size() + 5);
        CHECK(parse("{\"" + bytes + "\":1}"));
        CHECK(parse("1" + bytes));
      }
    }
    for (const auto* good : {"\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
                             "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
      CHECK_FALSE(parse("\""s + good + "\""));
    }
  }

  TEST_CASE("depth 1000 is accepted and depth 1001 is not, on both paths") {
    for (const auto* innermost : {"", "1", "1e400", "{}", "[]", "{\"a\":1}", "[\"\\ud800\"]"}) {
      const std::size_t inner_levels = *innermost == '{' || *innermost == '[' ? 1 : 0;
      CAPTURE(innermost);
      CHECK_FALSE(parse(nested(json::depth_max - inner_levels, innermost)));
      const auto invalid = parse(nested(json::depth_max - inner_levels + 1, innermost));
      REQUIRE(invalid);
      CHECK(invalid->reason == "nested deeper than 1000");
      CHECK(invalid->byte == 1000);
    }
    const auto deep = parse(nested(100'000, ""));
    REQUIRE(deep);
    CHECK(deep->reason == "nested deeper than 1000");
    std::string objects;
    for (int i = 0; i < 100'000; ++i) {
      objects += "{\"a\":";
    }
    CHECK(parse(objects)->reason == "nested deeper than 1000");
  }

  TEST_CASE("duplicate names are JSON, and ambiguous only for who selects them") {
    const std::string text = R"({"a":1,"b":{"c":1,"c":2},"a":2,"d":{"e":3}})";
    CHECK(select_both_ways(text, "/a").kind == Kind::ambiguous);
    CHECK(select_both_ways(text, "/a/x").kind == Kind::missing);
    CHECK(select_both_ways(text, "/b/c").kind == Kind::ambiguous);
    CHECK(select_both_ways(text, "/d/e") == Selected{Kind::number, "3"});
    CHECK(select_both_ways(R"({"a":1,"\u0061":2})", "/a").kind == Kind::ambiguous);
  }

  TEST_CASE("pointers select members and elements") {
    const std::string text =
        R"({"thr\u0065ad":"x","":{"":7},"a/b":1,"m~n":2,"list":[10,[true,null],{"k":"v"},"é\n"],"n":null, "o" : { } })";
    CHECK(select_both_ways(text, "/thread") == Selected{Kind::string, "x"});
    CHECK(select_both_ways(text, "/").kind == Kind::object);
    CHECK(select_both_ways(text, "//") == Selected{Kind::number, "7"});
    CHECK(select_both_ways(text, "/a~1b") == Selected{Kind::number, "1"});
    CHECK(select_both_ways(text, "/m~0n") == Selected{Kind::number, "2"});
    CHECK(select_both_ways(text, "/list/0") == Selected{Kind::number, "10"});
    CHECK(select_both_ways(text, "/list/1/0") == Selected{Kind::boolean, "true"});
    CHECK(select_both_ways(text, "/list/1/1") == Selected{Kind::null, "null"});
    CHECK(select_both_ways(text, "/list/2/k") == Selected{Kind::string, "v"});
    CHECK(select_both_ways(text, "/list/2") == Selected{Kind::object, R"({"k":"v"})"});
    CHECK(select_both_ways(text, "/list/1") == Selected{Kind::array, "[true,null]"});
    CHECK(select_both_ways(text, "/list/3") == Selected{Kind::string, "é\n"});
    CHECK(select_both_ways(text, "/n") == Selected{Kind::null, "null"});
    CHECK(select_both_ways(text, "/o") == Selected{Kind::object, "{ }"});
    for (const auto* missing :
         {"/x", "/list/4", "/list/-", "/list/00", "/list/01", "/list/+1", "/list/x", "/list/",
          "/list/99999999999999999999", "/n/x", "/thread/0", "/o/x", "/list/0/0"}) {
      CAPTURE(missing);
      CHECK(select_both_ways(text, missing).kind == Kind::missing);
    }
    CHECK(select(R"({"a~b":1})", "a~b") == Selected{Kind::number, "1"});
    CHECK(select(R"({"a/b":1})", "a/b") == Selected{Kind::number, "1"});
    CHECK(select(" [1] ", "") == Selected{Kind::array, "[1]"});
    CHECK(select("[]", "/0").kind == Kind::missing);
    CHECK(select("7", "x").kind == Kind::missing);
  }

  TEST_CASE("a pointer with a bad escape is a usage error that shows it") {
    for (const auto* text : {"/a~", "/a~2", "/~/b"}) {
      CHECK_THROWS_WITH_AS(json::Pointer{text}, doctest::Contains(text), Error);
    }
    CHECK(json::Pointer("/a/b").tokens() == std::vector<std::string>{"a", "b"});
    CHECK(json::Pointer("/~01").tokens() == std::vector<std::string>{"~1"});
    CHECK(json::Pointer("").tokens().empty());
    CHECK(json::Pointer("/a/b").text() == "/a/b");
  }

  TEST_CASE("a lone surrogate is JSON, but has no UTF-8 form") {
    for (const auto* text : {R"("\ud800")", R"("\udc00")", R"("a\ud800b")", R"("\ud800\ud800")",
                             R"("\ud800A")", R"("\udc00\ud800")", R"("\uDBFF\u0041")", R"("\ud800\n")"}) {
      CAPTURE(text);
      CHECK_FALSE(parse(text));
      CHECK(select("{\"k\":"s + text + "}", "k") == Selected{Kind::string, text, true});
      std::string scratch;
      CHECK_FALSE(json::unescape(text, scratch));
    }
    // Next to one, all else is still found.
    CHECK(select(R"({"\ud800":1,"b":"\ud800","k":"\u00e9"})", "k") == Selected{Kind::string, "é"});
    CHECK(select(R"(["\ud83d\ude00"])", "/0") == Selected{Kind::string, "\xF0\x9F\x98\x80"});
  }

  TEST_CASE("an escaped NUL is a byte of the string") {
    CHECK(select(R"({"k":"a\u0000b"})", "k") == Selected{Kind::string, "a\0b"s});
    CHECK(select(R"({"k":"a\u0000b","x":1e400})", "k") == Selected{Kind::string, "a\0b"s});
  }

  TEST_CASE("several values stay valid until the next text is parsed") {
    const Padded padded(R"({"a":"\u0061","b":123456789012345678,"c":"\u0063","x":1e400})");
    json::Parser parser;
    REQUIRE_FALSE(parser.parse(padded.text()));
    const json::Pointer a("a");
    const json::Pointer b("b");
    const json::Pointer c("c");
    const auto first = parser.at(a);
    const auto second = parser.at(b);
    const auto third = parser.at(c);
    for (int i = 0; i < 100; ++i) {
      CHECK(parser.at(c).text == "c");
    }
    CHECK(first.text == "a");
    CHECK(second.text == "123456789012345678");
    CHECK(third.text == "c");
    CHECK(parser.root_kind() == Kind::object);
  }

  TEST_CASE("a parser goes on after texts that it refused and after large ones") {
    json::Parser parser;
    for (std::size_t size : {10U, 100'000U, 5U, 3'000'000U, 10U}) {
      const Padded bad("[\"" + std::string(size, 'x'));
      CHECK(parser.parse(bad.text())->byte == size + 2);
      const Padded good("[\"" + std::string(size, 'x') + "\"]");
      CHECK_FALSE(parser.parse(good.text()));
      CHECK(parser.at(json::Pointer("/0")).text.size() == size);
      CHECK(parser.root_kind() == Kind::array);
    }
  }

  TEST_CASE("quoting escapes what JSON cannot hold and nothing else") {
    CHECK(json::quoted("") == "\"\"");
    CHECK(json::quoted("plain text of more than eight bytes") == "\"plain text of more than eight bytes\"");
    CHECK(json::quoted("a\"b\\c/d") == R"("a\"b\\c/d")");
    CHECK(json::quoted("\b\f\n\r\t\x01\x1f\x7f\0"s) == "\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\\u0000\"");
    CHECK(json::quoted("é€\xF0\x9F\x98\x80") == "\"é€\xF0\x9F\x98\x80\"");
    CHECK(json::quoted("a\xFF"
                       "b\xC3") ==
          "\"a\xEF\xBF\xBD"
          "b\xEF\xBF\xBD\"");
    CHECK(json::quoted("\xED\xA0\x80") == "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
    // Each special byte at each place of a word of eight.
    for (std::size_t place = 0; place < 20; ++place) {
      for (int byte = 0; byte < 128; ++byte) {
        std::string text(20, 'x');
        text[place] = static_cast<char>(byte);
        const std::string quoted = json::quoted(text);
        CHECK_FALSE(parse(quoted));
        std::string scratch;
        CHECK(json::unescape(quoted, scratch) == text);
      }
    }
  }

  TEST_CASE("unescaping gives a view where nothing is escaped and refuses what is no string") {
    std::string scratch;
    const std::string raw = R"("abc")";
    CHECK(json::unescape(raw, scratch)->data() == raw.data() + 1);
    CHECK(json::unescape(R"("\u0041\ud83d\ude00\/")", scratch) == "A\xF0\x9F\x98\x80/");
    for (const auto* bad :
         {"", "\"", "a", "\"a", "a\"", "\"a\"b\"", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u123g\"", "12"}) {
      CAPTURE(bad);
      CHECK_FALSE(json::unescape(bad, scratch));
    }
  }

  TEST_CASE("members are walked in order as raw text") {
    json::Members members(" { \"a\" : 1 , \"b\\\"\" : [ {\"x\":\"}\"} , 2 ],\"c\":\"\\\\\"} \n");
    std::string_view name;
    std::string_view value;
    REQUIRE(members.next(name, value));
    CHECK(name == "a");
    CHECK(value == "1");
    REQUIRE(members.next(name, value));
    CHECK(name == "b\\\"");
    CHECK(value == "[ {\"x\":\"}\"} , 2 ]");
    REQUIRE(members.next(name, value));
    CHECK(name == "c");
    CHECK(value == "\"\\\\\"");
    CHECK_FALSE(members.next(name, value));
    CHECK_FALSE(members.next(name, value));
    CHECK_FALSE(members.damaged());

    json::Members empty("{ }");
    CHECK_FALSE(empty.next(name, value));
    CHECK_FALSE(empty.damaged());
  }

  TEST_CASE("members of a damaged text end the walk and say so") {
    for (const auto* text : {"",           " ",
                             "[]",         "1",
                             "{",          "{\"",
                             "{\"a",       "{\"a\"",
                             "{\"a\":",    "{\"a\":1",
                             "{\"a\":1,",  "{\"a\":1,}",
                             "{,}",        "{\"a\":\"x}",
                             "{\"a\":{}",  "{\"a\":[}",
                             "{\"a\":1}x", "{}}",
                             "{\"a\" 1}",  "{a:1}",
                             "{\"a\":}",   "{\"a\":\"\\\"}",
                             "{\"a\":1 2}"}) {
      CAPTURE(text);
      json::Members members(text);
      std::string_view name;
      std::string_view value;
      for (int i = 0; i < 4 && members.next(name, value); ++i) {
      }
      CHECK_FALSE(members.next(name, value));
      CHECK(members.damaged());
    }
  }
}
