// What a change of a ring would do: `ring plan`, and the dry run of whatever makes the change.
#pragma once

#include "ring_choice.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace continuum::app {

// --partitions, --weight
struct RingChange {
  std::optional<std::uint64_t> partitions;
  std::optional<std::string> node_names;  // with commas between them
  std::vector<PartitionWeight> weights;

  [[nodiscard]] bool is_none() const { return !partitions && !node_names && weights.empty(); }
  // First the number and the names, then the weights. Throws Error{usage} for what cannot be.
  [[nodiscard]] RingDescription applied_to(const RingDescription& ring) const;
};
void add_ring_change_options(CLI::App& command, RingChange& change);

// --rate, --handler-time
struct Demand {
  double events_per_second;
  Milliseconds handler_time;
};

// Prints what moves from where to where, in shares of the key space and of the sample, and how balanced it
// ends; with a demand also how busy that makes the partitions and how many would be enough.
void print_plan(const Context& context, const ChosenRing& now, const RingDescription& then,
                const std::optional<Demand>& demand);

void add_ring_plan(CLI::App& command, Context& context);

}  // namespace continuum::app
