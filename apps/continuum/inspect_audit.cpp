// continuum inspect audit, continuum inspect dead.
#include "commands.hpp"
#include "dead_view.hpp"
#include "inspect_views.hpp"
#include "options.hpp"
#include "output.hpp"

#include "continuum/audit.hpp"
#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/group_control.hpp"

#include <CLI/CLI.hpp>

namespace continuum::app {
namespace {

constexpr std::uint64_t entries_shown = 20;
constexpr std::uint64_t keys_shown = 20;
constexpr std::uint64_t keys_max = 1'000'000;

int show_audit(const Context& context, const std::string& name, std::uint64_t last) {
  const auto session = connect(context, redis::Needs::Access::read);
  const Topic topic = load_topic(*session, name);
  Output out;
  Table table({{"TIME"}, {"WHO"}, {"STEP"}, {"WHAT"}, {"TOUCHED"}, {"WHY"}});
  for (const AuditEntry& entry : read_audit(*session, topic.name, last)) {
    const std::string time =
        format_time(SystemTime(Milliseconds(static_cast<std::int64_t>(entry.id.milliseconds))));
    const std::string_view step = entry.step == AuditEntry::Step::begun ? "begun" : "done";
    if (context.json) {
      out.line(JsonObject()
                   .add("topic", name)
                   .add("time", time)
                   .add("who", entry.who)
                   .add("step", step)
                   .add("what", entry.what)
                   .add("touched", entry.touched)
                   .add("why", entry.why)
                   .text());
    } else {
      table.row({time, entry.who, step, entry.what, entry.touched, entry.why});
    }
  }
  if (!context.json) {
    if (table.empty()) {
      say(context, fmt::format("nobody has changed a group of topic {} by hand", name));
    }
    table.print(out);
  }
  out.flush();
  return 0;
}

int show_dead(const Context& context, const std::string& name, const std::optional<std::string>& group,
              std::uint64_t last) {
  const auto session = connect(context, redis::Needs::Access::read);
  const Topic topic = load_topic(*session, name);
  std::vector<std::string> groups;
  if (group) {
    require_group(topic, *group);
    groups.push_back(*group);
  } else {
    for (const auto& [known, registered] : topic.groups) {
      groups.push_back(known);
    }
  }
  show_summary(context, *session, topic, groups, {}, last);
  return 0;
}

}  // namespace

void add_inspect_audit(CLI::App& parent, Context& context, const SharedTopic& topic) {
  auto& command = add_subcommand(parent, "audit", "who changed what by hand");
  command.footer("-t TOPIC is required.");
  const auto last = std::make_shared<std::uint64_t>(entries_shown);
  add_number(command, "-n,--last", *last, {1, 2 * audit_entries_max}, "the last so many entries (20)");
  run_with(command, context,
           [&context, topic, last] { return show_audit(context, require_topic(*topic), *last); });
}

void add_inspect_dead(CLI::App& parent, Context& context, const SharedTopic& topic) {
  auto& command = add_subcommand(parent, "dead", "dead letters of all groups, by reason and by key");
  command.footer("-t TOPIC is required.");
  const auto group = std::make_shared<std::optional<std::string>>();
  const auto last = std::make_shared<std::uint64_t>(keys_shown);
  add_text(command, "-g,--group", "NAME", *group, "only this group");
  add_number(command, "-n,--last", *last, {0, keys_max}, "at most so many keys of a group (20)");
  run_with(command, context, [&context, topic, group, last] {
    return show_dead(context, require_topic(*topic), *group, *last);
  });
}

}  // namespace continuum::app
