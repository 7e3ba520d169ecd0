// continuum inspect events: the end of a topic.
#include "commands.hpp"
#include "inspect_views.hpp"
#include "options.hpp"
#include "output.hpp"
#include "selectors.hpp"

#include "continuum/event.hpp"
#include "continuum/json.hpp"
#include "continuum/names.hpp"
#include "continuum/replay.hpp"
#include "continuum/tail.hpp"

#include <CLI/CLI.hpp>

namespace continuum::app {
namespace {

constexpr auto right = Table::Align::right;

struct EventOptions {
  std::string topic;
  std::optional<std::uint64_t> last;
  std::vector<Partition> partitions;
  EventFilter::Options filter;
  TimeRange time;
  bool follow = false;
};

// Shows events: a table for a person, JSON for programs. Followed events cannot wait for the width of their
// columns, so that a person gets columns of fixed widths for them.
class EventPrinter {
 public:
  enum class Mode : std::uint8_t { json, table, rows };
  explicit EventPrinter(Mode mode) : mode_(mode) {
    if (mode_ == Mode::rows) {
      out_.line(row("PARTITION", "OFFSET", "TIME", "TYPE", "KEY", "ID"));
    }
  }

  void add(const SeenEvent& event) {
    if (mode_ == Mode::json) {
      text_.clear();
      const std::string line = event.line + "\n";
      append_events(text_, {event.partition, event.generation, event.entry, event.offset, 1, line},
                    EventForm::with_place);
      out_.write(text_);
      return;
    }
    const Attributes attributes = attributes_of(event.line);
    const std::string time =
        format_time(SystemTime(Milliseconds(static_cast<std::int64_t>(event.entry.milliseconds))));
    if (mode_ == Mode::table) {
      table_.row({event.partition.value, std::to_string(event.offset.value), time, value_of(attributes.type),
                  value_of(attributes.partitionkey), value_of(attributes.id)});
    } else {
      out_.line(row(std::to_string(event.partition.value), std::to_string(event.offset.value), time,
                    printable(value_of(attributes.type)), printable(value_of(attributes.partitionkey)),
                    printable(value_of(attributes.id))));
    }
  }

  void flush() {
    if (mode_ == Mode::table) {
      table_.print(out_);
    }
    out_.flush();
  }

 private:
  static std::string row(std::string_view partition, std::string_view offset, std::string_view time,
                         std::string_view type, std::string_view key, std::string_view id) {
    return fmt::format("{:>9}  {:>10}  {:<24}  {:<20}  {:<20}  {}", partition, offset, time, type, key, id);
  }

  // The bytes of a string, or the text of what is none.
  std::string value_of(std::string_view raw) {
    return std::string(json::unescape(raw, scratch_).value_or(raw));
  }

  Mode mode_;
  Output out_;
  Table table_{{{"PARTITION", right}, {"OFFSET", right}, {"TIME"}, {"TYPE"}, {"KEY"}, {"ID"}}};
  std::string text_;
  std::string scratch_;
};

// All events of the range. Returns where they end.
std::vector<LogPlace> print_since(redis::Session& session, const Topic& topic, const EventOptions& options,
                                  const RangeOptions& range, EventPrinter& printer) {
  ReplayOptions wanted;
  wanted.partitions = options.partitions;
  wanted.filter = options.filter;
  wanted.range = range;
  Replay replay(session, topic, std::move(wanted));
  while (const auto run = replay.next()) {
    std::string_view rest = run->lines;
    for (Offset offset = run->first; !rest.empty(); ++offset) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(line.size() + 1);
      printer.add({run->partition, run->generation, run->entry, offset, std::string(line)});
    }
  }
  return replay.ends();
}

int events(const Context& context, const EventOptions& options) {
  using Mode = EventPrinter::Mode;
  const bool is_for_person = !context.json && is_terminal(Stream::out);
  const auto session = connect(context, redis::Needs::Access::read);
  RangeOptions range;
  resolve(options.time, *session, range);
  const Topic topic = load_topic(*session, options.topic);
  EventPrinter printer(!is_for_person ? Mode::json : options.follow ? Mode::rows : Mode::table);
  std::vector<LogPlace> ends;
  if (options.time.since && !options.last) {
    ends = print_since(*session, topic, options, range, printer);
  } else {
    Tail tail = last_events(*session, topic,
                            {options.partitions, options.filter, options.last.value_or(10), range.since});
    for (const SeenEvent& event : tail.events) {
      printer.add(event);
    }
    ends = std::move(tail.ends);
  }
  printer.flush();
  if (!options.follow) {
    return 0;
  }
  Follower follower(*session, topic, options.partitions, options.filter, ends);
  for (;;) {  // until a signal ends us
    for (const SeenEvent& event : follower.next(Milliseconds(1000))) {
      printer.add(event);
    }
    printer.flush();
  }
}

}  // namespace

void add_inspect_events(CLI::App& parent, Context& context, const SharedTopic& topic) {
  auto& command = add_subcommand(parent, "events", "the last events, and those that come");
  const auto options = std::make_shared<EventOptions>();
  command.footer("-t TOPIC is required.");
  add_number(command, "-n,--last", options->last, {0, last_events_max},
             "the last so many events that match (default: 10; with --since: all)");
  add_parsed(command, "--since", "TIME", "none stored before then: a time, or how long ago (2h)",
             [options](const std::string& text) { options->time.since = parse_moment(text); });
  add_parsed(command, "-p,--partition", "LIST", "only these partitions: 3, or 0,2,5-7 (default: all)",
             [options](const std::string& text) { options->partitions = parse_partition_list(text); });
  add_text(command, "-k,--key", "KEY", options->filter.key, "only events of this key");
  add_texts(command, "--type", "GLOB", options->filter.types,
            "only events of types that match; may be repeated");
  add_flag(command, "-f,--follow", options->follow, "then go on with what is stored from now on");
  run_with(command, context, [&context, options, topic] {
    options->topic = require_topic(*topic);
    return events(context, *options);
  });
}

}  // namespace continuum::app
