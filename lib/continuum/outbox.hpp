// Forwards what handlers emitted on one partition to its topic, each event exactly once and in the order of
// its numbers (PROTOCOLS: Emit). Private to the library: includes Asio.
//
// The commit that moves the cursor past an event puts the events that it caused into the outbox, numbered 1,
// 2, 3, … per group and partition (commit.lua). From there they are published by a producer of their own: its
// epoch is the fence of the lease, so that one who lost the lease can append nothing once the next one has
// begun; its positions are the numbers, so that what a crash left half done is recognized. An entry is
// deleted when the topic has all of it. Only what is stored is ever forwarded: a handler that prints
// something else when it is run again changes nothing.
#pragma once

#include "continuum/commit.hpp"
#include "continuum/emit_target.hpp"
#include "continuum/redis_client.hpp"
#include "continuum/wake.hpp"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// Whose outbox, under which lease.
struct OutboxSource {
  std::string topic;
  std::string log_id;
  Partition partition;
  std::string group;
  Fence fence;
};

// For one lease. Everything happens on one thread.
class Outbox {
 public:
  // A worker that emits faster than it forwards stops handling at these.
  static constexpr std::size_t entries_max = 10'000;
  static constexpr std::size_t bytes_max = std::size_t{64} << 20;

  // `client`: not the one that renews leases, because a server that is full makes appends wait, and all that
  // is asked behind them. Outboxes may share it. `owner` is notified whenever full(), drained(), fenced(),
  // failed() or waits_for() may have changed. Client and target outlive it.
  Outbox(asio::any_io_executor executor, redis::Client& client, EmitTarget& target, OutboxSource source,
         Wake& owner);

  // Begins to forward; at first what an earlier worker left.
  void start();
  // Ends after the answers that are under way. What is left waits for the next lease.
  asio::awaitable<void> end();

  // A commit stored that many entries (Commit::outputs).
  void committed(std::size_t entries, std::size_t bytes);

  // Nothing more should be handled until it has become less.
  [[nodiscard]] bool full() const { return entries_ >= entries_max || bytes_ >= bytes_max; }
  // The outbox is empty; the topic has everything that was committed. False until that is known.
  [[nodiscard]] bool drained() const { return !unread_; }
  [[nodiscard]] std::size_t entries() const { return entries_; }
  // Another worker has the lease: nothing more is forwarded.
  [[nodiscard]] bool fenced() const { return fenced_; }
  // Why nothing is forwarded now, for a person; empty: it is.
  [[nodiscard]] const std::string& waits_for() const { return waits_for_; }
  // Forwarding has ended with this: throws it. Error{loss}: topic and outbox contradict each other.
  // Error{usage}: the outbox is for another topic. Error{server}: the server was silent for too long.
  void throw_if_failed() const;

 private:
  // The events of one partition of the target on their way into one append.
  struct Lane {
    Position sent;  // the last one that the chain of appends has
    Position last;
    std::string lines;
    std::uint32_t events = 0;
  };
  struct Sent {
    Partition partition;
    Position last;
  };
  using Positions = std::map<Generation, std::map<Partition, Position>>;
  // What was read and is not known to be stored.
  struct Reading {
    redis::Replies replies;
    std::size_t entries = 0;  // of them, up to the first one of another run
    std::uint64_t run = 0;
    Position first;
    Position next;
    EntryId last_id;
    std::size_t bytes = 0;

    [[nodiscard]] redis::Reply read() const { return replies[replies.size() - 1]; }
  };

  asio::awaitable<void> run();
  asio::awaitable<void> forward();
  asio::awaitable<bool> still_ours();
  asio::awaitable<void> round();
  asio::awaitable<void> connect();
  asio::awaitable<std::optional<redis::Replies>> ask(redis::Request request);

  asio::awaitable<std::optional<Reading>> read();  // nothing: there is nothing now
  void measure(Reading& reading) const;
  asio::awaitable<void> take_over(const Reading& reading);
  asio::awaitable<bool> wait_for_generation();
  asio::awaitable<bool> open();
  void check_positions(const Reading& reading) const;
  [[nodiscard]] bool is_stored(std::string_view key, Position position) const;

  void send(const Reading& reading, redis::Request& request, std::vector<Sent>& sent);
  void flush(Partition partition, Lane& lane, redis::Request& request, std::vector<Sent>& sent);
  [[nodiscard]] bool acknowledged(const redis::Replies& replies, const std::vector<Sent>& sent);
  void begin_again();
  void set_fenced();
  void set_waits_for(std::string what);
  [[noreturn]] void no_log() const;

  asio::any_io_executor executor_;
  redis::Client& client_;
  EmitTarget& target_;
  const OutboxSource source_;
  const GroupKeys keys_;
  const std::string where_;  // for messages
  Wake& owner_;
  Wake wake_;
  Signal ended_;
  bool running_ = false;
  bool stopping_ = false;
  bool fenced_ = false;
  std::exception_ptr error_;
  std::string waits_for_;

  // What is read, published and deleted is so on one connection, that is in one life of the server: a server
  // that comes back may have forgotten what it had confirmed, and must not be told to delete the only copy.
  std::optional<std::uint64_t> connection_;
  std::uint32_t losses_ = 0;  // of connections, one after the other

  // --- reading
  bool unread_ = true;
  std::uint64_t notices_ = 0;
  std::size_t entries_ = 0;
  std::size_t bytes_ = 0;
  std::size_t read_entries_ = 16;  // at a time
  EntryId read_up_to_;
  std::optional<Position> next_;
  std::optional<EntryId> delete_up_to_;

  // --- the producer
  bool opened_ = false;
  std::uint64_t run_ = 0;  // of the group
  std::string producer_;
  Generation active_;  // of the target
  Generation told_;    // the target is at least here
  Positions stored_;   // when it was opened
  Position stored_until_;
  Position numbered_;  // what the outbox had handed out then
  Positions acked_;    // by this object, in this run
  std::map<Partition, Lane> lanes_;
  std::uint32_t refusals_ = 0;  // one after the other
};

}  // namespace continuum
