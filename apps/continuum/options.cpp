#include "options.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>

namespace continuum::app {
namespace {

constexpr const char* common_group = "Common options";
constexpr std::size_t help_column = 30;
constexpr std::size_t help_columns_max = 100;

// One value each time, also for options that may be given several times: CLI11 would else take the words
// behind.
CLI::Option* one_value(CLI::Option* option, const std::string& placeholder) {
  return option->option_text(placeholder)->allow_extra_args(false);
}

// `text`, broken between words, behind a column of names.
void put_entry(std::string& out, const std::string& names, const std::string& text) {
  std::string line = "  " + names;
  if (line.size() + 2 > help_column) {
    out += line + '\n';
    line.clear();
  }
  line.resize(help_column, ' ');
  std::size_t words = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find(' ', at), text.size());
    if (words > 0 && line.size() + 1 + (end - at) > help_columns_max) {
      out += line + '\n';
      line.assign(help_column, ' ');
      words = 0;
    }
    line += words++ > 0 ? " " : "";
    line += text.substr(at, end - at);
    at = end + 1;
  }
  out += line + '\n';
}

std::string names_of(const CLI::Option& option) {
  if (option.get_positional()) {
    return option.get_name(true);
  }
  std::string names;
  for (const auto& name : option.get_snames()) {
    names += (names.empty() ? "-" : ", -") + name;
  }
  for (const auto& name : option.get_lnames()) {
    names += (names.empty() ? "    --" : ", --") + name;
  }
  return option.get_option_text().empty() ? names : names + " " + option.get_option_text();
}

void put_group(std::string& out, const std::string& title, const CLI::App& command,
               const std::string& group) {
  std::string entries;
  for (const auto* option : command.get_options()) {
    if (option->get_group() == group && !option->get_positional()) {
      put_entry(entries, names_of(*option), option->get_description());
    }
  }
  if (!entries.empty()) {
    out += "\n" + title + ":\n" + entries;
  }
}

std::string full_name(const CLI::App& command) {
  const auto* parent = command.get_parent();
  return parent == nullptr ? command.get_name() : full_name(*parent) + " " + command.get_name();
}

}  // namespace

void add_common_options(CLI::App& command, Context& context) {
  const auto grouped = [](CLI::Option* option) { option->group(common_group); };
  grouped(add_text(
      command, "-u,--redis", "URL", context.redis_url,
      "redis://[USER[:PASSWORD]@]HOST[:PORT][/DB], unix://PATH, or local:[DIR] (the embedded server); "
      "else CONTINUUM_REDIS, REDIS_URL, the profile"));
  grouped(add_text(command, "--password-file", "FILE", context.password_file,
                   "holds the server's password; else REDISCLI_AUTH"));
  grouped(add_flag(command, "--allow-eviction", context.allow_eviction,
                   "use a server that evicts any key when it is full"));
  grouped(add_flag(command, "--json", context.json, "print JSON instead of tables"));
  grouped(add_flag(command, "-q,--quiet", context.quiet, "no notices and no progress on stderr"));
  grouped(add_flag(command, "-v,--verbose", context.verbose, "say more on stderr"));
}

CLI::Option* add_parsed(CLI::App& command, const std::string& names, const std::string& placeholder,
                        const std::string& help, std::function<void(const std::string&)> parse) {
  // The name in messages is the longest one: `--topic`, not `-t,--topic`.
  const auto dashes = names.rfind("--");
  const auto name = dashes == std::string::npos ? names : names.substr(dashes);
  auto* option = command.add_option_function<std::string>(
      names,
      [name, positional = dashes == std::string::npos, parse = std::move(parse)](const std::string& text) {
        try {
          parse(text);
        } catch (const Error& error) {
          if (positional) {
            throw;
          }
          fail(error.kind(), "{} {}: {}", name, printable(text), error.message());
        }
      },
      help);
  return one_value(option, placeholder);
}

CLI::Option* add_text(CLI::App& command, const std::string& names, const std::string& placeholder,
                      std::string& target, const std::string& help) {
  return one_value(command.add_option(names, target, help), placeholder);
}

CLI::Option* add_text(CLI::App& command, const std::string& names, const std::string& placeholder,
                      std::optional<std::string>& target, const std::string& help) {
  return one_value(command.add_option_function<std::string>(
                       names, [&target](const std::string& text) { target = text; }, help),
                   placeholder);
}

CLI::Option* add_texts(CLI::App& command, const std::string& names, const std::string& placeholder,
                       std::vector<std::string>& target, const std::string& help) {
  return one_value(command.add_option(names, target, help), placeholder);
}

CLI::Option* add_flag(CLI::App& command, const std::string& names, bool& target, const std::string& help) {
  return command.add_flag(names, target, help)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

CLI::Option* add_duration(CLI::App& command, const std::string& names, Milliseconds& target,
                          const std::string& help) {
  return add_parsed(command, names, "DURATION", help,
                    [&target](const std::string& text) { target = parse_duration(text); });
}

CLI::Option* add_duration(CLI::App& command, const std::string& names, std::optional<Milliseconds>& target,
                          const std::string& help) {
  return add_parsed(command, names, "DURATION", help,
                    [&target](const std::string& text) { target = parse_duration(text); });
}

CLI::Option* add_number(CLI::App& command, const std::string& names, std::uint64_t& target, Range range,
                        const std::string& help) {
  return add_parsed(command, names, "N", help, [&target, range](const std::string& text) {
    target = parse_number(text, range.min, range.max);
  });
}

CLI::Option* add_number(CLI::App& command, const std::string& names, std::optional<std::uint64_t>& target,
                        Range range, const std::string& help) {
  return add_parsed(command, names, "N", help, [&target, range](const std::string& text) {
    target = parse_number(text, range.min, range.max);
  });
}

CLI::Option* add_number(CLI::App& command, const std::string& names, std::uint32_t& target, Range range,
                        const std::string& help) {
  check(range.max <= UINT32_MAX, "the range fits the number");
  return add_parsed(command, names, "N", help, [&target, range](const std::string& text) {
    target = static_cast<std::uint32_t>(parse_number(text, range.min, range.max));
  });
}

CLI::Option* add_bytes(CLI::App& command, const std::string& names, std::size_t& target,
                       const std::string& help) {
  return add_parsed(command, names, "SIZE", help,
                    [&target](const std::string& text) { target = parse_bytes(text); });
}

CLI::Option* add_topic_option(CLI::App& command, std::string& target) {
  return add_parsed(command, "-t,--topic", "NAME", "the topic",
                    [&target](const std::string& text) {
                      require_name("topic", text);
                      target = text;
                    })
      ->required();
}

CLI::App& add_subcommand(CLI::App& command, const std::string& name, const std::string& summary) {
  auto* subcommand = command.add_subcommand(name, summary);
  subcommand->set_help_flag();
  subcommand->fallthrough();
  return *subcommand;
}

std::string help_of(const CLI::App& command) {
  const auto any = [](const CLI::App*) { return true; };
  const auto subcommands = command.get_subcommands(any);
  std::string usage = full_name(command);
  usage += subcommands.empty() ? " [OPTIONS]" : " COMMAND [OPTIONS]";
  std::string positionals;
  for (const auto* option : command.get_options()) {
    if (option->get_positional()) {
      const auto many = option->get_expected_max() > 1 ? "..." : "";
      const auto name = option->get_name(true) + many;
      usage += option->get_required() ? " " + name : " [" + name + "]";
      put_entry(positionals, names_of(*option), option->get_description());
    }
  }
  std::string description = command.get_description();
  if (!description.empty() && description.front() >= 'a' && description.front() <= 'z') {
    description.front() = static_cast<char>(description.front() - 'a' + 'A');
  }
  std::string out = fmt::format("Usage: {}\n\n{}.\n", usage, description);
  if (!subcommands.empty()) {
    out += "\nCommands:\n";
    for (const auto* subcommand : subcommands) {
      put_entry(out, subcommand->get_name(), subcommand->get_description());
    }
  }
  if (!positionals.empty()) {
    out += "\nArguments:\n" + positionals;
  }
  std::vector<std::string> groups = command.get_groups();
  std::erase(groups, common_group);
  for (const auto& group : groups) {
    put_group(out, group, command, group);
  }
  const auto* root = &command;
  while (root->get_parent() != nullptr) {
    root = root->get_parent();
  }
  put_group(out, common_group, *root, common_group);
  if (!command.get_footer().empty()) {
    out += "\n" + command.get_footer() + "\n";
  }
  return out;
}

}  // namespace continuum::app
