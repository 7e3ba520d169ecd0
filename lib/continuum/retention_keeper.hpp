// Keeps the logs of a worker's partitions as short as the topic's retention says, in the background. Private
// to the library: includes Asio.
#pragma once

#include "continuum/partition_worker.hpp"
#include "continuum/trim.hpp"
#include "continuum/wake.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace continuum {

// Every worker of every group does it for the partitions that it holds: it needs no lease, only that one of
// them lives. Looks at the topic's settings each time, so that they hold soon after they were changed;
// without a retention that is all.
class RetentionKeeper {
 public:
  // `partitions`: of this worker. Both outlive this.
  RetentionKeeper(Shift& shift, const std::vector<std::unique_ptr<PartitionWorker>>& partitions);

  // Until close(). What goes wrong is told: events are handled nevertheless.
  asio::awaitable<void> run();
  void close();

 private:
  // What the topic's settings ask for, as they are now.
  struct Wanted {
    Topic topic;
    SystemTime now;  // by the server's clock
    TrimGoal goal;
    BootClock::time_point asked;

    // Somebody may have changed them: nothing is removed by them any more.
    [[nodiscard]] bool is_old() const;
  };

  asio::awaitable<void> look();
  // Nothing when nothing is to be trimmed.
  asio::awaitable<std::optional<Wanted>> ask();
  enum class Trim : std::uint8_t { over, wanted_is_old };
  // What is wrong with one log is told: it is no reason to let the others grow.
  asio::awaitable<Trim> trim(Partition partition, const Wanted& wanted);
  [[nodiscard]] bool goes_on() const { return !closed_ && shift_.stopping == Stopping::no; }
  void tell_stalled(const Topic& topic, Partition partition, const TrimHolder& holder);
  void tell_failed(Partition partition, const std::string& what);
  // Whether it is time to say something, about a group or about what failed ("").
  [[nodiscard]] bool tells(const std::string& group, Partition partition);

  Shift& shift_;
  const std::vector<std::unique_ptr<PartitionWorker>>& partitions_;
  std::map<std::pair<std::string, Partition>, Clock::time_point> told_;
  bool closed_ = false;
  Wake wake_;
};

}  // namespace continuum
