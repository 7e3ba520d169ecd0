#include "continuum/group_seek.hpp"

#include "continuum/commit.hpp"
#include "continuum/dead_letter_discards.hpp"
#include "continuum/error.hpp"
#include "continuum/group_control.hpp"
#include "continuum/operator_lease.hpp"

#include <string>
#include <utility>
#include <vector>

namespace continuum {

namespace {

std::string reason_of(const Move& move) {
  return move.because ? fmt::format(
                            "keys of partition {} went to this one when the ring changed, which would "
                            "take their dead letters over again; but ",
                            *move.because)
                      : std::string();
}

void require_movable(const Topic& topic, std::string_view group, const Move& move) {
  if (move.travels) {
    fail(ErrorKind::usage,
         "{}: {}dead letters of group {} are on their way between this partition and {}. Start its workers, "
         "and "
         "try again when both have passed the barrier of the ring: `continuum inspect why -t {} -g {}` says "
         "for "
         "whom they wait",
         place(topic.name, move.partition), reason_of(move), group, *move.travels, topic.name, group);
  }
  if (move.letters > 0) {
    fail(ErrorKind::usage,
         "{}: {}group {} has {} dead letter{} there, whose order a move would break: retry or discard them "
         "first. `continuum dead ls -t {} -g {} -p {}` shows them",
         place(topic.name, move.partition), reason_of(move), group, move.letters,
         move.letters == 1 ? "" : "s", topic.name, group, move.partition);
  }
  if (move.outputs > 0) {
    fail(ErrorKind::usage,
         "{}: {}group {} has emitted events there that are not published yet. Start its worker, which "
         "publishes "
         "them, then try again",
         place(topic.name, move.partition), reason_of(move), group);
  }
}

// Takes the leases of all that the seek concerns, which is known only when it is planned.
SeekPlan plan_under_leases(redis::Session& session, const Topic& topic, std::string_view group,
                           std::span<const Partition> partitions, const SeekTarget& target,
                           OperatorLeases& leases) {
  (void)leases.take_all(partitions);
  std::vector<Partition> ours;
  for (const auto& [partition, acquired] : leases.acquired()) {
    ours.push_back(partition);
  }
  for (;;) {
    SeekPlan plan = plan_seek(session, topic, group, ours, target, [&] { leases.keep(); });
    std::vector<Partition> others = plan.tidied;
    for (const Move& stay : plan.staying) {
      others.push_back(stay.partition);
    }
    std::erase_if(others, [&](Partition partition) { return leases.acquired().contains(partition); });
    if (others.empty()) {
      return plan;
    }
    (void)leases.take_all(others);
  }
}

void run_moves(redis::Session& session, const Topic& topic, std::string_view group, OperatorLeases& leases,
               const std::vector<Move>& moves) {
  redis::Request request;
  for (const Move& move : moves) {
    const GroupKeys keys(topic.name, move.partition, group);
    request.run(redis::Script::seek, {keys.group, keys.log, keys.dead, keys.held, keys.outbox, keys.meta},
                leases.of(move.partition).fence, move.to.offset, move.to.entry.text(), move.generation,
                group);
  }
  if (request.empty()) {
    return;
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
}

}  // namespace

void require_movable(const Topic& topic, std::string_view group, const SeekPlan& plan) {
  for (const auto* const moves : {&plan.moves, &plan.staying}) {
    for (const Move& move : *moves) {
      require_movable(topic, group, move);
    }
  }
}

SeekPlan seek(redis::Session& session, const Topic& topic, std::string_view group,
              std::span<const Partition> partitions, const SeekTarget& target, std::string_view who,
              const std::function<void(const SeekPlan&)>& begins) {
  OperatorLeases leases(session, topic, std::string(group), std::string(who));
  SeekPlan plan = plan_under_leases(session, topic, group, partitions, target, leases);
  // What comes behind a barrier waits for us from here on.
  if (const Topic now = load_topic(session, topic.name);
      now.log_id != topic.log_id || now.active != topic.active) {
    fail(ErrorKind::usage, "topic {} got another ring just now: run it again", topic.name);
  }
  require_movable(topic, group, plan);
  if (begins) {
    begins(plan);
  }
  drop_letters_that_left(session, topic, group, leases);
  leases.renew();
  if (topic.active > Generation(1)) {
    // First all of them pass their barriers again, where they are: whichever of them goes back earlier than
    // the others, nobody takes its letters for those that it has.
    std::vector<Move> here = plan.staying;
    for (Move move : plan.moves) {
      const Acquired& lease = leases.of(move.partition);
      move.to = lease.cursor;
      move.generation = std::max(lease.passed, lease.from);
      here.push_back(move);
    }
    run_moves(session, topic, group, leases, here);
  }
  for (const Move& move : plan.moves) {
    leases.moved(move.partition);
  }
  run_moves(session, topic, group, leases, plan.moves);
  leases.release();
  return plan;
}

}  // namespace continuum
