// continuum cursor: the cursors of replays.
#include "commands.hpp"
#include "operator.hpp"
#include "options.hpp"
#include "output.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/names.hpp"
#include "continuum/replay_cursor.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <map>
#include <memory>

namespace continuum::app {
namespace {

// Events stored behind it, of the partitions that it has a place in.
std::uint64_t lag_of(const ReplayCursorState& cursor, const std::map<Partition, Offset>& ends) {
  std::uint64_t lag = 0;
  if (cursor.at) {
    for (const auto& [partition, place] : cursor.at->places) {
      const auto end = ends.find(partition);
      lag += end != ends.end() && end->second > place.offset ? end->second - place.offset : 0;
    }
  }
  return lag;
}

int list(const Context& context, const std::string& name) {
  const auto session = connect(context, redis::Needs::Access::read);
  const Topic topic = load_topic(*session, name);
  const auto cursors = list_replay_cursors(*session, topic);
  std::map<Partition, Offset> ends;
  for (const StoredEvents& stored : stored_events(*session, topic)) {
    ends[stored.partition] = stored.next;
  }
  constexpr auto right = Table::Align::right;
  Table table({{"CURSOR"}, {"LAG", right}, {"EVENTS", right}, {"MOVED"}, {"OWNER"}, {"SELECTION"}});
  Output out;
  for (const ReplayCursorState& cursor : cursors) {
    const std::string moved = cursor.moved == SystemTime{} ? std::string() : format_time(cursor.moved);
    const std::string who = cursor.owner.empty() ? std::string() : cursor.who;
    if (context.json) {
      out.line(JsonObject()
                   .add("topic", name)
                   .add("cursor", cursor.name)
                   .add("lag_events", lag_of(cursor, ends))
                   .add("events", cursor.events)
                   .add("moved", moved)
                   .add("owner", who)
                   .add("selection", cursor.selection)
                   .text());
    } else {
      table.row({cursor.name, lag_of(cursor, ends), cursor.events, moved, who, cursor.selection});
    }
  }
  if (!context.json) {
    if (cursors.empty()) {
      say(context, fmt::format("topic {} has no cursors", name));
    } else {
      table.print(out);
    }
  }
  out.flush();
  for (const ReplayCursorState& cursor : cursors) {
    if (!cursor.damage.empty()) {
      throw Error(ErrorKind::loss, cursor.damage);
    }
  }
  return 0;
}

struct RemoveArguments {
  std::string topic;
  std::string cursor;
  bool yes = false;
  bool dry_run = false;
};

int remove(const Context& context, const RemoveArguments& args) {
  const auto session = connect(context, redis::Needs::Access::write);
  const Topic topic = load_topic(*session, args.topic);
  const auto cursors = list_replay_cursors(*session, topic);
  const auto found = std::find_if(cursors.begin(), cursors.end(),
                                  [&](const auto& cursor) { return cursor.name == args.cursor; });
  if (found == cursors.end()) {
    std::vector<std::string> names;
    for (const auto& cursor : cursors) {
      names.push_back(cursor.name);
    }
    fail(ErrorKind::usage, "topic {} has no cursor {}{}", args.topic, args.cursor,
         hint_of(args.cursor, names));
  }
  const std::string what =
      fmt::format("cursor {} of topic {} ({}): the next replay with that name begins anew", args.cursor,
                  args.topic, printable(found->selection));
  if (args.dry_run) {
    Output().line("would remove " + what).flush();
    return 0;
  }
  if (!args.yes) {
    fail(ErrorKind::usage, "this would remove {}. Add --yes to do it", what);
  }
  ReplayCursor cursor(*session, topic, {args.cursor, {}, operator_name()});
  if (const auto holder = cursor.take(Milliseconds(0))) {
    fail(ErrorKind::fenced, "topic {}: a run moves the cursor {}: {}. Nothing was changed; stop it first",
         args.topic, args.cursor, printable(*holder));
  }
  cursor.forget();
  Output out;
  if (context.json) {
    out.line(
        JsonObject().add("topic", args.topic).add("cursor", args.cursor).add("status", "removed").text());
  } else if (!context.quiet) {
    out.line(fmt::format("topic {}: cursor {} removed", args.topic, args.cursor));
  }
  out.flush();
  return 0;
}

}  // namespace

void add_cursor(CLI::App& command, Context& context) {
  const auto topic = std::make_shared<std::string>();
  auto& ls = add_subcommand(command, "ls", "the cursors of a topic, and how far they are");
  add_topic_option(ls, *topic);
  run_with(ls, context, [&context, topic] { return list(context, *topic); });

  const auto removed = std::make_shared<RemoveArguments>();
  auto& rm = add_subcommand(command, "rm", "remove a cursor: the next run begins anew");
  add_topic_option(rm, removed->topic);
  rm.add_option("NAME", removed->cursor, "the cursor")->required();
  add_flag(rm, "--dry-run", removed->dry_run, "only say what would be done");
  add_flag(rm, "-y,--yes", removed->yes, "do it");
  run_with(rm, context, [&context, removed] { return remove(context, *removed); });
}

}  // namespace continuum::app
