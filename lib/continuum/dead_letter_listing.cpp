#include "continuum/dead_letter_listing.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/letter_places.hpp"
#include "continuum/names.hpp"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

namespace continuum {

namespace {

constexpr std::size_t partitions_at_once = 64;
// Of one answer: a letter holds an event, which may be large.
constexpr std::size_t answer_bytes = std::size_t{4} << 20;
constexpr std::size_t count_max = 1000;
constexpr std::size_t count_growth = 4;
constexpr std::size_t reasons_max = 1000;
constexpr std::string_view other_reasons = "(other reasons)";

std::vector<Partition> partitions_of(const Topic& topic, const LetterSelection& selection) {
  return selection.partitions.empty() ? topic.partitions() : selection.partitions;
}

void set_copies_apart(redis::Session& session, const Topic& topic, std::string_view group,
                      std::vector<HeldOnPartition>& all) {
  LetterPlaces places(session, topic, std::string(group));
  places.look();
  for (HeldOnPartition& on : all) {
    const auto copies = std::stable_partition(
        on.held.keys.begin(), on.held.keys.end(),
        [&](const HeldKey& key) { return places.of(on.partition, key.whose.key).is_here(); });
    on.copies.assign(std::move_iterator(copies), std::move_iterator(on.held.keys.end()));
    on.held.keys.erase(copies, on.held.keys.end());
    for (const HeldKey& key : on.copies) {
      on.held.letters -= std::min(on.held.letters, key.letters);
    }
  }
}

std::string_view id_of(const DeadLetter& letter, std::string& scratch) {
  const Attributes attributes = attributes_of(letter.event);
  return json::unescape(attributes.id, scratch).value_or(attributes.id);
}

}  // namespace

bool LetterSelection::matches(const HandlerKey& whose) const {
  return (!handler || *handler == whose.handler) && (!key || *key == whose.key);
}

bool LetterSelection::matches(const DeadLetter& letter) const {
  if (!matches(letter.whose)) {
    return false;
  }
  if (reason && (letter.state == LetterState::behind || !glob_matches(*reason, letter.reason))) {
    return false;
  }
  std::string scratch;
  return !event_id || *event_id == id_of(letter, scratch);
}

std::vector<HeldOnPartition> held_keys(redis::Session& session, const Topic& topic, std::string_view group,
                                       std::span<const Partition> partitions) {
  std::vector<HeldOnPartition> all;
  for (std::size_t begin = 0; begin < partitions.size(); begin += partitions_at_once) {
    const auto some = partitions.subspan(begin, std::min(partitions_at_once, partitions.size() - begin));
    redis::Request request;
    for (const Partition partition : some) {
      request.command("HGETALL", held_key(topic.name, partition, group));
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      all.push_back({some[i], parse_held(replies[i])});
    }
  }
  const bool has_some =
      std::any_of(all.begin(), all.end(), [](const HeldOnPartition& on) { return !on.held.keys.empty(); });
  if (has_some && topic.active > Generation(1)) {
    set_copies_apart(session, topic, group, all);
  }
  return all;
}

void read_letters(redis::Session& session, const Topic& topic, Partition partition, std::string_view group,
                  const std::function<void(const DeadLetter&)>& visit) {
  const std::string key = dead_key(topic.name, partition, group);
  std::string from = "-";
  std::size_t count = count_growth;
  for (;;) {
    redis::Request request;
    request.command("XRANGE", key, from, "+", "COUNT", count);
    const redis::Replies replies = session.call(std::move(request));
    const std::size_t size = replies[0].size();
    std::size_t bytes = 1;
    for (std::size_t i = 0; i < size; ++i) {
      const DeadLetter letter = parse_dead_letter(replies[0][i]);
      bytes += letter.event.size();
      from = "(" + letter.id.text();
      visit(letter);
    }
    if (size < count) {
      return;
    }
    count = std::clamp<std::size_t>(answer_bytes / (bytes / size + 1), 1,
                                    std::min(count_max, count * count_growth));
  }
}

std::uint64_t for_each_letter(redis::Session& session, const Topic& topic, std::string_view group,
                              const LetterSelection& selection,
                              const std::function<void(Partition, const DeadLetter&)>& visit) {
  std::uint64_t matched = 0;
  const auto partitions = partitions_of(topic, selection);
  for (const HeldOnPartition& on : held_keys(session, topic, group, partitions)) {
    const auto& keys = on.held.keys;
    // Most partitions of a large topic have none: their streams need not be asked for.
    if (std::none_of(keys.begin(), keys.end(),
                     [&](const HeldKey& key) { return key.letters > 0 && selection.matches(key.whose); })) {
      continue;
    }
    std::set<HandlerKey> copies;
    for (const HeldKey& key : on.copies) {
      copies.insert(key.whose);
    }
    read_letters(session, topic, on.partition, group, [&](const DeadLetter& letter) {
      if (selection.matches(letter) && !copies.contains(letter.whose)) {
        ++matched;
        visit(on.partition, letter);
      }
    });
  }
  return matched;
}

// --- a summary

namespace {

class Summarizer {
 public:
  void add(Partition partition, const DeadLetter& letter) {
    const auto [found, is_first] = keys_.try_emplace({partition, letter.whose});
    LetterSummary::Key& key = found->second;
    if (is_first) {
      key.place = found->first;
      key.first = letter.offset;
      key.attempts = letter.attempts;
      key.since = letter.time;
      key.reason = letter.reason;
    }
    ++key.letters;
    LetterSummary::Reason& reason = reason_of(letter.whose.handler, key.reason);
    reason.keys += is_first ? 1 : 0;
    reason.oldest = reason.oldest == SystemTime() ? letter.time : std::min(reason.oldest, letter.time);
    switch (letter.state) {
      case LetterState::failed:
        ++reason.failed;
        break;
      case LetterState::behind:
        ++reason.behind;
        break;
      case LetterState::skipped:
        ++reason.skipped;
        break;
    }
  }

  void add_held(const HeldOnPartition& on) {
    for (const HeldKey& held : on.held.keys) {
      if (const auto found = keys_.find({on.partition, held.whose}); found != keys_.end()) {
        found->second.held = held;
      }
    }
  }

  LetterSummary finish() {
    LetterSummary summary;
    for (auto& [of, reason] : reasons_) {
      summary.letters += reason.failed + reason.behind + reason.skipped;
      summary.reasons.push_back(std::move(reason));
    }
    for (auto& [place, key] : keys_) {
      summary.keys.push_back(std::move(key));
    }
    std::stable_sort(summary.reasons.begin(), summary.reasons.end(), [](const auto& a, const auto& b) {
      return a.failed + a.behind + a.skipped > b.failed + b.behind + b.skipped;
    });
    std::stable_sort(summary.keys.begin(), summary.keys.end(),
                     [](const auto& a, const auto& b) { return a.letters > b.letters; });
    return summary;
  }

 private:
  LetterSummary::Reason& reason_of(const std::string& handler, const std::string& reason) {
    const auto known = reasons_.find({handler, reason});
    if (known != reasons_.end()) {
      return known->second;
    }
    const std::string text(reasons_.size() < reasons_max ? std::string_view(reason) : other_reasons);
    LetterSummary::Reason& added = reasons_[{handler, text}];
    added.handler = handler;
    added.reason = text;
    return added;
  }

  std::map<KeyPlace, LetterSummary::Key> keys_;
  std::map<std::pair<std::string, std::string>, LetterSummary::Reason> reasons_;
};

}  // namespace

LetterSummary summarize_letters(redis::Session& session, const Topic& topic, std::string_view group,
                                const LetterSelection& selection) {
  Summarizer summarizer;
  (void)for_each_letter(session, topic, group, selection, [&](Partition partition, const DeadLetter& letter) {
    summarizer.add(partition, letter);
  });
  for (const HeldOnPartition& on : held_keys(session, topic, group, partitions_of(topic, selection))) {
    summarizer.add_held(on);
  }
  return summarizer.finish();
}

}  // namespace continuum
