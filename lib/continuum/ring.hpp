// The ring (the continuum): a pure function from a key to the partition that owns it.
//
// Algorithm xxh3, our own continuum: partition p with weight w has round(virtual_nodes * w) points (at least
// one); point i lies at XXH3_64bits("p-i") (decimal text, seed 0). A key belongs to the first point at or
// after XXH3_64bits(key), going round at 2^64. Where two points are equal the lower partition has it. XXH3:
// https://github.com/Cyan4973/xxHash (format stable since 0.8.0). Consistent hashing: Karger et al., STOC
// 1997; "continuum" is libketama's word for it.
//
// A description is text, kept in the topic, and means the same for ever:
//
//   description = algorithm ":" virtual-nodes ":" members
//   algorithm   = "xxh3"
//   members     = member *( "," member )          ; ascending, no partition twice
//   member      = first [ "-" last ] [ "*" weight ]   ; weight 0.001 to 1000, at most 3 decimals, default 1
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

  static RingDescription uniform(std::uint32_t partitions);
  // Throws Error{usage} naming the place, for text outside of the grammar or over a limit
  // (partitions_max members, 4,194,304 points in all).
  static RingDescription parse(std::string_view text);
  [[nodiscard]] std::string text() const;  // the shortest form; parse(text()) == *this

  friend bool operator==(const RingDescription&, const RingDescription&) = default;
};

class Ring {
 public:
  explicit Ring(RingDescription description);

  [[nodiscard]] const RingDescription& description() const { return description_; }
  [[nodiscard]] Partition owner(std::string_view key) const;

  struct Located {
    Partition partition;
    std::uint64_t key_hash;
    std::uint64_t point;  // where the owning virtual node lies
  };
  [[nodiscard]] Located locate(std::string_view key) const;

  // One virtual node. Its owner has the keys from the point before it (exclusive) to here (inclusive).
  struct Point {
    std::uint64_t hash;
    Partition partition;
  };
  [[nodiscard]] std::vector<Point> points() const;  // ascending by hash

  // Share of the key space that each member has, in the order of description().members; sums to 1.
  [[nodiscard]] std::vector<double> shares() const;

 private:
  RingDescription description_;
  // Points sorted by hash, found through a table indexed by the top bits of a hash: a lookup is one
  // table load and about one comparison, where a binary search over 256,000 points is eighteen.
  std::vector<std::uint64_t> hashes_;
  std::vector<std::uint32_t> owners_;
  std::vector<std::uint32_t> first_at_;
  unsigned shift_ = 0;
};

}  // namespace continuum
