// Dead letters and held keys of a group on one partition: what the server keeps of them (PROTOCOLS: Held
// keys; G6 in docs/guarantees.md). Stored only by the commit of the lease's holder (commit.hpp).
//
//   letter  = "h" handler "k" key "o" offset "s" state "a" attempts "t" milliseconds "r" reason "e" event
//   state   = "failed" / "behind" / "skipped"
//   held    = *( field value )                 ; one hash
//   field   = "total"                          ; letters in all
//           / "n/" whose                       ; letters of this key
//           / "h/" whose                       ; present: its later events wait
//           / "r/" whose                       ; value: request
//           / "x/" whose                       ; value: attempts SP milliseconds SP reason, of the last
//           failed release
//   whose   = handler "/" key                  ; a handler's name has no "/"
//   request = "retry" / "discard" SP first-id SP last-id
#pragma once

#include "continuum/log.hpp"
#include "continuum/redis.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// Whose order it is: one handler's of one key.
struct HandlerKey {
  std::string handler;
  std::string key;

  [[nodiscard]] std::string text() const { return handler + "/" + key; }
  friend auto operator<=>(const HandlerKey&, const HandlerKey&) = default;
};

enum class LetterState : std::uint8_t {
  failed,   // used up its attempts, or the handler said fail: its key is held from here on
  behind,   // came while its key was held
  skipped,  // failed, and its handler says on_failure = skip: its key is not held
};
[[nodiscard]] std::string_view name_of(LetterState state);

struct DeadLetter {
  EntryId id;  // of its entry; order of the letters of a key. Zero before it is stored
  HandlerKey whose;
  Offset offset;
  LetterState state = LetterState::failed;
  std::uint32_t attempts = 0;  // 0 for those that wait behind another
  SystemTime time{};           // when it was given up
  std::string reason;
  std::string event;  // its line as the log has it, without newline
  // The partition whose log has the event at that offset, when its key was moved from there. none: this one.
  std::optional<Partition> from = {};
};
// Reads one element of an XRANGE answer. Throws Error{loss} naming the entry when it is something else.
[[nodiscard]] DeadLetter parse_dead_letter(redis::Reply reply);

// What an operator asks of the lease's holder about the letters of one key.
struct LetterRequest {
  enum class What : std::uint8_t { retry, discard };
  What what = What::retry;
  EntryId first;  // discard: these and what lies between
  EntryId last;

  static std::optional<LetterRequest> parse(std::string_view text);
  [[nodiscard]] std::string text() const;
};

struct HeldKey {
  HandlerKey whose;
  std::uint64_t letters = 0;
  enum class Held : std::uint8_t { no, yes };  // no: only skipped events
  Held held = Held::no;
  std::optional<LetterRequest> request;
  // The last release that failed again.
  struct Failure {
    std::uint32_t attempts = 0;
    SystemTime time{};
    std::string reason;

    static std::optional<Failure> parse(std::string_view text);
    [[nodiscard]] std::string text() const;
  };
  std::optional<Failure> failure;
};
struct HeldKeys {
  std::vector<HeldKey> keys;  // by handler, then key
  std::uint64_t letters = 0;
};
// From HGETALL of the held key; nil or empty: none.
[[nodiscard]] HeldKeys parse_held(redis::Reply reply);

enum class Asked : std::uint8_t { yes, no_such_letters, not_registered };
void request_release(redis::Request& request, std::string_view group_key, std::string_view held_key,
                     const HandlerKey& whose, const LetterRequest& what);
[[nodiscard]] Asked parse_release(redis::Reply reply);

}  // namespace continuum
