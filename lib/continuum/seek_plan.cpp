#include "continuum/seek_plan.hpp"

#include "continuum/commit.hpp"
#include "continuum/dead_letter_discards.hpp"
#include "continuum/error.hpp"
#include "continuum/group_control.hpp"
#include "continuum/log_range.hpp"
#include "continuum/ring.hpp"
#include "continuum/ring_change.hpp"
#include "continuum/worker.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

namespace continuum {

namespace {

constexpr int entries_at_once = 16;

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

// Which partitions a seek concerns besides those that it moves. A partition that goes back may have new dead
// letters, and whoever gets its keys at a later generation has to take them over: a receiver that has passed
// that generation already would not, and they would be taken for those that it has. So it passes it again.
class Companions {
 public:
  Companions(redis::Session& session, const Topic& topic, std::string_view group)
      : topic_(topic),
        partitions_(topic.partitions()),
        states_(partitions_max),
        letters_from_(partitions_max),
        because_(partitions_max) {
    in_chunks(partitions_, [&](std::span<const Partition> some) {
      const auto states = group_states(session, topic, group, some);
      for (std::size_t i = 0; i < some.size(); ++i) {
        if (states[i]) {
          const GroupState& state = *states[i];
          states_[some[i].value] = {
              state.cursor, std::max(state.passed, state.from),
              std::max({state.passed, state.from, state.reached, state.import.generation})};
        }
      }
    });
  }

  // `still_ours`: called now and then.
  void find(SeekPlan& plan, const std::function<void()>& still_ours) {
    Generation lowest = topic_.active;
    for (const Move& move : plan.moves) {
      letters_from_[move.partition.value] = move.generation;
      lowest = std::min(lowest, move.generation);
    }
    std::optional<Ring> before;
    for (Generation x = lowest + 1; x <= topic_.active; ++x) {
      still_ours();
      const auto earlier = topic_.rings.find(Generation(x.value - 1));
      const auto then = topic_.rings.find(x);
      if (earlier == topic_.rings.end() || then == topic_.rings.end()) {
        before.reset();  // of a resize that was given up, or one that the server lost
        continue;
      }
      Ring after(then->second);
      for (const auto& [to, givers] : donors(before ? *before : Ring(earlier->second), after)) {
        still_ours();
        for (const Partition from : givers) {
          give(x, from, to);
        }
      }
      before = std::move(after);
    }
    for (const Move& move : plan.moves) {
      because_[move.partition.value].reset();
    }
    for (const Partition partition : partitions_) {
      if (const auto because = because_[partition.value]) {
        const State& state = *states_[partition.value];
        Move stay;
        stay.partition = partition;
        stay.from = state.cursor.offset;
        stay.to = state.cursor;
        stay.generation = state.generation;
        stay.because = because;
        plan.staying.push_back(stay);
      }
    }
  }

 private:
  struct State {
    Cursor cursor;
    Generation generation;  // there
    // The last whose barrier others may have seen the group reach here: as long as a seek has it pass its
    // barriers again, somebody who looked before that may still build on it.
    Generation reached;
  };

  // Generation x moves keys from one to the other.
  void give(Generation x, Partition from, Partition to) {
    const auto& giver = states_[from.value];
    const auto& receiver = states_[to.value];
    const auto since = letters_from_[from.value];
    if (!giver || !receiver || !since || *since >= x || std::max(giver->reached, receiver->reached) < x) {
      return;  // where nobody has come to the barrier, all goes as it always does
    }
    auto& letters_from = letters_from_[to.value];
    letters_from = std::min(letters_from.value_or(x), x);
    if (!because_[to.value]) {
      because_[to.value] = from;
    }
  }

  const Topic& topic_;
  const std::vector<Partition> partitions_;
  // By number of the partition:
  std::vector<std::optional<State>> states_;             // where the group is registered
  std::vector<std::optional<Generation>> letters_from_;  // generations in which it may get dead letters
  std::vector<std::optional<Partition>> because_;        // who gives them to it
};

// The letters that are nobody's yet, or were not dropped: reasons to refuse, and what the seek drops.
void look_at_travellers(redis::Session& session, const Topic& topic, std::string_view group, SeekPlan& plan) {
  std::map<Partition, Move*> concerned;
  for (auto* const moves : {&plan.moves, &plan.staying}) {
    for (Move& move : *moves) {
      concerned.emplace(move.partition, &move);
    }
  }
  std::set<Partition> others;
  for (const TravellingLetters& letters : travelling_letters(session, topic, group)) {
    const auto here = concerned.find(letters.here);
    if (letters.counts != LetterPlaces::Counts::left) {
      if (here != concerned.end()) {
        here->second->travels = letters.other;
      }
    } else if (here != concerned.end()) {
      here->second->letters -= std::min(here->second->letters, letters.count);
    } else if (concerned.contains(letters.other)) {
      others.insert(letters.here);
    }
  }
  plan.tidied.assign(others.begin(), others.end());
}

void count_what_stands_against(redis::Session& session, const Topic& topic, std::string_view group,
                               std::vector<Move>& moves) {
  redis::Request request;
  for (const Move& move : moves) {
    request.command("XLEN", dead_key(topic.name, move.partition, group));
    request.command("XLEN", outbox_key(topic.name, move.partition, group));
  }
  if (request.empty()) {
    return;
  }
  const redis::Replies replies = session.call(std::move(request));
  for (std::size_t i = 0; i < moves.size(); ++i) {
    moves[i].letters = replies[2 * i].number();
    moves[i].outputs = replies[2 * i + 1].number();
  }
}

}  // namespace

SeekPlan plan_seek(redis::Session& session, const Topic& topic, std::string_view group,
                   std::span<const Partition> partitions, const SeekTarget& target,
                   const std::function<void()>& still_ours) {
  if (target.to == SeekTarget::To::offsets) {
    for (const Partition partition : partitions) {
      if (!target.offsets.contains(partition)) {
        fail(ErrorKind::usage, "{}: to which offset?", place(topic.name, partition));
      }
    }
  }
  SeekPlan plan;
  SeekPlanner planner(session, topic, group, target);
  in_chunks(partitions, [&](std::span<const Partition> some) { planner.plan(some, plan.moves); });
  // An archive has no letters, and passes barriers as it comes to them.
  if (topic.active > Generation(1) && !plan.moves.empty() && group != archive_group) {
    Companions(session, topic, group).find(plan, still_ours);
    count_what_stands_against(session, topic, group, plan.staying);
    look_at_travellers(session, topic, group, plan);
  }
  return plan;
}

}  // namespace continuum
