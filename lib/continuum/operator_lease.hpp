// The leases of partitions in the hands of a person's command: for moments, and never against a worker that
// lives. What is done under them is refused once they are lost, as with a worker's (PROTOCOLS: Lease).
#pragma once

#include "continuum/lease.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <chrono>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

class OperatorLeases {
 public:
  // `who`: for people. Nothing is taken yet. `session` must outlive it.
  OperatorLeases(redis::Session& session, const Topic& topic, std::string group, std::string who);
  ~OperatorLeases();  // gives back what it has
  OperatorLeases(const OperatorLeases&) = delete;
  OperatorLeases& operator=(const OperatorLeases&) = delete;

  struct Refusal {
    Partition partition;
    std::string holder;
  };
  struct Taken {
    std::vector<Refusal> refused;           // a living worker has them
    std::vector<Partition> not_registered;  // the group is not known there
  };
  // Takes every other one. A holder that may be dead is watched for as long as its lease lasts.
  [[nodiscard]] Taken take(std::span<const Partition> partitions);
  // take() all, or none: throws Error{fenced} naming who has which. Returns those that are not registered.
  std::vector<Partition> take_all(std::span<const Partition> partitions);

  // What was acquired, by partition.
  [[nodiscard]] const std::map<Partition, Acquired>& acquired() const { return acquired_; }
  [[nodiscard]] Acquired& of(Partition partition) { return acquired_.at(partition); }

  // Commits do that, too. Throws Error{fenced} when one is lost.
  void renew();
  // Likewise, when it is time: to be called often.
  void keep();
  // The partition is not where it was: a state in which a worker left it (halted) holds no more. Without this
  // it is said again when the lease is given back.
  void moved(Partition partition) { left_.erase(partition); }
  void release();

 private:
  void remember_halts(std::span<const Partition> partitions);

  redis::Session& session_;
  std::string topic_;
  std::string log_id_;
  std::string group_;
  LeaseHolder me_;
  std::map<Partition, Acquired> acquired_;
  std::map<Partition, Doing> left_;  // where a worker left it halted
  std::chrono::steady_clock::time_point renew_at_{};
};

}  // namespace continuum
