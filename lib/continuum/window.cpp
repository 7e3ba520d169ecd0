#include "continuum/window.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/json.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <queue>

namespace continuum {

bool TypeFilter::takes(std::string_view raw) const {
  if (globs_.empty()) {
    return true;
  }
  std::string scratch;
  const auto type = json::unescape(raw, scratch);
  return type && std::any_of(globs_.begin(), globs_.end(),
                             [&](const std::string& glob) { return glob_matches(glob, *type); });
}

namespace {

constexpr std::uint32_t none = 0xFFFFFFFF;

// From a key to the last slot of its chain; open addressing, at most half full.
class Tails {
 public:
  Tails() : keys_(size), tails_(size, none) {}

  // The place of the key, or the empty one where it belongs.
  [[nodiscard]] std::uint32_t& at(std::uint64_t key) {
    const std::size_t place = find(key);
    keys_[place] = key;
    return tails_[place];
  }

  void erase(std::uint64_t key) {
    std::size_t hole = find(key);
    check(tails_[hole] != none, "an erased key is there");
    // Later keys of the run move up, so that no lookup stops at the hole.
    for (std::size_t at = (hole + 1) & (size - 1); tails_[at] != none; at = (at + 1) & (size - 1)) {
      const std::size_t from_home = (at - home(keys_[at])) & (size - 1);
      if (from_home >= ((at - hole) & (size - 1))) {
        keys_[hole] = keys_[at];
        tails_[hole] = tails_[at];
        hole = at;
      }
    }
    tails_[hole] = none;
  }

 private:
  static constexpr std::size_t size = 2 * Window::events_max;
  [[nodiscard]] static std::size_t home(std::uint64_t key) { return key & (size - 1); }
  [[nodiscard]] std::size_t find(std::uint64_t key) const {
    std::size_t at = home(key);
    while (tails_[at] != none && keys_[at] != key) {
      at = (at + 1) & (size - 1);
    }
    return at;
  }

  std::vector<std::uint64_t> keys_;
  std::vector<std::uint32_t> tails_;
};

// Slots as bits, and a word that says which words have any.
class SlotSet {
 public:
  void insert(std::uint32_t slot) {
    words_[slot / 64] |= std::uint64_t{1} << (slot % 64);
    summary_ |= std::uint64_t{1} << (slot / 64);
  }
  void erase(std::uint32_t slot) {
    words_[slot / 64] &= ~(std::uint64_t{1} << (slot % 64));
    if (words_[slot / 64] == 0) {
      summary_ &= ~(std::uint64_t{1} << (slot / 64));
    }
  }
  [[nodiscard]] bool empty() const { return summary_ == 0; }
  // The first at or after `start`, going round. Not of an empty set.
  [[nodiscard]] std::uint32_t first_from(std::uint32_t start) const {
    const std::uint32_t word = start / 64;
    if (const std::uint64_t here = words_[word] & (~std::uint64_t{0} << (start % 64)); here != 0) {
      return word * 64 + static_cast<std::uint32_t>(std::countr_zero(here));
    }
    const std::uint64_t later = word == 63 ? 0 : summary_ & (~std::uint64_t{0} << (word + 1));
    const auto found = static_cast<std::uint32_t>(std::countr_zero(later != 0 ? later : summary_));
    return found * 64 + static_cast<std::uint32_t>(std::countr_zero(words_[found]));
  }

 private:
  static_assert(Window::events_max == std::size_t{64} * 64, "one summary word covers all slots");
  std::array<std::uint64_t, 64> words_{};
  std::uint64_t summary_ = 0;
};

}  // namespace

// --- lanes

class Window::Lane {
 public:
  enum class State : std::uint8_t {
    not_mine,
    waiting,  // for an earlier event of its key
    closed,   // for the lane before
    ready,
    in_flight,
    backing_off,
    done,
  };
  struct Slot {
    State state = State::not_mine;
    bool opened = false;               // the lane before is done with it
    std::uint32_t next_of_key = none;  // slot that waits for this one
    std::uint32_t attempts_used = 0;
    // In flight: since when, and what was started just before and after it.
    Clock::time_point since;
    std::uint32_t before = none;
    std::uint32_t after = none;
  };

  Lane(std::string lane_name, TypeFilter types) : name(std::move(lane_name)), filter(std::move(types)) {}

  // Behind what the lane has of this key.
  void append(std::uint32_t at, std::uint64_t key, bool opened) {
    Slot& slot = slots[at];
    slot = Slot();
    slot.opened = opened;
    ++open;
    std::uint32_t& tail = tails.at(key);
    if (tail == none) {
      step_forward(at);
    } else {
      slots[tail].next_of_key = at;
      slot.state = State::waiting;
    }
    tail = at;
  }

  // It is the first of its key now.
  void step_forward(std::uint32_t at) {
    slots[at].state = slots[at].opened ? State::ready : State::closed;
    if (slots[at].opened) {
      ready.insert(at);
    }
  }

  void start(std::uint32_t at, Clock::time_point now) {
    Slot& slot = slots[at];
    slot.state = State::in_flight;
    slot.since = now;
    slot.before = last_started;
    slot.after = none;
    (last_started == none ? first_started : slots[last_started].after) = at;
    last_started = at;
    ++in_flight;
  }
  // It is not in flight any more; what it is instead is the caller's.
  void stop(std::uint32_t at) {
    const Slot& slot = slots[at];
    (slot.before == none ? first_started : slots[slot.before].after) = slot.after;
    (slot.after == none ? last_started : slots[slot.after].before) = slot.before;
    --in_flight;
  }

  const std::string name;
  TypeFilter filter;
  bool retired = false;
  std::vector<Slot> slots = std::vector<Slot>(events_max);
  std::vector<Offset> offsets = std::vector<Offset>(events_max);  // of the slots
  Tails tails;
  SlotSet ready;
  using Due = std::pair<Clock::time_point, Offset>;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due;
  std::size_t in_flight = 0;
  std::uint32_t first_started = none;  // of those in flight
  std::uint32_t last_started = none;
  std::uint64_t open = 0;
};

Window::Window(const Cursor& start, Dispatch dispatch, Gaps gaps)
    : dispatch_(dispatch),
      gaps_(gaps),
      slots_(events_max),
      next_(start.offset),
      end_(start.offset),
      finished_(start) {}

Window::~Window() = default;

Window::Lane& Window::add_lane(std::string name, TypeFilter filter) {
  auto lane = std::make_unique<Lane>(std::move(name), std::move(filter));
  const auto place = std::lower_bound(lanes_.begin(), lanes_.end(), lane->name,
                                      [](const auto& a, const std::string& b) { return a->name < b; });
  return **lanes_.insert(place, std::move(lane));
}

void Window::set_filter(Lane& lane, TypeFilter filter) {
  lane.filter = std::move(filter);
  lane.retired = false;
}

void Window::retire(Lane& lane) {
  lane.retired = true;
}

void Window::remove_lane(Lane& lane) {
  check(lane.open == 0, "a lane that is removed has no events");
  std::erase_if(lanes_, [&](const auto& one) { return one.get() == &lane; });
}

// --- taking on

void Window::add(DecodedEntry entry) {
  const bool first = entries_.empty() && end_ == finished_.offset;
  const bool follows = first ? entry.first <= end_ && entry.next() > end_ : entry.first == end_;
  check(follows || (gaps_ == Gaps::left_out && entry.first > end_), "entries come without gaps");
  end_ = entry.next();
  bytes_ += entry.lines.size();
  const Offset begins = entry.first;
  entries_.push_back(std::move(entry));
  if (first && begins < next_) {
    const std::string& lines = entries_.back().lines;
    for (std::uint64_t skip = next_ - begins; skip > 0; --skip) {
      line_at_ = lines.find('\n', line_at_) + 1;
    }
  }
}

void Window::admit(Budget& budget) {
  while (admitting_ < entries_.size()) {
    const DecodedEntry& entry = entries_[admitting_];
    pass_gap(entry.first);
    while (next_ >= entry.first && next_ < entry.next()) {
      // An event that is left out needs its slot too: the prefix may not reach it yet.
      if (next_ - finished_.offset >= events_max) {
        break;
      }
      const char* const begin = entry.lines.data() + line_at_;
      const auto* const newline =
          static_cast<const char*>(std::memchr(begin, '\n', entry.lines.size() - line_at_));
      check(newline != nullptr, "a decoded entry has as many lines as events");
      const std::string_view line(begin, static_cast<std::size_t>(newline - begin));
      if (!admit_line(line, budget)) {
        advance();
        return;
      }
      line_at_ += line.size() + 1;
    }
    const bool whole = next_ == entry.next();
    if (whole) {
      ++admitting_;
      line_at_ = 0;
    }
    const Offset before = finished_.offset;
    advance();  // may make room: left-out events at the front are done already
    if (!whole && finished_.offset == before) {
      return;
    }
  }
}

// Up to there nothing is to be handled. Goes as far as there are slots.
void Window::pass_gap(Offset until) {
  if (next_ >= until) {
    return;
  }
  if (finished_.offset == next_) {
    next_ = finished_.offset = until;
    return;
  }
  for (; next_ < until && next_ - finished_.offset < events_max; ++next_) {
    const std::uint32_t at = index(next_);
    slots_[at] = Slot();
    for (const auto& lane : lanes_) {
      lane->slots[at].state = Lane::State::not_mine;
    }
  }
}

// False when there is no budget for it.
bool Window::admit_line(std::string_view line, Budget& budget) {
  const Attributes attributes = attributes_of(line);
  const auto takes = [&](const Lane& lane) {
    return !lane.retired && (lane.filter.takes_all() || lane.filter.takes(attributes.type));
  };
  const bool taken =
      std::any_of(lanes_.begin(), lanes_.end(), [&](const auto& lane) { return takes(*lane); });
  if (taken && !budget.take()) {
    return false;
  }
  const std::uint32_t at = index(next_);
  Slot& slot = slots_[at];
  slot.line = line;
  slot.offset = next_;
  slot.pending = 0;
  ++next_;
  if (taken) {
    const std::string_view key = key_of(attributes, scratch_);
    slot.key = hash_of_key(key);
    ++open_;
  }
  for (const auto& lane : lanes_) {
    if (!taken || !takes(*lane)) {
      lane->slots[at].state = Lane::State::not_mine;
      continue;
    }
    lane->offsets[at] = slot.offset;
    lane->append(at, slot.key, slot.pending == 0 || dispatch_ == Dispatch::parallel);
    ++slot.pending;
  }
  return true;
}

// --- handling

std::optional<Window::Event> Window::take(Lane& lane, Clock::time_point now) {
  while (!lane.due.empty() && lane.due.top().first <= now) {
    const std::uint32_t at = index(lane.due.top().second);
    lane.slots[at].state = Lane::State::ready;
    lane.ready.insert(at);
    lane.due.pop();
  }
  if (lane.ready.empty()) {
    return std::nullopt;
  }
  // The lowest offset: what stands in the way of the next commit comes first.
  const std::uint32_t at = lane.ready.first_from(index(finished_.offset));
  lane.ready.erase(at);
  lane.start(at, now);
  return Event{slots_[at].offset, slots_[at].line, lane.slots[at].attempts_used + 1, slots_[at].key};
}

Window::Done Window::done(Lane& lane, Offset offset) {
  check(in_flight(lane, offset), "a verdict is about an event in flight");
  const std::uint32_t at = index(offset);
  Lane::Slot& mine = lane.slots[at];
  Slot& slot = slots_[at];
  lane.stop(at);
  mine.state = Lane::State::done;
  --lane.open;
  if (mine.next_of_key != none) {
    lane.step_forward(mine.next_of_key);
  } else {
    lane.tails.erase(slot.key);
  }
  if (--slot.pending > 0) {
    if (dispatch_ == Dispatch::sequence) {
      open_next(lane, at);
    }
    return Done::by_lane;
  }
  --open_;
  if (offset == finished_.offset) {
    advance();
  }
  return Done::by_all;
}

// The event goes on to the lane behind.
void Window::open_next(const Lane& lane, std::uint32_t at) {
  const auto mine =
      std::find_if(lanes_.begin(), lanes_.end(), [&](const auto& one) { return one.get() == &lane; });
  for (auto next = mine + 1; next != lanes_.end(); ++next) {
    Lane::Slot& slot = (*next)->slots[at];
    if (slot.state == Lane::State::not_mine || (*next)->offsets[at] != slots_[at].offset) {
      continue;
    }
    slot.opened = true;
    if (slot.state == Lane::State::closed) {
      (*next)->step_forward(at);
    }
    return;
  }
}

void Window::retry(Lane& lane, Offset offset, Clock::time_point due, std::uint32_t attempts_used) {
  check(in_flight(lane, offset), "a verdict is about an event in flight");
  lane.stop(index(offset));
  Lane::Slot& slot = lane.slots[index(offset)];
  slot.state = Lane::State::backing_off;
  slot.attempts_used = attempts_used;
  lane.due.emplace(due, offset);
}

void Window::put_back(Lane& lane, Offset offset) {
  check(in_flight(lane, offset), "an event in flight is put back");
  lane.stop(index(offset));
  lane.step_forward(index(offset));
}

bool Window::in_flight(const Lane& lane, Offset offset) {
  return lane.slots[index(offset)].state == Lane::State::in_flight && lane.offsets[index(offset)] == offset;
}

bool Window::key_in_flight(const Lane& lane, std::string_view key) const {
  const std::uint64_t hash = hash_of_key(key);
  for (std::uint32_t at = lane.first_started; at != none; at = lane.slots[at].after) {
    if (slots_[at].key == hash) {
      return true;
    }
  }
  return false;
}

std::string_view Window::line(const Lane& lane, Offset offset) const {
  check(in_flight(lane, offset), "an event in flight is asked for");
  return slots_[index(offset)].line;
}

std::uint64_t Window::key_hash(Offset offset) const {
  const Slot& slot = slots_[index(offset)];
  check(slot.offset == offset && slot.pending > 0, "an event that is not done is asked for");
  return slot.key;
}

std::uint32_t Window::attempts_used(const Lane& lane, Offset offset) {
  check(in_flight(lane, offset), "an event in flight is asked for");
  return lane.slots[index(offset)].attempts_used;
}

std::size_t Window::in_flight(const Lane& lane) {
  return lane.in_flight;
}

std::uint64_t Window::open(const Lane& lane) {
  return lane.open;
}

bool Window::has_ready(const Lane& lane) {
  return !lane.ready.empty();
}

std::optional<Window::Clock::time_point> Window::next_due(const Lane& lane) {
  return lane.due.empty() ? std::nullopt : std::optional(lane.due.top().first);
}

std::optional<Window::Running> Window::longest_running(const Lane& lane) {
  if (lane.first_started == none) {
    return std::nullopt;
  }
  return Running{lane.offsets[lane.first_started], lane.slots[lane.first_started].since};
}

void Window::advance() {
  while (finished_.offset < next_ && slots_[index(finished_.offset)].pending == 0) {
    ++finished_.offset;
    while (!entries_.empty() && finished_.offset >= entries_.front().next()) {
      finished_.entry = entries_.front().id;
      bytes_ -= entries_.front().lines.size();
      entries_.pop_front();
      check(admitting_ > 0, "an entry that is done was taken on");
      --admitting_;
    }
  }
}

}  // namespace continuum
