// The step by which a worker says what is done: the cursor, and everything that must not disagree with it
// (PROTOCOLS: Commit, Held keys, Emit).
#pragma once

#include "continuum/dead_letters.hpp"
#include "continuum/lease.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// What became of a letter, or of a key that had some.
struct LetterStep {
  enum class What : std::uint8_t {
    done,      // handled: the letter is taken away
    discard,   // taken away unhandled, as an operator asked
    failed,    // tried again in vain: `failure` says how
    free,      // no letter is left: the key's events are handled again
    answered,  // the operator's request is dealt with
    asked,     // a request came with its key from another partition: `request`
  };
  What what = What::done;
  EntryId id;  // of the letter; of no meaning for free and answered
  HandlerKey whose;
  HeldKey::Failure failure;
  std::uint64_t left = 0;  // free: letters of the key that stay without holding it
  LetterRequest request = {};
};

struct Commit {
  Cursor cursor;
  Generation passed;
  std::vector<DeadLetter> letters;    // of events before the cursor, in the order of their offsets
  std::vector<LetterStep> steps;      // in order
  std::vector<std::string> outputs;   // per event that emitted something: its events as NDJSON
  std::string emit_topic = {};        // that the outputs are for
  std::optional<Import> import = {};  // nullopt: as it is

  // Memory is needed for it, so that a full server refuses it.
  [[nodiscard]] bool grows() const { return !letters.empty() || !outputs.empty(); }
};

// The keys of a group on one partition, made once.
struct GroupKeys {
  GroupKeys(std::string_view topic, Partition partition, std::string_view group);

  std::string log;
  std::string meta;
  std::string group;
  std::string dead;
  std::string held;
  std::string outbox;
};

void request_commit(redis::Request& request, const GroupKeys& keys, Fence fence, std::uint64_t number,
                    const Commit& commit, std::string_view group);  // its answer: parse_commit (lease.hpp)

}  // namespace continuum
