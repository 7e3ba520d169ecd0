// The events of a replay stored again in another topic, each exactly once however often the replay is run
// (PROTOCOLS: Append, Producer resume). Each partition that is replayed has a producer of its own in the
// target, whose positions are its offsets: what is stored there is known without a look at what came before,
// also after the beginning of the log was trimmed.
#pragma once

#include "continuum/redis.hpp"
#include "continuum/replay.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <memory>
#include <string_view>

namespace continuum {

class TopicCopy {
 public:
  // `session`: of the server that has the target. `identity`: any text that says what is replayed, from where
  // on: a replay of anything else has another, and one that only ends elsewhere has the same. Throws
  // Error{usage} when the target is the source. `session` must outlive it.
  TopicCopy(redis::Session& session, Topic target, const Topic& source, std::string_view identity);
  ~TopicCopy();
  TopicCopy(const TopicCopy&) = delete;
  TopicCopy& operator=(const TopicCopy&) = delete;

  // In replay order. All of a generation is stored before the next one begins. Throws Error: fenced (another
  // run of the same replay has taken over), loss, usage (an event is too big for the target), server.
  void give(const EventRun& run);
  // All that was given is stored.
  void flush();

  [[nodiscard]] std::uint64_t stored() const;
  [[nodiscard]] std::uint64_t duplicates() const;  // an earlier run has stored them

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace continuum
