#include "continuum/dead_letter_control.hpp"

#include "continuum/commit.hpp"
#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/names.hpp"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

namespace continuum {

namespace {

constexpr std::size_t partitions_at_once = 64;
constexpr std::size_t keys_at_once = 1000;
// Of one answer: a letter holds an event, which may be large.
constexpr std::size_t answer_bytes = std::size_t{4} << 20;
constexpr std::size_t count_max = 1000;
constexpr std::size_t count_growth = 4;
constexpr std::size_t reasons_max = 1000;
constexpr std::string_view other_reasons = "(other reasons)";
constexpr std::size_t steps_at_once = 1000;

std::vector<Partition> partitions_of(const Topic& topic, const LetterSelection& selection) {
  return selection.partitions.empty() ? topic.partitions() : selection.partitions;
}

// The letters of one partition, in order, while visit() returns.
template <class Visit>
void read_letters(redis::Session& session, const Topic& topic, Partition partition, std::string_view group,
                  Visit visit) {
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

// --- asking the holder of the lease

namespace {

void request_key(redis::Request& request, const Topic& topic, std::string_view group, Partition partition,
                 const HandlerKey& whose) {
  const std::string text = whose.text();
  request.command("HMGET", held_key(topic.name, partition, group), "r/" + text, "h/" + text, "n/" + text,
                  "x/" + text);
}

// From the answer to that.
HeldKey parse_key(redis::Reply fields) {
  HeldKey key;
  if (!fields[0].is_nil()) {
    key.request.emplace();
  }
  key.held = fields[1].is_nil() ? HeldKey::Held::no : HeldKey::Held::yes;
  key.letters = fields[2].is_nil() ? 0 : fields[2].number();
  if (!fields[3].is_nil()) {
    key.failure = HeldKey::Failure::parse(fields[3].text());
  }
  return key;
}

bool is_new(const std::optional<HeldKey::Failure>& failure, const std::optional<HeldKey::Failure>& before) {
  return failure && (!before || before->time != failure->time || before->attempts != failure->attempts ||
                     before->reason != failure->reason);
}

}  // namespace

LetterRequests::LetterRequests(redis::Session& session, const Topic& topic, std::string group)
    : session_(session), topic_(topic), group_(std::move(group)), places_(session, topic, group_) {}

void LetterRequests::ask(const std::map<KeyPlace, LetterRequest>& wanted) {
  std::vector<std::pair<KeyPlace, LetterRequest>> all;
  places_.look();
  for (const auto& [place, what] : wanted) {
    const auto now = places_.of(place.partition, place.whose.key);
    if (now.counts == LetterPlaces::Counts::here) {
      all.emplace_back(place, what);
    } else {
      redis::Request request;
      request_key(request, topic_, group_, place.partition, place.whose);
      const redis::Replies replies = session_.call(std::move(request));
      Standing& standing = standings_[place];
      standing = {};
      standing.state = State::moved;
      standing.moved_to = now.other;
      standing.letters = parse_key(replies[0]).letters;
    }
  }
  for (std::size_t begin = 0; begin < all.size(); begin += keys_at_once) {
    const auto some = std::span(all).subspan(begin, std::min(keys_at_once, all.size() - begin));
    redis::Request request;
    for (const auto& [place, what] : some) {
      const std::string held = held_key(topic_.name, place.partition, group_);
      request.command("HGET", held, "x/" + place.whose.text());
      request_release(request, group_key(topic_.name, place.partition, group_), held, place.whose, what);
    }
    const redis::Replies replies = session_.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      const auto& [place, what] = some[i];
      Standing& standing = standings_[place];
      standing = {};
      switch (parse_release(replies[2 * i + 1])) {
        case continuum::Asked::not_registered:
          fail(ErrorKind::usage, "{}: group {} is not registered here (any more)",
               continuum::place(topic_.name, place.partition), group_);
        case continuum::Asked::no_such_letters:
          standing.state = State::answered;
          break;
        case continuum::Asked::yes:
          const redis::Reply before = replies[2 * i];
          waiting_.push_back({place, what.what,
                              before.is_nil() ? std::nullopt : HeldKey::Failure::parse(before.text()),
                              place.partition, places_.passed(place.partition)});
          break;
      }
    }
  }
}

bool LetterRequests::look() {
  std::vector<Asked> rest;
  for (std::size_t begin = 0; begin < waiting_.size(); begin += keys_at_once) {
    look_at_keys(std::span(waiting_).subspan(begin, std::min(keys_at_once, waiting_.size() - begin)), rest);
  }
  waiting_ = std::move(rest);
  look_at_holders();
  if (std::exchange(somebody_came_on_, false)) {
    give_up_moved();
  }
  bool attended = false;
  for (const Asked& asked : waiting_) {
    const Attendance attendance = holders_.at(asked.at).attendance;
    standings_.at(asked.place).attendance = attendance;
    attended = attended || attendance == Attendance::worker;
  }
  return attended;
}

void LetterRequests::look_at_keys(std::span<const Asked> keys, std::vector<Asked>& rest) {
  redis::Request request;
  for (const Asked& asked : keys) {
    request_key(request, topic_, group_, asked.at, asked.place.whose);
  }
  const redis::Replies replies = session_.call(std::move(request));
  std::vector<Asked> gone;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const HeldKey key = parse_key(replies[i]);
    Standing& standing = standings_.at(keys[i].place);
    standing.letters = key.letters;
    if (key.request) {
      rest.push_back(keys[i]);
    } else if (key.letters == 0) {
      gone.push_back(keys[i]);
    } else if (keys[i].what == LetterRequest::What::discard) {
      standing.state = State::answered;
    } else if (is_new(key.failure, keys[i].before) ||
               (key.held == HeldKey::Held::yes && keys[i].at == keys[i].place.partition)) {
      standing.state = State::failed_again;
      standing.failure = key.failure.value_or(HeldKey::Failure{});
    } else if (key.held == HeldKey::Held::yes) {
      // It came here after its letters had been copied, and was left behind.
      set_moved(keys[i], keys[i].at, key.letters);
    } else {
      standing.state = State::answered;
    }
  }
  if (!gone.empty()) {
    follow(gone, rest);
  }
}

// No letters are left where they were: they are dealt with, or another partition has them.
void LetterRequests::follow(std::vector<Asked>& gone, std::vector<Asked>& rest) {
  places_.look();
  redis::Request request;
  std::vector<std::pair<std::size_t, Partition>> places;
  for (std::size_t i = 0; i < gone.size(); ++i) {
    standings_.at(gone[i].place).state = State::answered;
    for (const Partition other : places_.others_since(gone[i].since, gone[i].at, gone[i].place.whose.key)) {
      places.emplace_back(i, other);
      request_key(request, topic_, group_, other, gone[i].place.whose);
    }
  }
  if (request.empty()) {
    return;
  }
  const redis::Replies replies = session_.call(std::move(request));
  for (std::size_t n = 0; n < places.size(); ++n) {
    Asked& asked = gone[places[n].first];
    Standing& standing = standings_.at(asked.place);
    const HeldKey key = parse_key(replies[n]);
    if (key.letters == 0 || standing.state != State::answered) {
      continue;
    }
    if (asked.what == LetterRequest::What::discard) {
      set_moved(asked, places[n].second, key.letters);
    } else {
      // Asked for there, too, or answered there: the next look says.
      standing.state = State::waiting;
      asked.at = places[n].second;
      rest.push_back(asked);
    }
  }
}

// What is to be discarded was named by its place there: the request does not go along.
void LetterRequests::give_up_moved() {
  places_.look();
  std::erase_if(waiting_, [&](const Asked& asked) {
    const auto now = places_.of(asked.at, asked.place.whose.key);
    if (asked.what != LetterRequest::What::discard || now.counts == LetterPlaces::Counts::here) {
      return false;
    }
    set_moved(asked, now.other, standings_.at(asked.place).letters);
    return true;
  });
}

void LetterRequests::set_moved(const Asked& asked, Partition to, std::uint64_t letters) {
  Standing& standing = standings_.at(asked.place);
  standing.state = State::moved;
  standing.moved_to = to;
  standing.letters = letters;
}

// A holder whose beat stands still for as long as its lease lasts is none.
void LetterRequests::look_at_holders() {
  std::set<Partition> partitions;
  for (const Asked& asked : waiting_) {
    partitions.insert(asked.at);
  }
  if (partitions.empty()) {
    return;
  }
  redis::Request request;
  for (const Partition partition : partitions) {
    request.command("HMGET", group_key(topic_.name, partition, group_), "owner", "fence", "beat", "ttl",
                    "paused", "state", "passed", "import");
  }
  const redis::Replies replies = session_.call(std::move(request));
  std::size_t i = 0;
  for (const Partition partition : partitions) {
    const redis::Reply fields = replies[i++];
    const auto text = [&](std::size_t at) {
      return fields[at].is_nil() ? std::string() : std::string(fields[at].text());
    };
    Holder& holder = holders_[partition];
    const std::string beat = text(1) + " " + text(2);
    if (holder.beat != beat) {
      holder.beat = beat;
      holder.since = Clock::now();
    }
    if (const std::string come = text(6) + " " + text(7); holder.come != come) {
      holder.come = come;
      somebody_came_on_ = true;
    }
    const Milliseconds ttl(fields[3].is_nil() ? 0 : fields[3].integer());
    if (!text(4).empty()) {
      holder.attendance = Attendance::paused;
    } else if (text(5) == "halted") {
      holder.attendance = Attendance::halted;
    } else if (text(0).empty() || Clock::now() - holder.since > ttl) {
      holder.attendance = Attendance::nobody;
    } else {
      holder.attendance = Attendance::worker;
    }
  }
}

// --- discarding

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

// Of keys that another partition has taken over with all their letters.
struct Left {
  Discards letters;
  std::map<std::pair<Partition, Partition>, std::uint64_t> counts;  // by where they are and who has them
};

Left letters_that_left(redis::Session& session, const Topic& topic, std::string_view group,
                       std::span<const Partition> partitions) {
  Left left;
  if (topic.active == Generation(1)) {
    return left;
  }
  LetterPlaces places(session, topic, std::string(group));
  places.look();
  for (const HeldOnPartition& on : held_keys(session, topic, group, partitions)) {
    if (on.copies.empty()) {
      continue;
    }
    std::map<HandlerKey, Partition> taken;
    for (const HeldKey& key : on.copies) {
      const LetterPlaces::Place where = places.of(on.partition, key.whose.key);
      if (where.counts == LetterPlaces::Counts::left) {
        taken.emplace(key.whose, where.other);
      }
    }
    read_letters(session, topic, on.partition, group, [&](const DeadLetter& letter) {
      if (const auto by = taken.find(letter.whose); by != taken.end()) {
        left.letters.letters[{on.partition, letter.whose}].push_back(letter.id);
        ++left.letters.count;
        ++left.counts[{on.partition, by->second}];
      }
    });
  }
  return left;
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

std::vector<LettersLeft> count_letters_that_left(redis::Session& session, const Topic& topic,
                                                 std::string_view group) {
  std::vector<LettersLeft> all;
  const std::vector<Partition> partitions = topic.partitions();
  for (const auto& [places, count] : letters_that_left(session, topic, group, partitions).counts) {
    all.push_back({places.first, places.second, count});
  }
  return all;
}

void drop_letters_that_left(redis::Session& session, const Topic& topic, std::string_view group,
                            OperatorLeases& leases) {
  std::vector<Partition> partitions;
  for (const auto& [partition, acquired] : leases.acquired()) {
    partitions.push_back(partition);
  }
  const Discards left = letters_that_left(session, topic, group, partitions).letters;
  if (left.count > 0) {
    discard_letters(session, topic, group, leases, left);
  }
}

void discard_letters(redis::Session& session, const Topic& topic, std::string_view group,
                     OperatorLeases& leases, const Discards& discards) {
  for (const auto& [partition, acquired] : leases.acquired()) {
    const std::vector<LetterStep> steps = steps_of(session, topic, group, discards, partition);
    leases.renew();  // reading may have taken its time
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
