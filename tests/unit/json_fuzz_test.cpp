// Random damage to JSON, the same at every run: the strict validator against simdjson, and the two ways to
// look into a text against each other.
#include "continuum/event.hpp"
#include "continuum/json.hpp"
#include "continuum/json_text.hpp"
#include "padded.hpp"

#include <doctest/doctest.h>
#include <simdjson.h>

#include <random>
#include <string>
#include <string_view>
#include <vector>

using namespace continuum;

namespace {

const std::vector<std::string> seeds = {
    R"({"thread_id":"t-17","kind":"post.created","n":1.50,"tags":["a","b"],"nested":{"x":[1,2,{"y":null}]}})",
    R"(["\u00e9\ud83d\ude00","\\\"\/\b\f\n\r\t",-0.0e-10,1E+2,true,false,null,[],{}])",
    R"({"specversion":"1.0","id":"p:1","source":"/t","type":"x","time":"2024-05-01T12:00:00.000Z","partitionkey":"k","data":{"a":"}"}})",
    "{\"é€\xF0\x9F\x98\x80\":\"\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF\", \"\x7F\" : 12345678901234567890 }",
    R"([[[[[[[[[[1]]]]]]]]]])",
    R"("a long string without anything special in it, longer than one block of sixty-four bytes")",
    "-12.5e+7",
    R"({"a":1,"a":2,"\u0061":3})",
};

// Bytes that mean something to JSON or UTF-8, and words that are mostly right.
const std::vector<std::string> pieces = {"{",
                                         "}",
                                         "[",
                                         "]",
                                         ",",
                                         ":",
                                         "\"",
                                         "\\",
                                         "\\u",
                                         "\\ud800",
                                         "\\udc00",
                                         "\\u0000",
                                         "0",
                                         "1",
                                         "-",
                                         "+",
                                         ".",
                                         "e",
                                         "E",
                                         " ",
                                         "\t",
                                         "\r",
                                         "\n",
                                         std::string(1, '\0'),
                                         "\x01",
                                         "\x1F",
                                         "\x7F",
                                         "\x80",
                                         "\xBF",
                                         "\xC0",
                                         "\xC3",
                                         "\xE0",
                                         "\xED",
                                         "\xEF",
                                         "\xF0",
                                         "\xF4",
                                         "\xFF",
                                         "\xED\xA0\x80",
                                         "\xC3\xA9",
                                         "true",
                                         "false",
                                         "null",
                                         "nul",
                                         "1e400",
                                         "99999999999999999999",
                                         "\"a\":1",
                                         "[]",
                                         "{}",
                                         "\\\"",
                                         "\\\\"};

class Mutator {
 public:
  std::string next() {
    std::string text = seeds[below(seeds.size())];
    for (std::size_t times = 1 + below(4); times > 0; --times) {
      mutate(text);
    }
    return text;
  }

 private:
  std::size_t below(std::size_t bound) { return static_cast<std::size_t>(random_() % bound); }

  void mutate(std::string& text) {
    const std::size_t at = below(text.size() + 1);
    switch (below(6)) {
      case 0:
        text.insert(at, pieces[below(pieces.size())]);
        break;
      case 1:
        text.erase(at, 1 + below(3));
        break;
      case 2:
        text.replace(at, 1, pieces[below(pieces.size())]);
        break;
      case 3:
        text.resize(at);
        break;
      case 4:
        text.insert(at, text.substr(below(text.size() + 1), below(20)));
        break;
      default:
        if (at < text.size()) {
          text[at] = static_cast<char>(below(256));
        }
    }
  }

  std::mt19937_64 random_{20240501};
};

// What simdjson refuses although RFC 8259 allows it.
bool is_limit_of_simdjson(simdjson::error_code error, const std::string& text) {
  // Later versions have an error of its own for them, which Debian 12's has no name for.
  const bool long_integer = std::string_view(simdjson::error_message(error)).starts_with("BIGINT_ERROR");
  return error == simdjson::NUMBER_ERROR || long_integer ||
         (error == simdjson::STRING_ERROR && text.find("\\u") != std::string::npos);
}

void check_same(json::Parser& tree, json::Parser& raw, const std::string& text, const std::string& name) {
  const Padded with_small("[0," + text + "]");
  const Padded with_big("[1e400," + text + "]");
  REQUIRE_FALSE(tree.parse(with_small.text()));
  REQUIRE_FALSE(raw.parse(with_big.text()));
  for (const std::string& where : {std::string("/1"), "/1/" + name, "/1/" + name + "/0", "/1/0/" + name}) {
    const json::Pointer pointer(where);
    const json::Value a = tree.at(pointer);
    const json::Value b = raw.at(pointer);
    CAPTURE(where);
    CHECK(a.kind == b.kind);
    CHECK(a.text == b.text);
    CHECK(a.lone_surrogate == b.lone_surrogate);
  }
}

}  // namespace

TEST_SUITE("json fuzz") {
  TEST_CASE("the validator and simdjson agree on damaged JSON wherever simdjson has no limit of its own") {
    Mutator mutator;
    simdjson::dom::parser simd;
    json::Parser parser;
    std::size_t accepted = 0;
    std::size_t limits = 0;
    for (int i = 0; i < 40'000; ++i) {
      const std::string text = mutator.next();
      const Padded padded(text);
      const auto invalid = json::validate(padded.text());
      const auto bytes = reinterpret_cast<const std::uint8_t*>(padded.text().data());
      const simdjson::error_code error = simd.parse(bytes, text.size(), false).error();
      const bool agree = invalid.has_value() == (error != simdjson::SUCCESS);
      const bool limit = !invalid && is_limit_of_simdjson(error, text);
      if (!agree && !limit) {
        CAPTURE(text);
        CAPTURE(std::string(invalid ? invalid->reason : ""));
        CAPTURE(simdjson::error_message(error));
        CHECK(agree);
      }
      if (invalid && invalid->byte > text.size()) {
        CHECK(invalid->byte <= text.size());
      }
      if (parser.parse(padded.text()).has_value() != invalid.has_value()) {
        CAPTURE(text);
        FAIL("Parser and validator differ");
      }
      accepted += invalid ? 0U : 1U;
      limits += limit ? 1U : 0U;
    }
    // The damage must be of a kind that leaves some of each.
    CHECK(accepted > 2'000);
    CHECK(accepted < 36'000);
    CHECK(limits > 20);
  }

  TEST_CASE("the tree and the raw text give the same values") {
    Mutator mutator;
    json::Parser tree;
    json::Parser raw;
    std::size_t compared = 0;
    for (int i = 0; i < 20'000; ++i) {
      const std::string text = mutator.next();
      if (json::validate(text)) {
        continue;
      }
      // A text that simdjson refuses takes the raw path on both sides, which is no comparison but no harm.
      for (const auto* name : {"a", "n", "thread_id", "nested", "tags", "0", "id"}) {
        check_same(tree, raw, text, name);
        ++compared;
      }
    }
    CHECK(compared > 10'000);
  }

  TEST_CASE("walking members, unescaping and reading attributes never leave the text") {
    Mutator mutator;
    std::string scratch;
    std::size_t walked = 0;
    for (int i = 0; i < 40'000; ++i) {
      const std::string mutated = mutator.next();
      // Without padding: one byte too far is seen.
      const auto exact = std::make_unique<char[]>(mutated.size());
      std::copy(mutated.begin(), mutated.end(), exact.get());
      const std::string_view text{exact.get(), mutated.size()};
      json::Members members(text);
      std::string_view name;
      std::string_view value;
      while (members.next(name, value)) {
        static_cast<void>(json::unescape(value, scratch));
        ++walked;
      }
      const bool is_object = !text.empty() && json::trimmed(text).starts_with('{');
      if (is_object && !json::validate(text)) {
        CHECK_FALSE(members.damaged());
      }
      static_cast<void>(json::unescape(text, scratch));
      try {
        const Attributes attributes = attributes_of(text);
        static_cast<void>(key_of(attributes, scratch));
      } catch (const std::exception&) {
        CHECK((!is_object || json::validate(text)));
      }
    }
    CHECK(walked > 10'000);
  }

  TEST_CASE("quoted bytes are always JSON and come back when they are UTF-8") {
    Mutator mutator;
    std::string scratch;
    for (int i = 0; i < 20'000; ++i) {
      const std::string bytes = mutator.next();
      const std::string quoted = json::quoted(bytes);
      const auto invalid = json::validate(quoted);
      CHECK_FALSE(invalid);
      if (json::is_utf8(bytes)) {
        CHECK(json::unescape(quoted, scratch) == bytes);
      }
    }
  }
}
