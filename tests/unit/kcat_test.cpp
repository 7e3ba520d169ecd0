// Messages of Kafka, as `kcat -J` prints them, become events.
#include "continuum/event.hpp"
#include "padded.hpp"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

using namespace continuum;

namespace {

// 2024-05-01T12:00:00.123Z
constexpr SystemTime noon{Milliseconds{1'714'564'800'123}};

WrapOptions kcat_options() {
  WrapOptions options;
  options.topic = "forum";
  options.producer = "importer";
  options.input = InputFormat::kcat;
  return options;
}

struct Outcome {
  std::string rejection;
  std::string line;
  std::string key;
  std::string id;
  std::uint64_t position = 0;
};

Outcome wrap(const WrapOptions& options, std::string_view text) {
  Wrapper wrapper(options);
  const Padded padded(text);
  if (auto rejection = wrapper.read(padded.text(), Position{7})) {
    return {*rejection, {}, {}, {}, 0};
  }
  Outcome outcome{{}, {}, std::string(wrapper.key()), std::string(wrapper.id()), wrapper.position().value};
  wrapper.write(outcome.line, noon);
  outcome.line.pop_back();
  CHECK(outcome.line.find('\n') == std::string::npos);
  return outcome;
}

std::string message(std::string_view payload, std::string_view headers = "") {
  std::string line =
      R"({"topic":"posts","partition":3,"offset":17,"tstype":"create","ts":1714564800456,"broker":1,)";
  if (!headers.empty()) {
    line.append(R"("headers":)").append(headers).append(",");
  }
  return line.append(R"("key":"t1","payload":)").append(payload).append("}");
}

std::string data_of(std::string_view payload) {
  const Outcome outcome = wrap(kcat_options(), message(payload));
  CHECK(outcome.rejection.empty());
  return std::string(attributes_of(outcome.line).data);
}

// What stands between the key and the data.
std::string attributes_for(std::string_view headers, const WrapOptions& options = kcat_options()) {
  const Outcome outcome = wrap(options, message("1", headers));
  if (!outcome.rejection.empty()) {
    return outcome.rejection;
  }
  const std::string_view line = outcome.line;
  const auto begin = line.find(R"("t1",)") + 5;
  return std::string(line.substr(begin, line.find(R"("data")") - begin));
}

}  // namespace

TEST_SUITE("kcat") {
  TEST_CASE("a message has the id of its place, the time of Kafka, its topic as type and its own key") {
    const Outcome outcome = wrap(kcat_options(), message(R"("{\"n\": 1.50}")"));
    CHECK(outcome.line == R"({"specversion":"1.0","id":"posts/3/17","source":"/forum","type":"posts",)"
                          R"("time":"2024-05-01T12:00:00.456Z","partitionkey":"t1","data":{"n": 1.50}})");
    CHECK(outcome.key == "t1");
    CHECK(outcome.id == "posts/3/17");
    CHECK(outcome.position == 7);
  }

  TEST_CASE("a payload is kept byte for byte when it is JSON, and is a string when it is not") {
    CHECK(data_of(R"("{\"a\":1.0,\"b\":\"\\u00e9\",\"a\":[1e400]}")") ==
          R"({"a":1.0,"b":"\u00e9","a":[1e400]})");
    CHECK(data_of(R"("12345678901234567890123")") == "12345678901234567890123");
    CHECK(data_of(R"("\"text\"")") == R"("text")");
    CHECK(data_of(R"(" {\n\t\"a\":\r\n1}\n ")") == "{ \t\"a\":\r 1}");
    CHECK(data_of(R"("hello \"you\"\n")") == R"("hello \"you\"\n")");
    CHECK(data_of(R"("{\"a\":1} x")") == R"("{\"a\":1} x")");
    CHECK(data_of(R"("{\"a\":\"\n\"}")") == R"("{\"a\":\"\n\"}")");
    CHECK(data_of(R"("007")") == R"("007")");
    CHECK(data_of(R"("")") == R"("")");
    CHECK(data_of(R"("  ")") == R"("  ")");
  }

  TEST_CASE("a tombstone has the data null, and what kcat decoded itself is kept") {
    CHECK(data_of("null") == "null");
    CHECK(data_of(R"("null")") == "null");
    CHECK(data_of(R"({"a": {"string": "b"}})") == R"({"a": {"string": "b"}})");
  }

  TEST_CASE("what kcat could not decode is no tombstone") {
    auto line = message("null");
    line.pop_back();
    CHECK(wrap(kcat_options(), line + R"(,"payload_error":"no such schema"})").rejection ==
          "kcat could not decode the message: payload_error: no such schema");
  }

  TEST_CASE("headers become attributes with the names that attributes can have") {
    CHECK(attributes_for("[]").empty());
    CHECK(attributes_for("null").empty());
    CHECK(attributes_for(R"(["traceparent","00-a-b-01","Correlation-Id","x\"y"])") ==
          R"("traceparent":"00-a-b-01","correlationid":"x\"y",)");
    CHECK(attributes_for(R"(["a","1","b",null,"A","2","---","3","b","4"])") == R"("a":"2","b":"4",)");
    CHECK(attributes_for(R"({"a":["1","2"],"b":[],"c-d":["3"]})") == R"("a":"2","cd":"3",)");
    for (const std::string name :
         {"id", "Source", "type", "time", "specversion", "partitionkey", "data", "DATA-BASE64"}) {
      CAPTURE(name);
      CHECK((attributes_for("[\"" + name + R"(","x"])").empty() != (name == "DATA-BASE64")));
    }
    auto options = kcat_options();
    options.attributes = {{"region", Selector::parse("=eu")}};
    CHECK(attributes_for(R"(["region","us","zone","a"])", options) == R"("region":"eu","zone":"a",)");
  }

  TEST_CASE("headers that kcat never prints are rejected, and so are too many") {
    constexpr auto wrong = R"(not a message of kcat -J: field "headers" is not a list of names and values)";
    CHECK(attributes_for("1") == wrong);
    CHECK(attributes_for(R"(["a"])") == wrong);
    CHECK(attributes_for(R"(["a",1])") == wrong);
    CHECK(attributes_for(R"([1,"a"])") == wrong);
    CHECK(attributes_for(R"({"a":"b"})") == wrong);
    std::string headers = "[\"a\",\"1\"";
    for (int i = 1; i < 256; ++i) {
      headers += R"(,"a","2")";
    }
    CHECK(attributes_for(headers + "]") == R"("a":"2",)");
    CHECK(attributes_for(headers + R"(,"a","3"])") == "the message has more than 256 headers");
  }

  TEST_CASE("a message without a time, or with one that means nothing, has the time of its reading") {
    for (const std::string_view time :
         {R"()", R"("tstype":"unknown","ts":0,)", R"("tstype":"unknown","ts":-1,)"}) {
      CAPTURE(time);
      const std::string line =
          R"({"topic":"p","partition":0,"offset":0,)" + std::string(time) + R"("key":"k","payload":"1"})";
      CHECK(attributes_of(wrap(kcat_options(), line).line).time == R"("2024-05-01T12:00:00.123Z")");
    }
    const auto with = [](std::string_view ts) {
      return wrap(kcat_options(), R"({"topic":"p","partition":0,"offset":0,"tstype":"create","ts":)" +
                                      std::string(ts) + R"(,"key":"k","payload":"1"})");
    };
    CHECK(with("1e3").rejection ==
          R"(field "ts" (the time) is not a number of whole milliseconds since 1970)");
    CHECK(with("253402300800000").rejection.find("whole milliseconds") != std::string::npos);
    CHECK(with("null").rejection == R"(field "ts" (the time) is null, not a string or a number)");
  }

  TEST_CASE("fields are those of the message, and below /payload those of the JSON in it") {
    auto options = kcat_options();
    options.key = Selector::parse("/payload/post/thread");
    options.type = Selector::parse("/payload/type");
    options.id = Selector::parse("/payload/id");
    options.time = Selector::parse("/payload/at");
    options.position = Selector::parse("offset");
    options.attributes = {{"source", Selector::parse("/payload/from")},
                          {"region", Selector::parse("/headers/1")}};
    const Outcome outcome = wrap(
        options,
        message(
            R"("{\"post\":{\"thread\":5},\"type\":\"edited\",\"id\":\"e1\",\"at\":\"2020-01-01T00:00:00Z\",\"from\":\"/x\"}")",
            R"(["zone","eu"])"));
    CHECK(
        outcome.line ==
        R"({"specversion":"1.0","id":"e1","source":"/x","type":"edited","time":"2020-01-01T00:00:00Z",)"
        R"("partitionkey":"5","region":"eu","zone":"eu","data":{"post":{"thread":5},"type":"edited","id":"e1",)"
        R"("at":"2020-01-01T00:00:00Z","from":"/x"}})");
    CHECK(outcome.position == 17);
    CHECK(wrap(options, message(R"("no JSON")")).rejection == R"(no field "/payload/post/thread" (the key))");
    options.key = Selector::parse("payload");
    options.type = Selector::parse("=x");
    options.id.reset();
    options.time.reset();
    CHECK(wrap(options, message(R"("no JSON")")).key == "no JSON");
  }

  TEST_CASE("a message without a key needs one") {
    const std::string line = R"({"topic":"p","partition":0,"offset":0,"key":null,"payload":"1"})";
    CHECK(wrap(kcat_options(), line).rejection ==
          R"(field "key" (the key) is null, not a string or a number)");
    auto options = kcat_options();
    options.key_missing = "none";
    CHECK(wrap(options, line).key == "none");
  }

  TEST_CASE("what is no message is rejected by the field that is wrong") {
    const auto rejected = [](std::string_view line) { return wrap(kcat_options(), line).rejection; };
    CHECK(rejected("[1]") == "not a message of kcat -J: it is an array, not an object");
    CHECK(rejected("{}") == R"(not a message of kcat -J: no field "topic")");
    CHECK(rejected(R"({"topic":7})") == R"(not a message of kcat -J: field "topic" is not a name)");
    CHECK(rejected(R"({"topic":"p","topic":"q"})") ==
          R"(not a message of kcat -J: field "topic" is there twice)");
    CHECK(rejected(R"({"topic":"p"})") == R"(not a message of kcat -J: no field "partition")");
    CHECK(rejected(R"({"topic":"p","partition":-1})") ==
          R"(not a message of kcat -J: field "partition" is not a whole number)");
    CHECK(rejected(R"({"topic":"p","partition":0,"offset":1.0})") ==
          R"(not a message of kcat -J: field "offset" is not a whole number)");
    CHECK(rejected(R"({"topic":"p","partition":0,"offset":1})") ==
          R"(not a message of kcat -J: no field "payload")");
    CHECK(rejected("{").find("not JSON") == 0);
  }

  TEST_CASE("the size limit is of the event, not of its escaped form in the message") {
    std::string payload = "\"[";
    for (int i = 0; i < 100; ++i) {
      payload += R"(\"\",)";
    }
    payload += "1]\"";
    auto options = kcat_options();
    const std::size_t bytes = wrap(options, message(payload)).line.size();
    REQUIRE(message(payload).size() > bytes + 64);
    options.event_bytes_max = bytes;
    CHECK(wrap(options, message(payload)).rejection.empty());
    options.event_bytes_max = bytes - 1;
    CHECK(wrap(options, message(payload)).rejection.find("over the limit") != std::string::npos);
  }

  TEST_CASE("one message changes nothing for the next") {
    Wrapper wrapper(kcat_options());
    const Padded first(message(R"("{\"long\":\"payload\"}")", R"(["a","1"])"));
    const Padded broken("{}");
    const Padded second(message("null"));
    CHECK_FALSE(wrapper.read(first.text(), Position{1}));
    CHECK(wrapper.read(broken.text(), Position{2}));
    REQUIRE_FALSE(wrapper.read(second.text(), Position{3}));
    std::string line;
    wrapper.write(line, noon);
    CHECK(line.ends_with("\"partitionkey\":\"t1\",\"data\":null}\n"));
  }
}
