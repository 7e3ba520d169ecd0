#include "continuum/restored_log.hpp"

#include "continuum/error.hpp"
#include "continuum/log.hpp"
#include "continuum/names.hpp"

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace continuum {

namespace {

// Of one request.
constexpr std::size_t chunk_bytes_max = 1 << 20;
constexpr std::size_t chunk_entries_max = 512;
// Frames of at least as many bytes of lines were archived as they came (archive_writer.cpp).
constexpr std::size_t whole_from_bytes = 32 << 10;

}  // namespace

// Entries on their way into a log.
struct RestoredLog::Chunk {
  struct Producer {
    Position position;
    std::string digest;
    Offset end;
  };
  std::map<std::pair<std::string, Generation>, Producer> producers;  // by key, behind the last entry
  std::vector<std::string> texts;                                    // as the script takes them
  std::size_t bytes = 0;
  std::size_t entries = 0;
  std::uint64_t events = 0;
  EntryId last;
};

RestoredLog::RestoredLog(const RestoredTopic& topic, Partition partition)
    : topic_(topic),
      session_(topic.session()),
      partition_(partition),
      log_key_(log_key(topic.name(), partition)),
      meta_key_(meta_key(topic.name(), partition)),
      mark_key_(restoring_key(topic.name(), partition)) {}

std::optional<LogEdge> RestoredLog::edge(redis::Reply entries) const {
  if (entries.size() == 0) {
    return std::nullopt;
  }
  const Entry entry = parse_entry(entries[0], topic_.name(), partition_);
  return LogEdge{entry.id, entry.first, entry.next(), entry.generation, entry.barrier.has_value()};
}

std::optional<RestoredEnds> RestoredLog::ends() const {
  redis::Request request;
  request.command("XRANGE", log_key_, "-", "+", "COUNT", 1);
  request.command("XREVRANGE", log_key_, "+", "-", "COUNT", 1);
  const auto replies = session_.call(std::move(request));
  const auto first = edge(replies[0]);
  const auto last = edge(replies[1]);
  if (!first || !last) {
    return std::nullopt;
  }
  return RestoredEnds{*first, *last, newest_of_events(*last)};
}

Generation RestoredLog::newest_of_events(const LogEdge& last) const {
  std::optional<LogEdge> at = last;
  while (at && at->barrier) {
    redis::Request request;
    request.command("XREVRANGE", log_key_, "(" + at->id.text(), "-", "COUNT", 1);
    at = edge(session_.call(std::move(request))[0]);
  }
  return at ? at->generation : Generation(0);
}

RestoredEnds RestoredLog::restore(const std::function<void(std::uint64_t events)>& on_events) {
  redis::Request request;
  request.command("HGET", meta_key_, "id");
  const auto replies = session_.call(std::move(request));
  auto restored = ends();
  if (!replies[0].is_nil() && (replies[0].text() != topic_.log_id() || !restored)) {
    topic_.fail_not_ours(partition_);
  }
  if (replies[0].is_nil()) {
    try {
      claim();
      copy(restored, on_events);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::loss) {
        throw;
      }
      fail_lost(error.message());
    }
  }
  if (!restored) {
    fail(ErrorKind::loss, "{}: its archive has no entries any more", place(topic_.name(), partition_));
  }
  return *restored;
}

void RestoredLog::fail_lost(std::string_view what) const {
  if (topic_.mode() == RestoreMode::dry_run) {
    fail(ErrorKind::loss, "{}. A restore would end there: put a copy of the file in its place", what);
  }
  fail(ErrorKind::loss,
       "{}. Topic {} is restored up to there, and not to be used yet: put a copy of the file in its place "
       "and run this again, or give it up with `continuum topic drop -t {} --yes`",
       what, topic_.name(), topic_.name());
}

// The log of this very restore, begun with an archive that this one does not go on.
void RestoredLog::fail_diverged(const LogEdge& there) const {
  // Unless another run has just finished it: then it may have barriers that no archive has.
  redis::Request request;
  request.command("EXISTS", meta_key_);
  if (session_.call(std::move(request))[0].number() > 0 || !topic_.is_ours()) {
    topic_.fail_changed();
  }
  const Offset end = topic_.source().end(partition_);
  const std::string why =
      end < there.next
          ? fmt::format(
                "is restored up to offset {} already, and this archive ends at offset {}: it is an "
                "older copy than the one that the restore was begun with",
                there.next, end)
          : fmt::format(
                "is restored up to offset {} already, and this archive has other events there: it is "
                "not the one that the restore was begun with",
                there.next);
  fail(ErrorKind::usage,
       "{} {}. Run this with that one; or give up what is restored with `continuum topic drop -t {} --yes`",
       place(topic_.name(), partition_), why, topic_.name());
}

// Marks the partition as one of this restore, unless it is whole. A drop deletes the mark, and what comes
// late then is refused by the scripts, also when there is a topic of that name again.
void RestoredLog::claim() {
  const bool marks = topic_.mode() == RestoreMode::act;
  redis::Request request;
  request.command("EXISTS", meta_key_);
  if (marks) {
    request.command("SET", mark_key_, topic_.log_id(), "NX");
  }
  request.command("GET", mark_key_);
  const auto replies = session_.call(std::move(request));
  const auto mark = replies[replies.size() - 1];
  if (!mark.is_nil() && mark.text() != topic_.log_id()) {
    topic_.fail_not_ours(partition_);
  }
  if (!marks) {
    return;
  }
  // Behind the mark: a drop that begins after this finds it.
  const bool ours = topic_.is_ours();
  if (!ours || replies[0].number() > 0) {
    redis::Request unmark;
    unmark.command("DEL", mark_key_);
    (void)session_.call(std::move(unmark));
  }
  if (!ours) {
    topic_.fail_changed();
  }
}

namespace {

void extend(std::optional<RestoredEnds>& ends, const ArchivedEntry& entry) {
  const LogEdge edge{entry.id, entry.first, entry.next(), entry.generation, entry.barrier()};
  if (!ends) {
    ends = RestoredEnds{edge, edge, Generation(0)};
  }
  ends->last = edge;
  if (!edge.barrier) {
    ends->events = edge.generation;
  }
}

}  // namespace

// `ends`: of what is there, and then of what is there with the copies.
void RestoredLog::copy(std::optional<RestoredEnds>& ends,
                       const std::function<void(std::uint64_t events)>& on_events) {
  const RestoreSource& source = topic_.source();
  const std::optional<LogEdge> there = ends ? std::optional(ends->last) : std::nullopt;
  const auto reader = source.read(partition_, there ? std::optional(there->first) : std::nullopt);
  EntryId last = there ? there->id : EntryId{};
  bool met = !there;  // the entry that the log ends with
  std::uint64_t copied = 0;
  Chunk chunk;
  const auto flush = [&] {
    copied += chunk.events;
    last = store(std::exchange(chunk, {}), last);
    on_events(copied);
  };
  while (const auto entry = reader->next()) {
    if (entry->id <= last) {
      met = met || (entry->id == last && entry->next() == there->next);
      continue;
    }
    if (!met) {
      break;
    }
    if (ends && entry->first != ends->last.next) {
      fail(ErrorKind::loss, "{}: offset {} comes where offset {} was expected",
           place(source.topic().name, partition_), entry->first, ends->last.next);
    }
    source.require_generation(partition_, *entry);
    add(chunk, *entry);
    extend(ends, *entry);
    if (chunk.bytes >= chunk_bytes_max || chunk.entries >= chunk_entries_max) {
      flush();
    }
  }
  if (!met) {
    fail_diverged(*there);
  }
  if (chunk.entries > 0) {
    flush();
  }
}

void RestoredLog::add(Chunk& chunk, const ArchivedEntry& entry) {
  auto& texts = chunk.texts;
  texts.push_back(entry.id.text());
  const std::size_t count_at = texts.size();
  texts.emplace_back();
  const auto field = [&](std::string_view name, std::string_view value) {
    texts.emplace_back(name);
    texts.emplace_back(value);
  };
  if (entry.barrier()) {
    field("barrier", fmt::to_string(entry.generation.value));
    field("o", fmt::to_string(entry.first.value));
  } else {
    field("n", fmt::to_string(entry.events));
    field("o", fmt::to_string(entry.first.value));
    field("g", fmt::to_string(entry.generation.value));
    if (!entry.producer.empty()) {
      field("p", entry.producer);
      field("l", fmt::to_string(entry.position.value));
      field("d", entry.digest);
      chunk.producers[{producer_key(topic_.name(), partition_, entry.producer), entry.generation}] = {
          entry.position, std::string(entry.digest), entry.next()};
    }
    add_frame(texts, entry);
  }
  chunk.bytes += texts.back().size();
  texts[count_at] = std::to_string(texts.size() - count_at - 1);
  chunk.last = entry.id;
  chunk.events += entry.events;
  ++chunk.entries;
}

// As the topic's setting says; what was archived as it came goes back as it is.
void RestoredLog::add_frame(std::vector<std::string>& texts, const ArchivedEntry& entry) {
  const bool compresses = topic_.source().topic().settings.frames == Frames::automatic;
  if (compresses && !entry.frame.empty() && entry.lines.size() >= whole_from_bytes) {
    texts.emplace_back("z");
    texts.emplace_back(entry.frame);
    return;
  }
  const auto encoded =
      encoder_.encode(entry.lines, entry.events, compresses ? Frames::automatic : Frames::plain);
  texts.emplace_back(encoded.encoding == Encoding::zstd ? "z" : "e");
  texts.emplace_back(encoded.bytes);
}

// Returns the id that the log ends with then.
EntryId RestoredLog::store(Chunk chunk, const EntryId& last) {
  if (topic_.mode() == RestoreMode::dry_run) {
    return chunk.last;
  }
  std::vector<std::string> keys{log_key_, meta_key_, mark_key_};
  std::vector<std::string> state{topic_.log_id(), last.text()};
  for (const auto& [whose, producer] : chunk.producers) {
    keys.push_back(whose.first);
    state.insert(state.end(), {fmt::to_string(whose.second.value), fmt::to_string(producer.position.value),
                               producer.digest, fmt::to_string(producer.end.value)});
  }
  std::vector<std::string_view> args(state.begin(), state.end());
  args.insert(args.end(), chunk.texts.begin(), chunk.texts.end());
  redis::Request request;
  request.script(redis::Script::restore, std::vector<std::string_view>(keys.begin(), keys.end()), args);
  const auto replies = session_.call(std::move(request));
  const auto answer = replies[0];
  // MOVED to where we are: an answer was lost, and the request sent again.
  if (answer[0].text() != "OK" && !(answer[0].text() == "MOVED" && answer[1].text() == chunk.last.text())) {
    topic_.fail_changed();
  }
  return chunk.last;
}

void RestoredLog::make_whole(const RestoredEnds& ends, Generation born) {
  const auto& [first, last, events] = ends;
  // The last barrier that is not in the log any more; its archive may begin behind it.
  Generation trimmed = first.generation;
  if (first.barrier) {
    trimmed = first.generation == born ? Generation(0) : Generation(first.generation.value - 1);
  }
  const bool is_whole = first.first == Offset(0) && trimmed == Generation(0);
  redis::Request request;
  request.run(redis::Script::restored, {log_key_, meta_key_, mark_key_}, last.id.text(), topic_.log_id(),
              last.generation, born, last.next, trimmed,
              is_whole ? std::string() : fmt::to_string(first.first.value), first.id.before().text());
  require_whole(session_.call(std::move(request))[0][0].text());
}

void RestoredLog::make_empty(Generation born) {
  claim();
  redis::Request request;
  request.run(redis::Script::restored, {log_key_, meta_key_, mark_key_}, EntryId{}.text(), topic_.log_id(),
              born, born, Offset(0), Generation(0), std::string(), std::string());
  require_whole(session_.call(std::move(request))[0][0].text());
}

void RestoredLog::require_whole(std::string_view answer) const {
  if (answer != "OK" && answer != "WHOLE") {
    topic_.fail_changed();
  }
}

}  // namespace continuum
