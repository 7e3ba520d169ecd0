#include "continuum/handler_trial.hpp"

#include "continuum/async.hpp"
#include "continuum/decode_pool.hpp"
#include "continuum/error.hpp"
#include "continuum/handler_watch.hpp"
#include "continuum/names.hpp"
#include "continuum/sink.hpp"

#include <map>
#include <utility>

namespace continuum {

namespace {

constexpr std::size_t processes_max = 16'384;

WorkOptions options_of(TrialOptions& trial) {
  WorkOptions options;
  options.group = trial.group;
  trial.handler.timeout = trial.handler.timeout.value_or(trial_timeout);
  trial.handler.enabled = true;
  options.handlers = {trial.handler};
  options.environment = trial.environment;
  options.say = trial.say ? trial.say : [](const std::string&) {};
  return options;
}

}  // namespace

struct HandlerTrial::Impl {
  Impl(const Topic& topic, TrialOptions trial, std::function<void(const TrialVerdict&)> hear)
      : options(options_of(trial)),
        guard(processes_max),
        handlers(io.get_executor(), options),
        pool(1),
        place{io.get_executor(),    topic, options, pool, nullptr, &guard, handlers.handlers(),
              Budget(std::nullopt), {},    0,       0,    {},      {},     {}},
        wake(io.get_executor()),
        told(std::move(hear)) {
    place.emit = [](const EmitCause&, std::string_view printed, Workplace::Printed, std::string& output) {
      output = printed;
      return std::optional<std::string>();
    };
    place.judge = [this](const Workplace::Judged& judged) {
      told({judged.partition, judged.offset, judged.verdict, printable(judged.why),
            std::string(judged.output)});
    };
    place.on_down = [this](std::string_view why) { down = printable(why); };
  }

  struct Part {
    explicit Part(Partition partition) { tenure.partition = partition; }
    Tenure tenure;
    std::shared_ptr<Sink> sink;
  };

  Part& part_of(const EventRun& run) {
    auto& part = parts[run.partition];
    if (!part) {
      part = std::make_unique<Part>(run.partition);
      part->tenure.passed = run.generation;
      part->tenure.until = BootClock::time_point::max();
      part->sink = make_dispatcher(place, part->tenure, {run.first, EntryId()}, wake);
    }
    return *part;
  }

  void pump_until(const std::function<bool()>& reached) {
    for (;;) {
      std::optional<Clock::time_point> next;
      for (const auto& [partition, part] : parts) {
        part->sink->pump();
        if (const auto time = part->sink->next_time(); time && (!next || *time < *next)) {
          next = time;
        }
      }
      if (!down.empty()) {
        fail(ErrorKind::usage, "the handler is down: {}", down);
      }
      if (reached()) {
        return;
      }
      run_until_done(io, wake.wait(next.value_or(Clock::time_point::max())));
    }
  }

  asio::io_context io;
  const WorkOptions options;
  ProcessGuard guard;
  HandlerWatch handlers;
  DecodePool pool;
  Workplace place;
  Wake wake;
  std::function<void(const TrialVerdict&)> told;
  std::string down;
  std::map<Partition, std::unique_ptr<Part>> parts;
};

HandlerTrial::HandlerTrial(const Topic& topic, TrialOptions options,
                           std::function<void(const TrialVerdict&)> told)
    : impl_(std::make_unique<Impl>(topic, std::move(options), std::move(told))) {}

HandlerTrial::~HandlerTrial() {
  for (const auto& [partition, part] : impl_->parts) {
    run_until_done(impl_->io, part->sink->end(Leave::at_once));
  }
}

void HandlerTrial::give(const EventRun& run) {
  Impl::Part& part = impl_->part_of(run);
  impl_->pump_until([&] { return part.sink->wants_entry(); });
  part.sink->give(entry_of(run));
  impl_->pump_until([] { return true; });
}

void HandlerTrial::finish() {
  impl_->pump_until([&] {
    for (const auto& [partition, part] : impl_->parts) {
      if (!part->sink->empty()) {
        return false;
      }
    }
    return true;
  });
  for (const auto& [partition, part] : impl_->parts) {
    run_until_done(impl_->io, part->sink->end(Leave::gently));
  }
  impl_->parts.clear();
}

}  // namespace continuum
