// Handles the events of one partition: decodes entries, keeps the window over them, and lets every handler
// that subscribes take what it may (DESIGN: worker).
#include "continuum/commit.hpp"
#include "continuum/decode_pool.hpp"
#include "continuum/error.hpp"
#include "continuum/sink.hpp"
#include "continuum/subscription.hpp"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/post.hpp>

#include <algorithm>
#include <deque>

namespace continuum {

namespace {

// Below this a thread's wake-up takes longer than decoding here.
constexpr std::size_t decode_here_bytes_max = 8 << 10;
constexpr std::size_t decoding_bytes_max = 512 << 10;
constexpr std::size_t uncommitted_bytes_max = std::size_t{16} << 20;  // of letters and outputs

class Dispatcher final : public Sink, public std::enable_shared_from_this<Dispatcher> {
 public:
  Dispatcher(Workplace& workplace, const Tenure& tenure, const Cursor& start, Wake& wake);

  [[nodiscard]] bool wants_entry() const override;
  void give(FetchedEntry entry) override;
  void pump() override;
  [[nodiscard]] std::optional<Clock::time_point> next_time() const override;
  void finish() override { site_.finishing = true; }
  [[nodiscard]] bool running() const override;
  asio::awaitable<void> end(Leave leave) override;
  [[nodiscard]] Cursor finished() const override { return site_.window.finished(); }
  [[nodiscard]] bool empty() const override { return site_.window.finished().offset == given_; }
  [[nodiscard]] bool settled() const override { return site_.window.open() == 0; }
  [[nodiscard]] Doing doing() const override;
  [[nodiscard]] bool halted() const override { return site_.halted.has_value(); }
  void pause(const std::string& why) override;
  void hold_back(const std::string& why) override;
  void collect(Commit& commit) override;
  void committed() override { site_.held.committed(); }
  [[nodiscard]] bool wants_commit() const override;
  [[nodiscard]] HeldEvents* held() override { return &site_.held; }
  [[nodiscard]] bool releasing() const override;
  void set_handlers(const HandlerSet& handlers) override;
  [[nodiscard]] std::uint32_t busy_permille() override;

 private:
  // An entry on its way through a decoding thread.
  struct Decoding {
    FetchedEntry fetched;
    DecodedEntry decoded;
    std::exception_ptr error;
    bool ready = false;
  };
  void decode(const std::shared_ptr<Decoding>& decoding);
  void let_go();
  void measure();

  Workplace& place_;
  const Tenure& tenure_;
  Wake& wake_;
  Site site_;
  std::vector<std::shared_ptr<Subscription>> subscriptions_;  // by name of the handler
  std::vector<std::shared_ptr<Subscription>> leaving_;        // their handlers are gone
  Signal left_;
  std::deque<std::shared_ptr<Decoding>> decoding_;
  std::size_t decoding_bytes_ = 0;
  Offset given_;
  std::string paused_;
  std::string held_back_;
  SystemTime paused_since_{};

  Clock::time_point measured_at_ = Clock::now();
  Clock::time_point told_at_ = measured_at_;
  Clock::duration busy_{};
};

Dispatcher::Dispatcher(Workplace& workplace, const Tenure& tenure, const Cursor& start, Wake& wake)
    : place_(workplace),
      tenure_(tenure),
      wake_(wake),
      site_{workplace,
            tenure,
            wake,
            Window(start, workplace.options.dispatch,
                   workplace.replay != nullptr ? Gaps::left_out : Gaps::none),
            HeldEvents(workplace.options.held_events_max),
            {},
            {},
            0,
            LocatedLine(tenure.partition),
            false,
            false,
            {}},
      left_(workplace.executor),
      given_(start.offset) {
  set_handlers(workplace.handlers);
}

// --- handlers

void Dispatcher::set_handlers(const HandlerSet& handlers) {
  const auto named = [](const std::string& name) {
    return [&name](const auto& subscription) { return subscription->spec().name == name; };
  };
  for (const auto& subscription : subscriptions_) {
    const bool stays = std::any_of(handlers.begin(), handlers.end(), [&](const auto& handler) {
      return handler->spec.name == subscription->spec().name;
    });
    if (!stays) {
      subscription->retire();
    }
  }
  for (const auto& handler : handlers) {
    const auto found = std::find_if(subscriptions_.begin(), subscriptions_.end(), named(handler->spec.name));
    if (found == subscriptions_.end()) {
      const auto behind = std::find_if(subscriptions_.begin(), subscriptions_.end(), [&](const auto& one) {
        return one->spec().name > handler->spec.name;
      });
      subscriptions_.insert(behind, std::make_shared<Subscription>(site_, handler));
    } else {
      (*found)->set_handler(handler);
    }
  }
  wake_.notify();
}

// Those that are retired and have nothing left to do.
void Dispatcher::let_go() {
  for (auto at = subscriptions_.begin(); at != subscriptions_.end();) {
    if (!(*at)->retired() || (*at)->open()) {
      ++at;
      continue;
    }
    leaving_.push_back(std::move(*at));
    at = subscriptions_.erase(at);
    leaving_.back()->leave_window();
    asio::co_spawn(
        place_.executor,
        [](std::shared_ptr<Dispatcher> self, std::shared_ptr<Subscription> gone) -> asio::awaitable<void> {
          co_await gone->end(Leave::gently);
          std::erase(self->leaving_, gone);
          self->left_.notify();
        }(shared_from_this(), leaving_.back()),
        asio::detached);
  }
}

bool Dispatcher::running() const {
  return std::any_of(subscriptions_.begin(), subscriptions_.end(),
                     [](const auto& subscription) { return subscription->running(); });
}

asio::awaitable<void> Dispatcher::end(Leave leave) {
  site_.finishing = true;
  for (const auto& subscription : subscriptions_) {
    co_await subscription->end(leave);
  }
  while (!leaving_.empty()) {
    co_await left_.wait();
  }
  place_.budget.give_back(site_.window.open());
}

// --- entries

bool Dispatcher::wants_entry() const {
  return !site_.finishing && !site_.paused && !site_.halted && !place_.budget.spent() &&
         site_.window.wants_entry() && decoding_bytes_ < decoding_bytes_max &&
         site_.held.parked_bytes() + site_.outputs_bytes < uncommitted_bytes_max;
}

void Dispatcher::give(FetchedEntry entry) {
  auto decoding = std::make_shared<Decoding>();
  given_ = entry.entry.next();
  decoding->decoded.id = entry.entry.id;
  decoding->decoded.first = entry.entry.first;
  decoding->decoded.events = entry.entry.events;
  decoding->fetched = std::move(entry);
  decoding_bytes_ += decoding->fetched.entry.frame.size();
  decoding_.push_back(decoding);
  decode(decoding);
}

void Dispatcher::decode(const std::shared_ptr<Decoding>& decoding) {
  const auto work = [topic = std::string_view(place_.topic.name),
                     partition = tenure_.partition](Decoding& d) {
    try {
      decode_entry(d.fetched, topic, partition, d.decoded.lines);
    } catch (...) {
      d.error = std::current_exception();
    }
  };
  const Entry& entry = decoding->fetched.entry;
  if (entry.frame.size() <= decode_here_bytes_max) {
    work(*decoding);
    decoding->ready = true;
    return;
  }
  // We may be gone before the thread is done; the workplace is not, because it waits for its threads.
  place_.pool.submit([alive = weak_from_this(), decoding, work, executor = place_.executor] {
    work(*decoding);
    asio::post(executor, [alive, decoding] {
      decoding->ready = true;
      if (const auto self = alive.lock()) {
        self->wake_.notify();
      }
    });
  });
}

void Dispatcher::pump() {
  measure();
  while (!decoding_.empty() && decoding_.front()->ready && site_.window.wants_entry()) {
    const std::shared_ptr<Decoding> decoding = std::move(decoding_.front());
    decoding_.pop_front();
    decoding_bytes_ -= decoding->fetched.entry.frame.size();
    if (decoding->error) {
      std::rethrow_exception(decoding->error);
    }
    site_.window.add(std::move(decoding->decoded));
  }
  if (!site_.finishing && !site_.paused && !site_.halted) {
    site_.window.admit(place_.budget);
  }
  for (const auto& subscription : subscriptions_) {
    subscription->pump();
  }
  let_go();
}

std::optional<Clock::time_point> Dispatcher::next_time() const {
  std::optional<Clock::time_point> next;
  for (const auto& subscription : subscriptions_) {
    if (const auto time = subscription->next_time(); time && (!next || *time < *next)) {
      next = time;
    }
  }
  return next;
}

// --- commits

void Dispatcher::collect(Commit& commit) {
  site_.held.collect(commit);
  const auto end = site_.outputs.lower_bound(commit.cursor.offset);
  for (auto at = site_.outputs.begin(); at != end; ++at) {
    std::string& all = commit.outputs.emplace_back();
    for (const auto& [handler, text] : at->second) {
      all += text;
    }
    site_.outputs_bytes -= all.size();
  }
  site_.outputs.erase(site_.outputs.begin(), end);
  for (std::string& text : std::exchange(site_.released_outputs, {})) {
    commit.outputs.push_back(std::move(text));
  }
}

bool Dispatcher::releasing() const {
  return site_.held.discarding() ||
         std::any_of(subscriptions_.begin(), subscriptions_.end(), [&](const auto& subscription) {
           return site_.held.releasing(subscription->spec().name);
         });
}

bool Dispatcher::wants_commit() const {
  return site_.held.waits_for_commit() || !site_.released_outputs.empty();
}

// --- what it is doing

void Dispatcher::pause(const std::string& why) {
  if (paused_.empty() && !why.empty()) {
    paused_since_ = std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now());
  }
  paused_ = why;
  site_.paused = !paused_.empty() || !held_back_.empty();
}

void Dispatcher::hold_back(const std::string& why) {
  held_back_ = why;
  site_.paused = !paused_.empty() || !held_back_.empty();
}

Doing Dispatcher::doing() const {
  if (site_.halted) {
    return *site_.halted;
  }
  Doing doing;
  doing.at = site_.window.finished().offset;
  if (!paused_.empty()) {
    doing.state = "paused";
    doing.since = paused_since_;
    doing.error = paused_;
    return doing;
  }
  if (!held_back_.empty()) {
    doing.state = "full";
    doing.error = held_back_;
    return doing;
  }
  if (site_.held.full()) {
    doing.state = "full";
    doing.error = fmt::format("{} events wait behind held keys, which is the limit", site_.held.letters());
    return doing;
  }
  std::optional<Doing> worst;
  for (const auto& subscription : subscriptions_) {
    const auto trouble = subscription->trouble();
    if (trouble && (!worst || (worst->state != "down" && trouble->state == "down"))) {
      worst = trouble;
    }
  }
  if (worst) {
    return *worst;
  }
  std::optional<Window::Running> longest;
  for (const auto& subscription : subscriptions_) {
    const auto running = subscription->longest_running();
    if (running && (!longest || running->since < longest->since)) {
      longest = running;
      doing.handler = subscription->spec().name;
    }
  }
  if (longest) {
    doing.at = longest->offset;
    doing.since = std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now() -
                                                             (Clock::now() - longest->since));
  }
  return doing;
}

// Called whenever something may have begun or ended.
void Dispatcher::measure() {
  const auto now = Clock::now();
  if (running()) {
    busy_ += now - measured_at_;
  }
  measured_at_ = now;
}

std::uint32_t Dispatcher::busy_permille() {
  measure();
  const auto time = std::chrono::duration<double>(measured_at_ - told_at_).count();
  const auto busy = std::chrono::duration<double>(busy_).count();
  told_at_ = measured_at_;
  busy_ = {};
  return time <= 0 ? 0 : static_cast<std::uint32_t>(std::clamp(busy / time, 0.0, 1.0) * 1000);
}

}  // namespace

std::shared_ptr<Sink> make_dispatcher(Workplace& place, const Tenure& tenure, const Cursor& start,
                                      Wake& wake) {
  return std::make_shared<Dispatcher>(place, tenure, start, wake);
}

}  // namespace continuum
