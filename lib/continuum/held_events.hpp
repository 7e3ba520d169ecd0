// The held keys of a group on one partition, as the holder of its lease knows them: which events must be
// parked, which letters are to be handled again, and what of it the next commit has to say (PROTOCOLS: Held
// keys; G6).
//
// The holder is the only one that stores letters, so that it can count them: the server is asked once, when
// the lease is taken, and again when an operator has asked for something.
#pragma once

#include "continuum/commit.hpp"
#include "continuum/dead_letters.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace continuum {

class HeldEvents {
 public:
  using Clock = std::chrono::steady_clock;

  // Of letters that are released, beside one of each key.
  static constexpr std::size_t loaded_max = 1'000;
  static constexpr std::size_t loaded_bytes_max = std::size_t{16} << 20;

  explicit HeldEvents(std::uint64_t letters_max) : letters_max_(letters_max) {}

  // Keys whose letters belong to another partition now, or soon will: they are left alone, whatever an
  // operator asks. Before the first learn(). Empty: there are none.
  void set_frozen(std::function<bool(std::string_view key)> frozen) { frozen_ = std::move(frozen); }
  // Letters of a frozen key, all of them, were taken away by a commit of its own.
  void dropped(const HandlerKey& whose, std::uint64_t letters);

  // What the server has. To be called while no commit is on its way.
  void learn(const HeldKeys& stored);

  // --- events that come

  // Whether a key with this hash (Window::Event) may be held, by whatever handler: the others need not be
  // looked at.
  [[nodiscard]] bool may_hold(std::uint64_t key_hash) const {
    return !keys_.empty() && hashes_.find(key_hash) != hashes_.end();
  }
  enum class Way : std::uint8_t {
    free,  // handle it
    park,  // behind the letters of its key
    wait,  // a moment: its key is being set free
  };
  [[nodiscard]] Way way_of(std::string_view handler, std::string_view key) const;
  // No more letters can be stored: what had to be parked waits, and with it the partition.
  [[nodiscard]] bool full() const { return letters_ + parked_ >= letters_max_; }
  [[nodiscard]] std::uint64_t letters() const { return letters_ + parked_; }
  // Not while full. The letter goes with the commit that passes its event; a failed one holds its key from
  // now on.
  void park(DeadLetter letter);

  // --- letters that are released

  // Letters are wanted that lie behind this entry: read some, in their order, and give them. nullopt: none
  // are wanted.
  [[nodiscard]] std::optional<EntryId> wants_letters_after();
  enum class More : std::uint8_t { yes, no };  // in the stream behind these
  // All that lie behind what wants_letters_after() said, up to `read_up_to`. To be read while no commit is on
  // its way.
  void give(std::vector<DeadLetter> letters, EntryId read_up_to, More more);

  // The next letter of this handler that may be handled; nullptr: none now. It is running from now on. Valid
  // until it is handled or failed.
  [[nodiscard]] const DeadLetter* take(std::string_view handler, Clock::time_point now);
  [[nodiscard]] bool has_ready(std::string_view handler, Clock::time_point now) const;
  // When the next one may be handled that may not be yet `now`.
  [[nodiscard]] std::optional<Clock::time_point> next_due(std::string_view handler,
                                                          Clock::time_point now) const;
  // Something of this handler is still to be handled again, or taken away.
  [[nodiscard]] bool releasing(std::string_view handler) const;
  // Likewise taken away, of any handler.
  [[nodiscard]] bool discarding() const;
  // The letter is the next one of its key, or running.
  [[nodiscard]] bool is_next(const HandlerKey& whose, Offset offset) const;
  void handled(const HandlerKey& whose);
  void retry(const HandlerKey& whose, Clock::time_point due);  // the same letter again
  // In vain: the key is held again, or (skip) its next letter follows.
  enum class Then : std::uint8_t { hold, skip };
  void failed(const HandlerKey& whose, const HeldKey::Failure& failure, Then then);
  [[nodiscard]] std::size_t running() const { return running_; }

  // --- commits

  // Adds what is to be said with a commit of everything before `cursor`. Once taken it is the commit's: a
  // commit that is refused ends the tenure, and with it this object.
  void collect(Commit& commit);
  void committed();
  [[nodiscard]] bool waits_for_commit() const;
  [[nodiscard]] std::size_t parked_bytes() const { return parked_bytes_; }

 private:
  struct Held {
    std::uint64_t letters = 0;  // stored
    std::uint64_t parked = 0;   // not stored yet
    std::uint64_t tried = 0;    // stored letters that this release leaves where they are
    enum class State : std::uint8_t { held, releasing, freeing } state = State::held;
    LetterRequest request;
    bool holds = true;             // false: of skipped events only, whose key is not held
    bool running = false;          // the first of `queue`
    EntryId read_up_to;            // letters of the key up to here are loaded or done
    std::deque<DeadLetter> queue;  // loaded, in order
    Clock::time_point due = Clock::time_point::min();

    // Where it is listed.
    enum class Listed : std::uint8_t { nowhere, ready, wanting, over } listed = Listed::nowhere;
    Clock::time_point listed_due;
    EntryId listed_after;
    bool in_reading = false;  // when wanting
  };
  using Keys = std::map<HandlerKey, Held>;
  using Key = Keys::value_type;  // stays where it is

  Key& add(const HandlerKey& whose);
  // Puts it into the list that it belongs to now. After every change.
  void list(Key& key);
  void unlist(Key& key);
  void start(Key& key, const LetterRequest& request);
  void load(Held& held, DeadLetter letter);
  void unload_front(Held& held);
  // Nothing is left to be done for this release.
  [[nodiscard]] static bool over(const Held& held);
  void settle(Key& key);
  void discard_loaded(Key& key);
  void stop(Key& key);
  void forget(Key& key);
  void take_away(Key& key, LetterStep::What what);
  [[nodiscard]] Key& running(const HandlerKey& whose);
  void begin_reading();

  std::uint64_t letters_max_;
  std::function<bool(std::string_view key)> frozen_;
  Keys keys_;
  std::unordered_map<std::uint64_t, std::uint32_t> hashes_;  // of the keys in keys_, how many have them
  std::set<Key*> releasing_;                                 // and freeing
  // Of those that are releasing, by what they wait for.
  std::map<std::string, std::set<std::pair<Clock::time_point, Key*>>, std::less<>> ready_;  // by handler
  std::set<std::pair<EntryId, Key*>> wanting_;                                              // more letters
  std::set<Key*> over_;                                                                     // the next commit
  std::uint64_t letters_ = 0;  // stored, of all keys
  std::uint64_t parked_ = 0;
  std::size_t parked_bytes_ = 0;
  std::map<Offset, std::vector<DeadLetter>> parked_letters_;  // by their event
  std::vector<LetterStep> steps_;
  std::set<EntryId> taken_;         // by them; the server still has these letters
  std::optional<EntryId> reading_;  // how far it has come
  std::size_t in_reading_ = 0;      // keys that it is for
  std::size_t loaded_ = 0;
  std::size_t loaded_bytes_ = 0;
  std::size_t running_ = 0;
};

}  // namespace continuum
