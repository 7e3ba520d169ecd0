// What both modes of handlers have in common: the window over the partition's events, verdicts and their
// consequences. Private to the library: includes Asio.
#pragma once

#include "continuum/handler.hpp"
#include "continuum/sink.hpp"

#include <deque>
#include <map>
#include <random>

namespace continuum {

class HandlerSink : public Sink {
 public:
  HandlerSink(Workplace& workplace, const Tenure& tenure, const Cursor& start, Wake& wake);

  [[nodiscard]] bool wants_entry() const final;
  void give(FetchedEntry entry) final;
  void pump() final;
  [[nodiscard]] std::optional<Clock::time_point> next_time() const final;
  void finish() override { finishing_ = true; }
  [[nodiscard]] Cursor finished() const final { return window_.finished(); }
  [[nodiscard]] bool empty() const final { return window_.finished().offset == given_; }
  [[nodiscard]] bool settled() const final { return window_.open() == 0; }
  [[nodiscard]] Doing doing() const final;
  [[nodiscard]] bool halted() const final { return halted_.has_value(); }

 protected:
  // Called by pump(): events that are ready may be taken while may_start().
  virtual void start_ready() = 0;
  [[nodiscard]] bool may_start() const;

  // What the handler said about an event in flight. `why` is for people; it may hold any bytes.
  void settle(Offset offset, Verdict verdict, std::string_view why);
  // Nothing can be handled now; no event is to blame. The window's events are put back by the caller.
  void set_down(std::string_view why);
  void set_up();
  [[nodiscard]] Clock::time_point down_until() const { return down_until_; }
  [[nodiscard]] std::string place_of(Offset offset) const;  // for messages
  void give_budget_back() { place_.budget.give_back(window_.open()); }

  Workplace& place_;
  const Tenure& tenure_;
  Wake& wake_;
  Window window_;
  LocatedLine located_;
  bool finishing_ = false;

 private:
  // An entry on its way through a decoding thread.
  struct Decoding {
    FetchedEntry fetched;
    DecodedEntry decoded;
    std::exception_ptr error;
    bool ready = false;
  };
  // An event that failed and is not done.
  struct Trouble {
    SystemTime since;
    std::uint32_t attempts = 0;  // that counted
    std::uint32_t tries = 0;     // all of them
    std::string error;
  };
  void decode(const std::shared_ptr<Decoding>& decoding);
  void try_again(Offset offset, Trouble& trouble);
  void halt(Offset offset, const Trouble& trouble);
  [[nodiscard]] Milliseconds backoff(std::uint32_t tries);

  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // ends with us
  std::deque<std::shared_ptr<Decoding>> decoding_;
  std::size_t decoding_bytes_ = 0;
  Offset given_;
  std::map<Offset, Trouble> troubles_;
  std::optional<Doing> halted_;
  std::optional<Doing> down_;
  std::uint32_t downs_ = 0;
  Clock::time_point down_until_ = Clock::time_point::min();
  std::minstd_rand jitter_{std::random_device{}()};
};

}  // namespace continuum
