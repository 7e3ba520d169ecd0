#include "continuum/group_control.hpp"

#include "continuum/commit.hpp"
#include "continuum/dead_letter_control.hpp"
#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/log_range.hpp"
#include "continuum/names.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

namespace continuum {

namespace {

constexpr std::size_t partitions_at_once = 64;
constexpr int entries_at_once = 16;
constexpr std::size_t skip_bytes_max = std::size_t{64} << 20;
// Of one commit.
constexpr std::size_t letters_at_once = 256;
constexpr std::size_t letter_bytes_at_once = std::size_t{4} << 20;

// Calls `each` for pieces of `partitions` that are small enough for one request.
template <class Each>
void in_chunks(std::span<const Partition> partitions, Each each) {
  for (std::size_t begin = 0; begin < partitions.size(); begin += partitions_at_once) {
    each(partitions.subspan(begin, std::min(partitions_at_once, partitions.size() - begin)));
  }
}

[[noreturn]] void fail_taken_over(const Topic& topic, Partition partition, std::string_view group) {
  fail(ErrorKind::fenced, "{}: a worker took it over from this command for group {}: run it again",
       place(topic.name, partition), group);
}

[[noreturn]] void fail_not_registered(const Topic& topic, Partition partition, std::string_view group) {
  fail(ErrorKind::usage, "{}: group {} is not registered there: it comes with the next start of a worker",
       place(topic.name, partition), group);
}

}  // namespace

void require_group(const Topic& topic, std::string_view group) {
  if (topic.groups.contains(std::string(group))) {
    return;
  }
  std::vector<std::string> known;
  for (const auto& [name, registered] : topic.groups) {
    known.push_back(name);
  }
  fail(ErrorKind::usage, "topic {} has no group {}{}", topic.name, printable(group), hint_of(group, known));
}

std::vector<std::optional<GroupState>> group_states(redis::Session& session, const Topic& topic,
                                                    std::string_view group,
                                                    std::span<const Partition> partitions) {
  std::vector<std::optional<GroupState>> states;
  in_chunks(partitions, [&](std::span<const Partition> some) {
    redis::Request request;
    for (const Partition partition : some) {
      request.command("HGETALL", group_key(topic.name, partition, group));
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      try {
        states.push_back(parse_group(replies[i]));
      } catch (const Error& error) {
        fail(error.kind(), "{}, group {}: {}", place(topic.name, some[i]), group, error.message());
      }
    }
  });
  return states;
}

std::vector<Partition> unregistered(redis::Session& session, const Topic& topic, std::string_view group,
                                    std::span<const Partition> partitions) {
  std::vector<Partition> missing;
  std::vector<Partition> lost;
  in_chunks(partitions, [&](std::span<const Partition> some) {
    constexpr std::size_t each = 3;
    redis::Request request;
    const std::string field = fmt::format("group:{}", group);
    for (const Partition partition : some) {
      // Asked before and after: it may be registered, or forgotten, in between.
      request.command("HEXISTS", meta_key(topic.name, partition), field);
      request.command("EXISTS", group_key(topic.name, partition, group));
      request.command("HEXISTS", meta_key(topic.name, partition), field);
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      if (replies[each * i + 1].integer() == 0) {
        const bool is_lost = replies[each * i].integer() != 0 && replies[each * i + 2].integer() != 0;
        (is_lost ? lost : missing).push_back(some[i]);
      }
    }
  });
  if (!lost.empty()) {
    fail(ErrorKind::loss,
         "{}, group {}: its state is gone{}: was {} deleted or evicted? Nobody knows any more what it has "
         "handled there. A worker that starts registers it anew; until then leave the partition out with "
         "--partition",
         place(topic.name, lost.front()), group,
         lost.size() == 1 ? std::string() : fmt::format(" (and on {} more partitions)", lost.size() - 1),
         group_key(topic.name, lost.front(), group));
  }
  return missing;
}

namespace {

bool is_cut_since(const LogEnds& ends, SystemTime time) {
  const bool is_cut = ends.first() > Offset(0) || !ends.head_loss.empty();
  const auto from = static_cast<std::uint64_t>(std::max<std::int64_t>(0, time.time_since_epoch().count()));
  return is_cut && ends.newest_removed().milliseconds >= from;
}

}  // namespace

std::vector<Partition> cut_since(redis::Session& session, const Topic& topic,
                                 std::span<const Partition> partitions, SystemTime time) {
  std::vector<Partition> cut;
  in_chunks(partitions, [&](std::span<const Partition> some) {
    redis::Request request;
    for (const Partition partition : some) {
      request_ends(request, topic.name, partition);
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      const LogEnds ends = parse_ends(replies[2 * i], replies[2 * i + 1], topic.name, some[i], topic.log_id);
      if (ends.loss.empty() && is_cut_since(ends, time)) {
        cut.push_back(some[i]);
      }
    }
  });
  return cut;
}

std::vector<Partition> set_paused(redis::Session& session, const Topic& topic, std::string_view group,
                                  std::span<const Partition> partitions, std::string_view paused) {
  std::vector<Partition> done;
  in_chunks(partitions, [&](std::span<const Partition> some) {
    redis::Request request;
    for (const Partition partition : some) {
      request.run(redis::Script::pause, {group_key(topic.name, partition, group)}, paused);
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      if (replies[i][0].text() == "OK") {
        done.push_back(some[i]);
      }
    }
  });
  return done;
}

// --- seek

namespace {

class SeekPlanner {
 public:
  SeekPlanner(redis::Session& session, const Topic& topic, std::string_view group, const SeekTarget& target)
      : session_(session), topic_(topic), group_(group), target_(target) {}

  void plan(std::span<const Partition> partitions, std::vector<Move>& out) {
    std::vector<Move> moves;
    std::vector<std::pair<std::size_t, EntryId>> first_entries;  // of which the one before is wanted
    look(partitions, moves, first_entries);
    redis::Request request;
    for (const auto& [at, id] : first_entries) {
      request.command("XREVRANGE", log_key(topic_.name, moves[at].partition), "(" + id.text(), "-", "COUNT",
                      1);
    }
    if (!request.empty()) {
      const redis::Replies replies = session_.call(std::move(request));
      for (std::size_t i = 0; i < first_entries.size(); ++i) {
        Move& move = moves[first_entries[i].first];
        if (replies[i].size() > 0) {
          move.to.entry = parse_entry(replies[i][0], topic_.name, move.partition).id;
        }
      }
    }
    std::move(moves.begin(), moves.end(), std::back_inserter(out));
  }

 private:
  using To = SeekTarget::To;

  // A full server takes no transactions, not even to read. It takes no events either, so that a log and its
  // state agree without one; a trim in between is refused by the seek itself.
  enum class Asking : std::uint8_t { together, one_by_one };

  redis::Replies ask(std::span<const Partition> partitions, Asking asking) {
    redis::Request request;
    for (const Partition partition : partitions) {
      const std::string from =
          target_.to == To::time
              ? std::to_string(std::max<std::int64_t>(0, target_.time.time_since_epoch().count()))
              : std::string("-");
      if (asking == Asking::together) {
        request.command("MULTI");
      }
      request_ends(request, topic_.name, partition);
      request.command("HGETALL", group_key(topic_.name, partition, group_));
      request.command("XLEN", dead_key(topic_.name, partition, group_));
      request.command("XLEN", outbox_key(topic_.name, partition, group_));
      request.command("XRANGE", log_key(topic_.name, partition), from, "+", "COUNT", 1);
      if (asking == Asking::together) {
        request.command("EXEC");
      }
    }
    if (asking == Asking::together) {
      request.keep_errors().keep_full();
    }
    return session_.call(std::move(request));
  }

  void look(std::span<const Partition> partitions, std::vector<Move>& moves,
            std::vector<std::pair<std::size_t, EntryId>>& first_entries) {
    constexpr std::size_t commands = 6;
    constexpr std::size_t each = commands + 2;
    redis::Replies replies = ask(partitions, Asking::together);
    bool is_full = false;
    for (std::size_t i = 0; i < replies.size(); ++i) {
      is_full = is_full || (replies[i].is_error() && replies[i].text().starts_with("OOM"));
    }
    if (is_full) {
      replies = ask(partitions, Asking::one_by_one);
    }
    for (std::size_t i = 0; i < partitions.size(); ++i) {
      if (!is_full && replies[each * i + each - 1].is_error()) {
        fail(ErrorKind::usage, "{}: the server refuses to show it: {}", place(topic_.name, partitions[i]),
             replies[each * i + each - 1].text());
      }
      const auto answers = [&](std::size_t k) {
        return is_full ? replies[commands * i + k] : replies[each * i + each - 1][k];
      };
      const Partition partition = partitions[i];
      const LogEnds ends = parse_ends(answers(0), answers(1), topic_.name, partition, topic_.log_id);
      if (!ends.loss.empty()) {
        throw Error(ErrorKind::loss, ends.loss);
      }
      const auto state = parse_group(answers(2));
      if (!state) {
        if (target_.to == To::offsets) {
          fail_not_registered(topic_, partition, group_);
        }
        continue;
      }
      Move move;
      move.partition = partition;
      move.from = state->cursor.offset;
      move.letters = answers(3).number();
      move.outputs = answers(4).number();
      const redis::Reply found = answers(5);
      const bool by_offset = target_.to == To::offsets;
      const bool at_end = target_.to == To::end || (!by_offset && found.size() == 0);
      if (target_.to == To::time) {
        require_kept(partition, ends);
      }
      if (by_offset && target_.offsets.at(partition) != ends.state.next) {
        const Entry entry = entry_of(partition, target_.offsets.at(partition), ends);
        move.to.offset = target_.offsets.at(partition);
        move.generation = entry.generation;
        first_entries.emplace_back(moves.size(), entry.id);
      } else if (at_end || by_offset) {
        move.to = {ends.state.next, ends.last_id};
        move.generation = ends.state.generation;
      } else {
        const Entry entry = parse_entry(found[0], topic_.name, partition);
        move.to.offset = entry.first;
        // A barrier there is still to be passed.
        move.generation = entry.barrier ? Generation(entry.barrier->value - 1) : entry.generation;
        first_entries.emplace_back(moves.size(), entry.id);
      }
      moves.push_back(move);
    }
  }

  [[nodiscard]] static std::string what_is_kept(const LogEnds& ends) {
    return ends.first() < ends.state.next
               ? fmt::format("Kept are offsets {} to {}, from {} on; --to start goes there", ends.first(),
                             ends.state.next.value - 1, format_time(ends.oldest->time()))
               : fmt::format("Nothing of it is kept; --to end goes to offset {}", ends.state.next);
  }

  // What was removed may be what the time asks for: it is not passed over in silence.
  void require_kept(Partition partition, const LogEnds& ends) const {
    if (is_cut_since(ends, target_.time)) {
      fail(ErrorKind::loss, "{}: events from {} on may have been removed from the log. {}",
           place(topic_.name, partition), format_time(target_.time), what_is_kept(ends));
    }
  }

  // The entry that holds the event at the offset.
  Entry entry_of(Partition partition, Offset offset, const LogEnds& ends) const {
    if (offset > ends.state.next) {
      fail(ErrorKind::usage, "{}: offset {} is not in the log, which has {} to {} (its end)",
           place(topic_.name, partition), offset, ends.first(), ends.state.next);
    }
    if (offset < ends.first()) {
      fail(ErrorKind::loss, "{}: offset {} is no longer kept. {}", place(topic_.name, partition), offset,
           what_is_kept(ends));
    }
    RangeOptions range;
    range.from = offset;
    std::string from = find_ranges(session_, topic_, {partition}, range).front().first;
    for (;;) {
      redis::Request request;
      request.command("XRANGE", log_key(topic_.name, partition), from, "+", "COUNT", entries_at_once);
      const redis::Replies replies = session_.call(std::move(request));
      for (std::size_t i = 0; i < replies[0].size(); ++i) {
        Entry entry = parse_entry(replies[0][i], topic_.name, partition);
        if (entry.next() > offset) {
          entry.frame = {};
          entry.producer = {};
          return entry;
        }
        from = "(" + entry.id.text();
      }
      if (replies[0].size() == 0) {
        fail(ErrorKind::loss, "{}: offset {} is not in the log any more: removed by XDEL or XTRIM?",
             place(topic_.name, partition), offset);
      }
    }
  }

  redis::Session& session_;
  const Topic& topic_;
  std::string_view group_;
  const SeekTarget& target_;
};

}  // namespace

std::vector<Move> plan_seek(redis::Session& session, const Topic& topic, std::string_view group,
                            std::span<const Partition> partitions, const SeekTarget& target) {
  if (target.to == SeekTarget::To::offsets) {
    for (const Partition partition : partitions) {
      if (!target.offsets.contains(partition)) {
        fail(ErrorKind::usage, "{}: to which offset?", place(topic.name, partition));
      }
    }
  }
  std::vector<Move> moves;
  SeekPlanner planner(session, topic, group, target);
  in_chunks(partitions, [&](std::span<const Partition> some) { planner.plan(some, moves); });
  std::vector<Partition> with_letters;
  for (const Move& move : moves) {
    if (move.letters > 0) {
      with_letters.push_back(move.partition);
    }
  }
  if (!with_letters.empty() && topic.active > Generation(1)) {
    const auto left = count_letters_that_left(session, topic, group, with_letters);
    for (Move& move : moves) {
      const auto found = left.find(move.partition);
      move.letters -= found == left.end() ? 0 : std::min(move.letters, found->second);
    }
  }
  return moves;
}

void require_movable(const Topic& topic, std::string_view group, const std::vector<Move>& moves) {
  for (const Move& move : moves) {
    if (move.letters > 0) {
      fail(ErrorKind::usage,
           "{}: group {} has {} dead letter{} there, whose order a move would break: retry or discard them "
           "first. `continuum dead ls -t {} -g {} -p {}` shows them",
           place(topic.name, move.partition), group, move.letters, move.letters == 1 ? "" : "s", topic.name,
           group, move.partition);
    }
    if (move.outputs > 0) {
      fail(ErrorKind::usage,
           "{}: group {} has emitted events there that are not published yet. Start its worker, which "
           "publishes "
           "them, then try again",
           place(topic.name, move.partition), group);
    }
  }
}

std::vector<Move> seek(redis::Session& session, const Topic& topic, std::string_view group,
                       std::span<const Partition> partitions, const SeekTarget& target, std::string_view who,
                       const std::function<void(const std::vector<Move>&)>& begins) {
  OperatorLeases leases(session, topic, std::string(group), std::string(who));
  (void)leases.take_all(partitions);
  std::vector<Partition> ours;
  for (const auto& [partition, acquired] : leases.acquired()) {
    ours.push_back(partition);
  }
  std::vector<Move> moves = plan_seek(session, topic, group, ours, target);
  require_movable(topic, group, moves);
  if (begins) {
    begins(moves);
  }
  drop_letters_that_left(session, topic, group, leases);
  leases.renew();
  redis::Request request;
  for (const Move& move : moves) {
    const GroupKeys keys(topic.name, move.partition, group);
    request.run(redis::Script::seek, {keys.group, keys.log, keys.dead, keys.held, keys.outbox, keys.meta},
                leases.of(move.partition).fence, move.to.offset, move.to.entry.text(), move.generation,
                group);
    leases.moved(move.partition);
  }
  if (request.empty()) {
    return moves;
  }
  const redis::Replies replies = session.call(std::move(request));
  for (std::size_t i = 0; i < moves.size(); ++i) {
    const std::string_view code = replies[i][0].text();
    if (code == "DEAD" || code == "OUTBOX") {
      fail(ErrorKind::usage, "{}: group {} got dead letters or emitted events just now: run it again",
           place(topic.name, moves[i].partition), group);
    }
    if (code == "TRIMMED") {
      fail(ErrorKind::usage, "{}: the log was trimmed up to offset {} just now: run it again",
           place(topic.name, moves[i].partition), replies[i][1].text());
    }
    if (code != "OK") {
      fail_taken_over(topic, moves[i].partition, group);
    }
  }
  leases.release();
  return moves;
}

// --- skip

namespace {

class SkipReader {
 public:
  SkipReader(redis::Session& session, const Topic& topic, std::string_view group, Partition partition)
      : session_(session), topic_(topic), group_(group), partition_(partition) {}

  Skip read(const SkipRange& range) {
    const std::vector<Partition> one{partition_};
    auto state = group_states(session_, topic_, group_, one).front();
    if (!state) {
      fail_not_registered(topic_, partition_, group_);
    }
    Skip skip;
    skip.state = *std::move(state);
    skip.from = skip.state.cursor;
    skip.handler = skip.state.handler.empty() || skip.state.state != "halted" ? std::string(skip_handler)
                                                                              : skip.state.handler;
    if (range.to && *range.to <= skip.from.offset) {
      fail(ErrorKind::usage, "{}: group {} stands at offset {} already: --to must be behind it",
           place(topic_.name, partition_), group_, skip.from.offset);
    }
    const std::uint64_t wanted = range.to ? *range.to - skip.from.offset : range.count;
    if (wanted > skip_events_max) {
      fail(ErrorKind::usage, "{} events are more than the {} that can be skipped at once", wanted,
           skip_events_max);
    }
    collect(skip, wanted);
    return skip;
  }

 private:
  void collect(Skip& skip, std::uint64_t wanted) {
    EntryId before = skip.from.entry;
    Offset next = skip.from.offset;
    while (skip.events.size() < wanted) {
      redis::Request request;
      request.command("XRANGE", log_key(topic_.name, partition_), "(" + before.text(), "+", "COUNT",
                      entries_at_once);
      const redis::Replies replies = session_.call(std::move(request));
      if (replies[0].size() == 0) {
        fail_short(skip, wanted, "the log ends there");
      }
      for (std::size_t i = 0; i < replies[0].size() && skip.events.size() < wanted; ++i) {
        const Entry entry = parse_entry(replies[0][i], topic_.name, partition_);
        if (entry.first > next) {
          fail(ErrorKind::loss, "{}: offsets {} to {} are not in the log any more: removed by XDEL or XTRIM?",
               place(topic_.name, partition_), next, entry.first.value - 1);
        }
        if (entry.barrier) {
          fail_short(skip, wanted,
                     fmt::format("the barrier of generation {} stands there, which only a worker can pass",
                                 *entry.barrier));
        }
        take(skip, entry, before, wanted);
        before = entry.id;
        next = entry.next();
      }
    }
  }

  void take(Skip& skip, const Entry& entry, EntryId before, std::uint64_t wanted) {
    decode_entry(decoder_, entry, topic_.name, partition_, lines_);
    std::string_view rest = lines_;
    for (Offset offset = entry.first; !rest.empty() && skip.events.size() < wanted; ++offset) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(line.size() + 1);
      if (offset < skip.from.offset) {
        continue;
      }
      bytes_ += line.size();
      if (bytes_ > skip_bytes_max) {
        fail(ErrorKind::usage, "the events are too large to be skipped at once: skip {} first",
             skip.events.size());
      }
      skip.events.push_back({offset, std::string(line), {offset + 1, rest.empty() ? entry.id : before}});
    }
  }

  [[noreturn]] void fail_short(const Skip& skip, std::uint64_t wanted, std::string_view why) const {
    if (skip.events.empty()) {
      fail(ErrorKind::usage, "{}: no event stands before group {} at offset {}: {}",
           place(topic_.name, partition_), group_, skip.from.offset, why);
    }
    fail(ErrorKind::usage, "{}: only {} of {} events stand before group {}: {}. Skip {}",
         place(topic_.name, partition_), skip.events.size(), wanted, group_, why, skip.events.size());
  }

  redis::Session& session_;
  const Topic& topic_;
  std::string_view group_;
  Partition partition_;
  FrameDecoder decoder_;
  std::string lines_;
  std::size_t bytes_ = 0;
};

DeadLetter letter_of(const Skip& skip, const Skip::Event& event, std::string_view reason) {
  const bool halted_here = skip.state.state == "halted" && skip.state.at == event.offset;
  std::string scratch;
  DeadLetter letter;
  letter.whose = {skip.handler, std::string(key_of(attributes_of(event.line), scratch))};
  letter.offset = event.offset;
  letter.state = LetterState::skipped;
  letter.attempts = halted_here ? skip.state.attempt : 0;
  letter.time = std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now());
  letter.reason = halted_here && !skip.state.error.empty() ? fmt::format("{}; {}", skip.state.error, reason)
                                                           : std::string(reason);
  letter.event = event.line;
  return letter;
}

}  // namespace

Skip plan_skip(redis::Session& session, const Topic& topic, std::string_view group, Partition partition,
               const SkipRange& range) {
  return SkipReader(session, topic, group, partition).read(range);
}

Skip skip(redis::Session& session, const Topic& topic, std::string_view group, Partition partition,
          const SkipRange& range, std::string_view who, std::string_view reason,
          const std::function<void(const Skip&)>& begins) {
  // What it halted about is told by the state that the lease of ours overwrites.
  const std::vector<Partition> one{partition};
  const auto before = group_states(session, topic, group, one).front();
  OperatorLeases leases(session, topic, std::string(group), std::string(who));
  if (!leases.take_all(one).empty() || !before) {
    fail_not_registered(topic, partition, group);
  }
  Skip skipped = plan_skip(session, topic, group, partition, range);
  if (before->state == "halted" && before->cursor.offset == skipped.from.offset) {
    skipped.state = *before;
    skipped.handler = before->handler.empty() ? skipped.handler : before->handler;
  }
  if (begins) {
    begins(skipped);
  }
  Acquired& lease = leases.of(partition);
  const GroupKeys keys(topic.name, partition, group);
  for (std::size_t at = 0; at < skipped.events.size();) {
    Commit commit{{}, lease.passed, {}, {}, {}};
    std::size_t bytes = 0;
    for (; at < skipped.events.size() && commit.letters.size() < letters_at_once &&
           bytes < letter_bytes_at_once;
         ++at) {
      commit.letters.push_back(letter_of(skipped, skipped.events[at], reason));
      commit.cursor = skipped.events[at].behind;
      bytes += skipped.events[at].line.size();
    }
    redis::Request request;
    request_commit(request, keys, lease.fence, ++lease.number, commit, group);
    const redis::Replies replies = session.call(std::move(request));
    if (parse_commit(replies[0]) != Kept::ok) {
      fail_taken_over(topic, partition, group);
    }
    leases.moved(partition);
  }
  leases.release();
  return skipped;
}

// --- leases

Revoked revoke_lease(redis::Session& session, const Topic& topic, std::string_view group, Partition partition,
                     Fence fence) {
  redis::Request request;
  request.run(redis::Script::revoke, {group_key(topic.name, partition, group)}, fence);
  const redis::Replies replies = session.call(std::move(request));
  const std::string_view code = replies[0][0].text();
  if (code == "OK") {
    return Revoked::yes;
  }
  if (code == "FREE") {
    return Revoked::free;
  }
  return code == "CHANGED" ? Revoked::changed : Revoked::not_registered;
}

// --- forget

std::vector<Remains> remains_of(redis::Session& session, const Topic& topic, std::string_view group) {
  std::vector<Remains> all;
  const std::vector<Partition> partitions = topic.partitions();
  in_chunks(partitions, [&](std::span<const Partition> some) {
    redis::Request request;
    const std::string field = fmt::format("group:{}", group);
    for (const Partition partition : some) {
      request.command("HMGET", meta_key(topic.name, partition), field, "next");
      request.command("HGET", group_key(topic.name, partition, group), "offset");
      request.command("XLEN", dead_key(topic.name, partition, group));
      request.command("XLEN", outbox_key(topic.name, partition, group));
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      const redis::Reply meta = replies[4 * i];
      const redis::Reply offset = replies[4 * i + 1];
      Remains remains{some[i], !meta[0].is_nil() || !offset.is_nil(), 0, replies[4 * i + 2].number(),
                      replies[4 * i + 3].number()};
      if (!offset.is_nil() && !meta[1].is_nil()) {
        remains.lag = meta[1].number() - std::min(meta[1].number(), offset.number());
      }
      all.push_back(remains);
    }
  });
  return all;
}

void forget_group(redis::Session& session, const Topic& topic, std::string_view group, std::string_view who,
                  const std::function<void()>& begins) {
  const std::vector<Partition> partitions = topic.partitions();
  OperatorLeases leases(session, topic, std::string(group), std::string(who));
  (void)leases.take_all(partitions);
  if (begins) {
    begins();
  }
  // First the topic: a worker that starts now finds no group that it could register again.
  unregister_group(session, topic, group);
  leases.renew();
  in_chunks(partitions, [&](std::span<const Partition> some) {
    redis::Request request;
    for (const Partition partition : some) {
      const GroupKeys keys(topic.name, partition, group);
      const auto lease = leases.acquired().find(partition);
      const Fence fence = lease == leases.acquired().end() ? Fence() : lease->second.fence;
      request.run(redis::Script::forget, {keys.group, keys.dead, keys.held, keys.outbox, keys.meta, keys.log},
                  fence, group);
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      if (replies[i][0].text() == "FENCED") {
        fail_taken_over(topic, some[i], group);
      }
    }
  });
}

}  // namespace continuum
