// continuum archive: what is in an archive on disk, whether it is whole, and mending what can be made anew,
// without asking a server; and putting it back into one.
#include "continuum/archive_check.hpp"
#include "continuum/archive_restore.hpp"

#include "commands.hpp"
#include "options.hpp"
#include "output.hpp"
#include "selectors.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <memory>

namespace continuum::app {
namespace {

struct Options {
  std::string directory;
  std::optional<std::string> topic;
  std::vector<Partition> partitions;
  bool yes = false;
};

ArchiveCheckOptions chosen(const Options& options) {
  ArchiveCheckOptions out;
  if (options.topic) {
    out.topics.push_back(*options.topic);
  }
  out.partitions = options.partitions;
  return out;
}

std::optional<std::string> text_of(const std::optional<SystemTime>& time) {
  return time ? std::optional(format_time(*time)) : std::nullopt;
}

// --- ls

int list(const Context& context, const Options& options) {
  Output out;
  Table table({{"TOPIC"},
               {"PARTITION", Table::Align::right},
               {"FIRST", Table::Align::right},
               {"LAST", Table::Align::right},
               {"EVENTS", Table::Align::right},
               {"FROM"},
               {"TO"},
               {"BYTES", Table::Align::right}});
  for (const auto& segment : list_archive(options.directory, chosen(options))) {
    if (context.json) {
      out.line(JsonObject()
                   .add("topic", segment.topic)
                   .add("partition", segment.partition)
                   .add("path", segment.path)
                   .add("first", segment.first)
                   .add("next", segment.next)
                   .add("events", segment.events())
                   .add("first_time", text_of(segment.first_time))
                   .add("last_time", text_of(segment.last_time))
                   .add("bytes", segment.bytes)
                   .add("index_bytes", segment.index_bytes)
                   .text());
      continue;
    }
    const bool any = segment.events() > 0;
    table.row({segment.topic, fmt::format("{}", segment.partition), fmt::format("{}", segment.first),
               any ? std::to_string(segment.next.value - 1) : std::string(), segment.events(),
               text_of(segment.first_time).value_or(""), text_of(segment.last_time).value_or(""),
               format_bytes(segment.bytes)});
  }
  if (!context.json) {
    table.print(out);
  }
  out.flush();
  return 0;
}

// --- verify

std::string range_of(const ArchiveProblem& problem) {
  if (!problem.from) {
    return {};
  }
  if (!problem.to) {
    return fmt::format("{}-", *problem.from);
  }
  return *problem.to == *problem.from ? std::string("none")
                                      : fmt::format("{}-{}", *problem.from, problem.to->value - 1);
}

std::string json_of(const ArchiveProblem& problem) {
  return JsonObject()
      .add("kind", name_of(problem.kind))
      .add("topic", problem.topic)
      .add("partition", problem.partition)
      .add("path", problem.path)
      .add("from", problem.from)
      .add("to", problem.to)
      .add("byte", problem.position)
      .add("what", problem.what)
      .text();
}

int verify(const Context& context, const Options& options) {
  Output out;
  auto check_options = chosen(options);
  Progress progress("verify", bytes_to_verify(options.directory, check_options),
                    context.quiet ? Progress::Show::never : Progress::Show::automatic);
  Table table({{"KIND"},
               {"TOPIC"},
               {"PARTITION", Table::Align::right},
               {"OFFSETS"},
               {"BYTE", Table::Align::right},
               {"FILE"},
               {"WHAT"}});
  std::uint64_t problems = 0;
  check_options.on_progress = [&](std::uint64_t bytes) { progress.update(bytes); };
  check_options.on_problem = [&](const ArchiveProblem& problem) {
    ++problems;
    if (context.json) {
      out.line(json_of(problem));
      return;
    }
    table.row({name_of(problem.kind), problem.topic, fmt::format("{}", problem.partition), range_of(problem),
               fmt::format("{}", problem.position), problem.path.substr(problem.path.rfind('/') + 1),
               problem.what});
  };
  const auto totals = verify_archive(options.directory, check_options);
  progress.clear();
  if (context.json) {
    JsonObject summary;
    summary.add("partitions", totals.partitions).add("segments", totals.segments);
    summary.add("events", totals.events).add("bytes", totals.bytes).add("problems", problems);
    out.line(JsonObject().add_raw("summary", summary.text()).text());
  } else {
    if (!table.empty()) {
      table.print(out);
      out.line("");
    }
    out.line(fmt::format("{} events in {} segments of {} partitions, {}: {}", format_count(totals.events),
                         format_count(totals.segments), format_count(totals.partitions),
                         format_bytes(totals.bytes),
                         problems == 0 ? "every byte is right" : fmt::format("problems: {}", problems)));
  }
  out.flush();
  return problems == 0 ? 0 : static_cast<int>(ErrorKind::loss);
}

// --- repair

int repair(const Context& context, const Options& options) {
  const auto mode = options.yes ? RepairMode::act : RepairMode::dry_run;
  const auto list = repair_archive(options.directory, chosen(options), mode);
  Output out;
  Table table({{"TOPIC"}, {"PARTITION", Table::Align::right}, {"FILE"}, {"WHAT"}});
  for (const auto& repair : list) {
    if (context.json) {
      out.line(JsonObject()
                   .add("topic", repair.topic)
                   .add("partition", repair.partition)
                   .add("path", repair.path)
                   .add("what", repair.what)
                   .add("done", options.yes)
                   .text());
      continue;
    }
    table.row({repair.topic, fmt::format("{}", repair.partition),
               repair.path.substr(repair.path.rfind('/') + 1), repair.what});
  }
  if (!context.json && !table.empty()) {
    table.print(out);
  }
  out.flush();
  if (list.empty()) {
    say(context, "nothing to repair. Whether every event is whole, `continuum archive verify` says");
  } else if (!options.yes) {
    say(context, "nothing was changed: --yes does it");
  }
  return 0;
}

// --- restore

struct RestoreArguments {
  std::string directory;
  RestoreOptions restore;
  bool allow_missing = false;
  bool dry_run = false;
};

std::string json_of(const RestoreSummary& summary, RestoreMode mode) {
  std::vector<std::string> partitions;
  for (const auto& partition : summary.partitions) {
    partitions.push_back(JsonObject()
                             .add("partition", partition.partition)
                             .add("first", partition.first)
                             .add("next", partition.next)
                             .text());
  }
  JsonObject object;
  if (mode == RestoreMode::dry_run) {
    object.add("dry_run", true);
  }
  object.add("topic", summary.topic);
  if (!summary.log_id.empty()) {
    object.add("log", summary.log_id);
  }
  return object.add("generation", summary.active)
      .add("events", summary.events())
      .add_raw("partitions", json_array(partitions))
      .text();
}

constexpr Milliseconds restore_retry_for{60'000};

int restore(const Context& context, RestoreArguments arguments) {
  auto& options = arguments.restore;
  options.missing = arguments.allow_missing ? MissingPartitions::empty : MissingPartitions::refuse;
  options.mode = arguments.dry_run ? RestoreMode::dry_run : RestoreMode::act;
  const std::uint64_t total = events_to_restore(arguments.directory, options);
  redis::ClientOptions client;
  client.needs.access = arguments.dry_run ? redis::Needs::Access::read : redis::Needs::Access::write;
  client.retry_for = restore_retry_for;
  const auto session = connect(context, client);
  warn_of_loss(context, *session);
  Progress progress("restore", total, context.quiet ? Progress::Show::never : Progress::Show::automatic);
  options.on_progress = [&](std::uint64_t events) { progress.update(events); };
  const RestoreSummary summary = restore_archive(*session, arguments.directory, options);
  progress.clear();
  for (const auto& notice : summary.notices) {
    say(context, notice);
  }
  Output out;
  if (context.json) {
    out.line(json_of(summary, options.mode));
  } else if (arguments.dry_run) {
    out.line(fmt::format("would restore topic {}: {} events in {} partitions, generation {}", summary.topic,
                         format_count(summary.events()), summary.partitions.size(), summary.active));
  } else if (!context.quiet) {
    out.line(fmt::format("topic {} restored: {} events in {} partitions, generation {}", summary.topic,
                         format_count(summary.events()), summary.partitions.size(), summary.active));
  }
  out.flush();
  return 0;
}

void add_restore(CLI::App& command, Context& context) {
  CLI::App& sub = add_subcommand(command, "restore", "put a topic back into a server that does not have it");
  const auto arguments = std::make_shared<RestoreArguments>();
  auto& options = arguments->restore;
  sub.add_option("DIR", arguments->directory, "the archive: the directory given to work --archive")
      ->required();
  add_topic_option(sub, options.topic);
  add_parsed(sub, "--to", "NAME", "restore it under this name, as a topic of its own",
             [arguments](const std::string& text) {
               require_name("topic", text);
               arguments->restore.to = text;
             });
  add_flag(sub, "--allow-missing", arguments->allow_missing,
           "begin partitions without events when the archive has nothing of them");
  add_flag(sub, "-n,--dry-run", arguments->dry_run, "say what would be restored");
  run_with(sub, context, [&context, arguments] { return restore(context, *arguments); });
}

CLI::App& add(CLI::App& command, Context& context, const char* name, const char* summary,
              const std::shared_ptr<Options>& options, int (*run)(const Context&, const Options&)) {
  CLI::App& sub = add_subcommand(command, name, summary);
  sub.add_option("DIR", options->directory, "the archive: the directory given to work --archive")->required();
  add_text(sub, "-t,--topic", "NAME", options->topic, "this topic only");
  add_parsed(sub, "-p,--partition", "N|LIST", "these partitions only: 0,2,5-7",
             [options](const std::string& text) { options->partitions = parse_partition_list(text); });
  run_with(sub, context, [&context, options, run] { return run(context, *options); });
  return sub;
}

}  // namespace

void add_archive(CLI::App& command, Context& context) {
  const auto options = std::make_shared<Options>();
  add(command, context, "verify", "read every byte; damage is exit 4", options, verify);
  add(command, context, "ls", "its segments: offsets, times, sizes", options, list);
  CLI::App& sub = add(command, context, "repair", "make indexes anew, cut torn ends; shows what it would do",
                      options, repair);
  add_flag(sub, "-y,--yes", options->yes, "do it");
  add_restore(command, context);
}

}  // namespace continuum::app
