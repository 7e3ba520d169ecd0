// Which ring is meant: of a topic, or of a description; and how a new one is described by options.
#pragma once

#include "options.hpp"
#include "ring_view.hpp"
#include "server.hpp"

#include "continuum/ring.hpp"
#include "continuum/topic.hpp"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace continuum::app {

// How many stored events the traffic is told from, when nothing else is said.
inline constexpr std::uint64_t sampled_events_usual = 10'000;

// --hash, --virtual-nodes, --node-names beside a number of partitions.
struct NewRing {
  std::optional<std::uint64_t> partitions;
  std::string hash = "xxh3";
  std::optional<std::uint64_t> virtual_nodes;
  std::optional<std::string> node_names;  // with commas between them

  // `partitions_if_unsaid`: when neither a number nor names were given. Throws Error{usage}.
  [[nodiscard]] RingDescription describe(std::uint32_t partitions_if_unsaid) const;
};
// `what`: before the help of each, such as "with --partitions: ".
void add_new_ring_options(CLI::App& command, NewRing& ring, const std::string& what);

// One for each partition. Throws Error{usage}: another number of names than of partitions, if that is given,
// an empty one, an algorithm without names.
[[nodiscard]] std::vector<std::string> parse_node_names(const std::string& list, RingAlgorithm algorithm,
                                                        std::optional<std::uint64_t> partitions);

struct RingChoice {
  std::string topic;
  std::optional<std::string> description;
};
void add_ring_choice(CLI::App& command, RingChoice& choice);

struct ChosenRing {
  RingDescription description;
  std::string topic;  // empty: no topic's, and then the rest is, too
  std::optional<Generation> generation;
  std::map<Partition, std::uint64_t> events;
  KeySample sample;
};
// `unnamed`: the ring when neither topic nor description was given. With a topic, its events and a sample of
// their keys are asked for.
[[nodiscard]] ChosenRing choose_ring(const Context& context, const RingChoice& choice,
                                     const std::optional<RingDescription>& unnamed,
                                     std::uint64_t sampled_events);

// Shares, and what is stored.
[[nodiscard]] RingView view_of(ChosenRing chosen, std::size_t hottest_max);

// The busiest partition, as a multiple of what would be fair by its weight.
[[nodiscard]] double largest_to_fair(const std::vector<PartitionShare>& partitions);
[[nodiscard]] std::vector<PartitionShare> shares_of(const Ring& ring);

}  // namespace continuum::app
