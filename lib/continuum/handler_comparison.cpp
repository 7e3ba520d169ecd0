#include "continuum/handler_comparison.hpp"

#include "continuum/log.hpp"
#include "continuum/names.hpp"

#include <algorithm>

namespace continuum {

namespace {

constexpr std::size_t told_max = 10'000;  // workers that are remembered as told
constexpr std::size_t named_max = 3;      // in one message

}  // namespace

std::vector<HandlerDifferences::Difference> HandlerDifferences::see(const std::string& ours,
                                                                    std::span<const Sighting> others,
                                                                    Clock::time_point now) {
  if (std::exchange(ours_, ours) != ours) {
    differing_.clear();
  }
  decltype(differing_) differing;
  decltype(beats_) beats;
  std::map<std::string, std::set<std::string>> news;
  for (const Sighting& other : others) {
    if (other.owner.empty() || other.handlers.empty() || other.handlers == ours) {
      continue;
    }
    const auto whose = std::pair(other.owner, other.handlers);
    const auto known = differing_.find(whose);
    Other& entry =
        differing.try_emplace(whose, known == differing_.end() ? Other{now} : known->second).first->second;
    // One that died may have left its leases to nobody.
    const auto before = beats_.find(other.partition);
    entry.alive = entry.alive || (before != beats_.end() && before->second.first == other.owner &&
                                  before->second.second != other.beat);
    beats[other.partition] = {other.owner, other.beat};
    const std::string& who = other.who.empty() ? other.owner : other.who;
    if (!entry.alive || now - entry.since < differ_for_ || told_.contains({who, other.handlers, ours})) {
      continue;
    }
    if (told_.size() >= told_max) {
      told_.clear();
    }
    told_.emplace(who, other.handlers, ours);
    news[other.handlers].insert(who);
  }
  differing_ = std::move(differing);
  beats_ = std::move(beats);
  std::vector<Difference> differences;
  for (const auto& [handlers, who] : news) {
    differences.push_back({handlers, {who.begin(), who.end()}});
  }
  return differences;
}

HandlerComparison::HandlerComparison(Shift& shift,
                                     const std::vector<std::unique_ptr<PartitionWorker>>& partitions)
    : shift_(shift),
      partitions_(partitions),
      differences_(shift.place.options.handlers_differ_for),
      wake_(shift.place.executor) {}

void HandlerComparison::close() {
  closed_ = true;
  wake_.notify();
}

asio::awaitable<void> HandlerComparison::run() {
  while (!closed_) {
    co_await wake_.wait(Clock::now() + shift_.place.options.handlers_compared_every);
    if (!closed_) {
      co_await look();
    }
  }
}

asio::awaitable<void> HandlerComparison::look() {
  std::set<Partition> ours;
  for (const auto& worker : partitions_) {
    if (worker->holding()) {
      ours.insert(worker->partition());
    }
  }
  const Topic& topic = shift_.place.topic;
  redis::Request request;
  std::vector<Partition> asked;
  for (const Partition partition : topic.partitions()) {
    if (!ours.contains(partition)) {
      request.command("HMGET", group_key(topic.name, partition, shift_.place.options.group), "owner", "who",
                      "beat", "handlers");
      asked.push_back(partition);
    }
  }
  std::vector<HandlerDifferences::Sighting> others;
  if (asked.empty()) {
    static_cast<void>(differences_.see(shift_.handlers, others, Clock::now()));
    co_return;
  }
  const redis::Replies replies = co_await shift_.control.call(std::move(request));
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const auto field = [&](std::size_t at) {
      return std::string(replies[i][at].is_nil() ? std::string_view() : replies[i][at].text());
    };
    if (field(0) != shift_.me.owner) {
      others.push_back({asked[i], field(0), field(1), field(2), field(3)});
    }
  }
  for (const auto& difference : differences_.see(shift_.handlers, others, Clock::now())) {
    tell(difference);
  }
}

void HandlerComparison::tell(const HandlerDifferences::Difference& difference) const {
  const std::size_t workers = difference.who.size();
  std::string who;
  for (std::size_t i = 0; i < std::min(workers, named_max); ++i) {
    who += fmt::format("{}{}", i == 0 ? "" : ", ", printable(difference.who[i]));
  }
  if (workers > named_max) {
    who += fmt::format(" and {} more", workers - named_max);
  }
  const std::string& topic = shift_.place.topic.name;
  shift_.place.say(fmt::format(
      "topic {}: the handlers of group {} differ: this worker has {}; {} {} {}. Deploy the same files to "
      "every "
      "host (and kill -HUP, where one was removed); `continuum inspect workers -t {}` shows who has which",
      topic, shift_.place.options.group, shift_.handlers, who, workers == 1 ? "has" : "have",
      printable(difference.handlers), topic));
}

}  // namespace continuum
