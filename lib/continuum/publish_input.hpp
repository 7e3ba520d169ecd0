// The reading half of a publish: lines become batches, one partition each. Private to the publisher.
#pragma once

#include "continuum/batch.hpp"
#include "continuum/event.hpp"
#include "continuum/line_reader.hpp"
#include "continuum/publisher.hpp"
#include "continuum/ring.hpp"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

namespace continuum {

// What a named producer stored before, per generation and partition.
struct StoredState {
  Position position;
  std::string digest;  // 16 hex digits, or "position"
};
using Stored = std::map<Generation, std::map<Partition, StoredState>>;

// digest = XXH3-64 chained over (position, line): docs/formats.md, "Producer digest".
[[nodiscard]] std::uint64_t chained(std::uint64_t chain, Position position, std::uint64_t line_hash);
[[nodiscard]] std::string digest_text(std::uint64_t chain);
[[nodiscard]] std::uint64_t digest_value(const std::string& text);
// In the place of a digest, where positions come out of the events.
inline constexpr std::string_view by_position = "position";

struct InputCounters {
  std::atomic<std::uint64_t> duplicates{0};
  std::atomic<std::uint64_t> rejected{0};
};

class PublishInput {
 public:
  // `ready` gets each batch, in order per partition. `wake`: see LineReader.
  PublishInput(const PublishOptions& options, const Topic& topic, const Stored& stored,
               std::vector<LineSource> sources, int wake, const PublishHooks& hooks,
               std::function<void(BatchPointer)> ready, std::function<void()> paused, Budget& budget,
               InputCounters& counters);

  // Reads until the end of the input or stop(). Throws Error{loss} when the input is not the one that was
  // stored under this name; nothing of it was passed on then.
  void run();
  void stop();

  // For another thread, when the ring has changed. pause(): run() soon passes on what it has read, calls
  // `paused`, and waits for resume(), unless it ends before. From resume() on events go where `ring` says.
  // `chains`: of what was stored and is being stored in that generation. The descriptor `wake` has to be made
  // readable after pause().
  void pause() { pausing_.store(true, std::memory_order_relaxed); }
  void resume(Generation generation, std::unique_ptr<Ring> ring,
              const std::map<Partition, std::uint64_t>& chains);
  [[nodiscard]] std::uint64_t bytes_read() const { return reader_.bytes_read(); }

 private:
  // What the input so far must agree with, until it passed what was stored last.
  struct Claim {
    Position position;
    std::string digest;
    std::uint64_t chain = 0;
    bool met = false;
  };
  struct Generations {
    Generation generation;
    std::unique_ptr<Ring> ring;
    std::map<Partition, Claim> claims;
  };
  struct Lane {
    BatchPointer batch;            // being filled
    std::size_t bytes_before = 0;  // of the batch before
    std::size_t events_before = 0;
    std::uint64_t chain = 0;
  };

  void take(const Line& line);
  void reject(const Line& line, std::string_view reason);
  void add(Partition partition, const Line& line, Position position);
  // The partition where an earlier run stored this event.
  [[nodiscard]] std::optional<Partition> stored_at(const Line& line, Position position);
  void require_claims(Position passed) const;
  void pass_on(Lane& lane);
  void send(BatchPointer batch);
  void flush();
  void keep_rate();
  void wait_for_resume();
  [[nodiscard]] bool pausing() const { return pausing_.load(std::memory_order_relaxed); }
  [[nodiscard]] bool stopped() const { return stopped_.load(std::memory_order_relaxed); }

  const PublishOptions& options_;
  Frames frames_;
  const PublishHooks& hooks_;
  std::function<void(BatchPointer)> ready_;
  std::function<void()> paused_;
  Budget& budget_;
  InputCounters& counters_;
  Wrapper wrapper_;
  LineReader reader_;
  std::vector<Lane> lanes_;  // by partition number
  std::vector<std::size_t> open_lanes_;
  std::size_t open_bytes_ = 0;
  std::vector<Generations> generations_;  // ascending, the active one last
  std::size_t unmet_ = 0;                 // claims that the input has not met yet
  Position claimed_until_;                // the highest stored position
  std::deque<BatchPointer> held_;         // until all claims are met
  Position last_position_;
  std::optional<std::chrono::steady_clock::time_point> oldest_;  // when the first open batch began
  std::chrono::steady_clock::time_point rate_start_{};
  std::uint64_t rate_events_ = 0;
  std::atomic<bool> stopped_{false};
  std::atomic<bool> pausing_{false};
  std::mutex resume_mutex_;
  std::condition_variable resumed_;
};

}  // namespace continuum
