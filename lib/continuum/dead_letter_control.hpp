// What operators do with dead letters: read them, ask the holder of a partition's lease to handle or discard
// them, or discard them where nobody holds it (G6 in docs/guarantees.md; formats: dead_letters.hpp).
#pragma once

#include "continuum/dead_letters.hpp"
#include "continuum/letter_places.hpp"
#include "continuum/operator_lease.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <chrono>
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

// --- asking the holder of the lease

// Who would do what is asked of a partition.
enum class Attendance : std::uint8_t {
  worker,  // one holds the lease
  nobody,  // the next one will see it
  paused,  // it waits for `group resume`
  halted,  // it waits for a person who passes the event, or mends the handler
};

// Requests and what became of them.
class LetterRequests {
 public:
  LetterRequests(redis::Session& session, const Topic& topic, std::string group);

  // A request takes the place of an earlier one of its key. A key without letters counts as answered. A key
  // that is on its way to another partition is not asked for.
  void ask(const std::map<KeyPlace, LetterRequest>& wanted);

  enum class State : std::uint8_t {
    waiting,
    answered,
    failed_again,
    moved,  // the key went to another partition, or is on its way there, and nothing was done about its
            // letters
  };
  struct Standing {
    State state = State::waiting;
    std::uint64_t letters = 0;  // left
    HeldKey::Failure failure;   // of failed_again
    Partition moved_to;         // of moved
    Attendance attendance = Attendance::worker;
  };
  // Looks once at all that wait. False when none is left for which a worker is there.
  bool look();
  [[nodiscard]] const std::map<KeyPlace, Standing>& standings() const { return standings_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Asked {
    KeyPlace place;
    LetterRequest::What what;
    std::optional<HeldKey::Failure> before;
    Partition at;      // a retry goes along with its key
    Generation since;  // passed there when it was asked
  };
  struct Holder {
    std::string beat;  // with its fence
    std::string come;  // how far: passed, import
    Clock::time_point since;
    Attendance attendance = Attendance::worker;
  };
  void look_at_holders();
  void look_at_keys(std::span<const Asked> keys, std::vector<Asked>& rest);
  void follow(std::vector<Asked>& gone, std::vector<Asked>& rest);
  void give_up_moved();
  void set_moved(const Asked& asked, Partition to, std::uint64_t letters);

  redis::Session& session_;
  const Topic& topic_;
  std::string group_;
  std::vector<Asked> waiting_;
  std::map<KeyPlace, Standing> standings_;
  std::map<Partition, Holder> holders_;
  LetterPlaces places_;
  bool somebody_came_on_ = false;
};

// Letters to be taken away: of each key, and in as many pieces as it takes to leave all others where they
// are.
struct Discards {
  std::map<KeyPlace, std::vector<EntryId>> letters;
  std::map<KeyPlace, std::vector<LetterRequest>> requests;
  std::uint64_t count = 0;
};
// `visit` sees each of them.
[[nodiscard]] Discards collect_discards(redis::Session& session, const Topic& topic, std::string_view group,
                                        const LetterSelection& selection,
                                        const std::function<void(Partition, const DeadLetter&)>& visit);
// Takes the letters of the partitions away whose leases we have; a key without letters is free then. Throws
// Error{fenced} when a lease is lost meanwhile: run again, it goes on.
void discard_letters(redis::Session& session, const Topic& topic, std::string_view group,
                     OperatorLeases& leases, const Discards& discards);

// Letters of keys that another partition has taken over: they are there, and what is here waits to be
// dropped, which the worker does, or who has the leases.
struct LettersLeft {
  Partition here;
  Partition taken_by;
  std::uint64_t count;
};
[[nodiscard]] std::vector<LettersLeft> count_letters_that_left(redis::Session& session, const Topic& topic,
                                                               std::string_view group);
void drop_letters_that_left(redis::Session& session, const Topic& topic, std::string_view group,
                            OperatorLeases& leases);

}  // namespace continuum
