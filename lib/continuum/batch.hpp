// Batches of events between the three threads of a publish. Private to the publisher.
#pragma once

#include "continuum/frame.hpp"
#include "continuum/types.hpp"

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace continuum {

// Events of one partition on their way to one log entry.
struct Batch {
  Partition partition;
  std::string lines;
  std::vector<Position> positions;  // of its events, rising
  std::string digest;               // of the producer's input up to its last event, as stored
  Encoding encoding = Encoding::plain;
  std::string frame;  // when the encoding is not plain: `lines` is kept for receipts

  [[nodiscard]] Position last() const { return positions.back(); }
  [[nodiscard]] std::uint32_t events() const { return static_cast<std::uint32_t>(positions.size()); }
};
using BatchPointer = std::unique_ptr<Batch>;

// From the reading to the encoding thread.
class BatchQueue {
 public:
  void push(BatchPointer batch);
  void end();
  [[nodiscard]] BatchPointer pop();  // waits; null at the end

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<BatchPointer> batches_;
  bool ended_ = false;
};

// Bytes on their way from reading to acknowledged, so that a slow server slows the reading down.
class Budget {
 public:
  explicit Budget(std::size_t bytes_max) : bytes_max_(bytes_max) {}
  // Waits until there is room; a single larger batch passes alone. False once closed.
  bool take(std::size_t bytes);
  void give(std::size_t bytes);
  void close();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t bytes_max_;
  std::size_t used_ = 0;
  bool closed_ = false;
};

}  // namespace continuum
