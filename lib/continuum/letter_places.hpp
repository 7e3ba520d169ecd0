// Where a key's dead letters count while the key goes from one partition to another (PROTOCOLS: Barriers).
// For a while they are stored in both: those of the partition that gives the key away stand still from its
// mark on, and count until the one that gets it has passed the barrier. From then on the copies there count,
// and what is not dropped yet at the former does not.
#pragma once

#include "continuum/redis.hpp"
#include "continuum/ring.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

class LetterPlaces {
 public:
  // Nothing is looked at yet. `session` must outlive it.
  LetterPlaces(redis::Session& session, const Topic& topic, std::string group);

  // How far the group has come on each partition, and the rings up to there. Of a generation that the topic
  // does not describe, because the server lost a resize, no letter moves.
  void look();

  enum class Counts : std::uint8_t {
    here,
    leaving,   // here, but nothing can be done about them before `other` has them
    left,      // at `other`; what is here may be dropped
    arriving,  // at `other`, until this partition has passed the barrier
  };
  struct Place {
    Counts counts = Counts::here;
    Partition other;

    [[nodiscard]] bool is_here() const { return counts == Counts::here || counts == Counts::leaving; }
  };
  // Of letters that are stored on `partition`.
  [[nodiscard]] Place of(Partition partition, std::string_view key);

  [[nodiscard]] Generation passed(Partition partition) const { return at(partition).passed; }
  // Others that the key has belonged to in generation `since` or later, the latest first.
  [[nodiscard]] std::vector<Partition> others_since(Generation since, Partition partition,
                                                    std::string_view key);

 private:
  struct State {
    Generation passed;
    Generation import;
  };
  [[nodiscard]] State at(Partition partition) const;
  [[nodiscard]] Partition owner(Generation generation, std::string_view key);
  // It and the one before it.
  [[nodiscard]] bool is_known(Generation x) const;
  // Whether generation x took the key away from `partition`.
  [[nodiscard]] bool takes_away(Generation x, Partition partition, std::string_view key);

  redis::Session& session_;
  Topic topic_;
  std::string group_;
  std::map<Partition, State> states_;
  std::map<Generation, Ring> rings_;
};

}  // namespace continuum
