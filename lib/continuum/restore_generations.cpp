#include "continuum/restore_generations.hpp"

#include <algorithm>

namespace continuum {

bool is_in(const RingDescription& ring, Partition partition) {
  return std::ranges::find(ring.members, partition, &RingMember::partition) != ring.members.end();
}

std::set<Partition> members_of(const RingDescription* before, const RingDescription& ring) {
  std::set<Partition> all;
  for (const RingDescription* one : {before, &ring}) {
    for (std::size_t i = 0; one != nullptr && i < one->members.size(); ++i) {
      all.insert(one->members[i].partition);
    }
  }
  return all;
}

Generation born_in(const Topic& topic, Partition partition) {
  for (const auto& [generation, ring] : topic.rings) {
    if (is_in(ring, partition)) {
      return generation;
    }
  }
  return Generation(0);
}

Generation complete_rings(Topic& topic, const RestoredLogs& logs) {
  Generation active = topic.active;
  for (const auto& [partition, ends] : logs) {
    active = std::max(active, ends.last.generation);
  }
  std::erase_if(topic.rings, [&](const auto& ring) { return ring.first > active; });
  for (Generation x = topic.rings.begin()->first; x < active; ++x) {
    topic.rings.emplace(x + 1, topic.rings.at(x));
  }
  return active;
}

namespace {

constexpr std::size_t said_max = 10;

// The newest that the whole log of a partition has a barrier of, up to `newest`.
Generation last_barrier(const Topic& topic, Partition partition, Generation newest) {
  Generation last;
  const RingDescription* before = nullptr;
  for (const auto& [x, ring] : topic.rings) {
    if (x <= newest && members_of(before, ring).contains(partition)) {
      last = x;
    }
    before = &ring;
  }
  return last;
}

}  // namespace

CutLogs find_cut_logs(const Topic& topic, const RestoredLogs& logs) {
  CutLogs cut;
  for (const auto& [partition, ends] : logs) {
    cut.newest = std::max(cut.newest, ends.events);
  }
  cut.whole = cut.newest;
  for (const Partition partition : topic.partitions()) {
    const auto found = logs.find(partition);
    // One that begins anew ends in the generation that it was born in.
    const Generation end = found != logs.end() ? found->second.last.generation : born_in(topic, partition);
    if (end == Generation(0) || last_barrier(topic, partition, cut.newest) <= end) {
      continue;
    }
    if (++cut.logs <= said_max) {
      cut.said.push_back(
          found != logs.end()
              ? fmt::format(
                    "partition {} ends in generation {}, and others have events of generation {}: its "
                    "last events were not archived",
                    partition, end, cut.newest)
              : fmt::format("partition {} begins anew, and others have events of generation {}: its events "
                            "are missing",
                            partition, cut.newest));
    }
    cut.whole = std::min(cut.whole, end);
  }
  if (cut.logs > said_max) {
    cut.said.push_back(fmt::format("{} more partitions likewise", cut.logs - said_max));
  }
  return cut;
}

}  // namespace continuum
