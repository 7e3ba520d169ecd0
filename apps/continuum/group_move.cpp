#include "group_move.hpp"

#include "commands.hpp"
#include "export_file.hpp"
#include "operator.hpp"
#include "options.hpp"
#include "output.hpp"
#include "selectors.hpp"

#include "continuum/cursor_file.hpp"
#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/group_control.hpp"
#include "continuum/group_seek.hpp"
#include "continuum/group_skip.hpp"
#include "continuum/json.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
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
  std::optional<std::string> from_file;
  std::optional<std::string> export_to;
};

constexpr std::string_view to_help =
    "give start, end, an offset (with one --partition, or 0=120,1=98), a duration back such as 2h, or a time "
    "such as 2024-05-01, 2024-05-01T12:00:00Z or milliseconds since 1970";

// 0=120,1=98
std::map<Partition, Offset> parse_offsets(const std::string& text) {
  std::map<Partition, Offset> offsets;
  for (std::size_t at = 0; at <= text.size();) {
    const std::string one = text.substr(at, text.find(',', at) - at);
    const std::size_t equals = std::min(one.find('='), one.size());
    const Partition partition(
        static_cast<std::uint32_t>(parse_number(one.substr(0, equals), 0, partitions_max - 1)));
    const Offset offset(parse_number(one.substr(std::min(equals + 1, one.size())), 0, number_max));
    if (!offsets.emplace(partition, offset).second) {
      fail(ErrorKind::usage, "--to {}: partition {} comes twice", printable(text), partition);
    }
    at += one.size() + 1;
  }
  return offsets;
}

// start, end, an offset, or a time. Ten digits and more are milliseconds since 1970 (parse_moment), fewer an
// offset.
SeekTarget parse_target(const std::string& text, const std::vector<Partition>& partitions,
                        redis::Session& session) {
  using To = SeekTarget::To;
  if (text == "start" || text == "end") {
    return {text == "start" ? To::start : To::end, {}, {}};
  }
  std::optional<Offset> offset;
  try {
    if (text.find('=') != std::string::npos) {
      return {To::offsets, parse_offsets(text), {}};
    }
    if (text.size() < 10 && text.find_first_not_of("0123456789") == std::string::npos) {
      offset = Offset(parse_number(text, 0, number_max));
    } else {
      return {To::time, {}, resolve(parse_moment(text), session)};
    }
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::usage || error.message().starts_with("--to")) {
      throw;
    }
    fail(error.kind(), "--to {}: {}", printable(text), to_help);
  }
  if (partitions.size() != 1) {
    fail(ErrorKind::usage,
         "offsets are counted in each partition: give exactly one with --partition, or --to 0={},1=…",
         *offset);
  }
  return {To::offsets, {{partitions.front(), *offset}}, {}};
}

// Of a file, or with - of stdin.
std::string read_all(const std::string& path) {
  std::ifstream file;
  if (path != "-") {
    file.open(path, std::ios::binary);
    if (!file) {
      fail(ErrorKind::usage, "{}: cannot be read: {}", printable(path), std::strerror(errno));
    }
  }
  std::istream& in = path == "-" ? std::cin : file;
  std::string text(cursor_file_bytes_max + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) {
    fail(ErrorKind::usage, "{}: cannot be read", printable(path));
  }
  text.resize(static_cast<std::size_t>(in.gcount()));
  return text;
}

SeekTarget read_target(const std::string& path, const Topic& topic) {
  try {
    return {SeekTarget::To::offsets, parse_cursor_file(read_all(path), topic), {}};
  } catch (const Error& error) {
    const std::string file = path == "-" ? "stdin" : printable(path);
    fail(error.kind(), "{}{}", error.message().starts_with(file) ? "" : file + ": ", error.message());
  }
}

// The partitions that a target names, instead of all of them.
void take_partitions(GroupPlace& place, const SeekTarget& target, const GroupArguments& args) {
  if (target.to != SeekTarget::To::offsets) {
    return;
  }
  std::vector<Partition> named;
  for (const auto& [partition, offset] : target.offsets) {
    named.push_back(partition);
    if (!std::binary_search(place.partitions.begin(), place.partitions.end(), partition)) {
      fail(ErrorKind::usage, "topic {}: partition {} is not one of {}", args.topic, partition,
           partition_text(place.partitions));
    }
  }
  place.partitions = std::move(named);
}

// What a command about all partitions does not do.
void say_left_out(const Context& context, const GroupArguments& args, const std::vector<Partition>& missing) {
  if (!missing.empty()) {
    say(context,
        fmt::format("topic {}, group {}: without {}, where it is not registered yet: that comes with "
                    "the next start of a worker",
                    args.topic, args.group, partition_text(missing)));
  }
}

// The cursors as they are, or as they would be.
void write_cursors(const Topic& topic, std::string_view group, const std::map<Partition, Offset>& offsets,
                   const std::string& path) {
  if (path == "-") {
    Output out;
    for (const auto& [partition, offset] : offsets) {
      out.line(cursor_line(topic, group, partition, offset));
    }
    out.flush();
    return;
  }
  ExportFile file(path);
  for (const auto& [partition, offset] : offsets) {
    file.line(cursor_line(topic, group, partition, offset));
  }
  file.finish();
}

int export_cursors(const Context& context, const SeekArguments& args) {
  if (args.group.yes) {
    fail(ErrorKind::usage, "--export only writes where the group stands, or would stand: leave --yes away");
  }
  const auto session = connect(context, redis::Needs::Access::read);
  GroupPlace place = find_group(*session, args.group);
  std::map<Partition, Offset> offsets;
  std::vector<Partition> missing;
  if (args.to || args.from_file) {
    const SeekTarget target = args.to ? parse_target(*args.to, place.partitions, *session)
                                      : read_target(*args.from_file, place.topic);
    take_partitions(place, target, args.group);
    missing = unregistered(*session, place.topic, args.group.group, place.partitions);
    const SeekPlan plan = plan_seek(*session, place.topic, args.group.group, place.partitions, target);
    for (const Move& move : plan.moves) {
      offsets[move.partition] = move.to.offset;
    }
  } else {
    missing = unregistered(*session, place.topic, args.group.group, place.partitions);
    const auto states = group_states(*session, place.topic, args.group.group, place.partitions);
    for (std::size_t i = 0; i < states.size(); ++i) {
      if (states[i]) {
        offsets[place.partitions[i]] = states[i]->cursor.offset;
      }
    }
  }
  write_cursors(place.topic, args.group.group, offsets, *args.export_to);
  say_left_out(context, args.group, missing);
  return 0;
}

void show_moves(const Context& context, const GroupArguments& args, const SeekPlan& plan,
                std::string_view status) {
  Output out;
  Table table({{"PARTITION", right}, {"FROM", right}, {"TO", right}, {"EVENTS", right}, {"WAY"}});
  std::vector<Move> moves = plan.moves;
  moves.insert(moves.end(), plan.staying.begin(), plan.staying.end());
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

// Why other partitions than those that were named are concerned.
void say_others(const Context& context, const Topic& topic, const SeekPlan& plan) {
  std::vector<Partition> staying;
  std::vector<Partition> removed;
  for (const Move& move : plan.staying) {
    staying.push_back(move.partition);
    const auto& members = topic.ring().members;
    if (std::none_of(members.begin(), members.end(),
                     [&](const RingMember& member) { return member.partition == move.partition; })) {
      removed.push_back(move.partition);
    }
  }
  if (!staying.empty()) {
    const bool one = staying.size() == 1;
    say(context,
        fmt::format("{} {} where {}, and {} the changes of the ring once more: keys went there from a "
                    "partition that goes back, and its dead letters are to follow them{}",
                    partition_text(staying), one ? "stays" : "stay", one ? "it is" : "they are",
                    one ? "passes" : "pass",
                    removed.empty() ? std::string()
                                    : fmt::format(". That takes a worker of {} again, which left the ring",
                                                  partition_text(removed))));
  }
  if (!plan.tidied.empty()) {
    say(context,
        fmt::format("dead letters are dropped from {} that another partition has taken over from there",
                    partition_text(plan.tidied)));
  }
}

std::string plan_text(const SeekPlan& plan) {
  constexpr std::size_t named_max = 16;
  std::string text;
  for (std::size_t i = 0; i < std::min(plan.moves.size(), named_max); ++i) {
    const Move& move = plan.moves[i];
    text += fmt::format("{}partition {}: {} to {}", i == 0 ? "" : ", ", move.partition, move.from,
                        move.to.offset);
  }
  if (plan.moves.size() > named_max) {
    text += fmt::format(", and {} more partitions", plan.moves.size() - named_max);
  }
  std::vector<Partition> staying;
  for (const Move& move : plan.staying) {
    staying.push_back(move.partition);
  }
  return staying.empty() ? text
                         : fmt::format("{}; {} where {}", text, partition_text(staying),
                                       staying.size() == 1 ? "it was" : "they were");
}

int run_seek(const Context& context, const SeekArguments& args) {
  if (args.to && args.from_file) {
    fail(ErrorKind::usage, "give --to or --from-file, not both");
  }
  if (args.from_file && args.group.partitions != "all") {
    fail(ErrorKind::usage, "the file of --from-file says which partitions: leave --partition away");
  }
  if (args.export_to) {
    return export_cursors(context, args);
  }
  if (!args.to && !args.from_file) {
    fail(ErrorKind::usage,
         "where to? Give --to start, end, an offset, a duration back such as 2h, or a time; or --from-file");
  }
  const bool acts = args.group.yes && !args.group.dry_run;
  const auto session = connect(context, acts ? redis::Needs::Access::write : redis::Needs::Access::read);
  GroupPlace place = find_group(*session, args.group);
  const SeekTarget target = args.to ? parse_target(*args.to, place.partitions, *session)
                                    : read_target(*args.from_file, place.topic);
  take_partitions(place, target, args.group);
  const auto missing = unregistered(*session, place.topic, args.group.group, place.partitions);
  SeekPlan plan = plan_seek(*session, place.topic, args.group.group, place.partitions, target);
  say_left_out(context, args.group, missing);
  say_others(context, place.topic, plan);
  if (!acts) {
    show_moves(context, args.group, plan, "planned");
    require_movable(place.topic, args.group.group, plan);
    say_dry_run(context, args.group);
    return 0;
  }
  require_movable(place.topic, args.group.group, plan);
  Audit audit(*session, args.group,
              fmt::format("group seek -g {}{} {} {}", args.group.group,
                          args.group.partitions == "all" ? "" : " -p " + args.group.partitions,
                          args.to ? "--to" : "--from-file", args.to ? *args.to : *args.from_file));
  plan = seek(*session, place.topic, args.group.group, place.partitions, target,
              operator_name() + " (group seek)", [&](const SeekPlan& now) { audit.begin(plan_text(now)); });
  audit.done(plan_text(plan));
  show_moves(context, args.group, plan, "moved");
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
  const auto touched = [&](const Skip& skip) {
    return fmt::format("partition {}, offsets {} to {}", partition, skip.from.offset,
                       skip.events.back().offset);
  };
  Audit audit(
      *session, args.group,
      fmt::format("group skip -g {} -p {}{}", args.group.group, partition,
                  args.to ? fmt::format(" --to {}", *args.to) : fmt::format(" --count {}", range.count)));
  const Skip done =
      skip(*session, place.topic, args.group.group, partition, range, operator_name() + " (group skip)",
           "skipped by " + operator_and_why(args.group), [&](const Skip& now) { audit.begin(touched(now)); });
  audit.done(touched(done));
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
           "start, end, an offset (with one --partition, or 0=120,1=98), a duration back (2h), or a time");
  add_text(seek_command, "--from-file", "FILE", args->from_file,
           "to where --export has written; - is stdin. Partitions that are not in it stay");
  add_text(seek_command, "--export", "FILE", args->export_to,
           "only write where the group stands (with --to: would stand) into a new file; - is stdout");
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
