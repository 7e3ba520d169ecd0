// Which dead letters there are, as people want to know it (G6 in docs/guarantees.md; formats:
// dead_letters.hpp).
#pragma once

#include "continuum/dead_letters.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// Which letters. All that are given have to match.
struct LetterSelection {
  std::vector<Partition> partitions;  // empty: all
  std::optional<std::string> handler;
  std::optional<std::string> key;
  std::optional<std::string> event_id;
  std::optional<std::string> reason;  // a glob; matches no event that waits behind another

  [[nodiscard]] bool matches_keys_only() const { return !event_id && !reason; }
  [[nodiscard]] bool matches(const HandlerKey& whose) const;
  [[nodiscard]] bool matches(const DeadLetter& letter) const;
};

// A key of a handler on a partition: what is held, asked for and released as a whole.
struct KeyPlace {
  Partition partition;
  HandlerKey whose;
  friend auto operator<=>(const KeyPlace&, const KeyPlace&) = default;
};

// The held keys of each partition, ascending, also of those that have none. A key that is on its way to
// another partition is only where its letters count (letter_places.hpp).
struct HeldOnPartition {
  Partition partition;
  HeldKeys held;
  std::vector<HeldKey> copies = {};  // those that count at another partition
};
[[nodiscard]] std::vector<HeldOnPartition> held_keys(redis::Session& session, const Topic& topic,
                                                     std::string_view group,
                                                     std::span<const Partition> partitions);

// Calls `visit` for each letter that is stored on the partition, in order, copies that count elsewhere too.
void read_letters(redis::Session& session, const Topic& topic, Partition partition, std::string_view group,
                  const std::function<void(const DeadLetter&)>& visit);

// Calls `visit` for each letter that matches, by partition, then in the order in which they were stored,
// which is that of each key. Letters that are stored meanwhile may be seen. Returns how many matched.
std::uint64_t for_each_letter(redis::Session& session, const Topic& topic, std::string_view group,
                              const LetterSelection& selection,
                              const std::function<void(Partition, const DeadLetter&)>& visit);

// --- a summary: why, and then whose

struct LetterSummary {
  struct Reason {
    std::string handler;
    std::string reason;         // of the first letter of a key; one for all beyond the first thousand
    std::uint64_t failed = 0;   // letters that failed
    std::uint64_t behind = 0;   // that wait behind them
    std::uint64_t skipped = 0;  // whose keys went on
    std::uint64_t keys = 0;
    SystemTime oldest{};
  };
  struct Key {
    KeyPlace place;
    std::uint64_t letters = 0;
    Offset first;
    std::uint32_t attempts = 0;  // of the first letter
    SystemTime since{};
    std::string reason;
    HeldKey held;  // request, last failed release
  };
  std::vector<Reason> reasons;  // most letters first
  std::vector<Key> keys;        // most letters first
  std::uint64_t letters = 0;
};
[[nodiscard]] LetterSummary summarize_letters(redis::Session& session, const Topic& topic,
                                              std::string_view group, const LetterSelection& selection);

}  // namespace continuum
