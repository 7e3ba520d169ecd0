// What changes when one ring takes the place of another one of the same algorithm. Pure.
#pragma once

#include "continuum/ring.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <map>
#include <vector>

namespace continuum {

struct RingMove {
  Partition from;
  Partition to;
  double share;  // of the key space
  friend bool operator==(const RingMove&, const RingMove&) = default;
};
// Every pair of partitions between which keys move, the largest share first.
[[nodiscard]] std::vector<RingMove> moves(const Ring& before, const Ring& after);

// By partition that gets keys: those that had them before, ascending. A partition that gets none is not in
// it.
using Donors = std::map<Partition, std::vector<Partition>>;
[[nodiscard]] Donors donors(const Ring& before, const Ring& after);

// The share of the key space that any `hash mod partitions` moves when their number changes.
[[nodiscard]] double moved_by_modulo(std::uint64_t before, std::uint64_t after);

// The least that any placement must move when every partition had exactly its fair share before, and has it
// after: what the growing ones gain.
[[nodiscard]] double moved_if_fair(const RingDescription& before, const RingDescription& after);

// How many partitions of equal weight a rate of events needs, when each of them handles one event after the
// other and the busiest shall be busy for at most `busy_max` of its time.
struct PartitionNeed {
  double handlers_busy;      // rate * time: how many handlers would be busy all the time
  std::uint32_t partitions;  // 0: more than partitions_max
  double busiest;            // share of its time, of the busiest one of that many
};
[[nodiscard]] PartitionNeed partitions_needed(const RingDescription& like, double events_per_second,
                                              double handler_seconds, double busy_max);

}  // namespace continuum
