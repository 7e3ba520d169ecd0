// continuum inspect key: one key's life.
#include "commands.hpp"
#include "inspect_views.hpp"
#include "options.hpp"
#include "output.hpp"

#include "continuum/event.hpp"
#include "continuum/json.hpp"
#include "continuum/key_life.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>

namespace continuum::app {
namespace {

constexpr auto right = Table::Align::right;

struct Arguments {
  std::string key;
  std::uint64_t last = 10;
};

SystemTime time_of(EntryId id) {
  return SystemTime(Milliseconds(static_cast<std::int64_t>(id.milliseconds)));
}

// Of one handler's letters of the key: the first one says since when and why.
const DeadLetter* first_letter(const KeyStanding& standing, const HeldKey& held) {
  const auto found = std::find_if(standing.letters.begin(), standing.letters.end(),
                                  [&](const DeadLetter& letter) { return letter.whose == held.whose; });
  return found == standing.letters.end() ? nullptr : &*found;
}

std::string standing_text(const KeyStanding& standing, const KeyLife& life) {
  if (!standing.state) {
    return "not registered";
  }
  const auto waiting = std::count_if(life.events.begin(), life.events.end(), [&](const SeenEvent& event) {
    return event.partition == standing.partition && event.offset >= standing.state->cursor.offset;
  });
  if (life.events.empty()) {
    return {};
  }
  return waiting == 0 ? std::string("passed") : fmt::format("{} waiting", waiting);
}

// --- JSON

std::string standing_json(const KeyStanding& standing) {
  std::vector<std::string> held;
  for (const HeldKey& key : standing.handlers) {
    const DeadLetter* const first = first_letter(standing, key);
    JsonObject object;
    object.add("handler", key.whose.handler)
        .add("letters", key.letters)
        .add("held", key.held == HeldKey::Held::yes)
        .add("releasing", key.request.has_value());
    if (first != nullptr) {
      object.add("offset", first->offset)
          .add("since", format_time(first->time))
          .add("attempts", first->attempts)
          .add("reason", first->reason);
    }
    if (key.failure) {
      object.add("last_release_failed", format_time(key.failure->time))
          .add("last_release_reason", key.failure->reason);
    }
    held.push_back(object.text());
  }
  return JsonObject()
      .add("group", standing.group)
      .add("partition", standing.partition)
      .add("committed", standing.state ? std::optional(standing.state->cursor.offset.value) : std::nullopt)
      .add_raw("handlers", json_array(held))
      .text();
}

void print_json(Output& out, const std::string& topic, const std::string& key, const KeyLife& life) {
  std::vector<std::string> partitions;
  for (const auto& [generation, partition] : life.partitions) {
    partitions.push_back(JsonObject().add("generation", generation).add("partition", partition).text());
  }
  std::vector<std::string> groups;
  for (const KeyStanding& standing : life.standings) {
    groups.push_back(standing_json(standing));
  }
  out.line(JsonObject()
               .add("topic", topic)
               .add("key", key)
               .add_raw("partitions", json_array(partitions))
               .add_raw("groups", json_array(groups))
               .text());
  for (const SeenEvent& event : life.events) {
    JsonObject fates;
    for (const KeyStanding& standing : life.standings) {
      if (standing.partition == event.partition) {
        fates.add(standing.group, life.fate_of(standing, event.offset));
      }
    }
    out.line(JsonObject()
                 .add("partition", event.partition)
                 .add("offset", event.offset)
                 .add("stored", format_time(time_of(event.entry)))
                 .add_raw("groups", fates.text())
                 .add_raw("event", event.line)
                 .text());
  }
}

// --- tables

void print_places(Output& out, const KeyLife& life) {
  Table places({{"GENERATION", right}, {"PARTITION", right}});
  for (const auto& [generation, partition] : life.partitions) {
    places.row({generation.value, partition.value});
  }
  places.print(out);
}

void print_standings(Output& out, const KeyLife& life) {
  Table table({{"GROUP"},
               {"PARTITION", right},
               {"COMMITTED", right},
               {"STANDS"},
               {"HANDLER"},
               {"LETTERS", right},
               {"SINCE"},
               {"ATTEMPTS", right},
               {"REASON"}});
  for (const KeyStanding& standing : life.standings) {
    const std::string committed =
        standing.state ? std::to_string(standing.state->cursor.offset.value) : std::string();
    if (standing.handlers.empty()) {
      table.row({standing.group, standing.partition.value, committed, standing_text(standing, life), "", "",
                 "", "", ""});
    }
    for (const HeldKey& key : standing.handlers) {
      const DeadLetter* const first = first_letter(standing, key);
      const std::string_view stands = key.request                      ? "releasing"
                                      : key.held == HeldKey::Held::yes ? "held"
                                                                       : "skipped";
      table.row({standing.group, standing.partition.value, committed, stands, key.whose.handler, key.letters,
                 first == nullptr ? std::string() : format_time(first->time),
                 first == nullptr ? std::string() : std::to_string(first->attempts),
                 key.failure        ? key.failure->reason
                 : first == nullptr ? std::string()
                                    : first->reason});
    }
  }
  table.print(out);
}

void print_events(Output& out, const KeyLife& life) {
  Table table({{"PARTITION", right}, {"OFFSET", right}, {"STORED"}, {"TYPE"}, {"ID"}, {"GROUPS"}});
  std::string scratch;
  const auto text_of = [&](std::string_view raw) {
    return std::string(json::unescape(raw, scratch).value_or(raw));
  };
  for (const SeenEvent& event : life.events) {
    const Attributes attributes = attributes_of(event.line);
    std::string fates;
    for (const KeyStanding& standing : life.standings) {
      if (standing.partition == event.partition) {
        fates += fmt::format("{}{} {}", fates.empty() ? "" : "; ", standing.group,
                             life.fate_of(standing, event.offset));
      }
    }
    table.row({event.partition.value, std::to_string(event.offset.value), format_time(time_of(event.entry)),
               text_of(attributes.type), text_of(attributes.id), fates});
  }
  table.print(out);
}

int show_key(const Context& context, const std::string& name, const Arguments& args) {
  const auto session = connect(context, redis::Needs::Access::read);
  const Topic topic = load_topic(*session, name);
  const KeyLife life = life_of(*session, topic, args.key, args.last);
  Output out;
  if (context.json) {
    print_json(out, name, args.key, life);
  } else {
    print_places(out, life);
    out.line("");
    print_standings(out, life);
    out.line("");
    print_events(out, life);
  }
  out.flush();
  if (life.events.empty() && args.last > 0) {
    say(context, fmt::format("topic {} has no events of key {}", name, printable(args.key)));
  }
  return 0;
}

}  // namespace

void add_inspect_key(CLI::App& parent, Context& context, const SharedTopic& topic) {
  auto& command =
      add_subcommand(parent, "key", "one key: its partitions, its events, where each group stands");
  command.footer("-t TOPIC is required.");
  const auto args = std::make_shared<Arguments>();
  command.add_option("KEY", args->key, "the key")->required();
  add_number(command, "-n,--last", args->last, {0, last_events_max}, "the last so many events (10)");
  run_with(command, context,
           [&context, topic, args] { return show_key(context, require_topic(*topic), *args); });
}

}  // namespace continuum::app
