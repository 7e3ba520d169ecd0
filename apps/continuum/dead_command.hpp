// What the commands about dead letters share. Private to `dead`.
#pragma once

#include "operator.hpp"
#include "server.hpp"

#include "continuum/dead_letter_listing.hpp"
#include "continuum/units.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace continuum::app {

struct DeadArguments {
  GroupArguments group;
  LetterSelection selection;
  std::uint64_t last = 0;
  std::optional<std::string> output;  // export -o, discard --export
  bool no_export = false;
  bool no_wait = false;
  Milliseconds timeout{600'000};
};

using HeldByPlace = std::map<KeyPlace, HeldKey>;

[[nodiscard]] HeldByPlace held_by_place(redis::Session& session, const GroupPlace& place,
                                        const DeadArguments& args);
[[nodiscard]] const HeldKey& held_of(const HeldByPlace& held, Partition partition, const DeadLetter& letter);

[[nodiscard]] std::string keys_text(std::uint64_t count);
[[nodiscard]] std::string letters_text(std::uint64_t count);

// Both return the exit status.
int retry(const Context& context, DeadArguments& args);
int discard(const Context& context, DeadArguments& args);

}  // namespace continuum::app
