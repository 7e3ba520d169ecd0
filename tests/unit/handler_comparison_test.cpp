// When a worker says that others of its group run other handlers. Between real workers:
// tests/redis/sharing_test.cpp.
#include "continuum/handler_comparison.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;

namespace {

// Looks of a worker that has "ours", ten seconds apart. All others live, unless it is said otherwise.
class Looks {
 public:
  struct Other {
    std::uint32_t partition;
    std::string owner;
    std::string handlers;
    enum class Life : std::uint8_t { alive, dead } life = Life::alive;
  };

  // "HANDLERS: WHO WHO; HANDLERS: WHO" of what is told.
  std::string see(const std::vector<Other>& others, const std::string& ours = "ours") {
    now_ += 10s;
    ++beat_;
    std::vector<HandlerDifferences::Sighting> seen;
    for (const Other& other : others) {
      const std::string who = other.owner.empty() ? "" : "host:" + other.owner;
      const std::string beat = other.life == Other::Life::alive ? std::to_string(beat_) : "7";
      seen.push_back({Partition(other.partition), other.owner, who, beat, other.handlers});
    }
    std::string told;
    for (const auto& difference : differences_.see(ours, seen, now_)) {
      told += (told.empty() ? "" : "; ") + difference.handlers + ":";
      for (const std::string& who : difference.who) {
        told += " " + who;
      }
    }
    return told;
  }

 private:
  HandlerDifferences differences_{30s};
  Clock::time_point now_;
  int beat_ = 100;
};

using Life = Looks::Other::Life;

}  // namespace

TEST_CASE("handlers that differ are told when they differed for half a minute, and once") {
  Looks looks;
  const std::vector<Looks::Other> others = {{0, "a", "ours"}, {1, "b", "theirs"}, {2, "b", "theirs"}};
  CHECK(looks.see(others).empty());
  CHECK(looks.see(others).empty());
  CHECK(looks.see(others).empty());
  CHECK(looks.see(others) == "theirs: host:b");
  for (int i = 0; i < 10; ++i) {
    CHECK(looks.see(others).empty());
  }
}

TEST_CASE("a deployment that reaches one host after the other is not told") {
  Looks looks;
  CHECK(looks.see({{0, "a", "old"}, {1, "b", "old"}}, "old").empty());
  for (int i = 0; i < 3; ++i) {
    CHECK(looks.see({{0, "a", "new"}, {1, "b", "old"}}, "old").empty());
  }
  for (int i = 0; i < 3; ++i) {
    CHECK(looks.see({{0, "a", "new"}, {1, "b", "old"}}, "new").empty());
  }
  for (int i = 0; i < 5; ++i) {
    CHECK(looks.see({{0, "a", "new"}, {1, "b", "new"}}, "new").empty());
  }
}

TEST_CASE("workers with the same other handlers are told together, and each pair of fingerprints once") {
  Looks looks;
  const std::vector<Looks::Other> others = {{0, "b", "x"}, {1, "a", "x"}, {2, "c", "y"}};
  const auto told_of = [&](const std::vector<Looks::Other>& all, const std::string& ours) {
    std::string told;
    for (int i = 0; i < 5; ++i) {
      told += looks.see(all, ours);
    }
    return told;
  };
  CHECK(told_of(others, "ours") == "x: host:a host:b; y: host:c");
  CHECK(told_of({{0, "b", "ours"}, {1, "a", "ours"}, {2, "c", "ours"}}, "ours").empty());
  CHECK(told_of(others, "ours").empty());
  CHECK(told_of(others, "others") == "x: host:a host:b; y: host:c");
  CHECK(told_of({{0, "b", "z"}, {1, "a", "x"}, {2, "c", "y"}, {3, "d", "y"}}, "others") ==
        "y: host:d; z: host:b");
}

TEST_CASE("workers that died, that have no directory, and leases of nobody do not count as others") {
  Looks looks;
  const std::vector<Looks::Other> others = {{0, "dead", "x", Life::dead}, {1, "none", ""}, {2, "", "x"}};
  for (int i = 0; i < 10; ++i) {
    CHECK(looks.see(others).empty());
  }
  // A sign of life after a long time is one.
  CHECK(looks.see({{0, "dead", "x"}}) == "x: host:dead");
}
