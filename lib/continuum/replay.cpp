#include "continuum/replay.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/replay_source.hpp"
#include "continuum/topic_archive.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace continuum {

namespace {

// What is asked for at once over all partitions, and what one partition may ask for at least.
constexpr std::size_t answer_bytes_all = std::size_t{4} << 20;
constexpr std::size_t partition_bytes_min = 16 << 10;
// In the first answer over all partitions, when nothing is known of their sizes.
constexpr std::size_t first_entries = 128;

bool comes_later(const ReplaySource* a, const ReplaySource* b) {
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
    if (options.archive) {
      archive.emplace(*options.archive, topic, partitions);
    }
    auto ranges = find_ranges(session, topic, partitions, options.range, archive ? &*archive : nullptr);
    const std::size_t answer_bytes =
        std::max(partition_bytes_min, answer_bytes_all / std::max<std::size_t>(1, ranges.size()));
    const auto& resume = options.range.resume;
    for (LogRange& range : ranges) {
      in_range += range.events();
      generation_max = std::min(generation_max, complete_until(range));
      sources.push_back(std::make_unique<ReplaySource>(std::move(range), topic.name,
                                                       archive ? &*archive : nullptr, options.filter.key,
                                                       answer_bytes, first_entries / ranges.size()));
      ReplaySource& source = *sources.back();
      if (resume && resume->places.contains(source.range().partition)) {
        source.begin_behind(resume->places.at(source.range().partition).entry);
      }
      waiting.push_back(&source);
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

  // Takes those that have an entry, and those that are at their end, away from the waiting ones.
  void look() {
    for (auto it = waiting.begin(); it != waiting.end();) {
      const auto found = (*it)->look();
      if (found == ReplaySource::Look::answer) {
        ++it;
        continue;
      }
      if (found == ReplaySource::Look::entry) {
        ready.push_back(*it);
        std::push_heap(ready.begin(), ready.end(), comes_later);
      }
      it = waiting.erase(it);
    }
  }

  // Asks for more for every partition that runs low, in one step.
  void refill() {
    redis::Request request;
    std::vector<ReplaySource*> asked;
    for (const auto& source : sources) {
      if (source->runs_low()) {
        source->ask(request);
        asked.push_back(source.get());
      }
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < asked.size(); ++i) {
      asked[i]->take(replies[i]);
    }
  }

  // The source whose entry is next, or nullptr when all are at their end. It is waiting for another look.
  ReplaySource* next_source() {
    for (look(); !waiting.empty(); look()) {
      refill();
    }
    if (ready.empty()) {
      return nullptr;
    }
    ReplaySource* const source = ready.front();
    if (source->head().generation > generation_max) {
      ready.clear();
      return nullptr;
    }
    std::pop_heap(ready.begin(), ready.end(), comes_later);
    ready.pop_back();
    waiting.push_back(source);
    return source;
  }

  enum class Went : std::uint8_t { on, to_the_end };

  // Goes past the next entry, and decodes it when it has events that can be wanted; past more of those that
  // cannot have them, until so many events are behind us.
  Went next_entry(std::uint64_t passed_until) {
    do {
      ReplaySource* const source = next_source();
      if (source == nullptr) {
        return Went::to_the_end;
      }
      source->require_whole();
      const auto& head = source->head();
      const LogRange& range = source->range();
      const Offset from = std::max(head.first, range.from);
      const Offset to = std::min(head.next(), range.stop);
      const bool wanted = from < to && filter.wants(range.partition, head.generation);
      if (wanted) {
        run = {range.partition,     head.generation, head.id,
               head.first,          head.events,     source->lines(decoder, lines),
               source->last_entry()};
        run_source = source;
        cut(from, to);
      }
      passed += source->pass();
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

  [[nodiscard]] Cursor place_of(const ReplaySource& source) const {
    if (&source == run_source && (given || run.events > 0)) {
      return source.place_at(given.value_or(run.first));
    }
    return source.place();
  }

  redis::Session& session;
  const Topic& topic;
  ReplayOptions options;
  EventFilter filter;
  FrameDecoder decoder;
  std::optional<TopicArchive> archive;
  std::vector<std::unique_ptr<ReplaySource>> sources;
  std::vector<ReplaySource*> waiting;  // for a look
  std::vector<ReplaySource*> ready;    // a heap: the next entry first
  std::string lines;                   // of the present entry
  EventRun run;                        // what is left of it
  const ReplaySource* run_source = nullptr;
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

std::uint64_t Replay::archive_bytes_read() const {
  return impl_->archive ? impl_->archive->bytes_read() : 0;
}

std::vector<LogPlace> Replay::ends() const {
  std::vector<LogPlace> out;
  for (const auto& source : impl_->sources) {
    const LogRange& range = source->range();
    out.push_back({range.partition, range.log_last, range.log_next});
  }
  return out;
}

ResumeAt Replay::resume_at() const {
  ResumeAt at;
  at.generation = impl_->topic.active;
  for (const auto& source : impl_->sources) {
    at.places[source->range().partition] = impl_->place_of(*source);
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
