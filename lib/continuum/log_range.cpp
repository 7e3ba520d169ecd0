#include "continuum/log_range.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"

#include <algorithm>
#include <limits>
#include <span>

namespace continuum {

namespace {

// Asked in one request: an answer holds up to four entries of each.
constexpr std::size_t partitions_at_once = 32;

std::uint64_t milliseconds_of(SystemTime time) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, time.time_since_epoch().count()));
}

std::string how_to_read_on(const LogEnds& ends) {
  if (!ends.oldest) {
    return "Nothing of it is kept";
  }
  return fmt::format("What is kept can be read with --from-offset {} (one --partition) or --since {}",
                     ends.first(), format_time(ends.oldest->time() + Milliseconds(1)));
}

class RangeFinder {
 public:
  RangeFinder(redis::Session& session, const Topic& topic, const RangeOptions& options)
      : session_(session), topic_(topic), options_(options) {}

  void find(std::span<const Partition> partitions, std::vector<LogRange>& out) {
    redis::Request request;
    for (const Partition partition : partitions) {
      const std::string key = log_key(topic_.name, partition);
      request.command("MULTI");
      request_ends(request, topic_.name, partition);
      if (since_bounds()) {
        const std::string before = fmt::format("({}-0", milliseconds_of(*options_.since));
        request.command("XREVRANGE", key, before, "-", "COUNT", 1);
      }
      if (until_bounds()) {
        request.command("XRANGE", key, milliseconds_of(*options_.until), "+", "COUNT", 1);
      }
      request.command("EXEC");
    }
    const redis::Replies replies = session_.call(std::move(request));
    const std::size_t each = replies.size() / partitions.size();
    for (std::size_t i = 0; i < partitions.size(); ++i) {
      out.push_back(range_of(partitions[i], replies[(i + 1) * each - 1]));
    }
  }

 private:
  [[nodiscard]] bool since_bounds() const { return options_.since && options_.times_bound(); }
  [[nodiscard]] bool until_bounds() const { return options_.until && options_.times_bound(); }

  LogRange range_of(Partition partition, redis::Reply answers) const {
    const LogEnds ends = parse_ends(answers[0], answers[1], topic_.name, partition, topic_.log_id);
    if (!ends.loss.empty()) {
      throw Error(ErrorKind::loss, ends.loss);
    }
    LogRange range;
    range.partition = partition;
    range.first = "-";
    range.last = range.log_last = ends.last_id;
    range.end = range.log_next = ends.state.next;
    range.generation = ends.state.generation;
    std::size_t answer = 2;
    if (options_.resume) {
      if (!since_bounds() || !begins_later(range, ends, answers[answer++])) {
        go_on(range, ends);
      }
    } else if (since_bounds()) {
      begin_at_time(range, ends, answers[answer++]);
    } else if (options_.from) {
      begin_at_offset(range, ends);
    } else {
      if (!ends.head_loss.empty()) {
        fail(ErrorKind::loss, "{}. {}", ends.head_loss, how_to_read_on(ends));
      }
      range.from = ends.first();
      if (options_.since) {
        require_kept(range, ends);
      }
      range.expected = range.from;
    }
    if (until_bounds()) {
      end_at_time(range, answers[answer]);
    }
    if (options_.resume) {
      // The end in time may have been passed long ago.
      range.end = std::max(range.end, range.from);
    } else if (range.from > range.end && !options_.from) {
      fail(ErrorKind::loss, "{}: offset {} comes after offset {}: the log holds events twice",
           place(topic_.name, partition), range.end, range.from.value - 1);
    }
    range.stop = options_.to ? std::min(*options_.to, range.end) : range.end;
    return range;
  }

  void begin_at_time(LogRange& range, const LogEnds& ends, redis::Reply before) const {
    const std::uint64_t since = milliseconds_of(*options_.since);
    range.first = fmt::format("{}-0", since);
    if (before.size() > 0) {
      range.from = parse_entry(before[0], topic_.name, range.partition).next();
    } else {
      range.from = ends.first();
      require_kept(range, ends);
    }
    range.expected = range.from;
  }

  // What was removed is older than what is kept, but perhaps not older than the time that is asked for.
  void require_kept(const LogRange& range, const LogEnds& ends) const {
    const bool is_cut = range.from > Offset(0) || !ends.head_loss.empty();
    if (is_cut && !options_.times_bound()) {
      fail(ErrorKind::loss,
           "{}: the log is kept from offset {} on; what was before it may belong to the time from {} on, as "
           "events can have any time of their own. What is kept can be read with --from-offset {} (one "
           "--partition)",
           place(topic_.name, range.partition), range.from, format_time(*options_.since), range.from);
    }
    if (is_cut && ends.newest_removed().milliseconds >= milliseconds_of(*options_.since)) {
      fail(
          ErrorKind::loss,
          "{}: the log is kept from offset {}{} on; what was before it may belong to the time from {} on. {}",
          place(topic_.name, range.partition), range.from,
          ends.oldest ? fmt::format(" ({})", format_time(ends.oldest->time())) : std::string(),
          format_time(*options_.since), how_to_read_on(ends));
    }
  }

  void begin_at_offset(LogRange& range, const LogEnds& ends) const {
    range.from = *options_.from;
    if (range.from >= ends.state.next || options_.to <= options_.from) {
      return;
    }
    if (range.from < ends.first()) {
      const Offset to = std::min(ends.first(), options_.to.value_or(ends.first()));
      fail(ErrorKind::loss, "{}: offsets {} to {} are no longer kept. {}",
           place(topic_.name, range.partition), range.from, to.value - 1, how_to_read_on(ends));
    }
    range.first = entry_near(range, ends);
  }

  // A time that had not come when the cursor passed the events before it: what was removed of those is no
  // loss.
  [[nodiscard]] bool begins_later(LogRange& range, const LogEnds& ends, redis::Reply before) const {
    const auto known = options_.resume->places.find(range.partition);
    const Offset place = known == options_.resume->places.end() ? Offset(0) : known->second.offset;
    const bool all_before = !ends.oldest && ends.last_id.milliseconds < milliseconds_of(*options_.since);
    if (place > ends.state.next || (before.size() == 0 && !all_before)) {
      return false;
    }
    const Offset begin =
        all_before ? ends.state.next : parse_entry(before[0], topic_.name, range.partition).next();
    if (begin <= place) {
      return false;
    }
    range.first = fmt::format("{}-0", milliseconds_of(*options_.since));
    range.from = begin;
    range.expected = begin;
    return true;
  }

  // A partition in which there was nothing to read until the topic was resized.
  void require_nothing_new_removed(const LogRange& range, const LogEnds& ends) const {
    if (!ends.head_loss.empty() || ends.state.trimmed > options_.resume->generation) {
      fail(
          ErrorKind::loss,
          "{}: the log is kept from offset {} on; what was before it may belong to the range, and the cursor "
          "had not passed it. {}",
          place(topic_.name, range.partition), ends.first(), how_to_read_on(ends));
    }
  }

  void go_on(LogRange& range, const LogEnds& ends) const {
    const auto known = options_.resume->places.find(range.partition);
    const bool is_known = known != options_.resume->places.end();
    const bool is_new = ends.state.born > options_.resume->generation;
    if (!is_known && !is_new) {
      require_nothing_new_removed(range, ends);
    }
    if (is_known) {
      range.from = known->second.offset;
    } else {
      range.from = is_new ? Offset(0) : ends.first();
    }
    if (range.from > ends.state.next) {
      fail(
          ErrorKind::loss,
          "{}: the cursor stands at offset {}, and the log ends at offset {}: was the server restored from a "
          "copy, or did it fail over and lose events?",
          place(topic_.name, range.partition), range.from, ends.state.next);
    }
    if (range.from < ends.first()) {
      fail(ErrorKind::loss, "{}: offsets {} to {} are no longer kept, and the cursor had not passed them. {}",
           place(topic_.name, range.partition), range.from, ends.first().value - 1, how_to_read_on(ends));
    }
    if (range.from == ends.state.next || range.from == ends.first()) {
      return;
    }
    const bool has_entry = is_known && known->second.entry != EntryId();
    range.first = has_entry ? "(" + known->second.entry.text() : entry_near(range, ends);
  }

  void end_at_time(LogRange& range, redis::Reply after) const {
    const std::uint64_t until = milliseconds_of(*options_.until);
    if (until == 0) {
      range.end = range.from;
    } else if (after.size() > 0) {
      range.end = parse_entry(after[0], topic_.name, range.partition).first;
      range.last = EntryId{until - 1, std::numeric_limits<std::uint64_t>::max()};
    }
  }

  // Ids are times: bisects them for an entry at or before range.from, within a millisecond of the best.
  std::string entry_near(const LogRange& range, const LogEnds& ends) const {
    const std::string key = log_key(topic_.name, range.partition);
    std::uint64_t low = ends.oldest->id.milliseconds;
    std::uint64_t high = ends.last_id.milliseconds + 1;
    while (high - low > 1) {
      const std::uint64_t middle = low + (high - low) / 2;
      redis::Request request;
      request.command("XRANGE", key, middle, "+", "COUNT", 1);
      const redis::Replies replies = session_.call(std::move(request));
      if (replies[0].size() == 0) {
        high = middle;
        continue;
      }
      const Entry entry = parse_entry(replies[0][0], topic_.name, range.partition);
      if (entry.first > range.from) {
        high = middle;
      } else if (entry.next() > range.from) {
        return entry.id.text();
      } else {
        low = entry.id.milliseconds;
      }
    }
    return fmt::format("{}-0", low);
  }

  redis::Session& session_;
  const Topic& topic_;
  const RangeOptions& options_;
};

}  // namespace

void require_sound(const RangeOptions& options) {
  if (options.since && options.until && *options.since > *options.until) {
    fail(ErrorKind::usage, "the range ends ({}) before it begins ({})", format_time(*options.until),
         format_time(*options.since));
  }
  if (options.from && options.to && *options.from > *options.to) {
    fail(ErrorKind::usage, "the range ends (offset {}) before it begins (offset {})", *options.to,
         *options.from);
  }
  if ((options.from || options.to) && (options.since || options.until) && options.times_bound()) {
    fail(ErrorKind::usage, "a range is given by times or by offsets, not by both");
  }
}

std::vector<LogRange> find_ranges(redis::Session& session, const Topic& topic,
                                  const std::vector<Partition>& partitions, const RangeOptions& options) {
  require_sound(options);
  RangeFinder finder(session, topic, options);
  std::vector<LogRange> out;
  for (std::size_t i = 0; i < partitions.size(); i += partitions_at_once) {
    const std::size_t count = std::min(partitions_at_once, partitions.size() - i);
    finder.find(std::span(partitions).subspan(i, count), out);
  }
  return out;
}

}  // namespace continuum
