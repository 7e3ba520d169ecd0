// Taking dead letters away under the leases of their partitions: because somebody does not want them, or
// because they are copies that another partition has taken over.
#pragma once

#include "continuum/dead_letter_listing.hpp"
#include "continuum/dead_letters.hpp"
#include "continuum/letter_places.hpp"
#include "continuum/operator_lease.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <string_view>
#include <vector>

namespace continuum {

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

// Letters of keys that go, or went, from one partition to another (letter_places.hpp).
struct TravellingLetters {
  Partition here;
  Partition other;
  LetterPlaces::Counts counts;  // not `here`
  std::uint64_t count;
};
[[nodiscard]] std::vector<TravellingLetters> travelling_letters(redis::Session& session, const Topic& topic,
                                                                std::string_view group);
// Drops those that others have taken over, as the worker of the partition does, under the leases that we
// have.
void drop_letters_that_left(redis::Session& session, const Topic& topic, std::string_view group,
                            OperatorLeases& leases);

}  // namespace continuum
