// Seeks of a group whose topic has got other rings (G6, G7): no dead letter is lost, wherever it is put.
#include "redis/changing.hpp"
#include "redis/work.hpp"

#include "continuum/dead_letters.hpp"
#include "continuum/error.hpp"
#include "continuum/group_seek.hpp"
#include "continuum/group_skip.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace continuum;
using test::Changing;
using test::kind_of;
using test::ring_of;
using test::Work;

namespace {

// A seek whose last step, of the partition itself, is refused. Returns which partitions stayed.
std::string ends_in_the_middle(Changing& w, std::uint32_t partition, SeekTarget::To to) {
  const auto session = w.session();
  const std::string meta = meta_key("t", Partition(partition));
  const std::vector<Partition> one{Partition(partition)};
  std::string stayed;
  CHECK(kind_of([&] {
          (void)seek(*session, w.data().topic(), "g", one, {to, {}, {}}, "ann", [&](const SeekPlan& plan) {
            for (const Move& move : plan.staying) {
              stayed += std::to_string(move.partition.value);
            }
            w.data().command("HSET", meta, "trimmed_offset", "99");
          });
        }) == ErrorKind::usage);
  w.data().command("HDEL", meta, "trimmed_offset");
  return stayed;
}

}  // namespace

TEST_SUITE("resize seek") {
  TEST_CASE("what fails when one partition has gone back comes to the partition that got its key") {
    Changing w(2);
    w.handle("exit 0");
    w.handler().on_failure = OnFailure::hold_key;
    const std::string key = w.moving_key(ring_of(3), 1, 2);
    w.append("1", key);
    w.resize(ring_of(3));
    w.seek({1}, SeekTarget::To::start);
    CHECK(w.stayed().empty());  // nobody has come to the barrier
    w.append("2", key);
    (void)w.run_all();
    w.seek({1}, SeekTarget::To::end);
    CHECK(w.stayed().empty());
    w.seek({2}, SeekTarget::To::start);
    CHECK(w.stayed().empty());  // what it gets comes before it in any case
    (void)w.run_all();
    w.seek({1}, SeekTarget::To::start);
    CHECK(w.stayed() == "2");
    w.handle("exit 65");
    (void)w.run_all();
    CHECK(w.letters_in(2) == "1\n");
    CHECK(w.state(2).cursor.offset == Offset(1));
    w.append("3", key);
    (void)w.run_all();
    CHECK(w.letters_in(2) == "1\n3\n");
  }

  TEST_CASE("what fails when one partition has gone back follows its key over all that have had it since") {
    Changing w(3);
    w.handle("exit 0");
    w.handler().on_failure = OnFailure::hold_key;
    // 2 gives the key to 0, which gives it to 3, which got nothing of 2 itself.
    const RingDescription without = ring_of(2);
    const RingDescription other = RingDescription::parse("xxh3:256:0,1,3");
    std::string key;
    for (int i = 0; key.empty(); ++i) {
      const std::string one = "k" + std::to_string(i);
      const bool moves = Ring(ring_of(3)).owner(one) == Partition(2) &&
                         Ring(without).owner(one) == Partition(0) && Ring(other).owner(one) == Partition(3);
      key = moves ? one : "";
    }
    w.append("1", key);
    w.resize(without);
    w.resize(other);
    (void)w.run_all();
    w.seek({2}, SeekTarget::To::start);
    CHECK(w.stayed() == "013");
    w.handle("exit 65");
    (void)w.run_all();
    CHECK(w.letters_in(3) == "1\n");
    // A partition that goes nowhere gets letters all the same, and gives them on.
    w.data().command("DEL", continuum::dead_key("t", Partition(3), "g"), Work::held_key(3));
    w.seek({0}, SeekTarget::To::end);
    CHECK(w.stayed().empty());
    w.seek({2}, SeekTarget::To::start);
    CHECK(w.stayed() == "013");
    (void)w.run_all();
    CHECK(w.letters_in(3) == "1\n");
  }

  TEST_CASE("a seek that ends in the middle loses no dead letter") {
    Changing w(2);
    w.handle("exit 0");
    w.handler().on_failure = OnFailure::hold_key;
    w.append("1", w.moving_key(ring_of(3), 0, 2));
    w.resize(ring_of(3));
    (void)w.run_all();
    // The last step is refused for the partition that goes back: the others have been reset before.
    CHECK(ends_in_the_middle(w, 0, SeekTarget::To::start) == "2");
    CHECK(w.state(2).passed == Generation(0));
    CHECK(w.state(0).passed == Generation(0));
    CHECK(w.state(0).cursor.offset == Offset(1));
    (void)w.run_all();
    CHECK(w.all_passed(2));
  }

  TEST_CASE("what a partition had come to before an earlier seek is not forgotten") {
    Changing w(2);
    w.handle("exit 0");
    w.handler().on_failure = OnFailure::hold_key;
    const std::string key = w.moving_key(ring_of(3), 0, 0);
    w.append("1", w.moving_key(ring_of(3), 0, 2));
    w.resize(ring_of(3));
    w.append("2", key);
    SUBCASE("it had passed a barrier that another one stands at") {
      (void)w.run_all();
      w.data().command("HSET", Work::group(2), "passed", "1", "from", "1", "import", "2");
      w.seek({0}, SeekTarget::To::end);
      CHECK(w.stayed().empty());
    }
    SUBCASE("it had come to a barrier, and the seek over it ended in the middle") {
      w.data().command("HSET", Work::group(0), "passed", "1", "from", "1", "offset", "1", "import", "2");
      (void)ends_in_the_middle(w, 0, SeekTarget::To::end);
      CHECK(w.state(0).import.generation == Generation(0));
      CHECK(w.state(0).from == Generation(1));
    }
    w.seek({0}, SeekTarget::To::start);
    CHECK(w.stayed() == "2");
  }

  TEST_CASE("who passes a barrier again does not copy letters of keys that came back to their partition") {
    Changing w(1);
    w.handle("exit 65");
    w.handler().on_failure = OnFailure::hold_key;
    const std::string key = w.moving_key(ring_of(2), 0, 1);
    w.resize(ring_of(2));
    w.append("1", key);
    w.resize(ring_of(1));
    (void)w.run_all();
    CHECK(w.letters_in(0) == "1\n");
    const auto stored_there = [&] {
      const auto replies = w.data().command("XINFO", "STREAM", continuum::dead_key("t", Partition(1), "g"));
      std::uint64_t added = 0;
      for (std::size_t i = 0; i + 1 < replies[0].size(); i += 2) {
        added = replies[0][i].text() == "entries-added" ? replies[0][i + 1].number() : added;
      }
      return added;
    };
    const std::uint64_t before = stored_there();
    CHECK(before == 1);
    w.seek({1}, SeekTarget::To::end);
    (void)w.run_all();
    CHECK(w.all_passed(3));
    CHECK(w.letters_in(0) == "1\n");
    CHECK(w.letters_in(1).empty());
    CHECK(stored_there() == before);
  }

  TEST_CASE("after a seek nothing is skipped before the barriers are passed again") {
    Changing w(2);
    w.handle("exit 0");
    const std::string key = w.moving_key(ring_of(3), 0, 2);
    w.append("1", key);
    w.resize(ring_of(3));
    w.append("2", key);
    (void)w.run_all();
    w.seek({2}, SeekTarget::To::end);
    w.append("3", key);
    const auto session = w.session();
    const auto skip_one = [&](std::uint32_t partition) {
      return continuum::skip(*session, w.data().topic(), "g", Partition(partition), {}, "ann", "why")
          .events.size();
    };
    std::string message;
    CHECK(kind_of([&] { (void)skip_one(2); }, &message) == ErrorKind::usage);
    CHECK(message.find("Start its worker") != std::string::npos);
    w.handle("exit 65");
    w.handler().on_failure = OnFailure::halt;
    (void)w.run_all();
    CHECK(skip_one(2) == 1);
  }
}
