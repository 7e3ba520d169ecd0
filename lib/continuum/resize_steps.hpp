// The steps of a resize that anybody may take who finds it pending (resize.hpp). Private to the library:
// includes Asio.
#pragma once

#include "continuum/redis_client.hpp"
#include "continuum/resize.hpp"
#include "continuum/topic.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// The topic as it is now. Throws Error{loss} when it is gone, or another one of that name.
asio::awaitable<Topic> reload_topic(redis::Client& client, std::string_view name, std::string_view log_id);

// Registering a group needs memory.
enum class WhenFull : std::uint8_t {
  wait,   // as for everything else: the client tries again
  leave,  // others that use the client need none, and are what empties the server
};

struct FinishedResize {
  Generation generation;
  std::uint32_t sealed = 0;
  std::chrono::microseconds held_up{0};
  std::vector<Partition> refused = {};  // groups cannot be registered there: it is not in force yet
};
// Seals, registers and activates what is pending in `topic`, which must be fresh. Throws Error{loss} when the
// log of a partition is gone.
asio::awaitable<FinishedResize> finish_resize(redis::Client& client, Topic topic,
                                              WhenFull when_full = WhenFull::wait);

// Waits until the topic is at `told` or later: a partition said so, and its resize is under way. Finishes it
// when that takes longer than a second. nullopt: goes_on() says that nobody waits any more. Throws
// Error{loss} when the topic is gone, or knows nothing of such a generation.
asio::awaitable<std::optional<Topic>> await_generation(redis::Client& client, std::string_view name,
                                                       std::string_view log_id, Generation told,
                                                       std::function<bool()> goes_on);

// Gives these groups of the topic, which must be fresh, a cursor on these partitions, where they have none.
// Returns where the server was too full for one. Throws Error{loss} when a log is gone, or the topic does not
// know the group.
asio::awaitable<std::vector<Partition>> register_groups(redis::Client& client, const Topic& topic,
                                                        std::vector<std::string> groups,
                                                        std::vector<Partition> partitions,
                                                        WhenFull when_full);

// Seals a partition that lost its seal in a failover, so that it takes nothing of an old generation. Throws
// Error{loss}, and writes nothing, when the topic itself is behind what the caller knows of it.
asio::awaitable<void> seal_again(redis::Client& client, const Topic& topic, Partition partition);

}  // namespace continuum
