#include "continuum/topic_copy.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/log.hpp"
#include "continuum/names.hpp"
#include "continuum/resize.hpp"
#include "continuum/ring.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace continuum {

namespace {

constexpr std::size_t frame_bytes = 192 << 10;  // of events before compression
constexpr std::size_t unflushed_bytes_max = std::size_t{4} << 20;
constexpr Milliseconds generation_poll{100};
constexpr Milliseconds resize_patience{60'000};
constexpr std::uint32_t refusals_max = 10;
// In the place of a digest: positions say by themselves what is stored, as with publish --position.
constexpr std::string_view by_position = "position";

// Events that go into one entry.
struct Batch {
  std::string lines;
  std::vector<Position> positions;
};

// What of one partition of the source goes to one of the target.
using Lane = std::vector<Batch>;

// One partition of the source.
struct SourcePartition {
  Partition partition;
  std::string producer;
  // What the target says that it has: by generation and partition.
  std::map<Generation, std::map<Partition, Position>> stored;
  std::map<Partition, Lane> lanes;
};

}  // namespace

struct TopicCopy::Impl {
  Impl(redis::Session& s, Topic t, const Topic& source, std::string_view id)
      : session(s), target(std::move(t)), source_name(source.name) {
    if (target.log_id == source.log_id) {
      fail(ErrorKind::usage, "topic {} cannot be replayed to itself", source.name);
    }
    prefix = fmt::format("~replay/{}/{}", source.name, source.log_id);
    name = fmt::format("{:016x}", XXH3_64bits(id.data(), id.size()));
    copied.topic = target.name;
    copied.log_id = target.log_id;
  }

  // --- what the target has

  void take_over() {
    redis::Request request;
    request.run(redis::Script::epoch, {topic_key(target.name)}, target.log_id,
                fmt::format("{}/{}", prefix, name));
    const redis::Replies replies = session.call(std::move(request));
    if (replies[0][0].text() != "OK") {
      no_log();
    }
    epoch = replies[0][1].number();
  }

  SourcePartition& source_of(Partition partition) {
    const auto [at, is_new] = sources.try_emplace(partition);
    if (is_new) {
      at->second.partition = partition;
      open(partition, at->second);
    }
    return at->second;
  }

  void open(Partition partition, SourcePartition& from) {
    if (!epoch) {
      take_over();
    }
    from.producer = fmt::format("{}/{}/{}", prefix, partition, name);
    const auto partitions = target.partitions();
    redis::Request request;
    for (const Partition to : partitions) {
      request.run(redis::Script::open,
                  {meta_key(target.name, to), producer_key(target.name, to, from.producer)}, target.log_id,
                  *epoch);
    }
    const redis::Replies replies = session.call(std::move(request));
    from.stored.clear();
    for (std::size_t i = 0; i < partitions.size(); ++i) {
      if (const auto code = replies[i][0].text(); code != "OK") {
        code == "FENCED" ? fenced() : no_log();
      }
      read_positions(from, partitions[i], replies[i][1]);
    }
  }

  void read_positions(SourcePartition& from, Partition to, redis::Reply fields) const {
    for (Generation g(1); g <= target.active; ++g) {
      const auto text = fields.field(fmt::format("pos.{}", g));
      if (!text) {
        continue;
      }
      std::uint64_t position = 0;
      const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), position);
      if (error != std::errc() || end != text->data() + text->size()) {
        fail(ErrorKind::loss, "{}: the state of the producer {} is damaged", place(target.name, to),
             from.producer);
      }
      from.stored[g][to] = Position(position);
    }
  }

  // The partition that has it.
  [[nodiscard]] std::optional<Partition> stored_in(const SourcePartition& from, std::string_view key,
                                                   Position position) {
    for (const auto& [in, positions] : from.stored) {
      const auto found = positions.find(ring(in).owner(key));
      if (found != positions.end() && position <= found->second) {
        return found->first;
      }
    }
    return std::nullopt;
  }

  void confirmed(const SourcePartition& from, Partition to, Position position) {
    Position& last = copied.positions[{from.partition, to}];
    last = std::max(last, position);
  }

  void go_on(const CopiedTo& before) {
    if (before.topic.empty()) {
      return;
    }
    if (before.topic != target.name) {
      fail(ErrorKind::usage,
           "the runs before this one stored in topic {}, and this one would in {}: use another cursor for "
           "that",
           before.topic, target.name);
    }
    if (before.log_id != target.log_id) {
      no_log();
    }
    copied = before;
    for (const auto& [places, position] : before.positions) {
      (void)source_of(places.first);
    }
    for (const auto& [partition, from] : sources) {
      require_confirmed(from);
    }
  }

  // Throws Error{loss} for a generation that the topic does not describe.
  const Ring& ring(Generation of) {
    if (const auto found = rings.find(of); found != rings.end()) {
      return found->second;
    }
    const auto description = target.rings.find(of);
    if (description == target.rings.end()) {
      fail(ErrorKind::loss, "topic {} does not describe generation {} of its ring", target.name, of);
    }
    return rings.try_emplace(of, description->second).first->second;
  }

  // --- taking events

  void give(const EventRun& run) {
    if (run.generation != generation) {
      flush();
      generation = run.generation;
    }
    SourcePartition& from = source_of(run.partition);
    std::string_view rest = run.lines;
    for (Offset offset = run.first; !rest.empty(); ++offset) {
      const std::string_view line = rest.substr(0, rest.find('\n') + 1);
      rest.remove_prefix(line.size());
      if (line.size() > target.settings.event_bytes_max + 1) {
        fail(ErrorKind::usage,
             "{}, offset {}: the event has {} bytes, and topic {} takes at most {}: `continuum topic set -t "
             "{} "
             "event_bytes_max=SIZE`",
             place(source_name, run.partition), offset, line.size() - 1, target.name,
             target.settings.event_bytes_max, target.name);
      }
      // Positions begin at 1.
      add(from, line, Position(offset.value + 1));
    }
    if (unflushed_bytes >= unflushed_bytes_max) {
      flush();
    }
  }

  void add(SourcePartition& from, std::string_view line, Position position) {
    const std::string_view key = key_of(attributes_of(line.substr(0, line.size() - 1)), scratch);
    if (const auto in = stored_in(from, key, position)) {
      confirmed(from, *in, position);
      ++duplicates;
      return;
    }
    Lane& lane = from.lanes[ring(target.active).owner(key)];
    const bool single = target.settings.frames == Frames::single;
    if (lane.empty() || single || lane.back().lines.size() >= frame_bytes) {
      lane.emplace_back();
    }
    lane.back().lines.append(line);
    lane.back().positions.push_back(position);
    unflushed_bytes += line.size();
  }

  // --- storing

  struct Sent {
    SourcePartition* from;
    Partition to;
    Lane* lane;
    std::size_t batch;
  };

  void flush() {
    std::uint32_t refusals = 0;
    while (unflushed_bytes > 0) {
      std::vector<Sent> sent;
      const redis::Replies replies = session.call(request_appends(sent));
      if (acknowledged(replies, sent)) {
        unflushed_bytes = 0;
        return;
      }
      if (++refusals > refusals_max) {
        fail(ErrorKind::loss,
             "topic {} refuses to go on from where it says that it stands: does another program write as a "
             "producer {}/…?",
             target.name, prefix);
      }
      begin_again();
    }
  }

  redis::Request request_appends(std::vector<Sent>& sent) {
    redis::Request request;
    for (auto& [partition, from] : sources) {
      for (auto& [to, lane] : from.lanes) {
        Position before = from.stored[target.active][to];
        for (std::size_t i = 0; i < lane.size(); ++i) {
          const Batch& batch = lane[i];
          const auto events = static_cast<std::uint32_t>(batch.positions.size());
          const auto encoded = encoder.encode(batch.lines, events, target.settings.frames);
          request.run(redis::Script::append,
                      {log_key(target.name, to), meta_key(target.name, to),
                       producer_key(target.name, to, from.producer)},
                      target.log_id, target.active, "named", *epoch, before, batch.positions.back(),
                      by_position, events, encoded.encoding == Encoding::plain ? "e" : "z", encoded.bytes,
                      from.producer);
          sent.push_back({&from, to, &lane, i});
          before = batch.positions.back();
        }
      }
    }
    return request;
  }

  // Takes away what is stored, also when some of it is refused. False when the target has to be asked where
  // it stands.
  bool acknowledged(const redis::Replies& replies, const std::vector<Sent>& sent) {
    const Sent* refused = nullptr;
    std::string refusal;
    bool all = true;
    for (std::size_t i = 0; i < sent.size(); ++i) {
      const std::string_view code = replies[i][0].text();
      Batch& batch = (*sent[i].lane)[sent[i].batch];
      // A duplicate was stored by ourselves: its answer was lost with a connection.
      if (code == "OK" || code == "DUPLICATE") {
        stored += batch.positions.size();
        confirmed(*sent[i].from, sent[i].to, batch.positions.back());
        sent[i].from->stored[target.active][sent[i].to] = batch.positions.back();
        unflushed_bytes -= batch.lines.size();
        batch = {};
        continue;
      }
      all = false;
      if (code == "STALE") {
        told = std::max(told, Generation(static_cast<Generation::rep>(replies[i][1].number())));
      } else if (code == "GAP" || code == "UNKNOWN") {
        // Below what was confirmed: begin_again() finds that.
      } else if (refused == nullptr) {
        refused = &sent[i];
        refusal = code;
      }
    }
    for (const Sent& one : sent) {
      std::erase_if(*one.lane, [](const Batch& batch) { return batch.positions.empty(); });
    }
    if (refused != nullptr) {
      refuse(refusal, refused->to);
    }
    return all;
  }

  [[noreturn]] void refuse(std::string_view code, Partition to) const {
    if (code == "FENCED") {
      fenced();
    }
    if (code == "NOLOG") {
      no_log();
    }
    if (code == "BEHIND") {
      fail(ErrorKind::loss,
           "{}: the partition is at an older ring than the topic: the server lost a resize; see {}",
           place(target.name, to), lost_resize_section);
    }
    fail(ErrorKind::server,
         "{}: the server answered \"{}\" to append, which this version does not understand",
         place(target.name, to), printable(code.substr(0, 40)));
  }

  // Learns where the target stands, and routes what is not stored once more.
  void begin_again() {
    wait_for_generation();
    rings.clear();
    for (auto& [partition, from] : sources) {
      open(partition, from);
      require_confirmed(from);
      // Lanes part differently in another ring, and within each the positions must rise.
      const auto lanes = std::exchange(from.lanes, {});
      std::map<Position, std::string_view> unstored;
      for (const auto& [to, lane] : lanes) {
        for (const Batch& batch : lane) {
          std::string_view rest = batch.lines;
          for (const Position position : batch.positions) {
            unstored[position] = rest.substr(0, rest.find('\n') + 1);
            rest.remove_prefix(unstored[position].size());
          }
        }
      }
      for (const auto& [position, line] : unstored) {
        unflushed_bytes -= line.size();
        add_again(from, line, position);
      }
    }
  }

  // What an append of ours stored whose answer was an error of another one counts as stored, not as a
  // duplicate.
  void add_again(SourcePartition& from, std::string_view line, Position position) {
    const std::uint64_t before = duplicates;
    add(from, line, position);
    stored += duplicates - before;
    duplicates = before;
  }

  void require_confirmed(const SourcePartition& from) const {
    for (auto at = copied.positions.lower_bound({from.partition, Partition(0)});
         at != copied.positions.end() && at->first.first == from.partition; ++at) {
      const auto& [places, position] = *at;
      Position has;
      for (const auto& [in, positions] : from.stored) {
        const auto found = positions.find(places.second);
        has = found == positions.end() ? has : std::max(has, found->second);
      }
      if (has < position) {
        fail(ErrorKind::loss,
             "{} lost events of {}: it had confirmed what is placed there of {} up to offset {}, and no "
             "longer "
             "has what comes from offset {} on. The same replay, run again from its start, stores them again "
             "(one with a cursor: all of them, once its cursor is removed)",
             session.address().text(), place(target.name, places.second), place(source_name, places.first),
             position.value - 1, has.value);
      }
    }
  }

  void wait_for_generation() {
    const auto until = std::chrono::steady_clock::now() + resize_patience;
    for (;;) {
      Topic topic = load_topic(session, target.name);
      if (topic.log_id != target.log_id) {
        no_log();
      }
      if (topic.active >= told) {
        target = std::move(topic);
        return;
      }
      if (std::chrono::steady_clock::now() >= until) {
        fail(ErrorKind::server, "topic {} is being resized, and does not come to an end: run it again",
             target.name);
      }
      std::this_thread::sleep_for(generation_poll);
    }
  }

  [[noreturn]] void fenced() const {
    fail(ErrorKind::fenced, "another run of the same replay of topic {} to topic {} has taken over",
         source_name, target.name);
  }

  [[noreturn]] void no_log() const {
    fail(ErrorKind::loss,
         "the log of topic {} is gone from {}, or is another one: was it dropped, flushed, or restarted "
         "empty?",
         target.name, session.address().text());
  }

  redis::Session& session;
  Topic target;
  const std::string source_name;
  std::string prefix;  // of the producers
  std::string name;    // of what is replayed
  std::optional<std::uint64_t> epoch;
  Generation generation;  // of the source
  Generation told;        // of the target
  std::map<Generation, Ring> rings;
  std::map<Partition, SourcePartition> sources;
  CopiedTo copied;
  FrameEncoder encoder;
  std::string scratch;
  std::size_t unflushed_bytes = 0;
  std::uint64_t stored = 0;
  std::uint64_t duplicates = 0;
};

TopicCopy::TopicCopy(redis::Session& session, Topic target, const Topic& source, std::string_view identity)
    : impl_(std::make_unique<Impl>(session, std::move(target), source, identity)) {}

TopicCopy::~TopicCopy() = default;

void TopicCopy::go_on(const CopiedTo& before) {
  impl_->go_on(before);
}

void TopicCopy::give(const EventRun& run) {
  impl_->give(run);
}

void TopicCopy::flush() {
  impl_->flush();
}

const CopiedTo& TopicCopy::copied() const {
  return impl_->copied;
}

std::uint64_t TopicCopy::stored() const {
  return impl_->stored;
}

std::uint64_t TopicCopy::duplicates() const {
  return impl_->duplicates;
}

}  // namespace continuum
