// Where in each partition a range of times or offsets begins and ends, as the logs stand now: by offset, also
// where it begins or ends in the archive.
#pragma once

#include "continuum/lease.hpp"
#include "continuum/log.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace continuum {

class TopicArchive;

// Where a reader goes on that was here before.
struct ResumeAt {
  std::map<Partition, Cursor> places;
  // Of the topic then. Partitions without a place that were born later are read from their first event on.
  Generation generation;
};

// Half-open: from the first on, up to but without the second.
struct RangeOptions {
  // Whose times: of the server that appended, or the events' own. What is stored in one order has its own
  // times in any: the range is then the whole log, of which an EventFilter takes the events.
  enum class By : std::uint8_t { append_time, event_time };
  std::optional<SystemTime> since;
  std::optional<SystemTime> until;
  // Offsets are counted in each partition, and do not go together with times of the server.
  std::optional<Offset> from;
  std::optional<Offset> to;
  By by = By::append_time;
  // The range begins there instead, but not before `since`.
  std::optional<ResumeAt> resume = {};

  // Whether the times bound the log.
  [[nodiscard]] bool times_bound() const { return by == By::append_time; }
};
// Throws Error{usage} for options that contradict each other.
void require_sound(const RangeOptions& options);

struct LogRange {
  Partition partition;
  // The events of the range are [from, stop); the entries of the range must end at offset `end`.
  Offset from;
  Offset stop;
  Offset end;
  std::optional<Offset> expected;  // of the first entry; unknown when it was found by an offset inside of it
  // Bounds for XRANGE, of entries.
  std::string first;
  EntryId last;
  // The log had what is from there on. Of a range that begins before it, the rest is in the archive.
  Offset log_first;
  // The end of the whole log, and the generation that its next event would have.
  EntryId log_last;
  Offset log_next;
  Generation generation;

  [[nodiscard]] std::uint64_t events() const { return stop > from ? stop - from : 0; }
};

// In the order of `partitions`. Throws Error{loss} when a log is damaged at an end, or the range is no longer
// kept: neither in the log nor in `archive`, which may be null.
[[nodiscard]] std::vector<LogRange> find_ranges(redis::Session& session, const Topic& topic,
                                                const std::vector<Partition>& partitions,
                                                const RangeOptions& options, TopicArchive* archive = nullptr);

}  // namespace continuum
