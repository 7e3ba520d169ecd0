#include "continuum/log.hpp"

#include <hiredis/hiredis.h>

#include <doctest/doctest.h>

#include <initializer_list>
#include <string>
#include <vector>

using namespace continuum;

namespace {

// A reply as the server sends it, read by the reader that the library uses.
class Answer {
 public:
  explicit Answer(const std::string& bytes) {
    redisReader* reader = redisReaderCreate();
    redisReaderFeed(reader, bytes.data(), bytes.size());
    void* reply = nullptr;
    REQUIRE(redisReaderGetReply(reader, &reply) == REDIS_OK);
    REQUIRE(reply != nullptr);
    replies_.push(static_cast<redisReply*>(reply));
    redisReaderFree(reader);
  }
  [[nodiscard]] redis::Reply reply() const { return replies_[0]; }

 private:
  redis::Replies replies_;
};

std::string text(const std::string& bytes) {
  return fmt::format("${}\r\n{}\r\n", bytes.size(), bytes);
}

std::string list(const std::vector<std::string>& elements) {
  std::string out = fmt::format("*{}\r\n", elements.size());
  for (const std::string& element : elements) {
    out += text(element);
  }
  return out;
}

std::string entry_answer(const std::string& id, const std::vector<std::string>& fields) {
  return "*2\r\n" + text(id) + list(fields);
}

Entry parse(const Answer& answer) {
  return parse_entry(answer.reply(), "t", Partition(3));
}

void check_refused(const std::vector<std::string>& fields, std::string_view why) {
  CAPTURE(why);
  const Answer answer(entry_answer("7-1", fields));
  try {
    (void)parse(answer);
    FAIL("the entry was accepted");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::loss);
    CHECK(error.message().find("topic t, partition 3: entry 7-1") != std::string::npos);
    CHECK(error.message().find(why) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("the keys of a partition share a hash tag, and the topic has its own") {
  CHECK(topic_key("posts") == "continuum:{posts}:topic");
  CHECK(log_key("posts", Partition(12)) == "continuum:{posts:12}:log");
  CHECK(meta_key("posts", Partition(12)) == "continuum:{posts:12}:meta");
  CHECK(producer_key("posts", Partition(0), "import") == "continuum:{posts:0}:producer:import");
  CHECK(group_key("posts", Partition(0), "mailer") == "continuum:{posts:0}:group:mailer");
}

TEST_CASE("entry ids are read, written and ordered as numbers") {
  const auto id = EntryId::parse("1714564800123-17");
  REQUIRE(id);
  CHECK(id->milliseconds == 1714564800123);
  CHECK(id->sequence == 17);
  CHECK(id->text() == "1714564800123-17");
  CHECK(*EntryId::parse("9-0") < *EntryId::parse("10-0"));
  CHECK(*EntryId::parse("9-2") < *EntryId::parse("9-10"));
  CHECK(EntryId::parse("18446744073709551615-18446744073709551615"));
}

TEST_CASE("a text that is no entry id is none") {
  for (const char* wrong :
       {"", "-", "1", "1-", "-1", "1-2-3", " 1-2", "1-x", "+1-2", "18446744073709551616-0"}) {
    CAPTURE(wrong);
    CHECK_FALSE(EntryId::parse(wrong));
  }
}

TEST_CASE("an entry is read with its frame as it is") {
  const Answer answer(entry_answer("5-0", {"n", "2", "o", "40", "g", "3", "p", "import", "l", "9", "d", "77",
                                           "e", std::string("{}\n\0\n", 5)}));
  const Entry entry = parse(answer);
  CHECK(entry.id == EntryId{5, 0});
  CHECK(entry.first == Offset(40));
  CHECK(entry.next() == Offset(42));
  CHECK(entry.generation == Generation(3));
  CHECK_FALSE(entry.barrier);
  CHECK(entry.encoding == Encoding::plain);
  CHECK(entry.frame == std::string_view("{}\n\0\n", 5));
  CHECK(entry.producer == "import");
}

TEST_CASE("a compressed entry says so") {
  const Answer answer(entry_answer("5-0", {"n", "1", "o", "0", "g", "1", "z", "bytes"}));
  CHECK(parse(answer).encoding == Encoding::zstd);
}

TEST_CASE("a barrier has no events and stands at the next offset") {
  const Answer answer(entry_answer("5-0", {"barrier", "2", "o", "42"}));
  const Entry entry = parse(answer);
  CHECK(entry.barrier == Generation(2));
  CHECK(entry.generation == Generation(2));
  CHECK(entry.events == 0);
  CHECK(entry.next() == Offset(42));
}

TEST_CASE("a field that a later version adds is passed over") {
  const Answer answer(entry_answer("5-0", {"n", "1", "o", "0", "g", "1", "later", "x", "e", "{}\n"}));
  CHECK(parse(answer).frame == "{}\n");
}

TEST_CASE("an entry that somebody else wrote is reported with its place") {
  check_refused({"message", "hello"}, "no offset");
  check_refused({}, "no offset");
  check_refused({"n", "1", "o", "0", "e", "{}\n"}, "no generation");
  check_refused({"o", "0", "g", "1", "e", "{}\n"}, "no number of events");
  check_refused({"n", "1", "o", "0", "g", "1"}, "needs one frame");
  check_refused({"n", "1", "o", "0", "g", "1", "e", "{}\n", "z", "x"}, "needs one frame");
  check_refused({"barrier", "1", "o", "0", "e", "{}\n"}, "a barrier and has events");
}

TEST_CASE("numbers of an entry that are out of bounds are reported") {
  check_refused({"n", "0", "o", "0", "g", "1", "e", "{}\n"}, "number of events");
  check_refused({"n", "-1", "o", "0", "g", "1", "e", "{}\n"}, "number of events");
  check_refused({"n", "1048577", "o", "0", "g", "1", "e", "{}\n"}, "number of events");
  check_refused({"n", "1e3", "o", "0", "g", "1", "e", "{}\n"}, "number of events");
  check_refused({"n", "1", "o", "9007199254740993", "g", "1", "e", "{}\n"}, "offset");
  check_refused({"n", "2", "o", "9007199254740990", "g", "1", "e", "{}\n"}, "offset");
  check_refused({"n", "1", "o", "0", "g", "0", "e", "{}\n"}, "generation");
  check_refused({"n", "1", "o", "0", "g", "4294967296", "e", "{}\n"}, "generation");
  check_refused({"n", "1", "n", "1", "o", "0", "g", "1", "e", "{}\n"}, "comes twice");
}

TEST_CASE("what is no entry at all is not understood") {
  const Answer answer("*1\r\n$3\r\n1-0\r\n");
  CHECK_THROWS_AS((void)parse(answer), Error);
}

TEST_CASE("the state of a partition is read from its hash") {
  const Answer answer(
      list({"id", "abc", "gen", "2", "born", "1", "next", "99", "trimmed", "0", "format", "1"}));
  const auto state = parse_meta(answer.reply());
  REQUIRE(state);
  CHECK(state->log_id == "abc");
  CHECK(state->generation == Generation(2));
  CHECK(state->born == Generation(1));
  CHECK(state->next == Offset(99));
  CHECK(state->trimmed == Generation(0));
}

TEST_CASE("where a trim left the beginning of a log is read from its hash, whole or as loss") {
  const std::vector<std::string> fields{"id", "abc", "gen", "2", "born", "1", "next", "99", "trimmed", "1"};
  CHECK_FALSE(parse_meta(Answer(list(fields)).reply())->trimmed_offset);
  std::vector<std::string> trimmed = fields;
  trimmed.insert(trimmed.end(), {"trimmed_offset", "40", "trimmed_entry", "7-1"});
  const Answer answer(list(trimmed));
  const auto state = parse_meta(answer.reply());
  REQUIRE(state);
  CHECK(state->trimmed_offset == Offset(40));
  CHECK(state->trimmed_entry == EntryId{7, 1});
  trimmed.back() = "seven";
  CHECK_THROWS_AS((void)parse_meta(Answer(list(trimmed)).reply()), Error);
}

TEST_CASE("a partition that does not exist has no state, and half a state is loss") {
  CHECK_FALSE(parse_meta(Answer("*0\r\n").reply()));
  const Answer half(list({"id", "abc", "gen", "2"}));
  CHECK_THROWS_AS((void)parse_meta(half.reply()), Error);
  const Answer wrong(list({"id", "abc", "gen", "2", "born", "1", "next", "many", "trimmed", "0"}));
  CHECK_THROWS_AS((void)parse_meta(wrong.reply()), Error);
}

TEST_CASE("a damaged frame is reported with topic, partition, offsets and entry") {
  const Answer answer(entry_answer("5-0", {"n", "2", "o", "40", "g", "1", "e", "{}\n"}));
  FrameDecoder decoder;
  std::string lines;
  try {
    decode_entry(decoder, parse(answer), "t", Partition(3), lines);
    FAIL("the frame was accepted");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::loss);
    CHECK(error.message().find("topic t, partition 3, offsets 40 to 41 (entry 5-0)") != std::string::npos);
  }
}
