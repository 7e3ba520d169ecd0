#include "continuum/log_range.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/topic_archive.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <span>

namespace continuum {

namespace {

// Asked in one request: an answer holds up to four entries of each.
constexpr std::size_t partitions_at_once = 32;

std::uint64_t milliseconds_of(SystemTime time) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, time.time_since_epoch().count()));
}

SystemTime time_of(const EntryId& id) {
  return SystemTime(Milliseconds(static_cast<std::int64_t>(id.milliseconds)));
}

// The log of one partition, and what the archive adds to its beginning.
struct Kept {
  const LogEnds& ends;
  std::optional<Offset> archived;  // from there on up to the log, when the log has less

  [[nodiscard]] Offset first() const { return archived.value_or(ends.first()); }
  // Whether there were events, or a barrier, before first().
  [[nodiscard]] bool is_cut() const { return first() > Offset(0) || (!archived && !ends.head_loss.empty()); }
  // Why there is less than there should be, or empty: what an archive has was not lost.
  [[nodiscard]] std::string head_loss() const { return is_cut() ? ends.head_loss : std::string(); }
};

class RangeFinder {
 public:
  RangeFinder(redis::Session& session, const Topic& topic, const RangeOptions& options, TopicArchive* archive)
      : session_(session), topic_(topic), options_(options), archive_(archive) {}

  void find(std::span<const Partition> partitions, std::vector<LogRange>& out) {
    const redis::Replies replies = ask(partitions, Asking::together);
    bool is_full = false;
    for (std::size_t i = 0; i < replies.size(); ++i) {
      is_full = is_full || (replies[i].is_error() && replies[i].text().starts_with("OOM"));
    }
    if (!is_full) {
      read(partitions, replies, Asking::together, out);
      return;
    }
    const auto known = static_cast<std::ptrdiff_t>(out.size());
    try {
      read(partitions, ask(partitions, Asking::one_by_one), Asking::one_by_one, out);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::loss) {
        throw;
      }
      // Or it was trimmed between two answers.
      out.erase(out.begin() + known, out.end());
      read(partitions, ask(partitions, Asking::one_by_one), Asking::one_by_one, out);
    }
  }

 private:
  // A full server takes no transactions, not even to read. It takes no events either, so that a log and its
  // state agree without one, unless it is just being trimmed.
  enum class Asking : std::uint8_t { together, one_by_one };

  redis::Replies ask(std::span<const Partition> partitions, Asking asking) {
    redis::Request request;
    for (const Partition partition : partitions) {
      const std::string key = log_key(topic_.name, partition);
      if (asking == Asking::together) {
        request.command("MULTI");
      }
      request_ends(request, topic_.name, partition);
      if (since_bounds()) {
        const std::string before = fmt::format("({}-0", milliseconds_of(*options_.since));
        request.command("XREVRANGE", key, before, "-", "COUNT", 1);
      }
      if (until_bounds()) {
        request.command("XRANGE", key, milliseconds_of(*options_.until), "+", "COUNT", 1);
      }
      if (asking == Asking::together) {
        request.command("EXEC");
      }
    }
    if (asking == Asking::together) {
      request.keep_errors().keep_full();
    }
    return session_.call(std::move(request));
  }

  // To the commands about one partition, in their order.
  using Answers = std::function<redis::Reply(std::size_t)>;

  void read(std::span<const Partition> partitions, const redis::Replies& replies, Asking asking,
            std::vector<LogRange>& out) const {
    const std::size_t each = replies.size() / partitions.size();
    for (std::size_t i = 0; i < partitions.size(); ++i) {
      const redis::Reply last = replies[(i + 1) * each - 1];
      if (asking == Asking::together && last.is_error()) {
        fail(ErrorKind::usage, "{}: the server refuses to show it: {}", place(topic_.name, partitions[i]),
             last.text());
      }
      out.push_back(range_of(partitions[i], [&](std::size_t k) {
        return asking == Asking::together ? last[k] : replies[i * each + k];
      }));
    }
  }

  [[nodiscard]] bool since_bounds() const { return options_.since && options_.times_bound(); }
  [[nodiscard]] bool until_bounds() const { return options_.until && options_.times_bound(); }

  LogRange range_of(Partition partition, const Answers& answers) const {
    const LogEnds ends = parse_ends(answers(0), answers(1), topic_.name, partition, topic_.log_id);
    if (!ends.loss.empty()) {
      throw Error(ErrorKind::loss, ends.loss);
    }
    const Kept kept{ends, archived_before(partition, ends)};
    LogRange range;
    range.partition = partition;
    range.first = "-";
    range.log_first = ends.first();
    range.last = range.log_last = ends.last_id;
    range.end = range.log_next = ends.state.next;
    range.generation = ends.state.generation;
    std::size_t answer = 2;
    if (options_.resume) {
      if (!since_bounds() || !begins_later(range, kept, answers(answer++))) {
        go_on(range, kept);
      }
    } else if (since_bounds()) {
      begin_at_time(range, kept, answers(answer++));
    } else if (options_.from) {
      begin_at_offset(range, kept);
    } else {
      if (const std::string loss = kept.head_loss(); !loss.empty()) {
        fail(ErrorKind::loss, "{}. {}", loss, how_to_read_on(partition, kept));
      }
      range.from = kept.first();
      if (options_.since) {
        require_kept(range, kept);
      } else {
        require_archived(partition, kept);
      }
      range.expected = range.from;
    }
    if (until_bounds()) {
      end_at_time(range, kept, answers(answer));
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

  [[nodiscard]] std::optional<Offset> archived_before(Partition partition, const LogEnds& ends) const {
    const auto first = archive_ == nullptr ? std::nullopt : archive_->first(partition);
    return first && *first <= ends.first() ? first : std::nullopt;
  }

  // Of what is kept. Of an empty log, when its last entry was appended.
  [[nodiscard]] SystemTime oldest_time(Partition partition, const Kept& kept) const {
    return kept.archived ? archive_->first_time(partition)
                         : time_of(kept.ends.oldest ? kept.ends.oldest->id : kept.ends.last_id);
  }

  // Nothing that is not kept any more was stored later.
  [[nodiscard]] SystemTime newest_removed(Partition partition, const Kept& kept) const {
    return kept.archived ? archive_->first_time(partition) : time_of(kept.ends.newest_removed());
  }

  [[nodiscard]] std::string how_to_read_on(Partition partition, const Kept& kept) const {
    const std::string_view archive =
        archive_ == nullptr ? ". An archive of the topic may have more: replay --archive DIR" : "";
    if (!kept.archived && !kept.ends.oldest) {
      return fmt::format("Nothing of it is kept{}", archive);
    }
    return fmt::format("What is kept can be read with --from-offset {} (one --partition) or --since {}{}",
                       kept.first(), format_time(oldest_time(partition, kept) + Milliseconds(1)), archive);
  }

  // Of the first entry at that time or later, which is not in the log.
  [[nodiscard]] Offset find_archived(const LogRange& range, SystemTime time) const {
    return archive_->find(range.partition, time, range.log_first);
  }

  void begin_at_time(LogRange& range, const Kept& kept, redis::Reply before) const {
    range.first = fmt::format("{}-0", milliseconds_of(*options_.since));
    if (before.size() > 0) {
      range.from = parse_entry(before[0], topic_.name, range.partition).next();
    } else if (kept.archived) {
      range.from = find_archived(range, *options_.since);
    } else {
      range.from = kept.first();
    }
    if (range.from == kept.first() && before.size() == 0) {
      require_kept(range, kept);
    }
    range.expected = range.from;
  }

  // What was removed is older than what is kept, but perhaps not older than the time that is asked for.
  void require_kept(const LogRange& range, const Kept& kept) const {
    const std::string_view what = kept.archived ? "archive" : "log";
    if (kept.is_cut() && !options_.times_bound()) {
      fail(ErrorKind::loss,
           "{}: the {} is kept from offset {} on; what was before it may belong to the time from {} on, as "
           "events can have any time of their own. What is kept can be read with --from-offset {} (one "
           "--partition)",
           place(topic_.name, range.partition), what, range.from, format_time(*options_.since), range.from);
    }
    if (kept.is_cut() && newest_removed(range.partition, kept) >= *options_.since) {
      const bool is_empty = !kept.archived && !kept.ends.oldest;
      fail(ErrorKind::loss,
           "{}: the {} is kept from offset {}{} on; what was before it may belong to the time from {} on. {}",
           place(topic_.name, range.partition), what, range.from,
           is_empty ? std::string() : fmt::format(" ({})", format_time(oldest_time(range.partition, kept))),
           format_time(*options_.since), how_to_read_on(range.partition, kept));
    }
  }

  // Who names an archive and no beginning wants all there was: that the archive has nothing of a partition
  // must not look as if there had been nothing before the log.
  void require_archived(Partition partition, const Kept& kept) const {
    if (archive_ == nullptr || kept.archived || !kept.is_cut()) {
      return;
    }
    const auto begin = archive_->first(partition);
    fail(ErrorKind::loss,
         "{}: the log is kept from offset {} on, and {}. Is the archive mounted, and its copy whole? {}; "
         "without --archive a replay begins where the log does",
         place(topic_.name, partition), kept.first(),
         begin ? fmt::format("{} only from offset {} on", archive_->place_of(partition), *begin)
               : fmt::format("nothing is archived in {}", archive_->place_of(partition)),
         how_to_read_on(partition, kept));
  }

  void begin_at_offset(LogRange& range, const Kept& kept) const {
    range.from = *options_.from;
    if (range.from >= kept.ends.state.next || (options_.to && *options_.to <= range.from)) {
      return;
    }
    if (range.from < kept.first()) {
      const Offset to = std::min(kept.first(), options_.to.value_or(kept.first()));
      fail(ErrorKind::loss, "{}: offsets {} to {} are no longer kept. {}",
           place(topic_.name, range.partition), range.from, to.value - 1,
           how_to_read_on(range.partition, kept));
    }
    if (range.from >= range.log_first) {
      range.first = entry_near(range, kept.ends);
    }
  }

  // A time that had not come when the cursor passed the events before it: what was removed of those is no
  // loss.
  [[nodiscard]] bool begins_later(LogRange& range, const Kept& kept, redis::Reply before) const {
    const LogEnds& ends = kept.ends;
    const auto known = options_.resume->places.find(range.partition);
    const Offset place = known == options_.resume->places.end() ? Offset(0) : known->second.offset;
    if (place > ends.state.next) {
      return false;
    }
    Offset begin;
    if (!ends.oldest && ends.last_id.milliseconds < milliseconds_of(*options_.since)) {
      begin = ends.state.next;  // all that there ever was is older
    } else if (before.size() > 0) {
      begin = parse_entry(before[0], topic_.name, range.partition).next();
    } else if (kept.archived && place < range.log_first) {
      begin = find_archived(range, *options_.since);
    }
    if (begin <= place) {
      return false;
    }
    range.first = fmt::format("{}-0", milliseconds_of(*options_.since));
    range.from = begin;
    range.expected = begin;
    return true;
  }

  // A partition in which there was nothing to read until the topic was resized.
  void require_nothing_new_removed(const LogRange& range, const Kept& kept) const {
    const bool is_whole = kept.archived && !kept.is_cut();
    if (!is_whole &&
        (!kept.ends.head_loss.empty() || kept.ends.state.trimmed > options_.resume->generation)) {
      fail(
          ErrorKind::loss,
          "{}: the log is kept from offset {} on; what was before it may belong to the range, and the cursor "
          "had not passed it. {}",
          place(topic_.name, range.partition), kept.first(), how_to_read_on(range.partition, kept));
    }
  }

  void go_on(LogRange& range, const Kept& kept) const {
    const LogEnds& ends = kept.ends;
    const auto known = options_.resume->places.find(range.partition);
    const bool is_known = known != options_.resume->places.end();
    const bool is_new = ends.state.born > options_.resume->generation;
    if (!is_known && !is_new) {
      require_nothing_new_removed(range, kept);
    }
    if (is_known) {
      range.from = known->second.offset;
    } else {
      range.from = is_new ? Offset(0) : kept.first();
    }
    if (range.from > ends.state.next) {
      fail(
          ErrorKind::loss,
          "{}: the cursor stands at offset {}, and the log ends at offset {}: was the server restored from a "
          "copy, or did it fail over and lose events?",
          place(topic_.name, range.partition), range.from, ends.state.next);
    }
    if (range.from < kept.first()) {
      fail(ErrorKind::loss, "{}: offsets {} to {} are no longer kept, and the cursor had not passed them. {}",
           place(topic_.name, range.partition), range.from, kept.first().value - 1,
           how_to_read_on(range.partition, kept));
    }
    if (range.from == ends.state.next || range.from <= range.log_first) {
      return;
    }
    const bool has_entry = is_known && known->second.entry != EntryId();
    range.first = has_entry ? "(" + known->second.entry.text() : entry_near(range, ends);
  }

  void end_at_time(LogRange& range, const Kept& kept, redis::Reply after) const {
    const std::uint64_t until = milliseconds_of(*options_.until);
    const LogEnds& ends = kept.ends;
    if (until == 0) {
      range.end = range.from;
      return;
    }
    std::optional<Entry> entry;
    if (after.size() > 0) {
      entry = parse_entry(after[0], topic_.name, range.partition);
      range.end = entry->first;
      range.last = EntryId{until - 1, std::numeric_limits<std::uint64_t>::max()};
    }
    // When the log has nothing that is older, the range may have ended before it.
    const bool ends_before =
        entry ? entry->id == ends.oldest->id : !ends.oldest && ends.last_id.milliseconds >= until;
    if (ends_before && kept.archived && range.from < range.log_first) {
      range.end = find_archived(range, *options_.until);
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
  TopicArchive* archive_;  // may be null
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
                                  const std::vector<Partition>& partitions, const RangeOptions& options,
                                  TopicArchive* archive) {
  require_sound(options);
  RangeFinder finder(session, topic, options, archive);
  std::vector<LogRange> out;
  for (std::size_t i = 0; i < partitions.size(); i += partitions_at_once) {
    const std::size_t count = std::min(partitions_at_once, partitions.size() - i);
    finder.find(std::span(partitions).subspan(i, count), out);
  }
  return out;
}

}  // namespace continuum
