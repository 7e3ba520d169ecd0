#include "continuum/ring_change.hpp"

#include "continuum/error.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace continuum {
namespace {

Ring ring_of(std::string_view description) {
  return Ring(RingDescription::parse(description));
}

double sum_of(const std::vector<RingMove>& moved) {
  double sum = 0;
  for (const RingMove& move : moved) {
    sum += move.share;
  }
  return sum;
}

const std::vector<std::pair<std::string, std::string>> changes = {
    {"xxh3:256:0-7", "xxh3:256:0-8"},
    {"xxh3:256:0-8", "xxh3:256:0-4"},
    {"xxh3:256:0-7", "xxh3:256:0-6,7*0.5"},
    {"xxh3:256:0-3,5-7", "xxh3:256:0-7"},
    {"xxh3:1:0", "xxh3:1:0-1"},
    {"uhashring:160:0-7", "uhashring:160:0-8"},
    {"murmur3:160:0-7", "murmur3:160:0-4"},
    {"ketama:40:0-7", "ketama:40:0-6,7*2"},
    {"kafka:0-7", "kafka:0-8"},
    {"kafka:0-11", "kafka:0-4"},
    {"crc32:0-7", "crc32:0-11"},
    {"crc32:0-7", "crc32:0-7"},
    {"murmur3:160:0=a,1=b", "murmur3:160:0=a,1=b,2"}};

TEST_CASE("moves and donors are what keys do") {
  constexpr int keys = 20'000;
  for (const auto& [from, to] : changes) {
    CAPTURE(from);
    CAPTURE(to);
    const Ring before = ring_of(from);
    const Ring after = ring_of(to);
    std::map<std::pair<Partition, Partition>, double> seen;
    for (int i = 0; i < keys; ++i) {
      const std::string key = "thread-" + std::to_string(i);
      if (before.owner(key) != after.owner(key)) {
        seen[{before.owner(key), after.owner(key)}] += 1.0 / keys;
      }
    }
    const std::vector<RingMove> moved = moves(before, after);
    std::map<std::pair<Partition, Partition>, double> expected;
    std::map<Partition, std::set<Partition>> givers;
    double largest = 1;
    for (const RingMove& move : moved) {
      CHECK(move.share > 0);
      CHECK(move.share <= largest);
      largest = move.share;
      expected[{move.from, move.to}] = move.share;
      givers[move.to].insert(move.from);
    }
    CHECK(expected.size() == moved.size());
    int unexpected = 0;
    for (const auto& [pair, share] : seen) {
      unexpected += expected.contains(pair) ? 0 : 1;
    }
    CHECK(unexpected == 0);
    for (const auto& [pair, share] : expected) {
      CHECK(std::abs(seen[pair] - share) < 0.012);
    }
    const Donors found = donors(before, after);
    CHECK(found.size() == givers.size());
    for (const auto& [receiver, list] : found) {
      CHECK(std::set(list.begin(), list.end()) == givers[receiver]);
      CHECK(list.size() == givers[receiver].size());
      CHECK(std::is_sorted(list.begin(), list.end()));
    }
  }
}

TEST_CASE("the same ring moves nothing") {
  for (const char* text : {"xxh3:256:0-7", "ketama:40:0-7", "kafka:0-7"}) {
    CHECK(moves(ring_of(text), ring_of(text)).empty());
    CHECK(donors(ring_of(text), ring_of(text)).empty());
  }
}

TEST_CASE(
    "a partition that is added has all as donors, those that stay have none; one that leaves gives to all") {
  const Ring three(RingDescription::uniform(3));
  const Ring four(RingDescription::uniform(4));
  const std::vector all{Partition(0), Partition(1), Partition(2)};
  CHECK(donors(three, four) == Donors{{Partition(3), all}});
  const std::vector last{Partition(3)};
  CHECK(donors(four, three) == Donors{{Partition(0), last}, {Partition(1), last}, {Partition(2), last}});
}

TEST_CASE("weights make partitions that give keys to each other") {
  const Donors found = donors(ring_of("xxh3:64:0-2"), ring_of("xxh3:64:0-1*3,2"));
  CHECK(std::ranges::count(found.at(Partition(0)), Partition(1)) == 1);
  CHECK(std::ranges::count(found.at(Partition(1)), Partition(0)) == 1);
}

TEST_CASE("one partition more takes about what is fair from all the others, and modulo moves nearly all") {
  const std::vector<RingMove> moved = moves(ring_of("xxh3:256:0-7"), ring_of("xxh3:256:0-8"));
  CHECK(moved.size() == 8);
  CHECK(sum_of(moved) <= 1.15 / 9);
  CHECK(moved_if_fair(RingDescription::uniform(8), RingDescription::uniform(9)) == doctest::Approx(1.0 / 9));
  CHECK(sum_of(moves(ring_of("kafka:0-7"), ring_of("kafka:0-8"))) == doctest::Approx(8.0 / 9));
  CHECK(moved_by_modulo(8, 9) == doctest::Approx(8.0 / 9));
  CHECK(moved_by_modulo(8, 16) == doctest::Approx(0.5));
  CHECK(moved_by_modulo(8, 4) == doctest::Approx(0.5));
  CHECK(moved_by_modulo(8, 8) == 0);
}

TEST_CASE("a change of number keeps weights and names of what stays") {
  const RingDescription ring = RingDescription::parse("uhashring:100:0=a,1=b*2,2=c");
  CHECK(ring.with_partitions(2).text() == "uhashring:100:0=a,1=b*2");
  CHECK(ring.with_partitions(5).text() == "uhashring:100:0=a,1=b*2,2=c,3-4");
  CHECK(RingDescription::parse("xxh3:256:0-1,3*0.5").with_partitions(5).text() == "xxh3:256:0-2,3*0.5,4");
  const auto named = [&](const std::vector<std::string>& names) { return ring.with_nodes(names).text(); };
  CHECK(named({"a", "b", "c", "d"}) == "uhashring:100:0=a,1=b*2,2=c,3=d");
  CHECK(named({"x", "1"}) == "uhashring:100:0=x,1*2");
  // A name may go to another partition.
  CHECK(RingDescription::parse("uhashring:100:0=2,1")
            .with_nodes(std::vector<std::string>{"0", "1", "2"})
            .text() == "uhashring:100:0-2");
  CHECK_THROWS_AS((void)named({"a", "a"}), Error);
  CHECK_THROWS_AS((void)named({}), Error);
  CHECK_THROWS_WITH_AS((void)ring.with_partitions(0), "0 partitions: a ring has 1 to 4096", Error);
  CHECK_THROWS_WITH_AS((void)ring.with_partitions(100'000), "100000 partitions: a ring has 1 to 4096", Error);
  CHECK_THROWS_WITH_AS((void)RingDescription::parse("uhashring:100:0=2,1").with_partitions(3),
                       "ring description: two nodes have the name 2: each needs one of its own", Error);
}

TEST_CASE("a change of weights is of partitions that are there, and of algorithms that have them") {
  const RingDescription ring = RingDescription::uniform(4);
  const std::vector<PartitionWeight> weights = {parse_partition_weight("3=0.5"),
                                                parse_partition_weight("0=12.25")};
  CHECK(ring.with_weights(weights).text() == "xxh3:256:0*12.25,1-2,3*0.5");
  const std::vector<PartitionWeight> stranger = {parse_partition_weight("4=2")};
  CHECK_THROWS_WITH_AS((void)ring.with_weights(stranger),
                       "weight 2 for partition 4: the ring xxh3:256:0-3 has no such partition", Error);
  CHECK_THROWS_WITH_AS(
      (void)RingDescription::uniform(8, RingAlgorithm::kafka).with_weights(weights),
      "ring description: weight 12.25 of partition 0 cannot be: kafka divides by the number of "
      "partitions and knows no weights",
      Error);
  const auto error_of = [](std::string_view text) {
    try {
      (void)parse_partition_weight(text);
    } catch (const Error& error) {
      return error.message();
    }
    return std::string("no error");
  };
  CHECK(error_of("3=0") == "weight, byte 2: the weight is outside of 0.001 to 1000 (the form is 3=1.5)");
  CHECK(error_of("3") ==
        "weight, byte 1: expected '=' behind the partition, found the end (the form is 3=1.5)");
  CHECK(error_of("3=1,4=2") == "weight, byte 3: expected the end, found ',' (the form is 3=1.5)");
  CHECK(error_of("=1") == "weight, byte 0: expected a partition, found '=' (the form is 3=1.5)");
}

TEST_CASE("a rate needs so many partitions that the busiest one has time left") {
  const RingDescription like = RingDescription::uniform(1);
  const PartitionNeed need = partitions_needed(like, 1600.0 / 60, 0.3, 0.7);
  CHECK(need.handlers_busy == doctest::Approx(8));
  CHECK(need.partitions >= 12);  // 8 / 0.7 is 11.4
  CHECK(need.partitions <= 15);
  CHECK(need.busiest <= 0.7);
  CHECK(need.busiest > 0.6);
  CHECK(partitions_needed(like, 0, 1, 0.7).partitions == 1);
  CHECK(partitions_needed(like, 1e6, 1, 0.7).partitions == 0);
  CHECK(partitions_needed(RingDescription::uniform(1, RingAlgorithm::kafka), 9.5, 0.7, 0.7).partitions == 10);
}

}  // namespace
}  // namespace continuum
