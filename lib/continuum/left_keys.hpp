// What a replay to handlers leaves behind: the keys of events that were given up, and how far each partition
// was accepted before them. Private to the library.
#pragma once

#include "continuum/dead_letters.hpp"
#include "continuum/types.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace continuum {

// Over all partitions: a key that has moved by a resize stays behind in its new one, too.
class LeftKeys {
 public:
  static constexpr std::size_t keys_max = 100'000;

  [[nodiscard]] bool empty() const { return keys_.empty(); }
  [[nodiscard]] bool full() const { return keys_.size() >= keys_max; }
  [[nodiscard]] bool has(const HandlerKey& whose) const { return keys_.contains(whose); }

  // The handler gave this event up.
  void hold(HandlerKey whose, Partition partition, Offset offset) {
    keys_.insert(std::move(whose));
    stay_before(partition, offset);
  }
  // A later one of a held key.
  void leave_out(Partition partition, Offset offset) {
    stay_before(partition, offset);
    ++left_out_;
  }
  // Another handler may be done with it: it is not handled by all nevertheless. Kept until closed().
  void not_handled(Partition partition, Offset offset) { not_handled_.emplace(partition, offset); }
  // No handler has anything more to do with it. True when all have handled it.
  bool closed(Partition partition, Offset offset) { return not_handled_.erase({partition, offset}) == 0; }
  [[nodiscard]] std::uint64_t left_out() const { return left_out_; }

  // The first event of the partition that was not accepted.
  void stay_before(Partition partition, Offset offset) {
    const auto [found, inserted] = first_.try_emplace(partition, offset);
    found->second = std::min(found->second, offset);
  }
  [[nodiscard]] std::optional<Offset> first(Partition partition) const {
    const auto found = first_.find(partition);
    return found == first_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  std::set<HandlerKey> keys_;
  std::map<Partition, Offset> first_;
  std::set<std::pair<Partition, Offset>> not_handled_;  // of what is open
  std::uint64_t left_out_ = 0;
};

}  // namespace continuum
