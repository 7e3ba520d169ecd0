// G6: a handler that fails for some keys, or for everything for a while, with workers that live and workers
// that are killed. The seed of a failing run is printed.
#include "chaos/recorded_forum.hpp"

#include <doctest/doctest.h>

#include <ctime>
#include <list>
#include <random>
#include <string>
#include <vector>

using namespace continuum;
using namespace test;
using namespace std::chrono_literals;

namespace {

// One that fails for the bad keys, and one that never does.
void write_handlers(const RecordedForum& forum, std::uint32_t concurrency = 1) {
  forum.write_handler({.divisor = bad_one_in, .concurrency = concurrency});
  forum.write_handler({.name = "20-second", .concurrency = concurrency});
}

std::uint64_t events_of_bad_keys(const RecordedForum& forum) {
  std::uint64_t sum = 0;
  for (std::uint32_t key = 0; key < forum.keys; key += bad_one_in) {
    sum += forum.published_of(key);
  }
  return sum;
}

// Every event of the bad keys is a letter, in order, and those of no other key. The first of each key failed.
void check_letters(const RecordedForum& forum) {
  const auto letters = forum.all_letters();
  for (std::uint32_t key = 0; key < forum.keys; key += bad_one_in) {
    CAPTURE(key);
    const auto found = letters.find(key);
    REQUIRE(found != letters.end());
    REQUIRE(found->second.size() == forum.published_of(key));
    for (std::uint32_t i = 0; i < found->second.size(); ++i) {
      const RecordedForum::Letter& letter = found->second[i];
      CHECK(letter.number == i + 1);
      CHECK(letter.state == (i == 0 ? LetterState::failed : LetterState::behind));
      CHECK(letter.attempts == (i == 0 ? 2 : 0));
    }
  }
  CHECK(letters.size() == forum.keys / bad_one_in);
}

// Workers that are killed, and others that take over from them.
class Crew {
 public:
  Crew(const RecordedForum& forum, std::size_t size, std::vector<std::string> how)
      : forum_(forum), how_(std::move(how)) {
    for (std::size_t i = 0; i < size; ++i) {
      workers_.push_back(forum_.work_directory(how_));
    }
  }

  void kill_one(std::size_t which) {
    auto victim = std::next(workers_.begin(), static_cast<std::ptrdiff_t>(which % workers_.size()));
    CHECK_FALSE_MESSAGE(victim->ended_within(0ms), forum_.said());
    victim->signal(SIGKILL);
    victim->wait();
    workers_.erase(victim);
    workers_.push_back(forum_.work_directory(how_));
  }

  // In good order.
  void stop() {
    for (auto& worker : workers_) {
      await_started(worker);
      worker.signal(SIGTERM);
    }
    for (auto& worker : workers_) {
      const int status = end_of(worker);
      // 1: it had events that failed. The last: it had only just been started.
      CHECK_MESSAGE((status == 0 || status == 1 || status == 128 + SIGTERM), status);
    }
    workers_.clear();
  }

 private:
  const RecordedForum& forum_;
  const std::vector<std::string> how_;
  std::list<Process> workers_;
};

enum class Rings : std::uint8_t { stays, changes };

// Kills workers at random moments while the handler fails for its bad keys, and again while it is mended and
// the keys are released, with events coming all the time. When the ring changes, letters go with their keys.
void kill_workers(std::size_t size, const std::vector<std::string>& how, std::chrono::milliseconds pause_max,
                  Rings rings) {
  RecordedForum forum;
  write_handlers(forum);
  const std::uint32_t kills = is_long() ? 30 : 8;
  const auto seed = static_cast<std::mt19937::result_type>(std::time(nullptr));
  CAPTURE(seed);
  std::mt19937 random(seed);
  const auto pause = [&] {
    // At any time; or when somebody catches up with what the one before left.
    const std::uint64_t ms = random() % 2 == 0 ? random() % static_cast<std::uint64_t>(pause_max.count())
                                               : lease_ms - 50 + random() % 200;
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
  };
  // Events for about as long as half of the kills take.
  const std::uint64_t per_second =
      std::uint64_t{forum.events} * 1'000 / (kills * static_cast<std::uint64_t>(pause_max.count()) / 2);
  Crew crew(forum, size, how);
  const std::vector<std::uint32_t> sizes{12, 5, 9, 8};
  const auto change = [&](std::uint32_t kill) {
    if (rings == Rings::changes && kill % 2 == 1) {
      forum.resize(sizes[kill / 2 % sizes.size()]);
    }
  };

  auto publisher = forum.start_publishing(forum.events / 2, per_second);
  for (std::uint32_t i = 0; i < kills / 2; ++i) {
    pause();
    change(i);
    crew.kill_one(random());
  }
  CHECK(end_of(publisher) == 0);
  // A letter that went elsewhere is dropped a moment after it arrived there.
  await("everything is committed or a letter, once",
        [&] { return forum.everything_is_committed() && forum.letters() == events_of_bad_keys(forum); });
  check_letters(forum);
  check_complete(forum, forum.seen(RecordedForum::handler), Bad::unseen);
  check_complete(forum, forum.seen("20-second"), Bad::seen);

  auto more = forum.start_publishing(forum.events / 2, per_second);
  pause();
  forum.mend();
  for (std::uint32_t i = 0; i < kills / 2; ++i) {
    forum.release(forum.keys / bad_one_in / RecordedForum::partitions * 2 / kills + 1);
    pause();
    change(i);
    crew.kill_one(random());
  }
  CHECK(end_of(more) == 0);
  await("everything is committed", [&] { return forum.everything_is_committed(); });
  await("every letter is handled", [&] {
    forum.release();  // also of keys that were on their way when it was asked for last
    return forum.letters() == 0 && forum.held_keys() == 0;
  });
  crew.stop();
  for (const std::string name : {RecordedForum::handler, "20-second"}) {
    CAPTURE(name);
    const Seen seen = forum.seen(name);
    check_complete(forum, seen, Bad::seen);
    CHECK(seen.most_again() <= kills + (rings == Rings::changes ? kills : 0));
    MESSAGE(name, ": ", seen.repeats, " repeats of ", seen.events(), " events");
  }
  CHECK(forum.all_letters().empty());
}

// How many processes of a handler share a partition makes no difference.
void fail_and_mend(std::uint32_t concurrency) {
  RecordedForum forum;
  write_handlers(forum, concurrency);
  auto worker = forum.work_directory({"--partition", "all"});
  forum.publish(forum.events / 2);
  await("everything is committed", [&] { return forum.everything_is_committed(); });
  check_letters(forum);
  check_once(forum, forum.seen(RecordedForum::handler), Bad::unseen);
  check_once(forum, forum.seen("20-second"), Bad::seen);

  // What comes while their letters are handled goes behind them.
  auto publisher = forum.start_publishing(forum.events / 2, forum.events);
  forum.mend();
  forum.release();
  CHECK(end_of(publisher) == 0);
  await("every letter is handled",
        [&] { return forum.everything_is_committed() && forum.letters() == 0 && forum.held_keys() == 0; });
  worker.signal(SIGTERM);
  CHECK(end_of(worker) == 1);
  check_once(forum, forum.seen(RecordedForum::handler), Bad::seen);
  check_once(forum, forum.seen("20-second"), Bad::seen);
  CHECK(forum.all_letters().empty());
}

}  // namespace

TEST_CASE("a handler that fails for one key in a hundred holds these keys and nothing else") {
  fail_and_mend(1);
}

TEST_CASE("sixteen processes of a failing handler keep the order of every key") {
  fail_and_mend(16);
}

TEST_CASE("a release before the handler is mended holds the keys again and loses nothing") {
  RecordedForum forum;
  write_handlers(forum);
  auto worker = forum.work_directory({"--partition", "all"});
  forum.publish(forum.events / 4);
  await("everything is committed", [&] { return forum.everything_is_committed(); });
  const auto letters = forum.letters();
  forum.release();
  await("every release has failed", [&] {
    for (std::uint32_t p = 0; p < RecordedForum::partitions; ++p) {
      for (const HeldKey& key : forum.held(p).keys) {
        if (key.request || !key.failure) {
          return false;
        }
      }
    }
    return true;
  });
  CHECK(forum.letters() == letters);
  forum.publish(forum.events / 4);
  await("everything is committed", [&] { return forum.everything_is_committed(); });
  forum.mend();
  forum.release();
  await("every letter is handled", [&] { return forum.letters() == 0 && forum.held_keys() == 0; });
  worker.signal(SIGTERM);
  CHECK(end_of(worker) == 1);
  check_once(forum, forum.seen(RecordedForum::handler), Bad::seen);
  check_once(forum, forum.seen("20-second"), Bad::seen);
}

TEST_CASE("killed workers lose no dead letter and keep the order of every key") {
  kill_workers(1, {"--partition", "all"}, 1500ms, Rings::stays);
}

TEST_CASE("killed workers that share lose no dead letter and keep the order of every key") {
  kill_workers(4, {}, 500ms, Rings::stays);
}

TEST_CASE("dead letters and held keys go where their key goes, under killed workers") {
  kill_workers(1, {"--partition", "all"}, 1500ms, Rings::changes);
}

TEST_CASE("dead letters and held keys go where their key goes, under killed workers that share") {
  kill_workers(4, {}, 500ms, Rings::changes);
}
