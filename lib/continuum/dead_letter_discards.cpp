#include "continuum/dead_letter_discards.hpp"

#include "continuum/commit.hpp"
#include "continuum/error.hpp"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

namespace continuum {

Discards collect_discards(redis::Session& session, const Topic& topic, std::string_view group,
                          const LetterSelection& selection,
                          const std::function<void(Partition, const DeadLetter&)>& visit) {
  Discards discards;
  std::set<KeyPlace> open;  // whose last letter is one of those to go
  LetterSelection keys = selection;
  keys.event_id.reset();
  keys.reason.reset();
  (void)for_each_letter(session, topic, group, keys, [&](Partition partition, const DeadLetter& letter) {
    const KeyPlace place{partition, letter.whose};
    if (!selection.matches(letter)) {
      open.erase(place);
      return;
    }
    auto& requests = discards.requests[place];
    if (open.insert(place).second) {
      requests.push_back({LetterRequest::What::discard, letter.id, letter.id});
    }
    requests.back().last = letter.id;
    discards.letters[place].push_back(letter.id);
    ++discards.count;
    visit(partition, letter);
  });
  return discards;
}

namespace {

constexpr std::size_t steps_at_once = 1000;

struct Travels {
  Discards left;
  std::map<std::tuple<Partition, Partition, LetterPlaces::Counts>, std::uint64_t> counts;
};

Travels look_at_travellers(redis::Session& session, const Topic& topic, std::string_view group,
                           std::span<const Partition> partitions) {
  Travels travels;
  if (topic.active == Generation(1)) {
    return travels;
  }
  LetterPlaces places(session, topic, std::string(group));
  places.look();
  for (const HeldOnPartition& on : held_keys(session, topic, group, partitions)) {
    std::map<HandlerKey, Partition> taken;
    for (const auto* keys : {&on.held.keys, &on.copies}) {
      for (const HeldKey& key : *keys) {
        const LetterPlaces::Place where = places.of(on.partition, key.whose.key);
        if (where.counts == LetterPlaces::Counts::left) {
          taken.emplace(key.whose, where.other);
        } else if (where.counts != LetterPlaces::Counts::here) {
          travels.counts[{on.partition, where.other, where.counts}] += key.letters;
        }
      }
    }
    if (taken.empty()) {
      continue;
    }
    read_letters(session, topic, on.partition, group, [&](const DeadLetter& letter) {
      if (const auto by = taken.find(letter.whose); by != taken.end()) {
        travels.left.letters[{on.partition, letter.whose}].push_back(letter.id);
        ++travels.left.count;
        ++travels.counts[{on.partition, by->second, LetterPlaces::Counts::left}];
      }
    });
  }
  return travels;
}

// The steps that take the letters of one partition away. Read anew: a worker may have been at them.
std::vector<LetterStep> steps_of(redis::Session& session, const Topic& topic, std::string_view group,
                                 const Discards& discards, Partition partition) {
  std::vector<LetterStep> steps;
  std::map<HandlerKey, std::uint64_t> left;
  read_letters(session, topic, partition, group, [&](const DeadLetter& letter) {
    const auto found = discards.letters.find({partition, letter.whose});
    if (found == discards.letters.end()) {
      return;
    }
    std::uint64_t& kept = left[letter.whose];
    if (std::binary_search(found->second.begin(), found->second.end(), letter.id)) {
      steps.push_back({LetterStep::What::discard, letter.id, letter.whose, {}});
    } else {
      ++kept;
    }
  });
  for (const auto& [whose, kept] : left) {
    if (kept == 0) {
      steps.push_back({LetterStep::What::free, {}, whose, {}});
    }
  }
  return steps;
}

}  // namespace

std::vector<TravellingLetters> travelling_letters(redis::Session& session, const Topic& topic,
                                                  std::string_view group) {
  std::vector<TravellingLetters> all;
  const std::vector<Partition> partitions = topic.partitions();
  for (const auto& [of, count] : look_at_travellers(session, topic, group, partitions).counts) {
    const auto& [here, other, counts] = of;
    all.push_back({here, other, counts, count});
  }
  return all;
}

void drop_letters_that_left(redis::Session& session, const Topic& topic, std::string_view group,
                            OperatorLeases& leases) {
  std::vector<Partition> partitions;
  for (const auto& [partition, acquired] : leases.acquired()) {
    partitions.push_back(partition);
  }
  const Discards left = look_at_travellers(session, topic, group, partitions).left;
  if (left.count > 0) {
    discard_letters(session, topic, group, leases, left);
  }
}

void discard_letters(redis::Session& session, const Topic& topic, std::string_view group,
                     OperatorLeases& leases, const Discards& discards) {
  std::set<Partition> concerned;
  for (const auto& [place, ids] : discards.letters) {
    concerned.insert(place.partition);
  }
  for (const auto& [partition, acquired] : leases.acquired()) {
    if (!concerned.contains(partition)) {
      continue;
    }
    const std::vector<LetterStep> steps = steps_of(session, topic, group, discards, partition);
    leases.keep();  // reading may have taken its time
    Acquired& lease = leases.of(partition);
    const GroupKeys keys(topic.name, partition, group);
    for (std::size_t begin = 0; begin < steps.size(); begin += steps_at_once) {
      const auto end = std::min(steps.size(), begin + steps_at_once);
      Commit commit{lease.cursor, lease.passed, {}, {}, {}};
      commit.steps.assign(steps.begin() + static_cast<std::ptrdiff_t>(begin),
                          steps.begin() + static_cast<std::ptrdiff_t>(end));
      redis::Request request;
      request_commit(request, keys, lease.fence, ++lease.number, commit, group);
      const redis::Replies replies = session.call(std::move(request));
      if (parse_commit(replies[0]) != Kept::ok) {
        fail(ErrorKind::fenced, "{}: a worker took it over from this command for group {}: run it again",
             place(topic.name, partition), group);
      }
    }
  }
}

}  // namespace continuum
