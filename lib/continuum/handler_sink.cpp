#include "continuum/handler_sink.hpp"

#include "continuum/decode_pool.hpp"
#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/names.hpp"

#include <asio/post.hpp>

#include <algorithm>

namespace continuum {

namespace {

// Below this a thread's wake-up takes longer than decoding here.
constexpr std::size_t decode_here_bytes_max = 8 << 10;
constexpr std::size_t decoding_bytes_max = 512 << 10;
constexpr std::size_t why_bytes_max = 300;

SystemTime system_now() {
  return std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now());
}

}  // namespace

HandlerSink::HandlerSink(Workplace& workplace, const Tenure& tenure, const Cursor& start, Wake& wake)
    : place_(workplace),
      tenure_(tenure),
      wake_(wake),
      window_(start, TypeFilter(workplace.options.types)),
      located_(tenure.partition),
      given_(start.offset) {}

// --- entries

bool HandlerSink::wants_entry() const {
  return !finishing_ && !halted_ && !place_.budget.spent() && window_.wants_entry() &&
         decoding_bytes_ < decoding_bytes_max;
}

void HandlerSink::give(FetchedEntry entry) {
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

void HandlerSink::decode(const std::shared_ptr<Decoding>& decoding) {
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
  // The sink may be gone before the thread is done; the workplace is not, because it waits for its threads.
  auto alive = std::weak_ptr<bool>(alive_);
  place_.pool.submit([this, alive, decoding, work, executor = place_.executor] {
    work(*decoding);
    asio::post(executor, [this, alive, decoding] {
      decoding->ready = true;
      if (!alive.expired()) {
        wake_.notify();
      }
    });
  });
}

bool HandlerSink::may_start() const {
  return !finishing_ && !halted_ && tenure_.holds() && Clock::now() >= down_until_;
}

void HandlerSink::pump() {
  while (!decoding_.empty() && decoding_.front()->ready && window_.wants_entry()) {
    const std::shared_ptr<Decoding> decoding = std::move(decoding_.front());
    decoding_.pop_front();
    decoding_bytes_ -= decoding->fetched.entry.frame.size();
    if (decoding->error) {
      std::rethrow_exception(decoding->error);
    }
    window_.add(std::move(decoding->decoded));
  }
  if (!finishing_ && !halted_) {
    window_.admit(place_.budget);
  }
  start_ready();
}

std::optional<Clock::time_point> HandlerSink::next_time() const {
  if (finishing_ || halted_) {
    return std::nullopt;
  }
  auto next = window_.next_due();
  if (down_until_ > Clock::now()) {
    next = std::max(down_until_, next.value_or(down_until_));
  }
  return next;
}

// --- verdicts

std::string HandlerSink::place_of(Offset offset) const {
  return fmt::format("{}, offset {}", place(place_.topic.name, tenure_.partition), offset);
}

void HandlerSink::settle(Offset offset, Verdict verdict, std::string_view why) {
  if (verdict == Verdict::done) {
    window_.done(offset);
    ++place_.handled;
    if (!troubles_.empty()) {
      troubles_.erase(offset);
    }
    return;
  }
  check(verdict != Verdict::down, "a handler that is down says nothing about an event");
  auto [found, first] = troubles_.try_emplace(offset);
  Trouble& trouble = found->second;
  if (first) {
    trouble.since = system_now();
  }
  ++trouble.tries;
  trouble.attempts += verdict == Verdict::later ? 0 : 1;
  trouble.error = printable(why.substr(0, why_bytes_max));
  const bool used_up = verdict == Verdict::retry && trouble.attempts >= place_.options.attempts_max;
  if (verdict == Verdict::fail || used_up) {
    halt(offset, trouble);
    return;
  }
  if (first) {
    place_.say(fmt::format("{}: {}; trying again", place_of(offset), trouble.error));
  }
  try_again(offset, trouble);
}

void HandlerSink::try_again(Offset offset, Trouble& trouble) {
  window_.retry(offset, Clock::now() + backoff(trouble.tries), trouble.attempts);
}

Milliseconds HandlerSink::backoff(std::uint32_t tries) {
  const auto min = static_cast<double>(place_.options.backoff_min.count());
  const auto max = static_cast<double>(place_.options.backoff_max.count());
  const double doubled =
      std::min(max, min * static_cast<double>(std::uint64_t{1} << std::min(tries - 1, 40U)));
  // Handlers that failed together should not all come back together.
  std::uniform_real_distribution<double> spread(0.5, 1.0);
  return Milliseconds(static_cast<Milliseconds::rep>(std::max(min * 0.5, doubled * spread(jitter_))));
}

void HandlerSink::halt(Offset offset, const Trouble& trouble) {
  if (halted_) {  // by another event, while this one ran
    window_.retry(offset, Clock::time_point::max(), trouble.attempts);
    return;
  }
  const std::string_view line = window_.line(offset);
  const Attributes attributes = attributes_of(line);
  std::string scratch;
  const std::string key = printable(key_of(attributes, scratch).substr(0, why_bytes_max));
  Doing doing;
  doing.state = "halted";
  doing.at = offset;
  doing.since = system_now();
  doing.attempt = trouble.attempts;
  doing.error = trouble.error;
  place_.say(
      fmt::format("{}, id {}, key {}: gave up after {} attempt{}: {}. The partition is halted for group {}: "
                  "its later events "
                  "wait. Repair the handler and start the worker again",
                  place_of(offset), printable(attributes.id.substr(0, why_bytes_max)), key, trouble.attempts,
                  trouble.attempts == 1 ? "" : "s", trouble.error, place_.options.group));
  halted_ = std::move(doing);
  // It stays open for ever: nothing behind it of its key starts, and no commit passes it.
  window_.retry(offset, Clock::time_point::max(), trouble.attempts);
  wake_.notify();
}

void HandlerSink::set_down(std::string_view why) {
  ++downs_;
  down_until_ = Clock::now() + backoff(downs_);
  Doing doing;
  doing.state = "retrying";
  doing.at = window_.finished().offset;
  doing.since = down_ ? down_->since : system_now();
  doing.attempt = 0;
  doing.error = printable(why.substr(0, why_bytes_max));
  if (!down_ || down_->error != doing.error) {
    place_.say(
        fmt::format("{}: the handler is down: {}. No event is to blame; the partition waits and tries again",
                    place(place_.topic.name, tenure_.partition), doing.error));
  }
  down_ = std::move(doing);
  wake_.notify();
}

void HandlerSink::set_up() {
  if (down_) {
    place_.say(fmt::format("{}: the handler works again", place(place_.topic.name, tenure_.partition)));
    down_.reset();
  }
  downs_ = 0;
}

Doing HandlerSink::doing() const {
  if (halted_) {
    return *halted_;
  }
  if (down_) {
    return *down_;
  }
  Doing doing;
  doing.at = window_.finished().offset;
  if (!troubles_.empty()) {
    const auto& [offset, trouble] = *troubles_.begin();
    doing.state = "retrying";
    doing.at = offset;
    doing.since = trouble.since;
    doing.attempt = trouble.attempts;
    doing.error = trouble.error;
  }
  return doing;
}

}  // namespace continuum
