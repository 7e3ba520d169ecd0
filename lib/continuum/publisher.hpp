// Publishing: lines in, events in the log, each exactly once (PROTOCOLS: Append, Producer resume).
//
//   reading thread: lines -> events -> ring -> a batch per partition     (publish_input.hpp)
//   encoding thread: batch -> frame
//   calling thread: frame -> append -> acknowledged                      (appender.hpp)
#pragma once

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/line_reader.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

struct Acknowledge {
  enum class Level : std::uint8_t {
    memory,    // the server has it
    fsync,     // its append-only file is synced
    replicas,  // that many replicas have it
  };
  Level level = Level::memory;
  std::uint32_t replicas = 0;
};

struct PublishOptions {
  WrapOptions wrap;      // topic, producer, limits are filled in by publish()
  std::string producer;  // empty: unnamed, not to be continued
  Acknowledge acknowledge;
  Milliseconds linger{0};             // how long a batch may wait to become fuller
  std::uint64_t rate_per_second = 0;  // 0: no limit
  enum class BadLine : std::uint8_t { go_on, stop };
  BadLine bad_line = BadLine::go_on;
  std::size_t frame_bytes = 192 << 10;  // of events before compression
  int stop = -1;  // readable once: publish what was read and end; twice: end at once. Consumed, not owned.
};

// Events of one partition that were stored (or not confirmed) together.
struct StoredBatch {
  Partition partition;
  std::optional<Offset> first;  // empty when the server had stored it but the answer was lost
  std::string_view lines;
  std::span<const Position> positions;
  enum class Status : std::uint8_t { stored, unconfirmed };
  Status status = Status::stored;
};
struct DuplicateEvent {
  Position position;
  Partition partition;
  std::string_view id;
};
struct RejectedLine {
  std::uint64_t line = 0;
  std::string_view source;
  std::string_view text;
  std::size_t cut_bytes = 0;  // of the text that were not kept
  std::string_view reason;
};

struct PublishProgress {
  std::uint64_t bytes_read = 0;
  std::uint64_t stored = 0;
  std::uint64_t duplicates = 0;
  std::uint64_t rejected = 0;
};

// Called one at a time, from any of the three threads. Each may be empty. What they throw ends the publish.
struct PublishHooks {
  std::function<void(const StoredBatch&)> stored;
  std::function<void(const DuplicateEvent&)> duplicate;
  std::function<void(const RejectedLine&)> rejected;
  std::function<void(const PublishProgress&)> progress;  // about ten times a second
};

struct PublishSummary {
  std::uint64_t stored = 0;
  std::uint64_t duplicates = 0;  // stored by an earlier run
  std::uint64_t rejected = 0;
  std::uint64_t unconfirmed = 0;  // sent, but not confirmed at the level asked for
  std::optional<Error> error;     // what ended it before the end of its input
};

// Publishes all lines of the sources. What was stored before an error is in the summary. Throws Error{usage}
// for options that cannot work, before anything is read.
PublishSummary publish(redis::Session& session, const Topic& topic, PublishOptions options,
                       std::vector<LineSource> sources, const PublishHooks& hooks);

}  // namespace continuum
