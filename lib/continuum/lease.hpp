// The lease of a group on a partition, and the group's state there (PROTOCOLS: Lease, Commit).
#pragma once

#include "continuum/log.hpp"
#include "continuum/redis.hpp"
#include "continuum/types.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace continuum {

// Where a group stands: the next event, and the last entry that lies wholly before it.
struct Cursor {
  Offset offset;
  EntryId entry;
};

// How far a worker is with taking over what a generation moved to its partition (PROTOCOLS: Barriers). From
// its beginning on, everything before that generation's barrier is handled and stands still.
struct Import {
  Generation generation;           // 0: nothing is being taken over
  std::optional<Partition> donor;  // whose letters are being copied; those of lower ones are
  EntryId last;                    // of its letters

  // Throws Error{loss} for another text than text() makes.
  static Import parse(std::string_view text);
  [[nodiscard]] std::string text() const;
};

// Everything in the group hash, as inspect shows it.
struct GroupState {
  Cursor cursor;
  std::uint64_t number = 0;  // of the last commit
  Generation passed;
  Generation from;
  Generation reached;  // the last that others may have seen it reach before a seek
  Import import;
  std::string owner;  // empty: nobody
  std::string who;    // the owner for people: HOST:PID
  Fence fence;
  std::uint64_t beat = 0;
  Milliseconds ttl{0};
  std::string state;  // running, retrying, down, halted, full, paused
  Offset at;
  SystemTime since{};
  std::uint32_t attempt = 0;
  std::string error;
  std::string handler;              // that the state is about; empty: all or none
  std::uint32_t busy_permille = 0;  // of the time, something was being handled
  std::string paused;               // by whom and why; empty: not
  std::uint64_t run = 1;            // rises with every seek
  std::uint64_t outbox = 0;         // number of the last output
  std::string handlers;             // of the owner: fingerprint of its directory; empty: it has none
  SystemTime moved{};               // when its cursor did, by the server's clock; 0: that is not known
};
// From HGETALL of the group key. nullopt when the group is not registered there.
[[nodiscard]] std::optional<GroupState> parse_group(redis::Reply reply);

// --- the scripts as requests and answers

struct LeaseHolder {
  std::string owner;  // random, per process
  std::string who;
  Milliseconds ttl{5'000};
};

struct Held {  // by somebody else
  std::string owner;
  std::string who;
  std::string fence;
  std::string beat;
  Milliseconds ttl{0};
};
struct Acquired {
  Fence fence;
  std::uint64_t number = 0;
  Cursor cursor;
  Generation passed;
  Generation from;
  Import import;
};
struct NotRegistered {};

// `seen`: what the holder's (fence, beat) was a whole ttl ago, or nothing.
void request_acquire(redis::Request& request, std::string_view key, const LeaseHolder& me,
                     const std::optional<Held>& seen);
[[nodiscard]] std::variant<Acquired, Held, NotRegistered> parse_acquire(redis::Reply reply);

// What a worker is doing on a partition, told with each renewal.
struct Doing {
  std::string state =
      "running";  // retrying, down (the handler), halted (for a person), full (of held events), paused
  std::string handler;
  Offset at;
  SystemTime since{};
  std::uint32_t attempt = 0;
  std::string error;  // at most 500 bytes are stored
  std::uint32_t busy_permille = 0;
  std::string handlers = {};  // fingerprint of the directory that they are from; empty: there is none
};
void request_renew(redis::Request& request, std::string_view group_key, std::string_view meta_key,
                   Fence fence, std::string_view log_id, const Doing& doing);
void request_release(redis::Request& request, std::string_view group_key, Fence fence);

// How long before the end of its lease a holder stops: what its clock and the server's may disagree on, and
// what stopping takes.
[[nodiscard]] Milliseconds margin_of(Milliseconds ttl);

enum class Kept : std::uint8_t {
  ok,
  fenced,          // another owner has the lease
  conflict,        // somebody else committed under our fence
  not_registered,  // the group's state is gone
  no_log,          // the log is gone or is another one
};
struct Renewed {
  Kept kept = Kept::ok;
  Offset next;                 // of the log
  std::uint64_t requests = 0;  // counts what operators ask for; a change is a reason to look at the held keys
  std::string paused;          // by whom and why; empty: not
  Generation generation;       // of the partition
};
[[nodiscard]] Renewed parse_renew(redis::Reply reply);
// What commit answers (commit.hpp).
[[nodiscard]] Kept parse_commit(redis::Reply reply);

}  // namespace continuum
