// continuum handlers: look at a directory of handlers before a worker does.
#include "commands.hpp"
#include "options.hpp"
#include "output.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/handler_directory.hpp"
#include "continuum/handler_file.hpp"
#include "continuum/json.hpp"
#include "continuum/tail.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>

namespace continuum::app {
namespace {

namespace fs = std::filesystem;

// --- can it be run?

std::string search_path(const HandlerSpec& spec) {
  const auto own = std::ranges::find(spec.environment, "PATH", &std::pair<std::string, std::string>::first);
  if (own != spec.environment.end()) {
    return own->second;
  }
  const char* const path = std::getenv("PATH");
  return path == nullptr ? "/usr/local/bin:/usr/bin:/bin" : path;
}

// Why execve would refuse `path`; empty when it would not.
std::string why_not_executable(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) {
    return error ? error.message() : "there is no such file";
  }
  if (!fs::is_regular_file(path, error)) {
    return "it is not a file";
  }
  if (::access(path.c_str(), X_OK) != 0) {
    return errno == EACCES ? "it is not executable (chmod +x)" : std::strerror(errno);
  }
  return {};
}

// A first line that the system cannot follow is found out by nobody but execve. Empty when it can.
std::string why_not_script(const std::string& path) {
  std::array<char, 256> bytes{};
  std::ifstream in(path, std::ios::binary);
  in.read(bytes.data(), bytes.size());
  const std::string_view start(bytes.data(), static_cast<std::size_t>(in.gcount()));
  if (!start.starts_with("#!")) {
    // Programs, whatever their form, have bytes that no text has. (Unreadable ones are programs, too.)
    const bool is_text = start.find('\0') == std::string_view::npos && !start.starts_with("\x7f");
    return is_text && in.gcount() > 0 ? "it is a script without a first line such as #!/bin/sh" : "";
  }
  const std::string_view line = start.substr(2, start.find('\n') - 2);
  const auto begin = std::min(line.find_first_not_of(" \t"), line.size());
  const std::string interpreter(line.substr(begin, line.find_first_of(" \t", begin) - begin));
  if (line.ends_with('\r')) {
    return "its first line ends with a carriage return, as files from Windows do";
  }
  const auto why = why_not_executable(interpreter);
  return why.empty() ? why : fmt::format("its first line names {}: {}", interpreter, why);
}

// Empty when the program can be started.
std::string why_not_runnable(const HandlerSpec& spec) {
  std::error_code error;
  if (!spec.working_directory.empty() && !fs::is_directory(spec.working_directory, error)) {
    return fmt::format("working_directory {}: there is no such directory", spec.working_directory);
  }
  const std::string& program = spec.command.front();
  std::string found;
  std::string why;
  if (program.find('/') != std::string::npos) {
    found = (fs::path(spec.working_directory) / program).lexically_normal().string();
    why = why_not_executable(found);
  } else {
    why = "it is in no directory of PATH; a program beside the handler's file is ./" + program +
          " with working_directory = \".\"";
    const std::string path = search_path(spec);
    for (std::size_t at = 0; at <= path.size() && !why.empty();) {
      const auto colon = std::min(path.find(':', at), path.size());
      found = (fs::path(spec.working_directory) / path.substr(at, colon - at) / program).string();
      if (why_not_executable(found).empty()) {
        why.clear();
      } else {
        found.clear();
      }
      at = colon + 1;
    }
  }
  if (why.empty()) {
    why = why_not_script(found);
  }
  return why.empty() ? why : fmt::format("command {}: {}", found.empty() ? program : found, why);
}

// Programs that keep what they print until a buffer is full, and what makes them not do so. Mode stream would
// wait for their verdicts.
std::string hint_of_buffering(const HandlerSpec& spec) {
  struct Known {
    std::string_view program;
    std::string_view option;
  };
  constexpr std::array known{Known{"python", "-u"}, Known{"jq", "--unbuffered"}, Known{"sed", "-u"},
                             Known{"grep", "--line-buffered"}, Known{"mawk", "-W interactive"}};
  if (spec.mode != HandlerMode::stream) {
    return {};
  }
  const std::string program = fs::path(spec.command.front()).filename().string();
  const auto found =
      std::ranges::find_if(known, [&](const Known& one) { return program.starts_with(one.program); });
  const auto has = [&](std::string_view word) {
    return std::ranges::find(spec.command, word) != spec.command.end();
  };
  const auto is_set = [&](const auto& variable) { return variable.first == "PYTHONUNBUFFERED"; };
  if (found == known.end() || has(found->option.substr(0, found->option.find(' '))) ||
      std::ranges::any_of(spec.environment, is_set)) {
    return {};
  }
  return fmt::format(
      "handler {}: {} keeps verdicts back while it is a pipe that it prints to: give it {}, or "
      "flush after each",
      spec.name, program, found->option);
}

// --- check: what it shows

constexpr std::uint64_t last_default = 10'000;

struct CheckOptions {
  std::string directory;
  std::string topic;
  std::optional<std::uint64_t> last;
};

// Events by type.
using Counts = std::map<std::string, std::uint64_t>;

struct Stored {
  std::uint64_t events = 0;
  Counts types;
};

Stored count_types(const Context& context, const CheckOptions& options) {
  const auto session = connect(context, redis::Needs::Access::read);
  const Topic topic = load_topic(*session, options.topic);
  Stored stored;
  std::string scratch;
  for (const SeenEvent& event :
       last_events(*session, topic, {{}, {}, options.last.value_or(last_default), std::nullopt}).events) {
    const auto raw = attributes_of(event.line).type;
    ++stored.types[std::string(json::unescape(raw, scratch).value_or(raw))];
    ++stored.events;
  }
  return stored;
}

struct Checked {
  HandlerFile file;
  std::vector<std::string> problems;
  Counts receives;
};

Checked check_file(HandlerFile file, const Counts& types) {
  Checked checked{std::move(file), {}, {}};
  if (!checked.file.spec) {
    std::string_view rest = checked.file.problem;
    for (std::size_t end = 0; !rest.empty(); rest.remove_prefix(std::min(end + 1, rest.size()))) {
      end = std::min(rest.find('\n'), rest.size());
      checked.problems.emplace_back(rest.substr(0, end));
    }
    return checked;
  }
  const HandlerSpec& spec = *checked.file.spec;
  if (spec.enabled && spec.mode != HandlerMode::http) {
    if (const auto why = why_not_runnable(spec); !why.empty()) {
      checked.problems.push_back(fmt::format("{}: {}", checked.file.path, why));
    }
  }
  for (const auto& [type, events] : types) {
    const auto takes = [&](const std::string& glob) { return glob_matches(glob, type); };
    if (spec.enabled && (spec.types.empty() || std::ranges::any_of(spec.types, takes))) {
      checked.receives.emplace(type, events);
    }
  }
  return checked;
}

std::string command_text(const HandlerSpec& spec) {
  std::string text = spec.url;
  for (const std::string& word : spec.command) {
    text += text.empty() ? "" : " ";
    const bool is_plain = !word.empty() && word.find_first_of(" \t\n'\"\\$") == std::string::npos;
    text += is_plain ? word : fmt::format("'{}'", word);
  }
  return text;
}

std::string types_text(const HandlerSpec& spec) {
  return spec.types.empty() ? "*" : fmt::format("{}", fmt::join(spec.types, ","));
}

constexpr auto right = Table::Align::right;

void print_handlers(const std::vector<Checked>& all) {
  Table table({{"NAME"},
               {"MODE"},
               {"TYPES"},
               {"COMMAND"},
               {"TIMEOUT", right},
               {"ATTEMPTS", right},
               {"ON_FAILURE"},
               {"CONCURRENCY", right},
               {"ENABLED"}});
  for (const Checked& one : all) {
    if (!one.file.spec) {
      std::vector<Cell> cells{one.file.name};
      cells.insert(cells.end(), 7, Cell(""));
      cells.emplace_back(std::string("BROKEN"), Colour::red);
      table.row(std::move(cells));
      continue;
    }
    const HandlerSpec& spec = *one.file.spec;
    table.row({spec.name, name_of(spec.mode), types_text(spec), command_text(spec),
               spec.timeout ? format_duration(*spec.timeout) : std::string(), spec.attempts_max,
               name_of(spec.on_failure), spec.concurrency, spec.enabled ? "yes" : "no"});
  }
  Output out;
  table.print(out);
  out.flush();
}

void print_events(const std::vector<Checked>& all, const Counts& unhandled) {
  Table table({{"HANDLER"}, {"TYPE"}, {"EVENTS", right}});
  for (const Checked& one : all) {
    for (const auto& [type, count] : one.receives) {
      table.row({one.file.name, type, count});
    }
    if (one.receives.empty() && one.file.spec && one.file.spec->enabled) {
      table.row({one.file.name, "", std::uint64_t{0}});
    }
  }
  for (const auto& [type, count] : unhandled) {
    table.row({"", type, count});
  }
  Output out;
  out.line("");
  table.print(out);
  out.flush();
}

std::string counts_json(const Counts& counts) {
  std::string text;
  for (const auto& [type, count] : counts) {
    text += fmt::format("{}{}:{}", text.empty() ? "" : ",", json::quoted(type), count);
  }
  return "{" + text + "}";
}

std::string texts_json(const std::vector<std::string>& texts) {
  std::vector<std::string> quoted;
  quoted.reserve(texts.size());
  for (const std::string& text : texts) {
    quoted.push_back(json::quoted(text));
  }
  return json_array(quoted);
}

double seconds_of(Milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

// The events only if they were counted.
std::string json_of(const Checked& one, const std::optional<Stored>& stored) {
  JsonObject object;
  object.add("handler", one.file.name).add("path", one.file.path);
  if (one.file.spec) {
    const HandlerSpec& spec = *one.file.spec;
    object.add("mode", name_of(spec.mode))
        .add_raw("types", texts_json(spec.types))
        .add_raw("command", texts_json(spec.command))
        .add("url", spec.url.empty() ? std::nullopt : std::optional(spec.url))
        .add("timeout_seconds", spec.timeout ? std::optional(seconds_of(*spec.timeout)) : std::nullopt)
        .add("attempts", spec.attempts_max)
        .add("on_failure", name_of(spec.on_failure))
        .add("concurrency", spec.concurrency)
        .add("enabled", spec.enabled);
    if (stored) {
      object.add_raw("events", counts_json(one.receives));
    }
  }
  return object.add_raw("problems", texts_json(one.problems)).text();
}

void print_json(const std::vector<Checked>& all, const std::optional<Stored>& stored,
                const Counts& unhandled) {
  Output out;
  JsonObject summary;
  summary.add("handlers", all.size());
  summary.add("broken", std::ranges::count_if(all, [](const Checked& one) { return !one.problems.empty(); }));
  if (stored) {
    summary.add("events", stored->events).add_raw("unhandled", counts_json(unhandled));
  }
  for (const Checked& one : all) {
    out.line(json_of(one, stored));
  }
  out.line(JsonObject().add_raw("summary", summary.text()).text()).flush();
}

// --- check

int check_directory(const Context& context, const CheckOptions& options) {
  if (options.last && options.topic.empty()) {
    fail(ErrorKind::usage, "--last is about the events of a topic: give -t TOPIC, too");
  }
  auto files = read_handler_files(options.directory);
  std::vector<std::string> problems;
  std::optional<Error> not_counted;
  std::optional<Stored> stored;
  if (!options.topic.empty()) {
    try {
      stored = count_types(context, options);
    } catch (const Error& error) {
      // What is wrong with the handlers is worth knowing all the same.
      not_counted = error;
    }
  }
  std::vector<Checked> all;
  const Counts types = stored ? stored->types : Counts();
  Counts unhandled = types;
  bool is_any_enabled = false;
  for (HandlerFile& file : files) {
    all.push_back(check_file(std::move(file), types));
    const Checked& one = all.back();
    is_any_enabled = is_any_enabled || !one.file.spec || one.file.spec->enabled;
    for (const std::string& problem : one.problems) {
      problems.push_back(problem);
    }
    for (const auto& [type, events] : one.receives) {
      unhandled.erase(type);
    }
    if (one.file.spec && one.problems.empty()) {
      if (const auto hint = hint_of_buffering(*one.file.spec); !hint.empty()) {
        say(context, hint);
      }
    }
  }
  if (all.empty()) {
    problems.push_back(
        fmt::format("{}: has no handlers: there is no file that ends in .toml", options.directory));
  } else if (!is_any_enabled) {
    problems.push_back(
        fmt::format("{}: no handler is enabled: all events would be passed over", options.directory));
  }
  if (context.json) {
    print_json(all, stored, unhandled);
  } else {
    print_handlers(all);
    if (stored) {
      print_events(all, unhandled);
    }
  }
  for (const auto& [type, events] : unhandled) {
    say(context, fmt::format("no handler takes events of type {}: {} of the newest {} of topic {}", type,
                             format_count(events), format_count(stored->events), options.topic));
  }
  const auto kind = problems.empty() && not_counted ? not_counted->kind() : ErrorKind::usage;
  if (not_counted) {
    problems.push_back(not_counted->message());
  }
  if (!problems.empty()) {
    throw Error(kind, fmt::format("{}", fmt::join(problems, "\n")));
  }
  return 0;
}

void add_check(CLI::App& command, Context& context) {
  const auto options = std::make_shared<CheckOptions>();
  command.add_option("DIR", options->directory, "the directory; its *.toml files are handlers")->required();
  add_topic_option(command, options->topic)
      ->required(false)
      ->description("also say what each would receive of this topic's newest events");
  add_number(command, "-n,--last", options->last, {1, last_events_max},
             "with -t: how many of them to look at (10000)");
  run_with(command, context, [&context, options] { return check_directory(context, *options); });
}

}  // namespace

void add_handlers(CLI::App& command, Context& context) {
  add_check(add_subcommand(command, "check", "whether a worker could use them, and what each would receive"),
            context);
  add_handlers_try(
      add_subcommand(command, "try", "what a handler says of an event, or of history; nothing moves"),
      context);
}

}  // namespace continuum::app
