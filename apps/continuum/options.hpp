// Options in the forms that all commands take, and the help that shows them.
#pragma once

#include "server.hpp"

#include "continuum/types.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace continuum::app {

// -u, --password-file, --allow-eviction, --json, -q, -v. The table of commands adds them to each.
void add_common_options(CLI::App& command, Context& context);

// An option whose text `parse` reads. What it throws is shown behind the option's name:
// `--linger 5x: not a duration; give 500ms, 10s, 5m, 2h or 7d`.
CLI::Option* add_parsed(CLI::App& command, const std::string& names, const std::string& placeholder,
                        const std::string& help, std::function<void(const std::string&)> parse);

CLI::Option* add_text(CLI::App& command, const std::string& names, const std::string& placeholder,
                      std::string& target, const std::string& help);
CLI::Option* add_text(CLI::App& command, const std::string& names, const std::string& placeholder,
                      std::optional<std::string>& target, const std::string& help);
// May be given several times, each time with one value.
CLI::Option* add_texts(CLI::App& command, const std::string& names, const std::string& placeholder,
                       std::vector<std::string>& target, const std::string& help);
CLI::Option* add_flag(CLI::App& command, const std::string& names, bool& target, const std::string& help);
CLI::Option* add_duration(CLI::App& command, const std::string& names, Milliseconds& target,
                          const std::string& help);
CLI::Option* add_duration(CLI::App& command, const std::string& names, std::optional<Milliseconds>& target,
                          const std::string& help);
// A decimal number in [min, max].
struct Range {
  std::uint64_t min;
  std::uint64_t max;
};
CLI::Option* add_number(CLI::App& command, const std::string& names, std::uint64_t& target, Range range,
                        const std::string& help);
CLI::Option* add_number(CLI::App& command, const std::string& names, std::optional<std::uint64_t>& target,
                        Range range, const std::string& help);
CLI::Option* add_number(CLI::App& command, const std::string& names, std::uint32_t& target, Range range,
                        const std::string& help);
// 4096, 64KiB, 1MiB.
CLI::Option* add_bytes(CLI::App& command, const std::string& names, std::size_t& target,
                       const std::string& help);
// -t, --topic: a valid name, required.
CLI::Option* add_topic_option(CLI::App& command, std::string& target);

// A command within a command, such as `topic create`.
CLI::App& add_subcommand(CLI::App& command, const std::string& name, const std::string& summary);

// What `-h` prints.
[[nodiscard]] std::string help_of(const CLI::App& command);

}  // namespace continuum::app
