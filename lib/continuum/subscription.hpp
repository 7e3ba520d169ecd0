// One handler's share of one partition: which event it gets next, and what its verdicts mean for the event,
// for its key (G6) and for the handler itself, which may be down. How the handler is run is a Runner's.
// Private to the library: includes Asio.
#pragma once

#include "continuum/handler_set.hpp"
#include "continuum/held_events.hpp"
#include "continuum/sink.hpp"
#include "continuum/window.hpp"

#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>

namespace continuum {

class Runner;

// An event that may be what a handler is down by is due this long after it is tried again: others come first,
// and show whether it works.
inline constexpr Milliseconds behind_others{20};

// What the subscriptions of one partition have in common.
struct Site {
  Workplace& place;
  const Tenure& tenure;
  Wake& wake;
  Window window;
  HeldEvents held;
  // What handlers emitted, by the event that they had: one text per handler, in the order of their names.
  std::map<Offset, std::map<std::string, std::string>> outputs;
  std::vector<std::string> released_outputs;  // of letters, whose events the cursor has passed
  std::size_t outputs_bytes = 0;              // of those in `outputs`
  LocatedLine located;
  bool finishing = false;  // nothing more is started
  bool paused = false;     // for now
  std::optional<Doing> halted;

  // Where the log has it.
  [[nodiscard]] Partition partition_of(const Window::Event& event) const {
    return event.from.value_or(tenure.partition);
  }
  // As handlers get it.
  void append(std::string& out, const Window::Event& event) const {
    (event.from ? LocatedLine(*event.from) : located).append(out, event.offset, event.line);
  }
};

class Subscription {
 public:
  // The handler is read anew at every start of a process: set_handler() changes it.
  Subscription(Site& site, std::shared_ptr<Handler> handler);
  ~Subscription();
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;

  // --- for the partition

  void pump();
  [[nodiscard]] std::optional<Clock::time_point> next_time() const;
  [[nodiscard]] bool running() const;
  [[nodiscard]] std::optional<Doing> trouble() const;  // nothing: none
  [[nodiscard]] std::optional<Window::Running> longest_running() const;
  // What runs goes on with the handler as it was; everything after it with this one.
  void set_handler(std::shared_ptr<Handler> handler);
  // Takes no more events. Once open() is false it may leave the window and be ended.
  void retire();
  [[nodiscard]] bool retired() const { return retired_; }
  [[nodiscard]] bool open() const;
  void leave_window();
  asio::awaitable<void> end(Leave leave);

  // --- for its runner

  [[nodiscard]] const HandlerSpec& spec() const { return handler_->spec; }
  [[nodiscard]] const std::shared_ptr<Handler>& handler() const { return handler_; }
  [[nodiscard]] Site& site() const { return site_; }
  [[nodiscard]] bool may_start() const;
  [[nodiscard]] std::optional<Window::Event> take(Clock::time_point now);
  [[nodiscard]] bool has_ready() const;
  [[nodiscard]] bool in_flight(Offset offset) const;
  [[nodiscard]] std::size_t in_flight() const;
  [[nodiscard]] std::uint64_t open_events() const { return Window::open(lane_); }
  // Of an event in flight.
  [[nodiscard]] std::uint32_t attempts_used(Offset offset) const;
  [[nodiscard]] std::string_view line(Offset offset) const;

  // What the handler said about an event in flight. `why` is for people, and may hold any bytes. `output`:
  // the events that it emitted, as final lines. `pause`: how long it asks to be left alone with this event.
  void settle(Offset offset, Verdict verdict, std::string_view why, std::string output = {},
              std::optional<Milliseconds> pause = std::nullopt);
  void put_back(Offset offset);                             // as if it had never been taken
  void try_again_at(Offset offset, Clock::time_point due);  // no attempt is counted
  // Nothing can be handled now; no event is to blame. Its events are put back by the runner.
  void set_down(std::string_view why);
  void set_up();
  [[nodiscard]] Clock::time_point down_until() const { return down_until_; }
  [[nodiscard]] std::string place_of(Offset offset) const;  // for messages
  [[nodiscard]] std::string place_of_all() const;           // likewise: handler, topic, partition

 private:
  // An event that failed and is not done.
  struct Trouble {
    SystemTime since;
    std::uint32_t attempts = 0;  // that counted
    std::uint32_t tries = 0;     // all of them
    std::string error;
    std::optional<HandlerKey> letter = {};  // that is handled again; none: an event that came
  };
  // A letter that is being handled again.
  struct Release {
    HandlerKey whose;
    std::string event;
    std::uint32_t attempts_before = 0;
    std::optional<Partition> from = {};
  };

  void start_runner();
  [[nodiscard]] std::string named(std::string where) const;
  [[nodiscard]] std::optional<Window::Event> take_event(Clock::time_point now);
  [[nodiscard]] std::optional<Window::Event> take_letter(Clock::time_point now);
  void forget_troubles();
  // A letter of a key that was moved here has an offset of another partition's log: what has the same one
  // waits until the other is done with, as verdicts name offsets.
  [[nodiscard]] bool is_taken(const DeadLetter& letter) const;
  [[nodiscard]] bool is_taken_by_letter(Offset offset) const;
  [[nodiscard]] bool makes_outputs_fewer(Offset offset) const;
  [[nodiscard]] bool held_back(const Window::Event& event, Clock::time_point now);
  [[nodiscard]] bool left_out(const Window::Event& event);
  void done_in_replay(Offset offset);
  void give_up(Offset offset, const Trouble& trouble);
  void give_up_in_replay(Offset offset, const Trouble& trouble);
  void fail_letter(Offset offset, const Trouble& trouble);
  void halt(Offset offset, const Trouble& trouble);
  [[nodiscard]] DeadLetter letter_of(Offset offset, LetterState state) const;
  [[nodiscard]] Milliseconds backoff(std::uint32_t tries);
  [[nodiscard]] bool is_letter(Offset offset) const { return releases_.contains(offset); }
  void wait_until(Offset offset, Clock::time_point due, std::uint32_t attempts);

  Site& site_;
  std::shared_ptr<Handler> handler_;
  std::shared_ptr<Handler> next_handler_;  // when what runs has ended
  Window::Lane& lane_;
  std::shared_ptr<Runner> runner_;
  bool retired_ = false;
  std::size_t ending_ = 0;  // former runners that have not ended
  Signal ended_;
  std::map<Offset, Trouble> troubles_;
  std::map<Offset, Release> releases_;  // running
  std::optional<Doing> down_;
  std::uint32_t downs_ = 0;
  Clock::time_point down_until_ = Clock::time_point::min();
  Clock::time_point next_start_ = Clock::time_point::min();  // by its rate
  Clock::time_point pumped_at_ = Clock::time_point::min();
  bool letters_turn_ = true;
  std::minstd_rand jitter_{std::random_device{}()};
};

}  // namespace continuum
