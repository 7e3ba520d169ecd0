#include "continuum/reroute.hpp"

#include "continuum/event.hpp"

#include <doctest/doctest.h>

#include <set>
#include <string>

using namespace continuum;

namespace {

std::string line(std::uint64_t position, const std::string& key) {
  return R"({"specversion":"1.0","id":"P:)" + std::to_string(position) +
         R"(","source":"/t","type":"x","partitionkey":")" + key + "\"}\n";
}

std::string key_at(std::uint64_t position) {
  return "k" + std::to_string(position * 7919 % 50);
}

std::uint64_t hash_at(std::uint64_t position) {
  return position * 1'000'003;
}

// Events 1 to `last` as the ring of `partitions` has them, one batch a partition.
std::vector<BatchPointer> batches(std::uint32_t partitions, std::uint64_t last) {
  const Ring ring(RingDescription::uniform(partitions));
  std::map<Partition, BatchPointer> by_partition;
  for (std::uint64_t position = 1; position <= last; ++position) {
    BatchPointer& batch = by_partition[ring.owner(key_at(position))];
    if (!batch) {
      batch = std::make_unique<Batch>();
      batch->partition = ring.owner(key_at(position));
    }
    batch->lines += line(position, key_at(position));
    batch->positions.emplace_back(position);
    batch->line_hashes.push_back(hash_at(position));
  }
  std::vector<BatchPointer> all;
  for (auto& [partition, batch] : by_partition) {
    all.push_back(std::move(batch));
  }
  return all;
}

std::map<Generation, Ring> rings() {
  std::map<Generation, Ring> all;
  all.emplace(Generation(1), RingDescription::uniform(3));
  all.emplace(Generation(2), RingDescription::uniform(5));
  return all;
}

RerouteRules rules(RerouteRules::Digest digest = RerouteRules::Digest::chained) {
  return {Generation(2), 1'000, Frames::automatic, digest};
}

}  // namespace

TEST_CASE("what is not stored goes where the new ring says, and positions rise in each partition") {
  const auto rerouted = reroute(batches(3, 400), {}, rings(), rules());
  CHECK(rerouted.stored.empty());
  const Ring ring(RingDescription::uniform(5));
  std::map<Partition, Position> last;
  std::set<std::uint64_t> seen;
  for (const auto& batch : rerouted.unstored) {
    for (const Position position : batch->positions) {
      CHECK(position > last[batch->partition]);
      last[batch->partition] = position;
      seen.insert(position.value);
      CHECK(ring.owner(key_at(position.value)) == batch->partition);
    }
    CHECK(batch->positions.size() == batch->line_hashes.size());
    CHECK(batch->lines.size() < 1'200);
  }
  CHECK(seen.size() == 400);
}

TEST_CASE("digests are chained over what each partition gets in the new generation") {
  const auto rerouted = reroute(batches(3, 400), {}, rings(), rules());
  std::map<Partition, std::uint64_t> chains;
  for (const auto& batch : rerouted.unstored) {
    std::uint64_t& chain = chains[batch->partition];
    for (const Position position : batch->positions) {
      chain = chained(chain, position, hash_at(position.value));
    }
    CHECK(batch->digest == digest_text(chain));
  }
  CHECK(rerouted.chains == chains);
  const auto counted = reroute(batches(3, 40), {}, rings(), rules(RerouteRules::Digest::position));
  CHECK(counted.unstored.front()->digest == "position");
  CHECK(reroute(batches(3, 40), {}, rings(), rules(RerouteRules::Digest::none))
            .unstored.front()
            ->digest.empty());
}

TEST_CASE("what any generation has is stored, and said to be where that generation put it") {
  const Ring old_ring(RingDescription::uniform(3));
  const Ring new_ring(RingDescription::uniform(5));
  Stored stored;
  // Positions that the partitions really have, so that the last one of each counts.
  const auto last_of = [](const Ring& ring, Partition partition, std::uint64_t position) {
    while (ring.owner(key_at(position)) != partition) {
      --position;
    }
    return position;
  };
  const auto old_last = last_of(old_ring, Partition(1), 200);
  const auto new_last = last_of(new_ring, Partition(4), 300);
  stored[Generation(1)][Partition(1)] = {Position(old_last), "00000000000000aa"};
  stored[Generation(2)][Partition(4)] = {Position(new_last), "00000000000000bb"};
  const auto rerouted = reroute(batches(3, 400), stored, rings(), rules());
  std::set<std::uint64_t> found;
  for (const auto& batch : rerouted.stored) {
    for (const Position position : batch->positions) {
      found.insert(position.value);
      const Partition expected = batch->partition;
      CHECK((expected == Partition(1) || expected == Partition(4)));
    }
  }
  std::set<std::uint64_t> missing;
  for (const auto& batch : rerouted.unstored) {
    for (const Position position : batch->positions) {
      missing.insert(position.value);
    }
  }
  for (std::uint64_t position = 1; position <= 400; ++position) {
    const bool in_old = old_ring.owner(key_at(position)) == Partition(1) && position <= old_last;
    const bool in_new = new_ring.owner(key_at(position)) == Partition(4) && position <= new_last;
    CHECK(found.contains(position) == (in_old || in_new));
    CHECK(missing.contains(position) == !(in_old || in_new));
  }
  // The chain goes on from what the partition has.
  CHECK(rerouted.chains.at(Partition(4)) != digest_value("00000000000000bb"));
}

TEST_CASE("an entry has one event where the topic wants that") {
  RerouteRules single = rules();
  single.frames = Frames::single;
  for (const auto& batch : reroute(batches(3, 60), {}, rings(), single).unstored) {
    CHECK(batch->events() == 1);
  }
}
