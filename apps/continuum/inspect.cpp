// continuum inspect: partitions, groups and events, changing nothing.
#include "continuum/inspect.hpp"

#include "commands.hpp"
#include "inspect_views.hpp"
#include "options.hpp"
#include "output.hpp"
#include "selectors.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/json.hpp"
#include "continuum/names.hpp"
#include "continuum/replay.hpp"
#include "continuum/tail.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

namespace continuum::app {

double seconds_of(Milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

int report_loss(const std::vector<PartitionView>& views) {
  std::vector<std::string> losses;
  for (const PartitionView& view : views) {
    if (!view.loss.empty()) {
      losses.push_back(view.loss);
    }
    for (const GroupView& group : view.groups) {
      if (!group.loss.empty()) {
        losses.push_back(group.loss);
      }
    }
  }
  if (losses.empty()) {
    return 0;
  }
  std::string text = fmt::format("loss: {}", losses.front());
  for (std::size_t i = 1; i < losses.size(); ++i) {
    text += "\ncontinuum: loss: " + losses[i];
  }
  throw Error(ErrorKind::loss, text);
}

std::string require_topic(const std::string& topic) {
  if (topic.empty()) {
    fail(ErrorKind::usage, "which topic? give -t TOPIC; `continuum topic ls` shows them");
  }
  return topic;
}

namespace {

// --- partitions and groups

std::string age_text(std::optional<Milliseconds> age) {
  return age ? format_duration(*age) : std::string();
}

std::optional<std::string> owner_of(const GroupState& state) {
  if (state.owner.empty()) {
    return std::nullopt;
  }
  return state.who.empty() ? state.owner : state.who;
}

Cell state_cell(const PartitionView& partition, const GroupView* group) {
  if (!partition.loss.empty() || (group != nullptr && !group->loss.empty())) {
    return {std::string("LOSS"), Colour::red};
  }
  if (group == nullptr) {
    return {std::string()};
  }
  const std::string text(name_of(group->motion));
  switch (group->motion) {
    case GroupMotion::halted:
      return {text, Colour::red};
    case GroupMotion::retrying:
    case GroupMotion::no_owner:
      return {text, Colour::yellow};
    case GroupMotion::running:
    case GroupMotion::caught_up:
      break;
  }
  return {text, Colour::green};
}

std::vector<PartitionView> look(redis::Session& session, const std::vector<std::string>& topics,
                                bool is_named) {
  std::vector<PartitionView> views;
  for (const std::string& name : topics) {
    const auto topic = is_named ? std::optional(load_topic(session, name)) : find_topic(session, name);
    if (topic) {  // else it was dropped since it was listed
      auto seen = inspect_topic(session, *topic);
      std::move(seen.begin(), seen.end(), std::back_inserter(views));
    }
  }
  return views;
}

std::string group_json(const GroupView& group) {
  JsonObject object;
  object.add("group", group.group)
      .add("committed", group.state.cursor.offset)
      .add("lag_events", group.lag_events)
      .add("lag_seconds", seconds_of(group.lag))
      .add("owner", owner_of(group.state))
      .add("fence", group.state.fence)
      .add("state", name_of(group.motion));
  if (!group.loss.empty()) {
    object.add("loss", group.loss);
  }
  return object.text();
}

std::string partition_json(const PartitionView& view) {
  std::vector<std::string> groups;
  for (const GroupView& group : view.groups) {
    groups.push_back(group_json(group));
  }
  JsonObject object;
  object.add("topic", view.topic)
      .add("partition", view.partition)
      .add("first_offset", view.first)
      .add("next_offset", view.next)
      .add("events", view.events())
      .add("bytes", view.log_bytes)
      .add_raw("groups", json_array(groups))
      .add("newest_time", view.newest ? std::optional(format_time(*view.newest)) : std::nullopt);
  if (!view.loss.empty()) {
    object.add("loss", view.loss);
  }
  return object.text();
}

constexpr auto right = Table::Align::right;

int overview(const Context& context, const std::optional<std::string>& topic) {
  const auto session = connect(context, redis::Needs::Access::read);
  const auto topics = topic ? std::vector<std::string>{*topic} : list_topics(*session);
  const auto views = look(*session, topics, topic.has_value());
  Output out;
  if (context.json) {
    for (const PartitionView& view : views) {
      out.line(partition_json(view));
    }
    out.flush();
    return report_loss(views);
  }
  if (topics.empty()) {
    say(context, "there are no topics on this server");
  }
  Table table({{"TOPIC"},
               {"PARTITION", right},
               {"FIRST", right},
               {"NEXT", right},
               {"EVENTS", right},
               {"BYTES", right},
               {"NEWEST", right},
               {"GROUP"},
               {"COMMITTED", right},
               {"LAG", right},
               {"SECONDS", right},
               {"OWNER"},
               {"STATE"}});
  for (const PartitionView& view : views) {
    const std::vector<Cell> partition{view.topic,
                                      view.partition.value,
                                      view.first.value,
                                      view.next.value,
                                      view.events(),
                                      view.log_bytes ? format_bytes(*view.log_bytes) : std::string(),
                                      age_text(view.newest_age)};
    for (const GroupView& group : view.groups) {
      auto cells = partition;
      for (Cell cell : {Cell(group.group), Cell(group.state.cursor.offset.value), Cell(group.lag_events),
                        Cell(fmt::format("{:.1f}", seconds_of(group.lag))),
                        Cell(owner_of(group.state).value_or("")), state_cell(view, &group)}) {
        cells.push_back(std::move(cell));
      }
      table.row(std::move(cells));
    }
    if (view.groups.empty()) {
      auto cells = partition;
      cells.insert(cells.end(), 5, Cell(""));
      cells.push_back(state_cell(view, nullptr));
      table.row(std::move(cells));
    }
  }
  table.print(out);
  out.flush();
  return report_loss(views);
}

int groups(const Context& context, const std::string& topic) {
  const auto session = connect(context, redis::Needs::Access::read);
  const auto views = look(*session, {topic}, true);
  Output out;
  Table table({{"GROUP"},
               {"PARTITION", right},
               {"COMMITTED", right},
               {"LAG", right},
               {"SECONDS", right},
               {"OWNER"},
               {"FENCE", right},
               {"STATE"},
               {"ERROR"}});
  const std::size_t count = views.empty() ? 0 : views.front().groups.size();
  for (std::size_t g = 0; g < count; ++g) {
    for (const PartitionView& view : views) {
      const GroupView& group = view.groups.at(g);
      const GroupState& state = group.state;
      if (context.json) {
        JsonObject object;
        object.add("topic", topic)
            .add("group", group.group)
            .add("partition", view.partition)
            .add("committed", state.cursor.offset)
            .add("lag_events", group.lag_events)
            .add("lag_seconds", seconds_of(group.lag))
            .add("owner", owner_of(state))
            .add("fence", state.fence)
            .add("state", name_of(group.motion))
            .add("error", state.error)
            .add("attempt", state.attempt);
        if (!group.loss.empty()) {
          object.add("loss", group.loss);
        }
        out.line(object.text());
        continue;
      }
      // Not marked by thousands: it is compared and pasted, not read as a quantity.
      const std::string fence = state.fence == Fence(0) ? std::string() : std::to_string(state.fence.value);
      table.row({group.group, view.partition.value, state.cursor.offset.value, group.lag_events,
                 fmt::format("{:.1f}", seconds_of(group.lag)), owner_of(state).value_or(""), fence,
                 state_cell(view, &group), state.error});
    }
  }
  if (!context.json) {
    if (count == 0) {
      say(context, fmt::format("topic {} has no groups", topic));
    }
    table.print(out);
  }
  out.flush();
  return report_loss(views);
}

// --- events

struct EventOptions {
  std::string topic;
  std::optional<std::uint64_t> last;
  std::vector<Partition> partitions;
  EventFilter::Options filter;
  TimeRange time;
  bool follow = false;
};

// Shows events: a table for a person, JSON for programs. Followed events cannot wait for the width of their
// columns, so that a person gets columns of fixed widths for them.
class EventPrinter {
 public:
  enum class Mode : std::uint8_t { json, table, rows };
  explicit EventPrinter(Mode mode) : mode_(mode) {
    if (mode_ == Mode::rows) {
      out_.line(row("PARTITION", "OFFSET", "TIME", "TYPE", "KEY", "ID"));
    }
  }

  void add(const SeenEvent& event) {
    if (mode_ == Mode::json) {
      text_.clear();
      const std::string line = event.line + "\n";
      append_events(text_, {event.partition, event.generation, event.entry, event.offset, 1, line},
                    EventForm::with_place);
      out_.write(text_);
      return;
    }
    const Attributes attributes = attributes_of(event.line);
    const std::string time =
        format_time(SystemTime(Milliseconds(static_cast<std::int64_t>(event.entry.milliseconds))));
    if (mode_ == Mode::table) {
      table_.row({event.partition.value, std::to_string(event.offset.value), time, value_of(attributes.type),
                  value_of(attributes.partitionkey), value_of(attributes.id)});
    } else {
      out_.line(row(std::to_string(event.partition.value), std::to_string(event.offset.value), time,
                    printable(value_of(attributes.type)), printable(value_of(attributes.partitionkey)),
                    printable(value_of(attributes.id))));
    }
  }

  void flush() {
    if (mode_ == Mode::table) {
      table_.print(out_);
    }
    out_.flush();
  }

 private:
  static std::string row(std::string_view partition, std::string_view offset, std::string_view time,
                         std::string_view type, std::string_view key, std::string_view id) {
    return fmt::format("{:>9}  {:>10}  {:<24}  {:<20}  {:<20}  {}", partition, offset, time, type, key, id);
  }

  // The bytes of a string, or the text of what is none.
  std::string value_of(std::string_view raw) {
    return std::string(json::unescape(raw, scratch_).value_or(raw));
  }

  Mode mode_;
  Output out_;
  Table table_{{{"PARTITION", right}, {"OFFSET", right}, {"TIME"}, {"TYPE"}, {"KEY"}, {"ID"}}};
  std::string text_;
  std::string scratch_;
};

// All events from a time on. Returns where they end.
std::vector<LogPlace> print_since(redis::Session& session, const Topic& topic, const EventOptions& options,
                                  SystemTime since, EventPrinter& printer) {
  ReplayOptions wanted;
  wanted.partitions = options.partitions;
  wanted.filter = options.filter;
  wanted.range.since = since;
  Replay replay(session, topic, std::move(wanted));
  while (const auto run = replay.next()) {
    std::string_view rest = run->lines;
    for (Offset offset = run->first; !rest.empty(); ++offset) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(line.size() + 1);
      printer.add({run->partition, run->generation, run->entry, offset, std::string(line)});
    }
  }
  return replay.ends();
}

int events(const Context& context, const EventOptions& options) {
  using Mode = EventPrinter::Mode;
  const bool is_for_person = !context.json && is_terminal(Stream::out);
  const auto session = connect(context, redis::Needs::Access::read);
  RangeOptions range;
  resolve(options.time, *session, range);
  const Topic topic = load_topic(*session, options.topic);
  EventPrinter printer(!is_for_person ? Mode::json : options.follow ? Mode::rows : Mode::table);
  std::vector<LogPlace> ends;
  if (range.since && !options.last) {
    ends = print_since(*session, topic, options, *range.since, printer);
  } else {
    Tail tail = last_events(*session, topic,
                            {options.partitions, options.filter, options.last.value_or(10), range.since});
    for (const SeenEvent& event : tail.events) {
      printer.add(event);
    }
    ends = std::move(tail.ends);
  }
  printer.flush();
  if (!options.follow) {
    return 0;
  }
  Follower follower(*session, topic, options.partitions, options.filter, ends);
  for (;;) {  // until a signal ends us
    for (const SeenEvent& event : follower.next(Milliseconds(1000))) {
      printer.add(event);
    }
    printer.flush();
  }
}

void add_events(CLI::App& command, Context& context, const std::shared_ptr<std::string>& topic) {
  const auto options = std::make_shared<EventOptions>();
  command.footer("-t TOPIC is required.");
  add_number(command, "-n,--last", options->last, {0, last_events_max},
             "the last so many events that match (default: 10; with --since: all)");
  add_parsed(command, "--since", "TIME", "none stored before then: a time, or how long ago (2h)",
             [options](const std::string& text) { options->time.since = parse_moment(text); });
  add_parsed(command, "-p,--partition", "LIST", "only these partitions: 3, or 0,2,5-7 (default: all)",
             [options](const std::string& text) { options->partitions = parse_partition_list(text); });
  add_text(command, "-k,--key", "KEY", options->filter.key, "only events of this key");
  add_texts(command, "--type", "GLOB", options->filter.types,
            "only events of types that match; may be repeated");
  add_flag(command, "-f,--follow", options->follow, "then go on with what is stored from now on");
  run_with(command, context, [&context, options, topic] {
    options->topic = require_topic(*topic);
    return events(context, *options);
  });
}

}  // namespace

void add_inspect(CLI::App& command, Context& context) {
  const auto topic = std::make_shared<std::string>();
  command.require_subcommand(0, 1);
  add_topic_option(command, *topic)->required(false);
  add_events(add_subcommand(command, "events", "the last events, and those that come"), context, topic);
  auto& groups_command = add_subcommand(command, "groups", "where each group stands on each partition");
  groups_command.footer("-t TOPIC is required.");
  run_with(groups_command, context, [&context, topic] { return groups(context, require_topic(*topic)); });
  add_inspect_workers(command, context, topic);
  // The callback of a command runs after that of its subcommand, and must not take its place.
  command.callback([&command, &context, topic] {
    if (command.get_subcommands().empty()) {
      context.body = [&context, topic] {
        return overview(context, topic->empty() ? std::nullopt : std::optional(*topic));
      };
    }
  });
}

}  // namespace continuum::app
