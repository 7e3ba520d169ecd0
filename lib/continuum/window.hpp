// The events of one partition that are being handled: for each handler which may start now, and up to where
// all handlers are done with all of them.
//
// A lane is one handler's order: of one key at most one event is in flight in it, and they start in the order
// of their offsets; different keys overtake each other. An event passes the lanes that take it one after the
// other, or all at a time. No allocation, copy or lookup by string per event: slots lie in a ring indexed by
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
#include <memory>
#include <optional>
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

// In which order the handlers of one event get it.
enum class Dispatch : std::uint8_t {
  sequence,  // by name, each when the one before is done with it
  parallel,  // at once
};

// Whether the offsets of what is handled follow each other.
enum class Gaps : std::uint8_t {
  none,
  left_out,  // events that nobody chose: they count as done
};

class Window {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t events_max = 4096;                  // slots are indexed by offset
  static constexpr std::size_t bytes_max = std::size_t{16} << 20;  // of retained lines
  class Lane;

  // Events from `start.offset` on; earlier ones of the first entry are passed over.
  Window(const Cursor& start, Dispatch dispatch, Gaps gaps = Gaps::none);
  ~Window();
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;

  // Lanes are ordered by name. A new one takes events from next_admitted() on. Valid until it is removed.
  Lane& add_lane(std::string name, TypeFilter filter);
  // The filter holds from the next event on; those that the lane has taken stay its own.
  void set_filter(Lane& lane, TypeFilter filter);
  // It takes no more events.
  void retire(Lane& lane);
  // It has none: open(lane) is 0.
  void remove_lane(Lane& lane);

  // Room for one more entry. An entry larger than bytes_max is taken when the window is empty.
  [[nodiscard]] bool wants_entry() const { return entries_.empty() || bytes_ < bytes_max; }
  // Entries come in order, and without gaps unless they are left out; the first may begin before the start.
  void add(DecodedEntry entry);
  // Takes on as many events as there are slots and budget for. Those that no lane takes are done at once and
  // cost no budget.
  void admit(Budget& budget);

  struct Event {
    Offset offset;
    std::string_view line;       // without its newline; valid until every lane is done with the event
    std::uint32_t attempt = 1;   // counted from 1
    std::uint64_t key_hash = 0;  // hash_of_key()
    // The partition whose log has it; none: the window's.
    std::optional<Partition> from = {};
  };
  // The lane's next event that may start, lowest offset first; it is in flight from now on. Retries count
  // when they are due.
  [[nodiscard]] std::optional<Event> take(Lane& lane, Clock::time_point now);

  // What became of an event in flight.
  enum class Done : std::uint8_t { by_lane, by_all };
  Done done(Lane& lane, Offset offset);
  // Its key waits until then.
  void retry(Lane& lane, Offset offset, Clock::time_point due, std::uint32_t attempts_used);
  void put_back(Lane& lane, Offset offset);  // as if it had never been taken

  [[nodiscard]] static bool in_flight(const Lane& lane, Offset offset);
  [[nodiscard]] bool key_in_flight(const Lane& lane, std::string_view key) const;
  [[nodiscard]] std::string_view line(const Lane& lane, Offset offset) const;  // of an event in flight
  [[nodiscard]] std::uint64_t key_hash(Offset offset) const;                   // of an event that is not done
  [[nodiscard]] static std::uint32_t attempts_used(const Lane& lane, Offset offset);
  [[nodiscard]] static std::size_t in_flight(const Lane& lane);
  [[nodiscard]] static std::uint64_t open(const Lane& lane);  // events that it has taken and is not done with
  [[nodiscard]] static bool has_ready(const Lane& lane);
  [[nodiscard]] static std::optional<Clock::time_point> next_due(const Lane& lane);
  struct Running {
    Offset offset;
    Clock::time_point since;
  };
  // The one that is in flight for longest.
  [[nodiscard]] static std::optional<Running> longest_running(const Lane& lane);

  // Taken on by some lane and not done.
  [[nodiscard]] std::uint64_t open() const { return open_; }
  // Everything that was added is done.
  [[nodiscard]] bool empty() const { return entries_.empty(); }
  // The longest finished prefix.
  [[nodiscard]] const Cursor& finished() const { return finished_; }

 private:
  struct Slot {
    std::string_view line;
    Offset offset;
    std::uint64_t key = 0;
    std::uint32_t pending = 0;  // lanes that are not done with it
  };

  [[nodiscard]] static std::uint32_t index(Offset offset) {
    return static_cast<std::uint32_t>(offset.value & (events_max - 1));
  }
  [[nodiscard]] bool admit_line(std::string_view line, Budget& budget);
  void pass_gap(Offset until);
  void open_next(const Lane& lane, std::uint32_t slot);
  void advance();

  const Dispatch dispatch_;
  const Gaps gaps_;
  std::vector<std::unique_ptr<Lane>> lanes_;  // by name
  std::vector<Slot> slots_;
  std::deque<DecodedEntry> entries_;  // not wholly finished
  std::size_t bytes_ = 0;
  std::size_t admitting_ = 0;  // index of the entry that is being taken on
  std::size_t line_at_ = 0;    // in its lines
  Offset next_;                // offset of the line there
  Offset end_;                 // of what was added
  Cursor finished_;
  std::uint64_t open_ = 0;
  std::string scratch_;
};

}  // namespace continuum
