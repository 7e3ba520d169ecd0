// Mode stream: long-lived processes, events in as lines, verdicts out as lines, many keys at a time.
#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/runner.hpp"
#include "continuum/subscription.hpp"

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

constexpr std::size_t unanswered_max = 1024;  // of one process
constexpr std::size_t shared_max = 64;        // likewise, when there are several
constexpr std::size_t batch_bytes_max = 128 << 10;
constexpr std::size_t read_bytes = 64 << 10;
constexpr std::size_t verdict_bytes_max = 4 << 10;
constexpr std::size_t shown_bytes_max = 200;  // of a line that is no verdict
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

// An event that was written to the process.
struct Sent {
  Offset offset;
  bool answered = false;
};

// One process of the handler.
struct Run {
  Run(const asio::any_io_executor& executor, std::unique_ptr<Process> p, int input, int output)
      : process(std::move(p)),
        events(executor, input),
        verdicts(executor, output),
        changed(executor),
        gone(executor),
        timer(executor),
        closing(executor) {
    verdicts.non_blocking(true);
  }

  // The oldest event that is not answered.
  std::optional<Offset> oldest() {
    while (!sent.empty() && sent.front().answered) {
      sent.pop_front();
      ++passed;
    }
    return sent.empty() ? std::nullopt : std::optional(sent.front().offset);
  }
  // Of the oldest, counted over all that were sent.
  std::uint64_t oldest_number() {
    oldest();
    return passed;
  }
  // False when no such event waits for an answer.
  bool answer(Offset offset) {
    const auto found = std::find_if(sent.begin(), sent.end(),
                                    [&](const Sent& one) { return one.offset == offset && !one.answered; });
    if (found == sent.end()) {
      return false;
    }
    found->answered = true;
    --unanswered;
    return true;
  }

  std::unique_ptr<Process> process;
  asio::posix::stream_descriptor events;
  asio::posix::stream_descriptor verdicts;
  Wake changed;                // for the coroutine that writes
  Wake gone;                   // for the one that reads: the process has exited
  asio::steady_timer timer;    // for the one that watches the time
  asio::steady_timer closing;  // for the one that watches its stdin
  std::deque<Sent> sent;       // in the order of sending; answered ones leave when they come to the front
  std::size_t unanswered = 0;
  std::uint64_t passed = 0;
  Clock::time_point oldest_since;
  std::uint64_t answered = 0;
  std::uint32_t bad_lines = 0;
  std::string rest;  // of what it wrote: a line without its end
  bool exited = false;
  bool over = false;
  std::string killed_because;  // by us; empty: it ended by itself
};

class StreamRunner final : public Runner, public std::enable_shared_from_this<StreamRunner> {
 public:
  explicit StreamRunner(Subscription& subscription)
      : subscription_(subscription),
        site_(subscription.site()),
        handler_(subscription.handler()),
        over_(site_.place.executor) {
    variables_.set("CONTINUUM_TOPIC", site_.place.topic.name);
    variables_.set("CONTINUUM_GROUP", site_.place.options.group);
    variables_.set("CONTINUUM_HANDLER", handler_->spec.name);
    variables_.set("CONTINUUM_PARTITION", fmt::to_string(site_.tenure.partition.value));
    variables_.set("CONTINUUM_FENCE", fmt::to_string(site_.tenure.fence.value));
    variables_.set("CONTINUUM_GENERATION", fmt::to_string(site_.tenure.passed.value));
  }

  [[nodiscard]] bool running() const override {
    return std::any_of(runs_.begin(), runs_.end(), [](const auto& run) { return run->unanswered > 0; });
  }

  asio::awaitable<void> end(Leave leave) override {
    const auto self = shared_from_this();
    ending_ = true;
    if (leave == Leave::gently) {
      for (const auto& run : runs_) {
        run->changed.notify();  // the writer closes its stdin
      }
      const auto deadline = Clock::now() + gentle;
      while (!runs_.empty() && Clock::now() < deadline) {
        co_await over_.wait_until(deadline);
      }
    }
    for (const auto& run : runs_) {
      run->process->kill_group();
    }
    while (!runs_.empty()) {
      co_await over_.wait();
    }
  }

  void start_ready() override {
    if (!subscription_.has_ready()) {
      return;
    }
    for (const auto& run : runs_) {
      run->changed.notify();
    }
    // Another process only when those that are there have enough to do.
    const bool all_busy =
        std::all_of(runs_.begin(), runs_.end(), [&](const auto& run) { return run->unanswered >= share(); });
    if (runs_.size() < handler_->spec.concurrency && all_busy && subscription_.may_start() && !ending_) {
      start();
    }
  }

 private:
  // How many events one process may have: all that are there, evenly.
  [[nodiscard]] std::size_t share() const {
    const std::size_t processes = handler_->spec.concurrency;
    return processes == 1 ? unanswered_max
                          : std::clamp<std::size_t>(subscription_.open_events() / processes, 1, shared_max);
  }

  void start() {
    std::string why;
    std::unique_ptr<Process> process;
    Pipe in;
    Pipe out;
    try {
      in = Pipe::make();
      out = Pipe::make();
      const bool apart = handler_->spec.verdicts == VerdictsOn::descriptor_3;
      process = Process::start(*site_.place.guard, *handler_->command, variables_,
                               {.input = in.read,
                                .output = apart ? handler_->log_fd() : out.write,
                                .error = handler_->log_fd(),
                                .verdicts = apart ? out.write : -1},
                               why);
    } catch (const Error& error) {
      why = error.message();
    }
    for (const int fd : {in.read, out.write}) {
      if (fd >= 0) {
        ::close(fd);
      }
    }
    if (!process) {
      for (const int fd : {in.write, out.read}) {
        if (fd >= 0) {
          ::close(fd);
        }
      }
      subscription_.set_down(why);
      return;
    }
    auto run = std::make_shared<Run>(site_.place.executor, std::move(process), in.write, out.read);
    runs_.push_back(run);
    asio::co_spawn(site_.place.executor, send(shared_from_this(), run), asio::detached);
    asio::co_spawn(site_.place.executor, receive(shared_from_this(), run), asio::detached);
    asio::co_spawn(site_.place.executor, watch_exit(run), asio::detached);
    asio::co_spawn(site_.place.executor, watch_stdin(run), asio::detached);
    asio::co_spawn(site_.place.executor, watch_time(shared_from_this(), run), asio::detached);
  }

  // --- events to the process

  static asio::awaitable<void> send(std::shared_ptr<StreamRunner> self, std::shared_ptr<Run> run) {
    std::string batch;
    while (!run->over) {
      batch.clear();
      self->gather(*run, batch);
      if (!batch.empty()) {
        const auto [error, n] = co_await asio::async_write(run->events, asio::buffer(batch), as_result);
        if (error) {
          break;  // it ended, or reads no more: who watches that tells what to do
        }
        continue;
      }
      if (self->ending_) {
        break;
      }
      co_await run->changed.wait();  // what becomes due later is told by start_ready()
    }
    asio::error_code ignored;
    run->events.close(ignored);
  }

  // One that has closed its stdin gets no event any more: it has a while to end by itself.
  static asio::awaitable<void> watch_stdin(std::shared_ptr<Run> run) {
    co_await run->events.async_wait(asio::posix::stream_descriptor::wait_error, as_result);
    if (run->over) {
      co_return;
    }
    run->closing.expires_after(gentle);
    co_await run->closing.async_wait(as_result);
    if (!run->over && run->killed_because.empty()) {
      kill(*run, "the handler closed its stdin and did not end");
    }
  }

  void gather(Run& run, std::string& batch) {
    const auto now = Clock::now();
    if (ending_ || !run.killed_because.empty() || !subscription_.may_start()) {
      return;
    }
    const bool none_before = run.unanswered == 0;
    const std::size_t most = share();
    while (batch.size() < batch_bytes_max && run.unanswered < most) {
      const auto event = subscription_.take(now);
      if (!event) {
        break;
      }
      site_.append(batch, *event);
      run.sent.push_back({event->offset});
      ++run.unanswered;
    }
    if (none_before && !batch.empty()) {
      run.oldest_since = now;
    }
  }

  // --- verdicts

  static asio::awaitable<void> receive(std::shared_ptr<StreamRunner> self, std::shared_ptr<Run> run) {
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
      if (self->ending_ || !self->site_.tenure.holds()) {
        self->site_.wake.notify();
        continue;  // read on, so that the process can end
      }
      self->read_verdicts(*run, std::string_view(buffer.data(), n));
      run->changed.notify();
      self->site_.wake.notify();
    }
    co_await self->conclude(run);
  }

  void read_verdicts(Run& run, std::string_view bytes) {
    std::string& rest = run.rest;
    const std::size_t most = emitting() == Emitting::yes ? emitted_bytes_max : verdict_bytes_max;
    const auto keep = [&](std::string_view part) {
      rest.append(part.substr(0, most - std::min(rest.size(), most)));
    };
    const std::uint64_t before = run.oldest_number();
    while (!bytes.empty() && run.killed_because.empty()) {
      const std::size_t newline = bytes.find('\n');
      if (newline == std::string_view::npos) {
        keep(bytes);
        if (rest.size() == most && !parse_verdict(rest, emitting())) {
          read_verdict(run, rest);  // it may never end
        }
        break;
      }
      const std::string_view line = bytes.substr(0, newline);
      bytes.remove_prefix(newline + 1);
      if (rest.empty()) {
        read_verdict(run, line);
      } else {
        keep(line);
        read_verdict(run, rest);
        rest.clear();
      }
    }
    if (run.oldest_number() != before) {
      run.oldest_since = Clock::now();
    }
  }

  // A handler that emits does so in a replay, too, where nobody takes it.
  [[nodiscard]] Emitting emitting() const {
    return site_.place.emit || site_.place.replay != nullptr ? Emitting::yes : Emitting::no;
  }

  void read_verdict(Run& run, std::string_view line) {
    const auto verdict = parse_verdict(line, emitting());
    const auto offset = verdict && verdict->offset ? verdict->offset : run.oldest();
    if (!verdict || !offset || !run.answer(*offset)) {
      tell_bad_line(run, line, verdict.has_value());
      if (!verdict && offset) {
        // Which event the next line is about cannot be known any more: this process answers no further.
        kill(run, fmt::format("the handler answered {}, which is no verdict", shown(line)));
      }
      return;
    }
    if (run.answered++ == 0) {
      subscription_.set_up();
    }
    std::string_view why = verdict->why;
    if (why.empty() && verdict->verdict != Verdict::done) {
      why = verdict->verdict == Verdict::fail ? "the handler answered fail" : "the handler answered retry";
    }
    std::string output;
    if (!verdict->output.empty() && site_.place.emit) {
      const EmitCause cause{site_.tenure.partition, *offset, subscription_.line(*offset),
                            handler_->spec.name};
      if (const auto wrong = site_.place.emit(cause, verdict->output, Workplace::Printed::array, output)) {
        subscription_.settle(*offset, Verdict::retry, *wrong);
        return;
      }
    }
    subscription_.settle(*offset, verdict->verdict, why, std::move(output));
  }

  static void kill(Run& run, std::string why) {
    run.killed_because = std::move(why);
    run.process->kill_group();
  }

  static std::string shown(std::string_view line) {
    std::string text = printable(line.substr(0, shown_bytes_max));
    // What is escaped is longer.
    if (text.size() > shown_bytes_max) {
      std::size_t end = shown_bytes_max;
      while ((static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) {
        --end;
      }
      text.replace(end, std::string::npos, "…");
    }
    return fmt::format("\"{}\"", text);
  }

  void tell_bad_line(Run& run, std::string_view line, bool is_verdict) {
    if (++run.bad_lines > bad_lines_told_max) {
      return;
    }
    site_.place.say(fmt::format(
        "{}: the handler wrote {}, {}.{}", subscription_.place_of_all(), shown(line),
        is_verdict ? "but no such event waits for a verdict"
                   : "which is no verdict: ok, retry WHY or fail WHY; its log belongs on stderr",
        run.bad_lines == bad_lines_told_max ? " Further ones of this process are not shown" : ""));
  }

  // --- time

  // An event's time begins when it is the oldest unanswered one: before that the handler is busy with others.
  static asio::awaitable<void> watch_time(std::shared_ptr<StreamRunner> self, std::shared_ptr<Run> run) {
    const auto timeout = self->handler_->spec.timeout;
    const Milliseconds limit = timeout.value_or(silence_told_after);
    bool told = false;
    while (!run->over && !(told && !timeout)) {
      const auto now = Clock::now();
      const auto due = run->unanswered > 0 ? run->oldest_since + limit : now + limit;
      if (now >= due) {
        if (timeout) {
          kill(*run, fmt::format("the handler gave no verdict within {} ms{}{}", limit.count(),
                                 run->answered == 0 ? ": " : "", run->answered == 0 ? buffered_hint : ""));
          break;
        }
        if (run->answered == 0) {
          self->site_.place.say(fmt::format(
              "{}: no verdict yet for an event sent {} s ago: {}", self->subscription_.place_of_all(),
              std::chrono::duration_cast<std::chrono::seconds>(limit).count(), buffered_hint));
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
    run->closing.cancel();
    std::erase(runs_, run);
    if (!ending_ && site_.tenure.holds()) {
      blame(*run, status);
    }
    over_.notify();
    site_.wake.notify();
  }

  void blame(Run& run, const ExitStatus& status) {
    const auto first = run.oldest();
    std::string why = run.killed_because;
    if (why.empty()) {
      why = fmt::format("{}: {}", handler_->command->program(), status.text());
      if (!run.rest.empty()) {
        why += fmt::format(" in the middle of the line {}", shown(run.rest));
      }
    }
    const bool timed_out = !run.killed_because.empty();
    // An event that failed before, and now again as the first thing that a process gets, is the likelier
    // culprit: a handler that is down from a deploy that has just gone wrong is seen with other events, too.
    const bool suspect = first && subscription_.attempts_used(*first) > 0;
    const bool down = run.answered == 0 && !timed_out && !suspect;
    // The others were not looked at: they are sent again as if for the first time.
    for (const Sent& sent : run.sent) {
      if (!sent.answered && sent.offset != first) {
        subscription_.put_back(sent.offset);
      }
    }
    run.sent.clear();
    run.unanswered = 0;
    if (down) {
      subscription_.set_down(why + (first ? " before its first verdict" : ""));
      if (first) {
        // Behind the others at the next start: if it is what kills the handler, they show that it works.
        subscription_.try_again_at(*first, subscription_.down_until() + behind_others);
      }
      return;
    }
    if (first) {
      subscription_.settle(*first, Verdict::retry, why);
    }
  }

  Subscription& subscription_;
  Site& site_;
  const std::shared_ptr<Handler> handler_;  // the subscription may have another by now
  Variables variables_;
  std::vector<std::shared_ptr<Run>> runs_;
  Signal over_;
  bool ending_ = false;
};

}  // namespace

std::shared_ptr<Runner> make_stream_runner(Subscription& subscription) {
  return std::make_shared<StreamRunner>(subscription);
}

}  // namespace continuum
