// continuum work: hand the events of a topic to a handler, or print them.
#include "continuum/worker.hpp"

#include "commands.hpp"
#include "operator.hpp"
#include "options.hpp"
#include "output.hpp"
#include "selectors.hpp"
#include "signals.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
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

extern char** environ;

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
std::optional<std::string> policy_of(const std::optional<From>& from, redis::Session& session) {
  if (!from) {
    return std::nullopt;
  }
  return from->moment ? fmt::format("since {}", resolve(*from->moment, session).time_since_epoch().count())
                      : from->end_of_log;
}

struct Arguments {
  std::string topic;
  std::optional<std::string> group;
  std::optional<std::string> partitions;
  std::optional<From> from;
  WorkOptions work;
  bool drain = false;
  bool no_wait = false;
  HandlerSpec handler;                  // of the command behind --
  bool handler_option = false;          // one that makes sense only with it
  std::optional<std::string> handlers;  // their directory
  std::optional<std::string> printing;  // as it was given
  std::optional<std::string> emit;      // the topic
  bool create = false;
  Milliseconds retry_for{3'600'000};
};

HandlerMode parse_mode(const std::string& text) {
  if (text == "exec") {
    return HandlerMode::exec;
  }
  if (text == "stream") {
    return HandlerMode::stream;
  }
  fail(ErrorKind::usage,
       "give exec (a process per event) or stream (one process, events in and verdicts out as lines)");
}

OnFailure parse_on_failure(const std::string& text) {
  for (const OnFailure value : {OnFailure::hold_key, OnFailure::skip, OnFailure::halt}) {
    if (text == name_of(value)) {
      return value;
    }
  }
  fail(ErrorKind::usage,
       "give hold-key (later events of its key wait), skip (its key goes on) or halt (the partition waits "
       "for you)");
}

Dispatch parse_dispatch(const std::string& text) {
  if (text == "sequence" || text == "parallel") {
    return text == "sequence" ? Dispatch::sequence : Dispatch::parallel;
  }
  fail(ErrorKind::usage, "give sequence (one handler after the other, by name) or parallel");
}

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
  for (char** entry = environ; *entry != nullptr; ++entry) {
    work.environment.emplace_back(*entry);
  }
  auto& handler = args.handler;
  if (!handler.command.empty() && args.handlers) {
    fail(ErrorKind::usage, "give --handlers or a command after --, not both");
  }
  if (args.handlers && !work.types.empty()) {
    fail(ErrorKind::usage, "--type is not for --handlers: each handler's file says its types");
  }
  if (args.handler_option && handler.command.empty()) {
    fail(ErrorKind::usage,
         "--mode, --attempts, --backoff, --timeout, --on-failure, --rate and --concurrency are about a "
         "handler: give "
         "its command after --{}",
         args.handlers ? ", or write them into its file" : "");
  }
  work.handlers_directory = args.handlers.value_or("");
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
}

int finish(const Context& context, const Arguments& args, const WorkSummary& summary) {
  if (summary.output_closed) {
    throw OutputClosed();
  }
  if (context.json && args.work.handles()) {
    std::vector<std::string> halted;
    for (const auto partition : summary.halted) {
      halted.push_back(fmt::to_string(partition.value));
    }
    JsonObject totals;
    totals.add("handled", summary.handled)
        .add("failed", summary.failed)
        .add_raw("halted", json_array(halted));
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
    return static_cast<int>(ErrorKind::server);
  }
  return summary.halted.empty() && summary.failed == 0 ? 0 : static_cast<int>(ErrorKind::partial);
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
  if (!args.handler.command.empty() || args.handlers || args.emit || args.from || args.printing ||
      !work.types.empty() || work.events_max) {
    fail(ErrorKind::usage,
         "--archive takes all events as they are: it does not go with a handler, --emit, --from, --type, "
         "--print or "
         "--max-events");
  }
  args.group = std::string(archive_group);
  work.group = *args.group;
  args.from = From{"start", std::nullopt};
}

int run_work(const Context& context, Arguments args) {
  complete_archive(args);
  if (!args.group) {
    fail(ErrorKind::usage, "which group? Give -g NAME: it remembers what was handled");
  }
  complete(args, context);
  // Inherited from who started us, it would hide how handlers end.
  std::signal(SIGCHLD, SIG_DFL);
  const auto hang_up = args.handlers ? HangUp::rereads : HangUp::stops;
  let_requests_pass(hang_up);

  redis::ClientOptions client;
  client.needs.access = redis::Needs::Access::write;
  client.retry_for = args.retry_for;
  const auto session = connect(context, client);
  Topic topic = load_topic(*session, args.topic);
  args.work.sharing = args.partitions ? Sharing::pinned : Sharing::shared;
  args.work.partitions = parse_partitions_of(topic, args.partitions.value_or("all"));
  if (args.emit) {
    args.work.emit_to = topic_to_write_to(context, *session, *args.emit,
                                          args.create ? MissingTopic::create : MissingTopic::refuse);
  }
  register_group(*session, topic, args.work.group, policy_of(args.from, *session));
  warn_of_loss(context, *session);
  args.work.requests_fd = request_descriptor(hang_up);
  return finish(context, args, work(*session, topic, args.work));
}

void add_handler_options(CLI::App& command, const std::shared_ptr<Arguments>& args) {
  const auto parsed = [&](const std::string& name, const std::string& placeholder, const std::string& help,
                          auto parse) {
    add_parsed(command, name, placeholder, help, [args, parse](const std::string& text) {
      args->handler_option = true;
      parse(args->handler, text);
    });
  };
  parsed("--mode", "exec|stream",
         "a process per event, or one process with events in and verdicts out as lines (exec)",
         [](HandlerSpec& o, const std::string& text) { o.mode = parse_mode(text); });
  parsed("--attempts", "N", "how often an event is tried before it is given up (5)",
         [](HandlerSpec& o, const std::string& text) {
           o.attempts_max = static_cast<std::uint32_t>(parse_number(text, 1, 1'000'000));
         });
  parsed("--backoff", "A..B", "the pause before the second attempt, doubled up to the longest (100ms..30s)",
         [](HandlerSpec& o, const std::string& text) {
           const Backoff backoff = parse_backoff(text);
           o.backoff_min = backoff.min;
           o.backoff_max = backoff.max;
         });
  parsed("--timeout", "D",
         "kill a handler that takes longer for an event; that is an attempt (default: no limit)",
         [](HandlerSpec& o, const std::string& text) {
           o.timeout = parse_duration(text);
           if (*o.timeout < Milliseconds(1)) {
             fail(ErrorKind::usage, "must be at least 1ms");
           }
         });
  parsed("--concurrency", "N", "processes at a time on each partition, of different keys (1)",
         [](HandlerSpec& o, const std::string& text) {
           o.concurrency = static_cast<std::uint32_t>(parse_number(text, 1, 1024));
         });
  parsed("--on-failure", "hold-key|skip|halt",
         "what an event that is given up does: holds its key, is skipped, or halts its partition (hold-key)",
         [](HandlerSpec& o, const std::string& text) { o.on_failure = parse_on_failure(text); });
  parsed("--rate", "N/s", "at most so many events a second (or N/m, N/h) on each partition",
         [](HandlerSpec& o, const std::string& text) { o.rate_per_second = parse_rate(text); });
  add_text(command, "--handlers", "DIR", args->handlers,
           "the handlers, one TOML file each (docs/handlers.md), taken up while running");
  add_parsed(command, "--dispatch", "sequence|parallel",
             "whether the handlers of one event get it one after the other, or at once (sequence)",
             [args](const std::string& text) { args->work.dispatch = parse_dispatch(text); });
  add_number(command, "--held-max", args->work.held_events_max, {1, number_max},
             "how many dead letters and events behind them a partition may have before it waits (100000)");
  command.add_option("CMD", args->handler.command,
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
  add_duration(command, "--drain-timeout", work.drain_within,
               "after a first SIGTERM, how long what runs may take before it is killed (30s)");
  add_flag(command, "--no-wait", args->no_wait,
           "do not stand by: exit 5 when another worker has a partition, or no share is left");
  add_duration(command, "--retry-for", args->retry_for,
               "how long to wait for a server that went away (default 1h)");
  run_with(command, context, [args, &context] { return run_work(context, *args); });
}

}  // namespace continuum::app
