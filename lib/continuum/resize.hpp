// Changing the ring of a topic while it is in use (PROTOCOLS: Resize; G7 in docs/guarantees.md):
//
//   begin -> seal every partition of the old and the new ring -> register groups on new ones -> activate
//
// Every step is idempotent, and whoever finds a resize that was begun may do the rest of it: the same command
// run again, another coordinator, a publisher or a worker that waits for it.
#pragma once

#include "continuum/redis.hpp"
#include "continuum/ring.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

namespace continuum {

// What to read when a server has lost a resize, or a part of one.
inline constexpr std::string_view lost_resize_section =
    "docs/operations.md, \"A resize that the server lost\"";

struct Resized {
  enum class How : std::uint8_t {
    unchanged,  // the topic has that ring already
    resized,    // from its beginning to its end
    continued,  // somebody else's, or our own that died, to its end
    aborted,    // the topic has the ring that it had before, as a new generation
  };
  How how = How::unchanged;
  Generation before;
  Generation generation;  // in force now
  RingDescription ring_before;
  RingDescription ring;
  // The highest generation that partitions had and the topic had not: the server lost it. It has no events,
  // and counts as one of the ring before from now on.
  std::optional<Generation> lost;
  std::uint32_t sealed = 0;  // partitions that this run sealed
  // From the first seal to the activation, as this run saw it: for so long appends may have been refused.
  std::chrono::microseconds held_up{0};
};

// Throws Error{usage} when a resize of the topic to another ring is pending: it says which, and what to do.
void require_no_other_resize(const Topic& topic, const RingDescription& target);

// A generation that the server lost is passed over, also when the ring is `target` already: that seals all
// partitions alike. Throws Error: usage when a resize to another ring is pending or `target` is beyond a
// limit; loss when the log of a partition is gone, or has events of a generation that the server lost.
[[nodiscard]] Resized resize_topic(redis::Session& session, std::string_view topic,
                                   const RingDescription& target);
// What is pending, to its end. Throws Error{usage} when nothing is.
[[nodiscard]] Resized continue_resize(redis::Session& session, std::string_view topic);
// Gives up what is pending; after the activation it is too late. Throws Error{usage} when nothing is pending.
[[nodiscard]] Resized abort_resize(redis::Session& session, std::string_view topic);

}  // namespace continuum
