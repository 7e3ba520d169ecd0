// The golden numbers were computed apart from this code: Python 3.11 with the package xxhash 4.1.0 (on
// libxxhash 0.8.4), xxhash.xxh3_64_intdigest over "p-i" for the points, sorted() over (hash, partition),
// bisect_left to look a key up. They must never change: topics that exist depend on them.
#include "continuum/ring.hpp"

#include "continuum/error.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <vector>

using namespace std::string_literals;

namespace continuum {
namespace {

constexpr std::uint64_t hash_max = std::numeric_limits<std::uint64_t>::max();

Ring ring_of(std::string_view description) {
  return Ring(RingDescription::parse(description));
}

// One number over the owners of 20,000 keys in their order.
std::uint64_t owners_digest(const Ring& ring) {
  std::uint64_t digest = 0;
  for (int i = 0; i < 20'000; ++i) {
    digest = digest * 31 + ring.owner("key " + std::to_string(i)).value;
  }
  return digest;
}

template <class Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    return error.message();
  }
  return "no error";
}

std::string parse_error(std::string_view text) {
  return error_of([&] { (void)RingDescription::parse(text); });
}

RingPoint point(std::uint64_t hash, std::uint32_t partition) {
  return {hash, Partition{partition}};
}

std::size_t points_owned(const Ring& ring, std::uint32_t partition) {
  const std::vector<RingPoint> points = ring.points();
  return static_cast<std::size_t>(std::count_if(
      points.begin(), points.end(), [&](const RingPoint& p) { return p.partition == Partition{partition}; }));
}

TEST_CASE("keys of every length lie where XXH3 says, and belong to the partition that they always had") {
  struct Golden {
    std::string key;
    std::uint64_t key_hash;
    std::uint64_t point;
    std::uint32_t partition;
  };
  const std::vector<Golden> golden = {
      {"", 0x2d06800538d394c2, 0x2d0a40507f119817, 2},
      {"a", 0xe6c632b61e964e1f, 0xe6c6c911cdbf4d06, 0},
      {"42", 0x1217cb28c0ef2191, 0x122228c842d01402, 5},
      {"thread-1", 0x274da9fd975179b6, 0x27544bc09f92cd52, 1},
      {"thread-2", 0x3c4f93e3b0d91c2e, 0x3c71963909014b12, 2},
      {"thread-1000000", 0x06edfe952a2c92d6, 0x0721f1e685f09506, 3},
      {"K\xc3\xb6ln", 0x3ce872f0477464b0, 0x3ceda0f89c1a6661, 6},
      {"\0"s, 0xc44bdff4074eecdb, 0xc456165ca37cb632, 3},
      {"\0\0"s, 0x3325230e1f285505, 0x3359cd35a5e1fefe, 3},
      {"a\0b"s, 0xd5a06cd078125351, 0xd5d01972c81022e4, 6},
      {std::string(16, 'a'), 0x13ba5039476cd10a, 0x13bbe1236898d083, 5},
      {std::string(17, 'a'), 0x39127b6816c5f92a, 0x393f30b9737a2f9e, 4},
      {std::string(128, 'a'), 0x7a22200aadc3d36c, 0x7a2891ed37ff8fdc, 0},
      {std::string(129, 'a'), 0x1586e7ed07cba75b, 0x158d56d4f0e3e02e, 1},
      {std::string(240, 'a'), 0x993c46d96a01b5c6, 0x998e7fdbc4b29f38, 2},
      {std::string(241, 'a'), 0xf6cfef5c5aca1930, 0xf6d3183ca60624f3, 1},
      {std::string(1 << 20, 'a'), 0xc9b8a70a3f30f7b1, 0xc9bd1cbd8af8d6a8, 1},
  };
  const Ring ring(RingDescription::uniform(8));
  for (const Golden& expected : golden) {
    CAPTURE(expected.key.substr(0, 20));
    CAPTURE(expected.key.size());
    const Ring::Located located = ring.locate(expected.key);
    CHECK(located.key_hash == expected.key_hash);
    CHECK(located.point == expected.point);
    CHECK(located.partition == Partition{expected.partition});
    CHECK(ring.owner(expected.key) == Partition{expected.partition});
  }
  CHECK(ring.owner(std::string_view()) == Partition{2});  // empty without an address, too
}

TEST_CASE("the points of eight partitions are the ones that they always were") {
  const std::vector<RingPoint> points = Ring(RingDescription::uniform(8)).points();
  REQUIRE(points.size() == 2048);
  CHECK(points[0] == point(0x000da67d86741a30, 3));
  CHECK(points[1] == point(0x00298fc0a7d351d2, 0));
  CHECK(points[2] == point(0x003d83728fc90cb6, 1));
  CHECK(points[2046] == point(0xffb44fe981ac9866, 2));
  CHECK(points[2047] == point(0xffcfacdd7a43bdd8, 5));
}

TEST_CASE(
    "20,000 keys have the owners that they always had, with one, eight, a thousand and weighted partitions") {
  CHECK(owners_digest(ring_of("xxh3:256:0")) == 0);
  CHECK(owners_digest(ring_of("xxh3:256:0-7")) == 0x56a562b5adae8edc);
  CHECK(owners_digest(ring_of("xxh3:256:0-999")) == 0xf7d544752eec59c5);
  CHECK(owners_digest(ring_of("xxh3:100:0,1*0.5,2*2,5*0.001")) == 0x52b62f08535600e4);
}

TEST_CASE("a key whose hash is a point itself belongs to that point") {
  // The key is the label of partition 0's first point.
  const Ring::Located located = Ring(RingDescription::uniform(8)).locate("0-0");
  CHECK(located.point == located.key_hash);
  CHECK(located.partition == Partition{0});
}

TEST_CASE("a key behind the last point belongs to the first point, round at 2^64") {
  const Ring ring(RingDescription::uniform(8));
  // Found by trying: their hashes are above the last point, 0xffcfacdd7a43bdd8 of partition 5.
  for (const char* key : {"wrap-3395", "wrap-7832", "wrap-8451"}) {
    const Ring::Located located = ring.locate(key);
    CHECK(located.key_hash > 0xffcfacdd7a43bdd8);
    CHECK(located.point == 0x000da67d86741a30);
    CHECK(located.partition == Partition{3});
  }
}

TEST_CASE("points at the very ends of the ring are found") {
  const RingPoints ends({point(hash_max, 1), point(0, 2)});
  CHECK(ends.at_or_after(0) == point(0, 2));
  CHECK(ends.at_or_after(1) == point(hash_max, 1));
  CHECK(ends.at_or_after(hash_max) == point(hash_max, 1));

  const RingPoints inner({point(20, 1), point(10, 2)});
  CHECK(inner.at_or_after(0) == point(10, 2));
  CHECK(inner.at_or_after(10) == point(10, 2));
  CHECK(inner.at_or_after(11) == point(20, 1));
  CHECK(inner.at_or_after(20) == point(20, 1));
  CHECK(inner.at_or_after(21) == point(10, 2));
  CHECK(inner.at_or_after(hash_max) == point(10, 2));

  const RingPoints one({point(7, 3)});
  CHECK(one.at_or_after(7) == point(7, 3));
  CHECK(one.at_or_after(8) == point(7, 3));
}

TEST_CASE("where points are equal the lowest partition has them, in whatever order they come") {
  std::vector<RingPoint> points = {point(5, 4), point(5, 1), point(5, 9), point(9, 0)};
  std::sort(points.begin(), points.end(), [](auto& a, auto& b) { return a.partition < b.partition; });
  do {
    const RingPoints ring(points);
    CHECK(ring.at_or_after(5) == point(5, 1));
    CHECK(ring.at_or_after(10) == point(5, 1));
    CHECK(ring.sorted() == std::vector{point(5, 1), point(5, 4), point(5, 9), point(9, 0)});
  } while (std::next_permutation(points.begin(), points.end(),
                                 [](auto& a, auto& b) { return a.partition < b.partition; }));
}

TEST_CASE("a lookup through the table finds what a walk over all points finds") {
  for (const char* description : {"xxh3:1:0", "xxh3:1:0-2", "xxh3:3:0-4,9", "xxh3:256:0-15", "xxh3:1024:3"}) {
    const Ring ring = ring_of(description);
    const std::vector<RingPoint> points = ring.points();
    CHECK(std::is_sorted(points.begin(), points.end(), [](auto& a, auto& b) { return a.hash < b.hash; }));
    int different = 0;
    for (int i = 0; i < 2000; ++i) {
      const Ring::Located located = ring.locate("k" + std::to_string(i));
      auto expected = std::find_if(points.begin(), points.end(),
                                   [&](const RingPoint& p) { return p.hash >= located.key_hash; });
      expected = expected == points.end() ? points.begin() : expected;
      different += *expected == point(*located.point, located.partition.value) ? 0 : 1;
    }
    CHECK(different == 0);
  }
}

TEST_CASE("a weight is the number of points, rounded with halves up, and at least one") {
  const Ring ring = ring_of("xxh3:256:0,1*0.5,2*2,3*0.001,4*0.006,5*0.1");
  CHECK(points_owned(ring, 0) == 256);
  CHECK(points_owned(ring, 1) == 128);
  CHECK(points_owned(ring, 2) == 512);
  CHECK(points_owned(ring, 3) == 1);  // 0.256
  CHECK(points_owned(ring, 4) == 2);  // 1.536
  CHECK(points_owned(ring, 5) == 26);
  CHECK(points_owned(ring_of("xxh3:1:0*2.5"), 0) == 3);
  CHECK(points_owned(ring_of("xxh3:1:0*2.499"), 0) == 2);
}

TEST_CASE("shares say how many keys each partition gets, and sum to 1") {
  for (const char* description :
       {"xxh3:256:0-7", "xxh3:256:0-999", "xxh3:100:0,1*0.5,2*2,5*0.001", "xxh3:1:4"}) {
    CAPTURE(description);
    const Ring ring = ring_of(description);
    const std::vector<double> shares = ring.shares();
    REQUIRE(shares.size() == ring.description().members.size());
    CHECK(std::abs(std::accumulate(shares.begin(), shares.end(), 0.0) - 1) < 1e-12);
  }
  CHECK(ring_of("xxh3:1:4").shares() == std::vector{1.0});
  const std::vector<double> golden = {0.121555876372, 0.123108292149, 0.134042777339, 0.121808270379,
                                      0.118563520587, 0.132986066577, 0.121001257976, 0.126933938620};
  const std::vector<double> shares = Ring(RingDescription::uniform(8)).shares();
  for (std::size_t i = 0; i < golden.size(); ++i) {
    CHECK(std::abs(shares[i] - golden[i]) < 1e-9);
  }
}

TEST_CASE("the largest of eight equal partitions has at most 1.10 of its fair share") {
  const std::vector<double> shares = Ring(RingDescription::uniform(8)).shares();
  CHECK(*std::max_element(shares.begin(), shares.end()) * 8 <= 1.10);
}

TEST_CASE("a partition that is added takes keys from all others, and moves no key between them") {
  const Ring before = ring_of("xxh3:256:0-7");
  const Ring after = ring_of("xxh3:256:0-8");
  std::map<std::uint32_t, int> taken_from;
  int moved = 0;
  int moved_elsewhere = 0;
  constexpr int keys = 50'000;
  for (int i = 0; i < keys; ++i) {
    const std::string key = "thread-" + std::to_string(i);
    const Partition was = before.owner(key);
    const Partition is = after.owner(key);
    if (was != is) {
      ++moved;
      ++taken_from[was.value];
      moved_elsewhere += is == Partition{8} ? 0 : 1;
    }
  }
  CHECK(moved_elsewhere == 0);
  CHECK(taken_from.size() == 8);
  CHECK(moved > keys / 9 * 0.8);
  CHECK(moved < keys / 9 * 1.2);
}

TEST_CASE("a partition that is removed leaves every key of the others where it is") {
  const Ring before = ring_of("xxh3:256:0-7");
  const Ring after = ring_of("xxh3:256:0-3,5-7");
  int moved = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string key = "thread-" + std::to_string(i);
    moved += before.owner(key) != Partition{4} && before.owner(key) != after.owner(key) ? 1 : 0;
  }
  CHECK(moved == 0);
}

TEST_CASE("a description reads back as itself, in its shortest form") {
  const std::vector<std::pair<std::string, std::string>> forms = {
      {"xxh3:256:0", "xxh3:256:0"},
      {"xxh3:256:0-7", "xxh3:256:0-7"},
      {"xxh3:256:0,1,2,3", "xxh3:256:0-3"},
      {"xxh3:256:0-3,4-7", "xxh3:256:0-7"},
      {"xxh3:256:5-5", "xxh3:256:5"},
      {"xxh3:256:0-3,5,7-8", "xxh3:256:0-3,5,7-8"},
      {"xxh3:1:0*1", "xxh3:1:0"},
      {"xxh3:1:0*1.000,1*1.0", "xxh3:1:0-1"},
      {"xxh3:1:0*0.5,1*0.50,2*2,3", "xxh3:1:0-1*0.5,2*2,3"},
      {"xxh3:1:0-1*0.001,4095*1000", "xxh3:1:0-1*0.001,4095*1000"},
      {"xxh3:1:0*10,1*100.01,2*20.120", "xxh3:1:0*10,1*100.01,2*20.12"},
      {"xxh3:1024:0-4095", "xxh3:1024:0-4095"},
      {"xxh3:4194304:0", "xxh3:4194304:0"},
  };
  for (const auto& [text, shortest] : forms) {
    CAPTURE(text);
    const RingDescription description = RingDescription::parse(text);
    CHECK(description.text() == shortest);
    CHECK(RingDescription::parse(description.text()) == description);
  }
  CHECK(RingDescription::uniform(8) == RingDescription::parse("xxh3:256:0-7"));
  CHECK(RingDescription::uniform(1).text() == "xxh3:256:0");
  CHECK(RingDescription::uniform(partitions_max).text() == "xxh3:256:0-4095");
}

TEST_CASE("a description outside of the grammar is refused with the byte where it leaves it") {
  const std::string form = " (the form is xxh3:256:0-7 or xxh3:256:0-6,7*0.5)";
  const std::vector<std::pair<std::string, std::string>> broken = {
      {"", "byte 0: there is no algorithm \"\"; there are: xxh3, murmur3, uhashring, ketama, kafka, crc32"},
      {"md5:256:0-7",
       "byte 0: there is no algorithm \"md5\"; there are: xxh3, murmur3, uhashring, ketama, kafka, crc32"},
      {"murmur:160:0-7", "byte 0: there is no algorithm \"murmur\"; did you mean murmur3?"},
      {"\x1b[2J:160:0-7",
       "byte 0: there is no algorithm \"\\x1B[2J\"; there are: xxh3, murmur3, uhashring, ketama, kafka, "
       "crc32"},
      {"XXH3:256:0-7",
       "byte 0: there is no algorithm \"XXH3\"; there are: xxh3, murmur3, uhashring, ketama, kafka, crc32"},
      {"xxh3", "byte 4: expected ':' behind the algorithm, found the end"},
      {"xxh3:", "byte 5: expected the number of virtual nodes, found the end"},
      {"xxh3:-1:0", "byte 5: expected the number of virtual nodes, found '-'"},
      {"xxh3:0:0", "byte 5: the number of virtual nodes is 0: at least 1 is needed (256 is the default)"},
      {"xxh3:0256:0", "byte 5: the number of virtual nodes has a leading zero"},
      {"xxh3:4294967296:0", "byte 5: the number of virtual nodes is too large"},
      {"xxh3:99999999999999999999999999:0", "byte 5: the number of virtual nodes is too large"},
      {"xxh3:256", "byte 8: expected ':' behind the number of virtual nodes, found the end"},
      {"xxh3:256:", "byte 9: expected a partition, found the end"},
      {"xxh3:256:x", "byte 9: expected a partition, found 'x'"},
      {"xxh3:256: 0", "byte 9: expected a partition, found ' '"},
      {"xxh3:256:\x1b[2J", "byte 9: expected a partition, found byte 0x1b"},
      {"xxh3:256:\xff", "byte 9: expected a partition, found byte 0xff"},
      {"xxh3:256:"s + '\0', "byte 9: expected a partition, found byte 0x00"},
      {"xxh3:256:00", "byte 9: a partition has a leading zero"},
      {"xxh3:256:0-7,", "byte 13: expected a partition, found the end"},
      {"xxh3:256:0-7,,8", "byte 13: expected a partition, found ','"},
      {"xxh3:256:0-", "byte 11: expected a partition, found the end"},
      {"xxh3:256:7-0", "byte 11: the range ends at 0, before its begin 7"},
      {"xxh3:256:0-7 ", "byte 12: expected ',' or the end, found ' '"},
      {"xxh3:256:0-7-9", "byte 12: expected ',' or the end, found '-'"},
      {"xxh3:256:4096", "byte 9: partition 4096 is above the highest, 4095"},
      {"xxh3:256:0-4000000000", "byte 11: partition 4000000000 is above the highest, 4095"},
      {"xxh3:256:3,3",
       "byte 11: partition 3 does not come after partition 3: each is given once, in rising order"},
      {"xxh3:256:0-5,5",
       "byte 13: partition 5 does not come after partition 5: each is given once, in rising order"},
      {"xxh3:256:4,2-9",
       "byte 11: partition 2 does not come after partition 4: each is given once, in rising order"},
      {"xxh3:256:0*", "byte 11: expected a weight, found the end"},
      {"xxh3:256:0*.5", "byte 11: expected a weight, found '.'"},
      {"xxh3:256:0*-1", "byte 11: expected a weight, found '-'"},
      {"xxh3:256:0*1.", "byte 13: expected a digit behind the point of the weight, found the end"},
      {"xxh3:256:0*0.0005", "byte 16: a weight has at most 3 decimals"},
      {"xxh3:256:0*0", "byte 11: the weight is outside of 0.001 to 1000"},
      {"xxh3:256:0*0.000", "byte 11: the weight is outside of 0.001 to 1000"},
      {"xxh3:256:0*1000.001", "byte 11: the weight is outside of 0.001 to 1000"},
      {"xxh3:256:0*4294968", "byte 11: the weight is outside of 0.001 to 1000"},
      {"xxh3:256:0*1e3", "byte 12: expected ',' or the end, found 'e'"},
  };
  for (const auto& [text, message] : broken) {
    CAPTURE(text);
    CHECK(parse_error(text) == "ring description, " + message + form);
  }
  CHECK(parse_error("xxh3:1024:0-4094,4095*2") ==
        "ring description: 4195328 virtual nodes in all are more than 4194304: give fewer, or lower weights" +
            form);
  CHECK(parse_error("xxh3:4294967295:0-4095*1000") ==
        "ring description: 17592186040320000 virtual nodes in all are more than 4194304: give fewer, or "
        "lower weights" +
            form);
}

TEST_CASE("a ring is refused when its description could not have been read") {
  CHECK(error_of([] { (void)RingDescription::uniform(0); }) == "0 partitions: a ring has 1 to 4096");
  CHECK(error_of([] { (void)RingDescription::uniform(4097); }) == "4097 partitions: a ring has 1 to 4096");

  const auto ring_error = [](const RingDescription& description) {
    return error_of([&] { (void)Ring(description); });
  };
  RingDescription description;
  description = RingDescription::uniform(2);
  description.virtual_nodes = 0;
  CHECK(ring_error(description) ==
        "ring description: virtual nodes per unit of weight must be at least 1 (256 is the default)");
  description = RingDescription::uniform(2);
  description.members.clear();
  CHECK(ring_error(description) == "ring description: a ring needs at least one partition");
  description = RingDescription::uniform(2);
  description.members[1].partition = Partition{4096};
  CHECK(ring_error(description) == "ring description: partition 4096 is above the highest, 4095");
  description = RingDescription::uniform(2);
  std::swap(description.members[0], description.members[1]);
  CHECK(ring_error(description) ==
        "ring description: partition 0 does not come after partition 1: each is given once, in rising order");
  description = RingDescription::uniform(2);
  description.members[1].weight_thousandths = 0;
  CHECK(ring_error(description) == "ring description: weight 0 of partition 1 is outside of 0.001 to 1000");
  description = RingDescription::uniform(2);
  description.members[1].weight_thousandths = 1'000'001;
  CHECK(ring_error(description) ==
        "ring description: weight 1000.001 of partition 1 is outside of 0.001 to 1000");
  description = RingDescription::uniform(2);
  description.virtual_nodes = 4'000'000;
  CHECK(ring_error(description) ==
        "ring description: 8000000 virtual nodes in all are more than 4194304: give fewer, or lower weights");
}

}  // namespace
}  // namespace continuum
