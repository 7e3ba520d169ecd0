#include "group_move.hpp"

#include "commands.hpp"
#include "operator.hpp"
#include "options.hpp"
#include "output.hpp"
#include "selectors.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/group_control.hpp"
#include "continuum/json.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <memory>
#include <optional>

namespace continuum::app {
namespace {

constexpr auto right = Table::Align::right;

void say_dry_run(const Context& context, const GroupArguments& args) {
  if (!args.dry_run) {
    say(context, "nothing was changed: add --yes to do it");
  }
}

// --- seek

struct SeekArguments {
  GroupArguments group;
  std::optional<std::string> to;
};

// start, end, an offset, or a time. Ten digits and more are milliseconds since 1970 (parse_moment), fewer an
// offset.
SeekTarget parse_target(const std::string& text, redis::Session& session) {
  using To = SeekTarget::To;
  if (text == "start" || text == "end") {
    return {text == "start" ? To::start : To::end, {}, {}};
  }
  try {
    const bool is_offset = text.size() < 10 && text.find_first_not_of("0123456789") == std::string::npos;
    if (is_offset) {
      return {To::offset, Offset(parse_number(text, 0, number_max)), {}};
    }
    return {To::time, {}, resolve(parse_moment(text), session)};
  } catch (const Error& error) {
    fail(error.kind(),
         "--to {}: give start, end, an offset (with one --partition), a duration back such as 2h, or a time "
         "such as "
         "2024-05-01T12:00:00Z",
         printable(text));
  }
}

void show_moves(const Context& context, const GroupArguments& args, const std::vector<Move>& moves,
                std::string_view status) {
  Output out;
  Table table({{"PARTITION", right}, {"FROM", right}, {"TO", right}, {"EVENTS", right}, {"WAY"}});
  for (const Move& move : moves) {
    const bool back = move.to.offset < move.from;
    const std::uint64_t events = back ? move.from - move.to.offset : move.to.offset - move.from;
    const std::string_view way = events == 0 ? "stays" : back ? "back" : "forward";
    if (context.json) {
      out.line(JsonObject()
                   .add("topic", args.topic)
                   .add("group", args.group)
                   .add("partition", move.partition)
                   .add("status", status)
                   .add("from", move.from)
                   .add("to", move.to.offset)
                   .add("events", events)
                   .add("way", way)
                   .text());
    } else {
      table.row({move.partition.value, move.from.value, move.to.offset.value, events, way});
    }
  }
  if (!context.json && !context.quiet) {
    table.print(out);
  }
  out.flush();
}

std::string moves_text(const std::vector<Move>& moves) {
  constexpr std::size_t named_max = 16;
  std::string text;
  for (std::size_t i = 0; i < std::min(moves.size(), named_max); ++i) {
    text += fmt::format("{}partition {}: {} to {}", i == 0 ? "" : ", ", moves[i].partition, moves[i].from,
                        moves[i].to.offset);
  }
  if (moves.size() > named_max) {
    text += fmt::format(", and {} more partitions", moves.size() - named_max);
  }
  return text;
}

int run_seek(const Context& context, const SeekArguments& args) {
  if (!args.to) {
    fail(ErrorKind::usage,
         "where to? Give --to start, end, an offset, a duration back such as 2h, or a time");
  }
  const bool acts = args.group.yes && !args.group.dry_run;
  const auto session = connect(context, acts ? redis::Needs::Access::write : redis::Needs::Access::read);
  const GroupPlace place = find_group(*session, args.group);
  const SeekTarget target = parse_target(*args.to, *session);
  auto moves = plan_seek(*session, place.topic, args.group.group, place.partitions, target);
  if (!acts) {
    show_moves(context, args.group, moves, "planned");
    require_movable(place.topic, args.group.group, moves);
    say_dry_run(context, args.group);
    return 0;
  }
  require_movable(place.topic, args.group.group, moves);
  Audit audit(*session, args.group,
              fmt::format("group seek -g {}{} --to {}", args.group.group,
                          args.group.partitions == "all" ? "" : " -p " + args.group.partitions, *args.to));
  audit.begin(moves_text(moves));
  moves = seek(*session, place.topic, args.group.group, place.partitions, target,
               operator_name() + " (group seek)");
  audit.done(moves_text(moves));
  show_moves(context, args.group, moves, "moved");
  return 0;
}

// --- skip

struct SkipArguments {
  GroupArguments group;
  std::optional<std::uint64_t> to;
  std::optional<std::uint64_t> count;
};

std::string text_of(std::string_view raw) {
  std::string scratch;
  return std::string(json::unescape(raw, scratch).value_or(raw));
}

void show_skip(const Context& context, const GroupArguments& args, Partition partition, const Skip& skip,
               std::string_view status) {
  Output out;
  Table table({{"PARTITION", right}, {"OFFSET", right}, {"KEY"}, {"TYPE"}, {"ID"}});
  for (const Skip::Event& event : skip.events) {
    const Attributes attributes = attributes_of(event.line);
    std::string scratch;
    const std::string key(key_of(attributes, scratch));
    if (context.json) {
      out.line(JsonObject()
                   .add("topic", args.topic)
                   .add("group", args.group)
                   .add("partition", partition)
                   .add("status", status)
                   .add("offset", event.offset)
                   .add("key", key)
                   .add("type", text_of(attributes.type))
                   .add("id", text_of(attributes.id))
                   .text());
    } else {
      table.row({partition.value, std::to_string(event.offset.value), key, text_of(attributes.type),
                 text_of(attributes.id)});
    }
  }
  if (!context.json && !context.quiet) {
    table.print(out);
  }
  out.flush();
}

int run_skip(const Context& context, const SkipArguments& args) {
  if (args.to && args.count) {
    fail(ErrorKind::usage, "--to or --count, not both");
  }
  const bool acts = args.group.yes && !args.group.dry_run;
  const auto session = connect(context, acts ? redis::Needs::Access::write : redis::Needs::Access::read);
  const GroupPlace place = find_group(*session, args.group);
  if (place.partitions.size() != 1) {
    fail(ErrorKind::usage,
         "which partition? Give one with --partition; `continuum inspect why -t {} -g {}` says which "
         "stands still",
         args.group.topic, args.group.group);
  }
  const Partition partition = place.partitions.front();
  SkipRange range;
  range.to = args.to ? std::optional(Offset(*args.to)) : std::nullopt;
  range.count = args.count.value_or(1);
  if (!acts) {
    show_skip(context, args.group, partition,
              plan_skip(*session, place.topic, args.group.group, partition, range), "planned");
    say_dry_run(context, args.group);
    return 0;
  }
  const Skip planned = plan_skip(*session, place.topic, args.group.group, partition, range);
  const std::string touched = fmt::format("partition {}, offsets {} to {}", partition, planned.from.offset,
                                          planned.events.back().offset);
  Audit audit(
      *session, args.group,
      fmt::format("group skip -g {} -p {}{}", args.group.group, partition,
                  args.to ? fmt::format(" --to {}", *args.to) : fmt::format(" --count {}", range.count)));
  audit.begin(touched);
  const Skip done = skip(*session, place.topic, args.group.group, partition, range,
                         operator_name() + " (group skip)", "skipped by " + operator_and_why(args.group));
  audit.done(touched);
  show_skip(context, args.group, partition, done, "skipped");
  say(context, fmt::format("kept as dead letters of handler {}: `continuum dead show -t {} -g {} -p {}`",
                           printable(done.handler), args.group.topic, args.group.group, partition));
  return 0;
}

}  // namespace

void add_group_seek(CLI::App& command, Context& context) {
  const auto args = std::make_shared<SeekArguments>();
  auto& seek_command = add_subcommand(command, "seek", "have events handled again, or not at all");
  add_group_options(seek_command, args->group);
  add_partition_option(seek_command, args->group);
  add_text(seek_command, "--to", "WHERE", args->to,
           "start, end, an offset (with one --partition), a duration back (2h), or a time");
  add_change_options(seek_command, args->group);
  add_yes_option(seek_command, args->group);
  run_with(seek_command, context, [&context, args] { return run_seek(context, *args); });
}

void add_group_skip(CLI::App& command, Context& context) {
  const auto args = std::make_shared<SkipArguments>();
  auto& skip_command =
      add_subcommand(command, "skip", "pass events that stand in the way; they become dead letters");
  add_group_options(skip_command, args->group);
  add_partition_option(skip_command, args->group);
  add_number(skip_command, "--count", args->count, {1, skip_events_max}, "how many (1)");
  add_number(skip_command, "--to", args->to, {0, number_max}, "all before this offset");
  add_change_options(skip_command, args->group);
  add_yes_option(skip_command, args->group);
  run_with(skip_command, context, [&context, args] { return run_skip(context, *args); });
}

}  // namespace continuum::app
