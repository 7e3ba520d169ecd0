// continuum handlers try: run a handler over one event, or over history, and see what it would say.
#include "commands.hpp"
#include "options.hpp"
#include "output.hpp"
#include "selectors.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/handler_file.hpp"
#include "continuum/handler_trial.hpp"
#include "continuum/json.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <array>
#include <chrono>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>

extern char** environ;

namespace continuum::app {
namespace {

constexpr std::uint64_t events_max_default = 10'000;
constexpr std::size_t differences_shown_max = 20;
constexpr std::size_t event_bytes_max = std::size_t{64} << 20;
constexpr std::size_t output_shown_max = 2'000;  // bytes

struct TryOptions {
  std::string file;
  std::string event_file;
  std::string topic;
  std::optional<std::string> partitions;
  TimeRange time;
  std::optional<std::uint64_t> events_max;
  std::optional<std::string> against;
  std::string type = "try";
  std::string key = "try";
};

HandlerSpec read_spec(const std::string& path) {
  const auto text = read_handler_text(path);
  if (!text) {
    fail(ErrorKind::usage, "{}: there is no such file", path);
  }
  return parse_handler(path, *text);
}

TrialOptions trial_options(const Context& context, HandlerSpec spec) {
  TrialOptions options;
  // So that it can tell this from the real thing.
  spec.environment.emplace_back("CONTINUUM_REPLAY", "1");
  options.handler = std::move(spec);
  for (char** entry = environ; *entry != nullptr; ++entry) {
    options.environment.emplace_back(*entry);
  }
  options.say = [&context](const std::string& text) { say(context, text); };
  return options;
}

std::string_view word_of(Verdict verdict) {
  constexpr std::array<std::string_view, 5> words{"done", "retry", "fail", "later", "down"};
  return words.at(static_cast<std::size_t>(verdict));
}

std::string consequence(const HandlerSpec& spec, Verdict verdict) {
  const std::string_view given_up =
      spec.on_failure == OnFailure::hold_key ? "becomes a dead letter and its key is held"
      : spec.on_failure == OnFailure::skip   ? "becomes a dead letter and its key goes on"
                                             : "halts its partition";
  switch (verdict) {
    case Verdict::done:
      return "the event is handled";
    case Verdict::retry:
      return fmt::format("an attempt is used up: tried {} times, {} to {} apart; then the event {}",
                         spec.attempts_max, format_duration(spec.backoff_min),
                         format_duration(spec.backoff_max), given_up);
    case Verdict::fail:
      return fmt::format("no further attempt: the event {}", given_up);
    case Verdict::later:
      return "not the event's fault: tried again for ever, without counting";
    case Verdict::down:
      break;
  }
  return "the partition waits until the handler works again";
}

// --- one event

// The line of an event as `work` and `inspect` show it says first where it lies.
EventRun placed(std::string& line) {
  EventRun run;
  run.events = 1;
  std::uint64_t partition = 0;
  std::uint64_t offset = 0;
  int length = 0;
  if (std::sscanf(line.c_str(), R"({"partition":%lu,"offset":%lu,%n)", &partition, &offset, &length) == 2 &&
      length > 0 && partition < partitions_max && offset < number_max) {
    run.partition = Partition(static_cast<std::uint32_t>(partition));
    run.first = Offset(offset);
    line.replace(0, static_cast<std::size_t>(length), "{");
  }
  return run;
}

std::string read_event(const TryOptions& options) {
  std::ostringstream text;
  if (options.event_file == "-") {
    text << std::cin.rdbuf();
  } else {
    std::ifstream in(options.event_file, std::ios::binary);
    if (!in) {
      fail(ErrorKind::usage, "{}: cannot be read", options.event_file);
    }
    text << in.rdbuf();
  }
  std::string line = text.str();
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) {
    line.pop_back();
  }
  return line;
}

// As publish would store it: a CloudEvent is kept, anything else gets --type and --key.
std::string event_of(const TryOptions& options, std::string input) {
  input.reserve(input.size() + json::padding_bytes);
  WrapOptions as_it_is;
  as_it_is.topic = "try";
  as_it_is.producer = "try";
  as_it_is.event_bytes_max = event_bytes_max;
  WrapOptions wrapped = as_it_is;
  as_it_is.input = InputFormat::cloudevents;
  as_it_is.key_missing = options.key;
  wrapped.key = Selector::parse("=" + options.key);
  wrapped.type = Selector::parse("=" + options.type);
  std::optional<std::string> wrong;
  for (const WrapOptions& wrap : {as_it_is, wrapped}) {
    Wrapper wrapper(wrap);
    wrong = wrapper.read(input, Position(1));
    if (!wrong) {
      std::string event;
      wrapper.write(event, std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now()));
      return event;
    }
  }
  fail(ErrorKind::usage, "{}: {}", options.event_file, *wrong);
}

int try_event(const Context& context, const TryOptions& options, const HandlerSpec& spec) {
  std::string line = read_event(options);
  EventRun run = placed(line);
  const std::string event = event_of(options, std::move(line));
  run.lines = event;

  Topic topic;
  topic.name = "try";
  std::optional<TrialVerdict> said;
  HandlerTrial trial(topic, trial_options(context, spec),
                     [&](const TrialVerdict& verdict) { said = verdict; });
  const auto started = std::chrono::steady_clock::now();
  trial.give(run);
  trial.finish();
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - started;

  std::string scratch;
  const auto raw_type = attributes_of(event).type;
  const std::string type(json::unescape(raw_type, scratch).value_or(raw_type));
  JsonObject result;
  result.add("handler", spec.name).add("type", type);
  Output out;
  if (!said) {
    if (context.json) {
      out.line(result.add("verdict", "not subscribed").text()).flush();
    } else {
      out.line(fmt::format("{} does not get events of type {}: its types are {}", spec.name, printable(type),
                           fmt::join(spec.types, ", ")))
          .flush();
    }
    return static_cast<int>(ErrorKind::partial);
  }
  if (context.json) {
    result.add("verdict", word_of(said->verdict)).add("why", said->why).add("output", said->output);
    out.line(result.add("milliseconds", static_cast<std::uint64_t>(took.count())).text());
  } else {
    out.line(
        fmt::format("verdict  {}{}{}", word_of(said->verdict), said->why.empty() ? "" : ": ", said->why));
    out.line(fmt::format("means    {}", consequence(spec, said->verdict)));
    out.line(fmt::format("took     {:.0f} ms", took.count()));
    if (!said->output.empty()) {
      out.line(fmt::format("printed  {}", printable(said->output.substr(0, output_shown_max))));
    }
  }
  out.flush();
  return said->verdict == Verdict::done ? 0 : static_cast<int>(ErrorKind::partial);
}

// --- history

struct Said {
  Verdict verdict;
  std::string why;
  std::string output;
  friend bool operator==(const Said&, const Said&) = default;
};
using History = std::map<std::pair<Partition, Offset>, Said>;

History run_history(const Context& context, const Topic& topic, redis::Session& session,
                    const ReplayOptions& chosen, const HandlerSpec& spec, const std::string& label) {
  History history;
  HandlerTrial trial(topic, trial_options(context, spec), [&](const TrialVerdict& said) {
    history[{said.partition, said.offset}] = {said.verdict, said.why, said.output};
  });
  Replay replay(session, topic, chosen);
  Progress progress(label, replay.events_in_range(),
                    context.quiet ? Progress::Show::never : Progress::Show::automatic);
  while (const auto run = replay.next()) {
    trial.give(*run);
    progress.update(replay.events_passed());
  }
  trial.finish();
  progress.clear();
  return history;
}

std::map<Verdict, std::uint64_t> count_verdicts(const History& history) {
  std::map<Verdict, std::uint64_t> counts;
  for (const auto& [place, said] : history) {
    ++counts[said.verdict];
  }
  return counts;
}

std::string text_of(const std::optional<Said>& said) {
  return !said ? "not subscribed"
               : fmt::format("{}{}{}", word_of(said->verdict), said->why.empty() ? "" : ": ", said->why);
}

struct Difference {
  Partition partition;
  Offset offset;
  std::optional<Said> before;
  std::optional<Said> now;
};

std::vector<Difference> compare(const History& before, const History& now) {
  std::vector<Difference> differences;
  const auto said = [](const History& history, const History::key_type& place) -> std::optional<Said> {
    const auto found = history.find(place);
    return found == history.end() ? std::nullopt : std::optional(found->second);
  };
  History all = before;
  all.insert(now.begin(), now.end());
  for (const auto& [place, ignored] : all) {
    const auto old_one = said(before, place);
    const auto new_one = said(now, place);
    if (old_one != new_one) {
      differences.push_back({place.first, place.second, old_one, new_one});
    }
  }
  return differences;
}

void print_counts(const std::map<Verdict, std::uint64_t>& now,
                  const std::map<Verdict, std::uint64_t>* before) {
  constexpr auto right = Table::Align::right;
  Table table(before == nullptr
                  ? std::vector<Table::Column>{{"VERDICT"}, {"EVENTS", right}}
                  : std::vector<Table::Column>{{"VERDICT"}, {"EVENTS", right}, {"BEFORE", right}});
  for (const Verdict verdict : {Verdict::done, Verdict::retry, Verdict::fail, Verdict::later}) {
    const auto count = [&](const auto& counts) {
      const auto found = counts.find(verdict);
      return found == counts.end() ? std::uint64_t{0} : found->second;
    };
    if (count(now) == 0 && (before == nullptr || count(*before) == 0)) {
      continue;
    }
    if (before == nullptr) {
      table.row({word_of(verdict), count(now)});
    } else {
      table.row({word_of(verdict), count(now), count(*before)});
    }
  }
  Output out;
  table.print(out);
  out.flush();
}

void print_differences(const Context& context, const std::vector<Difference>& differences) {
  Output out;
  std::size_t shown = 0;
  for (const Difference& one : differences) {
    const bool same_verdict = one.before && one.now && one.before->verdict == one.now->verdict;
    if (context.json) {
      JsonObject object;
      object.add("partition", one.partition.value).add("offset", one.offset.value);
      object.add("before", text_of(one.before)).add("now", text_of(one.now));
      object.add("output_before", one.before ? one.before->output : "")
          .add("output_now", one.now ? one.now->output : "");
      out.line(object.text());
    } else if (shown++ < differences_shown_max) {
      out.line(
          fmt::format("partition {}, offset {}: {}", one.partition, one.offset,
                      same_verdict && one.before->why == one.now->why
                          ? fmt::format("printed {}, before {}", printable(one.now->output.substr(0, 200)),
                                        printable(one.before->output.substr(0, 200)))
                          : fmt::format("{}, before {}", text_of(one.now), text_of(one.before))));
    }
  }
  if (!context.json && differences.size() > differences_shown_max) {
    out.line(fmt::format("… and {} more (--json shows all)",
                         format_count(differences.size() - differences_shown_max)));
  }
  out.flush();
}

int try_history(const Context& context, const TryOptions& options, const HandlerSpec& spec) {
  std::optional<HandlerSpec> old_spec;
  if (options.against) {
    old_spec = read_spec(*options.against);
  }
  const auto session = connect(context, redis::Needs::Access::read);
  const Topic topic = load_topic(*session, options.topic);
  ReplayOptions chosen;
  chosen.events_max = options.events_max.value_or(events_max_default);
  if (options.partitions) {
    chosen.partitions = parse_partitions_of(topic, *options.partitions);
  }
  resolve(options.time, *session, chosen.range);
  const History now = run_history(context, topic, *session, chosen, spec, "try");
  const auto counts = count_verdicts(now);
  std::vector<Difference> differences;
  if (old_spec) {
    const History before = run_history(context, topic, *session, chosen, *old_spec, "before");
    differences = compare(before, now);
    const auto counts_before = count_verdicts(before);
    if (!context.json) {
      print_counts(counts, &counts_before);
    }
    print_differences(context, differences);
  } else if (!context.json) {
    print_counts(counts, nullptr);
  }
  const auto done = counts.find(Verdict::done);
  const std::uint64_t handled = done == counts.end() ? 0 : done->second;
  if (context.json) {
    JsonObject totals;
    totals.add("events", static_cast<std::uint64_t>(now.size())).add("done", handled);
    totals.add("different", static_cast<std::uint64_t>(differences.size()));
    Output().line(JsonObject().add_raw("summary", totals.text()).text()).flush();
  } else if (now.empty()) {
    say(context, fmt::format("no event of the range is of the types of {}", spec.name));
  } else if (old_spec && differences.empty()) {
    say(context, "the two say the same of every event");
  }
  // Beside another handler only what differs is news.
  const bool fine = old_spec ? differences.empty() : handled == now.size();
  return fine ? 0 : static_cast<int>(ErrorKind::partial);
}

int try_handler(const Context& context, const TryOptions& options) {
  if (options.event_file.empty() == options.topic.empty()) {
    fail(ErrorKind::usage, "give a file with an event (- for stdin), or -t TOPIC for stored events");
  }
  if (options.against && options.topic.empty()) {
    fail(ErrorKind::usage, "--against compares over stored events: give -t TOPIC");
  }
  const HandlerSpec spec = read_spec(options.file);
  return options.topic.empty() ? try_event(context, options, spec) : try_history(context, options, spec);
}

}  // namespace

void add_handlers_try(CLI::App& command, Context& context) {
  const auto options = std::make_shared<TryOptions>();
  command.add_option("FILE", options->file, "the handler's TOML file")->required();
  command.add_option("EVENT", options->event_file, "a file with one event as JSON; - for stdin");
  add_topic_option(command, options->topic)
      ->required(false)
      ->description("stored events of this topic instead");
  add_parsed(command, "--since", "TIME", "with -t: events stored from then on: a time, or how long ago (1h)",
             [options](const std::string& text) { options->time.since = parse_moment(text); });
  add_parsed(command, "--until", "TIME", "with -t: events stored before then",
             [options](const std::string& text) { options->time.until = parse_moment(text); });
  add_text(command, "-p,--partition", "LIST", options->partitions, "with -t: only these partitions");
  add_number(command, "-n,--max-events", options->events_max, {1, number_max},
             "with -t: how many at most (10000)");
  add_text(command, "--against", "OLDFILE", options->against,
           "with -t: run this handler over the same events, too, and show where the two differ");
  add_text(command, "--type", "TYPE", options->type, "of an EVENT that is no CloudEvent (try)");
  add_text(command, "-k,--key", "KEY", options->key, "likewise its key (try)");
  run_with(command, context, [&context, options] { return try_handler(context, *options); });
}

}  // namespace continuum::app
