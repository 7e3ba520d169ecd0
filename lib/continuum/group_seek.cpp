#include "continuum/group_seek.hpp"

#include "continuum/commit.hpp"
#include "continuum/dead_letter_control.hpp"
#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/group_control.hpp"
#include "continuum/log_range.hpp"
#include "continuum/operator_lease.hpp"
#include "continuum/ring.hpp"
#include "continuum/ring_change.hpp"
#include "continuum/sharing.hpp"

#include <algorithm>
#include <set>
#include <utility>

namespace continuum {

namespace {

constexpr int entries_at_once = 16;

}  // namespace

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
      move.reached = std::max(state->passed, state->import.generation);
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

// Pairs of partitions of which the second got keys of the first, for one generation after the other.
template <class Each>
void for_each_gift(const Topic& topic, Generation after, Each each) {
  for (Generation x = after + 1; x <= topic.active; ++x) {
    const auto before = topic.rings.find(Generation(x.value - 1));
    const auto then = topic.rings.find(x);
    if (before == topic.rings.end() || then == topic.rings.end()) {
      continue;  // of a resize that was given up, or one that the server lost
    }
    for (const auto& [to, givers] : donors(Ring(before->second), Ring(then->second))) {
      for (const Partition from : givers) {
        each(x, from, to);
      }
    }
  }
}

// Fills in Move::along, and takes out of Move::letters what another partition has taken over.
void find_companions(redis::Session& session, const Topic& topic, std::string_view group,
                     std::vector<Move>& moves) {
  std::map<Partition, Move*> moved;
  Generation lowest = topic.active;
  for (Move& move : moves) {
    moved.emplace(move.partition, &move);
    lowest = std::min(lowest, move.generation);
  }
  std::map<Partition, std::set<Partition>> along;
  for (const LettersLeft& left : count_letters_that_left(session, topic, group)) {
    if (const auto here = moved.find(left.here); here != moved.end()) {
      here->second->letters -= std::min(here->second->letters, left.count);
    } else if (moved.contains(left.taken_by)) {
      along[left.taken_by].insert(left.here);
    }
  }
  std::map<Partition, Generation> passed;
  const std::vector<Partition> partitions = topic.partitions();
  if (moved.size() < partitions.size() && lowest < topic.active) {
    const auto states = group_states(session, topic, group, partitions);
    for (std::size_t i = 0; i < partitions.size(); ++i) {
      if (states[i] && !moved.contains(partitions[i])) {
        passed.emplace(partitions[i], states[i]->passed);
      }
    }
    for_each_gift(topic, lowest, [&](Generation x, Partition from, Partition to) {
      const auto here = moved.find(from);
      const auto other = passed.find(to);
      if (here != moved.end() && here->second->generation < x && other != passed.end() &&
          (here->second->reached >= x || other->second >= x)) {
        along[from].insert(to);
      }
    });
  }
  for (const auto& [partition, others] : along) {
    moved.at(partition)->along.assign(others.begin(), others.end());
  }
}

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
  if (topic.active > Generation(1) && !moves.empty()) {
    find_companions(session, topic, group, moves);
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
  const auto apart =
      std::find_if(moves.begin(), moves.end(), [](const Move& move) { return !move.along.empty(); });
  if (apart == moves.end()) {
    return;
  }
  std::set<Partition> together;
  for (const Move& move : moves) {
    together.insert(move.partition);
    together.insert(move.along.begin(), move.along.end());
  }
  const std::vector<Partition> all(together.begin(), together.end());
  fail(ErrorKind::usage,
       "{}: when the ring changed, keys and their dead letters went between this partition and {}. Moved "
       "without "
       "them, dead letters would be lost, or come again. Move them together: -p {}",
       place(topic.name, apart->partition), partition_list(apart->along), partition_list(all));
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

}  // namespace continuum
