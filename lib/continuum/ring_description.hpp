// The description of a ring: text, kept in the topic, that means the same for ever.
//
//   description = continuum / named / modulo
//   continuum   = "xxh3" ":" virtual-nodes ":" member *( "," member )
//   named       = ( "murmur3" / "uhashring" / "ketama" ) ":" virtual-nodes ":" node *( "," node )
//   modulo      = ( "kafka" / "crc32" ) ":" "0" [ "-" last ]
//   member      = first [ "-" last ] [ "*" weight ]     ; partitions ascend, none is given twice
//   node        = ( first [ "-" last ] / first "=" name ) [ "*" whole-weight ]
//   weight      = number [ "." 1*3DIGIT ]               ; 0.001 to 1000, default 1
//   whole-weight = number                               ; 1 to 1000, default 1
//   first, last, virtual-nodes = number                 ; partitions are below partitions_max
//   name        = 1*255( name-byte / "%" 2HEXDIG )      ; upper-case hex, only of bytes that need it
//   name-byte   = ALPHA / DIGIT / "." / "_" / "-" / ":" / "/" / "@"
//   number      = "0" / ( %x31-39 *DIGIT )              ; no sign, no leading zero
//
// A node without a name has its number as its name. No two nodes have the same name.
#pragma once

#include "continuum/types.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

enum class RingAlgorithm : std::uint8_t { xxh3, murmur3, uhashring, ketama, kafka, crc32 };
[[nodiscard]] std::string_view name_of(RingAlgorithm algorithm);
// Throws Error{usage} with the nearest name.
[[nodiscard]] RingAlgorithm parse_ring_algorithm(std::string_view text);

// What an algorithm's description may say.
[[nodiscard]] bool has_points(
    RingAlgorithm algorithm);  // a ring, with virtual nodes and weights; else modulo
[[nodiscard]] bool has_node_names(RingAlgorithm algorithm);
[[nodiscard]] std::uint32_t default_virtual_nodes(RingAlgorithm algorithm);  // 0: has no points

struct RingMember {
  Partition partition;
  std::uint32_t weight_thousandths = 1000;
  std::string node{};  // empty: the partition's number
  friend bool operator==(const RingMember&, const RingMember&) = default;

  [[nodiscard]] std::string node_name() const;
};

struct PartitionWeight {
  Partition partition;
  std::uint32_t thousandths;
};
// "3=1.5". Throws Error{usage}.
[[nodiscard]] PartitionWeight parse_partition_weight(std::string_view text);
[[nodiscard]] std::string weight_text(std::uint32_t thousandths);  // 1, 0.5, 12.25

struct RingDescription {
  RingAlgorithm algorithm = RingAlgorithm::xxh3;
  std::uint32_t virtual_nodes = 256;  // per unit of weight; 0 when the algorithm has no points
  std::vector<RingMember> members;    // ascending by partition

  // Partitions 0 to partitions - 1, with the algorithm's own number of virtual nodes. Throws Error{usage} for
  // none or more than partitions_max.
  static RingDescription uniform(std::uint32_t partitions, RingAlgorithm algorithm = RingAlgorithm::xxh3);
  // Throws Error{usage} naming the place, for text outside of the grammar or over a limit
  // (partitions_max members, ring_points_max points in all, no partition without any).
  static RingDescription parse(std::string_view text);
  [[nodiscard]] std::string text() const;  // the shortest form; parse(text()) == *this

  // The same ring with partitions 0 to partitions - 1: those that stay keep their weights and names. Throws
  // Error{usage} as uniform() does, and when a name of the old ones is the number of a new one.
  [[nodiscard]] RingDescription with_partitions(std::uint32_t partitions) const;
  // The same ring with a partition for each of these nodes, from 0 on: those that stay keep their weights.
  // Throws Error{usage} for none, too many, and names that the grammar has not.
  [[nodiscard]] RingDescription with_nodes(std::span<const std::string> names) const;
  // Throws Error{usage} for a partition that is not there, and for an algorithm without weights.
  [[nodiscard]] RingDescription with_weights(std::span<const PartitionWeight> weights) const;

  friend bool operator==(const RingDescription&, const RingDescription&) = default;
};

inline constexpr std::uint64_t ring_points_max = 4'194'304;
inline constexpr std::size_t node_name_bytes_max = 255;

// Throws Error{usage} for a description that parse() would not have made.
void require_sound(const RingDescription& description);
// Virtual nodes of each member in the order of `members`; of ketama four points each. Empty for modulo.
[[nodiscard]] std::vector<std::uint64_t> points_of_members(const RingDescription& description);

}  // namespace continuum
