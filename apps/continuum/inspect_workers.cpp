// continuum inspect workers: who works which partitions of a group, and who stands by.
#include "commands.hpp"
#include "inspect_views.hpp"
#include "options.hpp"
#include "output.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/names.hpp"
#include "continuum/sharing.hpp"
#include "continuum/topic.hpp"
#include "continuum/units.hpp"
#include "continuum/workers_view.hpp"

#include <CLI/CLI.hpp>

#include <map>

namespace continuum::app {
namespace {

constexpr auto right = Table::Align::right;

void require_group(const Topic& topic, const std::string& group) {
  require_name("group", group);
  if (topic.groups.contains(group)) {
    return;
  }
  std::vector<std::string> known;
  for (const auto& [name, registered] : topic.groups) {
    known.push_back(name);
  }
  fail(ErrorKind::usage, "topic {} has no group {}{}", topic.name, group, hint_of(group, known));
}

std::optional<std::string> name_of(const WorkerView& worker) {
  if (worker.owner.empty()) {
    return std::nullopt;
  }
  return worker.who.empty() ? worker.owner : worker.who;
}

std::string json_of(const std::string& topic, const WorkerView& worker) {
  std::vector<std::string> partitions;
  for (const Partition partition : worker.partitions) {
    partitions.push_back(fmt::to_string(partition));
  }
  JsonObject object;
  object.add("topic", topic)
      .add("group", worker.group)
      .add("worker", name_of(worker))
      .add_raw("partitions", json_array(partitions))
      .add("lag_events", worker.lag_events)
      .add("handlers", worker.handlers.empty() ? std::nullopt : std::optional(worker.handlers))
      .add("since", worker.since ? std::optional(format_time(*worker.since)) : std::nullopt)
      .add("expires_seconds",
           worker.expires_in ? std::optional(seconds_of(*worker.expires_in)) : std::nullopt);
  return object.text();
}

Cell expires_cell(const WorkerView& worker) {
  if (!worker.expires_in) {
    return {std::string()};
  }
  if (*worker.expires_in < Milliseconds(0)) {
    return {fmt::format("{} ago", format_duration(-*worker.expires_in)), Colour::red};
  }
  return {format_duration(*worker.expires_in)};
}

// Of the workers of one group that run different directories, who has which. Those that are silent are left
// out.
void say_differences(const Context& context, const std::vector<WorkerView>& workers) {
  std::map<std::string, std::map<std::string, std::vector<std::string>>> by_group;
  for (const WorkerView& worker : workers) {
    const bool alive = !worker.expires_in || *worker.expires_in >= Milliseconds(0);
    if (alive && !worker.handlers.empty()) {
      by_group[worker.group][worker.handlers].push_back(*name_of(worker));
    }
  }
  for (const auto& [group, by_handlers] : by_group) {
    if (by_handlers.size() < 2) {
      continue;
    }
    std::string who;
    for (const auto& [handlers, names] : by_handlers) {
      who += fmt::format("{}{} {} {}", who.empty() ? "" : "; ", fmt::join(names, ", "),
                         names.size() == 1 ? "has" : "have", handlers);
    }
    say(context, fmt::format("the handlers of group {} differ: {}", group, who));
  }
}

int workers(const Context& context, const std::string& name, const std::optional<std::string>& group) {
  const auto session = connect(context, redis::Needs::Access::read);
  const Topic topic = load_topic(*session, name);
  if (group) {
    require_group(topic, *group);
  }
  const auto partitions = inspect_topic(*session, topic);
  Output out;
  Table table({{"GROUP"},
               {"WORKER"},
               {"COUNT", right},
               {"PARTITIONS"},
               {"LAG", right},
               {"SINCE", right},
               {"EXPIRES", right}});
  std::vector<WorkerView> views = inspect_workers(*session, topic, partitions);
  std::erase_if(views, [&](const WorkerView& worker) { return group && worker.group != *group; });
  for (const WorkerView& worker : views) {
    if (context.json) {
      out.line(json_of(name, worker));
      continue;
    }
    const auto worker_name = name_of(worker);
    table.row({worker.group, worker_name ? Cell(*worker_name) : Cell(std::string("no owner"), Colour::yellow),
               std::uint64_t{worker.partitions.size()}, partition_list(worker.partitions), worker.lag_events,
               worker.since_age ? format_duration(*worker.since_age) : std::string(), expires_cell(worker)});
  }
  if (!context.json) {
    if (topic.groups.empty()) {
      say(context, fmt::format("topic {} has no groups", name));
    }
    table.print(out);
  }
  out.flush();
  if (!context.json) {
    say_differences(context, views);
  }
  return report_loss(partitions);
}

}  // namespace

void add_inspect_workers(CLI::App& command, Context& context, const SharedTopic& topic) {
  auto& workers_command =
      add_subcommand(command, "workers", "who works which partitions, and who stands by for them");
  workers_command.footer("-t TOPIC is required.");
  const auto group = std::make_shared<std::optional<std::string>>();
  add_text(workers_command, "-g,--group", "NAME", *group, "only this group's");
  run_with(workers_command, context,
           [&context, topic, group] { return workers(context, require_topic(*topic), *group); });
}

}  // namespace continuum::app
