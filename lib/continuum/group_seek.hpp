// Puts a group's cursor elsewhere, under the leases of all partitions that are concerned; refused while a
// worker has one of them.
#pragma once

#include "continuum/redis.hpp"
#include "continuum/seek_plan.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <functional>
#include <span>
#include <string_view>

namespace continuum {

// Throws Error{usage} naming the partition and the command that helps when some move must not be made.
void require_movable(const Topic& topic, std::string_view group, const SeekPlan& plan);
// Plans again and moves, under the leases, which are given back. Throws Error{fenced} while a worker has one,
// then nothing was moved. It may be killed at any moment and run again; what has happened until then loses no
// dead letter, whoever works the group meanwhile. `begins`: called with what is moved when nothing speaks
// against it any more, directly before.
SeekPlan seek(redis::Session& session, const Topic& topic, std::string_view group,
              std::span<const Partition> partitions, const SeekTarget& target, std::string_view who,
              const std::function<void(const SeekPlan&)>& begins = {});

}  // namespace continuum
