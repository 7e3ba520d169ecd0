// continuum inspect why: one cause for each partition that does not move, and what to do about it.
#include "commands.hpp"
#include "inspect_views.hpp"
#include "options.hpp"
#include "output.hpp"

#include "continuum/error.hpp"
#include "continuum/group_control.hpp"
#include "continuum/names.hpp"
#include "continuum/why.hpp"

#include <CLI/CLI.hpp>

namespace continuum::app {
namespace {

Colour colour_of(Obstacle cause) {
  switch (cause) {
    case Obstacle::moving:
    case Obstacle::caught_up:
      return Colour::green;
    case Obstacle::loss:
    case Obstacle::halted:
    case Obstacle::server_refuses:
      return Colour::red;
    default:
      return Colour::yellow;
  }
}

int show_why(const Context& context, const std::string& name, const std::optional<std::string>& group) {
  const auto session = connect(context, redis::Needs::Access::read);
  const Topic topic = load_topic(*session, name);
  const Situation situation = look_why(*session, topic, group);
  // One that is not in the topic may still be on partitions.
  if (group && situation.standings.empty()) {
    require_group(topic, *group);
  }
  Output out;
  Table table({{"GROUP"}, {"PARTITION", Table::Align::right}, {"CAUSE"}, {"WHY"}, {"NEXT"}});
  bool lost = false;
  for (const Standing& standing : situation.standings) {
    const Why why = why_of(standing);
    lost = lost || why.cause == Obstacle::loss;
    if (context.json) {
      out.line(JsonObject()
                   .add("topic", name)
                   .add("group", standing.group)
                   .add("partition", standing.partition)
                   .add("cause", name_of(why.cause))
                   .add("lag_events", standing.lag_events)
                   .add("held_keys", standing.held_keys)
                   .add("holds_back_events", standing.holds_back_events)
                   .add("why", why.text)
                   .add("next", why.next)
                   .text());
    } else {
      table.row({standing.group, standing.partition.value,
                 Cell(std::string(name_of(why.cause)), colour_of(why.cause)), why.text, why.next});
    }
  }
  if (!context.json) {
    table.print(out);
  }
  out.flush();
  if (situation.standings.empty()) {
    say(context, fmt::format("topic {} has no groups: nobody handles its events", name));
  }
  if (!situation.refusal.empty()) {
    say(context, fmt::format("publishers wait: {}", situation.refusal));
  }
  if (session->facts().replica) {
    say(context, fmt::format("this is a replica of {}: what it says may be late", session->facts().master));
  }
  return lost ? static_cast<int>(ErrorKind::loss) : 0;
}

}  // namespace

void add_inspect_why(CLI::App& parent, Context& context, const SharedTopic& topic) {
  auto& command = add_subcommand(parent, "why", "why a partition stands still, and what to do about it");
  command.footer("-t TOPIC is required.");
  const auto group = std::make_shared<std::optional<std::string>>();
  add_text(command, "-g,--group", "NAME", *group, "only this group");
  run_with(command, context,
           [&context, topic, group] { return show_why(context, require_topic(*topic), *group); });
}

}  // namespace continuum::app
