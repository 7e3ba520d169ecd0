// Reads the logs of many partitions over one connection, ahead of who handles them.
// Private to the library: includes Asio.
#pragma once

#include "continuum/log.hpp"
#include "continuum/redis_client.hpp"
#include "continuum/wake.hpp"

#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <string>

namespace continuum {

// An entry whose frame and producer lie in `storage`, which the entries of one answer share.
struct FetchedEntry {
  Entry entry;
  std::shared_ptr<const std::string> storage;
};

// What was read of one partition and not taken yet. At about queue_bytes_max it is read no further until it
// is half empty.
class LogQueue {
 public:
  [[nodiscard]] bool empty() const { return entries_.empty(); }
  // The oldest entry. Throws what went wrong with reading once the entries before it are taken.
  [[nodiscard]] const FetchedEntry* front() const;
  FetchedEntry take();
  // Offset behind the newest entry read, or nothing while there was none.
  [[nodiscard]] std::optional<Offset> read_up_to() const { return read_up_to_; }
  [[nodiscard]] EntryId position() const { return position_; }

 private:
  friend class LogReader;
  std::deque<FetchedEntry> entries_;
  std::size_t bytes_ = 0;
  bool full_ = false;
  EntryId position_;  // of the last entry read
  std::optional<Offset> read_up_to_;
  std::exception_ptr error_;
  Wake* wake_ = nullptr;
  class LogReader* reader_ = nullptr;
};

class LogReader {
 public:
  static constexpr std::size_t streams_max = 64;  // of one call

  // `control` wakes our own blocked call when a partition joins it. Both clients outlive the reader.
  LogReader(asio::any_io_executor executor, redis::Client& client, redis::Client& control, std::string topic);

  // Reads until stopped. The caller waits for its end before the reader goes.
  asio::awaitable<void> run();
  void stop();

  // From the entry behind `after` on; `wake` hears of every entry. At most streams_max partitions.
  std::shared_ptr<LogQueue> subscribe(Partition partition, EntryId after, Wake& wake);
  void unsubscribe(Partition partition);

 private:
  friend class LogQueue;
  void resume(LogQueue& queue);
  void take_answer(redis::Reply answer);
  void take_stream(Partition partition, redis::Reply entries);
  void wake_call();
  asio::awaitable<void> unblock(std::uint64_t call);
  void fail_all(const std::exception_ptr& error);

  asio::any_io_executor executor_;
  redis::Client& client_;
  redis::Client& control_;
  std::string topic_;
  std::map<Partition, std::shared_ptr<LogQueue>> queues_;
  std::map<std::string, std::pair<Partition, std::shared_ptr<LogQueue>>, std::less<>> asked_;  // by key
  Wake wake_;
  Signal unblocked_;
  std::uint64_t call_ = 0;  // number of the call that is out; 0: none
  std::uint64_t calls_ = 0;
  std::size_t unblocking_ = 0;
  std::size_t count_ = 8;  // entries a stream; adapts to their size
  std::size_t answer_bytes_ = 0;
  std::size_t answer_entries_ = 0;
  bool stopping_ = false;
};

}  // namespace continuum
