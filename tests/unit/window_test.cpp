// Which events of a partition may start, and how far all are done.
#include "continuum/window.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;

namespace {

std::string event(const std::string& key, const std::string& type = "t") {
  return R"({"specversion":"1.0","id":"i","source":"/s","type":")" + type +
         R"(","time":"2024-05-01T12:00:00.000Z","partitionkey":")" + key + R"(","data":1})";
}

DecodedEntry entry(std::uint64_t id, std::uint64_t first, const std::vector<std::string>& events) {
  DecodedEntry out;
  out.id = EntryId{id, 0};
  out.first = Offset(first);
  out.events = static_cast<std::uint32_t>(events.size());
  for (const std::string& e : events) {
    out.lines += e + "\n";
  }
  return out;
}

const Window::Clock::time_point now = Window::Clock::now();

// A window with one handler.
class OneLane {
 public:
  OneLane(const Cursor& start, TypeFilter filter)
      : window_(start, Dispatch::sequence), lane_(window_.add_lane("handler", std::move(filter))) {}

  void add(DecodedEntry entry) { window_.add(std::move(entry)); }
  void admit(Budget& budget) { window_.admit(budget); }
  auto take(Window::Clock::time_point at) { return window_.take(lane_, at); }
  auto done(Offset offset) { return window_.done(lane_, offset); }
  void retry(Offset offset, Window::Clock::time_point due, std::uint32_t used) {
    window_.retry(lane_, offset, due, used);
  }
  void put_back(Offset offset) { window_.put_back(lane_, offset); }
  bool in_flight(Offset offset) const { return Window::in_flight(lane_, offset); }
  // The offset of the one that is in flight for longest, and since when; nothing: none.
  std::optional<std::pair<std::uint64_t, Window::Clock::time_point>> longest_running() const {
    const auto running = Window::longest_running(lane_);
    return running ? std::optional(std::pair(running->offset.value, running->since)) : std::nullopt;
  }
  auto next_due() const { return Window::next_due(lane_); }
  const Cursor& finished() const { return window_.finished(); }
  bool empty() const { return window_.empty(); }
  bool wants_entry() const { return window_.wants_entry(); }

 private:
  Window window_;
  Window::Lane& lane_;
};

std::vector<std::uint64_t> take_all(OneLane& window, Window::Clock::time_point at = now) {
  std::vector<std::uint64_t> offsets;
  while (const auto e = window.take(at)) {
    offsets.push_back(e->offset.value);
  }
  return offsets;
}

std::vector<std::uint64_t> take_all(Window& window, Window::Lane& lane) {
  std::vector<std::uint64_t> offsets;
  while (const auto e = window.take(lane, now)) {
    offsets.push_back(e->offset.value);
  }
  return offsets;
}

using Offsets = std::vector<std::uint64_t>;

}  // namespace

TEST_CASE("what a replay leaves out counts as done, also where it is longer than the window") {
  Window window({Offset(10), EntryId()}, Dispatch::sequence, Gaps::left_out);
  Window::Lane& lane = window.add_lane("handler", TypeFilter());
  Budget budget(std::nullopt);
  window.add(entry(1, 10, {event("a"), event("b")}));
  window.add(entry(2, 15, {event("a")}));
  window.add(entry(3, 100'000, {event("b")}));
  window.admit(budget);
  const auto a = window.take(lane, now);
  const auto b = window.take(lane, now);
  REQUIRE(a);
  REQUIRE(b);
  CHECK_FALSE(window.take(lane, now));
  (void)window.done(lane, b->offset);
  CHECK(window.finished().offset == Offset(10));
  (void)window.done(lane, a->offset);
  CHECK(window.finished().offset == Offset(15));
  window.admit(budget);
  const auto second = window.take(lane, now);
  REQUIRE(second);
  CHECK(second->offset == Offset(15));
  CHECK(second->line == event("a"));
  // The gap behind it goes on as far as there are slots.
  window.admit(budget);
  CHECK_FALSE(window.take(lane, now));
  (void)window.done(lane, Offset(15));
  window.admit(budget);
  const auto last = window.take(lane, now);
  REQUIRE(last);
  CHECK(last->offset == Offset(100'000));
  (void)window.done(lane, last->offset);
  CHECK(window.finished().offset == Offset(100'001));
  CHECK(window.empty());
}

TEST_CASE("events of one key start one after the other, different keys together") {
  OneLane window({Offset(0), {}}, TypeFilter());
  Budget budget(std::nullopt);
  window.add(entry(1, 0, {event("a"), event("b"), event("a"), event("a")}));
  window.admit(budget);
  CHECK(take_all(window) == Offsets{0, 1});
  window.done(Offset(1));
  CHECK(take_all(window).empty());
  window.done(Offset(0));
  CHECK(take_all(window) == Offsets{2});
  window.done(Offset(2));
  CHECK(take_all(window) == Offsets{3});
  CHECK(window.done(Offset(3)) == Window::Done::by_all);
  CHECK(window.empty());
}

TEST_CASE("the cursor is the longest finished prefix, also inside of an entry") {
  OneLane window({Offset(0), {}}, TypeFilter());
  Budget budget(std::nullopt);
  window.add(entry(10, 0, {event("a"), event("b")}));
  window.add(entry(11, 2, {event("c"), event("d")}));
  window.admit(budget);
  CHECK(take_all(window) == Offsets{0, 1, 2, 3});
  window.done(Offset(1));
  window.done(Offset(2));
  CHECK(window.finished().offset == Offset(0));
  CHECK(window.finished().entry == EntryId{0, 0});
  window.done(Offset(0));
  CHECK(window.finished().offset == Offset(3));
  CHECK(window.finished().entry == EntryId{10, 0});
  window.done(Offset(3));
  CHECK(window.finished().offset == Offset(4));
  CHECK(window.finished().entry == EntryId{11, 0});
}

TEST_CASE("a start inside of an entry passes over what was handled before") {
  OneLane window({Offset(6), EntryId{9, 0}}, TypeFilter());
  Budget budget(std::nullopt);
  window.add(entry(10, 5, {event("a"), event("b"), event("c")}));
  window.admit(budget);
  CHECK(take_all(window) == Offsets{6, 7});
}

TEST_CASE("a retry holds its key back until it is due, and no other key") {
  OneLane window({Offset(0), {}}, TypeFilter());
  Budget budget(std::nullopt);
  window.add(entry(1, 0, {event("a"), event("a"), event("b"), event("b")}));
  window.admit(budget);
  CHECK(take_all(window) == Offsets{0, 2});
  window.retry(Offset(0), now + 1s, 1);
  window.done(Offset(2));
  CHECK(take_all(window) == Offsets{3});
  CHECK(window.next_due() == now + 1s);
  const auto again = window.take(now + 1s);
  REQUIRE(again);
  CHECK(again->offset == Offset(0));
  CHECK(again->attempt == 2);
}

TEST_CASE("an event that is put back starts again as if it had never been taken") {
  OneLane window({Offset(0), {}}, TypeFilter());
  Budget budget(std::nullopt);
  window.add(entry(1, 0, {event("a")}));
  window.admit(budget);
  CHECK(take_all(window) == Offsets{0});
  window.put_back(Offset(0));
  CHECK_FALSE(window.in_flight(Offset(0)));
  const auto again = window.take(now);
  REQUIRE(again);
  CHECK(again->attempt == 1);
}

TEST_CASE("what runs for longest is what was started first of what is in flight, however the others ended") {
  OneLane window({Offset(0), {}}, TypeFilter());
  Budget budget(std::nullopt);
  window.add(entry(1, 0, {event("a"), event("b"), event("c"), event("d")}));
  window.admit(budget);
  CHECK_FALSE(window.longest_running());
  for (int ms = 0; ms < 4; ++ms) {
    window.take(now + std::chrono::milliseconds(ms));
  }
  CHECK(window.longest_running() == std::pair(std::uint64_t{0}, now));
  window.done(Offset(1));
  CHECK(window.longest_running() == std::pair(std::uint64_t{0}, now));
  window.put_back(Offset(0));
  CHECK(window.longest_running() == std::pair(std::uint64_t{2}, now + 2ms));
  window.take(now + 4ms);  // 0 again
  window.retry(Offset(2), now + 1h, 1);
  CHECK(window.longest_running() == std::pair(std::uint64_t{3}, now + 3ms));
  window.done(Offset(3));
  CHECK(window.longest_running() == std::pair(std::uint64_t{0}, now + 4ms));
  window.done(Offset(0));
  CHECK_FALSE(window.longest_running());
}

TEST_CASE("events of other types are done at once and cost no budget") {
  OneLane window({Offset(0), {}}, TypeFilter({"post.*"}));
  Budget budget(1);
  window.add(entry(
      1, 0, {event("a", "like"), event("a", "post.created"), event("a", "like"), event("b", "post.x")}));
  window.admit(budget);
  CHECK(window.finished().offset == Offset(1));
  CHECK(take_all(window) == Offsets{1});
  window.done(Offset(1));
  CHECK(window.finished().offset == Offset(3));
  CHECK(budget.spent());
  window.admit(budget);
  CHECK(take_all(window).empty());
}

TEST_CASE("more left-out events than the window has slots do not stop it") {
  OneLane window({Offset(0), {}}, TypeFilter({"wanted"}));
  Budget budget(std::nullopt);
  std::vector<std::string> events(3 * Window::events_max, event("a", "other"));
  events.push_back(event("a", "wanted"));
  window.add(entry(1, 0, events));
  window.admit(budget);
  CHECK(take_all(window) == Offsets{3 * Window::events_max});
}

TEST_CASE("one event that does not end bounds what is taken on behind it") {
  OneLane window({Offset(0), {}}, TypeFilter());
  Budget budget(std::nullopt);
  std::vector<std::string> events;
  for (std::size_t i = 0; i < 2 * Window::events_max; ++i) {
    events.push_back(event("k" + std::to_string(i)));
  }
  window.add(entry(1, 0, events));
  window.admit(budget);
  CHECK(take_all(window).size() == Window::events_max);
  for (std::uint64_t i = 1; i < Window::events_max; ++i) {
    window.done(Offset(i));
  }
  window.admit(budget);
  CHECK(take_all(window).empty());
  window.done(Offset(0));
  window.admit(budget);
  CHECK(take_all(window).size() == Window::events_max);
}

TEST_CASE("at random, every event is done once, in order per key, and the cursor never lies") {
  std::mt19937 random(42);
  OneLane window({Offset(0), {}}, TypeFilter());
  Budget budget(std::nullopt);
  std::map<std::uint64_t, std::string> key_of_offset;
  std::map<std::string, std::uint64_t> last_started;
  std::set<std::uint64_t> finished;
  std::vector<std::uint64_t> flying;
  std::uint64_t next = 0;
  constexpr std::uint64_t total = 50'000;
  auto at = now;
  while (finished.size() < total) {
    if (next < total && window.wants_entry()) {
      std::vector<std::string> events;
      for (auto n = std::min<std::uint64_t>(1 + random() % 300, total - next); n > 0; --n) {
        const std::string key = std::to_string(random() % 3000);
        key_of_offset[next + events.size()] = key;
        events.push_back(event(key));
      }
      window.add(entry(next + 1, next, events));
      next += events.size();
    }
    window.admit(budget);
    while (flying.size() < 1024) {
      const auto e = window.take(at);
      if (!e) {
        break;
      }
      flying.push_back(e->offset.value);
      // The same one again is a retry; an earlier one would be out of order.
      auto& last = last_started.try_emplace(key_of_offset[e->offset.value], 0).first->second;
      REQUIRE(e->offset.value >= last);
      last = e->offset.value;
    }
    at += 1ms;
    for (auto n = flying.size() / 2 + 1; n > 0 && !flying.empty(); --n) {
      std::swap(flying[random() % flying.size()], flying.back());
      const Offset offset(flying.back());
      flying.pop_back();
      if (random() % 10 == 0) {
        window.retry(offset, at + std::chrono::milliseconds(random() % 20), 1);
      } else if (random() % 10 == 0) {
        window.put_back(offset);
      } else {
        window.done(offset);
        finished.insert(offset.value);
      }
    }
    const auto prefix = window.finished().offset.value;
    REQUIRE((prefix == total || !finished.contains(prefix)));
    REQUIRE((prefix == 0 || finished.contains(prefix - 1)));
  }
  CHECK(window.empty());
  CHECK(window.finished().offset == Offset(total));
}

TEST_CASE("what is ready is started lowest offset first, also what became ready last") {
  OneLane window({Offset(0), {}}, TypeFilter());
  Budget budget(std::nullopt);
  window.add(entry(1, 0, {event("a"), event("a"), event("b"), event("c")}));
  window.admit(budget);
  REQUIRE(window.take(now)->offset == Offset(0));
  window.done(Offset(0));
  CHECK(take_all(window) == Offsets{1, 2, 3});
}

TEST_CASE("in sequence a handler gets an event when the one before is done with it") {
  Window window({Offset(0), {}}, Dispatch::sequence);
  Window::Lane& second = window.add_lane("b", TypeFilter());
  Window::Lane& first = window.add_lane("a", TypeFilter());  // by name, not by arrival
  Budget budget(std::nullopt);
  window.add(entry(1, 0, {event("x"), event("y")}));
  window.admit(budget);
  CHECK(take_all(window, second).empty());
  CHECK(take_all(window, first) == Offsets{0, 1});
  CHECK(window.done(first, Offset(1)) == Window::Done::by_lane);
  CHECK(take_all(window, second) == Offsets{1});
  CHECK(window.done(second, Offset(1)) == Window::Done::by_all);
  CHECK(window.finished().offset == Offset(0));
  window.done(first, Offset(0));
  CHECK(take_all(window, second) == Offsets{0});
  window.done(second, Offset(0));
  CHECK(window.finished().offset == Offset(2));
  CHECK(window.empty());
}

TEST_CASE("in parallel every handler gets an event at once") {
  Window window({Offset(0), {}}, Dispatch::parallel);
  Window::Lane& a = window.add_lane("a", TypeFilter());
  Window::Lane& b = window.add_lane("b", TypeFilter());
  Budget budget(std::nullopt);
  window.add(entry(1, 0, {event("x"), event("x")}));
  window.admit(budget);
  CHECK(take_all(window, a) == Offsets{0});
  CHECK(take_all(window, b) == Offsets{0});
  window.done(b, Offset(0));
  CHECK(take_all(window, b) == Offsets{1});
  CHECK(window.finished().offset == Offset(0));
}

TEST_CASE("a handler keeps the order of a key also when the one before takes only some of its events") {
  Window window({Offset(0), {}}, Dispatch::sequence);
  Window::Lane& picky = window.add_lane("a", TypeFilter({"slow"}));
  Window::Lane& all = window.add_lane("b", TypeFilter());
  Budget budget(std::nullopt);
  window.add(entry(1, 0, {event("x", "slow"), event("x", "quick")}));
  window.admit(budget);
  CHECK(take_all(window, all).empty());  // not 1, which is only its own: 0 comes first
  CHECK(take_all(window, picky) == Offsets{0});
  window.done(picky, Offset(0));
  CHECK(take_all(window, all) == Offsets{0});
  window.done(all, Offset(0));
  CHECK(take_all(window, all) == Offsets{1});
}

TEST_CASE("a handler that comes later takes what comes later, and one that is retired finishes what it has") {
  Window window({Offset(0), {}}, Dispatch::sequence);
  Window::Lane& old_one = window.add_lane("old", TypeFilter());
  Budget budget(std::nullopt);
  window.add(entry(1, 0, {event("x"), event("y")}));
  window.admit(budget);
  Window::Lane& young = window.add_lane("young", TypeFilter());
  window.retire(old_one);
  window.add(entry(2, 2, {event("x")}));
  window.admit(budget);
  CHECK(take_all(window, young) == Offsets{2});
  CHECK(take_all(window, old_one) == Offsets{0, 1});
  window.done(old_one, Offset(0));
  window.done(old_one, Offset(1));
  window.done(young, Offset(2));
  CHECK(Window::open(old_one) == 0);
  window.remove_lane(old_one);
  CHECK(window.finished().offset == Offset(3));
}

TEST_CASE("at random, several handlers each get their events once and in order per key") {
  for (const Dispatch dispatch : {Dispatch::sequence, Dispatch::parallel}) {
    std::mt19937 random(7);
    Window window({Offset(0), {}}, dispatch);
    Budget budget(std::nullopt);
    struct Seen {
      Window::Lane* lane;
      std::map<std::string, std::uint64_t> last;
      std::set<std::uint64_t> done;
      std::vector<std::uint64_t> flying;
    };
    std::vector<Seen> lanes;
    lanes.push_back({&window.add_lane("a", TypeFilter({"1", "2"})), {}, {}, {}});
    lanes.push_back({&window.add_lane("b", TypeFilter()), {}, {}, {}});
    lanes.push_back({&window.add_lane("c", TypeFilter({"2"})), {}, {}, {}});
    std::vector<std::pair<std::string, int>> events;  // key and type by offset
    constexpr std::uint64_t total = 20'000;
    while (window.finished().offset.value < total) {
      if (events.size() < total && window.wants_entry()) {
        std::vector<std::string> lines;
        const std::uint64_t begin = events.size();
        for (auto n = std::min<std::uint64_t>(1 + random() % 200, total - begin); n > 0; --n) {
          events.emplace_back(std::to_string(random() % 500), static_cast<int>(random() % 3));
          lines.push_back(event(events.back().first, std::to_string(events.back().second)));
        }
        window.add(entry(begin + 1, begin, lines));
      }
      window.admit(budget);
      for (Seen& seen : lanes) {
        while (const auto e = window.take(*seen.lane, now)) {
          const std::uint64_t at = e->offset.value;
          auto& last = seen.last.try_emplace(events[at].first, 0).first->second;
          REQUIRE(at >= last);
          last = at;
          if (&seen != &lanes[0] && dispatch == Dispatch::sequence && events[at].second != 0) {
            REQUIRE(lanes[0].done.contains(at));
          }
          seen.flying.push_back(at);
        }
        for (auto n = seen.flying.size() / 2 + 1; n > 0 && !seen.flying.empty(); --n) {
          std::swap(seen.flying[random() % seen.flying.size()], seen.flying.back());
          window.done(*seen.lane, Offset(seen.flying.back()));
          REQUIRE(seen.done.insert(seen.flying.back()).second);
          seen.flying.pop_back();
        }
      }
    }
    const auto taken = [&](auto wanted) {
      return static_cast<std::size_t>(
          std::count_if(events.begin(), events.end(), [&](const auto& e) { return wanted(e.second); }));
    };
    CHECK(lanes[0].done.size() == taken([](int type) { return type > 0; }));
    CHECK(lanes[1].done.size() == total);
    CHECK(lanes[2].done.size() == taken([](int type) { return type == 2; }));
  }
}
