// continuum group: list, pause, resume, move and remove groups. Moving: group_move.cpp.
#include "continuum/group_control.hpp"

#include "commands.hpp"
#include "group_move.hpp"
#include "operator.hpp"
#include "options.hpp"
#include "output.hpp"

#include "continuum/dead_letter_listing.hpp"
#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/inspect.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <memory>
#include <set>

namespace continuum::app {
namespace {

constexpr auto right = Table::Align::right;

// --- ls

struct GroupTotals {
  std::uint64_t lag_events = 0;
  std::uint64_t held_keys = 0;
  std::uint64_t letters = 0;
  std::uint64_t owned = 0;   // partitions that have an owner
  std::uint64_t paused = 0;  // partitions
  std::set<std::string> owners;
};

// "since 1714564800000" for people.
std::string policy_text(const std::string& policy) {
  constexpr std::string_view since = "since ";
  std::int64_t milliseconds = 0;
  const std::string_view digits =
      std::string_view(policy).substr(policy.starts_with(since) ? since.size() : 0);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), milliseconds);
  const bool is_time = policy.starts_with(since) && error == std::errc();
  return is_time ? format_time(SystemTime(Milliseconds(milliseconds))) : policy;
}

int list(const Context& context, const std::string& name) {
  const auto session = connect(context, redis::Needs::Access::read);
  const Topic topic = load_topic(*session, name);
  std::map<std::string, GroupTotals> totals;
  const std::vector<PartitionView> views = inspect_topic(*session, topic);
  for (const PartitionView& view : views) {
    for (const GroupView& group : view.groups) {
      GroupTotals& total = totals[group.group];
      total.lag_events += group.lag_events;
      total.paused += group.state.paused.empty() ? 0U : 1U;
      if (!group.state.owner.empty()) {
        ++total.owned;
        total.owners.insert(group.state.owner);
      }
    }
  }
  const auto partitions = topic.partitions();
  Table table({{"GROUP"},
               {"START"},
               {"LAG", right},
               {"HELD", right},
               {"LETTERS", right},
               {"OWNERS", right},
               {"OWNED", right},
               {"PAUSED", right}});
  Output out;
  for (auto& [group, total] : totals) {
    for (const HeldOnPartition& on : held_keys(*session, topic, group, partitions)) {
      total.letters += on.held.letters;
      total.held_keys += static_cast<std::uint64_t>(
          std::count_if(on.held.keys.begin(), on.held.keys.end(),
                        [](const HeldKey& key) { return key.held == HeldKey::Held::yes; }));
    }
    const std::string start = policy_text(topic.groups.at(group).policy);
    if (context.json) {
      out.line(JsonObject()
                   .add("topic", name)
                   .add("group", group)
                   .add("start", start)
                   .add("lag_events", total.lag_events)
                   .add("held_keys", total.held_keys)
                   .add("letters", total.letters)
                   .add("owners", total.owners.size())
                   .add("partitions", partitions.size())
                   .add("owned", total.owned)
                   .add("paused", total.paused)
                   .text());
    } else {
      table.row({group, start, total.lag_events, total.held_keys, total.letters,
                 std::uint64_t{total.owners.size()}, fmt::format("{}/{}", total.owned, partitions.size()),
                 total.paused});
    }
  }
  if (!context.json) {
    if (totals.empty()) {
      say(context, fmt::format("topic {} has no groups", name));
    }
    table.print(out);
  }
  out.flush();
  for (const std::string& text : orphan_texts(views)) {
    say(context, text);
  }
  return 0;
}

// --- pause, resume

std::string partitions_option(const GroupArguments& args) {
  return args.partitions == "all" ? std::string() : " -p " + args.partitions;
}

void say_done(const Context& context, const GroupArguments& args, std::string_view status,
              const std::vector<Partition>& partitions) {
  Output out;
  if (context.json) {
    std::vector<std::string> numbers;
    for (const Partition partition : partitions) {
      numbers.push_back(fmt::to_string(partition.value));
    }
    out.line(JsonObject()
                 .add("topic", args.topic)
                 .add("group", args.group)
                 .add("status", status)
                 .add_raw("partitions", json_array(numbers))
                 .text());
  } else if (!context.quiet) {
    out.line(fmt::format("topic {}, group {}: {}{}", args.topic, args.group, status,
                         partitions.empty() ? " nowhere" : " on " + partition_text(partitions)));
  }
  out.flush();
}

enum class Pausing : std::uint8_t { pause, resume };

int set_pause(const Context& context, const GroupArguments& args, Pausing pausing) {
  const bool pause = pausing == Pausing::pause;
  const auto session =
      connect(context, args.dry_run ? redis::Needs::Access::read : redis::Needs::Access::write);
  const GroupPlace place = find_group(*session, args);
  std::vector<Partition> changed;
  const auto states = group_states(*session, place.topic, args.group, place.partitions);
  for (std::size_t i = 0; i < states.size(); ++i) {
    if (states[i] && (pause || !states[i]->paused.empty())) {
      changed.push_back(place.partitions[i]);
    }
  }
  if (args.dry_run) {
    say_done(context, args, pause ? "would be paused" : "would be resumed", changed);
    return 0;
  }
  const auto done =
      set_paused(*session, place.topic, args.group, changed, pause ? operator_and_why(args) : std::string());
  Audit(*session, args,
        fmt::format("group {} -g {}{}", pause ? "pause" : "resume", args.group, partitions_option(args)))
      .done(partition_text(done));
  say_done(context, args, pause ? "paused" : "resumed", done);
  return 0;
}

// --- release-lease

int release_lease(const Context& context, const GroupArguments& args) {
  const auto session =
      connect(context, args.dry_run ? redis::Needs::Access::read : redis::Needs::Access::write);
  const GroupPlace place = find_group(*session, args);
  const auto states = group_states(*session, place.topic, args.group, place.partitions);
  std::vector<std::pair<Partition, const GroupState*>> owned;
  std::set<std::string> owners;
  std::vector<Partition> partitions;
  for (std::size_t i = 0; i < states.size(); ++i) {
    if (states[i] && !states[i]->owner.empty()) {
      owned.emplace_back(place.partitions[i], &*states[i]);
      owners.insert(printable(states[i]->who.empty() ? states[i]->owner : states[i]->who));
      partitions.push_back(place.partitions[i]);
    }
  }
  const std::string from = fmt::format("{}", fmt::join(owners, ", "));
  if (owned.empty()) {
    say_done(context, args, "released", {});
    return 0;
  }
  if (args.dry_run) {
    say_done(context, args, "would be released from " + from, partitions);
    return 0;
  }
  if (!args.yes) {
    fail(ErrorKind::usage,
         "this would take {} of group {} away from {}, whose handlers may be running: add --yes "
         "to do it. "
         "A worker that died loses its lease by itself",
         partition_text(partitions), args.group, from);
  }
  Audit audit(*session, args,
              fmt::format("group release-lease -g {}{}", args.group, partitions_option(args)));
  audit.begin(fmt::format("{} of {}", partition_text(partitions), from));
  std::vector<Partition> done;
  std::vector<Partition> changed;
  for (const auto& [partition, state] : owned) {
    const Revoked revoked = revoke_lease(*session, place.topic, args.group, partition, state->fence);
    (revoked == Revoked::changed ? changed : done).push_back(partition);
  }
  audit.done(partition_text(done));
  say_done(context, args, "released", done);
  if (!changed.empty()) {
    fail(ErrorKind::fenced, "topic {}, group {}: {} got another owner just now, and was left to it",
         args.topic, args.group, partition_text(changed));
  }
  return 0;
}

// --- forget

// Dead letters are what is lost for good: everything else is still in the log.
std::string remains_text(const std::vector<Remains>& remains) {
  std::uint64_t partitions = 0;
  std::uint64_t lag = 0;
  std::uint64_t letters = 0;
  std::uint64_t outputs = 0;
  for (const Remains& one : remains) {
    partitions += one.registered ? 1 : 0;
    lag += one.lag;
    letters += one.letters;
    outputs += one.outputs;
  }
  std::string text =
      fmt::format("its place on {} partition{}, behind which {} event{} wait{}", partitions,
                  partitions == 1 ? "" : "s", format_count(lag), lag == 1 ? "" : "s", lag == 1 ? "s" : "");
  if (letters > 0) {
    text += fmt::format("; {} dead letter{} for good", format_count(letters), letters == 1 ? "" : "s");
  }
  if (outputs > 0) {
    text += fmt::format("; what {} event{} emitted and is not published yet", format_count(outputs),
                        outputs == 1 ? "" : "s");
  }
  return text;
}

int forget(const Context& context, const GroupArguments& args) {
  const auto session =
      connect(context, args.dry_run ? redis::Needs::Access::read : redis::Needs::Access::write);
  const Topic topic = load_topic(*session, args.topic);
  const auto remains = remains_of(*session, topic, args.group);
  // What a forget that was killed has left over has to go, too.
  if (std::none_of(remains.begin(), remains.end(), [](const Remains& one) { return one.registered; })) {
    require_group(topic, args.group);
  }
  const std::string what = remains_text(remains);
  if (args.dry_run) {
    Output().line(fmt::format("would forget group {} of topic {}: {}", args.group, args.topic, what)).flush();
    return 0;
  }
  if (!args.yes) {
    fail(ErrorKind::usage,
         "this would forget group {} of topic {}: {}. `continuum dead export` keeps dead letters. Add --yes "
         "to do it",
         args.group, args.topic, what);
  }
  Audit audit(*session, args, fmt::format("group forget -g {}", args.group));
  forget_group(*session, topic, args.group, operator_name() + " (group forget)", [&] { audit.begin(what); });
  audit.done(what);
  Output out;
  if (context.json) {
    out.line(
        JsonObject().add("topic", args.topic).add("group", args.group).add("status", "forgotten").text());
  } else if (!context.quiet) {
    out.line(fmt::format("topic {}: group {} forgotten", args.topic, args.group));
  }
  out.flush();
  return 0;
}

CLI::App& add_change(CLI::App& command, const std::string& name, const std::string& summary,
                     GroupArguments& args) {
  CLI::App& subcommand = add_subcommand(command, name, summary);
  add_group_options(subcommand, args);
  add_change_options(subcommand, args);
  return subcommand;
}

}  // namespace

void add_group(CLI::App& command, Context& context) {
  const auto topic = std::make_shared<std::string>();
  auto& ls = add_subcommand(command, "ls", "the groups of a topic");
  add_topic_option(ls, *topic);
  run_with(ls, context, [&context, topic] { return list(context, *topic); });

  const auto paused = std::make_shared<GroupArguments>();
  auto& pause = add_change(command, "pause", "stop handling; workers keep their partitions", *paused);
  add_partition_option(pause, *paused);
  run_with(pause, context, [&context, paused] { return set_pause(context, *paused, Pausing::pause); });

  const auto resumed = std::make_shared<GroupArguments>();
  auto& resume = add_change(command, "resume", "go on after a pause", *resumed);
  add_partition_option(resume, *resumed);
  run_with(resume, context, [&context, resumed] { return set_pause(context, *resumed, Pausing::resume); });

  add_group_seek(command, context);
  add_group_skip(command, context);

  const auto released = std::make_shared<GroupArguments>();
  auto& release = add_change(command, "release-lease", "take partitions away from their worker", *released);
  add_partition_option(release, *released);
  add_yes_option(release, *released);
  run_with(release, context, [&context, released] { return release_lease(context, *released); });

  const auto forgotten = std::make_shared<GroupArguments>();
  auto& forget_command =
      add_change(command, "forget", "remove a group with its place and its dead letters", *forgotten);
  add_yes_option(forget_command, *forgotten);
  run_with(forget_command, context, [&context, forgotten] { return forget(context, *forgotten); });
}

}  // namespace continuum::app
