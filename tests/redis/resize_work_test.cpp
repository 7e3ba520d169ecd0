// G1, G5, G6, G7: workers while the ring changes.
#include "redis/changing.hpp"

#include "continuum/dead_letter_listing.hpp"
#include "continuum/dead_letter_requests.hpp"
#include "continuum/error.hpp"
#include "continuum/group_seek.hpp"
#include "continuum/ring.hpp"
#include "continuum/ring_change.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

using namespace continuum;
using test::await;
using test::Changing;
using test::count_of;
using test::kind_of;
using test::record;
using test::record_when_mended;
using test::ring_of;
using test::Running;
using test::Work;

TEST_SUITE("resize work") {
  TEST_CASE("a running worker takes up the partitions that come") {
    for (const Sharing sharing : {Sharing::pinned, Sharing::shared}) {
      Changing w(2);
      w.options().sharing = sharing;
      w.handle(record);
      const std::string key = w.moving_key(ring_of(4), 0, 3);
      w.append("1", key);
      Running running(w);
      await("the first is handled", [&] { return w.handled() == "1\n"; });
      w.resize(ring_of(4));
      CHECK(w.append("2", key) == Partition(3));
      await("the second is handled", [&] { return w.handled() == "1\n2\n"; });
      await("all have passed the barrier", [&] { return w.all_passed(2); });
      (void)running.stop();
    }
  }

  TEST_CASE("a partition that leaves the ring and comes back is worked again, each time") {
    for (const Sharing sharing : {Sharing::pinned, Sharing::shared}) {
      Changing w(4);
      w.options().sharing = sharing;
      w.handle(record);
      const std::string key = w.moving_key(ring_of(2), 3, 0);
      std::string all;
      const auto handled = [&](const std::string& id) {
        all += id + "\n";
        await("it is handled", [&] { return w.handled() == all; });
      };
      Running running(w);
      for (std::uint32_t round = 0; round < 3; ++round) {
        CHECK(w.append("in" + std::to_string(round), key) == Partition(3));
        handled("in" + std::to_string(round));
        w.resize(ring_of(2));
        await("it has left",
              [&] { return w.state(3).passed == Generation(2 * round + 2) && w.state(3).owner.empty(); });
        CHECK(w.append("out" + std::to_string(round), key) == Partition(0));
        handled("out" + std::to_string(round));
        w.resize(ring_of(4));
      }
      await("all have passed the last barrier", [&] { return w.all_passed(7); });
      w.append("last", key);
      handled("last");
      (void)running.stop();
    }
  }

  TEST_CASE("a partition that comes back while it leaves is worked again") {
    Changing w(4);
    w.handle(record);
    const std::string key = w.moving_key(ring_of(2), 3, 0);
    Running running(w);
    std::string all;
    for (std::uint32_t round = 0; round < 5; ++round) {
      w.resize(ring_of(2));
      const auto left = [&] {
        const std::string what = "3: left the ring";
        const std::string said = w.said();
        std::uint32_t times = 0;
        for (auto at = said.find(what); at != std::string::npos; at = said.find(what, at + 1)) {
          ++times;
        }
        return times == round + 1;
      };
      await("it is about to leave", left);
      w.resize(ring_of(4));
      CHECK(w.append(std::to_string(round), key) == Partition(3));
      all += std::to_string(round) + "\n";
      await("it is handled", [&] { return w.handled() == all; });
    }
    (void)running.stop();
  }

  TEST_CASE("a worker takes up a partition that came on a server that is full") {
    Changing w(2);
    w.resize(ring_of(3));
    w.append("1", w.moving_key(ring_of(3), 2, 2));
    w.handle(record);
    w.options().partitions = {Partition(0), Partition(1)};
    w.data().command("CONFIG", "SET", "maxmemory", "1");
    Running running(w);
    await("it is handled", [&] { return w.state(2).cursor.offset == Offset(1); });
    (void)running.stop();
  }

  TEST_CASE("a group that cannot be registered on a full server holds nothing up") {
    for (const bool pending : {true, false}) {
      CAPTURE(pending);
      Changing w(2);
      w.handle(R"x(until test -e "$DIR/go"; do sleep 0.01; done; )x" + record);
      if (pending) {
        w.append("1", w.moving_key(ring_of(2), 1, 1));
        redis::Request begin;
        begin.run(redis::Script::begin, {topic_key("t")}, "1", ring_of(3).text());
        (void)w.session()->call(std::move(begin));
        w.data().seal(0, 2, "old");
      } else {
        w.resize(ring_of(3));
        w.append("1", w.moving_key(ring_of(3), 1, 1));
        w.data().command("DEL", w.group(2));
        w.options().partitions = {Partition(0), Partition(1)};
      }
      w.data().command("CONFIG", "SET", "maxmemory", "1");
      Running running(w);
      await("it was tried", [&] { return w.said().find("registered here") != std::string::npos; });
      test::write_file(w.file("go"), "");
      await("what is there is handled", [&] { return w.state(1).cursor.offset == Offset(1); });
      w.data().command("CONFIG", "SET", "maxmemory", "0");
      await("it is in force", [&] { return load_topic(*w.session(), "t").active == Generation(2); });
      w.data().topic() = load_topic(*w.session(), "t");
      w.append("2", w.moving_key(ring_of(3), 2, 2));
      await("and the new partition is worked", [&] { return w.handled() == "1\n2\n"; });
      (void)running.stop();
      CHECK(w.said().find("ran out") == std::string::npos);
    }
  }

  TEST_CASE("a worker whose group is not known any more says so") {
    Changing w(2);
    w.resize(ring_of(3));
    w.handle(record);
    w.options().partitions = {Partition(0), Partition(1)};
    w.data().command("DEL", w.group(2));
    w.data().command("HDEL", topic_key("t"), "group:g");
    std::string message;
    CHECK(test::kind_of(
              [&] {
                w.options().ending = Ending::never;
                (void)w.run();
              },
              &message) == ErrorKind::loss);
    CHECK(message.find("does not know group g") != std::string::npos);
  }

  TEST_CASE("a partition that gets keys waits until its donors have handled what was before") {
    Changing w(2);
    w.handle(record);
    const std::string key = w.moving_key(ring_of(3), 1, 2);
    w.append("1", key);
    w.resize(ring_of(3));
    w.append("2", key);
    w.options().coverage = Coverage::named;
    {
      w.options().partitions = {Partition(2)};
      Running receiver(w);
      await("it stands at the barrier", [&] { return w.state(2).import.generation == Generation(2); });
      CHECK(w.handled().empty());
      CHECK(w.state(2).passed == Generation(1));
    }
    CHECK(w.said().find("waits") == std::string::npos);  // it was not for long
    w.options().partitions = {Partition(0), Partition(1)};
    (void)w.run();
    CHECK(w.handled() == "1\n");
    CHECK(w.state(1).passed == Generation(2));
    w.options().partitions = {Partition(2)};
    (void)w.run();
    CHECK(w.handled() == "1\n2\n");
  }

  TEST_CASE("who waits at a barrier for long says for whom, once") {
    Changing w(2);
    w.options().waiting_told_after = Milliseconds(50);
    w.handle(R"x(until test -e "$DIR/go"; do sleep 0.01; done; )x" + record);
    const std::string key = w.moving_key(ring_of(3), 1, 2);
    w.append("1", key);
    w.resize(ring_of(3));
    w.append("2", key);
    const auto says = [&](const std::string& what) {
      return [&w, text = "topic t, partition " + what] { return count_of(w.said(), text) == 1; };
    };
    w.options().coverage = Coverage::named;
    w.options().partitions = {Partition(2)};
    {
      Running running(w);
      await("2 says that nobody works the others",
            says("2: waits at generation 2 of the ring for partition 0, which no worker has (and 1 more). "
                 "`continuum inspect why -t t -g g` says more\n"));
    }
    w.options().partitions = {Partition(0)};
    (void)w.run();
    w.options().coverage = Coverage::all;
    w.options().partitions = w.data().topic().partitions();
    Running running(w);
    await("2 says that 1 is behind",
          says("2: waits at generation 2 of the ring for partition 1, which is behind. "));
    test::write_file(w.file("go"), "");
    await("all is handled", [&] { return w.handled() == "1\n2\n"; });
    // The next one, where another partition waits for a paused one.
    w.pause("Ann");
    await("the worker knows", [&] { return w.said().find("paused by Ann") != std::string::npos; });
    w.append("3", w.moving_key(ring_of(4), 0, 3));
    w.resize(ring_of(4));
    await("3 says that 0 is paused",
          says("3: waits at generation 3 of the ring for partition 0, which is paused"));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));  // for what must not happen
    w.pause("");
    await("all have passed", [&] { return w.all_passed(3); });
    (void)running.stop();
    CHECK(count_of(w.said(), "waits at") == 3);
  }

  TEST_CASE("partitions of one worker that wait for the same say so in one line") {
    Changing w(2);
    w.options().waiting_told_after = Milliseconds(2'000);
    w.handle(record);
    w.resize(ring_of(6));
    w.options().coverage = Coverage::named;
    w.options().partitions = {Partition(2), Partition(3), Partition(4), Partition(5)};
    Running running(w);
    await("they say so", [&] {
      return w.said().find(
                 "topic t, partitions 2,3,4,5: waits at generation 2 of the ring for partition 0, "
                 "which no worker has (and 1 more). `continuum inspect why") != std::string::npos;
    });
    (void)running.stop();
    CHECK(count_of(w.said(), "waits at") == 1);
  }

  TEST_CASE("many partitions ask their many donors together") {
    Changing w(60);
    w.resize(ring_of(90));
    w.options().partitions = w.data().topic().partitions();
    (void)w.run();
    CHECK(w.all_passed(2));
    std::size_t pairs = 0;
    for (const auto& [to, givers] : donors(Ring(ring_of(60)), Ring(ring_of(90)))) {
      pairs += givers.size();
    }
    REQUIRE(pairs > 1'000);
    const auto replies = w.data().command("INFO", "commandstats");
    const std::string stats(replies[0].text());
    const std::string before = "cmdstat_hgetall:calls=";
    const auto asked = std::stoull(stats.substr(stats.find(before) + before.size()));
    CHECK(asked < pairs / 2);
  }

  TEST_CASE("what was learned of donors before everything began again is not believed") {
    Changing w(2);
    w.handle(R"x(until test -e "$DIR/go"; do sleep 0.01; done; )x" + record);
    test::write_file(w.file("go"), "");
    const std::string key = w.moving_key(ring_of(3), 1, 2);
    w.append("1", key);
    w.resize(ring_of(3));
    w.append("2", key);
    Running running(w);
    await("all is handled", [&] { return w.all_passed(2) && w.state(2).cursor.offset == Offset(1); });
    std::filesystem::remove(w.file("go"));
    // As `group seek` does while the worker is silent.
    redis::Request seek;
    seek.command("MULTI");
    for (std::uint32_t p = 0; p < 3; ++p) {
      seek.command("HSET", w.group(p), "owner", "", "fence", w.state(p).fence.value + 1, "offset", "0",
                   "entry", "0-0", "passed", "0", "from", "1");
    }
    seek.command("EXEC");
    (void)w.session()->call(std::move(seek));
    await("partition 2 waits at the barrier", [&] { return w.state(2).import.generation == Generation(2); });
    await("partition 0 does not", [&] { return w.state(0).passed == Generation(2); });
    std::this_thread::sleep_for(std::chrono::milliseconds(300));  // for what must not happen
    CHECK(w.handled() == "1\n2\n");
    CHECK(w.state(2).passed == Generation(1));
    test::write_file(w.file("go"), "");
    await("all is handled again", [&] { return w.handled() == "1\n2\n1\n2\n"; });
    (void)running.stop();
  }

  TEST_CASE("partitions that give keys to each other do not wait for ever") {
    Changing w(3);
    w.handle(record);
    w.resize(RingDescription::parse("xxh3:256:0-1*3,2"));
    w.append("1", "a");
    w.resize(RingDescription::parse("xxh3:256:0,1*0.5,2*2"));
    (void)w.run();
    CHECK(w.handled() == "1\n");
    CHECK(w.all_passed(3));
  }

  TEST_CASE("held keys and their letters go where the key goes, and are released there in order") {
    Changing w(1);
    w.handle(record_when_mended);
    w.handler().on_failure = OnFailure::hold_key;
    const std::string key = w.moving_key(ring_of(3), 0, 2);
    const std::string staying = w.moving_key(ring_of(3), 0, 0);
    w.append("1", key);
    w.append("s1", staying);
    w.append("2", key);
    Running running(w);
    await("they are held", [&] { return w.letters().size() == 3; });
    w.resize(ring_of(3));
    w.append("3", key);
    w.append("s2", staying);
    await("they have come over, and what came later is behind them",
          [&] { return w.letters_in(2) == "1\n2\n3\n"; });
    await("they are gone where they were", [&] { return w.letters_in(0) == "s1\ns2\n"; });
    CHECK(w.held(2).letters == 3);
    CHECK(w.held(2).keys.size() == 1);
    CHECK(w.held(0).letters == 2);
    CHECK(w.held(0).keys.size() == 1);
    w.mend();
    w.release(2, key);
    await("they are handled in order", [&] { return w.handled() == "1\n2\n3\n"; });
    await("the key is free", [&] { return w.held(2).letters == 0; });
    w.append("4", key);
    await("and goes on", [&] { return w.handled() == "1\n2\n3\n4\n"; });
    w.release(0, staying);
    await("the other key, too", [&] { return w.handled() == "1\n2\n3\n4\ns1\ns2\n"; });
    (void)running.stop();
  }

  TEST_CASE("letters of a key that has left are not handled where they were") {
    Changing w(2);
    w.handle(record_when_mended);
    w.handler().on_failure = OnFailure::hold_key;
    const std::string key = w.moving_key(ring_of(3), 0, 2);
    w.append("1", key);
    (void)w.run();
    CHECK(w.letters_in(0) == "1\n");
    w.resize(ring_of(3));
    w.options().coverage = Coverage::named;
    w.options().partitions = {Partition(0), Partition(1)};
    (void)w.run();
    CHECK(w.state(0).passed == Generation(2));
    w.mend();
    w.release(0, key);
    (void)w.run();
    CHECK(w.handled().empty());
    CHECK(w.letters_in(0) == "1\n");
    // What was asked for goes with the key.
    w.options().partitions = {Partition(2)};
    (void)w.run();
    CHECK(w.handled() == "1\n");
    CHECK(w.letters_in(2).empty());
    w.options().partitions = {Partition(0)};
    Running running(w);
    await("the copy is dropped", [&] { return w.letters_in(0).empty(); });
    CHECK(w.held(0).keys.empty());
    (void)running.stop();
    CHECK(w.handled() == "1\n");
  }

  TEST_CASE("what an operator asks of letters that move is answered as it is") {
    using What = LetterRequest::What;
    using State = LetterRequests::State;
    for (const What what : {What::retry, What::discard}) {
      Changing w(2);
      w.handle("exit 65");
      w.handler().on_failure = OnFailure::hold_key;
      const std::string key = w.moving_key(ring_of(3), 1, 2);
      const KeyPlace place{Partition(1), {std::string(command_line_handler), key}};
      w.append("1", key);
      (void)w.run();
      const EntryId letter = w.letters(1).front().id;
      const Topic before = w.data().topic();
      w.resize(ring_of(3));
      const auto session = w.session();
      LetterRequests early(*session, before, "g");
      early.ask({{place, {what, letter, letter}}});
      CHECK(early.standings().at(place).state == State::waiting);
      // The donor comes to its mark before it comes to the request.
      w.data().command("HSET", Work::group(1), "import", "2");
      LetterRequests late(*session, before, "g");
      late.ask({{place, {what, letter, letter}}});
      CHECK(late.standings().at(place).state == State::moved);
      CHECK(late.standings().at(place).moved_to == Partition(2));
      CHECK(late.standings().at(place).letters == 1);
      w.options().partitions = w.data().topic().partitions();
      Running running(w);
      await("there is an answer", [&] {
        (void)early.look();
        return early.standings().at(place).state != State::waiting;
      });
      await("the copy is dropped", [&] { return w.letters_in(1).empty(); });
      (void)running.stop();
      const auto standing = early.standings().at(place);
      if (what == What::retry) {
        CHECK(standing.state == State::failed_again);
        CHECK(standing.failure.reason.find("65") != std::string::npos);
      } else {
        CHECK(standing.state == State::moved);
        CHECK(standing.moved_to == Partition(2));
      }
      CHECK(w.letters_in(2) == "1\n");
    }
  }

  TEST_CASE("a retry that came after the copy was made is not said to be answered") {
    using State = LetterRequests::State;
    Changing w(2);
    w.handle("exit 65");
    w.handler().on_failure = OnFailure::hold_key;
    const std::string key = w.moving_key(ring_of(3), 1, 2);
    const KeyPlace place{Partition(1), {std::string(command_line_handler), key}};
    w.append("1", key);
    (void)w.run();
    const Topic before = w.data().topic();
    w.resize(ring_of(3));
    const auto session = w.session();
    LetterRequests requests(*session, before, "g");
    requests.ask({{place, {}}});
    // As if it had come a moment later.
    w.data().command("HDEL", Work::held_key(1), "r/" + place.whose.text());
    w.options().coverage = Coverage::named;
    w.options().partitions = w.data().topic().partitions();
    (void)w.run();
    await("the copy is dropped", [&] {
      (void)w.run();
      return w.letters_in(1).empty();
    });
    (void)requests.look();
    (void)requests.look();
    CHECK(requests.standings().at(place).state == State::moved);
    CHECK(requests.standings().at(place).moved_to == Partition(2));
    CHECK(w.letters_in(2) == "1\n");
  }

  TEST_CASE("a letter that is stored in two partitions counts in one, and the other is no obstacle") {
    Changing w(2);
    w.handle("exit 65");
    w.handler().on_failure = OnFailure::hold_key;
    const std::string key = w.moving_key(ring_of(3), 1, 2);
    w.append("1", key);
    (void)w.run();
    w.resize(ring_of(3));
    const auto session = w.session();
    const auto partitions = w.data().topic().partitions();
    const auto shown = [&] {
      std::string places;
      (void)for_each_letter(*session, w.data().topic(), "g", {}, [&](Partition partition, const DeadLetter&) {
        places += std::to_string(partition.value);
      });
      std::uint64_t letters = 0;
      for (const HeldOnPartition& on : held_keys(*session, w.data().topic(), "g", partitions)) {
        letters += on.held.letters;
      }
      CHECK(letters == places.size());
      CHECK(summarize_letters(*session, w.data().topic(), "g", {}).letters == places.size());
      return places;
    };
    const auto seek_to_end = [&](std::uint32_t partition) { w.seek({partition}, SeekTarget::To::end); };
    CHECK(shown() == "1");
    w.options().coverage = Coverage::named;
    for (const std::uint32_t p : {0U, 1U, 2U}) {
      w.options().partitions = {Partition(p)};
      (void)w.run();
      CHECK(shown() == (p < 2 ? "1" : "2"));
    }
    CHECK(w.letters_in(1) == "1\n");
    CHECK(w.letters_in(2) == "1\n");
    // What was copied is not the receiver's before it has passed.
    w.data().command("HSET", Work::group(2), "passed", "1", "import", "2");
    CHECK(shown() == "1");
    CHECK(kind_of([&] { seek_to_end(1); }) == ErrorKind::usage);
    CHECK(kind_of([&] { seek_to_end(2); }) == ErrorKind::usage);
    // Of a resize that the server lost nothing is known: what is there is shown.
    w.data().command("HSET", Work::group(2), "passed", "9", "import", "");
    CHECK(shown() == "2");
    w.data().command("HSET", Work::group(2), "passed", "2");
    // It would copy again what its partner has not dropped yet: that is dropped.
    w.data().command("RENAME", continuum::dead_key("t", Partition(2), "g"), "aside");
    seek_to_end(2);
    CHECK(w.letters_in(1).empty());
    CHECK(w.held(1).keys.empty());
    CHECK(w.state(1).passed == Generation(2));  // it was not moved
    CHECK(w.state(2).passed == Generation(0));
    w.data().command("RENAME", "aside", continuum::dead_key("t", Partition(2), "g"));
    CHECK(kind_of([&] { seek_to_end(2); }) == ErrorKind::usage);
    CHECK(w.letters_in(2) == "1\n");
  }

  TEST_CASE("a key that moves on and back takes its letters along each time") {
    Changing w(2);
    w.handle(record_when_mended);
    w.handler().on_failure = OnFailure::hold_key;
    const std::string key = w.moving_key(ring_of(3), 0, 2);
    w.append("1", key);
    Running running(w);
    await("it is held", [&] { return w.letters().size() == 1; });
    for (int n = 2; n <= 7; ++n) {
      w.resize(ring_of(n % 2 == 0 ? 3 : 2));
      w.append(std::to_string(n), key);
    }
    await("all are together", [&] { return w.letters_in(0) == "1\n2\n3\n4\n5\n6\n7\n"; });
    await("and nowhere else", [&] { return w.letters_in(2).empty(); });
    CHECK(w.held(0).letters == 7);
    w.mend();
    w.release(0, key);
    await("they are handled in order", [&] { return w.handled() == "1\n2\n3\n4\n5\n6\n7\n"; });
    (void)running.stop();
  }

  TEST_CASE("the worker of a partition that left the ring ends when all of it is handled") {
    Changing w(3);
    w.handle(record);
    const std::string key = w.moving_key(ring_of(2), 2, 0);
    w.append("1", key);
    w.resize(ring_of(2));
    w.append("2", key);
    w.options().coverage = Coverage::named;
    w.options().partitions = {Partition(2)};
    w.options().ending = Ending::never;
    (void)w.run();
    CHECK(w.handled() == "1\n");
    CHECK(w.state(2).owner.empty());
    CHECK(w.said().find("left the ring") != std::string::npos);
    w.options().ending = Ending::drained;
    w.options().partitions = {Partition(0), Partition(1)};
    (void)w.run();
    CHECK(w.handled() == "1\n2\n");
  }

  TEST_CASE("a worker that waits finishes the resize of a coordinator that died") {
    Changing w(2);
    w.handle(record);
    redis::Request begin;
    begin.run(redis::Script::begin, {topic_key("t")}, "1", ring_of(3).text());
    (void)w.session()->call(std::move(begin));
    w.data().seal(0, 2, "old");
    Running running(w);
    await("it is in force", [&] { return load_topic(*w.session(), "t").active == Generation(2); });
    w.data().topic() = load_topic(*w.session(), "t");
    await("all have passed the barrier", [&] { return w.all_passed(2); });
    (void)running.stop();
  }

  TEST_CASE("a letter from elsewhere is told apart from an event with the same offset") {
    Changing w(2);
    w.handle(R"x(test -e "$DIR/mended" || exit 65; echo $CONTINUUM_PARTITION/$CONTINUUM_OFFSET >>"$OUT")x");
    w.handler().on_failure = OnFailure::hold_key;
    const std::string key = w.moving_key(ring_of(3), 1, 2);
    w.append("1", key);
    w.resize(ring_of(3));
    CHECK(w.append("2", key) == Partition(2));
    (void)w.run_all();
    REQUIRE(w.letters_in(2) == "1\n2\n");
    CHECK(w.letters(2)[0].from == Partition(1));
    CHECK_FALSE(w.letters(2)[1].from);
    w.mend();
    w.release(2, key);
    (void)w.run_all();
    CHECK(w.handled() == "1/0\n2/0\n");
    CHECK(w.letters(2).empty());
  }

  TEST_CASE(
      "letters that came back stay when their partition is taken over before it has passed the barrier") {
    Changing w(3);
    w.handle("exit 65");
    w.handler().on_failure = OnFailure::hold_key;
    const RingDescription less = RingDescription::parse("xxh3:256:0*0.25,1-2");
    const std::string key = w.moving_key(less, 0, 1);
    w.append("1", key);
    (void)w.run();
    w.resize(less);
    (void)w.run();
    CHECK(w.letters_in(1) == "1\n");
    // It comes back, but partition 0 waits for 2 as well.
    w.resize(ring_of(3));
    w.options().coverage = Coverage::named;
    w.options().partitions = {Partition(0), Partition(1)};
    {
      Running running(w);
      await("0 and 1 stand at the barrier", [&] {
        return w.state(0).import.generation == Generation(3) && w.state(1).passed == Generation(3);
      });
      (void)running.stop();
    }
    // As by a worker that was killed when it had copied the letter, and before it passed.
    const std::string whose = std::string(command_line_handler) + "/" + key;
    const auto session = w.session();
    redis::Request copy;
    copy.command("XADD", dead_key("t", Partition(0), "g"), "*", "h", command_line_handler, "k", key, "o", "0",
                 "s", "failed", "a", "1", "t", "1", "r", "", "e", test::event_line("1", key));
    copy.command("HSET", w.held_key(0), "total", "1", "n/" + whose, "1", "h/" + whose, "1");
    copy.command("HSET", w.group(0), "import",
                 Import{Generation(3), Partition(1), EntryId{number_max, 0}}.text());
    (void)session->call(std::move(copy));
    {
      const Fence before = w.state(0).fence;
      Running running(w);
      await("another one has the lease", [&] { return w.state(0).fence != before; });
      (void)running.stop();
    }
    CHECK(w.letters_in(0) == "1\n");
    w.options().partitions = w.data().topic().partitions();
    Running running(w);
    await("all have passed, and it is gone where it was",
          [&] { return w.all_passed(3) && w.letters_in(1).empty(); });
    CHECK(w.letters_in(0) == "1\n");
    (void)running.stop();
  }

  TEST_CASE("a group that begins behind barriers passes them without moving") {
    Changing w(2);
    w.handle(record);
    w.append("1", "a");
    w.resize(ring_of(3));
    w.append("2", "a");
    w.resize(ring_of(2));
    w.append("3", "a");
    const auto session = w.session();
    register_group(*session, w.data().topic(), "late", "end");
    w.append("4", "a");
    w.options().group = "late";
    w.options().partitions = w.data().topic().partitions();
    (void)w.run();
    CHECK(w.handled() == "4\n");
  }
}
