// That our placement is that of the programs that we say it is. The golden numbers of uhashring, murmur3 and
// ketama are those of uHashRing 2.1 itself (Debian's python3-uhashring), with hash_fn of murmur3 through
// libmurmurhash 1.5: HashRing(nodes).get_server(key), and the owners of the keys "key 0" to "key 19999".
// tests/ring_peers asks the programs themselves, for more keys and more rings.
#include "continuum/ring.hpp"
#include "continuum/ring_hash.hpp"

#include "continuum/error.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

using namespace std::string_literals;

namespace continuum {
namespace {

Ring ring_of(std::string_view description) {
  return Ring(RingDescription::parse(description));
}

std::string hex(const Md5& digest) {
  std::string text;
  for (const std::uint8_t byte : digest) {
    text += fmt::format("{:02x}", byte);
  }
  return text;
}

// One number over the owners of 20,000 keys in their order.
std::uint64_t owners_digest(const Ring& ring) {
  std::uint64_t digest = 0;
  for (int i = 0; i < 20'000; ++i) {
    digest = digest * 31 + ring.owner("key " + std::to_string(i)).value;
  }
  return digest;
}

std::string error_of(std::string_view description) {
  try {
    (void)RingDescription::parse(description);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    return error.message().substr(0, error.message().rfind(" (the form is"));
  }
  return "no error";
}

// --- hash functions

TEST_CASE("many keys at once belong to whom they belong one after the other") {
  for (const char* name : {"xxh3", "murmur3", "uhashring", "ketama", "kafka", "crc32"}) {
    CAPTURE(name);
    const Ring ring(RingDescription::uniform(64, parse_ring_algorithm(name)));
    // Of all lengths up to two blocks of MD5, in groups that have long ones or not, and a rest.
    std::vector<std::string> texts;
    for (std::size_t length = 0; length < 60; ++length) {
      for (int i = 0; i < 9; ++i) {
        texts.push_back(std::string(length, static_cast<char>('a' + i)) + std::string(length % 2, '\xff'));
      }
    }
    texts.emplace_back(200, 'x');
    const std::vector<std::string_view> keys(texts.begin(), texts.end());
    std::vector<Partition> expected(keys.size());
    std::transform(keys.begin(), keys.end(), expected.begin(),
                   [&](std::string_view key) { return ring.owner(key); });
    for (const std::size_t count : {keys.size(), std::size_t{7}, std::size_t{8}, std::size_t{0}}) {
      std::vector<Partition> owners(count);
      ring.owners(std::span(keys).first(count), owners);
      CHECK(std::equal(owners.begin(), owners.end(), expected.begin()));
    }
  }
}

TEST_CASE("MD5 has the digests of RFC 1321, and those of lengths about a block's end") {
  CHECK(hex(md5("")) == "d41d8cd98f00b204e9800998ecf8427e");
  CHECK(hex(md5("a")) == "0cc175b9c0f1b6a831c399e269772661");
  CHECK(hex(md5("abc")) == "900150983cd24fb0d6963f7d28e17f72");
  CHECK(hex(md5("message digest")) == "f96b697d7cb7938d525a2f31aaf161d0");
  CHECK(hex(md5("abcdefghijklmnopqrstuvwxyz")) == "c3fcd3d76192e4007dfb496cca67e13b");
  CHECK(hex(md5("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")) ==
        "d174ab98d277d9f5a5611c2c9f419d9f");
  CHECK(hex(md5("12345678901234567890123456789012345678901234567890123456789012345678901234567890")) ==
        "57edf4a22be3c955ac49da2e2107b67a");
  // Python 3.11, hashlib.md5(b"a" * n): one block's padding, and two.
  CHECK(hex(md5(std::string(55, 'a'))) == "ef1772b6dff9a122358552954ad0df65");
  CHECK(hex(md5(std::string(56, 'a'))) == "3b0c8ac703f828b04c6c197006d17218");
  CHECK(hex(md5(std::string(63, 'a'))) == "b06521f39153d618550606be297466d5");
  CHECK(hex(md5(std::string(64, 'a'))) == "014842d480b571495a4a0363793f7367");
  CHECK(hex(md5(std::string(1000, '\xff'))) == "23cc517ae5734b068e21c92920a5ee02");
}

TEST_CASE("several MD5s at once are those of one after the other") {
  for (std::size_t size = 0; size + md5_lanes <= md5_one_block_bytes_max + 1; ++size) {
    std::array<std::string, md5_lanes> texts;
    std::array<std::string_view, md5_lanes> views;
    for (std::size_t i = 0; i < md5_lanes; ++i) {
      texts[i] = std::string(size + i, "az\xff\0Q%~ "[i]);
      views[i] = texts[i];
    }
    const std::array<Md5, md5_lanes> digests = md5_of_many(views);
    for (std::size_t i = 0; i < md5_lanes; ++i) {
      CHECK(digests[i] == md5(texts[i]));
    }
  }
}

TEST_CASE("MurmurHash3 has the numbers that mmh3 and others have published") {
  CHECK(static_cast<std::int32_t>(murmur3("foo")) == -156908512);  // README of mmh3
  CHECK(murmur3("") == 0);
  CHECK(murmur3("The quick brown fox jumps over the lazy dog") == 0x2e4ff723);
}

TEST_CASE("murmur2 has the numbers of Kafka's UtilsTest.testMurmur2") {
  const auto java = [](std::string_view key) { return static_cast<std::int32_t>(kafka_murmur2(key)); };
  CHECK(java("21") == -973932308);
  CHECK(java("foobar") == -790332482);
  CHECK(java("a-little-bit-long-string") == -985981536);
  CHECK(java("a-little-bit-longer-string") == -1486304829);
  CHECK(java("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8") == -58897971);
  CHECK(java("abc") == 479470107);
}

TEST_CASE("murmur2 has the numbers of librdkafka's unittest_murmur2 (rdmurmur2.c)") {
  CHECK(kafka_murmur2("kafka") == 0xd067cf64);
  CHECK(kafka_murmur2("giberish123456789") == 0x8f552b0c);
  CHECK(kafka_murmur2("1234") == 0x9fc97b14);
  CHECK(kafka_murmur2("234") == 0xe7c009ca);
  CHECK(kafka_murmur2("34") == 0x873930da);
  CHECK(kafka_murmur2("4") == 0x5a4b5ca1);
  CHECK(kafka_murmur2("PreAmbleWillBeRemoved,ThePrePartThatIs") == 0x78424f1c);
  CHECK(kafka_murmur2("reAmbleWillBeRemoved,ThePrePartThatIs") == 0x4a62b377);
  CHECK(kafka_murmur2("eAmbleWillBeRemoved,ThePrePartThatIs") == 0xe0e4e09e);
  CHECK(kafka_murmur2("AmbleWillBeRemoved,ThePrePartThatIs") == 0x62b8b43f);
  CHECK(kafka_murmur2("") == 0x106e08d9);
}

TEST_CASE("CRC-32 has its check value and the numbers of zlib") {
  CHECK(crc32("123456789") == 0xcbf43926);  // the check value of CRC-32/ISO-HDLC
  CHECK(crc32("") == 0);
  CHECK(crc32("a") == 0xe8b7be43);
  CHECK(crc32("thread-1") == 0x5fe9bf39);
  CHECK(crc32(std::string(300, 'a')) == 0x89971909);
}

TEST_CASE("no hash reads before or behind its bytes") {
  // The sanitizer build is what would notice.
  for (std::size_t size = 0; size < 200; ++size) {
    const std::vector<char> exact(size, 'x');
    const std::string_view bytes(exact.data(), exact.size());
    const std::string within = "<" + std::string(bytes) + ">";
    const std::string_view shifted = std::string_view(within).substr(1, size);
    CHECK(md5(bytes) == md5(shifted));
    CHECK(murmur3(bytes) == murmur3(shifted));
    CHECK(kafka_murmur2(bytes) == kafka_murmur2(shifted));
    CHECK(crc32(bytes) == crc32(shifted));
  }
}

// --- uHashRing

struct Placed {
  std::string key;
  std::uint64_t key_hash;
  std::uint64_t point;
  std::uint32_t partition;
};

void check_placed(const Ring& ring, const std::vector<Placed>& golden) {
  for (const Placed& expected : golden) {
    CAPTURE(expected.key.substr(0, 20));
    CAPTURE(expected.key.size());
    const Ring::Located located = ring.locate(expected.key);
    CHECK(located.key_hash == expected.key_hash);
    CHECK(located.point == expected.point);
    CHECK(located.partition == Partition{expected.partition});
    CHECK(ring.owner(expected.key) == Partition{expected.partition});
  }
}

TEST_CASE("uhashring places keys as HashRing(nodes) does") {
  // The upper 64 bits of hashi(key) and of the point.
  check_placed(ring_of("uhashring:160:0-7"),
               {{"", 0xd41d8cd98f00b204, 0xd489bed42ab66ad4, 2},
                {"a", 0x0cc175b9c0f1b6a8, 0x0cd53a4e3c27ba61, 4},
                {"42", 0xa1d0c6e83f027327, 0xa1d62515560ed421, 5},
                {"thread-1", 0x138ed56a0f8ea9f3, 0x139d69cbaf5e3a7b, 1},
                {"K\xc3\xb6ln", 0x2fc01bde301ce787, 0x2fd3c3ff4fc4341e, 5},
                {std::string(64, 'a'), 0x014842d480b57149, 0x01598d2c4d0a634a, 7},
                {std::string(300, 'a'), 0x4e5475d125a33c61, 0x4e572fda7018d669, 1}});
  CHECK(owners_digest(ring_of("uhashring:160:0")) == 0);
  CHECK(owners_digest(ring_of("uhashring:160:0-7")) == 0xf626a5ece1298368);
  CHECK(owners_digest(ring_of("uhashring:160:0-999")) == 0x69d70cab54beec41);
  CHECK(owners_digest(ring_of("uhashring:160:0,1*2,2*3,3*10")) == 0xabc01be6f6f009c7);
  CHECK(owners_digest(ring_of("uhashring:160:0=10.0.0.1:6379,1=cache-b,2=K%C3%B6ln,3=x%2Cy%20z")) ==
        0xf1f174ae84e523e4);
}

TEST_CASE("murmur3 places keys as HashRing(nodes, hash_fn=mmh3.hash) does, negative hashes first") {
  check_placed(ring_of("murmur3:160:0-7"), {{"", 0x00000000, 0x0026f5dc, 2},
                                            {"a", 0x3c2569b2, 0x3c76fdfc, 0},
                                            {"42", 0xbc58a436, 0xbcc5a725, 1},
                                            {"thread-1", 0x6eb1e622, 0x6ec3b5bc, 5},
                                            {"K\xc3\xb6ln", 0x33a611fb, 0x33fdb97e, 0},
                                            {std::string(64, 'a'), 0xee9d2997, 0xef6d1544, 7},
                                            {std::string(300, 'a'), 0x430c10f3, 0x435215ee, 5}});
  CHECK(owners_digest(ring_of("murmur3:160:0")) == 0);
  CHECK(owners_digest(ring_of("murmur3:160:0-7")) == 0xe8532e2314a2e04a);
  CHECK(owners_digest(ring_of("murmur3:160:0-999")) == 0xea244e3a07afb57d);
  CHECK(owners_digest(ring_of("murmur3:160:0,1*2,2*3,3*10")) == 0xf77650c2e8be05e7);
  CHECK(owners_digest(ring_of("murmur3:160:0=10.0.0.1:6379,1=cache-b,2=K%C3%B6ln,3=x%2Cy%20z")) ==
        0x7812e955a06a53d2);
}

TEST_CASE("ketama places keys as HashRing(nodes, hash_fn=\"ketama\") does") {
  check_placed(ring_of("ketama:40:0-7"), {{"", 0xd98c1dd4, 0xda097a1a, 2},
                                          {"a", 0xb975c10c, 0xb9bb2bed, 6},
                                          {"42", 0xe8c6d0a1, 0xe904f354, 5},
                                          {"thread-1", 0x6ad58e13, 0x6b14e8d4, 6},
                                          {"K\xc3\xb6ln", 0xde1bc02f, 0xde1de019, 2},
                                          {std::string(64, 'a'), 0xd4424801, 0xd46ab62a, 2},
                                          {std::string(300, 'a'), 0xd175544e, 0xd18751bc, 1}});
  CHECK(owners_digest(ring_of("ketama:40:0")) == 0);
  CHECK(owners_digest(ring_of("ketama:40:0-7")) == 0xfa27a7e3c7184c68);
  CHECK(owners_digest(ring_of("ketama:40:0-999")) == 0x7a152d3c80ac392f);
  CHECK(owners_digest(ring_of("ketama:40:0,1*2,2*3,3*10")) == 0x5ee3c04c82588f04);
  CHECK(owners_digest(ring_of("ketama:40:0=10.0.0.1:6379,1=cache-b,2=K%C3%B6ln,3=x%2Cy%20z")) ==
        0x8bff3ce1214faf03);
}

TEST_CASE("of two nodes with an equal point the later one has it, as in a dict of Python") {
  // MurmurHash3 of "74-49" and of "680-133" is 3193271772.
  REQUIRE(murmur3("74-49") == murmur3("680-133"));
  const Ring ring = ring_of("murmur3:160:0-999");
  int found = 0;
  for (int i = 0; i < 1'000'000 && found == 0; ++i) {
    const Ring::Located located = ring.locate(std::to_string(i));
    if (located.point == 3193271772) {
      ++found;
      CHECK(located.partition == Partition{680});
    }
  }
  CHECK(found == 1);
  const std::vector<RingPoint> equal = {{5, Partition{1}}, {5, Partition{2}}};
  CHECK(RingPoints(equal, EqualPoints::highest_has_them).at_or_after(5).partition == Partition{2});
  CHECK(RingPoints(equal, EqualPoints::lowest_has_them).at_or_after(5).partition == Partition{1});
}

TEST_CASE("a key whose hash is a point belongs to the next one, as bisect finds it") {
  for (const char* description : {"murmur3:160:0-7", "ketama:40:0-7", "uhashring:160:0-7"}) {
    CAPTURE(description);
    const Ring ring = ring_of(description);
    // A label as a key has the hash of its point (of ketama: of the first of its four).
    int at_own_point = 0;
    for (int i = 0; i < 40; ++i) {
      const Ring::Located located = ring.locate(fmt::format("3-{}", i));
      REQUIRE(located.point.has_value());
      at_own_point += *located.point == located.key_hash ? 1 : 0;
    }
    CHECK(at_own_point == 0);
  }
  CHECK(ring_of("xxh3:256:0-7").locate("3-0").point == ring_of("xxh3:256:0-7").locate("3-0").key_hash);
}

// --- Kafka

TEST_CASE("kafka and crc32 divide by the number of partitions") {
  const Ring kafka = ring_of("kafka:0-11");
  CHECK(kafka.owner("kafka") == Partition{(0xd067cf64 & 0x7fffffff) % 12});
  CHECK(kafka.locate("kafka").key_hash == 0x5067cf64);
  CHECK(kafka.locate("kafka").point == std::nullopt);
  CHECK(kafka.owner("foobar") == Partition{(static_cast<std::uint32_t>(-790332482) & 0x7fffffff) % 12});
  const Ring crc = ring_of("crc32:0-11");
  const std::vector<std::pair<std::string, std::uint32_t>> golden = {
      {"", 0}, {"a", 3}, {"42", 8}, {"thread-1", 9}, {"K\xc3\xb6ln", 11}, {std::string(64, 'a'), 5}};
  for (const auto& [key, partition] : golden) {
    CHECK(crc.owner(key) == Partition{partition});
    CHECK(crc.locate(key).partition == Partition{partition});
  }
  CHECK(crc.points().empty());
}

TEST_CASE("every algorithm's shares sum to 1 and say where keys go") {
  for (const char* description : {"murmur3:160:0-7", "uhashring:160:0-3*2,4-7", "ketama:40:0-7", "kafka:0-6",
                                  "crc32:0-6", "murmur3:1:0", "ketama:1:0"}) {
    CAPTURE(description);
    const Ring ring = ring_of(description);
    const std::vector<double> shares = ring.shares();
    CHECK(std::abs(std::accumulate(shares.begin(), shares.end(), 0.0) - 1) < 1e-9);
    constexpr int keys = 20'000;
    std::vector<double> found(shares.size());
    for (int i = 0; i < keys; ++i) {
      found[ring.owner("thread " + std::to_string(i)).value] += 1.0 / keys;
    }
    for (std::size_t p = 0; p < shares.size(); ++p) {
      CHECK(std::abs(found[p] - shares[p]) < 0.02);
    }
  }
}

// --- descriptions

TEST_CASE("descriptions of other algorithms read back as themselves, in their shortest form") {
  const std::vector<std::pair<std::string, std::string>> forms = {
      {"murmur3:160:0-7", "murmur3:160:0-7"},
      {"uhashring:160:0=0,1=1,2", "uhashring:160:0-2"},
      {"uhashring:160:0=a,1=b*2,2", "uhashring:160:0=a,1=b*2,2"},
      {"ketama:40:0=10.0.0.1:6379,1=a/b@c_d.e-f", "ketama:40:0=10.0.0.1:6379,1=a/b@c_d.e-f"},
      {"ketama:40:0=%25%2C%2A%3D%20,1-2*3", "ketama:40:0=%25%2C%2A%3D%20,1-2*3"},
      {"uhashring:160:0=%FF%C3", "uhashring:160:0=%FF%C3"},
      {"kafka:0", "kafka:0"},
      {"kafka:0,1,2", "kafka:0-2"},
      {"crc32:0-4095", "crc32:0-4095"},
  };
  for (const auto& [text, shortest] : forms) {
    CAPTURE(text);
    const RingDescription description = RingDescription::parse(text);
    CHECK(description.text() == shortest);
    CHECK(RingDescription::parse(description.text()) == description);
  }
  CHECK(RingDescription::uniform(3, RingAlgorithm::ketama).text() == "ketama:40:0-2");
  CHECK(RingDescription::uniform(3, RingAlgorithm::kafka).text() == "kafka:0-2");
}

TEST_CASE("what another algorithm does not know is refused in its description") {
  const std::vector<std::pair<std::string, std::string>> broken = {
      {"kafka:256:0-7", "ring description, byte 9: expected ',' or the end, found ':'"},
      {"kafka:1-7", "ring description: partition 0 is missing: kafka has all from 0 on"},
      {"crc32:0-3,5", "ring description: partition 4 is missing: crc32 has all from 0 on"},
      {"kafka:0-6,7*2",
       "ring description, byte 12: the weight cannot be: kafka divides by the number of partitions and knows "
       "no "
       "weights"},
      {"kafka:0=a", "ring description, byte 7: expected ',' or the end, found '='"},
      {"xxh3:256:0=a", "ring description, byte 10: expected ',' or the end, found '='"},
      {"uhashring:160:0*0.5",
       "ring description, byte 16: the weight is not whole: uhashring has whole weights only"},
      {"ketama:40:0-1*1.5",
       "ring description, byte 14: the weight is not whole: ketama has whole weights only"},
      {"ketama:40:0,1*1000",
       "ring description: partition 0 would have no virtual node at all beside weights that are so much "
       "higher: "
       "raise its weight, or the number of virtual nodes"},
      {"uhashring:160:0-1=a", "ring description, byte 17: expected ',' or the end, found '='"},
      {"uhashring:160:0=", "ring description, byte 16: expected a node name, found the end"},
      {"uhashring:160:0=,1", "ring description, byte 16: expected a node name, found ','"},
      {"uhashring:160:0=a b", "ring description, byte 17: expected ',' or the end, found ' '"},
      {"uhashring:160:0=\x1b[2J", "ring description, byte 16: expected a node name, found byte 0x1b"},
      {"uhashring:160:0=%1B", "ring description, byte 16: a node name has no control characters"},
      {"uhashring:160:0=%0A", "ring description, byte 16: a node name has no control characters"},
      {"uhashring:160:0=%00", "ring description, byte 16: a node name has no control characters"},
      {"uhashring:160:0=%41", "ring description, byte 16: write 'A' as it is, not by '%'"},
      {"uhashring:160:0=%c3%B6",
       "ring description, byte 17: expected two digits of 0-9A-F behind '%', found 'c'"},
      {"uhashring:160:0=%C",
       "ring description, byte 18: expected two digits of 0-9A-F behind '%', found the end"},
      {"uhashring:160:0=" + std::string(256, 'x'),
       "ring description, byte 16: the node name is longer than 255 bytes"},
      {"uhashring:160:0=a,1=a", "ring description: two nodes have the name a: each needs one of its own"},
      {"uhashring:160:0=1,1", "ring description: two nodes have the name 1: each needs one of its own"},
  };
  for (const auto& [text, message] : broken) {
    CAPTURE(text);
    CHECK(error_of(text) == message);
  }
  RingDescription unfit = RingDescription::uniform(2);
  unfit.members[0].node = "a";
  CHECK_THROWS_WITH_AS((void)Ring(unfit),
                       "ring description: partition 0 has a node name: xxh3 places by numbers alone", Error);
  unfit = RingDescription::uniform(2, RingAlgorithm::kafka);
  unfit.virtual_nodes = 1;
  CHECK_THROWS_WITH_AS((void)Ring(unfit), "ring description: kafka has no virtual nodes", Error);
  unfit = RingDescription::uniform(2, RingAlgorithm::ketama);
  unfit.members[1].node = "a\nb";
  CHECK_THROWS_WITH_AS((void)Ring(unfit),
                       "ring description: the node name a\\x0Ab has a control character in it", Error);
}

}  // namespace
}  // namespace continuum
