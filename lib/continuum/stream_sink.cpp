// Mode stream: one long-lived process, events in as lines, verdicts out as lines, many keys at a time.
#include "continuum/error.hpp"
#include "continuum/handler_sink.hpp"
#include "continuum/names.hpp"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/write.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace continuum {

namespace {

constexpr std::size_t unanswered_max = 1024;
constexpr std::size_t batch_bytes_max = 128 << 10;
constexpr std::size_t read_bytes = 64 << 10;
constexpr std::size_t verdict_bytes_max = 4 << 10;
constexpr int pipe_bytes = 1 << 20;
constexpr std::uint32_t bad_lines_told_max = 10;  // per process
constexpr Milliseconds gentle{5'000};
constexpr Milliseconds silence_told_after{10'000};
constexpr std::string_view buffered_hint =
    "is its output buffered? Try python -u, stdbuf -oL, or fflush after each verdict";

// Both ends close on exec; ours does not block. The child's end does, as programs expect.
struct Pipe {
  int read = -1;
  int write = -1;

  static Pipe make() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
      fail(ErrorKind::server, "cannot make a pipe to the handler: {}", std::strerror(errno));
    }
    // Fewer, larger turns between the two processes. The system may refuse: then it stays as it is.
    ::fcntl(ends[1], F_SETPIPE_SZ, pipe_bytes);
    return {ends[0], ends[1]};
  }
};

// One run of the handler.
struct Run {
  Run(const asio::any_io_executor& executor, std::unique_ptr<Process> p, int input, int output)
      : process(std::move(p)),
        events(executor, input),
        verdicts(executor, output),
        changed(executor),
        gone(executor),
        timer(executor) {
    verdicts.non_blocking(true);
  }
  std::unique_ptr<Process> process;
  asio::posix::stream_descriptor events;
  asio::posix::stream_descriptor verdicts;
  Wake changed;              // for the coroutine that writes
  Wake gone;                 // for the one that reads: the process has exited
  asio::steady_timer timer;  // for the one that watches the time
  std::uint64_t answered = 0;
  std::uint32_t bad_lines = 0;
  bool exited = false;
  bool over = false;
  std::string killed_because;  // by us; empty: it ended by itself
};

class StreamSink final : public HandlerSink, public std::enable_shared_from_this<StreamSink> {
 public:
  StreamSink(Workplace& workplace, const Tenure& tenure, const Cursor& start, Wake& wake)
      : HandlerSink(workplace, tenure, start, wake), over_(workplace.executor) {
    variables_.set("CONTINUUM_TOPIC", workplace.topic.name);
    variables_.set("CONTINUUM_GROUP", workplace.options.group);
    variables_.set("CONTINUUM_PARTITION", fmt::to_string(tenure.partition.value));
    variables_.set("CONTINUUM_FENCE", fmt::to_string(tenure.fence.value));
    variables_.set("CONTINUUM_GENERATION", fmt::to_string(tenure.passed.value));
  }

  [[nodiscard]] bool running() const override { return window_.in_flight() > 0; }

  asio::awaitable<void> end(Leave leave) override {
    ending_ = true;
    finishing_ = true;
    if (run_) {
      if (leave == Leave::gently) {
        run_->changed.notify();  // the writer closes its stdin
        const auto deadline = Clock::now() + gentle;
        while (run_ && Clock::now() < deadline) {
          co_await over_.wait_until(deadline);
        }
      }
      if (run_) {
        run_->process->kill_group();
      }
      while (run_) {
        co_await over_.wait();
      }
    }
    give_budget_back();
  }

 private:
  struct Sent {
    Offset offset;
    std::uint64_t number;  // of the sending: an event that is sent again has a new one
  };

  void start_ready() override {
    if (run_) {
      if (window_.has_ready() || window_.next_due()) {
        run_->changed.notify();
      }
      return;
    }
    if (!may_start() || window_.open() == 0) {
      return;
    }
    start();
  }

  void start() {
    std::string why;
    std::unique_ptr<Process> process;
    Pipe in;
    Pipe out;
    try {
      in = Pipe::make();
      out = Pipe::make();
      process = Process::start(*place_.guard, *place_.command, variables_,
                               {.input = in.read, .output = out.write}, why);
    } catch (const Error& error) {
      why = error.message();
    }
    for (const int fd : {in.read, out.write}) {
      ::close(fd);
    }
    if (!process) {
      ::close(in.write);
      ::close(out.read);
      set_down(why);
      return;
    }
    run_ = std::make_shared<Run>(place_.executor, std::move(process), in.write, out.read);
    asio::co_spawn(place_.executor, send(shared_from_this(), run_), asio::detached);
    asio::co_spawn(place_.executor, receive(shared_from_this(), run_), asio::detached);
    asio::co_spawn(place_.executor, watch_exit(run_), asio::detached);
    asio::co_spawn(place_.executor, watch_time(shared_from_this(), run_), asio::detached);
  }

  // --- events to the process

  static asio::awaitable<void> send(std::shared_ptr<StreamSink> self, std::shared_ptr<Run> run) {
    std::string batch;
    while (!run->over) {
      batch.clear();
      self->gather(batch);
      if (!batch.empty()) {
        const auto [error, n] = co_await asio::async_write(run->events, asio::buffer(batch), as_result);
        if (error) {
          break;  // it ended: who reads its verdicts sees that too
        }
        continue;
      }
      if (self->ending_) {
        break;
      }
      co_await run->changed.wait(self->window_.next_due().value_or(Clock::time_point::max()));
    }
    asio::error_code ignored;
    run->events.close(ignored);
  }

  void gather(std::string& batch) {
    const auto now = Clock::now();
    if (!may_start()) {
      return;
    }
    const bool none_before = window_.in_flight() == 0;
    while (batch.size() < batch_bytes_max && window_.in_flight() < unanswered_max) {
      const auto event = window_.take(now);
      if (!event) {
        break;
      }
      located_.append(batch, event->offset, event->line);
      unanswered_.push_back({event->offset, ++sent_});
      sent_of_[event->offset.value & (Window::events_max - 1)] = sent_;
    }
    if (none_before && !batch.empty()) {
      oldest_since_ = now;
    }
  }

  // --- verdicts

  static asio::awaitable<void> receive(std::shared_ptr<StreamSink> self, std::shared_ptr<Run> run) {
    std::string text;
    std::vector<char> buffer(read_bytes);
    for (;;) {
      auto [error, n] = co_await run->verdicts.async_read_some(asio::buffer(buffer), as_result);
      if (error == asio::error::operation_aborted) {
        // It has exited, and something else holds its stdout open: what it wrote still counts.
        n = run->verdicts.read_some(asio::buffer(buffer), error);
      }
      if (error) {
        break;
      }
      if (self->ending_ || !self->tenure_.holds()) {
        self->wake_.notify();
        continue;  // read on, so that the process can end
      }
      self->read_verdicts(*run, text, std::string_view(buffer.data(), n));
      run->changed.notify();
      self->wake_.notify();
    }
    co_await self->conclude(run);
  }

  void read_verdicts(Run& run, std::string& rest, std::string_view bytes) {
    const std::uint64_t before = oldest_number();
    while (!bytes.empty() && run.killed_because.empty()) {
      const std::size_t newline = bytes.find('\n');
      if (newline == std::string_view::npos) {
        rest.append(bytes.substr(0, verdict_bytes_max - std::min(rest.size(), verdict_bytes_max)));
        break;
      }
      const std::string_view line = bytes.substr(0, newline);
      bytes.remove_prefix(newline + 1);
      if (rest.empty()) {
        read_verdict(run, line);
      } else {
        rest.append(line.substr(0, verdict_bytes_max - std::min(rest.size(), verdict_bytes_max)));
        read_verdict(run, rest);
        rest.clear();
      }
    }
    if (oldest_number() != before) {
      oldest_since_ = Clock::now();
    }
  }

  void read_verdict(Run& run, std::string_view line) {
    const auto verdict = parse_verdict(line);
    const auto offset = verdict && verdict->offset ? verdict->offset : oldest();
    if (!verdict || !offset || !window_.in_flight(*offset)) {
      tell_bad_line(run, line, verdict.has_value());
      if (!verdict && offset) {
        // Which event the next line is about cannot be known any more: this process answers no further.
        kill(run, fmt::format("the handler answered {}, which is no verdict", shown(line)));
      }
      return;
    }
    if (run.answered++ == 0) {
      set_up();
    }
    std::string_view why = verdict->why;
    if (why.empty() && verdict->verdict != Verdict::done) {
      why = verdict->verdict == Verdict::fail ? "the handler answered fail" : "the handler answered retry";
    }
    settle(*offset, verdict->verdict, why);
  }

  // The oldest event that is not answered.
  std::optional<Offset> oldest() {
    while (!unanswered_.empty()) {
      const Sent& sent = unanswered_.front();
      if (window_.in_flight(sent.offset) &&
          sent_of_[sent.offset.value & (Window::events_max - 1)] == sent.number) {
        return sent.offset;
      }
      unanswered_.pop_front();
    }
    return std::nullopt;
  }

  std::uint64_t oldest_number() { return oldest() ? unanswered_.front().number : 0; }

  static void kill(Run& run, std::string why) {
    run.killed_because = std::move(why);
    run.process->kill_group();
  }

  static std::string shown(std::string_view line) {
    return fmt::format("\"{}\"", printable(line.substr(0, 200)));
  }

  void tell_bad_line(Run& run, std::string_view line, bool is_verdict) {
    if (++run.bad_lines > bad_lines_told_max) {
      return;
    }
    place_.say(fmt::format(
        "{}: the handler wrote {}, {}.{}", place(place_.topic.name, tenure_.partition), shown(line),
        is_verdict ? "but no such event waits for a verdict"
                   : "which is no verdict: ok, retry WHY or fail WHY; its log belongs on stderr",
        run.bad_lines == bad_lines_told_max ? " Further ones of this process are not shown" : ""));
  }

  // --- time

  // An event's time begins when it is the oldest unanswered one: before that the handler is busy with others.
  static asio::awaitable<void> watch_time(std::shared_ptr<StreamSink> self, std::shared_ptr<Run> run) {
    const auto timeout = self->place_.options.timeout;
    const Milliseconds limit = timeout.value_or(silence_told_after);
    bool told = false;
    while (!run->over && !(told && !timeout)) {
      const bool waiting = self->window_.in_flight() > 0;
      const auto now = Clock::now();
      const auto due = waiting ? self->oldest_since_ + limit : now + limit;
      if (now >= due) {
        if (timeout) {
          kill(*run, fmt::format("the handler gave no verdict within {} ms{}{}", limit.count(),
                                 run->answered == 0 ? ": " : "", run->answered == 0 ? buffered_hint : ""));
          break;
        }
        if (run->answered == 0) {
          self->place_.say(fmt::format("{}: no verdict yet for an event sent {} s ago: {}",
                                       place(self->place_.topic.name, self->tenure_.partition),
                                       std::chrono::duration_cast<std::chrono::seconds>(limit).count(),
                                       buffered_hint));
        }
        told = true;
        continue;
      }
      run->timer.expires_at(due);
      co_await run->timer.async_wait(as_result);
    }
  }

  // --- the end of a process

  static asio::awaitable<void> watch_exit(std::shared_ptr<Run> run) {
    asio::posix::stream_descriptor exited(run->timer.get_executor(), run->process->pidfd());
    co_await exited.async_wait(asio::posix::stream_descriptor::wait_read, as_result);
    exited.release();
    run->exited = true;
    run->process->kill_group();  // what it left behind
    asio::error_code ignored;
    run->verdicts.cancel(ignored);
    run->gone.notify();
  }

  asio::awaitable<void> conclude(std::shared_ptr<Run> run) {
    // One that closed its stdout can give no verdict any more: it has a while to end by itself.
    const auto deadline = Clock::now() + gentle;
    while (!run->exited) {
      if (Clock::now() >= deadline) {
        run->process->kill_group();
      }
      co_await run->gone.wait(Clock::now() < deadline ? deadline : Clock::time_point::max());
    }
    const ExitStatus status = run->process->reap();
    run->over = true;
    asio::error_code ignored;
    run->events.close(ignored);
    run->changed.notify();
    run->timer.cancel();
    run_.reset();
    if (!ending_ && tenure_.holds()) {
      blame(*run, status);
    }
    over_.notify();
    wake_.notify();
  }

  void blame(const Run& run, const ExitStatus& status) {
    const auto first = oldest();
    const std::string why = run.killed_because.empty()
                                ? fmt::format("{}: {}", place_.command->program(), status.text())
                                : run.killed_because;
    const bool timed_out = !run.killed_because.empty();
    // An event that failed before, and now again as the first thing that a process gets, is the likelier
    // culprit: a handler that is down from a deploy that has just gone wrong is seen with other events, too.
    const bool suspect = first && window_.attempts_used(*first) > 0;
    const bool down = run.answered == 0 && !timed_out && !suspect;
    // The others were not looked at: they are sent again as if for the first time.
    for (const Sent& sent : unanswered_) {
      if (window_.in_flight(sent.offset) && sent.offset != first) {
        window_.put_back(sent.offset);
      }
    }
    unanswered_.clear();
    if (down) {
      set_down(why + (first ? " before its first verdict" : ""));
      if (first) {
        // Behind the others at the next start: if it is what kills the handler, they show that it works.
        window_.retry(*first, down_until() + Milliseconds(1), window_.attempts_used(*first));
      }
      return;
    }
    if (first) {
      settle(*first, Verdict::retry, why);
    }
  }

  Variables variables_;
  std::shared_ptr<Run> run_;
  std::deque<Sent> unanswered_;  // in the order of sending; answered ones leave when they come to the front
  std::vector<std::uint64_t> sent_of_ = std::vector<std::uint64_t>(Window::events_max);
  std::uint64_t sent_ = 0;
  Clock::time_point oldest_since_;
  Signal over_;
  bool ending_ = false;
};

}  // namespace

std::shared_ptr<Sink> make_stream_sink(Workplace& place, const Tenure& tenure, const Cursor& start,
                                       Wake& wake) {
  return std::make_shared<StreamSink>(place, tenure, start, wake);
}

}  // namespace continuum
