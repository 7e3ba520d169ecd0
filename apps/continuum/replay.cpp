// continuum replay: stored events again, in append order, on stdout.
#include "continuum/replay.hpp"

#include "commands.hpp"
#include "options.hpp"
#include "output.hpp"
#include "selectors.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <chrono>

namespace continuum::app {
namespace {

struct Options {
  std::string topic;
  TimeRange time;
  std::optional<std::string> time_range;  // @FROM:TO
  std::vector<std::string> where;
  std::optional<std::uint64_t> from_offset;
  std::optional<std::uint64_t> to_offset;
  std::optional<std::string> print;
  bool meta = false;
  bool fail_if_empty = false;
  ReplayOptions replay;
};

EventForm form_of(const Options& options) {
  if (!options.print || *options.print == "event") {
    return options.meta ? EventForm::with_place : EventForm::stored;
  }
  if (*options.print != "data") {
    fail(ErrorKind::usage, "--print takes event or data");
  }
  if (options.meta) {
    fail(ErrorKind::usage, "--meta adds to the event: it does not go with --print data");
  }
  return EventForm::data;
}

RangeOptions::By parse_by(const std::string& text) {
  if (text == "append-time") {
    return RangeOptions::By::append_time;
  }
  if (text == "event-time") {
    return RangeOptions::By::event_time;
  }
  fail(ErrorKind::usage, "give append-time or event-time");
}

void take_selectors(Options& options) {
  for (const std::string& text : options.where) {
    try {
      options.replay.filter.where.push_back(Where::parse(text));
    } catch (const Error& error) {
      fail(error.kind(), "--where {}: {}", printable(text), error.message());
    }
  }
  if (options.time_range) {
    if (options.time.since || options.time.until) {
      fail(ErrorKind::usage, "give the time once: @FROM:TO, or --since and --until");
    }
    if (!options.time_range->starts_with('@')) {
      fail(ErrorKind::usage, "{}: a range of time begins with @, such as @2h:1h", *options.time_range);
    }
    options.time = parse_time_range(*options.time_range);
  }
  if (options.from_offset) {
    options.replay.range.from = Offset(*options.from_offset);
  }
  if (options.to_offset) {
    options.replay.range.to = Offset(*options.to_offset);
  }
}

int replay(const Context& context, Options options) {
  const EventForm form = form_of(options);
  take_selectors(options);
  const auto session = connect(context, redis::Needs::Access::read);
  resolve(options.time, *session, options.replay.range);
  const Topic topic = load_topic(*session, options.topic);
  const auto started = std::chrono::steady_clock::now();
  Replay replay(*session, topic, options.replay);

  const bool shows_progress = !context.quiet && !is_terminal(Stream::out);
  Progress progress("replay", replay.events_in_range(),
                    shows_progress ? Progress::Show::automatic : Progress::Show::never);
  Output out;
  std::string text;
  try {
    while (const auto run = replay.next()) {
      if (form == EventForm::stored) {
        out.write(run->lines);
      } else {
        text.clear();
        append_events(text, *run, form);
        out.write(text);
      }
      progress.update(replay.events_passed());
    }
  } catch (const Error&) {
    // What came before the damage is whole, and was asked for.
    progress.clear();
    out.flush();
    throw;
  }
  out.flush();
  progress.clear();
  if (context.verbose || (shows_progress && is_terminal(Stream::err))) {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
    say(context, fmt::format("replayed {} of {} events in {:.1f} s", format_count(replay.events_matched()),
                             format_count(replay.events_in_range()), took.count()));
  }
  if (options.fail_if_empty && replay.events_matched() == 0) {
    say(context, fmt::format("topic {}: no event in the range matches", topic.name));
    return static_cast<int>(ErrorKind::partial);
  }
  return 0;
}

}  // namespace

void add_replay(CLI::App& command, Context& context) {
  const auto options = std::make_shared<Options>();
  add_topic_option(command, options->topic);
  add_parsed(command, "--since", "TIME", "events stored from then on: a time, or how long ago (2h)",
             [options](const std::string& text) { options->time.since = parse_moment(text); });
  add_parsed(command, "--until", "TIME", "events stored before then",
             [options](const std::string& text) { options->time.until = parse_moment(text); });
  add_number(command, "--from-offset", options->from_offset, {0, number_max},
             "with one --partition: from this event on");
  add_number(command, "--to-offset", options->to_offset, {0, number_max},
             "with one --partition: up to, but without, this event");
  add_parsed(command, "-p,--partition", "LIST", "only these partitions: 3, or 0,2,5-7 (default: all)",
             [options](const std::string& text) { options->replay.partitions = parse_partition_list(text); });
  add_text(command, "-k,--key", "KEY", options->replay.filter.key, "only events of this key");
  add_texts(command, "--type", "GLOB", options->replay.filter.types,
            "only events of types that match, such as 'post.*'; may be repeated");
  add_texts(command, "--where", "POINTER=VALUE", options->where,
            "only events with that value there, such as /data/user=7; may be repeated");
  add_parsed(command, "--by", "TIME", "whose times: append-time (default), or event-time, the events' own",
             [options](const std::string& text) { options->replay.range.by = parse_by(text); });
  add_number(command, "-n,--max-events", options->replay.events_max, {1, number_max},
             "end after so many events");
  add_text(command, "--print", "WHAT", options->print, "event (the line as it was stored) or data");
  add_flag(command, "--meta", options->meta, "add \"partition\" and \"offset\" to each event");
  add_flag(command, "--fail-if-empty", options->fail_if_empty, "exit 1 when no event matches");
  command.add_option(
      "RANGE", options->time_range,
      "@FROM:TO: --since and --until in one, such as @2h:1h, @2024-05-01:2024-05-02 or @start:1h");
  run_with(command, context, [&context, options] { return replay(context, *options); });
}

}  // namespace continuum::app
