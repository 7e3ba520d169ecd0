#include "continuum/letter_places.hpp"

#include "continuum/error.hpp"
#include "continuum/lease.hpp"
#include "continuum/log.hpp"

#include <algorithm>
#include <utility>

namespace continuum {

LetterPlaces::LetterPlaces(redis::Session& session, const Topic& topic, std::string group)
    : session_(session), topic_(topic), group_(std::move(group)) {}

void LetterPlaces::look() {
  for (;;) {
    states_.clear();
    const std::vector<Partition> partitions = topic_.partitions();
    redis::Request request;
    for (const Partition partition : partitions) {
      request.command("HMGET", group_key(topic_.name, partition, group_), "passed", "import");
    }
    const redis::Replies replies = session_.call(std::move(request));
    Generation highest;
    for (std::size_t i = 0; i < partitions.size(); ++i) {
      const redis::Reply fields = replies[i];
      State state;
      if (!fields[0].is_nil()) {
        state.passed = Generation(static_cast<Generation::rep>(fields[0].number()));
      }
      if (!fields[1].is_nil()) {
        state.import = Import::parse(fields[1].text()).generation;
      }
      highest = std::max({highest, state.passed, state.import});
      states_.emplace(partitions[i], state);
    }
    if (highest <= topic_.active) {
      return;
    }
    // The topic was resized since it was read.
    Topic now = load_topic(session_, topic_.name);
    if (now.log_id != topic_.log_id || now.active <= topic_.active) {
      return;  // it was dropped, or the server lost a resize, of which its workers speak
    }
    topic_ = std::move(now);
  }
}

LetterPlaces::State LetterPlaces::at(Partition partition) const {
  const auto found = states_.find(partition);
  return found == states_.end() ? State{} : found->second;
}

Partition LetterPlaces::owner(Generation generation, std::string_view key) {
  auto known = rings_.find(generation);
  if (known == rings_.end()) {
    known = rings_.try_emplace(generation, topic_.rings.at(generation)).first;
  }
  return known->second.owner(key);
}

bool LetterPlaces::is_known(Generation x) const {
  return x > Generation(1) && topic_.rings.contains(x) && topic_.rings.contains(Generation(x.value - 1));
}

bool LetterPlaces::takes_away(Generation x, Partition partition, std::string_view key) {
  return is_known(x) && owner(Generation(x.value - 1), key) == partition && owner(x, key) != partition;
}

LetterPlaces::Place LetterPlaces::of(Partition partition, std::string_view key) {
  const State state = at(partition);
  for (const Generation x : {state.passed, state.import}) {
    if (x >= state.passed && takes_away(x, partition, key)) {
      const Partition to = owner(x, key);
      return {at(to).passed >= x ? Counts::left : Counts::leaving, to};
    }
  }
  if (state.import > state.passed && is_known(state.import)) {
    const Partition from = owner(Generation(state.import.value - 1), key);
    if (from != partition && owner(state.import, key) == partition) {
      return {Counts::arriving, from};
    }
  }
  return {Counts::here, partition};
}

std::vector<Partition> LetterPlaces::others_since(Generation since, Partition partition,
                                                  std::string_view key) {
  std::vector<Partition> others;
  for (Generation x = topic_.active; x >= since && x > Generation(0); x = Generation(x.value - 1)) {
    if (!topic_.rings.contains(x)) {
      continue;
    }
    const Partition other = owner(x, key);
    if (other != partition && std::find(others.begin(), others.end(), other) == others.end()) {
      others.push_back(other);
    }
  }
  return others;
}

}  // namespace continuum
