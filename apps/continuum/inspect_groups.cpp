// continuum inspect groups: where each group stands on each partition.
#include "commands.hpp"
#include "inspect_views.hpp"
#include "operator.hpp"
#include "options.hpp"
#include "output.hpp"

#include "continuum/names.hpp"

#include <CLI/CLI.hpp>

namespace continuum::app {
namespace {

constexpr auto right = Table::Align::right;

// The share of the time in which an event was with a handler; nothing without a worker.
std::optional<double> busy_of(const GroupState& state) {
  return state.owner.empty() ? std::nullopt : std::optional(state.busy_permille / 1000.0);
}
std::string busy_text(const GroupState& state) {
  const auto busy = busy_of(state);
  return busy ? fmt::format("{:.0f}%", *busy * 100) : std::string();
}

int groups(const Context& context, const std::string& topic) {
  const auto session = connect(context, redis::Needs::Access::read);
  const auto views = look(*session, {topic}, Naming::named);
  Output out;
  Table table({{"GROUP"},
               {"PARTITION", right},
               {"COMMITTED", right},
               {"LAG", right},
               {"SECONDS", right},
               {"BUSY", right},
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
            .add("busy", busy_of(state))
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
                 fmt::format("{:.1f}", seconds_of(group.lag)), busy_text(state), owner_of(state).value_or(""),
                 fence, state_cell(view, &group), state.error});
    }
  }
  if (!context.json) {
    if (count == 0) {
      say(context, fmt::format("topic {} has no groups", topic));
    }
    table.print(out);
    for (std::size_t g = 0; g < count; ++g) {
      const std::string& group = views.front().groups[g].group;
      if (const auto enough = partitions_enough(views, group)) {
        out.line(fmt::format("group {}: at this rate {} partition{} {} enough", printable(group), *enough,
                             *enough == 1 ? "" : "s", *enough == 1 ? "is" : "are"));
      }
    }
  }
  out.flush();
  for (const std::string& text : orphan_texts(views)) {
    say(context, text);
  }
  return report_loss(views);
}

}  // namespace

void add_inspect_groups(CLI::App& parent, Context& context, const SharedTopic& topic) {
  auto& command = add_subcommand(parent, "groups", "where each group stands on each partition");
  command.footer("-t TOPIC is required.");
  run_with(command, context, [&context, topic] { return groups(context, require_topic(*topic)); });
}

}  // namespace continuum::app
