// What a topic is, beside the archive of its partitions: with that and them it can be restored.
//
//   DIR/TOPIC/topic = "continuum topic 1" LF "topic " name LF "log " id LF "created " milliseconds LF
//                     *( "set " setting "=" value LF ) "active " generation LF
//                     1*( "ring " generation " " description LF ) "hash " 16HEXDIG LF
//
// `hash` is XXH3-64 of all before it. Rings are those of every generation that was known, the active one at
// least. It is on the disk before any event of its active generation is, and only replaced as a whole.
#pragma once

#include "continuum/archive_directory.hpp"
#include "continuum/topic.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace continuum {

// There is a ring for each generation that was ever in force. So many that nobody has described are damage.
inline constexpr std::uint32_t unknown_generations_max = 1000;

inline constexpr std::string_view archived_topic_name = "topic";

// Without groups. nullopt: there is no such file. Throws Error{loss} when it is damaged or another topic's,
// Error{usage} when a newer version wrote it.
[[nodiscard]] std::optional<Topic> read_archived_topic(const ArchiveDirectory& archive,
                                                       std::string_view topic);

// Makes it say what `topic` says, also when it is damaged, unless it is of a later generation. It is on the
// disk when this returns. For several processes at a time. Throws Error{server} for what the disk refuses,
// and Error{loss} when it is that of another log.
void write_archived_topic(const ArchiveDirectory& archive, const Topic& topic);

}  // namespace continuum
