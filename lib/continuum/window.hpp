// The events of one partition that are being handled: which may start now, and up to where all are done.
//
// Of one key at most one event is in flight, and they start in the order of their offsets; different keys
// overtake each other. No allocation, copy or lookup by string per event: slots lie in a ring indexed by
// offset and point into the retained lines of their entry, and a key is its XXH3 (keys that collide only wait
// for each other).
#pragma once

#include "continuum/lease.hpp"
#include "continuum/types.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// Which events a group takes, by globs over their type. None: all.
class TypeFilter {
 public:
  explicit TypeFilter(std::vector<std::string> globs = {}) : globs_(std::move(globs)) {}
  [[nodiscard]] bool takes_all() const { return globs_.empty(); }
  // `raw`: the attribute as it stands in the event, with quotes and escapes.
  [[nodiscard]] bool takes(std::string_view raw) const;

 private:
  std::vector<std::string> globs_;
};

// One entry of the log with its lines.
struct DecodedEntry {
  EntryId id;
  Offset first;
  std::uint32_t events = 0;
  std::string lines;

  [[nodiscard]] Offset next() const { return first + events; }
};

// How many events may still be taken on, over all partitions of a worker. For several threads.
class Budget {
 public:
  explicit Budget(std::optional<std::uint64_t> events)
      : limited_(events.has_value()), left_(events.value_or(0)) {}

  [[nodiscard]] bool limited() const { return limited_; }
  [[nodiscard]] bool spent() const { return limited_ && left_.load(std::memory_order_relaxed) == 0; }
  // False when there is none left.
  [[nodiscard]] bool take() {
    if (!limited_) {
      return true;
    }
    std::uint64_t left = left_.load(std::memory_order_relaxed);
    while (left > 0 && !left_.compare_exchange_weak(left, left - 1, std::memory_order_relaxed)) {
    }
    return left > 0;
  }
  void give_back(std::uint64_t events) { left_.fetch_add(limited_ ? events : 0, std::memory_order_relaxed); }

 private:
  const bool limited_;
  std::atomic<std::uint64_t> left_;
};

class Window {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t events_max = 4096;  // a power of two: slots are indexed by offset
  static constexpr std::size_t bytes_max = std::size_t{16} << 20;  // of retained lines

  // Events from `start.offset` on; earlier ones of the first entry are passed over.
  Window(const Cursor& start, TypeFilter filter);

  // Room for one more entry. An entry larger than bytes_max is taken when the window is empty.
  [[nodiscard]] bool wants_entry() const { return entries_.empty() || bytes_ < bytes_max; }
  // Entries come in order and without gaps; the first may begin before the start.
  void add(DecodedEntry entry);
  // Takes on as many events as there are slots and budget for. Those that the filter leaves out are done at
  // once and cost no budget.
  void admit(Budget& budget);

  struct Event {
    Offset offset;
    std::string_view line;      // without its newline; valid until the event is done
    std::uint32_t attempt = 1;  // counted from 1
  };
  // The next event that may start; it is in flight from now on. Retries count when they are due.
  [[nodiscard]] std::optional<Event> take(Clock::time_point now);

  // What became of an event in flight.
  void done(Offset offset);
  void retry(Offset offset, Clock::time_point due, std::uint32_t attempts_used);  // its key waits until then
  void put_back(Offset offset);  // as if it had never been taken

  [[nodiscard]] bool in_flight(Offset offset) const;
  [[nodiscard]] std::string_view line(Offset offset) const;  // of an event in flight
  [[nodiscard]] std::uint32_t attempts_used(Offset offset) const;
  [[nodiscard]] std::size_t in_flight() const { return in_flight_; }
  // Taken on and not done.
  [[nodiscard]] std::uint64_t open() const { return open_; }
  [[nodiscard]] std::uint64_t done_count() const { return done_count_; }  // without those left out
  [[nodiscard]] bool has_ready() const { return ready_count_ > 0; }
  [[nodiscard]] std::optional<Clock::time_point> next_due() const;
  // Everything that was added is done.
  [[nodiscard]] bool empty() const { return entries_.empty(); }

  // The longest finished prefix.
  [[nodiscard]] const Cursor& finished() const { return finished_; }

 private:
  enum class State : std::uint8_t { unused, waiting, ready, in_flight, backing_off, done };
  struct Slot {
    std::string_view line;
    Offset offset;
    std::uint64_t key = 0;
    std::uint32_t next_of_key = 0;  // slot that waits for this one
    std::uint32_t attempts_used = 0;
    State state = State::unused;
  };
  static constexpr std::uint32_t none = 0xFFFFFFFF;

  // From a key to the last slot of its chain; open addressing, at most half full.
  class Tails {
   public:
    Tails() : keys_(size), tails_(size, none) {}
    // The place of the key, or the empty one where it belongs.
    [[nodiscard]] std::uint32_t& at(std::uint64_t key);
    void erase(std::uint64_t key);

   private:
    static constexpr std::size_t size = 2 * events_max;
    [[nodiscard]] static std::size_t home(std::uint64_t key) { return key & (size - 1); }
    [[nodiscard]] std::size_t find(std::uint64_t key) const;
    std::vector<std::uint64_t> keys_;
    std::vector<std::uint32_t> tails_;
  };

  [[nodiscard]] static std::uint32_t index(Offset offset) {
    return static_cast<std::uint32_t>(offset.value & (events_max - 1));
  }
  [[nodiscard]] Slot& flying(Offset offset);
  [[nodiscard]] bool admit_line(std::string_view line, Budget& budget);
  void make_ready(std::uint32_t slot);
  void advance();

  TypeFilter filter_;
  std::vector<Slot> slots_;
  Tails tails_;
  std::vector<std::uint32_t> ready_;  // a ring of slots, oldest first
  std::size_t ready_head_ = 0;
  std::size_t ready_count_ = 0;
  using Due = std::pair<Clock::time_point, Offset>;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;

  std::deque<DecodedEntry> entries_;  // not wholly finished
  std::size_t bytes_ = 0;
  std::size_t admitting_ = 0;  // index of the entry that is being taken on
  std::size_t line_at_ = 0;    // in its lines
  Offset next_;                // offset of the line there
  Offset end_;                 // of what was added
  Cursor finished_;
  std::size_t in_flight_ = 0;
  std::uint64_t open_ = 0;
  std::uint64_t done_count_ = 0;
  std::string scratch_;
};

}  // namespace continuum
