#include "continuum/pace.hpp"

#include "continuum/error.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace continuum;

namespace {

using Clock = Pace::Clock;
using std::chrono::milliseconds;

const Clock::time_point begin{std::chrono::hours(1000)};

SystemTime original(std::int64_t ms) {
  return SystemTime(Milliseconds(1'700'000'000'000 + ms));
}

}  // namespace

TEST_CASE("a speed is a number and an x") {
  CHECK(parse_speed("10x") == 10);
  CHECK(parse_speed("0.5x") == 0.5);
  for (const char* text : {"", "x", "10", "-1x", "0x", "1e3x", "10 x", "10xx", "nanx", "10000000x"}) {
    CAPTURE(text);
    CHECK_THROWS_AS((void)parse_speed(text), Error);
  }
}

TEST_CASE("a rate spreads events evenly, also when the waits end late") {
  Pace pace({100.0, std::nullopt});
  CHECK(pace.events_at_once() == 5);
  Clock::time_point now = begin;
  for (int i = 0; i < 200; ++i) {
    const auto due = pace.due(now, original(0), 5);
    CHECK(due == begin + milliseconds(50 * i));
    now = due + milliseconds(3);
  }
}

TEST_CASE("a rate of less than one at once still lets one out") {
  Pace pace({0.5, std::nullopt});
  CHECK(pace.events_at_once() == 1);
  CHECK(pace.due(begin, original(0), 1) == begin);
  CHECK(pace.due(begin, original(0), 1) == begin + std::chrono::seconds(2));
}

TEST_CASE("after a receiver was slow there is no burst") {
  SUBCASE("by the rate") {
    Pace pace({10.0, std::nullopt});
    CHECK(pace.due(begin, original(0), 1) == begin);
    const auto late = begin + std::chrono::minutes(1);
    CHECK(pace.due(late, original(0), 1) == late);
    CHECK(pace.due(late, original(0), 1) == late + milliseconds(100));
  }
  SUBCASE("by the speed") {
    Pace pace({std::nullopt, 2.0});
    CHECK(pace.due(begin, original(0), 1) == begin);
    const auto late = begin + std::chrono::minutes(1);
    CHECK(pace.due(late, original(1000), 1) == late);
    CHECK(pace.due(late, original(3000), 1) == late + milliseconds(1000));
  }
}

TEST_CASE("a speed keeps the distances of the original times, divided") {
  Pace pace({std::nullopt, 10.0});
  CHECK(pace.events_at_once() == std::numeric_limits<std::uint64_t>::max());
  CHECK(pace.due(begin, original(0), 1) == begin);
  CHECK(pace.due(begin + milliseconds(1), original(1000), 1) == begin + milliseconds(100));
  CHECK(pace.due(begin + milliseconds(110), original(1000), 1) == begin + milliseconds(100));
  CHECK(pace.due(begin + milliseconds(110), original(5000), 1) == begin + milliseconds(500));
  // Times of the events' own may go back.
  CHECK(pace.due(begin + milliseconds(500), original(-5000), 1) <= begin + milliseconds(500));
  CHECK(pace.due(begin + milliseconds(500), original(6000), 1) == begin + milliseconds(600));
}

TEST_CASE("with a rate and a speed the slower one decides") {
  Pace pace({10.0, 1000.0});
  CHECK(pace.due(begin, original(0), 1) == begin);
  CHECK(pace.due(begin, original(1000), 1) == begin + milliseconds(100));
  CHECK(pace.due(begin + milliseconds(100), original(1'000'000), 1) == begin + milliseconds(1000));
}
