#include "continuum/replay.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <tuple>

namespace continuum {

namespace {

// What is asked for at once over all partitions, and what one partition may ask for at least.
constexpr std::size_t answer_bytes = std::size_t{4} << 20;
constexpr std::size_t partition_bytes_min = 16 << 10;
// XRANGE counts entries, not bytes: each answer may be this much longer than the one before.
constexpr std::size_t count_growth = 8;
constexpr std::size_t count_max = 16 << 10;
// In the first answer over all partitions, when nothing is known of their sizes.
constexpr std::size_t first_entries = 128;

// An entry whose frame was copied out of the answer, so that answers are not kept alive by their slowest
// reader.
struct Stored {
  Entry entry;  // without its views
  std::size_t at;
  std::size_t size;
};

// One partition on its way from the begin of its range to its end.
struct Source {
  LogRange range;
  std::string key;
  std::string after;               // XRANGE's lower bound
  std::optional<Offset> expected;  // of the next entry

  std::string bytes;
  std::vector<Stored> entries;
  std::size_t at = 0;  // in entries
  std::size_t count = 1;
  std::size_t entry_bytes = 0;  // mean of the last answer
  bool drained = false;
  EntryId entry_id;  // of the entry that was read last, and of the one before it
  EntryId entry_id_before;
  std::uint64_t time = 0;  // of the latest entry: an order by time must never step back within a partition

  [[nodiscard]] bool has_entry() const { return at < entries.size(); }
  [[nodiscard]] const Entry& entry() const { return entries[at].entry; }
  [[nodiscard]] std::size_t unread_bytes() const { return has_entry() ? bytes.size() - entries[at].at : 0; }
  [[nodiscard]] auto order() const {
    return std::tuple(entry().generation, std::max(time, entry().id.milliseconds), range.partition);
  }
};

bool comes_later(const Source* a, const Source* b) {
  return a->order() > b->order();
}

}  // namespace

struct Replay::Impl {
  Impl(redis::Session& s, const Topic& t, ReplayOptions o)
      : session(s), topic(t), options(std::move(o)), filter(topic, filter_of(options)) {
    if ((options.range.from || options.range.to) && options.partitions.size() != 1) {
      fail(ErrorKind::usage,
           "offsets are counted in each partition: a range of offsets needs one --partition");
    }
    const auto partitions = filter.partitions(topic, options.partitions);
    for (LogRange& range : find_ranges(session, topic, partitions, options.range)) {
      in_range += range.events();
      Source source;
      source.range = std::move(range);
      sources.push_back(std::move(source));
    }
    bytes_per_source = std::max(partition_bytes_min, answer_bytes / std::max<std::size_t>(1, sources.size()));
    for (Source& source : sources) {
      source.key = log_key(topic.name, source.range.partition);
      source.after = source.range.first;
      source.expected = source.range.expected;
      source.count = std::clamp<std::size_t>(first_entries / sources.size(), 1, count_growth);
      source.drained = source.range.events() == 0;
      if (!source.drained) {
        waiting.push_back(&source);
      }
      if (options.range.resume && options.range.resume->places.contains(source.range.partition)) {
        source.entry_id = options.range.resume->places.at(source.range.partition).entry;
      }
      generation_max = std::min(generation_max, complete_until(source.range));
    }
  }

  // The last generation of which events may be read: the logs were not all seen at one moment, and of the one
  // that this partition is in there may have come more, which is before those of the next.
  [[nodiscard]] Generation complete_until(const LogRange& range) const {
    for (const auto& [generation, description] : topic.rings) {
      if (generation < range.generation || generation > topic.active) {
        continue;
      }
      if (std::any_of(description.members.begin(), description.members.end(),
                      [&](const auto& member) { return member.partition == range.partition; })) {
        return generation;
      }
    }
    return std::max(topic.active, range.generation);
  }

  static EventFilter::Options filter_of(const ReplayOptions& options) {
    EventFilter::Options filter = options.filter;
    if (!options.range.times_bound()) {
      filter.since = options.range.since;
      filter.until = options.range.until;
    }
    return filter;
  }

  // Asks for more for every partition that runs low, in one step.
  void refill() {
    redis::Request request;
    std::vector<Source*> asked;
    for (Source& source : sources) {
      if (!source.drained && (!source.has_entry() || source.unread_bytes() < bytes_per_source / 2)) {
        request.command("XRANGE", source.key, source.after, source.range.last.text(), "COUNT", source.count);
        asked.push_back(&source);
      }
    }
    if (asked.empty()) {
      return;
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < asked.size(); ++i) {
      take(*asked[i], replies[i]);
    }
  }

  void take(Source& source, redis::Reply answer) const {
    source.bytes.erase(0, source.bytes.size() - source.unread_bytes());
    source.entries.erase(source.entries.begin(),
                         source.entries.begin() + static_cast<std::ptrdiff_t>(source.at));
    source.at = 0;
    const std::size_t moved = source.entries.empty() ? 0 : source.entries.front().at;
    for (Stored& stored : source.entries) {
      stored.at -= moved;
    }
    const std::size_t kept_bytes = source.bytes.size();
    const std::size_t size = answer.size();
    for (std::size_t i = 0; i < size; ++i) {
      add(source, parse_entry(answer[i], topic.name, source.range.partition));
    }
    if (size < source.count) {
      source.drained = true;
      return;
    }
    source.after = "(" + std::string(answer[size - 1][0].text());
    // Half of what is kept for a partition, so that the unread rest and the next answer are the whole.
    source.entry_bytes = (source.bytes.size() - kept_bytes) / size + sizeof(Stored);
    source.count = std::clamp<std::size_t>(bytes_per_source / 2 / source.entry_bytes, 1,
                                           std::min(count_max, source.count * count_growth));
  }

  static void add(Source& source, const Entry& entry) {
    Stored stored{entry, source.bytes.size(), entry.frame.size()};
    source.bytes.append(entry.frame);
    stored.entry.frame = {};
    stored.entry.producer = {};
    source.entries.push_back(stored);
  }

  // The source whose entry is next, or nullptr when all are at their end.
  Source* next_source() {
    while (!waiting.empty()) {
      refill();
      for (auto it = waiting.begin(); it != waiting.end();) {
        Source* const source = *it;
        if (source->has_entry()) {
          ready.push_back(source);
          std::push_heap(ready.begin(), ready.end(), comes_later);
          it = waiting.erase(it);
        } else if (source->drained) {
          require_end(*source);
          it = waiting.erase(it);
        } else {
          ++it;
        }
      }
    }
    if (ready.empty()) {
      return nullptr;
    }
    std::pop_heap(ready.begin(), ready.end(), comes_later);
    Source* const source = ready.back();
    if (source->entry().generation > generation_max) {
      ready.clear();
      return nullptr;
    }
    ready.pop_back();
    return source;
  }

  // After its entry was used.
  void put_back(Source& source) {
    if (source.expected && *source.expected >= source.range.stop) {
      source.drained = true;
      source.at = source.entries.size();
    } else if (source.has_entry()) {
      ready.push_back(&source);
      std::push_heap(ready.begin(), ready.end(), comes_later);
    } else {
      waiting.push_back(&source);
    }
  }

  void require_end(const Source& source) const {
    if (source.expected.value_or(source.range.from) != source.range.end) {
      report_gap(source, source.expected.value_or(source.range.from), source.range.end);
    }
  }

  [[noreturn]] void report_gap(const Source& source, Offset expected, Offset found) const {
    const std::string where = place(topic.name, source.range.partition);
    if (found > expected) {
      fail(ErrorKind::loss,
           "{}: offsets {} to {} are not in the log any more: removed by XDEL or XTRIM, or trimmed while we "
           "read?",
           where, expected, found.value - 1);
    }
    fail(ErrorKind::loss, "{}: offset {} comes where {} is expected: the log holds events twice", where,
         found, expected);
  }

  enum class Went : std::uint8_t { on, to_the_end };

  // Goes past the next entry, and decodes it when it has events that can be wanted; past more of those that
  // cannot have them, until so many events are behind us.
  Went next_entry(std::uint64_t passed_until) {
    do {
      Source* const source = next_source();
      if (source == nullptr) {
        return Went::to_the_end;
      }
      const Stored& stored = source->entries[source->at];
      Entry entry = stored.entry;
      entry.frame = std::string_view(source->bytes).substr(stored.at, stored.size);
      if (source->expected ? entry.first != *source->expected : entry.first > source->range.from) {
        report_gap(*source, source->expected.value_or(source->range.from), entry.first);
      }
      const Offset from = std::max(entry.first, source->range.from);
      const Offset to = std::min(entry.next(), source->range.stop);
      const bool wanted = from < to && filter.wants(source->range.partition, entry.generation);
      if (wanted) {
        decode_entry(decoder, entry, topic.name, source->range.partition, lines);
        run = {source->range.partition, entry.generation, entry.id, entry.first, entry.events, lines,
               source->entry_id};
        run_source = source;
        cut(from, to);
      }
      passed += from < to ? to - from : 0;
      source->time = std::max(source->time, entry.id.milliseconds);
      source->expected = entry.next();
      source->entry_id_before = source->entry_id;
      source->entry_id = entry.id;
      ++source->at;
      put_back(*source);
      if (wanted) {
        return Went::on;
      }
    } while (passed < passed_until);
    return Went::on;
  }

  // Leaves of `run` the events of [from, to).
  void cut(Offset from, Offset to) {
    run.lines.remove_prefix(bytes_of(run.lines, from - run.first));
    run.first = from;
    const std::uint64_t events = to - from;
    if (events != run.events) {
      run.events = static_cast<std::uint32_t>(events);
      run.lines = run.lines.substr(0, bytes_of(run.lines, events));
    }
  }

  static std::size_t bytes_of(std::string_view text, std::uint64_t line_count) {
    std::size_t at = 0;
    for (std::uint64_t i = 0; i < line_count; ++i) {
      at = text.find('\n', at) + 1;
    }
    return at;
  }

  // Takes the next matching events off the front of `run`, at most so many; no events when none is left.
  EventRun matching_run(std::uint64_t events_max) {
    EventRun out = run;
    if (filter.matches_all()) {
      out.events = static_cast<std::uint32_t>(std::min<std::uint64_t>(events_max, run.events));
      out.lines = out.events == run.events ? run.lines : run.lines.substr(0, bytes_of(run.lines, out.events));
      run.lines.remove_prefix(out.lines.size());
      run.first = run.first + out.events;
      run.events -= out.events;
      return out;
    }
    out.events = 0;
    const char* at = run.lines.data();
    const char* begin = at;
    while (run.events > 0 && out.events < events_max) {
      const char* const end = static_cast<const char*>(std::memchr(at, '\n', run.lines.size())) + 1;
      const auto size = static_cast<std::size_t>(end - at);
      const bool matches = matches_here(run.lines.substr(0, size - 1));
      if (!matches && out.events > 0) {
        break;
      }
      run.lines.remove_prefix(size);
      ++run.first;
      --run.events;
      at = end;
      if (matches) {
        ++out.events;
      } else {
        begin = end;
        out.first = run.first;
      }
    }
    out.lines = std::string_view(begin, static_cast<std::size_t>(at - begin));
    return out;
  }

  bool matches_here(std::string_view line) {
    try {
      return filter.matches(line);
    } catch (const Error& error) {
      fail(ErrorKind::loss, "{}, offset {} (entry {}): {}", place(topic.name, run.partition), run.first,
           run.entry.text(), error.message());
    }
  }

  std::optional<EventRun> next(std::uint64_t events_max, std::uint64_t passed_max) {
    given.reset();
    const std::uint64_t left =
        options.events_max.value_or(std::numeric_limits<std::uint64_t>::max()) - matched;
    events_max = std::min(events_max, left);
    if (events_max == 0) {
      return std::nullopt;
    }
    const std::uint64_t passed_until = passed_max < all - passed ? passed + passed_max : all;
    for (;;) {
      while (run.events > 0) {
        const EventRun out = matching_run(events_max);
        if (out.events > 0) {
          matched += out.events;
          given = out.first;
          return out;
        }
      }
      if (passed >= passed_until) {
        return EventRun{};
      }
      if (next_entry(passed_until) == Went::to_the_end) {
        return std::nullopt;
      }
    }
  }

  [[nodiscard]] Cursor place_of(const Source& source) const {
    if (&source == run_source && (given || run.events > 0)) {
      return {given.value_or(run.first), source.entry_id_before};
    }
    const LogRange& range = source.range;
    if (source.expected && *source.expected > range.stop) {
      return {std::max(range.from, range.stop), source.entry_id_before};
    }
    return {std::max(range.from, source.expected.value_or(range.from)), source.entry_id};
  }

  redis::Session& session;
  const Topic& topic;
  ReplayOptions options;
  EventFilter filter;
  FrameDecoder decoder;
  std::vector<Source> sources;
  std::vector<Source*> waiting;  // for an answer
  std::vector<Source*> ready;    // a heap: the next entry first
  std::size_t bytes_per_source = 0;
  std::string lines;  // of the present entry
  EventRun run;       // what is left of it
  const Source* run_source = nullptr;
  std::optional<Offset> given;  // the first of the events that next() returned last
  Generation generation_max{std::numeric_limits<Generation::rep>::max()};
  std::uint64_t in_range = 0;
  std::uint64_t passed = 0;
  std::uint64_t matched = 0;
};

Replay::Replay(redis::Session& session, const Topic& topic, ReplayOptions options)
    : impl_(std::make_unique<Impl>(session, topic, std::move(options))) {}

Replay::~Replay() = default;

std::optional<EventRun> Replay::next(std::uint64_t events_max, std::uint64_t passed_max) {
  return impl_->next(events_max, passed_max);
}

std::uint64_t Replay::events_in_range() const {
  return impl_->in_range;
}

std::uint64_t Replay::events_passed() const {
  return impl_->passed;
}

std::uint64_t Replay::events_matched() const {
  return impl_->matched;
}

std::vector<LogPlace> Replay::ends() const {
  std::vector<LogPlace> out;
  for (const Source& source : impl_->sources) {
    out.push_back({source.range.partition, source.range.log_last, source.range.log_next});
  }
  return out;
}

ResumeAt Replay::resume_at() const {
  ResumeAt at;
  at.generation = impl_->topic.active;
  for (const Source& source : impl_->sources) {
    at.places[source.range.partition] = impl_->place_of(source);
  }
  return at;
}

void append_events(std::string& out, const EventRun& run, EventForm form) {
  if (form == EventForm::stored) {
    out.append(run.lines);
    return;
  }
  std::string_view rest = run.lines;
  for (Offset offset = run.first; !rest.empty(); ++offset) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(line.size() + 1);
    if (form == EventForm::data) {
      const std::string_view data = attributes_of(line).data;
      out.append(data.empty() ? "null" : data);
      out += '\n';
      continue;
    }
    fmt::format_to(std::back_inserter(out), "{{\"partition\":{},\"offset\":{},", run.partition, offset);
    out.append(line.substr(line.find('{') + 1));  // an event is an object, and never an empty one
    out += '\n';
  }
}

}  // namespace continuum
