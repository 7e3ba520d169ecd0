#include "continuum/retention_keeper.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/trim_steps.hpp"
#include "continuum/units.hpp"

#include <algorithm>
#include <chrono>

namespace continuum {

namespace {

// A worker of a cron job may not live for long.
constexpr Milliseconds first_look{1'000};
constexpr std::chrono::hours tell_again{1};
// A trim may take minutes, and the process be stopped for days: what the settings said then would go on
// removing what somebody has decided to keep.
constexpr std::chrono::seconds wanted_for{2};

}  // namespace

RetentionKeeper::RetentionKeeper(Shift& shift,
                                 const std::vector<std::unique_ptr<PartitionWorker>>& partitions)
    : shift_(shift), partitions_(partitions), wake_(shift.place.executor) {}

void RetentionKeeper::close() {
  closed_ = true;
  wake_.notify();
}

asio::awaitable<void> RetentionKeeper::run() {
  const Milliseconds every = shift_.place.options.trim_every;
  Milliseconds pause = std::min(every, first_look);
  while (!closed_) {
    co_await wake_.wait(Clock::now() + pause);
    pause = every;
    if (closed_) {
      co_return;
    }
    try {
      co_await look();
    } catch (const Error& error) {
      tell_failed(Partition(), error.message());
    }
  }
}

asio::awaitable<void> RetentionKeeper::look() {
  std::optional<Wanted> wanted;
  for (const auto& worker : partitions_) {
    while (goes_on() && worker->holding()) {
      if (!wanted || wanted->is_old()) {
        wanted = co_await ask();
        if (!wanted) {
          co_return;
        }
      }
      const Trim trimmed = co_await trim(worker->partition(), *wanted);
      if (trimmed == Trim::over) {
        break;
      }
    }
  }
}

asio::awaitable<std::optional<RetentionKeeper::Wanted>> RetentionKeeper::ask() {
  const Topic& ours = shift_.place.topic;
  const BootClock::time_point asked = BootClock::now();
  // Without a retention this is all that is done: the whole hash may be long.
  redis::Request ask;
  ask.command("HMGET", topic_key(ours.name), "retention", "retention_bytes");
  const redis::Replies limits = co_await shift_.control.call(std::move(ask));
  if (limits[0][0].is_nil() && limits[0][1].is_nil()) {
    co_return std::nullopt;
  }
  redis::Request request;
  request_topic(request, ours.name);
  request.command("TIME");
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  auto topic = parse_topic(ours.name, replies[0]);
  if (!topic || topic->log_id != ours.log_id || !topic->settings.trims()) {
    co_return std::nullopt;
  }
  const SystemTime now(Milliseconds(replies[1][0].integer() * 1000 + replies[1][1].integer() / 1000));
  const TrimGoal goal = goal_of(topic->settings, now);
  co_return Wanted{*std::move(topic), now, goal, asked};
}

bool RetentionKeeper::Wanted::is_old() const {
  return BootClock::now() - asked > wanted_for;
}

asio::awaitable<RetentionKeeper::Trim> RetentionKeeper::trim(Partition partition, const Wanted& wanted) {
  const std::vector<TrimGroup> nobody;
  Trim trimmed = Trim::over;
  const std::function<bool()> between = [&] {
    if (goes_on() && wanted.is_old()) {
      trimmed = Trim::wanted_is_old;
    }
    return goes_on() && trimmed == Trim::over;
  };
  try {
    const TrimResult result = co_await trim_in_steps(shift_.control, wanted.topic, partition, wanted.goal,
                                                     nobody, TrimHead::recorded, between);
    if (result.goal_is_old) {
      trimmed = Trim::wanted_is_old;
    }
    if (result.holder && wanted.now - result.holder->since > stall_limit_of(wanted.topic.settings)) {
      tell_stalled(wanted.topic, partition, *result.holder);
    }
  } catch (const Error& error) {
    tell_failed(partition, error.message());
  }
  co_return trimmed;
}

bool RetentionKeeper::tells(const std::string& group, Partition partition) {
  const auto [told, first] = told_.try_emplace({group, partition}, Clock::now());
  if (!first && Clock::now() - told->second < tell_again) {
    return false;
  }
  told->second = Clock::now();
  return true;
}

void RetentionKeeper::tell_stalled(const Topic& topic, Partition partition, const TrimHolder& holder) {
  if (!tells(holder.group, partition)) {
    return;
  }
  // Without numbers: so that it is said once for all partitions.
  if (holder.orphan) {
    shift_.tell(
        fmt::format("group {} is no longer in the topic and was not forgotten to the end: events that "
                    "it has not handled are kept beyond the topic's retention, and memory grows; "
                    "`continuum group forget -t {} -g {} --yes`",
                    printable(holder.group), topic.name, printable(holder.group)),
        partition);
    return;
  }
  shift_.tell(
      fmt::format("group {} has stood still for more than {}: events that it has not handled are kept "
                  "beyond the topic's retention, and memory grows; `continuum inspect why -t {} -g {}`",
                  printable(holder.group), exact_duration(stall_limit_of(topic.settings)), topic.name,
                  printable(holder.group)),
      partition);
}

void RetentionKeeper::tell_failed(Partition partition, const std::string& what) {
  if (!closed_ && tells({}, partition)) {
    shift_.place.say("nothing is trimmed: " + what);
  }
}

}  // namespace continuum
