#include "continuum/event_filter.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/json.hpp"

#include <algorithm>

namespace continuum {

Where Where::parse(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == 0 || equals == std::string_view::npos) {
    fail(ErrorKind::usage, "give POINTER=VALUE, such as /data/user=7 or source=/posts");
  }
  return {json::Pointer(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

EventFilter::EventFilter(const Topic& topic, Options options) : options_(std::move(options)) {
  if (!options_.where.empty()) {
    parser_ = std::make_unique<json::Parser>();
  }
  if (!options_.key) {
    return;
  }
  for (const auto& [generation, description] : topic.rings) {
    if (generation <= topic.active) {
      owners_.emplace(generation, Ring(description).owner(*options_.key));
    }
  }
}

bool EventFilter::wants(Partition partition, Generation generation) const {
  if (!options_.key) {
    return true;
  }
  const auto owner = owners_.find(generation);
  // A generation that is newer than what we know of the topic: better to look than to miss an event.
  return owner == owners_.end() || owner->second == partition;
}

bool EventFilter::matches(std::string_view line) {
  if (matches_all()) {
    return true;
  }
  const Attributes attributes = attributes_of(line);
  if (options_.key && key_of(attributes, scratch_) != *options_.key) {
    return false;
  }
  return matches_type(attributes.type) && matches_time(attributes.time) && matches_where(line);
}

bool EventFilter::matches_type(std::string_view raw_type) {
  if (options_.types.empty()) {
    return true;
  }
  const auto type = json::unescape(raw_type, scratch_);
  return type && std::any_of(options_.types.begin(), options_.types.end(),
                             [&](const std::string& glob) { return glob_matches(glob, *type); });
}

bool EventFilter::matches_time(std::string_view raw_time) {
  if (!options_.since && !options_.until) {
    return true;
  }
  const auto text = json::unescape(raw_time, scratch_);
  const auto time = text ? parse_time(*text) : std::nullopt;
  return time && (!options_.since || *time >= *options_.since) &&
         (!options_.until || *time < *options_.until);
}

bool EventFilter::matches_where(std::string_view line) {
  if (options_.where.empty()) {
    return true;
  }
  padded_.assign(line);
  padded_.append(json::padding_bytes, '\0');
  if (const auto invalid = parser_->parse(std::string_view(padded_).substr(0, line.size()))) {
    fail(ErrorKind::loss, "the event is not JSON: byte {}: {}", invalid->byte, invalid->reason);
  }
  return std::all_of(options_.where.begin(), options_.where.end(), [&](const Where& where) {
    const json::Value value = parser_->at(where.pointer);
    return value.kind != json::Kind::missing && value.kind != json::Kind::ambiguous &&
           value.text == where.value;
  });
}

std::vector<Partition> EventFilter::partitions(const Topic& topic,
                                               const std::vector<Partition>& chosen) const {
  const std::vector<Partition> all = topic.partitions();
  std::vector<Partition> out;
  for (const Partition partition : chosen.empty() ? all : chosen) {
    if (std::find(all.begin(), all.end(), partition) == all.end()) {
      fail(ErrorKind::usage, "topic {} has no partition {}: {}", topic.name, partition,
           all.size() == 1
               ? fmt::format("it has only {}", all.front())
               : fmt::format("it has {} partitions, {} to {}", all.size(), all.front(), all.back()));
    }
    const auto can_match = [&](const auto& owner) { return owner.second == partition; };
    if (!options_.key || std::any_of(owners_.begin(), owners_.end(), can_match)) {
      out.push_back(partition);
    }
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

}  // namespace continuum
