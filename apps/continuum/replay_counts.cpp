#include "replay_counts.hpp"

#include "continuum/event.hpp"
#include "continuum/json.hpp"

#include <algorithm>

namespace continuum::app {

SystemTime time_of(const EventRun& run, std::string_view raw_time, RangeOptions::By by) {
  if (by == RangeOptions::By::event_time) {
    std::string scratch;
    const auto text = json::unescape(raw_time, scratch);
    if (const auto time = text ? parse_time(*text) : std::nullopt) {
      return *time;
    }
  }
  return SystemTime(Milliseconds(static_cast<std::int64_t>(run.entry.milliseconds)));
}

void ReplayCounts::add(const EventRun& run) {
  std::string_view rest = run.lines;
  for (Offset offset = run.first; !rest.empty(); ++offset) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(line.size() + 1);
    const Attributes attributes = attributes_of(line);
    const SystemTime time = time_of(run, attributes.time, by_);
    Count& count = count_of(run.partition, attributes.type);
    if (count.events++ == 0) {
      count.first_offset = offset;
      count.first_time = count.last_time = time;
    }
    count.last_offset = offset;
    count.first_time = std::min(count.first_time, time);
    count.last_time = std::max(count.last_time, time);
  }
}

ReplayCounts::Count& ReplayCounts::count_of(Partition partition, std::string_view raw_type) {
  const std::pair place(partition, std::string(json::unescape(raw_type, scratch_).value_or(raw_type)));
  if (const auto found = counts_.find(place); found != counts_.end()) {
    return found->second;
  }
  return counts_.size() < counts_max ? counts_[place] : others_[partition];
}

void ReplayCounts::print(const Context& context, Output& out) const {
  constexpr auto right = Table::Align::right;
  Table table({{"PARTITION", right}, {"TYPE"}, {"EVENTS", right}, {"FIRST"}, {"LAST"}});
  const auto put = [&](Partition partition, const std::optional<std::string>& type, const Count& count) {
    if (context.json) {
      out.line(JsonObject()
                   .add("partition", partition)
                   .add("type", type)
                   .add("events", count.events)
                   .add("first_offset", count.first_offset)
                   .add("last_offset", count.last_offset)
                   .add("first", format_time(count.first_time))
                   .add("last", format_time(count.last_time))
                   .text());
    } else {
      table.row({partition.value, type.value_or("(others)"), count.events, format_time(count.first_time),
                 format_time(count.last_time)});
    }
  };
  for (const auto& [place, count] : counts_) {
    put(place.first, place.second, count);
  }
  for (const auto& [partition, count] : others_) {
    put(partition, std::nullopt, count);
  }
  if (!table.empty()) {
    table.print(out);
  }
}

}  // namespace continuum::app
