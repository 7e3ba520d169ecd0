#include "commands.hpp"

#include "options.hpp"
#include "output.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <vector>

namespace continuum::app {
namespace {

constexpr std::array table{
    Command{"publish", "store events: JSON lines from stdin, files, or --data", add_publish},
    Command{"work", "hand events to a handler, or print them; one worker at a time per partition", add_work},
    Command{"handlers", "check a directory of handlers before a worker uses it", add_handlers},
    Command{"archive", "verify, list, repair and restore an archive on disk", add_archive},
    Command{"replay", "stored events again, by time, offset, key, type or value", add_replay},
    Command{"cursor", "list and remove the cursors of replays", add_cursor},
    Command{"inspect", "look at partitions, groups and events, changing nothing", add_inspect},
    Command{"dead", "events that failed: look at them, have them handled again, discard them", add_dead},
    Command{"group", "pause, resume, move and remove groups", add_group},
    Command{"topic", "create, list, change and drop topics", add_topic},
    Command{"ring", "show how keys are placed on partitions", add_ring},
    Command{"local", "start, stop and look at the embedded server", add_local},
};

std::string overview() {
  std::string text =
      "Usage: continuum COMMAND [OPTIONS]\n\n"
      "Ordered, partitioned, replayable events on the Redis you already run.\n\n"
      "Commands:\n";
  for (const auto& command : table) {
    text += fmt::format("  {:<10} {}\n", command.name, command.summary);
  }
  text +=
      "\nOptions:\n"
      "  -h, --help     this, or a command's options: continuum COMMAND -h\n"
      "  --version      the version\n";
  return text;
}

// Where the command stands in the arguments: behind options that come before it.
std::size_t command_index(std::span<const std::string> arguments) {
  constexpr std::array takes_value{"-u", "--redis", "--password-file"};
  std::size_t i = 0;
  while (i < arguments.size() && arguments[i].starts_with('-')) {
    const bool value = std::ranges::find(takes_value, arguments[i]) != takes_value.end();
    i += value ? 2 : 1;
  }
  return std::min(i, arguments.size());
}

std::vector<std::string> names_of(std::span<const Command> all) {
  std::vector<std::string> names;
  for (const auto& command : all) {
    names.emplace_back(command.name);
  }
  return names;
}

// The innermost command that was named.
const CLI::App& innermost(const CLI::App& command) {
  const auto named = command.get_subcommands();
  return named.empty() ? command : innermost(*named.front());
}

std::vector<std::string> option_names(const CLI::App* command) {
  std::vector<std::string> names;
  for (; command != nullptr; command = command->get_parent()) {
    for (const auto* option : command->get_options()) {
      for (const auto& name : option->get_lnames()) {
        names.push_back("--" + name);
      }
    }
  }
  return names;
}

std::string full_name(const CLI::App& command) {
  const auto* parent = command.get_parent();
  return parent == nullptr ? command.get_name() : full_name(*parent) + " " + command.get_name();
}

// Words that CLI11 could not place come first: they usually explain why something else is missing.
[[noreturn]] void explain(const CLI::App& root, const CLI::ParseError& error) {
  const auto& command = innermost(root);
  const auto see = fmt::format("; see `{} -h`", full_name(command));
  for (const auto& word : root.remaining(true)) {
    if (word.size() > 1 && word.front() == '-' && word != "--") {
      const auto name = word.substr(0, word.find('='));
      const auto names = option_names(&command);
      const auto near = nearest(name, names);
      fail(ErrorKind::usage, "unknown option {}{}", printable(name),
           near.empty() ? see : fmt::format("; did you mean {}?", near));
    }
  }
  std::vector<std::string> subcommands;
  for (const auto* subcommand : command.get_subcommands([](const CLI::App*) { return true; })) {
    subcommands.push_back(subcommand->get_name());
  }
  for (const auto& word : root.remaining(true)) {
    if (!subcommands.empty()) {
      fail(ErrorKind::usage, "unknown command `{} {}`{}", full_name(command), printable(word),
           hint_of(word, subcommands));
    }
    fail(ErrorKind::usage, "\"{}\" is one argument too many{}", printable(word), see);
  }
  if (!subcommands.empty()) {
    fail(ErrorKind::usage, "`{}` needs one of: {}", full_name(command), fmt::join(subcommands, ", "));
  }
  std::string what = error.what();
  if (const auto missing = what.find(": 1 required"); missing != std::string::npos) {
    what = what.substr(0, missing) + " needs a value";
  }
  fail(ErrorKind::usage, "{}{}", what, see);
}

int run_command(const Command& command, std::vector<std::string> arguments) {
  Context context;
  CLI::App root(std::string(command.summary), fmt::format("continuum {}", command.name));
  root.set_help_flag();
  root.fallthrough();
  bool help = false;
  root.add_flag("-h,--help", help, "this help");
  command.add(root, context);
  add_common_options(root, context);
  // A command that can also stand alone has said how many it takes.
  const bool has_said = root.get_require_subcommand_max() != 0;
  if (!has_said && !root.get_subcommands([](const CLI::App*) { return true; }).empty()) {
    root.require_subcommand(1);
  }
  // Found by hand: help must not depend on required options being there. Behind "--" it is somebody else's.
  const auto end = std::ranges::find(arguments, "--");
  const bool wants_help =
      std::any_of(arguments.begin(), end, [](const auto& a) { return a == "-h" || a == "--help"; });
  try {
    std::ranges::reverse(arguments);  // CLI11 takes them from the back
    root.parse(arguments);
  } catch (const CLI::ParseError& error) {
    if (!wants_help) {
      explain(root, error);
    }
  }
  if (wants_help) {
    Output().write(help_of(innermost(root))).flush();
    return 0;
  }
  check(static_cast<bool>(context.body), "the command has no body");
  return context.body();
}

}  // namespace

std::span<const Command> commands() {
  return table;
}

void run_with(CLI::App& command, Context& context, std::function<int()> body) {
  command.callback([&context, body = std::move(body)] { context.body = body; });
}

int run(std::span<const std::string> arguments) {
  const auto index = command_index(arguments);
  const bool bare = index == arguments.size();
  for (const auto& argument : arguments.first(index)) {
    if (bare && argument == "--version") {
      Output().line("continuum " CONTINUUM_VERSION).flush();
      return 0;
    }
    if (bare && (argument == "-h" || argument == "--help")) {
      Output().write(overview()).flush();
      return 0;
    }
  }
  if (bare) {
    fail(ErrorKind::usage, "which command? There are {}; see `continuum -h`",
         fmt::join(names_of(table), ", "));
  }
  std::vector<std::string> rest(arguments.begin() + static_cast<std::ptrdiff_t>(index) + 1, arguments.end());
  std::string name = arguments[index];
  if (name == "help") {
    if (rest.empty()) {
      Output().write(overview()).flush();
      return 0;
    }
    name = rest.front();
    rest.front() = "-h";
  }
  rest.insert(rest.begin(), arguments.begin(), arguments.begin() + static_cast<std::ptrdiff_t>(index));
  const auto found = std::ranges::find(table, name, &Command::name);
  if (found == table.end()) {
    const auto names = names_of(table);
    fail(ErrorKind::usage, "unknown command \"{}\"{}", printable(name), hint_of(name, names));
  }
  return run_command(*found, std::move(rest));
}

}  // namespace continuum::app
