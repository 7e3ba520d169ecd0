// What people ask of the holder of a partition's lease about dead letters: to handle them again, or to
// discard them (G6 in docs/guarantees.md; formats: dead_letters.hpp).
#pragma once

#include "continuum/dead_letter_listing.hpp"
#include "continuum/dead_letters.hpp"
#include "continuum/letter_places.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace continuum {

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

}  // namespace continuum
