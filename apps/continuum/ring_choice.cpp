#include "ring_choice.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>

namespace continuum::app {
namespace {

std::vector<std::string> names_in(const std::string& list) {
  std::vector<std::string> names;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t comma = std::min(list.find(',', begin), list.size());
    names.push_back(list.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return names;
}

}  // namespace

std::vector<std::string> parse_node_names(const std::string& list, RingAlgorithm algorithm,
                                          std::optional<std::uint64_t> partitions) {
  if (!has_node_names(algorithm)) {
    fail(ErrorKind::usage,
         "--node-names: {} places by numbers alone; murmur3, uhashring and ketama know nodes by their names",
         name_of(algorithm));
  }
  std::vector<std::string> names = names_in(list);
  if (partitions && *partitions != names.size()) {
    fail(ErrorKind::usage, "--node-names has {} names for {} partitions: give one for each", names.size(),
         *partitions);
  }
  if (names.size() > partitions_max) {
    fail(ErrorKind::usage, "--node-names has {} names: a ring has 1 to {} partitions", names.size(),
         partitions_max);
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i].empty()) {
      fail(ErrorKind::usage, "--node-names: name {} of {} is empty", i + 1, names.size());
    }
  }
  return names;
}

RingDescription NewRing::describe(std::uint32_t partitions_if_unsaid) const {
  const RingAlgorithm algorithm = parse_ring_algorithm(hash);
  if (virtual_nodes && !has_points(algorithm)) {
    fail(ErrorKind::usage, "--virtual-nodes: {} divides by the number of partitions and has none",
         name_of(algorithm));
  }
  auto ring = RingDescription::uniform(static_cast<std::uint32_t>(partitions.value_or(partitions_if_unsaid)),
                                       algorithm);
  if (node_names) {
    ring = ring.with_nodes(parse_node_names(*node_names, algorithm, partitions));
  }
  if (virtual_nodes) {
    ring.virtual_nodes = static_cast<std::uint32_t>(*virtual_nodes);
  }
  require_sound(ring);
  return RingDescription::parse(ring.text());  // as it will be read back from the topic
}

void add_new_ring_options(CLI::App& command, NewRing& ring, const std::string& what) {
  add_text(command, "--hash", "ALGORITHM", ring.hash,
           what + "how keys are placed: xxh3 (default), murmur3, uhashring, ketama, kafka, crc32");
  add_number(command, "--virtual-nodes", ring.virtual_nodes, {1, 1 << 20},
             what + "points on the ring for each (xxh3 256, murmur3 and uhashring 160, ketama 40)");
  add_text(command, "--node-names", "NAME,NAME…", ring.node_names,
           what + "what murmur3, uhashring and ketama call the partitions (0,1,2…)");
}

void add_ring_choice(CLI::App& command, RingChoice& choice) {
  add_topic_option(command, choice.topic)->required(false);
  add_text(command, "--ring", "DESCRIPTION", choice.description,
           "this ring, such as xxh3:256:0-6,7*0.5, without any server");
}

ChosenRing choose_ring(const Context& context, const RingChoice& choice,
                       const std::optional<RingDescription>& unnamed, std::uint64_t sampled_events) {
  const int given = (choice.topic.empty() ? 0 : 1) + (choice.description ? 1 : 0) + (unnamed ? 1 : 0);
  if (given > 1) {
    fail(ErrorKind::usage, "give -t NAME for the ring of a topic, or {} for any other; not both",
         unnamed ? "--partitions N" : "--ring DESCRIPTION");
  }
  if (unnamed) {
    return {*unnamed, {}, {}, {}, {}};
  }
  if (choice.description) {
    return {RingDescription::parse(*choice.description), {}, {}, {}, {}};
  }
  if (choice.topic.empty()) {
    fail(ErrorKind::usage, "which ring? Give -t NAME for the ring of a topic, or --ring DESCRIPTION");
  }
  const auto session = connect(context, redis::Needs::Access::read);
  const auto topic = load_topic(*session, choice.topic);
  ChosenRing chosen{topic.ring(), topic.name, topic.active, {}, {}};
  const auto stored = stored_events(*session, topic);
  for (const auto& partition : stored) {
    chosen.events[partition.partition] = partition.next - partition.first;
  }
  if (sampled_events > 0) {
    chosen.sample = sample_keys(*session, topic, stored, sampled_events);
  }
  return chosen;
}

std::vector<PartitionShare> shares_of(const Ring& ring) {
  const RingDescription& description = ring.description();
  const std::vector<double> shares = ring.shares();
  const std::vector<std::uint64_t> points = points_of_members(description);
  double weights = 0;
  for (const auto& member : description.members) {
    weights += member.weight_thousandths;
  }
  std::vector<PartitionShare> partitions;
  partitions.reserve(shares.size());
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const auto& member = description.members[i];
    PartitionShare partition;
    partition.partition = member.partition;
    partition.node = has_node_names(description.algorithm) ? member.node_name() : std::string();
    partition.virtual_nodes = points.empty() ? 0 : points[i];
    partition.share = shares[i];
    partition.fair = member.weight_thousandths / weights;
    partitions.push_back(std::move(partition));
  }
  return partitions;
}

double largest_to_fair(const std::vector<PartitionShare>& partitions) {
  double largest = 0;
  for (const PartitionShare& partition : partitions) {
    largest = std::max(largest, partition.share / partition.fair);
  }
  return largest;
}

RingView view_of(ChosenRing chosen, std::size_t hottest_max) {
  RingView view{Ring(std::move(chosen.description)),
                std::move(chosen.topic),
                chosen.generation,
                {},
                0,
                chosen.sample.events,
                {}};
  view.partitions = shares_of(view.ring);
  view.largest_to_fair = largest_to_fair(view.partitions);
  if (view.generation) {
    std::uint64_t all = 0;
    for (const auto& [partition, events] : chosen.events) {
      all += events;
    }
    for (PartitionShare& partition : view.partitions) {
      partition.events = chosen.events.at(partition.partition);
      if (all > 0) {
        partition.events_share = static_cast<double>(*partition.events) / static_cast<double>(all);
      }
    }
  }
  for (std::size_t i = 0; i < std::min(hottest_max, chosen.sample.keys.size()); ++i) {
    SampledKey& key = chosen.sample.keys[i];
    const Partition owner = view.ring.owner(key.key);
    view.hottest.push_back({std::move(key.key), owner, key.events,
                            static_cast<double>(key.events) / static_cast<double>(chosen.sample.events)});
  }
  return view;
}

}  // namespace continuum::app
