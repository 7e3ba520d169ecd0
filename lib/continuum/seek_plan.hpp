// Where a seek would put a group, and what else it concerns.
#pragma once

#include "continuum/lease.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace continuum {

// Those of the partitions from whose logs events may have been removed that were stored at the time or later.
[[nodiscard]] std::vector<Partition> cut_since(redis::Session& session, const Topic& topic,
                                               std::span<const Partition> partitions, SystemTime time);

struct SeekTarget {
  enum class To : std::uint8_t { start, end, offsets, time } to = To::end;
  std::map<Partition, Offset> offsets;  // of each partition that is moved
  SystemTime time{};                    // the first event that was stored then or later
};

struct Move {
  Partition partition;
  Offset from;
  Cursor to;
  Generation generation;      // in force there
  std::uint64_t letters = 0;  // a reason to refuse; without copies that another partition has taken over
  std::uint64_t outputs = 0;  // emitted and not published yet: another one
  // A third: letters go between this partition and that one, and count at one of them only for now.
  std::optional<Partition> travels = {};
  std::optional<Partition> because = {};  // of one that stays: of a partition that gives it keys
};

struct SeekPlan {
  std::vector<Move> moves;
  // Partitions that stay where they are, and pass the barriers up to there once more: the ring moved keys
  // from one of the others to them, which may have new dead letters of those keys when it has gone back.
  std::vector<Move> staying;
  // Others that have letters still which one of these took over, and would take over again: they are dropped.
  std::vector<Partition> tidied;
};

// As things stand; partitions without the group are left out. Throws Error{usage} for an offset behind the
// end of the log or a partition without one, and Error{loss} for a log that is gone and for what is no longer
// kept, with what is. `still_ours` is called now and then.
[[nodiscard]] SeekPlan plan_seek(
    redis::Session& session, const Topic& topic, std::string_view group,
    std::span<const Partition> partitions, const SeekTarget& target,
    const std::function<void()>& still_ours = [] {});

}  // namespace continuum
