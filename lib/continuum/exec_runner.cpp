// Mode exec: one process per event, its exit status is the verdict.
#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/json.hpp"
#include "continuum/names.hpp"
#include "continuum/runner.hpp"
#include "continuum/subscription.hpp"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/posix/stream_descriptor.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace continuum {

namespace {

constexpr std::size_t read_bytes = 64 << 10;
constexpr Milliseconds printed_within{1'000};  // of the end of the process

// What a process prints, when that is to become events.
struct Printed {
  Printed(const asio::any_io_executor& executor, int fd) : pipe(executor, fd), ended(executor) {}

  asio::posix::stream_descriptor pipe;
  std::string text;
  Wake ended;
  bool over = false;
  bool too_much = false;
};

class ExecRunner final : public Runner, public std::enable_shared_from_this<ExecRunner> {
 public:
  explicit ExecRunner(Subscription& subscription)
      : subscription_(subscription),
        site_(subscription.site()),
        handler_(subscription.handler()),
        ended_(site_.place.executor) {
    fixed_.emplace_back("CONTINUUM_TOPIC", site_.place.topic.name);
    fixed_.emplace_back("CONTINUUM_GROUP", site_.place.options.group);
    fixed_.emplace_back("CONTINUUM_HANDLER", handler_->spec.name);
    fixed_.emplace_back("CONTINUUM_FENCE", fmt::to_string(site_.tenure.fence.value));
    fixed_.emplace_back("CONTINUUM_GENERATION", fmt::to_string(site_.tenure.passed.value));
  }

  void start_ready() override {
    while (children_.size() < handler_->spec.concurrency && subscription_.may_start()) {
      const auto event = subscription_.take(Clock::now());
      if (!event) {
        return;
      }
      start(*event);
    }
  }

  [[nodiscard]] bool running() const override { return !children_.empty(); }

  asio::awaitable<void> end(Leave) override {
    const auto self = shared_from_this();
    ending_ = true;
    for (const auto& child : children_) {
      child->kill_group();
    }
    while (!children_.empty()) {
      co_await ended_.wait();
    }
  }

 private:
  void start(const Window::Event& event) {
    line_.clear();
    site_.append(line_, event);
    set_variables(event);
    std::string why;
    std::unique_ptr<Process> process;
    std::array<int, 2> pipe{-1, -1};
    try {
      const InputFile input(line_);
      if (site_.place.emit && ::pipe2(pipe.data(), O_CLOEXEC) != 0) {
        fail(ErrorKind::server, "cannot make a pipe from the handler: {}", std::strerror(errno));
      }
      process = Process::start(*site_.place.guard, *handler_->command, variables_,
                               {.input = input.fd(), .output = pipe[1], .error = handler_->log_fd()}, why);
    } catch (const Error& error) {
      why = error.message();
    }
    if (pipe[1] >= 0) {
      ::close(pipe[1]);
    }
    std::shared_ptr<Printed> printed;
    if (pipe[0] >= 0) {
      printed = std::make_shared<Printed>(site_.place.executor, pipe[0]);
    }
    if (!process) {
      subscription_.put_back(event.offset);
      subscription_.set_down(why);
      return;
    }
    children_.push_back(std::move(process));
    if (printed) {
      asio::co_spawn(site_.place.executor, gather(printed, children_.back()), asio::detached);
    }
    asio::co_spawn(site_.place.executor, watch(shared_from_this(), children_.back(), event.offset, printed),
                   asio::detached);
  }

  void set_variables(const Window::Event& event) {
    variables_.clear();
    for (const auto& [name, value] : fixed_) {
      variables_.set(name, value);
    }
    const Attributes attributes = attributes_of(event.line);
    const auto attribute = [&](std::string_view name, std::string_view raw) {
      std::string scratch;
      if (const auto text = json::unescape(raw, scratch)) {
        variables_.set(name, *text);
      }
    };
    attribute("CONTINUUM_ID", attributes.id);
    attribute("CONTINUUM_TYPE", attributes.type);
    attribute("CONTINUUM_SOURCE", attributes.source);
    attribute("CONTINUUM_TIME", attributes.time);
    attribute("CONTINUUM_KEY", attributes.partitionkey);
    variables_.set("CONTINUUM_PARTITION", fmt::to_string(site_.partition_of(event).value));
    variables_.set("CONTINUUM_OFFSET", fmt::to_string(event.offset.value));
    variables_.set("CONTINUUM_ATTEMPT", fmt::to_string(event.attempt));
  }

  // Reads on beside the process, which must never wait for us.
  static asio::awaitable<void> gather(std::shared_ptr<Printed> printed, std::shared_ptr<Process> process) {
    std::vector<char> buffer(read_bytes);
    for (;;) {
      const auto [error, n] = co_await printed->pipe.async_read_some(asio::buffer(buffer), as_result);
      if (error) {
        break;
      }
      printed->too_much = printed->too_much || printed->text.size() + n > emitted_bytes_max;
      if (printed->too_much) {
        process->kill_group();
        continue;
      }
      printed->text.append(buffer.data(), n);
    }
    printed->over = true;
    printed->ended.notify();
  }

  // All that belongs to the process is dead, so that its pipe is at its end; unless somebody left its group.
  static asio::awaitable<void> read_to_end(Printed& printed) {
    const auto deadline = Clock::now() + printed_within;
    while (!printed.over && Clock::now() < deadline) {
      co_await printed.ended.wait(deadline);
    }
    asio::error_code ignored;
    printed.pipe.cancel(ignored);
  }

  // One process from its start to its verdict.
  static asio::awaitable<void> watch(std::shared_ptr<ExecRunner> self, std::shared_ptr<Process> process,
                                     Offset offset, std::shared_ptr<Printed> printed) {
    // The timer's handler may still be on its way when this coroutine ends.
    const auto timed_out = std::make_shared<bool>(false);
    asio::steady_timer limit(self->site_.place.executor);
    if (const auto timeout = self->handler_->spec.timeout) {
      limit.expires_after(*timeout);
      limit.async_wait([process, timed_out](const asio::error_code& error) {
        if (!error) {
          *timed_out = true;
          process->kill_group();
        }
      });
    }
    asio::posix::stream_descriptor exited(self->site_.place.executor, process->pidfd());
    co_await exited.async_wait(asio::posix::stream_descriptor::wait_read, as_result);
    exited.release();
    limit.cancel();
    const ExitStatus status = process->reap();
    if (printed) {
      co_await read_to_end(*printed);
    }
    std::erase(self->children_, process);
    if (!self->ending_ && self->site_.tenure.holds()) {
      self->judge(offset, status, *timed_out, printed.get());
    }
    self->ended_.notify();
    self->site_.wake.notify();
  }

  void judge(Offset offset, const ExitStatus& status, bool timed_out, const Printed* printed) {
    if (timed_out) {
      subscription_.set_up();
      subscription_.settle(offset, Verdict::retry,
                           fmt::format("the handler did not end within {} ms and was killed",
                                       handler_->spec.timeout->count()));
      return;
    }
    if (printed != nullptr && printed->too_much) {
      subscription_.set_up();
      subscription_.settle(
          offset, Verdict::retry,
          fmt::format("the handler printed more than {} bytes and was killed", emitted_bytes_max));
      return;
    }
    const Verdict verdict = verdict_of(status);
    if (verdict == Verdict::down) {
      subscription_.put_back(offset);
      subscription_.set_down(fmt::format("{}: {}", handler_->command->program(), status.text()));
      return;
    }
    subscription_.set_up();
    if (verdict != Verdict::done) {
      subscription_.settle(offset, verdict,
                           fmt::format("{}: {}", handler_->command->program(), status.text()));
      return;
    }
    std::string output;
    if (printed != nullptr) {
      const EmitCause cause{site_.tenure.partition, offset, subscription_.line(offset), handler_->spec.name};
      if (const auto wrong = site_.place.emit(cause, printed->text, Workplace::Printed::lines, output)) {
        subscription_.settle(offset, Verdict::retry, *wrong);
        return;
      }
    }
    subscription_.settle(offset, verdict, {}, std::move(output));
  }

  Subscription& subscription_;
  Site& site_;
  const std::shared_ptr<Handler> handler_;                  // the subscription may have another by now
  std::vector<std::pair<std::string, std::string>> fixed_;  // variables that do not depend on the event
  Variables variables_;
  std::string line_;
  std::vector<std::shared_ptr<Process>> children_;
  Signal ended_;
  bool ending_ = false;
};

}  // namespace

std::shared_ptr<Runner> make_exec_runner(Subscription& subscription) {
  return std::make_shared<ExecRunner>(subscription);
}

}  // namespace continuum
