#include "continuum/group_skip.hpp"

#include "continuum/commit.hpp"
#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/group_control.hpp"
#include "continuum/log_range.hpp"
#include "continuum/operator_lease.hpp"

#include <chrono>
#include <utility>

namespace continuum {

namespace {

constexpr int entries_at_once = 16;
constexpr std::size_t skip_bytes_max = std::size_t{64} << 20;
// Of one commit.
constexpr std::size_t letters_at_once = 256;
constexpr std::size_t letter_bytes_at_once = std::size_t{4} << 20;

}  // namespace

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
    if (state->from > std::max(state->passed, Generation(1))) {
      fail(ErrorKind::usage,
           "{}: since group {} was put there it has not passed the barriers of the ring up to there, behind "
           "which "
           "dead letters of other partitions may come before what is skipped. Start its worker, which passes "
           "them, "
           "then try again",
           place(topic_.name, partition_), group_);
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

}  // namespace continuum
