#include "continuum/key_life.hpp"

#include "continuum/dead_letter_listing.hpp"
#include "continuum/group_control.hpp"
#include "continuum/ring.hpp"

#include <algorithm>
#include <set>

namespace continuum {

std::string KeyLife::fate_of(const KeyStanding& standing, Offset offset) const {
  std::set<std::string> fates;  // one that is being taken over is in two places
  for (const KeyStanding& other : standings) {
    for (const DeadLetter& letter : other.letters) {
      if (other.group == standing.group && letter.offset == offset &&
          letter.from.value_or(other.partition) == standing.partition) {
        fates.insert(fmt::format("{} ({})", name_of(letter.state), letter.whose.handler));
      }
    }
  }
  if (!fates.empty()) {
    return fmt::format("{}", fmt::join(fates, ", "));
  }
  return standing.state && offset < standing.state->cursor.offset ? "passed" : "waiting";
}

namespace {

void add_letters(redis::Session& session, const Topic& topic, const std::string& key, KeyStanding& standing) {
  const std::vector<Partition> one{standing.partition};
  const HeldKeys stored = held_keys(session, topic, standing.group, one).front().held;
  for (const HeldKey& held : stored.keys) {
    if (held.whose.key == key) {
      standing.handlers.push_back(held);
    }
  }
  if (standing.handlers.empty()) {
    return;
  }
  LetterSelection selection;
  selection.partitions = one;
  selection.key = key;
  (void)for_each_letter(session, topic, standing.group, selection, [&](Partition, const DeadLetter& letter) {
    standing.letters.push_back(letter);
    standing.letters.back().event.clear();
  });
}

}  // namespace

KeyLife life_of(redis::Session& session, const Topic& topic, const std::string& key, std::uint64_t last) {
  KeyLife life;
  std::set<Partition> homes;
  for (const auto& [generation, description] : topic.rings) {
    if (generation <= topic.active) {
      const Partition partition = Ring(description).locate(key).partition;
      life.partitions.emplace_back(generation, partition);
      homes.insert(partition);
    }
  }
  TailOptions tail;
  tail.filter.key = key;
  tail.last = last;
  life.events = last_events(session, topic, std::move(tail)).events;
  const std::vector<Partition> partitions(homes.begin(), homes.end());
  for (const auto& [group, registered] : topic.groups) {
    const auto states = group_states(session, topic, group, partitions);
    for (std::size_t i = 0; i < partitions.size(); ++i) {
      KeyStanding standing{group, partitions[i], states[i], {}, {}};
      add_letters(session, topic, key, standing);
      life.standings.push_back(std::move(standing));
    }
  }
  return life;
}

}  // namespace continuum
