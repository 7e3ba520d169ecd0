// continuum work: hand the events of a topic to a handler, or print them.
#include "continuum/worker.hpp"

#include "commands.hpp"
#include "handler_options.hpp"
#include "operator.hpp"
#include "options.hpp"
#include "output.hpp"
#include "selectors.hpp"
#include "signals.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/group_seek.hpp"
#include "continuum/handler_file.hpp"
#include "continuum/names.hpp"
#include "continuum/service_notify.hpp"
#include "continuum/topic.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <memory>

namespace continuum::app {
namespace {

// Where a new group begins.
struct From {
  std::string end_of_log;        // start or end
  std::optional<Moment> moment;  // or a time
};

From parse_from(const std::string& text) {
  if (text == "start" || text == "end") {
    return {text, std::nullopt};
  }
  return {{}, parse_moment(text)};
}

// As register_group() takes it.
std::optional<std::string> policy_of(const std::optional<From>& from,
                                     const std::optional<SystemTime>& since) {
  if (!from) {
    return std::nullopt;
  }
  return since ? fmt::format("since {}", since->time_since_epoch().count()) : from->end_of_log;
}

struct Arguments {
  std::string topic;
  std::optional<std::string> group;
  std::optional<std::string> partitions;
  std::optional<From> from;
  WorkOptions work;
  bool drain = false;
  bool no_wait = false;
  HandlerArguments handlers;
  std::optional<std::string> printing;  // as it was given
  std::optional<std::string> emit;      // the topic
  bool create = false;
  Milliseconds retry_for{3'600'000};
};

Printing parse_printing(const std::string& text) {
  if (text == "event" || text == "data") {
    return text == "event" ? Printing::event : Printing::data;
  }
  fail(ErrorKind::usage, "give event (whole events) or data (only what was published)");
}

void complete(Arguments& args, const Context& context) {
  auto& work = args.work;
  work.ending = args.drain ? Ending::drained : Ending::never;
  work.standby = args.no_wait ? Standby::refuse : Standby::wait;
  work.who = this_process();
  work.say = [&context](const std::string& text) { say(context, text); };
  const auto variable = [](const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  work.notify_socket = variable("NOTIFY_SOCKET");
  work.watchdog_every = watchdog_interval(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), ::getpid());
  work.environment = environment_of_process();
  work.dispatch = args.handlers.dispatch;
  auto& handler = args.handlers.handler;
  if (!handler.command.empty() && args.handlers.directory) {
    fail(ErrorKind::usage, "give --handlers or a command after --, not both");
  }
  if (args.handlers.directory && !work.types.empty()) {
    fail(ErrorKind::usage, "--type is not for --handlers: each handler's file says its types");
  }
  if (args.handlers.about_it && handler.command.empty()) {
    fail(ErrorKind::usage,
         "--mode, --attempts, --backoff, --timeout, --on-failure, --rate and --concurrency are about a "
         "handler: give "
         "its command after --{}",
         args.handlers.directory ? ", or write them into its file" : "");
  }
  work.handlers_directory = args.handlers.directory.value_or("");
  if (!handler.command.empty()) {
    handler.name = command_line_handler;
    handler.types = work.types;
    work.handlers = {handler};
  }
  if (args.emit && !work.handles()) {
    fail(ErrorKind::usage,
         "--emit is about what handlers give out: give a handler's command after --, or --handlers");
  }
  WrapOptions emitted;
  emitted.key = work.emit.key;
  emitted.type = work.emit.type;
  require_valid(emitted);
  if (!args.emit && (work.emit.key || work.emit.type || args.create)) {
    fail(ErrorKind::usage, "--emit-key, --emit-type and --create are about --emit TOPIC: give that too");
  }
  if (work.lease < Milliseconds(100)) {
    fail(ErrorKind::usage, "--lease must be at least 100ms");
  }
  if (work.trim_every < Milliseconds(100)) {
    fail(ErrorKind::usage, "--trim-every must be at least 100ms");
  }
}

int finish(const Context& context, const Arguments& args, const WorkSummary& summary) {
  if (summary.output_closed) {
    throw OutputClosed();
  }
  if (context.json && args.work.handles()) {
    const auto list = [](const std::vector<Partition>& partitions) {
      std::vector<std::string> numbers;
      for (const Partition partition : partitions) {
        numbers.push_back(fmt::to_string(partition.value));
      }
      return json_array(numbers);
    };
    JsonObject totals;
    totals.add("handled", summary.handled)
        .add("failed", summary.failed)
        .add_raw("halted", list(summary.halted))
        .add_raw("waiting", list(summary.waiting));
    Output().line(JsonObject().add_raw("summary", totals.text()).text()).flush();
  }
  say_more(context, fmt::format("{} events handled", format_count(summary.handled)));
  if (summary.stopped_at_once) {
    return static_cast<int>(ErrorKind::interrupted);
  }
  if (summary.damaged > 0) {
    return static_cast<int>(ErrorKind::loss);
  }
  if (summary.unarchived > 0) {
    say(context,
        fmt::format("the disk of the archive took nothing at the end: of {} partition{} the last events "
                    "stay in the log, and are archived by the next run",
                    summary.unarchived, summary.unarchived == 1 ? "" : "s"));
    // Who was told to stop did what was asked; a run that ends by itself was to archive what there was.
    if (!summary.stopped) {
      return static_cast<int>(ErrorKind::server);
    }
  }
  return summary.halted.empty() && summary.waiting.empty() && summary.failed == 0
             ? 0
             : static_cast<int>(ErrorKind::partial);
}

// An archive has all events, in a group of its own from the start of the log.
void complete_archive(Arguments& args) {
  auto& work = args.work;
  if (!work.archive) {
    if (args.group == archive_group) {
      fail(ErrorKind::usage, "the group {} is that of the archive: give --archive DIR, or another group",
           archive_group);
    }
    return;
  }
  if (args.group && args.group != archive_group) {
    fail(ErrorKind::usage, "--archive has a group of its own, {}: leave -g away", archive_group);
  }
  if (!args.handlers.handler.command.empty() || args.handlers.directory || args.emit || args.from ||
      args.printing || !work.types.empty() || work.events_max) {
    fail(ErrorKind::usage,
         "--archive takes all events as they are: it does not go with a handler, --emit, --from, --type, "
         "--print or "
         "--max-events");
  }
  args.group = std::string(archive_group);
  work.group = *args.group;
  args.from = From{"start", std::nullopt};
}

// A group that begins at a time whose events are gone begins with what is kept.
void warn_of_cut(const Context& context, redis::Session& session, const Topic& topic, SystemTime from) {
  const std::vector<Partition> cut = cut_since(session, topic, topic.partitions(), from);
  if (!cut.empty()) {
    say(context,
        fmt::format("topic {}: events from {} on may have been removed from {}: the group begins there "
                    "with the oldest that is kept",
                    topic.name, format_time(from), partition_text(cut)));
  }
}

// Somebody lost what the group had handled: that is told where there is somebody to read it.
void say_begun_anew(const Context& context, const Topic& topic, std::string_view group,
                    const std::map<Partition, Offset>& begun) {
  if (begun.empty()) {
    return;
  }
  const auto& [partition, offset] = *begun.begin();
  say(context,
      fmt::format("{}, group {}: its state was gone: was {} deleted or evicted? It begins anew there, as "
                  "it was registered: at offset {}{}",
                  place(topic.name, partition), group, group_key(topic.name, partition, group), offset,
                  begun.size() == 1 ? std::string()
                                    : fmt::format(". Likewise on {} more partitions", begun.size() - 1)));
}

int run_work(const Context& context, Arguments args) {
  complete_archive(args);
  if (!args.group) {
    fail(ErrorKind::usage, "which group? Give -g NAME: it remembers what was handled");
  }
  complete(args, context);
  // Inherited from who started us, it would hide how handlers end.
  std::signal(SIGCHLD, SIG_DFL);
  const auto hang_up = args.handlers.directory ? HangUp::rereads : HangUp::stops;
  let_requests_pass(hang_up);

  redis::ClientOptions client;
  client.needs.access = redis::Needs::Access::write;
  client.retry_for = args.retry_for;
  const auto session = connect(context, client);
  Topic topic = load_topic(*session, args.topic);
  args.work.sharing = args.partitions ? Sharing::pinned : Sharing::shared;
  args.work.coverage = args.partitions.value_or("all") == "all" ? Coverage::all : Coverage::named;
  args.work.partitions = parse_partitions_of(topic, args.partitions.value_or("all"));
  if (args.emit) {
    args.work.emit_to = topic_to_write_to(context, *session, *args.emit,
                                          args.create ? MissingTopic::create : MissingTopic::refuse);
  }
  const bool is_new = !topic.groups.contains(args.work.group);
  std::optional<SystemTime> since;
  if (args.from && args.from->moment) {
    since = resolve(*args.from->moment, *session);
  }
  say_begun_anew(context, topic, args.work.group,
                 register_group(*session, topic, args.work.group, policy_of(args.from, since)));
  if (is_new && since) {
    warn_of_cut(context, *session, topic, *since);
  }
  warn_of_loss(context, *session);
  args.work.requests_fd = request_descriptor(hang_up);
  return finish(context, args, work(*session, topic, args.work));
}

void add_handler_options(CLI::App& command, const std::shared_ptr<Arguments>& args) {
  add_handler_options(command, args->handlers);
  add_parsed(command, "--rate", "N/s", "at most so many events a second (or N/m, N/h) on each partition",
             [args](const std::string& text) {
               args->handlers.about_it = true;
               args->handlers.handler.rate_per_second = parse_rate(text);
             });
  add_number(command, "--held-max", args->work.held_events_max, {1, number_max},
             "how many dead letters and events behind them a partition may have before it waits (100000)");
  command.add_option("CMD", args->handlers.handler.command,
                     "the handler and its arguments, behind --; none: events are printed");
}

void add_emit_options(CLI::App& command, const std::shared_ptr<Arguments>& args) {
  add_parsed(command, "--emit", "TOPIC",
             "what handlers give out becomes events of this topic, each exactly once (docs/handlers.md)",
             [args](const std::string& text) {
               require_name("topic", text);
               args->emit = text;
             });
  const auto selector = [&](const char* name, std::optional<Selector>& target, const char* help) {
    add_parsed(command, name, "FIELD|=LITERAL", help,
               [args, &target](const std::string& text) { target = Selector::parse(text); });
  };
  selector("--emit-key", args->work.emit.key,
           "the key of what is emitted: a field, a /json/pointer, or =literal (default: that of the event "
           "that was handled)");
  selector("--emit-type", args->work.emit.type, "likewise its type (default: that of the event)");
  add_flag(command, "--create", args->create, "create the topic of --emit if it does not exist");
}

}  // namespace

void add_work(CLI::App& command, Context& context) {
  auto args = std::make_shared<Arguments>();
  auto& work = args->work;
  add_topic_option(command, args->topic);
  add_parsed(command, "-g,--group", "NAME", "whose cursor moves; each group gets all events",
             [args](const std::string& text) {
               require_name("group", text);
               args->group = text;
               args->work.group = text;
             });
  add_text(command, "-p,--partition", "N|LIST|all", args->partitions,
           "work just these: 0, or 0,2,5-7, or all; without it the workers of a group share all of them");
  add_parsed(command, "--from", "WHERE", "where a new group begins: start, end, a duration back, or a time",
             [args](const std::string& text) { args->from = parse_from(text); });
  add_texts(command, "--type", "GLOB", work.types,
            "only events of these types; others count as done; may be repeated. Not with --handlers");
  add_handler_options(command, args);
  add_emit_options(command, args);
  add_parsed(command, "--print", "event|data", "without a handler: what is printed of each event (event)",
             [args](const std::string& text) {
               args->printing = text;
               args->work.printing = parse_printing(text);
             });
  add_text(command, "--archive", "DIR", work.archive,
           "instead: keep all events in files below this directory (docs/operations.md)");
  add_flag(command, "--drain", args->drain, "end when everything that was there at the start is handled");
  add_number(command, "--max-events", work.events_max, {1, number_max}, "end after this many events");
  add_duration(command, "--max-time", work.time_max, "end after this time, when what runs is done");
  add_duration(command, "--lease", work.lease, "how long a silent worker keeps its partitions (5s)");
  add_duration(command, "--trim-every", work.trim_every,
               "how often logs are trimmed, if the topic has a retention (10s)");
  add_duration(command, "--drain-timeout", work.drain_within,
               "after a first SIGTERM, how long what runs may take before it is killed (30s)");
  add_flag(command, "--no-wait", args->no_wait,
           "do not stand by: exit 5 when another worker has a partition, or no share is left");
  add_duration(command, "--retry-for", args->retry_for,
               "how long to wait for a server that went away (default 1h)");
  run_with(command, context, [args, &context] { return run_work(context, *args); });
}

}  // namespace continuum::app
