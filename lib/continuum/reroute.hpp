// What a publisher has read and does not know to be stored, routed once more after the ring has changed
// (PROTOCOLS: Producer resume, steps 4 and 5). Pure. Private to the publisher.
#pragma once

#include "continuum/batch.hpp"
#include "continuum/publish_input.hpp"
#include "continuum/ring.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace continuum {

struct RerouteRules {
  Generation active;
  std::size_t frame_bytes = 0;
  Frames frames = Frames::automatic;
  enum class Digest : std::uint8_t { none, chained, position } digest = Digest::none;
};

struct Rerouted {
  std::vector<BatchPointer> stored;    // found in the log, each with its partition there; positions rise
  std::vector<BatchPointer> unstored;  // for the active generation: in order, as they are to be sent
  std::map<Partition, std::uint64_t> chains;  // of the active generation, behind all of them
};

// `batches`: in any order, of any generation. `stored`: what each partition says, in each generation up to
// the active one, complete and final for those before it. `rings`: of the generations in `stored`, and the
// active one.
[[nodiscard]] Rerouted reroute(std::vector<BatchPointer> batches, const Stored& stored,
                               const std::map<Generation, Ring>& rings, const RerouteRules& rules);

}  // namespace continuum
