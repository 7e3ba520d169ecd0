#include "continuum/operator_lease.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <random>
#include <thread>
#include <utility>

namespace continuum {

namespace {

using Clock = std::chrono::steady_clock;

constexpr Milliseconds poll_every{50};
constexpr std::size_t refusals_named_max = 3;

std::string random_owner() {
  std::random_device random;
  std::string owner = "operator-";
  for (int i = 0; i < 4; ++i) {
    owner += fmt::format("{:08x}", static_cast<std::uint32_t>(random()));
  }
  return owner;
}

// A lease that somebody else has, and since when nothing was heard of them.
struct Watched {
  Partition partition;
  std::optional<Held> seen;
  Clock::time_point since;

  [[nodiscard]] bool stood_still() const { return seen && Clock::now() - since >= seen->ttl; }
};

}  // namespace

OperatorLeases::OperatorLeases(redis::Session& session, const Topic& topic, std::string group,
                               std::string who)
    : session_(session),
      topic_(topic.name),
      log_id_(topic.log_id),
      group_(std::move(group)),
      me_{random_owner(), std::move(who)} {}

OperatorLeases::~OperatorLeases() {
  try {
    release();
  } catch (...) {
    // They run out by themselves.
  }
}

// Taking a lease overwrites the state.
void OperatorLeases::remember_halts(std::span<const Partition> partitions) {
  redis::Request request;
  for (const Partition partition : partitions) {
    request.command("HGETALL", group_key(topic_, partition, group_));
  }
  const redis::Replies replies = session_.call(std::move(request));
  for (std::size_t i = 0; i < partitions.size(); ++i) {
    const auto state = parse_group(replies[i]);
    if (state && state->state == "halted") {
      left_[partitions[i]] = {state->state,   state->handler, state->at,           state->since,
                              state->attempt, state->error,   state->busy_permille};
    }
  }
}

OperatorLeases::Taken OperatorLeases::take(std::span<const Partition> partitions) {
  Taken taken;
  remember_halts(partitions);
  if (acquired_.empty()) {
    renew_at_ = Clock::now() + me_.ttl / 3;
  }
  std::vector<Watched> wanted;
  for (const Partition partition : partitions) {
    wanted.push_back({partition, std::nullopt, {}});
  }
  while (!wanted.empty()) {
    redis::Request request;
    for (const Watched& one : wanted) {
      request_acquire(request, group_key(topic_, one.partition, group_), me_,
                      one.stood_still() ? one.seen : std::nullopt);
    }
    const redis::Replies replies = session_.call(std::move(request));
    std::vector<Watched> rest;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      Watched& one = wanted[i];
      const auto answer = parse_acquire(replies[i]);
      if (const auto* acquired = std::get_if<Acquired>(&answer)) {
        acquired_[one.partition] = *acquired;
        continue;
      }
      if (std::holds_alternative<NotRegistered>(answer)) {
        taken.not_registered.push_back(one.partition);
        continue;
      }
      const Held& held = std::get<Held>(answer);
      if (one.seen && (held.fence != one.seen->fence || held.beat != one.seen->beat)) {
        taken.refused.push_back({one.partition, held.who.empty() ? held.owner : held.who});
        continue;
      }
      if (!one.seen) {
        one.seen = held;
        one.since = Clock::now();
      }
      rest.push_back(std::move(one));
    }
    wanted = std::move(rest);
    if (!wanted.empty()) {
      std::this_thread::sleep_for(poll_every);
    }
    keep();
  }
  return taken;
}

std::vector<Partition> OperatorLeases::take_all(std::span<const Partition> partitions) {
  Taken taken = take(partitions);
  if (taken.refused.empty()) {
    return std::move(taken.not_registered);
  }
  release();
  std::string who;
  for (std::size_t i = 0; i < std::min(taken.refused.size(), refusals_named_max); ++i) {
    who += fmt::format("{}partition {} by {}", i == 0 ? "" : ", ", taken.refused[i].partition,
                       printable(taken.refused[i].holder));
  }
  if (taken.refused.size() > refusals_named_max) {
    who += fmt::format(", and {} more", taken.refused.size() - refusals_named_max);
  }
  fail(ErrorKind::fenced, "topic {}, group {}: {} held by a worker: {}. Nothing was changed; stop it first",
       topic_, group_, taken.refused.size() == 1 ? "a partition is" : "partitions are", who);
}

void OperatorLeases::keep() {
  if (Clock::now() >= renew_at_) {
    renew();
  }
}

void OperatorLeases::renew() {
  renew_at_ = Clock::now() + me_.ttl / 3;
  redis::Request request;
  for (const auto& [partition, acquired] : acquired_) {
    Doing doing;
    doing.at = acquired.cursor.offset;
    request_renew(request, group_key(topic_, partition, group_), meta_key(topic_, partition), acquired.fence,
                  log_id_, doing);
  }
  if (request.empty()) {
    return;
  }
  const redis::Replies replies = session_.call(std::move(request));
  std::size_t i = 0;
  for (const auto& [partition, acquired] : acquired_) {
    if (parse_renew(replies[i++]).kept != Kept::ok) {
      fail(ErrorKind::fenced, "{}: somebody else took it over from this command for group {}: run it again",
           place(topic_, partition), group_);
    }
  }
}

void OperatorLeases::release() {
  if (acquired_.empty()) {
    return;
  }
  redis::Request request;
  for (const auto& [partition, acquired] : acquired_) {
    if (const auto halted = left_.find(partition); halted != left_.end()) {
      request_renew(request, group_key(topic_, partition, group_), meta_key(topic_, partition),
                    acquired.fence, log_id_, halted->second);
    }
    request_release(request, group_key(topic_, partition, group_), acquired.fence);
  }
  acquired_.clear();
  (void)session_.call(std::move(request));
}

}  // namespace continuum
