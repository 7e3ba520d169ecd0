// Cursors of replays: where in each partition the next run goes on, and the lease by which one run at a time
// moves them. Kept in Redis, in slot {TOPIC} (docs/formats.md: cursor).
#pragma once

#include "continuum/lease.hpp"
#include "continuum/log_range.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/topic_copy.hpp"
#include "continuum/types.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

struct ReplayCursorState {
  std::string name;
  std::string selection;     // what it is a cursor of, as the options that say so
  std::uint64_t run = 0;     // microseconds since 1970 when it was created; no two have the same
  std::uint64_t events = 0;  // that its runs sent on
  SystemTime moved{};        // by the clock of the one who did; 1970: never
  std::string owner;         // random, per process; empty: nobody
  std::string who;           // the owner for people
  // Where it goes on. Nothing until the first run has got somewhere.
  std::optional<ResumeAt> at;
  CopiedTo copied;  // by its runs, to another topic
  // What is wrong with it, and what to do; empty: it is whole. The rest of a damaged one may be missing.
  std::string damage;
};

// By name, also those that are damaged.
[[nodiscard]] std::vector<ReplayCursorState> list_replay_cursors(redis::Session& session, const Topic& topic);

// Where the cursor stands, without taking it: nothing when there is none yet, or it has not got anywhere.
// Throws Error{usage} when it is of another selection, Error{loss} when it is damaged.
[[nodiscard]] std::optional<ResumeAt> place_of_cursor(redis::Session& session, const Topic& topic,
                                                      std::string_view name, std::string_view selection);

class ReplayCursor {
 public:
  struct Options {
    std::string name;
    // At most selection_bytes_max; empty: whatever it is, also damaged, but it has to be there.
    std::string selection;
    std::string who;
    Milliseconds lease{5'000};
  };
  static constexpr std::size_t selection_bytes_max = 16 << 10;

  // Nothing is taken yet. `session` must outlive it.
  ReplayCursor(redis::Session& session, const Topic& topic, Options options);
  ~ReplayCursor();  // gives the lease back
  ReplayCursor(const ReplayCursor&) = delete;
  ReplayCursor& operator=(const ReplayCursor&) = delete;

  // Takes the lease; of one who lives only if it is given back within `patience`. One who may be dead is
  // watched for as long as its lease lasts. Returns who has it, or nothing when it is ours. Throws
  // Error{usage} for a cursor of another selection, or none where there has to be one; Error{loss} for a
  // damaged one, and without the topic.
  [[nodiscard]] std::optional<std::string> take(Milliseconds patience);
  // Of when it was taken.
  [[nodiscard]] const ReplayCursorState& state() const;

  // From here on a thread keeps the lease over a connection of its own, however long the target takes.
  void keep(std::unique_ptr<redis::Session> connection);
  // To be asked before anything is sent on: cheap, unless the lease has run out by our own clock and has to
  // be renewed. Throws Error{fenced} once somebody else has it, and as all of the following Error{loss} when
  // the topic is gone.
  void require_ours();

  // Everything before these places was accepted: `events` by this run. Places only ever grow, and partitions
  // that are not among them stay where they are. `copied`: what the target has confirmed, when it is a topic;
  // may be null. Throws Error{fenced}.
  void advance(const ResumeAt& at, std::uint64_t events, const CopiedTo* copied = nullptr);
  // The next run begins anew. Gives the lease back, too. Throws Error{fenced}.
  void forget();
  // Forgets a cursor that has never been moved: its first run may have been a mistake.
  void release();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace continuum
