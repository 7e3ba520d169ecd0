// Which events of a partition may start, and how far all are done.
#include "continuum/window.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <string>
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

std::vector<std::uint64_t> take_all(Window& window, Window::Clock::time_point at = now) {
  std::vector<std::uint64_t> offsets;
  while (const auto e = window.take(at)) {
    offsets.push_back(e->offset.value);
  }
  return offsets;
}

using Offsets = std::vector<std::uint64_t>;

}  // namespace

TEST_CASE("events of one key start one after the other, different keys together") {
  Window window({Offset(0), {}}, TypeFilter());
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
  window.done(Offset(3));
  CHECK(window.empty());
  CHECK(window.done_count() == 4);
}

TEST_CASE("the cursor is the longest finished prefix, also inside of an entry") {
  Window window({Offset(0), {}}, TypeFilter());
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
  Window window({Offset(6), EntryId{9, 0}}, TypeFilter());
  Budget budget(std::nullopt);
  window.add(entry(10, 5, {event("a"), event("b"), event("c")}));
  window.admit(budget);
  CHECK(take_all(window) == Offsets{6, 7});
}

TEST_CASE("a retry holds its key back until it is due, and no other key") {
  Window window({Offset(0), {}}, TypeFilter());
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
  Window window({Offset(0), {}}, TypeFilter());
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

TEST_CASE("events of other types are done at once and cost no budget") {
  Window window({Offset(0), {}}, TypeFilter({"post.*"}));
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
  Window window({Offset(0), {}}, TypeFilter({"wanted"}));
  Budget budget(std::nullopt);
  std::vector<std::string> events(3 * Window::events_max, event("a", "other"));
  events.push_back(event("a", "wanted"));
  window.add(entry(1, 0, events));
  window.admit(budget);
  CHECK(take_all(window) == Offsets{3 * Window::events_max});
}

TEST_CASE("one event that does not end bounds what is taken on behind it") {
  Window window({Offset(0), {}}, TypeFilter());
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
  Window window({Offset(0), {}}, TypeFilter());
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
