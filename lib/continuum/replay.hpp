// Reading a topic's logs back: chosen events, in append order across partitions.
//
// With an archive, what the logs do not have any more is read there, as one sequence with them: also what is
// trimmed while we read, as long as it was archived before.
//
// A replay ends at the end that every log had at its start, or a little before it when the topic was resized
// just then: no event of a key comes before one that is older. Order: (generation, time of the entry,
// partition, offset), which keeps the order of every key, also over a resize. What should be there and is not
// (a gap, a damaged frame, a range that is no longer kept) throws Error{loss} with the range.
#pragma once

#include "continuum/event_filter.hpp"
#include "continuum/log.hpp"
#include "continuum/log_range.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// Consecutive events of one partition, all of one entry. Views stay valid until the next one is asked for.
struct EventRun {
  Partition partition;
  Generation generation;
  EntryId entry;
  Offset first;
  std::uint32_t events = 0;
  std::string_view lines;  // as they were stored, each with its newline
  EntryId before = {};     // the entry before it, when that was read
};

// Where reading of a partition stopped.
struct LogPlace {
  Partition partition;
  EntryId entry;  // the last one that was there
  Offset next;    // of the event after it
};

struct ReplayOptions {
  std::vector<Partition> partitions;  // empty: all
  EventFilter::Options filter;
  RangeOptions range;  // by offset: with exactly one partition; by event time: goes into the filter
  std::optional<std::uint64_t> events_max;
  std::optional<std::string> archive;  // the directory
};

class Replay {
 public:
  // Asks for both ends of the range in every partition. Throws Error{loss} when the range is no longer kept,
  // and Error{usage} for options that contradict each other, or an archive that is none of the topic.
  // `session` and `topic` must outlive it.
  Replay(redis::Session& session, const Topic& topic, ReplayOptions options);
  ~Replay();
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

  static constexpr std::uint64_t all = std::numeric_limits<std::uint64_t>::max();

  // At most so many events. nullopt at the end. A run without events when about `passed_max` were passed and
  // none of them matches: for callers that have something else to do, too.
  [[nodiscard]] std::optional<EventRun> next(std::uint64_t events_max = all, std::uint64_t passed_max = all);

  // Before the filter: how many events the range has, and how many of them are behind us.
  [[nodiscard]] std::uint64_t events_in_range() const;
  [[nodiscard]] std::uint64_t events_passed() const;
  // What came out of next().
  [[nodiscard]] std::uint64_t events_matched() const;
  // Of the disk.
  [[nodiscard]] std::uint64_t archive_bytes_read() const;
  [[nodiscard]] std::vector<LogPlace> ends() const;
  // Where a later replay goes on (RangeOptions::resume): before the events that next() returned last, or
  // behind all that were passed when it returned none.
  [[nodiscard]] ResumeAt resume_at() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// How an event is written for a reader.
enum class EventForm : std::uint8_t {
  stored,      // its line, byte for byte
  with_place,  // the line with "partition" and "offset" added, as a worker without a handler prints it
  data,        // the bytes of its data; null when it has none
};
// Appends the events of the run, a line each.
void append_events(std::string& out, const EventRun& run, EventForm form);

}  // namespace continuum
