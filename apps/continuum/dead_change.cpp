// continuum dead retry and discard: what people have done about dead letters.
#include "dead_command.hpp"

#include "dead_view.hpp"
#include "export_file.hpp"
#include "output.hpp"

#include "continuum/dead_letter_discards.hpp"
#include "continuum/dead_letter_requests.hpp"
#include "continuum/error.hpp"
#include "continuum/group_skip.hpp"
#include "continuum/names.hpp"
#include "continuum/operator_lease.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

namespace continuum::app {
namespace {

constexpr Milliseconds look_every{100};

// The options that say which letters, as they were given.
std::string selection_text(const DeadArguments& args) {
  std::string text = fmt::format(" -g {}", args.group.group);
  const auto add = [&](std::string_view option, const std::optional<std::string>& value) {
    if (value) {
      text += fmt::format(" {} {}", option, *value);
    }
  };
  if (args.group.partitions != "all") {
    add("-p", args.group.partitions);
  }
  add("--handler", args.selection.handler);
  add("--key", args.selection.key);
  add("--id", args.selection.event_id);
  add("--reason", args.selection.reason);
  return text;
}

// --- waiting for workers

using Standings = std::map<KeyPlace, LetterRequests::Standing>;
using State = LetterRequests::State;

// Until everything is answered for which a worker is there, or the time is over.
void wait_for_answers(const Context& context, LetterRequests& requests, const DeadArguments& args,
                      std::string_view label) {
  using Clock = std::chrono::steady_clock;
  Progress progress(std::string(label), requests.standings().size(),
                    context.quiet ? Progress::Show::never : Progress::Show::automatic);
  const auto until = Clock::now() + args.timeout;
  while (requests.look() && Clock::now() < until) {
    std::uint64_t answered = 0;
    for (const auto& [place, standing] : requests.standings()) {
      answered += standing.state == State::waiting ? 0 : 1;
    }
    progress.update(answered);
    std::this_thread::sleep_for(look_every);
  }
}

std::string_view outcome_of(const LetterRequests::Standing& standing, std::string_view answered) {
  switch (standing.state) {
    case State::answered:
      return answered;
    case State::failed_again:
      return "failed again";
    case State::moved:
      return "moved";
    case State::waiting:
      break;
  }
  switch (standing.attendance) {
    case Attendance::nobody:
      return "no worker";
    case Attendance::paused:
      return "paused";
    case Attendance::halted:
      return "halted";
    case Attendance::worker:
      break;
  }
  return "waiting";
}

void show_outcomes(const Context& context, const GroupArguments& group, const Standings& standings,
                   std::string_view answered) {
  Output out;
  Table table({{"KEY"},
               {"PARTITION", Table::Align::right},
               {"HANDLER"},
               {"OUTCOME"},
               {"LEFT", Table::Align::right},
               {"REASON"}});
  for (const auto& [place, standing] : standings) {
    const std::string outcome(outcome_of(standing, answered));
    if (context.json) {
      JsonObject object;
      object.add("topic", group.topic)
          .add("group", group.group)
          .add("partition", place.partition)
          .add("handler", place.whose.handler)
          .add("key", place.whose.key)
          .add("outcome", outcome)
          .add("letters", standing.letters);
      if (standing.state == State::failed_again) {
        object.add("attempts", standing.failure.attempts).add("reason", standing.failure.reason);
      }
      if (standing.state == State::moved) {
        object.add("moved_to", standing.moved_to);
      }
      out.line(object.text());
    } else {
      table.row({place.whose.key, place.partition.value, place.whose.handler, outcome, standing.letters,
                 standing.state == State::moved ? fmt::format("to partition {}: ask again", standing.moved_to)
                                                : standing.failure.reason});
    }
  }
  if (!context.json && !table.empty()) {
    table.print(out);
  }
  out.flush();
}

std::string_view who_will(Attendance attendance) {
  switch (attendance) {
    case Attendance::nobody:
      return "no worker has the partition now, the next one will do it";
    case Attendance::paused:
      return "the partition is paused, its worker will do it after `continuum group resume`";
    case Attendance::halted:
      return "the partition is halted; a worker will do it that is started when the handler is mended, or "
             "the "
             "event was passed by `continuum group skip`";
    case Attendance::worker:
      break;
  }
  return "its worker will do it";
}

std::uint64_t count_of(const Standings& standings, State state) {
  return static_cast<std::uint64_t>(std::count_if(
      standings.begin(), standings.end(), [&](const auto& one) { return one.second.state == state; }));
}

// Of keys that the ring gave to another partition meanwhile. Returns the exit status.
int report_moved(const Context& context, const Standings& standings, const DeadArguments& args) {
  const std::uint64_t moved = count_of(standings, State::moved);
  if (moved == 0) {
    return 0;
  }
  say(context,
      fmt::format(
          "{} not done: the ring gave {} to another partition, and nothing was done about {} letters. "
          "Run this again when that has them: `continuum inspect why -t {} -g {}` says what it "
          "waits for",
          keys_text(moved), moved == 1 ? "it" : "them", moved == 1 ? "its" : "their", args.group.topic,
          args.group.group));
  return static_cast<int>(ErrorKind::partial);
}

// Says who will do what is not done yet. Throws Error{server} when a worker that is there did not answer in
// time.
void report_unanswered(const Context& context, const Standings& standings, const DeadArguments& args) {
  std::map<Attendance, std::uint64_t> unanswered;
  for (const auto& [place, standing] : standings) {
    if (standing.state == State::waiting) {
      ++unanswered[standing.attendance];
    }
  }
  for (const auto& [attendance, keys] : unanswered) {
    if (attendance != Attendance::worker) {
      say(context, fmt::format("{} asked for: {}", keys_text(keys), who_will(attendance)));
    }
  }
  const std::uint64_t late = unanswered[Attendance::worker];
  if (late > 0) {
    fail(ErrorKind::server,
         "{} not answered within {}: the requests stand, and the worker will come to them. `continuum "
         "inspect why -t "
         "{} -g {}` says what it is doing",
         keys_text(late), format_duration(args.timeout), args.group.topic, args.group.group);
  }
}

// --- retry

// The keys of the letters that are meant.
std::map<KeyPlace, std::uint64_t> keys_of(redis::Session& session, const GroupPlace& place,
                                          const DeadArguments& args) {
  std::map<KeyPlace, std::uint64_t> keys;
  const HeldByPlace held = held_by_place(session, place, args);
  if (args.selection.matches_keys_only()) {
    for (const auto& [at, key] : held) {
      if (key.letters > 0 && args.selection.matches(at.whose)) {
        keys.emplace(at, key.letters);
      }
    }
    return keys;
  }
  (void)for_each_letter(session, place.topic, args.group.group, args.selection,
                        [&](Partition partition, const DeadLetter& letter) {
                          keys.emplace(KeyPlace{partition, letter.whose},
                                       held_of(held, partition, letter).letters);
                        });
  return keys;
}

// Letters that nobody can handle: of events that were skipped before any handler had them.
void leave_skipped(const Context& context, std::map<KeyPlace, std::uint64_t>& keys) {
  const auto left =
      std::erase_if(keys, [](const auto& key) { return key.first.whose.handler == skip_handler; });
  if (left > 0) {
    say(context,
        fmt::format("{} left: their events were skipped by hand, and no handler has them. `continuum dead "
                    "export` keeps them, to be published again",
                    keys_text(left)));
  }
}

void say_would(const Context& context, std::string_view text, std::uint64_t keys, std::uint64_t letters) {
  Output out;
  if (context.json) {
    JsonObject totals;
    totals.add("dry_run", true).add("keys", keys).add("letters", letters);
    out.line(JsonObject().add_raw("summary", totals.text()).text());
  } else {
    out.line(text);
  }
  out.flush();
}

}  // namespace

int retry(const Context& context, DeadArguments& args) {
  const auto session =
      connect(context, args.group.dry_run ? redis::Needs::Access::read : redis::Needs::Access::write);
  const GroupPlace place = find_group(*session, args.group);
  args.selection.partitions = place.partitions;
  auto keys = keys_of(*session, place, args);
  if (keys.empty()) {
    say(context,
        fmt::format("group {} of topic {} has no such dead letters", args.group.group, place.topic.name));
    return 0;
  }
  leave_skipped(context, keys);
  if (keys.empty()) {
    return 0;
  }
  std::uint64_t letters = 0;
  std::map<KeyPlace, LetterRequest> wanted;
  for (const auto& [key, count] : keys) {
    letters += count;
    wanted.emplace(key, LetterRequest{});
  }
  if (!args.selection.matches_keys_only()) {
    say(context,
        "an event cannot overtake its key: all events of the keys that were found are handled again");
  }
  const std::string what = fmt::format("{} with {}", keys_text(keys.size()), letters_text(letters));
  if (args.group.dry_run) {
    say_would(context, fmt::format("would ask for {} to be handled again", what), keys.size(), letters);
    return 0;
  }
  LetterRequests requests(*session, place.topic, args.group.group);
  requests.ask(wanted);
  Audit(*session, args.group, "dead retry" + selection_text(args)).done(what);
  if (args.no_wait) {
    (void)requests.look();
  } else {
    wait_for_answers(context, requests, args, "retry");
  }
  show_outcomes(context, args.group, requests.standings(), "released");
  bool failed = false;
  for (const auto& [key, standing] : requests.standings()) {
    failed = failed || standing.state == State::failed_again;
  }
  if (!args.no_wait) {
    report_unanswered(context, requests.standings(), args);
  }
  const int moved = report_moved(context, requests.standings(), args);
  return failed ? static_cast<int>(ErrorKind::partial) : moved;
}

// --- discard

namespace {

void require_export(const DeadArguments& args) {
  if (args.output && args.no_export) {
    fail(ErrorKind::usage, "--export or --no-export, not both");
  }
  if (!args.output && !args.no_export && !args.group.dry_run) {
    fail(ErrorKind::usage,
         "give --export FILE, which keeps what is discarded, or --no-export if it is of no use to anybody");
  }
}

// By the workers that have the partitions. One piece of a key after the other: a key has one request at a
// time.
Standings discard_by_workers(const Context& context, redis::Session& session, const GroupPlace& place,
                             const DeadArguments& args, const Discards& discards) {
  LetterRequests requests(session, place.topic, args.group.group);
  std::map<KeyPlace, LetterRequest> wanted;
  for (std::size_t piece = 0;; ++piece) {
    wanted.clear();
    for (const auto& [key, pieces] : discards.requests) {
      const auto standing = requests.standings().find(key);
      const bool stuck = standing != requests.standings().end() && standing->second.state == State::waiting;
      if (piece < pieces.size() && !stuck) {
        wanted.emplace(key, pieces[piece]);
      }
    }
    if (wanted.empty()) {
      return requests.standings();
    }
    requests.ask(wanted);
    wait_for_answers(context, requests, args, "discard");
  }
}

// Splits off the keys that `is_one` is true of.
template <class IsOne>
Discards split_off(Discards& discards, IsOne is_one) {
  Discards theirs;
  for (auto at = discards.letters.begin(); at != discards.letters.end();) {
    const KeyPlace key = at->first;
    if (!is_one(key)) {
      ++at;
      continue;
    }
    theirs.count += at->second.size();
    theirs.letters.emplace(key, std::move(at->second));
    theirs.requests.emplace(key, std::move(discards.requests.at(key)));
    at = discards.letters.erase(at);
    discards.requests.erase(key);
  }
  discards.count -= theirs.count;
  return theirs;
}

// Those that cannot be discarded where they are: the ring gave their keys to another partition, which has
// copies of the letters or is about to make some. Where we have the leases nothing changes that.
Standings split_off_moved(redis::Session& session, const GroupPlace& place, const DeadArguments& args,
                          Discards& discards) {
  LetterPlaces places(session, place.topic, args.group.group);
  places.look();
  Standings standings;
  const auto moves = [&](const KeyPlace& key) {
    return places.of(key.partition, key.whose.key).counts != LetterPlaces::Counts::here;
  };
  for (const auto& [key, letters] : split_off(discards, moves).letters) {
    LetterRequests::Standing& standing = standings[key];
    standing.state = State::moved;
    standing.moved_to = places.of(key.partition, key.whose.key).other;
    standing.letters = letters.size();
  }
  return standings;
}

Discards select_discards(redis::Session& session, const GroupPlace& place, const DeadArguments& args) {
  const HeldByPlace held = held_by_place(session, place, args);
  std::optional<ExportFile> file;
  const bool keeps = args.output && !args.group.dry_run;
  Discards discards =
      collect_discards(session, place.topic, args.group.group, args.selection,
                       [&](Partition partition, const DeadLetter& letter) {
                         if (keeps) {
                           if (!file) {
                             file.emplace(*args.output);
                           }
                           file->line(letter_json(place.topic.name, args.group.group, partition, letter,
                                                  held_of(held, partition, letter)));
                         }
                       });
  if (file) {
    file->finish();
  }
  return discards;
}

void show_discarded(const Context& context, const DeadArguments& args, const std::string& done,
                    std::uint64_t letters, std::uint64_t wanted) {
  if (context.json) {
    JsonObject totals;
    totals.add("letters", letters).add("export", args.output);
    Output().line(JsonObject().add_raw("summary", totals.text()).text()).flush();
  } else if (!context.quiet) {
    Output()
        .line(fmt::format(
            "discarded {}{}", done,
            args.output
                ? fmt::format("; {} in {}", letters == wanted ? "they are" : "all that were asked for are",
                              printable(*args.output))
                : ""))
        .flush();
  }
}

}  // namespace

int discard(const Context& context, DeadArguments& args) {
  require_export(args);
  const auto session =
      connect(context, args.group.dry_run ? redis::Needs::Access::read : redis::Needs::Access::write);
  const GroupPlace place = find_group(*session, args.group);
  args.selection.partitions = place.partitions;
  if (!args.group.yes && !args.group.dry_run) {
    fail(ErrorKind::usage,
         "this would discard dead letters of group {}, which are then handled by nobody: add --yes to do it, "
         "or "
         "--dry-run to see how many",
         args.group.group);
  }
  Discards discards = select_discards(*session, place, args);
  const std::uint64_t count = discards.count;
  const std::string what = fmt::format("{} of {}", letters_text(count), keys_text(discards.letters.size()));
  if (count == 0 || args.group.dry_run) {
    if (count == 0) {
      say(context,
          fmt::format("group {} of topic {} has no such dead letters", args.group.group, place.topic.name));
    } else {
      say_would(context, "would discard " + what, discards.letters.size(), count);
    }
    return 0;
  }
  std::string words = "dead discard" + selection_text(args);
  words += args.output ? " --export " + *args.output : std::string(" --no-export");
  Audit audit(*session, args.group, words);
  audit.begin(what);
  std::vector<Partition> partitions;
  for (const auto& [key, letters] : discards.letters) {
    if (partitions.empty() || partitions.back() != key.partition) {
      partitions.push_back(key.partition);
    }
  }
  OperatorLeases leases(*session, place.topic, args.group.group, operator_name() + " (dead discard)");
  const auto taken = leases.take(partitions);
  const Discards theirs = split_off(discards, [&](const KeyPlace& key) {
    return std::any_of(taken.refused.begin(), taken.refused.end(),
                       [&](const auto& refusal) { return refusal.partition == key.partition; });
  });
  Standings standings = split_off_moved(*session, place, args, discards);
  discard_letters(*session, place.topic, args.group.group, leases, discards);
  leases.release();
  standings.merge(discard_by_workers(context, *session, place, args, theirs));
  show_outcomes(context, args.group, standings, "discarded");
  std::uint64_t letters = discards.count;
  std::uint64_t keys = discards.letters.size();
  for (const auto& [key, standing] : standings) {
    if (standing.state == State::answered) {
      letters += theirs.letters.at(key).size();
      ++keys;
    }
  }
  const std::string done = fmt::format("{} of {}", letters_text(letters), keys_text(keys));
  show_discarded(context, args, done, letters, count);
  report_unanswered(context, standings, args);
  audit.done(done);
  return report_moved(context, standings, args);
}

}  // namespace continuum::app
