// A worker's part of its group's partitions: says that it is alive, watches the others, and tells its
// PartitionWorkers which partitions to take and which to leave. Private to the library: includes Asio.
#pragma once

#include "continuum/partition_worker.hpp"
#include "continuum/sharing.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace continuum {

class SharedPartitions {
 public:
  // `partitions`: all of the topic, not started or idle. `stop`: called once everything is done, by the
  // user's limits. All arguments outlive this.
  SharedPartitions(Shift& shift, const WorkOptions& options,
                   std::span<const std::unique_ptr<PartitionWorker>> partitions, std::function<void()> stop);

  // Until the shift is stopping, or close(). Throws Error: fenced when waiting is not wanted and there is
  // nothing to wait for.
  asio::awaitable<void> run();
  // The workplace's topic has another ring, and `partitions` may have become more.
  void ring_changed(std::span<const std::unique_ptr<PartitionWorker>> partitions);
  // Looks again at the shift.
  void notify() { wake_.notify(); }
  void close();

 private:
  // One partition, as the last look found it.
  struct Place {
    PartitionWorker* worker;
    std::string group_key;
    std::optional<Generation> last;  // the generation that took it out of the ring
    // Who has the lease and since when without a sign of life; nothing while it is free or ours.
    std::optional<PartitionWorker::Sighting> sighting;
    Offset cursor;
    Generation passed;
    // Of its log when this run began, if it is to be drained.
    Offset end;
    Generation end_generation;
    // Likewise, of an archive, which has barriers too.
    EntryId cursor_entry = {};
    EntryId end_entry = {};
    bool letters = false;  // there are some that are nobody's yet, or were not dropped; of those that left
    // If it is to be drained: an operator had asked for something about its letters before this run began,
    // and that may not be done yet.
    bool asked = false;
  };

  void add(PartitionWorker& worker);
  [[nodiscard]] Place& place_of(Partition partition);

  asio::awaitable<void> look();
  void see_members(redis::Reply reply);
  void see(Place& place, redis::Reply reply);
  asio::awaitable<void> learn_ends();
  asio::awaitable<void> look_for_requests(std::vector<Partition> partitions);
  asio::awaitable<void> say_goodbye();
  bool decide();
  [[nodiscard]] ShareView view() const;
  void obey(const SharePlan& plan);
  void tell(const SharePlan& plan);
  [[nodiscard]] std::size_t others() const;

  [[nodiscard]] static bool ours(const Place& place) {
    return place.worker->holding() || place.worker->wanted();
  }
  [[nodiscard]] static bool silent(const Place& place);
  [[nodiscard]] bool overdue(const Place& place) const;
  [[nodiscard]] static bool retired(const Place& place);
  [[nodiscard]] static bool done(const Place& place);
  [[nodiscard]] bool finished() const;
  [[nodiscard]] bool spent() const;
  [[nodiscard]] Clock::time_point next_look() const;

  Shift& shift_;
  const WorkOptions& options_;
  std::function<void()> stop_;
  const std::string members_key_;
  const std::string member_;
  Milliseconds interval_;                                 // between two looks when nothing is to be done
  Milliseconds hasty_interval_;                           // and while something is
  std::vector<Place> places_;                             // ascending
  std::map<std::string, BootClock::time_point> members_;  // owners, and when each was first seen
  Clock::time_point members_changed_ = Clock::now();
  bool settled_ = false;
  // Since when we have as much as we should, or waited for it in vain.
  Clock::time_point short_since_ = Clock::time_point::max();

  std::pair<std::vector<Partition>, std::size_t> told_;  // what we have, and how many others there are
  std::pair<std::vector<Partition>, std::size_t> present_;
  Clock::time_point present_since_ = Clock::now();
  bool closed_ = false;
  Wake wake_;
};

}  // namespace continuum
