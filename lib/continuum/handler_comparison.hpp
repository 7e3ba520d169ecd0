// Hosts to which different handlers were deployed: a worker looks from time to time whether the others of its
// group run the same directory as itself. Private to the library: includes Asio.
#pragma once

#include "continuum/partition_worker.hpp"
#include "continuum/types.hpp"

#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace continuum {

// What is to be told, and when. A deployment reaches hosts one after the other: only what stays different is
// told, and once. Pure: no I/O and no clock.
class HandlerDifferences {
 public:
  // A partition whose lease somebody else has.
  struct Sighting {
    Partition partition;
    std::string owner;
    std::string who;
    std::string beat;
    std::string handlers;  // fingerprint; empty: of no directory
  };
  // Workers that run the same as each other.
  struct Difference {
    std::string handlers;
    std::vector<std::string> who;  // sorted
  };

  explicit HandlerDifferences(Milliseconds differ_for) : differ_for_(differ_for) {}

  // `ours`: our fingerprint. What differed in all looks of `differ_for`, from workers that showed a sign of
  // life meanwhile; each worker with each pair of fingerprints once.
  std::vector<Difference> see(const std::string& ours, std::span<const Sighting> others,
                              Clock::time_point now);

 private:
  struct Other {
    Clock::time_point since;
    bool alive = false;
  };

  const Milliseconds differ_for_;
  std::string ours_;
  std::map<std::pair<std::string, std::string>, Other> differing_;    // by owner and fingerprint
  std::map<Partition, std::pair<std::string, std::string>> beats_;    // owner and beat of the last look
  std::set<std::tuple<std::string, std::string, std::string>> told_;  // who, theirs, ours
};

class HandlerComparison {
 public:
  // `partitions`: of this worker. Both outlive this.
  HandlerComparison(Shift& shift, const std::vector<std::unique_ptr<PartitionWorker>>& partitions);

  // Until close().
  asio::awaitable<void> run();
  // Our own handlers have changed.
  void notify() { wake_.notify(); }
  void close();

 private:
  asio::awaitable<void> look();
  void tell(const HandlerDifferences::Difference& difference) const;

  Shift& shift_;
  const std::vector<std::unique_ptr<PartitionWorker>>& partitions_;
  HandlerDifferences differences_;
  bool closed_ = false;
  Wake wake_;
};

}  // namespace continuum
