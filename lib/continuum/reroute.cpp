#include "continuum/reroute.hpp"

#include "continuum/event.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

namespace continuum {

namespace {

struct Event {
  Position position;
  std::string_view line;  // with its newline
  std::uint64_t line_hash = 0;
};

// In the order of the input: two partitions of the old ring may have had events of one partition of the new.
std::vector<Event> events_of(const std::vector<BatchPointer>& batches) {
  std::vector<Event> events;
  for (const auto& batch : batches) {
    std::string_view rest = batch->lines;
    for (std::size_t i = 0; i < batch->positions.size(); ++i) {
      const std::string_view line = rest.substr(0, rest.find('\n') + 1);
      rest.remove_prefix(line.size());
      events.push_back(
          {batch->positions[i], line, i < batch->line_hashes.size() ? batch->line_hashes[i] : 0});
    }
  }
  std::sort(events.begin(), events.end(),
            [](const Event& a, const Event& b) { return a.position < b.position; });
  return events;
}

// The smallest generation that has it says where.
std::optional<Partition> stored_at(const Stored& stored, const std::map<Generation, Ring>& rings,
                                   std::string_view key, Position position) {
  for (const auto& [generation, partitions] : stored) {
    const auto found = partitions.find(rings.at(generation).owner(key));
    if (found != partitions.end() && position <= found->second.position) {
      return found->first;
    }
  }
  return std::nullopt;
}

// Gathers events of each partition into batches.
class Batcher {
 public:
  explicit Batcher(const RerouteRules& rules) : rules_(rules) {}

  void add(Partition partition, const Event& event) {
    BatchPointer& batch = open_[partition];
    if (!batch) {
      batch = std::make_unique<Batch>();
      batch->partition = partition;
    }
    batch->lines.append(event.line);
    batch->positions.push_back(event.position);
    if (rules_.digest != RerouteRules::Digest::none) {
      batch->line_hashes.push_back(event.line_hash);
    }
    if (rules_.frames == Frames::single || batch->lines.size() >= rules_.frame_bytes) {
      done_.push_back(std::move(batch));
    }
  }
  std::vector<BatchPointer> finish() {
    for (auto& [partition, batch] : open_) {
      if (batch) {
        done_.push_back(std::move(batch));
      }
    }
    return std::move(done_);
  }

 private:
  const RerouteRules& rules_;
  std::map<Partition, BatchPointer> open_;
  std::vector<BatchPointer> done_;
};

}  // namespace

Rerouted reroute(std::vector<BatchPointer> batches, const Stored& stored,
                 const std::map<Generation, Ring>& rings, const RerouteRules& rules) {
  const Ring& ring = rings.at(rules.active);
  Batcher found(rules);
  Batcher missing(rules);
  std::string scratch;
  for (const Event& event : events_of(batches)) {
    const std::string_view key = key_of(attributes_of(event.line.substr(0, event.line.size() - 1)), scratch);
    if (const auto at = stored_at(stored, rings, key, event.position)) {
      found.add(*at, event);
    } else {
      missing.add(ring.owner(key), event);
    }
  }
  Rerouted rerouted;
  rerouted.stored = found.finish();
  rerouted.unstored = missing.finish();
  if (const auto begun = stored.find(rules.active); begun != stored.end()) {
    for (const auto& [partition, state] : begun->second) {
      rerouted.chains[partition] = digest_value(state.digest);
    }
  }
  for (const auto& batch : rerouted.unstored) {
    std::uint64_t& chain = rerouted.chains[batch->partition];
    for (std::size_t i = 0; i < batch->line_hashes.size(); ++i) {
      chain = chained(chain, batch->positions[i], batch->line_hashes[i]);
    }
    switch (rules.digest) {
      case RerouteRules::Digest::none:
        break;
      case RerouteRules::Digest::chained:
        batch->digest = digest_text(chain);
        break;
      case RerouteRules::Digest::position:
        batch->digest = by_position;
        break;
    }
  }
  return rerouted;
}

}  // namespace continuum
