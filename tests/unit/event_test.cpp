#include "continuum/event.hpp"

#include "continuum/error.hpp"
#include "padded.hpp"

#include <doctest/doctest.h>

#include <fmt/format.h>

#include <string>
#include <vector>

using namespace continuum;
using namespace std::string_literals;

namespace {

// 2024-05-01T12:00:00.123Z
constexpr SystemTime noon{Milliseconds{1'714'564'800'123}};

WrapOptions plain_options() {
  WrapOptions options;
  options.topic = "forum";
  options.producer = "importer";
  options.key = Selector::parse("thread_id");
  options.type = Selector::parse("=post");
  return options;
}

WrapOptions cloudevents_options() {
  WrapOptions options;
  options.topic = "forum";
  options.producer = "importer";
  return options;
}

struct Outcome {
  std::string rejection;  // empty: it is an event
  std::string line;       // without its newline
  std::string key;
  std::string id;
  std::uint64_t position = 0;
};

Outcome wrap(WrapOptions options, std::string_view text, std::uint64_t line_number = 7) {
  Wrapper wrapper(std::move(options));
  const Padded padded(text);
  Outcome outcome;
  if (auto rejection = wrapper.read(padded.text(), Position{line_number})) {
    CHECK_FALSE(rejection->empty());
    outcome.rejection = *rejection;
    return outcome;
  }
  outcome.key = wrapper.key();
  outcome.id = wrapper.id();
  outcome.position = wrapper.position().value;
  wrapper.write(outcome.line, noon);
  REQUIRE(outcome.line.ends_with('\n'));
  outcome.line.pop_back();
  CHECK(outcome.line.find('\n') == std::string::npos);
  const Padded stored(outcome.line);
  json::Parser parser;
  CHECK_FALSE(parser.parse(stored.text()));
  // What readers see is what the publisher meant.
  const Attributes attributes = attributes_of(outcome.line);
  std::string scratch;
  CHECK(key_of(attributes, scratch) == outcome.key);
  CHECK(json::unescape(attributes.id, scratch) == outcome.id);
  CHECK_FALSE(attributes.time.empty());
  return outcome;
}

std::string rejection_of(const WrapOptions& options, std::string_view text) {
  return wrap(options, text).rejection;
}

// A plain event with the default options.
std::string wrapped(std::string_view key, std::string_view data) {
  return fmt::format(
      R"({{"specversion":"1.0","id":"importer:7","source":"/forum","type":"post","time":"2024-05-01T12:00:00.123Z","partitionkey":{},"data":{}}})",
      key, data);
}

const std::string cloudevent =
    R"({ "id":"42", "specversion" : "1.0","source":"/s","type":"t" ,"time":"2024-05-01T14:00:00+02:00","partitionkey":"k","data":{"thread_id":"x","n":1.50} })";

}  // namespace

TEST_SUITE("event: plain input") {
  TEST_CASE("a plain value is wrapped in the order of the grammar and kept byte for byte") {
    const std::string data = R"({"thread_id" : "t1","n":1.50, "e":1e2,"x":[ ]})";
    const Outcome outcome = wrap(plain_options(), data);
    CHECK(outcome.rejection.empty());
    CHECK(outcome.line == wrapped("\"t1\"", data));
    CHECK(outcome.key == "t1");
    CHECK(outcome.id == "importer:7");
    CHECK(outcome.position == 7);
  }

  TEST_CASE("white space around the value goes, that inside stays") {
    CHECK(wrap(plain_options(), " \t{\"thread_id\":\"a\" }  \r").line ==
          wrapped("\"a\"", "{\"thread_id\":\"a\" }"));
  }

  TEST_CASE("JSON text of several lines becomes one line") {
    CHECK(wrap(plain_options(), "{\n\"thread_id\":\r\n\"a\\n\"\n}\n").line ==
          wrapped("\"a\\n\"", "{ \"thread_id\":\r \"a\\n\" }"));
  }

  TEST_CASE("a value need not be an object when its key is a literal") {
    auto options = plain_options();
    options.key = Selector::parse("=all");
    for (const auto* text : {"1", "\"text\"", "null", "[1,{}]", "1e400"}) {
      CHECK(wrap(options, text).line == wrapped("\"all\"", text));
    }
  }

  TEST_CASE("numbers of 400 digits and 1e400 are kept byte for byte, also as key") {
    const std::string digits(400, '9');
    const std::string data = "{\"thread_id\":\"a\",\"x\":" + digits + ",\"y\":1e400,\"z\":\"\\ud800\"}";
    CHECK(wrap(plain_options(), data).line == wrapped("\"a\"", data));
    CHECK(wrap(plain_options(), "{\"thread_id\":" + digits + "}").key == digits);
    CHECK(wrap(plain_options(), R"({"thread_id":1e400})").key == "1e400");
  }

  TEST_CASE("a number is a key by its text") {
    for (const auto* number :
         {"12", "-7", "1.50", "1e2", "0", "-0", "18446744073709551615", "123456789012345678901"}) {
      const Outcome outcome = wrap(plain_options(), fmt::format("{{\"thread_id\":{}}}", number));
      CHECK(outcome.key == number);
      CHECK(outcome.line ==
            wrapped(fmt::format("\"{}\"", number), fmt::format("{{\"thread_id\":{}}}", number)));
    }
  }

  TEST_CASE("a key is the unescaped bytes of its string") {
    CHECK(wrap(plain_options(), R"({"thr\u0065ad_id":"\u00e9\ud83d\ude00\n\"\/"})").key ==
          "é\xF0\x9F\x98\x80\n\"/");
    const Outcome nul = wrap(plain_options(), R"({"thread_id":"a\u0000b"})");
    CHECK(nul.key == "a\0b"s);
    CHECK(nul.line == wrapped("\"a\\u0000b\"", R"({"thread_id":"a\u0000b"})"));
    auto options = plain_options();
    options.key = Selector::parse("/a/0/b~1c");
    CHECK(wrap(options, R"({"a":[{"b/c":"deep"}]})").key == "deep");
  }

  TEST_CASE("a key that is missing, null, empty, no scalar or there twice is rejected with its reason") {
    const auto options = plain_options();
    CHECK(rejection_of(options, "{}") == R"(no field "thread_id" (the key))");
    CHECK(rejection_of(options, "[1]") == R"(no field "thread_id" (the key))");
    CHECK(rejection_of(options, "12") == R"(no field "thread_id" (the key))");
    CHECK(rejection_of(options, R"({"thread_id":null})") ==
          R"(field "thread_id" (the key) is null, not a string or a number)");
    CHECK(rejection_of(options, R"({"thread_id":true})") ==
          R"(field "thread_id" (the key) is a boolean, not a string or a number)");
    CHECK(rejection_of(options, R"({"thread_id":{}})") ==
          R"(field "thread_id" (the key) is an object, not a string or a number)");
    CHECK(rejection_of(options, R"({"thread_id":[1]})") ==
          R"(field "thread_id" (the key) is an array, not a string or a number)");
    CHECK(rejection_of(options, R"({"thread_id":""})") ==
          R"(field "thread_id" (the key) is an empty string)");
    CHECK(rejection_of(options, R"({"thread_id":"a","x":1,"thread_id":"a"})") ==
          R"(field "thread_id" (the key) is there twice)");
    CHECK(rejection_of(options, R"({"thread_id":"\ud800"})").find("surrogate") != std::string::npos);
  }

  TEST_CASE("key_missing stands in for a key that is none, but not for one that is damaged") {
    auto options = plain_options();
    options.key_missing = "nobody";
    for (const auto* text : {"{}", R"({"thread_id":null})", R"({"thread_id":""})", R"({"thread_id":[]})",
                             R"({"thread_id":{}})", R"({"thread_id":false})", "7"}) {
      CHECK(wrap(options, text).key == "nobody");
    }
    CHECK(wrap(options, R"({"thread_id":"a"})").key == "a");
    CHECK_FALSE(rejection_of(options, R"({"thread_id":"a","thread_id":"a"})").empty());
    CHECK_FALSE(rejection_of(options, R"({"thread_id":"\ud800"})").empty());
    options.key.reset();
    CHECK(wrap(options, R"({"thread_id":"a"})").key == "nobody");
  }

  TEST_CASE("without a key selector or a type selector the rejection says what to give") {
    auto options = plain_options();
    options.key.reset();
    CHECK(rejection_of(options, R"({"thread_id":"a"})") == "no key: say which field with --key");
    options = plain_options();
    options.type.reset();
    CHECK(rejection_of(options, R"({"thread_id":"a"})").find("--type FIELD") != std::string::npos);
  }

  TEST_CASE("the type must be a string with something in it") {
    auto options = plain_options();
    options.type = Selector::parse("kind");
    CHECK(attributes_of(wrap(options, R"({"thread_id":"a","kind":"x\"y"})").line).type == R"("x\"y")");
    CHECK(rejection_of(options, R"({"thread_id":"a"})") == R"(no field "kind" (the type))");
    CHECK(rejection_of(options, R"({"thread_id":"a","kind":1})") ==
          R"(field "kind" (the type) is a number, not a string)");
    CHECK(rejection_of(options, R"({"thread_id":"a","kind":""})") ==
          R"(field "kind" (the type) is an empty string)");
  }

  TEST_CASE("an id comes from a string or a number") {
    auto options = plain_options();
    options.id = Selector::parse("n");
    CHECK(wrap(options, R"({"thread_id":"a","n":"i\u0064"})").id == "id");
    const Outcome number = wrap(options, R"({"thread_id":"a","n":17.0})");
    CHECK(number.id == "17.0");
    CHECK(attributes_of(number.line).id == "\"17.0\"");
    CHECK(rejection_of(options, R"({"thread_id":"a"})") == R"(no field "n" (the id))");
    CHECK(rejection_of(options, R"({"thread_id":"a","n":""})") == R"(field "n" (the id) is an empty string)");
    CHECK(rejection_of(options, R"({"thread_id":"a","n":null})") ==
          R"(field "n" (the id) is null, not a string or a number)");
  }

  TEST_CASE("a time is kept as given, or is milliseconds since the epoch") {
    auto options = plain_options();
    options.time = Selector::parse("at");
    const auto time_of = [&options](const std::string& at) {
      const Outcome outcome = wrap(options, "{\"thread_id\":\"a\",\"at\":" + at + "}");
      return outcome.rejection.empty() ? std::string(attributes_of(outcome.line).time) : outcome.rejection;
    };
    CHECK(time_of(R"("2024-02-29T23:59:59.123456+05:30")") == R"("2024-02-29T23:59:59.123456+05:30")");
    CHECK(time_of("1714564800123") == R"("2024-05-01T12:00:00.123Z")");
    CHECK(time_of("0") == R"("1970-01-01T00:00:00.000Z")");
    CHECK(time_of("-1") == R"("1969-12-31T23:59:59.999Z")");
    CHECK(time_of("253402300799999") == R"("9999-12-31T23:59:59.999Z")");
    CHECK(time_of("-62167219200000") == R"("0000-01-01T00:00:00.000Z")");
    for (const auto* number : {"253402300800000", "-62167219200001", "1.5", "1e12", "99999999999999999999"}) {
      CHECK(time_of(number) == R"(field "at" (the time) is not a number of whole milliseconds since 1970)");
    }
    CHECK(time_of("\"yesterday\"").find("is not in RFC 3339") != std::string::npos);
    CHECK(time_of("\"2023-02-29T00:00:00Z\"").find("is not in RFC 3339") != std::string::npos);
    CHECK(time_of("true") == R"(field "at" (the time) is a boolean, not a string or a number)");
    CHECK(rejection_of(options, R"({"thread_id":"a"})") == R"(no field "at" (the time))");
  }

  TEST_CASE("the position comes from the line or from a field") {
    auto options = plain_options();
    options.position = Selector::parse("seq");
    const Outcome outcome = wrap(options, R"({"thread_id":"a","seq":9007199254740991})");
    CHECK(outcome.position == 9007199254740991);
    CHECK(outcome.id == "importer:9007199254740991");
    CHECK(wrap(options, R"({"thread_id":"a","seq":1})").position == 1);
    for (const auto* bad :
         {"0", "-1", "1.0", "1e3", "9007199254740992", "99999999999999999999999", "\"5\"", "null"}) {
      const std::string why = rejection_of(options, fmt::format("{{\"thread_id\":\"a\",\"seq\":{}}}", bad));
      CAPTURE(bad);
      CHECK(why.find("(the position) is") != std::string::npos);
      CHECK(why.find("a whole number from 1 to 9007199254740991") != std::string::npos);
    }
    CHECK(rejection_of(options, R"({"thread_id":"a"})") == R"(no field "seq" (the position))");
  }

  TEST_CASE("attributes are strings, numbers and booleans, and are left out where there is none") {
    auto options = plain_options();
    options.attributes = {{"traceparent", Selector::parse("=00-\"x")},
                          {"n", Selector::parse("/n")},
                          {"flag", Selector::parse("/flag")},
                          {"name1", Selector::parse("/name")},
                          {"source", Selector::parse("/origin")}};
    const std::string data = R"({"thread_id":"a","n":1.50,"flag":true,"name":"\u00e9","origin":"/o"})";
    CHECK(
        wrap(options, data).line ==
        R"({"specversion":"1.0","id":"importer:7","source":"/o","type":"post","time":"2024-05-01T12:00:00.123Z",)"
        R"("partitionkey":"a","traceparent":"00-\"x","n":1.50,"flag":true,"name1":"é","data":)" +
            data + "}");
    const std::string bare = R"({"thread_id":"a","n":null})";
    const Outcome without = wrap(options, bare);
    CHECK(
        without.line ==
        R"({"specversion":"1.0","id":"importer:7","source":"/forum","type":"post","time":"2024-05-01T12:00:00.123Z",)"
        R"("partitionkey":"a","traceparent":"00-\"x","data":)" +
            bare + "}");
    CHECK(rejection_of(options, R"({"thread_id":"a","n":[]})") ==
          R"(field "/n" (the attribute n) is an array, not a string, a number or a boolean)");
    CHECK(rejection_of(options, R"({"thread_id":"a","origin":3})") ==
          R"(field "/origin" (the source) is a number, not a string)");
    CHECK(rejection_of(options, R"({"thread_id":"a","name":1,"name":1})").find("is there twice") !=
          std::string::npos);
    CHECK(rejection_of(options, R"({"thread_id":"a","name":"\ud800"})").find("surrogate") !=
          std::string::npos);
  }

  TEST_CASE("options that cannot work are usage errors") {
    const auto refuses = [](auto change) {
      WrapOptions options = plain_options();
      change(options);
      CHECK_THROWS_AS(Wrapper{options}, Error);
    };
    for (const auto* name : {"", "Upper", "with-dash", "specversion", "id", "type", "time", "partitionkey",
                             "data", "data_base64", "a b", "é"}) {
      refuses([name](WrapOptions& options) { options.attributes = {{name, Selector::parse("=x")}}; });
    }
    refuses(
        [](WrapOptions& options) { options.attributes = {{std::string(65, 'a'), Selector::parse("=x")}}; });
    refuses([](WrapOptions& options) {
      options.attributes = {{"a", Selector::parse("=x")}, {"a", Selector::parse("=x")}};
    });
    refuses([](WrapOptions& options) { options.attributes = {{"source", Selector::parse("=")}}; });
    refuses([](WrapOptions& options) { options.attributes = {{"a", Selector::parse("=\xFF")}}; });
    refuses([](WrapOptions& options) { options.key = Selector::parse("="); });
    refuses([](WrapOptions& options) { options.key = Selector::parse("=\xFF"); });
    refuses([](WrapOptions& options) { options.key_missing = ""; });
    refuses([](WrapOptions& options) { options.type = Selector::parse("="); });
    refuses([](WrapOptions& options) { options.time = Selector::parse("=noon"); });
    refuses([](WrapOptions& options) { options.position = Selector::parse("=1"); });
    CHECK_THROWS_AS(Selector::parse(""), Error);
    CHECK_THROWS_AS(Selector::parse("/a~"), Error);
    CHECK(Selector::parse("==x").literal == "=x");
    CHECK(Selector::parse("a=x").pointer->text() == "a=x");
  }

  TEST_CASE("what is not JSON is rejected with reason and byte of the line") {
    const auto options = plain_options();
    CHECK(rejection_of(options, "") == "the line is empty");
    CHECK(rejection_of(options, " \r") == "the line is empty");
    CHECK(rejection_of(options, "  {\"a\":tru}") == "not JSON: expected a value, at byte 7");
    CHECK(rejection_of(options, "{\"a\":\"\xC0\xAF\"}") == "not JSON: not UTF-8, at byte 6");
    CHECK(rejection_of(options, "{\"a\":\"x") == "not JSON: the text ends inside a string, at byte 7");
    CHECK(rejection_of(options, "{}\0"s) == "not JSON: more text after the value, at byte 2");
    CHECK(rejection_of(options, std::string(100'000, '[')) ==
          "not JSON: nested deeper than 1000, at byte 1000");
    CHECK(rejection_of(options, "\xEF\xBB\xBF{}").find("byte order mark") != std::string::npos);
  }

  TEST_CASE("the size limit is of the stored line, to the byte") {
    auto options = plain_options();
    const std::string data = R"({"thread_id":"a","text":")" + std::string(1000, 'x') + "\"}";
    const std::size_t bytes = wrap(options, data).line.size();
    options.event_bytes_max = bytes;
    CHECK(wrap(options, data).rejection.empty());
    options.event_bytes_max = bytes - 1;
    CHECK(rejection_of(options, data) ==
          fmt::format("the event has {} bytes, over the limit of {} (--event-bytes-max)", bytes, bytes - 1));
    CHECK(rejection_of(plain_options(), std::string(10 << 20, 'x')) ==
          "the event has at least 10485760 bytes, over the limit of 1048576 (--event-bytes-max)");
  }

  TEST_CASE("a key of a megabyte is an event where the limit allows it") {
    const std::string key(1 << 20, 'k');
    const std::string data = "{\"thread_id\":\"" + key + "\"}";
    CHECK(rejection_of(plain_options(), data).find("over the limit of 1048576") != std::string::npos);
    auto options = plain_options();
    options.event_bytes_max = 4 << 20;
    CHECK(wrap(options, data).key == key);
  }

  TEST_CASE("a rejected line changes nothing for the next one") {
    Wrapper wrapper(plain_options());
    const Padded good(R"({"thread_id":"a"})");
    const Padded bad(R"({"thread_id":[]})");
    const Padded broken("{");
    std::string out;
    for (std::uint64_t i = 1; i < 4; ++i) {
      CHECK_FALSE(wrapper.read(good.text(), Position{i}));
      wrapper.write(out, noon + Milliseconds{i});
      CHECK(wrapper.read(bad.text(), Position{i}));
      CHECK(wrapper.read(broken.text(), Position{i}));
    }
    CHECK(out.find("importer:3") != std::string::npos);
    CHECK(out.find("12:00:00.124Z") != std::string::npos);
    CHECK(out.find("12:00:00.126Z") != std::string::npos);
  }
}

TEST_SUITE("event: CloudEvents input") {
  TEST_CASE("a CloudEvent keeps its bytes without the white space around it") {
    const Outcome outcome = wrap(cloudevents_options(), "  " + cloudevent + " \r");
    CHECK(outcome.line == cloudevent);
    CHECK(outcome.key == "k");
    CHECK(outcome.id == "42");
    CHECK(outcome.position == 7);
  }

  TEST_CASE("a missing key and time go behind the first brace") {
    auto options = cloudevents_options();
    options.key = Selector::parse("/data/k");
    CHECK(
        wrap(options, R"({"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"k":"a\"b"}})")
            .line ==
        R"({"partitionkey":"a\"b","time":"2024-05-01T12:00:00.123Z","specversion":"1.0","id":"1","source":"/s","type":"t","data":{"k":"a\"b"}})");
    options.time = Selector::parse("/data/at");
    CHECK(
        wrap(options, R"({ "specversion":"1.0","id":"1","source":"/s","type":"t","data":{"k":12,"at":0}})")
            .line ==
        R"({"partitionkey":"12","time":"1970-01-01T00:00:00.000Z", "specversion":"1.0","id":"1","source":"/s","type":"t","data":{"k":12,"at":0}})");
  }

  TEST_CASE("the place that is printed in front of an event is not part of it") {
    const std::string members = cloudevent.substr(1);
    const auto stored = [](const std::string& text) { return wrap(cloudevents_options(), text).line; };
    CHECK(stored(R"({"partition":3,"offset":17,)" + members) == cloudevent);
    CHECK(stored(R"({ "partition" : 3 , "offset" : 17 ,)" + members) == cloudevent);
    // Attributes of its own are kept: elsewhere, in another order, one without the other, other values.
    for (const std::string begin :
         {R"({"offset":17,"partition":3,)", R"({"partition":3,)", R"({"partition":"3","offset":17,)",
          R"({"partition":3,"offset":"17",)", R"({"partition":3,"offset":1.5,)",
          R"({"a":1,"partition":3,"offset":17,)"}) {
      CAPTURE(begin);
      CHECK(stored(begin + members) == begin + members);
    }
    const std::string behind = cloudevent.substr(0, cloudevent.size() - 1) + R"(,"partition":3,"offset":17})";
    CHECK(stored(behind) == behind);
    CHECK(stored(R"({"partition":0,"offset":1,)" + behind.substr(1)) == behind);
    auto options = cloudevents_options();
    options.attributes = {{"partition", Selector::parse("/partition")}, {"region", Selector::parse("=eu")}};
    CHECK(wrap(options, R"({"partition":3,"offset":17,)" + members).line ==
          R"({"partition":3,"region":"eu",)" + members);
    options = cloudevents_options();
    options.event_bytes_max = cloudevent.size();
    CHECK(wrap(options, R"({"partition":3,"offset":17,)" + members).line == cloudevent);
  }

  TEST_CASE("the key of a CloudEvent is the selected one, and its partitionkey must agree") {
    auto options = cloudevents_options();
    options.key = Selector::parse("/data/thread_id");
    CHECK(rejection_of(options, cloudevent) ==
          "the CloudEvent's partitionkey is not the key that is selected for it");
    options.key = Selector::parse("=k");
    CHECK(wrap(options, cloudevent).line == cloudevent);
    options.key = Selector::parse("/data/none");
    CHECK(rejection_of(options, cloudevent) == R"(no field "/data/none" (the key))");
    options.key.reset();
    const std::string without = R"({"specversion":"1.0","id":"1","source":"/s","type":"t"})";
    CHECK(rejection_of(options, without) == "no key: say which field with --key");
    options.key_missing = "none";
    CHECK(wrap(options, without).key == "none");
    CHECK(wrap(options, cloudevent).key == "k");
  }

  TEST_CASE("a partitionkey that is a number is a key by its text") {
    const std::string text =
        R"({"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2024-05-01T12:00:00Z","partitionkey":1.50})";
    const Outcome outcome = wrap(cloudevents_options(), text);
    CHECK(outcome.key == "1.50");
    CHECK(outcome.line == text);
  }

  TEST_CASE("type, id and time options are for events that have none") {
    auto options = cloudevents_options();
    options.type = Selector::parse("=other");
    options.id = Selector::parse("=other");
    options.time = Selector::parse("=2000-01-01T00:00:00Z");
    CHECK(wrap(options, cloudevent).line == cloudevent);
  }

  TEST_CASE("a CloudEvent that lacks what it must have is rejected by name") {
    const auto rejected = [](const std::string& text) { return rejection_of(cloudevents_options(), text); };
    const std::string end = R"(,"partitionkey":"k"})";
    CHECK(rejected(R"({"specversion":"1.0","source":"/s","type":"t")" + end) ==
          R"(the CloudEvent is not valid: no field "id" (the id))");
    CHECK(rejected(R"({"specversion":"1.0","id":"1","type":"t")" + end) ==
          R"(the CloudEvent is not valid: no field "source" (the source))");
    CHECK(rejected(R"({"specversion":"1.0","id":"1","source":"/s")" + end) ==
          R"(the CloudEvent is not valid: no field "type" (the type))");
    CHECK(rejected(R"({"specversion":"1.0","id":"","source":"/s","type":"t")" + end) ==
          R"(the CloudEvent is not valid: field "id" (the id) is an empty string)");
    CHECK(rejected(R"({"specversion":"1.0","id":1,"source":"/s","type":"t")" + end) ==
          R"(the CloudEvent is not valid: field "id" (the id) is a number, not a string)");
    CHECK(rejected(R"({"specversion":"1.0","id":"1","id":"1","source":"/s","type":"t")" + end) ==
          R"(the CloudEvent is not valid: field "id" (the id) is there twice)");
    const std::string begin = R"({"specversion":"1.0","id":"1","source":"/s","type":"t")";
    CHECK(rejected(begin + R"(,"time":"now")" + end).find("is not in RFC 3339") != std::string::npos);
    CHECK(rejected(begin + R"(,"time":null)" + end).find("is null, not a string") != std::string::npos);
    CHECK(rejected(begin + R"(,"partitionkey":null})").find("is null, not a string") != std::string::npos);
    CHECK(rejected(begin + R"(,"partitionkey":""})").find("is an empty string") != std::string::npos);
    CHECK(rejected(begin + R"(,"partitionkey":{}})").find("is an object, not a string") != std::string::npos);
    CHECK(rejected(begin + R"(,"partitionkey":"a","partitionkey":"b"})").find("is there twice") !=
          std::string::npos);
    CHECK(rejected(begin + R"(,"partitionkey":"\udc00"})").find("surrogate") != std::string::npos);
  }

  TEST_CASE("attributes are added to a CloudEvent and must agree with those that it has") {
    auto options = cloudevents_options();
    options.attributes = {{"region", Selector::parse("=eu")},
                          {"source", Selector::parse("=/s")},
                          {"none", Selector::parse("/x")}};
    CHECK(wrap(options, cloudevent).line == "{\"region\":\"eu\"," + cloudevent.substr(1));
    options.attributes = {{"source", Selector::parse("=/other")}};
    CHECK(rejection_of(options, cloudevent) ==
          "the CloudEvent has the attribute source already, with another value");
  }

  TEST_CASE("the input format says what counts as a CloudEvent") {
    auto options = plain_options();
    options.key = Selector::parse("/data/thread_id");
    options.input = InputFormat::json;
    CHECK(attributes_of(wrap(options, cloudevent).line).data == cloudevent.substr(0, cloudevent.size()));
    options.input = InputFormat::automatic;
    options.key = Selector::parse("id");
    const std::string old = R"({"specversion":"0.3","id":"1","source":"/s","type":"t"})";
    CHECK(attributes_of(wrap(options, old).line).data == old);
    options.input = InputFormat::cloudevents;
    CHECK(rejection_of(options, old) == R"(not a CloudEvent of version 1.0: its specversion is "0.3")");
    CHECK(rejection_of(options, R"({"id":"1"})").find(R"(no field "specversion")") != std::string::npos);
    CHECK(rejection_of(options, "[]") == "not a CloudEvent: it is an array, not an object");
    CHECK(rejection_of(options, R"({"specversion":1.0})").find("is a number, not the string") !=
          std::string::npos);
    options.input = InputFormat::automatic;
    CHECK(rejection_of(options, R"({"specversion":"1.0","specversion":"1.0","id":"1"})")
              .find("is there twice") != std::string::npos);
  }
}

TEST_SUITE("event: reading") {
  TEST_CASE("attributes are found in our order, in any other, and behind the data") {
    struct Text {
      std::string id;
      std::string key;
    };
    // Without and with what the fast way does not read.
    for (const Text& text :
         {Text{R"("a")", R"("k")"}, Text{R"("a\"b")", R"("k")"}, Text{R"("a")", R"("k\\")"}}) {
      for (const std::string data :
           {R"({"a":"}","b":[1,{"c":2},{"d":3}],"e":{"f":{}}})", R"({"a":1})", R"([1,[2],"]"])", "[1]", "12",
            "\"a,\\\"}\"", "\"a\"", "\"\"", "null", "{}", "[]", R"({"a":{"b":1},"c":2})"}) {
        for (const std::string end : {"}", " }", R"(,"subject":"x"})", R"( , "subject" : {"a":1}})",
                                      R"( ,"subject":[1,2]})", R"(,"n":1})"}) {
          const std::string line = R"({"specversion":"1.0","id":)" + text.id +
                                   R"(,"source":"/s","type":"t","time":"T","partitionkey":)" + text.key +
                                   R"(,"x":1,"y":"z","data":)" + data + end;
          CAPTURE(line);
          const Attributes attributes = attributes_of(line);
          CHECK(attributes.id == text.id);
          CHECK(attributes.source == R"("/s")");
          CHECK(attributes.type == R"("t")");
          CHECK(attributes.time == R"("T")");
          CHECK(attributes.partitionkey == text.key);
          CHECK(attributes.data == data);
        }
      }
    }
    const std::string other = R"( {"data" : {"id":"no"} ,"t\u0079pe":"t","partitionkey":17,"id":"i" } )";
    const Attributes attributes = attributes_of(other);
    CHECK(attributes.data == R"({"id":"no"})");
    CHECK(attributes.type == "\"t\"");
    CHECK(attributes.partitionkey == "17");
    CHECK(attributes.id == "\"i\"");
    CHECK(attributes.source.empty());
    CHECK(attributes.time.empty());
    CHECK(attributes_of("{}").data.empty());
    CHECK(attributes_of(
              R"({"specversion":"1.0","id":"a","source":"/s","type":"t","time":"T","partitionkey":"k"})")
              .data.empty());
  }

  TEST_CASE("a line that is not an object is loss") {
    for (const auto* line :
         {"", "x", "[]", "{", "{\"id\":", R"({"specversion":"1.0","id":"a","source":"/s)"}) {
      CAPTURE(line);
      try {
        static_cast<void>(attributes_of(line));
        FAIL("accepted");
      } catch (const Error& error) {
        CHECK(error.kind() == ErrorKind::loss);
      }
    }
  }

  TEST_CASE("no cut of an event is read past its end") {
    const std::string line = wrapped("\"k\"", R"({"a":[1,2,{"b":"}"}],"c":1})");
    for (std::size_t size = 0; size < line.size(); ++size) {
      const auto exact = std::make_unique<char[]>(size);
      line.copy(exact.get(), size);
      try {
        static_cast<void>(attributes_of({exact.get(), size}));
      } catch (const Error&) {
      }
    }
  }

  TEST_CASE("a stored key is read unescaped") {
    std::string scratch;
    const auto key = [&scratch](std::string_view raw) {
      Attributes attributes;
      attributes.partitionkey = raw;
      return key_of(attributes, scratch);
    };
    CHECK(key("\"a\"") == "a");
    CHECK(key(R"("a\u0000\n")") == "a\0\n"s);
    CHECK(key("1.50") == "1.50");
    CHECK(key("").empty());
  }

  TEST_CASE("a glob matches runs and single bytes") {
    CHECK(glob_matches("*", ""));
    CHECK(glob_matches("", ""));
    CHECK(glob_matches("post.*", "post.created"));
    CHECK(glob_matches("*.created", "post.created"));
    CHECK(glob_matches("p*t.*d", "post.created"));
    CHECK(glob_matches("p?st", "post"));
    CHECK(glob_matches("**a**", "bab"));
    CHECK(glob_matches("[x]", "[x]"));
    CHECK_FALSE(glob_matches("post.*", "post"));
    CHECK_FALSE(glob_matches("", "a"));
    CHECK_FALSE(glob_matches("?", ""));
    CHECK_FALSE(glob_matches("a", "ab"));
    CHECK_FALSE(glob_matches("*a", "ab"));
    // Not exponential.
    CHECK_FALSE(glob_matches("*a*a*a*a*a*a*a*a*a*a*a*a*b", std::string(2000, 'a')));
  }
}

TEST_SUITE("event: time") {
  TEST_CASE("times are written in UTC with milliseconds") {
    CHECK(format_time(noon) == "2024-05-01T12:00:00.123Z");
    CHECK(format_time(SystemTime{}) == "1970-01-01T00:00:00.000Z");
    CHECK(format_time(SystemTime{Milliseconds{-1}}) == "1969-12-31T23:59:59.999Z");
    CHECK(format_time(SystemTime{Milliseconds{951782400000}}) == "2000-02-29T00:00:00.000Z");
    CHECK(format_time(SystemTime::max()) == "9999-12-31T23:59:59.999Z");
    CHECK(format_time(SystemTime::min()) == "0000-01-01T00:00:00.000Z");
  }

  TEST_CASE("any RFC 3339 time is read") {
    const auto ms = [](std::string_view text) {
      const auto time = parse_time(text);
      REQUIRE(time);
      return time->time_since_epoch().count();
    };
    CHECK(ms("2024-05-01T12:00:00.123Z") == 1714564800123);
    CHECK(ms("2024-05-01t12:00:00.123z") == 1714564800123);
    CHECK(ms("2024-05-01T12:00:00.1239999999999999999999Z") == 1714564800123);
    CHECK(ms("2024-05-01T12:00:00.1Z") == 1714564800100);
    CHECK(ms("2024-05-01T12:00:00Z") == 1714564800000);
    CHECK(ms("2024-05-01T14:00:00+02:00") == 1714564800000);
    CHECK(ms("2024-05-01T06:30:00-05:30") == 1714564800000);
    CHECK(ms("2024-05-01T12:00:00-00:00") == 1714564800000);
    CHECK(ms("2000-02-29T00:00:00Z") == 951782400000);
    CHECK(ms("1969-12-31T23:59:59.999Z") == -1);
    CHECK(ms("0000-01-01T00:00:00Z") == -62167219200000);
    CHECK(ms("9999-12-31T23:59:59.999Z") == 253402300799999);
    CHECK(ms("2016-12-31T23:59:60Z") == 1483228800000);
    CHECK(ms("2017-01-01T01:59:60.5+02:00") == 1483228800500);
  }

  TEST_CASE("what is no RFC 3339 time is refused") {
    for (const auto* text : {"",
                             "2024",
                             "2024-05-01",
                             "2024-05-01T12:00:00",
                             "2024-05-01T12:00Z",
                             "2024-05-01 12:00:00Z",
                             "2024-05-01T12:00:00.Z",
                             "2024-05-01T12:00:00,5Z",
                             "2024-13-01T12:00:00Z",
                             "2024-00-01T12:00:00Z",
                             "2024-04-31T12:00:00Z",
                             "2023-02-29T12:00:00Z",
                             "1900-02-29T12:00:00Z",
                             "2024-05-00T12:00:00Z",
                             "2024-05-01T24:00:00Z",
                             "2024-05-01T12:60:00Z",
                             "2024-05-01T12:00:61Z",
                             "2024-05-01T12:00:60Z",
                             "2024-05-01T12:00:00+24:00",
                             "2024-05-01T12:00:00+0200",
                             "2024-05-01T12:00:00+02",
                             "2024-05-01T12:00:00+02:60",
                             "2024-05-01T12:00:00ZZ",
                             "2024-05-01T12:00:00Z ",
                             " 2024-05-01T12:00:00Z",
                             "+024-05-01T12:00:00Z",
                             "2024-5-1T12:00:00Z",
                             "now"}) {
      CAPTURE(text);
      CHECK_FALSE(parse_time(text));
    }
  }

  TEST_CASE("every day of 800 years comes back from its text") {
    for (std::int64_t day = -200'000; day < 92'000; day += 1) {
      const SystemTime time{std::chrono::days{day} + Milliseconds{day % 1000 + 1000}};
      if (parse_time(format_time(time)) != time) {
        CAPTURE(day);
        CHECK(parse_time(format_time(time)) == time);
      }
    }
  }
}
