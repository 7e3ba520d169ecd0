// Puts a group's cursor elsewhere, under the leases of all partitions that are moved; refused while a worker
// has one of them.
#pragma once

#include "continuum/lease.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <functional>
#include <map>
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
  Generation reached;         // the group has come to its barrier, or passed it
  std::uint64_t letters = 0;  // a reason to refuse; without copies that another partition has taken over
  std::uint64_t outputs = 0;  // emitted and not published yet: another one
  // A third: partitions that have to be moved along. Some generation of the ring moved keys between this one
  // and each of them, with their dead letters. What became a letter here after a return to before it would be
  // taken for one that the other has; and what is left here of those that it has would come to it again when
  // it alone returned.
  std::vector<Partition> along = {};
};

// Where a seek would go, as things stand: partitions without the group are left out. Throws Error{usage} for
// an offset behind the end of the log or a partition without one, and Error{loss} for a log that is gone and
// for what is no longer kept, with what is.
[[nodiscard]] std::vector<Move> plan_seek(redis::Session& session, const Topic& topic, std::string_view group,
                                          std::span<const Partition> partitions, const SeekTarget& target);
// Throws Error{usage} naming the partition and the command that helps when some move must not be made.
void require_movable(const Topic& topic, std::string_view group, const std::vector<Move>& moves);
// Plans again and moves, under the leases, which are given back. Throws Error{fenced} while a worker has one,
// then nothing was moved. It may be killed at any moment and run again. `begins`: called with what is moved
// when nothing speaks against it any more, directly before.
std::vector<Move> seek(redis::Session& session, const Topic& topic, std::string_view group,
                       std::span<const Partition> partitions, const SeekTarget& target, std::string_view who,
                       const std::function<void(const std::vector<Move>&)>& begins = {});

}  // namespace continuum
