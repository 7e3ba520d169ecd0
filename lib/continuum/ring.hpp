// The ring (the continuum): a pure function from a key to the partition that owns it.
//
// Consistent hashing: Karger et al., STOC 1997; "continuum" is libketama's word for it. Virtual nodes lie as
// points on a ring of hashes, and a key belongs to the next point. The algorithms, and where they are
// defined:
//
// xxh3       our own. Partition p of weight w has round(virtual-nodes * w) points (halves up, at least one),
//            numbered from 0; point i lies at XXH3_64bits("p-i") (decimal text, seed 0). A key belongs to the
//            first point at or after XXH3_64bits(key), going round at 2^64; of equal points the lower
//            partition has it. XXH3: https://github.com/Cyan4973/xxHash (format stable since 0.8.0).
//
// As uHashRing 2.1 places keys (https://github.com/ultrabug/uhashring: ring.py, ring_meta.py,
// ring_ketama.py), when its nodes are given in the order of our partitions: point i of the node NAME is the
// hash of "NAME-i"; a key belongs to the first point strictly after its own hash, going round; of equal
// points the later node has it.
//
// uhashring  HashRing(nodes): MD5 as a 128-bit number, the first byte first; virtual-nodes * weight points.
//            Of the 128 bits the upper 64 decide here: a key whose upper 64 are those of a point could
//            differ, which is one key in 2^64 for each point.
// murmur3    HashRing(nodes, hash_fn=mmh3.hash): MurmurHash3_x86_32, seed 0, as a signed number; likewise.
// ketama     HashRing(nodes, hash_fn="ketama"): floor(virtual-nodes * nodes * weight / sum of weights)
// virtual
//            nodes of four points each, which are the four little-endian 32-bit numbers of the MD5 of
//            "NAME-i"; a key's hash is the first of the four of its own MD5.
//
// Modulo, without points, so that a topic that comes from Kafka keeps its layout:
//
// kafka      (murmur2(key) & 0x7fffffff) mod partitions: the Java producer's for keys that are not null, and
//            librdkafka's "murmur2" (rdkafka_msg.c).
// crc32      crc32(key) mod partitions: librdkafka's "consistent", and for keys that are not empty its
// default,
//            "consistent_random".
#pragma once

#include "continuum/ring_description.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// One virtual node. Its owner has the hashes from the point before it (exclusive) to here (inclusive).
struct RingPoint {
  std::uint64_t hash;
  Partition partition;
  friend bool operator==(const RingPoint&, const RingPoint&) = default;
};

// Which partition has a point that two of them lie at.
enum class EqualPoints : std::uint8_t { lowest_has_them, highest_has_them };

// The points of a ring in order, found through a table indexed by the top bits of a hash: a lookup is one
// table load and about one comparison, where a binary search over 256,000 points is eighteen. That holds
// for points that are spread over all 64 bits, as hashes are; others are found too, but slower.
class RingPoints {
 public:
  // At least one point, in any order.
  explicit RingPoints(const std::vector<RingPoint>& unsorted,
                      EqualPoints equal = EqualPoints::lowest_has_them);

  // The first point at or after `hash`, going round at 2^64.
  [[nodiscard]] RingPoint at_or_after(std::uint64_t hash) const;

  // Ascending by hash; of equal ones the first has it.
  [[nodiscard]] std::vector<RingPoint> sorted() const;

 private:
  // Apart from each other, because the search reads only hashes: fewer lines of cache per lookup. Each has
  // one more at its end, where a lookup stops and goes round.
  std::vector<std::uint64_t> hashes_;
  std::vector<Partition> owners_;
  std::vector<std::uint32_t> first_at_;  // per value of the top bits
  unsigned shift_ = 0;
};

class Ring {
 public:
  // Throws Error{usage} for a description that parse() would not have made.
  explicit Ring(RingDescription description);

  [[nodiscard]] const RingDescription& description() const { return description_; }
  [[nodiscard]] Partition owner(std::string_view key) const;
  // Of many keys, in their order. Where a hash is a chain of steps that wait for each other (MD5: uhashring,
  // ketama) several go side by side, which takes a third to a quarter of the time.
  void owners(std::span<const std::string_view> keys, std::span<Partition> out) const;

  // Hashes as the algorithm has them: 64 bits, or 32 (see hash_digits).
  struct Located {
    Partition partition;
    std::uint64_t key_hash;
    std::optional<std::uint64_t> point;  // where the owning virtual node lies; none of modulo
  };
  [[nodiscard]] Located locate(std::string_view key) const;
  [[nodiscard]] int hash_digits() const;  // hexadecimal

  // Ascending, in a space of 64 bits whatever the algorithm's own is; empty for modulo.
  [[nodiscard]] std::vector<RingPoint> points() const;

  // Share of the key space that each member has, in the order of description().members; sums to 1.
  [[nodiscard]] std::vector<double> shares() const;

 private:
  [[nodiscard]] Partition owner_otherwise(std::string_view key) const;

  RingDescription description_;
  std::optional<RingPoints> points_;  // none of modulo
};

}  // namespace continuum
