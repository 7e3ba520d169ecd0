// One worker process: its connections and threads, a story for each partition and for what goes on beside
// them. Private to the library: includes Asio.
//
//   worker.cpp           begins, ends, keeps leases
//   worker_ring.cpp      takes up the partitions that come with a change of the ring
//   worker_requests.cpp  what people, the service manager and changed files ask of it; what it says
#pragma once

#include "continuum/barrier_watch.hpp"
#include "continuum/decode_pool.hpp"
#include "continuum/handler_comparison.hpp"
#include "continuum/handler_watch.hpp"
#include "continuum/partition_worker.hpp"
#include "continuum/printer.hpp"
#include "continuum/retention_keeper.hpp"
#include "continuum/service_notify.hpp"
#include "continuum/shared_partitions.hpp"
#include "continuum/worker.hpp"

#include <asio/posix/stream_descriptor.hpp>

#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace continuum {

class Worker {
 public:
  Worker(redis::Session& session, const Topic& topic, const WorkOptions& options);

  WorkSummary run();

 private:
  void prepare_emit();
  void make_partitions();
  PartitionWorker& add_partition(Partition partition);
  asio::awaitable<Topic> load_topic();
  asio::awaitable<void> work();
  // Runs beside the others; its error stops all.
  void start(asio::awaitable<void> story);
  void start_partition(PartitionWorker& own);
  asio::awaitable<void> renew_leases();
  asio::awaitable<void> limit_time();
  void fail_with(const std::exception_ptr& error);
  void look_for_end();
  void stop(Stopping how);
  asio::awaitable<void> hurry();

  // --- worker_ring.cpp
  void saw_topic(const Topic& topic);
  asio::awaitable<void> follow_ring();
  [[nodiscard]] bool takes_up_what_comes() const;
  [[nodiscard]] bool comes_back(Partition partition) const;
  [[nodiscard]] bool more_to_open() const;
  asio::awaitable<std::vector<Partition>> register_here(std::vector<Partition> partitions);
  asio::awaitable<void> take_up_new_partitions();

  // --- worker_requests.cpp
  void tell(const std::string& what, Partition partition);
  asio::awaitable<void> say_told();
  asio::awaitable<void> obey_requests();
  asio::awaitable<void> limit_drain();
  void read_handlers(Removals removals);
  asio::awaitable<void> follow_handlers();
  void say_state();
  asio::awaitable<void> report_to_manager();

  asio::io_context& io_;
  asio::any_io_executor executor_;
  const WorkOptions& options_;
  const WorkOptions each_;  // as a partition sees them
  redis::Client& control_;
  Topic topic_;  // its ring may change
  Rings rings_;
  std::unique_ptr<ProcessGuard> guard_;
  HandlerWatch handlers_;
  std::optional<OutputWriter> output_;
  std::optional<DecodePool> disk_;
  DecodePool pool_;
  Workplace place_;
  Shift shift_;
  BarrierWatch watch_;
  std::optional<EmitWrapper> emit_wrapper_;
  std::optional<EmitTarget> emit_target_;
  std::unique_ptr<redis::Client> emit_client_;
  std::vector<std::unique_ptr<redis::Client>> read_clients_;
  std::vector<std::unique_ptr<LogReader>> readers_;
  std::vector<std::unique_ptr<PartitionWorker>> partitions_;
  std::optional<SharedPartitions> sharing_;
  std::optional<HandlerComparison> comparison_;
  std::optional<RetentionKeeper> retention_;

  std::map<std::string, std::vector<Partition>> told_;  // not said yet
  asio::steady_timer say_;

  std::size_t stories_ = 0;   // that have not ended
  bool closing_ = false;      // every partition has ended: the other stories follow
  std::set<Partition> open_;  // partitions whose stories have not ended
  bool reading_ = false;      // readers are started
  Generation followed_;       // whose partitions are taken up
  std::set<Partition> full_;  // that cannot be, because the server is
  Wake ended_;
  Wake ring_;  // it may have changed
  Wake renew_;
  std::optional<asio::posix::stream_descriptor> requests_;
  std::optional<asio::posix::stream_descriptor> handlers_changed_;
  ServiceNotify manager_;
  Wake report_;
  asio::steady_timer time_;
  asio::steady_timer drain_;
  asio::steady_timer hurry_;
  bool hurrying_ = false;
  bool stopped_ = false;
  bool stopped_at_once_ = false;
  bool output_closed_ = false;
  std::exception_ptr error_;
};

}  // namespace continuum
