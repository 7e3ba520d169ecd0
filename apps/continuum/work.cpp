// continuum work: hand the events of a topic to a handler, or print them.
#include "continuum/worker.hpp"

#include "commands.hpp"
#include "options.hpp"
#include "output.hpp"
#include "selectors.hpp"
#include "signals.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/names.hpp"
#include "continuum/topic.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
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
  bool handler_option = false;  // one that makes sense only with a handler
  Milliseconds retry_for{3'600'000};
};

// 100ms..30s
void parse_backoff(const std::string& text, WorkOptions& options) {
  const auto dots = text.find("..");
  if (dots == std::string::npos) {
    fail(ErrorKind::usage, "give the first and the longest pause, such as 100ms..30s");
  }
  options.backoff_min = parse_duration(std::string_view(text).substr(0, dots));
  options.backoff_max = parse_duration(std::string_view(text).substr(dots + 2));
  if (options.backoff_min < Milliseconds(1) || options.backoff_max < options.backoff_min) {
    fail(ErrorKind::usage, "the first pause must be at least 1ms and not longer than the longest");
  }
}

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

Printing parse_printing(const std::string& text) {
  if (text == "event" || text == "data") {
    return text == "event" ? Printing::event : Printing::data;
  }
  fail(ErrorKind::usage, "give event (whole events) or data (only what was published)");
}

std::string this_worker() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) {
    host[0] = '\0';
  }
  return fmt::format("{}:{}", host.data(), ::getpid());
}

void complete(Arguments& args, const Context& context) {
  auto& work = args.work;
  work.ending = args.drain ? Ending::drained : Ending::never;
  work.standby = args.no_wait ? Standby::refuse : Standby::wait;
  work.who = this_worker();
  work.say = [&context](const std::string& text) { say(context, text); };
  for (char** entry = environ; *entry != nullptr; ++entry) {
    work.environment.emplace_back(*entry);
  }
  if (args.handler_option && work.command.empty()) {
    fail(ErrorKind::usage,
         "--mode, --attempts, --backoff, --timeout and --concurrency are about a handler: give its command "
         "after --");
  }
  if (work.lease < Milliseconds(100)) {
    fail(ErrorKind::usage, "--lease must be at least 100ms");
  }
  if (work.mode == HandlerMode::stream && work.concurrency > 1) {
    fail(ErrorKind::usage,
         "--concurrency is for --mode exec: a stream handler gets events of many keys by itself");
  }
}

int finish(const Context& context, const Arguments& args, const WorkSummary& summary) {
  if (summary.output_closed) {
    throw OutputClosed();
  }
  if (context.json && !args.work.command.empty()) {
    std::vector<std::string> halted;
    for (const auto partition : summary.halted) {
      halted.push_back(fmt::to_string(partition.value));
    }
    JsonObject totals;
    totals.add("handled", summary.handled).add_raw("halted", json_array(halted));
    Output().line(JsonObject().add_raw("summary", totals.text()).text()).flush();
  }
  say_more(context, fmt::format("{} events handled", format_count(summary.handled)));
  if (summary.stopped_at_once) {
    return static_cast<int>(ErrorKind::interrupted);
  }
  return summary.halted.empty() ? 0 : static_cast<int>(ErrorKind::partial);
}

int run_work(const Context& context, Arguments args) {
  if (!args.group) {
    fail(ErrorKind::usage, "which group? Give -g NAME: it remembers what was handled");
  }
  complete(args, context);
  // Inherited from who started us, it would hide how handlers end.
  std::signal(SIGCHLD, SIG_DFL);

  redis::ClientOptions client;
  client.needs.access = redis::Needs::Access::write;
  client.retry_for = args.retry_for;
  const auto session = connect(context, client);
  Topic topic = load_topic(*session, args.topic);
  args.work.sharing = args.partitions ? Sharing::pinned : Sharing::shared;
  args.work.partitions = parse_partitions_of(topic, args.partitions.value_or("all"));
  register_group(*session, topic, args.work.group, policy_of(args.from, *session));
  warn_of_loss(context, *session);
  args.work.stop_fd = stop_descriptor();
  return finish(context, args, work(*session, topic, args.work));
}

void add_handler_options(CLI::App& command, const std::shared_ptr<Arguments>& args) {
  auto& work = args->work;
  const auto parsed = [&](const std::string& name, const std::string& placeholder, const std::string& help,
                          auto parse) {
    add_parsed(command, name, placeholder, help, [args, parse](const std::string& text) {
      args->handler_option = true;
      parse(args->work, text);
    });
  };
  parsed("--mode", "exec|stream",
         "a process per event, or one process with events in and verdicts out as lines (exec)",
         [](WorkOptions& o, const std::string& text) { o.mode = parse_mode(text); });
  parsed("--attempts", "N", "how often an event is tried before its partition halts (5)",
         [](WorkOptions& o, const std::string& text) {
           o.attempts_max = static_cast<std::uint32_t>(parse_number(text, 1, 1'000'000));
         });
  parsed("--backoff", "A..B", "the pause before the second attempt, doubled up to the longest (100ms..30s)",
         [](WorkOptions& o, const std::string& text) { parse_backoff(text, o); });
  parsed("--timeout", "D",
         "kill a handler that takes longer for an event; that is an attempt (default: no limit)",
         [](WorkOptions& o, const std::string& text) {
           o.timeout = parse_duration(text);
           if (*o.timeout < Milliseconds(1)) {
             fail(ErrorKind::usage, "must be at least 1ms");
           }
         });
  parsed("--concurrency", "N", "processes at a time on each partition, of different keys (1; mode exec)",
         [](WorkOptions& o, const std::string& text) {
           o.concurrency = static_cast<std::uint32_t>(parse_number(text, 1, 1024));
         });
  command.add_option("CMD", work.command,
                     "the handler and its arguments, behind --; none: events are printed");
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
            "only events of these types; others count as done; may be repeated");
  add_handler_options(command, args);
  add_parsed(command, "--print", "event|data", "without a handler: what is printed of each event (event)",
             [args](const std::string& text) { args->work.printing = parse_printing(text); });
  add_flag(command, "--drain", args->drain, "end when everything that was there at the start is handled");
  add_number(command, "--max-events", work.events_max, {1, number_max}, "end after this many events");
  add_duration(command, "--max-time", work.time_max, "end after this time, when what runs is done");
  add_duration(command, "--lease", work.lease, "how long a silent worker keeps its partitions (5s)");
  add_flag(command, "--no-wait", args->no_wait,
           "do not stand by: exit 5 when another worker has a partition, or no share is left");
  add_duration(command, "--retry-for", args->retry_for,
               "how long to wait for a server that went away (default 1h)");
  run_with(command, context, [args, &context] { return run_work(context, *args); });
}

}  // namespace continuum::app
