// The ring (the continuum): a pure function from a key to the partition that owns it.
//
// Algorithm xxh3, our own continuum: partition p with weight w has round(virtual_nodes * w) points (halves
// up, at least one), numbered from 0; point i lies at XXH3_64bits("p-i") (decimal text, seed 0). A key
// belongs to the first point at or after XXH3_64bits(key), going round at 2^64. Where two points are equal
// the lower partition has it. XXH3: https://github.com/Cyan4973/xxHash (format stable since 0.8.0).
// Consistent hashing: Karger et al., STOC 1997; "continuum" is libketama's word for it.
//
// A description is text, kept in the topic, and means the same for ever:
//
//   description = algorithm ":" virtual-nodes ":" members
//   algorithm   = "xxh3"
//   members     = member *( "," member )          ; ascending, no partition twice
//   member      = first [ "-" last ] [ "*" weight ]   ; weight 0.001 to 1000, at most 3 decimals, default 1
//   weight      = number [ "." 1*3DIGIT ]
//   first, last, virtual-nodes = number           ; partitions are below partitions_max
//   number      = "0" / ( %x31-39 *DIGIT )        ; no sign, no leading zero
#pragma once

#include "continuum/types.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

struct RingMember {
  Partition partition;
  std::uint32_t weight_thousandths = 1000;
  friend bool operator==(const RingMember&, const RingMember&) = default;
};

struct RingDescription {
  std::string algorithm = "xxh3";
  std::uint32_t virtual_nodes = 256;  // per unit of weight
  std::vector<RingMember> members;    // ascending by partition

  // Partitions 0 to partitions - 1. Throws Error{usage} for none or more than partitions_max.
  static RingDescription uniform(std::uint32_t partitions);
  // Throws Error{usage} naming the place, for text outside of the grammar or over a limit
  // (partitions_max members, 4,194,304 points in all).
  static RingDescription parse(std::string_view text);
  [[nodiscard]] std::string text() const;  // the shortest form; parse(text()) == *this

  friend bool operator==(const RingDescription&, const RingDescription&) = default;
};

// One virtual node. Its owner has the keys from the point before it (exclusive) to here (inclusive).
struct RingPoint {
  std::uint64_t hash;
  Partition partition;
  friend bool operator==(const RingPoint&, const RingPoint&) = default;
};

// The points of a ring in order, found through a table indexed by the top bits of a hash: a lookup is one
// table load and about one comparison, where a binary search over 256,000 points is eighteen. That holds
// for points that are spread over all 64 bits, as hashes are; others are found too, but slower.
class RingPoints {
 public:
  // At least one point, in any order.
  explicit RingPoints(const std::vector<RingPoint>& unsorted);

  // The first point at or after `hash`, going round at 2^64; of equal points the lowest partition's.
  [[nodiscard]] RingPoint at_or_after(std::uint64_t hash) const;

  // Ascending by hash, then by partition.
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

  struct Located {
    Partition partition;
    std::uint64_t key_hash;
    std::uint64_t point;  // where the owning virtual node lies
  };
  [[nodiscard]] Located locate(std::string_view key) const;

  [[nodiscard]] std::vector<RingPoint> points() const { return points_.sorted(); }

  // Share of the key space that each member has, in the order of description().members; sums to 1.
  [[nodiscard]] std::vector<double> shares() const;

 private:
  RingDescription description_;
  RingPoints points_;
};

}  // namespace continuum
