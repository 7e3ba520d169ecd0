// Which events of a topic a reader wants, and where they can be.
#pragma once

#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

class EventFilter {
 public:
  struct Options {
    std::optional<std::string> key;  // exactly these bytes
    std::vector<std::string> types;  // globs; an event needs to match one of them
  };

  EventFilter(const Topic& topic, Options options);

  // Whether events of that partition and generation can match: a key has one partition in each generation.
  [[nodiscard]] bool wants(Partition partition, Generation generation) const;
  [[nodiscard]] bool matches_all() const { return !options_.key && options_.types.empty(); }
  // Throws Error{loss} when the line is no stored event.
  [[nodiscard]] bool matches(std::string_view line);

  // `chosen`, or all of the topic when it is empty; of those, the ones that can hold matching events. Throws
  // Error{usage} for a partition that the topic does not have.
  [[nodiscard]] std::vector<Partition> partitions(const Topic& topic,
                                                  const std::vector<Partition>& chosen) const;

 private:
  Options options_;
  std::map<Generation, Partition> owners_;  // of the key
  std::string scratch_;
};

}  // namespace continuum
