// How the workers of a group share its partitions. Each decides for itself, from what it sees; those that see
// the same decide what fits together, and those that do not are corrected at the next look, because only the
// lease says who has a partition. Pure: no I/O and no clock.
#pragma once

#include "continuum/types.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace continuum {

// What one worker sees.
struct ShareView {
  struct Standing {
    Partition partition;
    std::string owner;  // empty: free. One that is no member keeps what it has, and is left out of the sum
    // Of those that are mine: in this order they are given up.
    enum class Bond : std::uint8_t { leaving, usual, halted } bond = Bond::usual;
  };
  // While workers come and go nothing more is given up: the first to come would only have to pass it on.
  enum class Membership : std::uint8_t { changing, steady };

  std::string me;
  std::vector<std::string> members;  // owners that are alive and share, each once; I am one of them anyway
  std::vector<Standing> partitions;  // ascending
  Membership membership = Membership::steady;
};

struct SharePlan {
  std::size_t quota = 0;           // how many I should have
  std::vector<Partition> give_up;  // of mine; the others are kept
  std::vector<Partition> take;     // of the free ones
  bool settled = false;            // every member has its quota, and nothing is free
};

// Quotas differ by one at most, and the larger ones go first to those that have as many: so no more is moved
// than must be, and a quota does not change while the moves for it are made.
[[nodiscard]] SharePlan plan_share(const ShareView& view);

// 0,2,5-7: as `--partition` takes it. `partitions`: ascending.
[[nodiscard]] std::string partition_list(std::span<const Partition> partitions);

}  // namespace continuum
