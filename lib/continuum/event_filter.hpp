// Which events of a topic a reader wants, and where they can be.
#pragma once

#include "continuum/json.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// What an event must have at a place: the unescaped bytes of a string, or the literal text of any other
// value.
struct Where {
  json::Pointer pointer;
  std::string value;

  // POINTER=VALUE. Throws Error{usage}.
  static Where parse(std::string_view text);
};

class EventFilter {
 public:
  struct Options {
    std::optional<std::string> key;   // exactly these bytes
    std::vector<std::string> types;   // globs; an event needs to match one of them
    std::vector<Where> where;         // an event needs to match all of them
    std::optional<SystemTime> since;  // by the event's own time, half-open
    std::optional<SystemTime> until;
  };

  EventFilter(const Topic& topic, Options options);

  // Whether events of that partition and generation can match: a key has one partition in each generation.
  [[nodiscard]] bool wants(Partition partition, Generation generation) const;
  [[nodiscard]] bool matches_all() const {
    return !options_.key && options_.types.empty() && options_.where.empty() && !options_.since &&
           !options_.until;
  }
  // Throws Error{loss} when the line is no stored event.
  [[nodiscard]] bool matches(std::string_view line);

  // `chosen`, or all of the topic when it is empty; of those, the ones that can hold matching events. Throws
  // Error{usage} for a partition that the topic does not have.
  [[nodiscard]] std::vector<Partition> partitions(const Topic& topic,
                                                  const std::vector<Partition>& chosen) const;

 private:
  [[nodiscard]] bool matches_type(std::string_view raw_type);
  [[nodiscard]] bool matches_time(std::string_view raw_time);
  [[nodiscard]] bool matches_where(std::string_view line);

  Options options_;
  std::map<Generation, Partition> owners_;  // of the key
  std::string scratch_;
  std::unique_ptr<json::Parser> parser_;  // when values are looked at
  std::string padded_;                    // the line as the parser wants it
};

}  // namespace continuum
