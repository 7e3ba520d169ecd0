// The keys of a sample of stored events: what of the traffic each partition, and each key, has.
#pragma once

#include "continuum/redis.hpp"
#include "continuum/topic.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace continuum {

struct SampledKey {
  std::string key;
  std::uint64_t events;
};

struct KeySample {
  std::uint64_t events = 0;
  std::vector<SampledKey> keys;  // most events first, then by key
};

inline constexpr std::uint64_t sampled_events_max = 1'000'000;

// The newest events of each partition, of each as many as its part of all that is stored; about `events_max`
// in all, fewer when their keys are very long. Throws Error{loss} for an entry that is damaged; gaps are no
// concern of a sample.
[[nodiscard]] KeySample sample_keys(redis::Session& session, const Topic& topic,
                                    const std::vector<StoredEvents>& stored, std::uint64_t events_max);

}  // namespace continuum
