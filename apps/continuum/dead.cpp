// continuum dead: dead letters of a group: look at them, export them, have them handled again, discard them.
#include "dead_command.hpp"

#include "commands.hpp"
#include "dead_view.hpp"
#include "export_file.hpp"
#include "options.hpp"
#include "output.hpp"

#include <CLI/CLI.hpp>

#include <memory>

namespace continuum::app {

HeldByPlace held_by_place(redis::Session& session, const GroupPlace& place, const DeadArguments& args) {
  HeldByPlace all;
  for (HeldOnPartition& on : held_keys(session, place.topic, args.group.group, place.partitions)) {
    for (HeldKey& key : on.held.keys) {
      all[{on.partition, key.whose}] = std::move(key);
    }
  }
  return all;
}

const HeldKey& held_of(const HeldByPlace& held, Partition partition, const DeadLetter& letter) {
  static const HeldKey none;
  const auto found = held.find({partition, letter.whose});
  return found == held.end() ? none : found->second;
}

namespace {

constexpr std::uint64_t keys_shown = 20;
constexpr std::uint64_t letters_shown = 20;
constexpr std::uint64_t shown_max = 1'000'000;

std::string counted(std::uint64_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", format_count(count), count == 1 ? one : many);
}
}  // namespace

std::string keys_text(std::uint64_t count) {
  return counted(count, "key", "keys");
}
std::string letters_text(std::uint64_t count) {
  return counted(count, "dead letter", "dead letters");
}

namespace {

// --- ls, show, export

int list(const Context& context, DeadArguments& args) {
  const auto session = connect(context, redis::Needs::Access::read);
  const GroupPlace place = find_group(*session, args.group);
  args.selection.partitions = place.partitions;
  show_summary(context, *session, place.topic, {args.group.group}, args.selection, args.last);
  return 0;
}

int show(const Context& context, DeadArguments& args) {
  const auto session = connect(context, redis::Needs::Access::read);
  const GroupPlace place = find_group(*session, args.group);
  args.selection.partitions = place.partitions;
  const HeldByPlace held = held_by_place(*session, place, args);
  Output out;
  std::uint64_t shown = 0;
  const std::uint64_t matched =
      for_each_letter(*session, place.topic, args.group.group, args.selection,
                      [&](Partition partition, const DeadLetter& letter) {
                        if (shown == args.last) {
                          return;
                        }
                        ++shown;
                        const HeldKey& key = held_of(held, partition, letter);
                        if (context.json) {
                          out.line(letter_json(place.topic.name, args.group.group, partition, letter, key));
                        } else {
                          print_letter(out, partition, letter, key);
                        }
                      });
  out.flush();
  if (matched == 0) {
    say(context,
        fmt::format("group {} of topic {} has no such dead letters", args.group.group, place.topic.name));
  } else if (matched > shown) {
    say(context, fmt::format("and {} more: --last shows more of them, `continuum dead export` all",
                             format_count(matched - shown)));
  }
  return 0;
}

int export_letters(const Context& context, DeadArguments& args) {
  const auto session = connect(context, redis::Needs::Access::read);
  const GroupPlace place = find_group(*session, args.group);
  args.selection.partitions = place.partitions;
  const HeldByPlace held = held_by_place(*session, place, args);
  Output out;
  std::optional<ExportFile> file;
  if (args.output) {
    file.emplace(*args.output);
  }
  const std::uint64_t matched =
      for_each_letter(*session, place.topic, args.group.group, args.selection,
                      [&](Partition partition, const DeadLetter& letter) {
                        const std::string line = letter_json(place.topic.name, args.group.group, partition,
                                                             letter, held_of(held, partition, letter));
                        if (file) {
                          file->line(line);
                        } else {
                          out.line(line);
                        }
                      });
  out.flush();
  if (file) {
    file->finish();
    say(context, fmt::format("{} written to {}", letters_text(matched), *args.output));
  }
  return 0;
}

// --- options

void add_selection(CLI::App& command, const std::shared_ptr<DeadArguments>& args) {
  add_group_options(command, args->group);
  add_partition_option(command, args->group);
  add_text(command, "--handler", "NAME", args->selection.handler, "only of this handler");
  add_text(command, "-k,--key", "KEY", args->selection.key, "only of this key");
  add_text(command, "--id", "ID", args->selection.event_id, "only of the event with this id");
  add_text(command, "--reason", "GLOB", args->selection.reason,
           "only events that failed for a reason that matches");
}

template <class Body>
CLI::App& add_dead(CLI::App& command, Context& context, const std::string& name, const std::string& summary,
                   const std::shared_ptr<DeadArguments>& args, Body body) {
  CLI::App& subcommand = add_subcommand(command, name, summary);
  add_selection(subcommand, args);
  run_with(subcommand, context, [&context, args, body] { return body(context, *args); });
  return subcommand;
}

}  // namespace

void add_dead(CLI::App& command, Context& context) {
  const auto listed = std::make_shared<DeadArguments>();
  listed->last = keys_shown;
  auto& ls = add_dead(command, context, "ls", "how many there are, by reason and by key", listed, list);
  add_number(ls, "-n,--last", listed->last, {0, shown_max}, "at most so many keys (20)");

  const auto shown = std::make_shared<DeadArguments>();
  shown->last = letters_shown;
  auto& show_command = add_dead(command, context, "show", "the events, with what went wrong", shown, show);
  add_number(show_command, "-n,--last", shown->last, {0, shown_max}, "at most so many (20)");

  const auto tried = std::make_shared<DeadArguments>();
  auto& retry_command = add_dead(command, context, "retry",
                                 "have them handled again, in the order of their keys", tried, retry);
  add_change_options(retry_command, tried->group);
  add_flag(retry_command, "--no-wait", tried->no_wait, "ask, and do not wait for the worker");
  add_duration(retry_command, "--timeout", tried->timeout, "how long to wait for the worker (10m)");

  const auto gone = std::make_shared<DeadArguments>();
  auto& discard_command =
      add_dead(command, context, "discard", "take them away without handling them", gone, discard);
  add_change_options(discard_command, gone->group);
  add_yes_option(discard_command, gone->group);
  add_text(discard_command, "--export", "FILE", gone->output, "keep them in this new file");
  add_flag(discard_command, "--no-export", gone->no_export, "keep them nowhere");
  add_duration(discard_command, "--timeout", gone->timeout, "how long to wait for the worker (10m)");

  const auto exported = std::make_shared<DeadArguments>();
  auto& export_command =
      add_dead(command, context, "export", "all of them as JSON lines", exported, export_letters);
  add_text(export_command, "-o,--output", "FILE", exported->output, "into this new file instead of stdout");
}

}  // namespace continuum::app
