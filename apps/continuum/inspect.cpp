// continuum inspect: partitions, groups and events, changing nothing. This file: the overview.
#include "continuum/inspect.hpp"

#include "commands.hpp"
#include "inspect_views.hpp"
#include "operator.hpp"
#include "options.hpp"
#include "output.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <map>
#include <utility>

namespace continuum::app {

double seconds_of(Milliseconds time) {
  return std::chrono::duration<double>(time).count();
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
    case GroupMotion::refused:
      return {text, Colour::red};
    case GroupMotion::paused:
    case GroupMotion::down:
    case GroupMotion::full:
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
                                Naming naming) {
  std::vector<PartitionView> views;
  for (const std::string& name : topics) {
    const auto topic =
        naming == Naming::named ? std::optional(load_topic(session, name)) : find_topic(session, name);
    if (topic) {  // else it was dropped since it was listed
      auto seen = inspect_topic(session, *topic);
      std::move(seen.begin(), seen.end(), std::back_inserter(views));
    }
  }
  return views;
}

// Says every loss. Returns the exit code.
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

std::string age_text(std::optional<Milliseconds> age) {
  return age ? format_duration(*age) : std::string();
}

std::string group_json(const GroupView& group) {
  JsonObject object;
  object.add("group", group.group)
      .add("committed", group.state.cursor.offset)
      .add("passed_generation", group.state.passed)
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

std::string retention_json(const PartitionView& view) {
  const RetentionView& retention = *view.retention;
  const auto* const holder = retention.holders.empty() ? nullptr : &retention.holders.front();
  const auto stalled = std::ranges::any_of(retention.holders, &RetentionView::Holder::stalled);
  return JsonObject()
      .add("wanted_offset", retention.wanted)
      .add("trimmed_offset", view.first)
      .add("held_by", holder != nullptr ? std::optional(holder->group) : std::nullopt)
      .add("since", holder != nullptr ? std::optional(format_time(holder->since)) : std::nullopt)
      .add("stalled", stalled)
      .text();
}

// For each group that holds up what the retention would remove, for longer than it may.
void report_stalled(Output& out, const std::vector<PartitionView>& views) {
  struct Held {
    std::uint64_t events = 0;
    SystemTime since = SystemTime::max();
  };
  std::map<std::pair<std::string, std::string>, Held> stalled;  // by topic and group
  for (const PartitionView& view : views) {
    if (!view.retention) {
      continue;
    }
    for (const auto& holder : view.retention->holders) {
      if (holder.stalled && !holder.orphan) {
        Held& held = stalled[{view.topic, holder.group}];
        held.events += view.retention->wanted - holder.until;
        held.since = std::min(held.since, holder.since);
      }
    }
  }
  for (const auto& [whose, held] : stalled) {
    out.line(
        fmt::format("topic {}: group {} stands still since {}: {} event{} that the retention would remove "
                    "{} kept for it",
                    whose.first, printable(whose.second), format_time(held.since), format_count(held.events),
                    held.events == 1 ? "" : "s", held.events == 1 ? "is" : "are"));
  }
}

std::string partition_json(const PartitionView& view) {
  std::vector<std::string> groups;
  for (const GroupView& group : view.groups) {
    groups.push_back(group_json(group));
  }
  JsonObject object;
  object.add("topic", view.topic)
      .add("partition", view.partition)
      .add("generation", view.generation)
      .add("first_offset", view.first)
      .add("next_offset", view.next)
      .add("events", view.events())
      .add("bytes", view.log_bytes)
      .add_raw("groups", json_array(groups))
      .add("newest_time", view.newest ? std::optional(format_time(*view.newest)) : std::nullopt);
  if (view.retention) {
    object.add_raw("retention", retention_json(view));
  }
  if (!view.orphans.empty()) {
    std::vector<std::string> orphans;
    for (const GroupView& orphan : view.orphans) {
      orphans.push_back(group_json(orphan));
    }
    object.add_raw("orphans", json_array(orphans));
  }
  if (!view.loss.empty()) {
    object.add("loss", view.loss);
  }
  return object.text();
}

constexpr auto right = Table::Align::right;

int overview(const Context& context, const std::optional<std::string>& topic) {
  const auto session = connect(context, redis::Needs::Access::read);
  const auto topics = topic ? std::vector<std::string>{*topic} : list_topics(*session);
  const auto views = look(*session, topics, topic ? Naming::named : Naming::listed);
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
               {"GENERATION", right},
               {"FIRST", right},
               {"NEXT", right},
               {"EVENTS", right},
               {"BYTES", right},
               {"NEWEST", right},
               {"GROUP"},
               {"PASSED", right},
               {"COMMITTED", right},
               {"LAG", right},
               {"SECONDS", right},
               {"OWNER"},
               {"STATE"}});
  for (const PartitionView& view : views) {
    const std::vector<Cell> partition{view.topic,
                                      view.partition.value,
                                      view.generation.value,
                                      view.first.value,
                                      view.next.value,
                                      view.events(),
                                      view.log_bytes ? format_bytes(*view.log_bytes) : std::string(),
                                      age_text(view.newest_age)};
    for (const GroupView& group : view.groups) {
      auto cells = partition;
      for (Cell cell :
           {Cell(group.group), Cell(group.state.passed.value), Cell(group.state.cursor.offset.value),
            Cell(group.lag_events), Cell(fmt::format("{:.1f}", seconds_of(group.lag))),
            Cell(owner_of(group.state).value_or("")), state_cell(view, &group)}) {
        cells.push_back(std::move(cell));
      }
      table.row(std::move(cells));
    }
    if (view.groups.empty()) {
      auto cells = partition;
      cells.insert(cells.end(), 6, Cell(""));
      cells.push_back(state_cell(view, nullptr));
      table.row(std::move(cells));
    }
  }
  table.print(out);
  report_stalled(out, views);
  for (const std::string& text : orphan_texts(views)) {
    out.line(text);
  }
  out.flush();
  return report_loss(views);
}

}  // namespace

void add_inspect(CLI::App& command, Context& context) {
  const auto topic = std::make_shared<std::string>();
  command.require_subcommand(0, 1);
  add_topic_option(command, *topic)->required(false);
  add_inspect_why(command, context, topic);
  add_inspect_events(command, context, topic);
  add_inspect_key(command, context, topic);
  add_inspect_groups(command, context, topic);
  add_inspect_workers(command, context, topic);
  add_inspect_dead(command, context, topic);
  add_inspect_audit(command, context, topic);
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
