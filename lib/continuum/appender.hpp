// One producer's batches on their way into the log: in order and each once per partition, whatever becomes of
// connections, and over changes of the ring (PROTOCOLS: Append, Producer resume). Private to the publisher:
// includes Asio. Everything here happens on the thread of the client.
#pragma once

#include "continuum/acknowledgement.hpp"
#include "continuum/batch.hpp"
#include "continuum/publish_input.hpp"
#include "continuum/publisher.hpp"
#include "continuum/redis_client.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

class Appender {
 public:
  // The end of a batch: stored, or (not) confirmed; with its first offset where that is known.
  using Done = std::function<void(const Batch&, std::optional<Offset>, StoredBatch::Status)>;
  // `options` and `client` must outlive it. The settings of `topic` hold for all that is sent: whoever
  // gathers and encodes for it knows no others that may be set meanwhile.
  Appender(redis::Client& client, const Topic& topic, const PublishOptions& options, Done done);

  [[nodiscard]] const Topic& topic() const { return topic_; }
  [[nodiscard]] bool named() const { return named_; }
  [[nodiscard]] const std::string& producer() const { return producer_; }

  // Before the first batch. Fences earlier processes of a named producer, and returns what they stored.
  // Throws Error{usage} when the server cannot acknowledge as asked, and Error{loss} when the log is gone.
  asio::awaitable<Stored> begin();

  // Batches of a partition are sent in the order of their calls, those of a ring that has changed meanwhile
  // are kept for follow().
  void send(BatchPointer batch);
  [[nodiscard]] std::size_t outstanding() const { return in_flight_.size(); }
  // Waits for the answer to the oldest of the outstanding. Throws Error{loss} when the log lost what it had
  // confirmed, Error{fenced} when another process took over.
  asio::awaitable<void> take_answer();

  // A partition is in a later generation than what was sent to it. Nothing more is sent until follow().
  [[nodiscard]] bool told_of_change() const { return told_.has_value(); }
  struct Followed {
    std::vector<BatchPointer> unstored;         // to be encoded and sent again, in this order
    std::map<Partition, std::uint64_t> chains;  // of the input, behind all of that
  };
  // Nothing is outstanding, and everything that was read is here. Waits for the resize, finds out what is
  // stored and reports it as done, and routes the rest. Throws Error{interrupted} when goes_on() says no.
  asio::awaitable<Followed> follow(std::function<bool()> goes_on);

  // Whatever has not come to an end is done, unconfirmed.
  void give_up();
  // The state of an unnamed producer may go soon. Nobody needs the answer; nullopt: nothing was sent.
  std::optional<asio::awaitable<redis::Replies>> farewell();

 private:
  // A partition's chain of appends.
  struct Lane {
    Position sent;   // last position of the chain as sent
    Position acked;  // last position that is known to be stored
    Position most;   // that was ever sent
    std::size_t outstanding = 0;
    bool broken = false;             // an append was refused: nothing more is sent until all answers are in
    Position resume;                 // where the log stands, when broken
    std::deque<BatchPointer> again;  // to be sent when they are
  };
  struct InFlight {
    BatchPointer batch;
    asio::awaitable<redis::Replies> answer;
  };

  asio::awaitable<void> take_over();
  void adopt(Topic now);
  asio::awaitable<Stored> open(const Topic& topic);
  void begin_lanes(const Stored& stored);
  void require_kept(const Stored& stored);
  void acknowledge(BatchPointer batch, const redis::Replies& replies);
  void resend(Lane& lane);
  [[noreturn]] void refuse(std::string_view code, const Batch& batch) const;
  [[noreturn]] void fail_lost(Partition partition, Position confirmed, Position has) const;
  [[noreturn]] void no_log() const;
  [[noreturn]] void fenced() const;

  redis::Client& client_;
  Topic topic_;
  const PublishOptions& options_;
  Done done_;
  bool named_;
  std::string producer_;
  std::uint64_t epoch_ = 0;
  Acknowledgement acknowledgement_;
  std::map<Partition, Lane> lanes_;
  std::set<Partition> touched_;  // in earlier generations
  // Highest positions that this process found or sent.
  std::map<Generation, std::map<Partition, Position>> mine_;
  std::optional<Generation> told_;      // a partition is there already: nothing is sent
  std::vector<BatchPointer> unstored_;  // meanwhile
  bool confirmed_ = true;               // what open() found
  std::deque<InFlight> in_flight_;
};

}  // namespace continuum
