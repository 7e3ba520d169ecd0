// A group's cursors as text, to keep and to put back: a line for each partition, in JSON.
//
//   line = {"topic":TOPIC,"log":LOGID,"group":GROUP,"partition":N,"offset":N}
//
// The log id says which log the offsets are of: a topic that was dropped and made anew has another. The group
// is for people: cursors of one may be given to another.
#pragma once

#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

namespace continuum {

inline constexpr std::size_t cursor_file_bytes_max = std::size_t{4} << 20;

// Without a newline.
[[nodiscard]] std::string cursor_line(const Topic& topic, std::string_view group, Partition partition,
                                      Offset offset);

// All lines, empty ones left out. Throws Error{usage} that names the line for one that is none, of another
// topic or log, or about a partition twice; and for a text without any.
[[nodiscard]] std::map<Partition, Offset> parse_cursor_file(std::string_view text, const Topic& topic);

}  // namespace continuum
