// Mode exec: one process per event, its exit status is the verdict.
#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/handler_sink.hpp"
#include "continuum/json.hpp"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/posix/stream_descriptor.hpp>

#include <algorithm>

namespace continuum {

namespace {

class ExecSink final : public HandlerSink, public std::enable_shared_from_this<ExecSink> {
 public:
  ExecSink(Workplace& workplace, const Tenure& tenure, const Cursor& start, Wake& wake)
      : HandlerSink(workplace, tenure, start, wake), ended_(workplace.executor) {
    fixed_.emplace_back("CONTINUUM_TOPIC", workplace.topic.name);
    fixed_.emplace_back("CONTINUUM_GROUP", workplace.options.group);
    fixed_.emplace_back("CONTINUUM_PARTITION", fmt::to_string(tenure.partition.value));
    fixed_.emplace_back("CONTINUUM_FENCE", fmt::to_string(tenure.fence.value));
    fixed_.emplace_back("CONTINUUM_GENERATION", fmt::to_string(tenure.passed.value));
  }

  [[nodiscard]] bool running() const override { return !children_.empty(); }

  asio::awaitable<void> end(Leave) override {
    ending_ = true;
    finishing_ = true;
    for (const auto& child : children_) {
      child->kill_group();
    }
    while (!children_.empty()) {
      co_await ended_.wait();
    }
    give_budget_back();
  }

 private:
  void start_ready() override {
    while (children_.size() < place_.options.concurrency && may_start()) {
      const auto event = window_.take(Clock::now());
      if (!event) {
        return;
      }
      start(*event);
    }
  }

  void start(const Window::Event& event) {
    line_.clear();
    located_.append(line_, event.offset, event.line);
    set_variables(event);
    std::string why;
    std::unique_ptr<Process> process;
    try {
      const InputFile input(line_);
      process = Process::start(*place_.guard, *place_.command, variables_, {.input = input.fd()}, why);
    } catch (const Error& error) {
      why = error.message();
    }
    if (!process) {
      window_.put_back(event.offset);
      set_down(why);
      return;
    }
    children_.push_back(std::move(process));
    asio::co_spawn(place_.executor, watch(shared_from_this(), children_.back(), event.offset),
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
    variables_.set("CONTINUUM_OFFSET", fmt::to_string(event.offset.value));
    variables_.set("CONTINUUM_ATTEMPT", fmt::to_string(event.attempt));
  }

  // One process from its start to its verdict.
  static asio::awaitable<void> watch(std::shared_ptr<ExecSink> self, std::shared_ptr<Process> process,
                                     Offset offset) {
    // The timer's handler may still be on its way when this coroutine ends.
    const auto timed_out = std::make_shared<bool>(false);
    asio::steady_timer limit(self->place_.executor);
    if (const auto timeout = self->place_.options.timeout) {
      limit.expires_after(*timeout);
      limit.async_wait([process, timed_out](const asio::error_code& error) {
        if (!error) {
          *timed_out = true;
          process->kill_group();
        }
      });
    }
    asio::posix::stream_descriptor exited(self->place_.executor, process->pidfd());
    co_await exited.async_wait(asio::posix::stream_descriptor::wait_read, as_result);
    exited.release();
    std::erase(self->children_, process);
    limit.cancel();
    const ExitStatus status = process->reap();
    if (!self->ending_ && self->tenure_.holds()) {
      self->judge(offset, status, *timed_out);
    }
    self->ended_.notify();
    self->wake_.notify();
  }

  void judge(Offset offset, const ExitStatus& status, bool timed_out) {
    if (timed_out) {
      set_up();
      settle(offset, Verdict::retry,
             fmt::format("the handler did not end within {} ms and was killed",
                         place_.options.timeout->count()));
      return;
    }
    const Verdict verdict = verdict_of(status);
    if (verdict == Verdict::down) {
      window_.put_back(offset);
      set_down(fmt::format("{}: {}", place_.command->program(), status.text()));
      return;
    }
    set_up();
    if (verdict == Verdict::done) {
      settle(offset, verdict, {});
    } else {
      settle(offset, verdict, fmt::format("{}: {}", place_.command->program(), status.text()));
    }
  }

  std::vector<std::pair<std::string, std::string>> fixed_;  // variables that do not depend on the event
  Variables variables_;
  std::string line_;
  std::vector<std::shared_ptr<Process>> children_;
  Signal ended_;
  bool ending_ = false;
};

}  // namespace

std::shared_ptr<Sink> make_exec_sink(Workplace& place, const Tenure& tenure, const Cursor& start,
                                     Wake& wake) {
  return std::make_shared<ExecSink>(place, tenure, start, wake);
}

}  // namespace continuum
