// continuum topic: create, list, change and drop topics.
#include "continuum/topic.hpp"

#include "commands.hpp"
#include "options.hpp"
#include "output.hpp"
#include "ring_choice.hpp"
#include "topic_trim.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/names.hpp"

#include <CLI/CLI.hpp>

#include <memory>
#include <numeric>

namespace continuum::app {
namespace {

using redis::Needs;

constexpr std::uint32_t partitions_if_unsaid = 8;

// The name may be given as `NAME` or as `-t NAME`.
void add_name(CLI::App& command, std::string& name) {
  const auto parse = [&name](const std::string& text) {
    require_name("topic", text);
    if (!name.empty() && name != text) {
      fail(ErrorKind::usage, "another topic, {}, is named, too", name);
    }
    name = text;
  };
  add_parsed(command, "NAME", "", "the topic", parse);
  add_parsed(command, "-t,--topic", "NAME", "the topic", parse);
}

void require_named(const std::string& name) {
  if (name.empty()) {
    fail(ErrorKind::usage, "which topic? Give NAME or -t NAME");
  }
}

std::uint64_t events_of(redis::Session& session, const Topic& topic) {
  const auto stored = stored_events(session, topic);
  return std::accumulate(stored.begin(), stored.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const StoredEvents& s) { return sum + (s.next - s.first); });
}

// --- create

struct CreateOptions {
  std::string name;
  NewRing ring;
  TopicSettings settings;
};

std::string retention_text(const TopicSettings& settings) {
  std::string text;
  for (const auto& [name, value] : texts_of_limits(settings)) {
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", name, value);
  }
  return text.empty() ? "none" : text;
}

// As they are stored: milliseconds and bytes, null for none.
JsonObject& add_retention(JsonObject& object, const TopicSettings& settings) {
  const auto ms = [](std::optional<Milliseconds> time) {
    return time ? std::optional(time->count()) : std::nullopt;
  };
  return object.add("retention_ms", ms(settings.retention))
      .add("retention_bytes", settings.retention_bytes)
      .add("stall_limit_ms", ms(settings.stall_limit));
}

// What the caller asked for and the topic that is there do not agree on; empty when they agree.
std::string difference(const CreateOptions& wanted, const RingDescription& ring, const Topic& topic) {
  if (topic.ring() != ring) {
    return fmt::format("its ring is {}, not {}: take another name", topic.ring().text(), ring.text());
  }
  if (topic.settings.frames != wanted.settings.frames) {
    return fmt::format("its frames are {}, not {}: `continuum topic set` changes that",
                       name_of(topic.settings.frames), name_of(wanted.settings.frames));
  }
  if (topic.settings.event_bytes_max != wanted.settings.event_bytes_max) {
    return fmt::format("its event_bytes_max is {}, not {}: `continuum topic set` changes that",
                       topic.settings.event_bytes_max, wanted.settings.event_bytes_max);
  }
  const bool asks_for_other =
      (wanted.settings.retention && wanted.settings.retention != topic.settings.retention) ||
      (wanted.settings.retention_bytes && wanted.settings.retention_bytes != topic.settings.retention_bytes);
  if (asks_for_other) {
    return fmt::format("its retention is {}, not {}: `continuum topic set` changes that",
                       retention_text(topic.settings), retention_text(wanted.settings));
  }
  return {};
}

int create(const Context& context, const CreateOptions& options) {
  require_named(options.name);
  const auto ring = options.ring.describe(partitions_if_unsaid);
  const auto session = connect(context, Needs::Access::write);
  warn_of_loss(context, *session);
  const auto created = create_topic(*session, options.name, ring, options.settings);
  const auto topic = load_topic(*session, options.name);
  if (const auto differs = difference(options, ring, topic); !differs.empty()) {
    fail(ErrorKind::usage, "topic {} exists, and {}", options.name, differs);
  }
  Output out;
  const std::string_view status = created == Created::created ? "created" : "exists";
  if (context.json) {
    out.line(JsonObject()
                 .add("topic", topic.name)
                 .add("status", status)
                 .add("partitions", topic.ring().members.size())
                 .add("ring", topic.ring().text())
                 .text());
  } else if (!context.quiet) {
    out.line(fmt::format("topic {} {}: {} partition{}", topic.name, status, topic.ring().members.size(),
                         topic.ring().members.size() == 1 ? "" : "s"));
  }
  out.flush();
  return 0;
}

void add_create(CLI::App& command, Context& context) {
  auto& create_command =
      add_subcommand(command, "create", "create a topic; one that exists as described is fine");
  const auto options = std::make_shared<CreateOptions>();
  add_name(create_command, options->name);
  add_number(create_command, "-p,--partitions", options->ring.partitions, {1, partitions_max},
             "how many (8, or as many as there are node names)");
  add_new_ring_options(create_command, options->ring, "fixed for good: ");
  add_parsed(create_command, "--frames", "auto|plain|single",
             "how events are kept: compressed in batches, as text, one an entry",
             [options](const std::string& text) { apply_setting(options->settings, "frames=" + text); });
  add_parsed(
      create_command, "--event-bytes-max", "SIZE", "the longest event that is taken (1MiB)",
      [options](const std::string& text) { apply_setting(options->settings, "event_bytes_max=" + text); });
  add_parsed(create_command, "--retention", "D",
             "how long events are kept that every group has handled (for ever)",
             [options](const std::string& text) { apply_setting(options->settings, "retention=" + text); });
  add_parsed(
      create_command, "--retention-bytes", "SIZE",
      "how much Redis memory each partition's log may take; what was not handled is kept (any)",
      [options](const std::string& text) { apply_setting(options->settings, "retention_bytes=" + text); });
  run_with(create_command, context, [&context, options] { return create(context, *options); });
}

// --- ls

int list(const Context& context) {
  const auto session = connect(context, Needs::Access::read);
  Table table({{"TOPIC"},
               {"PARTITIONS", Table::Align::right},
               {"EVENTS", Table::Align::right},
               {"GROUPS", Table::Align::right},
               {"GENERATION", Table::Align::right},
               {"RING"},
               {"FRAMES"},
               {"CREATED"}});
  Output out;
  for (const auto& name : list_topics(*session)) {
    const auto topic = find_topic(*session, name);
    if (!topic) {
      try {
        (void)load_topic(*session, name);
      } catch (const Error& error) {
        say(context, error.message());  // what is to be done about it
      }
      continue;
    }
    const auto events = events_of(*session, *topic);
    const auto created = format_time(topic->created);
    const std::size_t partitions = topic->ring().members.size();
    if (context.json) {
      JsonObject object;
      object.add("topic", name)
          .add("partitions", partitions)
          .add("events", events)
          .add("groups", topic->groups.size())
          .add("generation", topic->active)
          .add("ring", topic->ring().text())
          .add("frames", name_of(topic->settings.frames))
          .add("event_bytes_max", topic->settings.event_bytes_max);
      out.line(add_retention(object, topic->settings).add("created", created).text());
    } else {
      table.row({name, partitions, events, topic->groups.size(), topic->active.value, topic->ring().text(),
                 name_of(topic->settings.frames), created});
    }
  }
  if (!context.json) {
    table.print(out);
  }
  out.flush();
  return 0;
}

// --- set

struct SetOptions {
  std::string name;
  std::vector<std::string> assignments;
};

int set(const Context& context, const SetOptions& options) {
  const auto session = connect(context, Needs::Access::write);
  const auto topic = load_topic(*session, options.name);
  auto settings = topic.settings;
  for (const auto& assignment : options.assignments) {
    apply_setting(settings, assignment);
  }
  set_topic(*session, topic, settings);
  Output out;
  if (context.json) {
    JsonObject object;
    object.add("topic", topic.name)
        .add("frames", name_of(settings.frames))
        .add("event_bytes_max", settings.event_bytes_max);
    out.line(add_retention(object, settings).text());
  } else if (!context.quiet) {
    std::string text = fmt::format("topic {}: frames={} event_bytes_max={}", topic.name,
                                   name_of(settings.frames), settings.event_bytes_max);
    for (const auto& [setting, value] : texts_of_limits(settings)) {
      text += fmt::format(" {}={}", setting, value);
    }
    out.line(text);
  }
  out.flush();
  return 0;
}

// --- drop

struct DropOptions {
  std::string name;
  bool yes = false;
  bool dry_run = false;
};

int drop(const Context& context, const DropOptions& options) {
  require_named(options.name);
  const auto session = connect(context, Needs::Access::write);
  // Not load_topic: what is left of a drop that was killed has to go, too.
  const auto topic = find_topic(*session, options.name);
  const auto all = list_topics(*session);
  if (!topic && std::ranges::find(all, options.name) == all.end() && !options.yes) {
    fail(ErrorKind::usage, "there is no topic {} on {}{}", options.name, session->address().text(),
         hint_of(options.name, all));
  }
  if (!options.yes || options.dry_run) {
    const auto what =
        topic ? fmt::format("topic {}: {} partitions, {} groups", options.name, topic->partitions().size(),
                            topic->groups.size())
              : fmt::format("topic {}, whose creation or restoring was not finished", options.name);
    if (!options.dry_run) {
      fail(ErrorKind::usage, "this would delete {}, and every event in it, for good: add --yes to do it",
           what);
    }
    Output().line("would delete " + what).flush();
    return 0;
  }
  const auto deleted = drop_topic(*session, options.name);
  if (deleted == 0) {
    fail(ErrorKind::usage, "there is no topic {} on {}{}", options.name, session->address().text(),
         hint_of(options.name, all));
  }
  Output out;
  if (context.json) {
    out.line(JsonObject().add("topic", options.name).add("status", "dropped").add("keys", deleted).text());
  } else if (!context.quiet) {
    out.line(fmt::format("topic {} dropped: {} keys deleted", options.name, deleted));
  }
  out.flush();
  return 0;
}

}  // namespace

void add_topic(CLI::App& command, Context& context) {
  auto& list_command = add_subcommand(command, "ls", "list the topics");
  run_with(list_command, context, [&context] { return list(context); });

  add_create(command, context);

  auto& set_command = add_subcommand(command, "set", "change settings of a topic");
  const auto changes = std::make_shared<SetOptions>();
  add_topic_option(set_command, changes->name);
  set_command
      .add_option("SETTING", changes->assignments,
                  "NAME=VALUE: frames=auto|plain|single, event_bytes_max=SIZE, retention=D|none, "
                  "retention_bytes=SIZE|none (of each partition), stall_limit=D|none")
      ->required();
  run_with(set_command, context, [&context, changes] { return set(context, *changes); });

  add_topic_trim(command, context);

  auto& drop_command = add_subcommand(command, "drop", "delete a topic with all its events and groups");
  const auto victim = std::make_shared<DropOptions>();
  add_name(drop_command, victim->name);
  add_flag(drop_command, "-y,--yes", victim->yes, "do it");
  add_flag(drop_command, "-n,--dry-run", victim->dry_run, "say what would be deleted");
  run_with(drop_command, context, [&context, victim] { return drop(context, *victim); });
}

}  // namespace continuum::app
