// Batches of events between the three threads of a publish. Private to the publisher.
#pragma once

#include "continuum/frame.hpp"
#include "continuum/types.hpp"

#include <condition_variable>
#include <cstddef>
#include <cstdint>
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
  // Of their input lines, for the digest of whatever partition they come to; of named producers only.
  std::vector<std::uint64_t> line_hashes;
  std::string digest;  // of the producer's input up to its last event, as stored
  Encoding encoding = Encoding::plain;
  std::string frame;  // when the encoding is not plain: `lines` is kept for receipts

  [[nodiscard]] Position last() const { return positions.back(); }
  [[nodiscard]] std::uint32_t events() const { return static_cast<std::uint32_t>(positions.size()); }
};
using BatchPointer = std::unique_ptr<Batch>;

// From the reading to the encoding thread. Marks keep their place among the batches.
class BatchQueue {
 public:
  enum class Mark : std::uint8_t {
    none,
    paused,    // the reader waits: everything that it made is before this
    ended,     // nothing more is read
    rerouted,  // everything that was routed once more is before this
    closed,    // the queue
  };
  struct Item {
    BatchPointer batch;  // null: a mark
    Mark mark = Mark::none;
  };

  void push(BatchPointer batch) { push({std::move(batch), Mark::none}); }
  void push(Mark mark) { push({nullptr, mark}); }
  void close();              // what is in it is dropped
  [[nodiscard]] Item pop();  // waits

 private:
  void push(Item item);

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Item> items_;
  bool closed_ = false;
};

// Bytes on their way from reading to acknowledged, so that a slow server slows the reading down.
class Budget {
 public:
  explicit Budget(std::size_t bytes_max) : bytes_max_(bytes_max) {}
  // Waits until there is room; a single larger batch passes alone. False once closed.
  bool take(std::size_t bytes);
  void give(std::size_t bytes);
  void close();
  // Nobody waits between these, however much is taken: what was read has to come through.
  void lift();
  void restore();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t bytes_max_;
  std::size_t used_ = 0;
  bool closed_ = false;
  bool lifted_ = false;
};

}  // namespace continuum
