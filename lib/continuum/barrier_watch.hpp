// What the partitions of one worker ask the server while they stand at barriers: together, and no more often
// than it helps, so that a thousand of them are not a million requests. Private to the library: includes
// Asio.
#pragma once

#include "continuum/async.hpp"
#include "continuum/redis.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace continuum {

class Rings;
struct Shift;

// How far another partition of the group is.
struct Headway {
  Generation passed;
  Generation stands_still;  // what it gives away in this generation, or an earlier one, waits to be copied
  enum class Going : std::uint8_t {
    on,  // as far as is seen: its worker may be dead and not silent for long enough
    paused,
    halted,
    without_worker,  // or it was not heard of for as long as it has the lease
  } going = Going::on;
};

// Who has to come how far before a barrier can be passed.
struct Awaited {
  enum class What : std::uint8_t {
    nothing,
    stands_still,  // those that give keys: their letters can be copied then
    passed,        // those that got keys earlier: they have the letters then, and ours can be dropped
  };
  What what = What::nothing;
  Generation generation;
  std::vector<Partition> owners;  // passed: of those keys, ascending

  // At least one of these has not come yet, when this was made. Ascending; valid as long as this and `rings`.
  [[nodiscard]] const std::vector<Partition>& of(Rings& rings, Partition who) const;
  [[nodiscard]] bool came(const Headway& headway) const {
    return headway.passed >= generation || (what == What::stands_still && headway.stands_still >= generation);
  }
};

// For whom one waits in vain.
struct InVain {
  Partition behind;  // has to come somewhere first
  Partition idle;    // nobody goes on here. It is the same one, or that waits for it, or for one that does
};

class BarrierWatch {
 public:
  explicit BarrierWatch(Shift& shift) : shift_(shift) {}

  // The topic is read, unless it was a moment ago: Shift::saw_topic is told.
  asio::awaitable<void> look_at_topic();
  // Does the rest of a resize whose coordinator seems to be gone, as far as a server that is full takes it.
  asio::awaitable<void> help(Generation generation);

  // What is learned from here on has this number, or a higher one.
  [[nodiscard]] std::uint64_t from_now_on() const { return looks_ + 1; }
  // Those that gave keys to `to` in a generation and have letters of such keys, ascending; nullopt: not all
  // of its donors stand still yet. From what was learned since: a seek makes all of them begin again, and
  // takes the leases of all first.
  asio::awaitable<std::optional<std::vector<Partition>>> donors_with_letters(Generation generation,
                                                                             Partition to,
                                                                             std::uint64_t since);

  // As the server has them now, in the same order.
  [[nodiscard]] asio::awaitable<std::vector<Headway>> look_at(const std::vector<Partition>& partitions);
  // It stands at this barrier, and others have to come somewhere first. After WorkOptions::waiting_told_after
  // that is said, once for each barrier, and for all that wait as long together. A drained run finds out
  // whether it is in vain.
  asio::awaitable<void> waits(Partition partition, Generation barrier, const Awaited& awaited);
  // Of one that waits, by the last two looks.
  [[nodiscard]] std::optional<InVain> in_vain(Partition partition) const;
  void passed(Partition partition);  // its barrier
  void left(Partition partition);    // it is not ours any more

 private:
  // A donor that stands still has the letters that it gives away until they are taken over.
  struct Donor {
    bool wanted = false;
    std::uint64_t learned = 0;         // by which look; 0: it does not stand still yet
    std::vector<Partition> receivers;  // of letters, ascending
  };
  struct Crossing {
    std::vector<Donor> donors;  // by number of their partition
    std::vector<Partition> wanted;
    std::uint64_t since = 0;  // the highest that was asked for
    bool looking = false;
    Clock::time_point look_at{};  // not before
    Milliseconds pause{0};
  };
  // At a barrier.
  struct Waiting {
    Generation barrier;
    std::optional<Clock::time_point> since;  // nothing: it is not ours
    bool told = false;
    Awaited awaited;
    std::optional<InVain> in_vain;  // by the last look
    bool in_vain_before = false;    // by the one before
  };
  // A sign of life of who has a partition's lease.
  struct Sign {
    std::string beat;
    Clock::time_point since;
  };
  struct Scene;
  asio::awaitable<void> tell_who_waits(Generation barrier);
  asio::awaitable<void> look_at_donors(Generation generation, Crossing& crossing);
  asio::awaitable<void> look_at_letters(Generation generation, Crossing& crossing,
                                        const std::vector<Partition>& donors, std::uint64_t look);
  // Of the letters that `donor` gives away in a generation. `held`: HGETALL of its held keys.
  [[nodiscard]] std::vector<Partition> receivers_of(Generation generation, Partition donor,
                                                    redis::Reply held) const;
  [[nodiscard]] bool is_silent(Partition partition, std::string beat, Milliseconds lease);

  // --- in_vain.cpp
  asio::awaitable<void> look_who_goes_on();
  [[nodiscard]] bool is_described(Generation generation) const;
  [[nodiscard]] std::optional<Partition> waits_in_vain_for(const Scene& scene, Partition who,
                                                           const Awaited& awaited) const;
  void spread(Scene& scene) const;
  [[nodiscard]] std::vector<Partition> may_keep_letters(const Scene& scene) const;
  asio::awaitable<void> learn_who_takes_over(Scene& scene, std::vector<Partition> donors);

  // Each may have the keys of thousands of letters.
  static constexpr std::size_t held_read_at_once = 64;
  // Most that is waited for comes sooner. Whoever is about to take a lease has it from one look to the next.
  static constexpr Milliseconds look_who_goes_on_every{1'000};

  Shift& shift_;
  bool looking_ = false;
  Clock::time_point look_at_{};  // not before
  bool helping_ = false;
  bool told_full_ = false;
  std::uint64_t looks_ = 0;
  std::map<Generation, Crossing> crossings_;
  std::map<Partition, Waiting> waiting_;
  std::map<Partition, Sign> signs_;
  bool looking_who_goes_on_ = false;
  Clock::time_point look_who_goes_on_at_{};  // not before
  bool telling_ = false;
  Clock::time_point tell_at_{};  // not before
};

}  // namespace continuum
