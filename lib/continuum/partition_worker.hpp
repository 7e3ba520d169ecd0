// The story of one partition in a worker: take the lease, read on from the cursor, have the events handled,
// commit, give the lease back. Private to the library: includes Asio.
#pragma once

#include "continuum/barrier_watch.hpp"
#include "continuum/commit.hpp"
#include "continuum/lease.hpp"
#include "continuum/outbox.hpp"
#include "continuum/ring.hpp"
#include "continuum/ring_change.hpp"
#include "continuum/sink.hpp"

#include <algorithm>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

namespace continuum {

enum class Stopping : std::uint8_t {
  no,
  drain,  // what runs is finished
  now,    // what runs is killed
};

// The rings of a topic, made when they are asked for.
class Rings {
 public:
  explicit Rings(const Topic& topic) : topic_(topic) {}
  // nullptr: the topic does not describe it.
  [[nodiscard]] const Ring* of(Generation generation);
  // Those that had keys before `generation` which are `to`'s in it; of one that is in force.
  [[nodiscard]] const std::vector<Partition>& donors(Generation generation, Partition to);

 private:
  const Topic& topic_;
  std::map<Generation, Ring> rings_;
  std::map<Generation, Donors> donors_;
};

// What the stories of one worker have in common.
struct Shift {
  Workplace& place;
  redis::Client& control;  // leases and commits
  LeaseHolder me;
  redis::Client* emit_client = nullptr;  // null: nothing is emitted
  EmitTarget* emit_target = nullptr;
  Stopping stopping = Stopping::no;
  std::function<void()> renew_soon;  // somebody's state changed
  std::function<void()> on_ended;    // a partition halted, or a shared one was left
  // For a person: what happens to many partitions at once is said once.
  std::function<void(const std::string& what, Partition partition)> tell;
  std::string handlers;  // fingerprint of their directory; empty: there is none
  // The topic as somebody has just read it: the workplace's is brought up to date.
  std::function<void(const Topic& topic)> saw_topic;
  Rings* rings = nullptr;
  BarrierWatch* watch = nullptr;
  Ending ending = Ending::never;  // of the worker as a whole, also when partitions are shared
};

class PartitionWorker {
 public:
  PartitionWorker(Shift& shift, LogReader& reader, Partition partition);

  // Until there is nothing left to do here, or the shift is stopping. Throws Error.
  asio::awaitable<void> run();
  // Looks again at the shift.
  void notify() {
    wake_.notify();
    full_.notify();
  }
  // The handlers of the workplace have changed.
  void handlers_changed();
  [[nodiscard]] std::string state_for_people() const;
  [[nodiscard]] bool halted() const { return halted_; }
  // A drained run that ends before a barrier, because it would wait for a partition on which nobody goes on.
  [[nodiscard]] bool in_vain() const { return in_vain_; }
  // While it is held: by an operator. Nothing is started.
  [[nodiscard]] bool paused() const { return began_ && knows_held_ && !paused_.empty(); }
  // A drained run that ended for one of both reasons and left events, or letters that an operator had asked
  // to be handled again or taken away.
  [[nodiscard]] bool left_something() const {
    return (in_vain_ || (shift_.ending == Ending::drained && !paused_.empty())) &&
           (left_requests_ || (end_ && committed_.offset < *end_));
  }
  [[nodiscard]] Partition partition() const { return tenure_.partition; }
  // By this worker; what an archive lacks in front of it is not.
  [[nodiscard]] Offset committed() const {
    return sink_ ? std::min(committed_.offset, sink_->finished().offset) : committed_.offset;
  }
  // The log was read, or was about to be, in the last tenure.
  [[nodiscard]] bool began() const { return began_; }
  // While it is held: an operator has asked for letters to be handled again or taken away, and that is not
  // done yet, or it is not known yet whether somebody has.
  [[nodiscard]] bool releasing() const { return !sink_ || !knows_held_ || sink_->releasing(); }
  // The last entry that its archive has, while it is held.
  [[nodiscard]] EntryId archived() const { return sink_ ? sink_->finished().entry : EntryId{}; }
  [[nodiscard]] bool archives() const { return place_.options.archive.has_value(); }
  [[nodiscard]] Generation passed() const { return sink_ ? sink_->passed(tenure_.passed) : tenure_.passed; }
  // Out of the ring, with everything that was in it handled, or taken over by others.
  [[nodiscard]] bool retired() const { return retired_; }
  // run() has returned, and is to be called once more: the partition is in the ring again.
  void begin_again();
  // The workplace's topic has another ring.
  void ring_changed();

  // --- of workers that share. A pinned partition is wanted from its beginning to its end.

  // Who else had the lease, and since when without a sign of life.
  struct Sighting {
    Held held;
    BootClock::time_point since;
  };
  [[nodiscard]] bool wanted() const { return wanted_; }
  [[nodiscard]] bool holding() const { return holding_; }
  [[nodiscard]] bool leaving() const { return leaving_; }
  // Tries once to get the lease; wanted() no more when somebody else has it.
  void take(std::optional<Sighting> silent);
  // What runs is finished and committed, then the lease is given back.
  void give_up();

  // For one request that renews the leases of all partitions: adds ours and says for which fence, if there is
  // a lease to renew.
  std::optional<Fence> add_renewal(redis::Request& request);
  void renewed(Fence fence, BootClock::time_point sent, const Renewed& renewed);

 private:
  // --- the lease: partition_lease.cpp
  [[nodiscard]] bool shared() const { return place_.options.sharing == Sharing::shared; }
  // Neither told to end, nor to leave this partition to others.
  [[nodiscard]] bool staying() const { return !leaving_ && shift_.stopping == Stopping::no; }
  asio::awaitable<std::optional<Acquired>> acquire();
  void tell_held(const Held& held);
  asio::awaitable<void> hold(const Acquired& acquired);
  asio::awaitable<Beginning> look_at_beginning();
  asio::awaitable<LogExtent> look_at_log(EntryId entry);
  [[nodiscard]] bool ours() const { return !lost_ && tenure_.holds(); }
  void extend(BootClock::time_point sent);
  void tell_lost();
  [[nodiscard]] bool gives_up_when_fenced() const;
  asio::awaitable<void> leave(bool failed);
  asio::awaitable<bool> learn_end();

  // --- events
  asio::awaitable<void> work();
  void make_sink(const Cursor& start);
  [[nodiscard]] Doing doing() const;
  void pause_sink();
  bool feed();
  [[nodiscard]] bool ended();
  void tell_state();
  [[nodiscard]] Clock::time_point next_time() const;
  asio::awaitable<void> stand_halted();

  // --- commits: partition_commit.cpp
  static constexpr Milliseconds commit_every{50};
  [[nodiscard]] bool commit_due(Clock::time_point now) const;
  [[nodiscard]] bool all_committed() const;
  [[nodiscard]] Commit gather_commit(const Cursor& cursor);
  void start_commit();
  asio::awaitable<void> commit(Commit what);
  asio::awaitable<std::optional<Kept>> send_commit(const Commit& what);
  asio::awaitable<void> wait_for_memory(Clock::time_point since, std::uint32_t refusals);
  asio::awaitable<bool> commit_now(Cursor cursor);  // false: not ours any more

  // --- held keys
  asio::awaitable<void> learn_held();
  asio::awaitable<void> read_letters(EntryId after);

  // --- what handlers emit
  void start_outbox();
  asio::awaitable<void> refuse_left_outputs();
  void look_at_outbox();
  [[nodiscard]] bool outbox_drained() const { return !outbox_ || outbox_->drained(); }
  [[nodiscard]] bool outbox_may_be_left() const;

  // --- barriers: barrier.cpp
  asio::awaitable<void> cross_barrier();
  asio::awaitable<void> stand_at(Generation generation);
  asio::awaitable<void> reach(Generation generation);
  asio::awaitable<bool> cross(Generation generation, Cursor behind);
  asio::awaitable<void> refresh_topic();
  asio::awaitable<bool> in_force(Generation generation);
  asio::awaitable<bool> have_passed(const std::set<Partition>& partitions, Generation generation);
  asio::awaitable<bool> drop_departed();
  asio::awaitable<bool> drop_letters(const std::vector<HeldKey>& keys);
  asio::awaitable<bool> take_over_letters(Generation generation);
  asio::awaitable<bool> copy_letters(Generation generation, Partition donor, EntryId after);
  asio::awaitable<bool> commit_beside(Commit what);  // false: not ours any more
  asio::awaitable<bool> commit_between(Commit what);
  [[nodiscard]] Commit commit_at(const Cursor& cursor, Generation passed, std::optional<Import> import) const;
  [[nodiscard]] bool is_in(Generation generation) const;
  asio::awaitable<void> tidy_up();
  [[nodiscard]] bool is_mine(Generation generation, std::string_view key) const;
  [[nodiscard]] bool leaves_with(Generation generation, std::string_view key) const;
  [[nodiscard]] bool is_frozen(std::string_view key) const;
  [[nodiscard]] bool out_of_ring() const;
  asio::awaitable<bool> pause();  // false: stopping or lost

  // --- loss
  asio::awaitable<bool> still_ours();
  asio::awaitable<void> examine_log();
  [[noreturn]] void fail_lost_events(Offset from, Offset until) const;
  [[noreturn]] void fail_refused(Kept kept) const;

  Shift& shift_;
  Workplace& place_;
  LogReader& reader_;
  Wake wake_;
  const GroupKeys keys_;
  std::string where_;  // topic and partition, for messages

  Tenure tenure_;
  bool holding_ = false;
  bool began_ = false;
  bool wanted_;
  bool leaving_ = false;  // to others, while holding
  std::optional<Sighting> silent_;
  std::optional<Kept> lost_;
  bool told_held_ = false;
  std::optional<Fence> lapsed_;  // the lease that ran out before anybody said that it was lost

  std::shared_ptr<LogQueue> queue_;
  std::shared_ptr<Sink> sink_;
  std::optional<Outbox> outbox_;
  std::string outbox_told_;  // why it waits
  Offset expected_;          // of the next entry; the first one may begin earlier
  bool first_entry_ = true;
  std::optional<Offset> gap_;  // where the log goes on instead
  std::optional<Offset> end_;  // where a drained run ends
  // Likewise, of an archive: it has the barriers at the end, too.
  std::optional<EntryId> end_entry_;
  Generation end_generation_;  // and what it has to pass before

  Import import_;
  Awaited awaited_;                // by the last attempt to pass a barrier
  std::uint64_t learn_since_ = 0;  // of donors, in this tenure
  Clock::time_point cross_at_{};   // not before
  Milliseconds cross_pause_{0};    // between the last two attempts
  Clock::time_point tidy_at_{};    // likewise
  std::optional<Clock::time_point> not_in_force_since_;
  bool tidying_ = true;  // there may be letters of keys that others have now, or nothing left to do
  bool retired_ = false;
  bool finishing_ = false;  // nothing more is started in this tenure
  bool over_ = false;       // there is nothing left to do here
  bool halted_ = false;
  bool in_vain_ = false;
  bool left_requests_ = false;  // to handle letters again or take them away, in the last tenure
  Doing told_;                  // what the server knows
  std::uint64_t requests_ = 0;  // of operators, that were seen
  bool look_at_held_ = false;   // there are new ones
  bool knows_held_ = false;     // the sink does

  std::uint64_t number_ = 0;
  Cursor committed_;
  Clock::time_point committed_at_;
  bool committing_ = false;
  std::exception_ptr commit_error_;
  std::string refused_;  // why the server does not take the commit; empty: it does
  SystemTime refused_since_{};
  Wake full_;                   // for the commit that waits
  bool commit_failed_ = false;  // what it said must not be left out by a later one
  bool abandoned_ = false;      // it was refused for too long
  std::string paused_;          // by an operator

  // A log that has more than comes out of it is a log that lost something.
  std::optional<Offset> asked_at_;  // expected_ when the last renewal was sent
  Offset log_end_;
  std::uint32_t stuck_renewals_ = 0;
  bool suspicious_ = false;
};

}  // namespace continuum
