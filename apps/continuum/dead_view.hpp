// How dead letters are shown. Private to `dead` and `inspect dead`.
#pragma once

#include "output.hpp"
#include "server.hpp"

#include "continuum/dead_letter_listing.hpp"
#include "continuum/topic.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace continuum::app {

// The reasons, most letters first, then the keys, at most `keys_max`. NDJSON with --json.
void show_summary(const Context& context, redis::Session& session, const Topic& topic,
                  const std::vector<std::string>& groups, const LetterSelection& selection,
                  std::uint64_t keys_max);

// All that is known of one letter: a JSON object on one line.
[[nodiscard]] std::string letter_json(std::string_view topic, std::string_view group, Partition partition,
                                      const DeadLetter& letter, const HeldKey& key);
// The same for a person, on some lines.
void print_letter(Output& out, Partition partition, const DeadLetter& letter, const HeldKey& key);

[[nodiscard]] std::string request_text(const HeldKey& key);  // retry, discard or nothing

}  // namespace continuum::app
