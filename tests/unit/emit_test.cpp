// What handlers give out becomes events with a cause.
#include "continuum/emit.hpp"

#include "continuum/error.hpp"
#include "continuum/json.hpp"

#include <doctest/doctest.h>

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

using namespace continuum;

namespace {

constexpr std::string_view cause_line =
    R"({"specversion":"1.0","id":"shop:7","source":"/orders","type":"order.paid","time":"2024-05-01T12:00:00.000Z",)"
    R"("partitionkey":"ann \"1\"","traceparent":"00-aa-bb-01","data":{"n":1}})";

Topic mails() {
  Topic topic;
  topic.name = "mails";
  topic.settings.event_bytes_max = 2'000;
  return topic;
}

struct Wrapped {
  std::string lines;
  std::string error;
};

// The lines with the time of their making, which is any time, written as NOW.
std::string with_now(std::string lines) {
  constexpr std::string_view field = "\"time\":\"";
  constexpr std::string_view form = "2000-00-00T00:00:00.000Z\"";
  const auto same = [](char digit, char given) {
    return digit == '0' ? given >= '0' && given <= '9' : given == digit;
  };
  for (auto at = lines.find(field); at != std::string::npos; at = lines.find(field, at + field.size())) {
    const auto time = std::string_view(lines).substr(at + field.size(), form.size());
    if (time.size() == form.size() && std::ranges::equal(form, time, same)) {
      lines.replace(at + field.size(), form.size() - 1, "NOW");
    }
  }
  return lines;
}

enum class From : std::uint8_t { lines, array };

Wrapped wrap(std::string_view given, const EmitOptions& options = {}, From from = From::lines,
             std::string_view line = cause_line) {
  EmitWrapper wrapper(options, mails(), "orders", "billing");
  const EmitCause cause{Partition(3), Offset(41), line, "send"};
  Wrapped result{"before\n", {}};
  const auto error = from == From::lines ? wrapper.wrap_lines(cause, given, result.lines)
                                         : wrapper.wrap_array(cause, given, result.lines);
  result.error = error.value_or("");
  REQUIRE(result.lines.starts_with("before\n"));
  result.lines.erase(0, 7);
  result.lines = with_now(std::move(result.lines));
  return result;
}

Wrapped wrap_array(std::string_view given) {
  return wrap(given, {}, From::array);
}

}  // namespace

TEST_CASE("a plain value becomes an event with the key, the type and the trace of its cause") {
  const auto wrapped = wrap("{\"to\": 1.50}\n\n  \r\n\"two\"");
  CHECK(wrapped.error.empty());
  CHECK(
      wrapped.lines ==
      R"({"specversion":"1.0","id":"orders/3/41/billing/send:1","source":"/mails","type":"order.paid","time":"NOW",)"
      R"("partitionkey":"ann \"1\"","causationid":"shop:7","traceparent":"00-aa-bb-01","data":{"to": 1.50}})"
      "\n"
      R"({"specversion":"1.0","id":"orders/3/41/billing/send:2","source":"/mails","type":"order.paid","time":"NOW",)"
      R"("partitionkey":"ann \"1\"","causationid":"shop:7","traceparent":"00-aa-bb-01","data":"two"})"
      "\n");
}

TEST_CASE("the key and the type of an emitted event are those that were selected") {
  const auto wrapped = wrap(R"({"to":"bob","kind":5})", {Selector::parse("to"), Selector::parse("=mail")});
  CHECK(wrapped.error.empty());
  CHECK(wrapped.lines.find(R"("type":"mail",)") != std::string::npos);
  CHECK(wrapped.lines.find(R"("partitionkey":"bob",)") != std::string::npos);
  CHECK(wrap(R"({"kind":5})", {Selector::parse("to"), {}}).error ==
        R"(output line 1: no field "to" (the key))");
  CHECK(wrap(R"({"kind":5})", {{}, Selector::parse("kind")}).error ==
        R"(output line 1: field "kind" (the type) is a number, not a string)");
}

TEST_CASE("an emitted CloudEvent keeps its attributes and gets those that it lacks") {
  const auto own = wrap(
      R"({"specversion":"1.0","id":"m1","source":"/me","type":"mail","time":"2020-02-02T02:02:02Z","partitionkey":"bob",)"
      R"("causationid":"else","traceparent":"00-cc-dd-01","data":1})");
  CHECK(own.error.empty());
  CHECK(
      own.lines ==
      R"({"specversion":"1.0","id":"m1","source":"/me","type":"mail","time":"2020-02-02T02:02:02Z","partitionkey":"bob",)"
      R"("causationid":"else","traceparent":"00-cc-dd-01","data":1})"
      "\n");
  const auto bare = wrap(R"({"specversion":"1.0","id":"m1","source":"/me","type":"mail"})");
  CHECK(bare.error.empty());
  CHECK(bare.lines ==
        R"({"partitionkey":"ann \"1\"","time":"NOW","causationid":"shop:7","traceparent":"00-aa-bb-01",)"
        R"("specversion":"1.0","id":"m1","source":"/me","type":"mail"})"
        "\n");
}

TEST_CASE("a cause without a trace passes none on") {
  const auto wrapped = wrap(
      "1", {}, From::lines,
      R"({"specversion":"1.0","id":"7","source":"/o","type":"t","partitionkey":12,"data":{"traceparent":"x"}})");
  CHECK(wrapped.error.empty());
  CHECK(wrapped.lines.find("traceparent") == std::string::npos);
  CHECK(wrapped.lines.find(R"("partitionkey":"12","causationid":"7","data":1})") != std::string::npos);
}

TEST_CASE("a wrapper that goes on to another cause keeps nothing of the one before") {
  EmitWrapper wrapper({}, mails(), "orders", "billing");
  std::string first;
  CHECK_FALSE(wrapper.wrap_lines({Partition(0), Offset(0), cause_line, "a"}, "1\n2\n", first));
  std::string second;
  CHECK_FALSE(wrapper.wrap_lines(
      {Partition(1), Offset(2),
       R"({"specversion":"1.0","id":"x","source":"/o","type":"t","partitionkey":"k","data":0})", "b"},
      "3", second));
  CHECK(second.starts_with(
      R"({"specversion":"1.0","id":"orders/1/2/billing/b:1","source":"/mails","type":"t","time":)"));
  CHECK(second.ends_with("\"partitionkey\":\"k\",\"causationid\":\"x\",\"data\":3}\n"));
}

TEST_CASE("a handler that prints nothing, or an empty array, emits nothing") {
  CHECK(wrap("").lines.empty());
  CHECK(wrap("").error.empty());
  CHECK(wrap("\n \n").lines.empty());
  CHECK(wrap_array("[]").error.empty());
  CHECK(wrap_array(" [ ] ").lines.empty());
}

TEST_CASE("each element of an array is an event") {
  const auto wrapped = wrap_array(R"( [ {"a":[1,"],"]} ,2 , "x\"]" , [] ] )");
  CHECK(wrapped.error.empty());
  CHECK(std::count(wrapped.lines.begin(), wrapped.lines.end(), '\n') == 4);
  CHECK(wrapped.lines.find("\"data\":{\"a\":[1,\"],\"]}}\n") != std::string::npos);
  CHECK(wrapped.lines.find("\"data\":2}\n") != std::string::npos);
  CHECK(wrapped.lines.find("\"data\":\"x\\\"]\"}\n") != std::string::npos);
  CHECK(wrapped.lines.find("billing/send:4\"") != std::string::npos);
  CHECK(wrapped.lines.find("\"data\":[]}\n") != std::string::npos);
}

TEST_CASE("output that is no event is refused as a whole, with its line") {
  const auto wrapped = wrap("1\n\nhello {\n");
  CHECK(wrapped.lines.empty());
  CHECK(wrapped.error.starts_with("output line 3: not JSON: "));
  CHECK(wrap_array("{}").error == "the output behind ok is an object, not an array of events");
  CHECK(wrap_array("[1,").error.starts_with("the output behind ok is not JSON: "));
  CHECK(wrap_array(R"([1,{"specversion":"1.0"}])").error ==
        R"(output element 2: the CloudEvent is not valid: no field "id" (the id))");
  CHECK(
      wrap("\"" + std::string(3'000, 'x') + "\"").error.starts_with("output line 1: the event has at least"));
}

TEST_CASE("one event causes a limited number of events, of a limited size") {
  std::string thousand;
  for (int i = 0; i < 1'000; ++i) {
    thousand += "1\n";
  }
  CHECK(wrap(thousand).error.empty());
  CHECK(wrap(thousand + "1\n").error == "output line 1001: more than 1,000 events for one event");
  Topic topic = mails();
  topic.settings.event_bytes_max = 1 << 20;
  EmitWrapper wrapper({}, topic, "orders", "billing");
  std::string large;
  for (int i = 0; i < 9; ++i) {
    large += "\"" + std::string(1'000'000, 'x') + "\"\n";
  }
  std::string out;
  CHECK(wrapper.wrap_lines({Partition(0), Offset(0), cause_line, "a"}, large, out) ==
        "output line 9: more than 8.0 MiB of events for one event");
  CHECK(out.empty());
}
