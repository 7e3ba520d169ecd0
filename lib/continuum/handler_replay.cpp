#include "continuum/handler_replay.hpp"

#include "continuum/async.hpp"
#include "continuum/decode_pool.hpp"
#include "continuum/error.hpp"
#include "continuum/handler_watch.hpp"
#include "continuum/left_keys.hpp"
#include "continuum/names.hpp"
#include "continuum/sink.hpp"
#include "continuum/units.hpp"

#include <asio/posix/stream_descriptor.hpp>

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <map>
#include <utility>

namespace continuum {

namespace {

constexpr std::size_t processes_max = 16'384;
// Given and not settled: what is read again after a kill, and what a slow partition may keep others waiting
// by.
constexpr std::uint64_t open_events_max = 16'384;
constexpr Milliseconds look_every{200};
constexpr std::size_t open_bytes_max = std::size_t{32} << 20;

WorkOptions options_of(HandlerReplayOptions& replay) {
  WorkOptions options;
  options.group = "replay";
  for (HandlerSpec& spec : replay.handlers) {
    std::erase_if(spec.environment, [](const auto& one) { return one.first == "CONTINUUM_REPLAY"; });
    spec.environment.emplace_back("CONTINUUM_REPLAY", "1");
  }
  options.handlers = replay.handlers;
  options.dispatch = replay.dispatch;
  options.environment = replay.environment;
  options.say = replay.say ? replay.say : [](const std::string&) {};
  return options;
}

// Not settled: some of its events, at least the last one.
struct OpenRun {
  Offset first;
  std::uint32_t events = 0;
  std::size_t bytes = 0;
  EntryId before;

  [[nodiscard]] Offset next() const { return first + events; }
};

struct Part {
  explicit Part(Partition partition) { tenure.partition = partition; }
  Tenure tenure;
  std::shared_ptr<Sink> sink;
  std::deque<OpenRun> open;
};

}  // namespace

struct HandlerReplay::Impl {
  Impl(const Topic& topic, HandlerReplayOptions replay)
      : settings(std::move(replay)),
        options(options_of(settings)),
        guard(processes_max),
        handlers(io.get_executor(), options),
        pool(1),
        place{io.get_executor(),    topic, options, pool, nullptr, &guard, handlers.handlers(),
              Budget(std::nullopt), {},    0,       0,    {},      {},     {}},
        wake(io.get_executor()) {
    place.replay = &left;
  }

  ~Impl() {
    if (stop) {
      stop->release();
    }
  }

  // --- being asked to stop

  void wait_for_stop() {
    stop->async_wait(asio::posix::stream_descriptor::wait_read, [this](const asio::error_code& error) {
      if (!error) {
        count_stops();
        wait_for_stop();
      }
    });
  }

  void count_stops() {
    std::uint64_t more = 0;
    if (stop && ::read(stop->native_handle(), &more, sizeof more) == static_cast<ssize_t>(sizeof more)) {
      stops += more;
      end_by(Over::stopped);
      wake.notify();
    }
  }

  void end_by(Over why) {
    if (!over) {
      over = why;
      // A handler that never ends would hold the cursor, and so all later runs, for ever.
      drained_at = Clock::now() + settings.drain_within;
    }
    for (const auto& [partition, part] : parts) {
      part->sink->finish();
    }
  }

  // --- the loop

  // What only has to be looked at now and then.
  void look(Clock::time_point now) {
    // Before anything else that has come meanwhile: its end must not let the next one begin.
    count_stops();
    if (deadline && now >= *deadline) {
      end_by(Over::time_max);
    }
    if (now < look_at) {
      return;
    }
    look_at = now + look_every;
    const auto since_max =
        std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now()) - settings.down_max;
    for (const auto& [partition, part] : parts) {
      const Doing doing = part->sink->doing();
      if (doing.state == "down" && doing.since <= since_max && !over) {
        down = doing.handler == command_line_handler
                   ? fmt::format("the handler is down: {}", doing.error)
                   : fmt::format("the handler {} is down: {}", printable(doing.handler), doing.error);
        end_by(Over::down);
      }
    }
    if (on_look) {
      on_look();
    }
  }

  void settle(Part& part) {
    const Offset finished = part.sink->finished().offset;
    while (!part.open.empty() && part.open.front().next() <= finished) {
      const OpenRun& run = part.open.front();
      // What it left behind stays the first of its partition, however much of it is settled.
      if (const auto first = left.first(part.tenure.partition);
          first && *first >= run.first && *first < run.next()) {
        stay_at(part.tenure.partition, {*first, run.before});
      }
      open_events -= run.events;
      open_bytes -= run.bytes;
      part.open.pop_front();
    }
  }

  void stay_at(Partition partition, const Cursor& cursor) {
    const auto [found, inserted] = stays.try_emplace(partition, cursor);
    if (cursor.offset < found->second.offset) {
      found->second = cursor;
    }
  }

  // False when it is over before that.
  template <class Reached>
  bool go_until(Reached reached, Clock::time_point then = Clock::time_point::max()) {
    for (;;) {
      const auto now = Clock::now();
      look(now);
      auto next = std::min(then, look_at);
      if (deadline && !over) {
        next = std::min(next, *deadline);
      }
      for (const auto& [partition, part] : parts) {
        part->sink->pump();
        settle(*part);
        if (part->sink->halted() && !over) {
          end_by(Over::halted);
        }
        if (const auto time = part->sink->next_time()) {
          next = std::min(next, *time);
        }
      }
      if (over) {
        return false;
      }
      if (reached() || now >= then) {
        return true;
      }
      run_until_done(io, wake.wait(next));
    }
  }

  // Nothing has happened since all partitions were looked at: of many, most have nothing to do at an event.
  [[nodiscard]] bool idle() {
    io.restart();
    return io.poll() == 0 && !over && Clock::now() < look_at;
  }

  [[nodiscard]] bool all_settled() const {
    return std::all_of(parts.begin(), parts.end(), [](const auto& one) { return one.second->sink->empty(); });
  }

  // What is being handled comes to its end, or is killed when we are asked twice.
  void wait_for_running() {
    const auto running = [&] {
      return std::any_of(parts.begin(), parts.end(),
                         [](const auto& one) { return one.second->sink->running(); });
    };
    const auto waits = [&] { return running() && stops < 2 && Clock::now() < drained_at; };
    while (waits()) {
      look(Clock::now());
      run_until_done(io, wake.wait(std::min(look_at, drained_at)));
    }
    for (const auto& [partition, part] : parts) {
      part->sink->pump();
      settle(*part);
    }
    if (running() && stops < 2) {
      options.say(
          fmt::format("topic {}: what still runs, {} after the end, is killed: its events are not "
                      "accepted. A timeout of the handler would end it earlier",
                      place.topic.name, exact_duration(settings.drain_within)));
    }
  }

  // Handlers are told the generation at their start.
  void begin(Generation generation) {
    for (const auto& [partition, part] : parts) {
      run_until_done(io, part->sink->end(Leave::gently));
    }
    parts.clear();
    present = generation;
  }

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

  void give(const EventRun& run) {
    if (settings.time_max && !deadline) {
      deadline = Clock::now() + *settings.time_max;
    }
    const auto room = [&] {
      return open_events == 0 || (open_events < open_events_max && open_bytes < open_bytes_max);
    };
    const bool goes_on = run.generation == present ? idle() && room() ? true : go_until(room)
                                                   : go_until([&] { return all_settled(); });
    if (!goes_on) {
      stay_at(run.partition, {run.first, run.before});
      refused += run.events;
      return;
    }
    if (run.generation != present) {
      begin(run.generation);
    }
    Part& part = part_of(run);
    part.open.push_back({run.first, run.events, run.lines.size(), run.before});
    open_events += run.events;
    open_bytes += run.lines.size();
    part.sink->give(entry_of(run));
    part.sink->pump();
  }

  asio::io_context io;
  HandlerReplayOptions settings;
  const WorkOptions options;
  ProcessGuard guard;
  HandlerWatch handlers;
  DecodePool pool;
  Workplace place;
  Wake wake;
  LeftKeys left;
  std::optional<asio::posix::stream_descriptor> stop;
  std::uint64_t stops = 0;
  Clock::time_point drained_at = Clock::time_point::max();
  std::optional<Over> over;
  std::string down;
  std::function<void()> on_look;
  std::optional<Clock::time_point> deadline;
  Clock::time_point look_at = Clock::now();
  Generation present;
  std::map<Partition, std::unique_ptr<Part>> parts;
  std::map<Partition, Cursor> stays;  // where a partition is accepted no further
  std::uint64_t refused = 0;
  std::uint64_t open_events = 0;
  std::size_t open_bytes = 0;
};

HandlerReplay::HandlerReplay(const Topic& topic, HandlerReplayOptions options)
    : impl_(std::make_unique<Impl>(topic, std::move(options))) {}

HandlerReplay::~HandlerReplay() {
  for (const auto& [partition, part] : impl_->parts) {
    run_until_done(impl_->io, part->sink->end(Leave::at_once));
  }
}

void HandlerReplay::stop_by(int descriptor) {
  impl_->stop.emplace(impl_->io.get_executor(), descriptor);
  impl_->wait_for_stop();
}

void HandlerReplay::look_by(std::function<void()> look) {
  impl_->on_look = std::move(look);
}

std::optional<HandlerReplay::Over> HandlerReplay::over() const {
  return impl_->over;
}

const std::string& HandlerReplay::down() const {
  return impl_->down;
}

void HandlerReplay::give(const EventRun& run) {
  impl_->give(run);
}

void HandlerReplay::go_on_until(std::chrono::steady_clock::time_point then) {
  // What has come meanwhile, also when the time is over already.
  (void)impl_->idle();
  (void)impl_->go_until([] { return false; }, then);
}

void HandlerReplay::finish() {
  if (!impl_->go_until([&] { return impl_->all_settled(); })) {
    impl_->wait_for_running();
  }
}

void HandlerReplay::limit(ResumeAt& at) const {
  const auto stay = [&](Partition partition, const Cursor& cursor) {
    const auto found = at.places.find(partition);
    if (found != at.places.end() && cursor.offset < found->second.offset) {
      found->second = cursor;
    }
  };
  for (const auto& [partition, cursor] : impl_->stays) {
    stay(partition, cursor);
  }
  for (const auto& [partition, part] : impl_->parts) {
    if (part->open.empty()) {
      continue;
    }
    const OpenRun& run = part->open.front();
    Offset offset = std::max(run.first, part->sink->finished().offset);
    if (const auto first = impl_->left.first(partition)) {
      offset = std::min(offset, std::max(*first, run.first));
    }
    stay(partition, {offset, run.before});
  }
}

std::uint64_t HandlerReplay::unsettled() const {
  std::uint64_t passed = 0;
  for (const auto& [partition, part] : impl_->parts) {
    if (!part->open.empty()) {
      const Offset first = part->open.front().first;
      passed += std::max(first, part->sink->finished().offset) - first;
    }
  }
  return impl_->open_events - passed + impl_->refused;
}

std::uint64_t HandlerReplay::handled() const {
  return impl_->place.handled;
}

std::uint64_t HandlerReplay::failed() const {
  return impl_->place.failed;
}

std::uint64_t HandlerReplay::left_out() const {
  return impl_->left.left_out();
}

}  // namespace continuum
