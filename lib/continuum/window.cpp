#include "continuum/window.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/json.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>

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

// --- keys

std::size_t Window::Tails::find(std::uint64_t key) const {
  std::size_t at = home(key);
  while (tails_[at] != none && keys_[at] != key) {
    at = (at + 1) & (size - 1);
  }
  return at;
}

std::uint32_t& Window::Tails::at(std::uint64_t key) {
  const std::size_t place = find(key);
  keys_[place] = key;
  return tails_[place];
}

void Window::Tails::erase(std::uint64_t key) {
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

// --- taking on

Window::Window(const Cursor& start, TypeFilter filter)
    : filter_(std::move(filter)),
      slots_(events_max),
      ready_(events_max),
      next_(start.offset),
      end_(start.offset),
      finished_(start) {}

void Window::add(DecodedEntry entry) {
  const bool first = entries_.empty() && end_ == finished_.offset;
  check(first ? entry.first <= end_ && entry.next() > end_ : entry.first == end_,
        "entries come without gaps");
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
    while (next_ < entry.next()) {
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

// False when there is no budget for it.
bool Window::admit_line(std::string_view line, Budget& budget) {
  const Attributes attributes = attributes_of(line);
  const bool taken = filter_.takes_all() || filter_.takes(attributes.type);
  if (taken && !budget.take()) {
    return false;
  }
  const std::uint32_t at = index(next_);
  Slot& slot = slots_[at];
  slot.line = line;
  slot.offset = next_;
  slot.next_of_key = none;
  slot.attempts_used = 0;
  ++next_;
  if (!taken) {
    slot.state = State::done;
    return true;
  }
  ++open_;
  const std::string_view key = key_of(attributes, scratch_);
  slot.key = XXH3_64bits(key.data(), key.size());
  std::uint32_t& tail = tails_.at(slot.key);
  if (tail == none) {
    make_ready(at);
  } else {
    slots_[tail].next_of_key = at;
    slot.state = State::waiting;
  }
  tail = at;
  return true;
}

void Window::make_ready(std::uint32_t slot) {
  slots_[slot].state = State::ready;
  ready_[(ready_head_ + ready_count_) & (events_max - 1)] = slot;
  ++ready_count_;
}

// --- handling

std::optional<Window::Event> Window::take(Clock::time_point now) {
  while (!due_.empty() && due_.top().first <= now) {
    make_ready(index(due_.top().second));
    due_.pop();
  }
  if (ready_count_ == 0) {
    return std::nullopt;
  }
  Slot& slot = slots_[ready_[ready_head_]];
  ready_head_ = (ready_head_ + 1) & (events_max - 1);
  --ready_count_;
  slot.state = State::in_flight;
  ++in_flight_;
  return Event{slot.offset, slot.line, slot.attempts_used + 1};
}

Window::Slot& Window::flying(Offset offset) {
  Slot& slot = slots_[index(offset)];
  check(slot.offset == offset && slot.state == State::in_flight, "a verdict is about an event in flight");
  return slot;
}

void Window::done(Offset offset) {
  Slot& slot = flying(offset);
  slot.state = State::done;
  --in_flight_;
  --open_;
  ++done_count_;
  if (slot.next_of_key != none) {
    make_ready(slot.next_of_key);
  } else {
    tails_.erase(slot.key);
  }
  if (offset == finished_.offset) {
    advance();
  }
}

void Window::retry(Offset offset, Clock::time_point due, std::uint32_t attempts_used) {
  Slot& slot = flying(offset);
  slot.state = State::backing_off;
  slot.attempts_used = attempts_used;
  --in_flight_;
  due_.emplace(due, offset);
}

void Window::put_back(Offset offset) {
  check(in_flight(offset), "an event in flight is put back");
  --in_flight_;
  make_ready(index(offset));
}

bool Window::in_flight(Offset offset) const {
  const Slot& slot = slots_[index(offset)];
  return slot.state == State::in_flight && slot.offset == offset;
}

std::string_view Window::line(Offset offset) const {
  check(in_flight(offset), "an event in flight is asked for");
  return slots_[index(offset)].line;
}

std::uint32_t Window::attempts_used(Offset offset) const {
  check(in_flight(offset), "an event in flight is asked for");
  return slots_[index(offset)].attempts_used;
}

std::optional<Window::Clock::time_point> Window::next_due() const {
  return due_.empty() ? std::nullopt : std::optional(due_.top().first);
}

void Window::advance() {
  while (finished_.offset < next_) {
    Slot& slot = slots_[index(finished_.offset)];
    if (slot.state != State::done) {
      return;
    }
    slot.state = State::unused;
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
