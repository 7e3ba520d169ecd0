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
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace continuum {

// What a target has confirmed.
struct CopiedTo {
  std::string topic;
  std::string log_id;
  // By partition of the source and of the target: the last of its events there, as position.
  std::map<std::pair<Partition, Partition>, Position> positions;
};

class TopicCopy {
 public:
  // `session`: of the server that has the target. `identity`: any text that says what is replayed, from where
  // on: a replay of anything else has another, and one that only ends elsewhere has the same. Throws
  // Error{usage} when the target is the source. `session` must outlive it.
  TopicCopy(redis::Session& session, Topic target, const Topic& source, std::string_view identity);
  ~TopicCopy();
  TopicCopy(const TopicCopy&) = delete;
  TopicCopy& operator=(const TopicCopy&) = delete;

  // Before anything is given: throws Error{loss} unless the target still has what it confirmed to earlier
  // runs of the same replay, and Error{usage} when these stored in another topic.
  void go_on(const CopiedTo& before);

  // In replay order. All of a generation is stored before the next one begins. Throws Error: fenced (another
  // run of the same replay has taken over), loss, usage (an event is too big for the target), server.
  void give(const EventRun& run);
  // All that was given is stored.
  void flush();

  // Of this run, and of the earlier ones that it goes on from.
  [[nodiscard]] const CopiedTo& copied() const;
  [[nodiscard]] std::uint64_t stored() const;
  [[nodiscard]] std::uint64_t duplicates() const;  // an earlier run has stored them

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace continuum
