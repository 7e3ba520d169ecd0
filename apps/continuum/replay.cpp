// continuum replay: stored events again, in append order, on stdout, in another topic, or to handlers.
#include "continuum/replay.hpp"

#include "commands.hpp"
#include "operator.hpp"
#include "options.hpp"
#include "output.hpp"
#include "replay_counts.hpp"
#include "replay_handlers.hpp"
#include "replay_player.hpp"
#include "replay_targets.hpp"
#include "selectors.hpp"
#include "signals.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/names.hpp"
#include "continuum/replay_cursor.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>

namespace continuum::app {
namespace {

// How often a cursor is moved: what a run that is killed sends twice.
constexpr Milliseconds move_every{200};
constexpr Milliseconds lease_min{100};

// What a run does while another one moves the cursor.
struct IfRunning {
  enum class Does : std::uint8_t { fail, skip, wait };
  Does does = Does::fail;
  Milliseconds patience{0};
};

struct Options {
  std::string topic;
  TimeRange time;
  std::optional<std::string> program;     // of --handler
  std::optional<std::string> time_range;  // @FROM:TO
  std::vector<std::string> where;
  std::optional<std::uint64_t> from_offset;
  std::optional<std::uint64_t> to_offset;
  std::optional<std::string> print;
  bool meta = false;
  bool fail_if_empty = false;
  bool dry_run = false;
  PlayOptions play;
  std::optional<std::string> cursor;
  std::optional<IfRunning> if_running;
  Milliseconds lease{5'000};
  TargetOptions target;
  bool create = false;
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

IfRunning parse_if_running(const std::string& text) {
  constexpr std::string_view wait = "wait=";
  if (text == "fail" || text == "skip") {
    return {text == "fail" ? IfRunning::Does::fail : IfRunning::Does::skip, {}};
  }
  if (text.starts_with(wait)) {
    return {IfRunning::Does::wait, parse_duration(text.substr(wait.size()))};
  }
  fail(ErrorKind::usage, "give fail, skip, or wait=DURATION");
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
    options.time = parse_time_range(*options.time_range);
  }
  if (options.from_offset) {
    options.replay.range.from = Offset(*options.from_offset);
  }
  if (options.to_offset) {
    options.replay.range.to = Offset(*options.to_offset);
  }
}

void require_one_target(const Options& options) {
  const TargetOptions& target = options.target;
  if (target.to && target.is_handlers()) {
    fail(ErrorKind::usage, "give --to or handlers, not both");
  }
  if (!target.to && (!target.to_redis.empty() || target.missing == MissingTopic::create)) {
    fail(ErrorKind::usage, "--to-redis and --create are about the topic of --to: give --to TOPIC");
  }
  if (target.to_redis.empty() && !target.to_password_file.empty()) {
    fail(ErrorKind::usage, "--to-password-file is about the server of --to-redis");
  }
  if (!target.is_stdout() && (options.print || options.meta)) {
    fail(ErrorKind::usage, "--print and --meta are about what is printed: they do not go with {}",
         target.to ? "--to" : "handlers");
  }
}

bool prints_events(const Options& options) {
  return options.target.is_stdout() && !options.dry_run;
}

// Nobody watches a bar between the events on their own terminal.
Progress::Show progress_of(const Context& context, const Options& options) {
  const bool shows = !context.quiet && (!prints_events(options) || !is_terminal(Stream::out));
  return shows ? Progress::Show::automatic : Progress::Show::never;
}

// One line, or one JSON object, for those who want to know.
void summarize(const Context& context, const Options& options, const Replay& replay, const Player& player,
               const Target* target, Played played) {
  const std::uint64_t events = target != nullptr ? target->settled(player.given()) : player.given();
  if (context.json) {
    JsonObject summary;
    summary.add("events", events).add("in_range", replay.events_in_range());
    if (target != nullptr) {
      target->describe(summary);
    }
    if (options.replay.archive) {
      summary.add("archive_bytes_read", replay.archive_bytes_read());
    }
    summary.add("ended", word_of(played)).add("seconds", player.seconds());
    const std::string line = JsonObject().add_raw("summary", summary.text()).text();
    if (!prints_events(options)) {
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
    say(context, fmt::format("{} {} of {} events in {:.1f} s{}{}{}", options.dry_run ? "counted" : "replayed",
                             format_count(events), format_count(replay.events_in_range()), player.seconds(),
                             target != nullptr ? target->text() : "",
                             options.replay.archive ? fmt::format("; {} of the archive read",
                                                                  format_bytes(replay.archive_bytes_read()))
                                                    : "",
                             played == Played::time_max ? "; the time was over" : ""));
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

// --- the cursor

enum class SelectionOf : std::uint8_t {
  cursor,
  copy,  // less what only ends it
};

// A value as it is, or in quotes: no two lists of options give the same text.
std::string word_for(std::string_view value) {
  const auto parts = [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == '"' || c == '\\'; };
  if (!value.empty() && std::none_of(value.begin(), value.end(), parts)) {
    return std::string(value);
  }
  std::string out = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      out += '\\';
    }
    out += c;
  }
  return out + '"';
}

// The selectors as the options that give them, in one order: what a cursor is a cursor of.
std::string selection_of(const Options& options, SelectionOf what) {
  const bool by_event = !options.replay.range.times_bound();
  std::string text;
  const auto add = [&](std::string_view name, std::string_view value) {
    text += fmt::format("{}{} {}", text.empty() ? "" : " ", name, word_for(value));
  };
  const auto add_sorted = [&](std::string_view name, std::vector<std::string> values) {
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    for (const std::string& value : values) {
      add(name, value);
    }
  };
  if (options.time.since && options.time.since->is != Moment::Is::start) {
    add("--since", text_of(*options.time.since));
  }
  if (options.time.until && options.time.until->is != Moment::Is::end &&
      (what == SelectionOf::cursor || by_event)) {
    add("--until", text_of(*options.time.until));
  }
  if (!text.empty() && by_event) {
    add("--by", "event-time");
  }
  if (options.from_offset) {
    add("--from-offset", fmt::to_string(*options.from_offset));
  }
  if (options.to_offset && what == SelectionOf::cursor) {
    add("--to-offset", fmt::to_string(*options.to_offset));
  }
  std::vector<Partition> partitions = options.replay.partitions;
  std::sort(partitions.begin(), partitions.end());
  partitions.erase(std::unique(partitions.begin(), partitions.end()), partitions.end());
  // For a copy, too: after a resize a key has older events in a partition that was left out.
  if (!partitions.empty()) {
    add("--partition", fmt::format("{}", fmt::join(partitions, ",")));
  }
  if (options.replay.filter.key) {
    add("--key", *options.replay.filter.key);
  }
  add_sorted("--type", options.replay.filter.types);
  add_sorted("--where", options.where);
  // What begins where something is kept begins earlier with an archive: a target that has the later events
  // could not tell the earlier ones from those that it has.
  const bool begins_by_itself =
      !options.from_offset && !(options.time.since && options.time.since->is != Moment::Is::start);
  if (what == SelectionOf::copy && options.replay.archive && begins_by_itself) {
    text += text.empty() ? "--archive" : " --archive";
  }
  return text.empty() ? "all events" : text;
}

// What a run has passed or stored was chosen by the times of that moment.
void require_fixed_times(const Options& options) {
  if (!options.cursor && !options.target.to) {
    return;
  }
  const bool by_event = !options.replay.range.times_bound();
  const auto& [since, until] = options.time;
  const bool since_moves = since && (since->is == Moment::Is::ago || since->is == Moment::Is::end);
  const bool until_moves = until && until->is == Moment::Is::ago;
  if (by_event && (since_moves || until_moves)) {
    fail(ErrorKind::usage,
         "{} by event-time needs times that stay the same from run to run, such as 2024-05-01",
         options.cursor ? "a cursor" : "--to");
  }
  if (since_moves && !options.cursor) {
    fail(
        ErrorKind::usage,
        "run again, {} would begin elsewhere, and --to could not tell what is stored: give a time that stays "
        "(now it is --since {}), or --cursor NAME",
        text_of(*since), format_time(*options.replay.range.since));
  }
}

// Where a run goes on. A time such as 2h is that of the first run, which has begun there.
void resume(Options& options, std::optional<ResumeAt> at) {
  options.replay.range.resume = std::move(at);
  const bool since_moves = options.time.since && options.time.since->is != Moment::Is::time;
  if (options.replay.range.resume && since_moves) {
    options.replay.range.since = std::nullopt;
  }
}

Milliseconds patience_of(const Options& options) {
  return options.if_running ? options.if_running->patience : Milliseconds(0);
}

int leave_to(const Context& context, const Options& options, std::string_view holder) {
  const std::string text = fmt::format("topic {}: another run moves the cursor {}: {}", options.topic,
                                       *options.cursor, printable(holder));
  if (options.if_running && options.if_running->does == IfRunning::Does::skip) {
    say_more(context, text);
    return 0;
  }
  throw Error(ErrorKind::fenced, text);
}

// --- a run

int finish(const Context& context, const Options& options, const Replay& replay, const Player& player,
           const Target* target, Played played) {
  summarize(context, options, replay, player, target, played);
  const int result = target != nullptr ? target->result() : 0;
  if (played == Played::stopped) {
    throw Error(ErrorKind::interrupted, options.cursor
                                            ? "interrupted: run it again to go on where it stopped"
                                            : "interrupted: events that were not begun were left alone");
  }
  if (options.fail_if_empty && player.given() == 0) {
    say(context, fmt::format("topic {}: no event in the range matches", options.topic));
    return static_cast<int>(ErrorKind::partial);
  }
  return result;
}

// Which are asked for before there are threads, and before anything is taken.
std::unique_ptr<Target> handlers_of(const Context& context, const Options& options, const Topic& topic) {
  return options.target.is_handlers() && !options.dry_run
             ? make_handlers_target(context, options.target.handlers, options.play.time_max, topic)
             : nullptr;
}

// What a target is told is about a run, which it may outlive by what its handlers still say.
class Told {
 public:
  Told(Target& target, const std::function<void()>& look, const std::function<void()>& clear)
      : target_(target) {
    target_.tell(look, clear);
  }
  ~Told() { target_.tell({}, {}); }
  Told(const Told&) = delete;
  Told& operator=(const Told&) = delete;

 private:
  Target& target_;
};

int replay_once(const Context& context, Options options, redis::Session& session, const Topic& topic) {
  auto target = handlers_of(context, options, topic);
  Replay replay(session, topic, options.replay);
  if (target) {
    options.play.stop = stop_descriptor(Again::counts);
    target->stop_by(options.play.stop);
  }
  Player player(replay, options.play);
  if (options.dry_run) {
    const Played played = count_events(context, options, player);
    return finish(context, options, replay, player, nullptr, played);
  }
  if (!target) {
    target = make_target(context, options.target, topic, selection_of(options, SelectionOf::copy));
  }
  const Told told(*target, [&] { player.show(target->settled(player.given())); }, [&] { player.clear(); });
  const Played played = player.play(target->hooks());
  return finish(context, options, replay, player, target.get(), played);
}

int replay_by_cursor(const Context& context, Options options, redis::Session& session, const Topic& topic) {
  auto target = handlers_of(context, options, topic);
  ReplayCursor cursor(
      session, topic,
      {*options.cursor, selection_of(options, SelectionOf::cursor), this_process(), options.lease});
  if (const auto holder = cursor.take(patience_of(options))) {
    return leave_to(context, options, *holder);
  }
  // The target may take its time to answer.
  cursor.keep(connect(context, redis::Needs::Access::write));
  resume(options, cursor.state().at);
  Replay replay(session, topic, options.replay);
  // Times such as 2h are those of the first run.
  cursor.advance(replay.resume_at(), 0);
  if (!target) {
    target =
        make_target(context, options.target, topic,
                    fmt::format("cursor {} {}", *options.cursor, cursor.state().run), cursor.state().copied);
    options.play.flush_every = move_every;
    options.play.stop = stop_descriptor(Again::ends);
  } else {
    options.play.stop = stop_descriptor(Again::counts);
  }
  target->stop_by(options.play.stop);
  Player player(replay, options.play);
  const auto save = [&] {
    ResumeAt at = replay.resume_at();
    target->limit(at);
    cursor.advance(at, target->settled(player.given()), target->copied());
  };
  // Another run may have sent on what we have, while this process was stopped.
  const Told told(
      *target,
      [&] {
        cursor.require_ours();
        save();
        player.show(target->settled(player.given()));
      },
      [&] { player.clear(); });
  Player::Hooks hooks = target->hooks();
  hooks.give = [&](const EventRun& run) {
    cursor.require_ours();
    target->give(run);
  };
  hooks.flush = [&] {
    cursor.require_ours();
    target->flush();
    save();
  };
  const Played played = player.play(hooks);
  cursor.release();
  return finish(context, options, replay, player, target.get(), played);
}

int replay(const Context& context, Options options) {
  take_command(options.time_range, options.program, options.target.handlers);
  options.target.form = form_of(options);
  options.target.missing = options.create ? MissingTopic::create : MissingTopic::refuse;
  take_selectors(options);
  require_one_target(options);
  if (options.if_running && !options.cursor) {
    fail(ErrorKind::usage, "--if-running is about a cursor: give --cursor NAME");
  }
  options.play.by = options.replay.range.by;
  options.play.events_max = options.replay.events_max;
  options.play.progress = progress_of(context, options);
  const bool moves_cursor = options.cursor && !options.dry_run;
  const auto session =
      connect(context, moves_cursor ? redis::Needs::Access::write : redis::Needs::Access::read);
  resolve(options.time, *session, options.replay.range);
  const Topic topic = load_topic(*session, options.topic);
  require_fixed_times(options);
  if (moves_cursor) {
    return replay_by_cursor(context, std::move(options), *session, topic);
  }
  if (options.cursor) {
    resume(options,
           place_of_cursor(*session, topic, *options.cursor, selection_of(options, SelectionOf::cursor)));
  }
  return replay_once(context, options, *session, topic);
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
  add_text(command, "--archive", "DIR", options->replay.archive,
           "what the log does not have any more is read in this archive");
  add_number(command, "-n,--max-events", options->replay.events_max, {1, number_max},
             "end after so many events");
  add_duration(command, "--max-time", options->play.time_max, "end after that long");
  add_parsed(command, "--rate", "N/s", "no more events than that: 100/s, 10/m, 5000/h",
             [options](const std::string& text) { options->play.pace.events_per_second = parse_rate(text); });
  add_parsed(command, "--speed", "Nx", "paced by the events' times, so many times faster: 1x, 10x",
             [options](const std::string& text) { options->play.pace.speed = parse_speed(text); });
  add_flag(command, "--dry-run", options->dry_run, "only count: events of each partition and type");
  add_text(command, "--print", "WHAT", options->print, "event (the line as it was stored) or data");
  add_parsed(command, "--to", "TOPIC", "store the events in this topic, each once however often it is run",
             [options](const std::string& text) {
               require_name("topic", text);
               options->target.to = text;
             });
  add_parsed(command, "--to-redis", "URL", "that topic is on another server",
             [options](const std::string& text) {
               if (!text.starts_with("local:")) {
                 (void)redis::Address::parse(text);
               }
               options->target.to_redis = text;
             });
  add_text(command, "--to-password-file", "FILE", options->target.to_password_file,
           "holds that server's password");
  add_flag(command, "--create", options->create, "create the topic of --to if it does not exist");
  add_flag(command, "--meta", options->meta, R"(add "partition" and "offset" to each event)");
  add_parsed(command, "--cursor", "NAME", "the next run with this name goes on where this one ends",
             [options](const std::string& text) {
               require_name("cursor", text);
               options->cursor = text;
             });
  add_parsed(command, "--if-running", "WHAT",
             "while another run moves the cursor: fail (exit 5, default), skip (exit 0), wait=DURATION",
             [options](const std::string& text) { options->if_running = parse_if_running(text); });
  add_parsed(command, "--lease", "DURATION", "how long a run that was killed keeps the cursor (5s)",
             [options](const std::string& text) {
               options->lease = parse_duration(text);
               if (options->lease < lease_min) {
                 fail(ErrorKind::usage, "must be at least {}", format_duration(lease_min));
               }
             });
  add_text(command, "--handler", "CMD", options->program,
           "hand the events to this program instead, as a worker does; its arguments behind --");
  add_handler_options(command, options->target.handlers);
  add_flag(command, "--fail-if-empty", options->fail_if_empty, "exit 1 when no event matches");
  command.add_option(
      "RANGE", options->time_range,
      "@FROM:TO: --since and --until in one, such as @2h:1h, @2024-05-01:2024-05-02 or @start:1h");
  command.add_option("CMD", options->target.handlers.handler.command,
                     "behind --: hand the events to this handler, with its arguments");
  run_with(command, context, [&context, options] { return replay(context, *options); });
}

}  // namespace continuum::app
