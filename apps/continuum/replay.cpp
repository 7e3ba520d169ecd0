// continuum replay: stored events again, in append order, on stdout.
#include "continuum/replay.hpp"

#include "commands.hpp"
#include "options.hpp"
#include "output.hpp"
#include "replay_counts.hpp"
#include "replay_player.hpp"
#include "selectors.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

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
  bool dry_run = false;
  PlayOptions play;
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

// Nobody watches a bar between the events on their own terminal.
Progress::Show progress_of(const Context& context, const Options& options) {
  const bool shows = !context.quiet && (options.dry_run || !is_terminal(Stream::out));
  return shows ? Progress::Show::automatic : Progress::Show::never;
}

// One line, or one JSON object, for those who want to know.
void summarize(const Context& context, const Options& options, const Replay& replay, const Player& player,
               Played played) {
  if (context.json) {
    const std::string summary = JsonObject()
                                    .add("events", player.given())
                                    .add("in_range", replay.events_in_range())
                                    .add("ended", word_of(played))
                                    .add("seconds", player.seconds())
                                    .text();
    const std::string line = JsonObject().add_raw("summary", summary).text();
    if (options.dry_run) {
      Output out;
      out.line(line).flush();
    } else if (!context.quiet) {
      // Stdout is the events' own.
      fmt::print(stderr, "{}\n", line);
    }
    return;
  }
  const bool watched = progress_of(context, options) == Progress::Show::automatic && is_terminal(Stream::err);
  if (context.verbose || watched) {
    say(context, fmt::format("{} {} of {} events in {:.1f} s{}", options.dry_run ? "counted" : "replayed",
                             format_count(player.given()), format_count(replay.events_in_range()),
                             player.seconds(), played == Played::time_max ? ": the time was over" : ""));
  }
}

Played count_events(const Context& context, const Options& options, Player& player) {
  ReplayCounts counts(options.replay.range.by);
  const Played played = player.play({[&](const EventRun& run) { counts.add(run); }, [] {}});
  Output out;
  counts.print(context, out);
  out.flush();
  return played;
}

Played print_events(EventForm form, Player& player) {
  Output out;
  std::string text;
  const auto give = [&](const EventRun& run) {
    if (form == EventForm::stored) {
      out.write(run.lines);
    } else {
      text.clear();
      append_events(text, run, form);
      out.write(text);
    }
  };
  return player.play({give, [&] { out.flush(); }});
}

int replay(const Context& context, Options options) {
  const EventForm form = form_of(options);
  take_selectors(options);
  options.play.by = options.replay.range.by;
  options.play.events_max = options.replay.events_max;
  options.play.progress = progress_of(context, options);
  const auto session = connect(context, redis::Needs::Access::read);
  resolve(options.time, *session, options.replay.range);
  const Topic topic = load_topic(*session, options.topic);
  Replay replay(*session, topic, options.replay);
  Player player(replay, options.play);
  const Played played = options.dry_run ? count_events(context, options, player) : print_events(form, player);
  summarize(context, options, replay, player, played);
  if (options.fail_if_empty && player.given() == 0) {
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
  add_duration(command, "--max-time", options->play.time_max, "end after that long");
  add_parsed(command, "--rate", "N/s", "no more events than that: 100/s, 10/m, 5000/h",
             [options](const std::string& text) { options->play.pace.events_per_second = parse_rate(text); });
  add_parsed(command, "--speed", "Nx", "paced by the events' times, so many times faster: 1x, 10x",
             [options](const std::string& text) { options->play.pace.speed = parse_speed(text); });
  add_flag(command, "--dry-run", options->dry_run, "only count: events of each partition and type");
  add_text(command, "--print", "WHAT", options->print, "event (the line as it was stored) or data");
  add_flag(command, "--meta", options->meta, "add \"partition\" and \"offset\" to each event");
  add_flag(command, "--fail-if-empty", options->fail_if_empty, "exit 1 when no event matches");
  command.add_option(
      "RANGE", options->time_range,
      "@FROM:TO: --since and --until in one, such as @2h:1h, @2024-05-01:2024-05-02 or @start:1h");
  run_with(command, context, [&context, options] { return replay(context, *options); });
}

}  // namespace continuum::app
