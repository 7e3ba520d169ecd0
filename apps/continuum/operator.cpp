#include "operator.hpp"

#include "options.hpp"
#include "selectors.hpp"

#include "continuum/error.hpp"
#include "continuum/group_control.hpp"
#include "continuum/names.hpp"

#include <CLI/CLI.hpp>

#include <pwd.h>
#include <unistd.h>

#include <array>
#include <map>
#include <utility>

namespace continuum::app {

void add_group_options(CLI::App& command, GroupArguments& arguments) {
  add_topic_option(command, arguments.topic);
  add_parsed(command, "-g,--group", "NAME", "the group", [&arguments](const std::string& text) {
    require_name("group", text);
    arguments.group = text;
  })->required();
}

void add_partition_option(CLI::App& command, GroupArguments& arguments) {
  add_text(command, "-p,--partition", "LIST", arguments.partitions,
           "only these partitions: 3, or 0,2,5-7 (default: all)");
}

void add_change_options(CLI::App& command, GroupArguments& arguments) {
  add_text(command, "--why", "TEXT", arguments.why, "for whoever looks at it later; kept in the audit");
  add_flag(command, "-n,--dry-run", arguments.dry_run, "say what would be done, and change nothing");
}

void add_yes_option(CLI::App& command, GroupArguments& arguments) {
  add_flag(command, "-y,--yes", arguments.yes, "do it");
}

GroupPlace find_group(redis::Session& session, const GroupArguments& arguments) {
  Topic topic = load_topic(session, arguments.topic);
  require_group(topic, arguments.group);
  auto partitions = parse_partitions_of(topic, arguments.partitions);
  return {std::move(topic), std::move(partitions)};
}

std::string this_process() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) {
    host[0] = '\0';
  }
  return fmt::format("{}:{}", host.data(), ::getpid());
}

std::string operator_name() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) {
    host[0] = '\0';
  }
  std::array<char, 4096> buffer{};
  passwd entry{};
  passwd* found = nullptr;
  const bool known =
      ::getpwuid_r(::getuid(), &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr;
  return fmt::format("{}@{}", known ? std::string(found->pw_name) : fmt::format("uid{}", ::getuid()),
                     host.data());
}

std::string operator_and_why(const GroupArguments& arguments) {
  return arguments.why.empty() ? operator_name() : fmt::format("{}: {}", operator_name(), arguments.why);
}

std::string partition_text(const std::vector<Partition>& partitions) {
  std::string text;
  for (std::size_t begin = 0; begin < partitions.size();) {
    std::size_t end = begin + 1;
    while (end < partitions.size() && partitions[end].value == partitions[end - 1].value + 1) {
      ++end;
    }
    text += text.empty() ? "" : ",";
    text += fmt::to_string(partitions[begin].value);
    if (end - begin > 1) {
      text += fmt::format("-{}", partitions[end - 1]);
    }
    begin = end;
  }
  return text.empty() ? "nothing" : fmt::format("partition{} {}", partitions.size() == 1 ? "" : "s", text);
}

std::vector<std::string> orphan_texts(const std::vector<PartitionView>& views) {
  std::map<std::pair<std::string, std::string>, std::vector<Partition>> orphans;  // by topic and group
  for (const PartitionView& view : views) {
    for (const GroupView& orphan : view.orphans) {
      orphans[{view.topic, orphan.group}].push_back(view.partition);
    }
  }
  std::vector<std::string> texts;
  for (const auto& [whose, partitions] : orphans) {
    const auto& [topic, group] = whose;
    texts.push_back(fmt::format(
        "topic {}: group {} is no longer in the topic, and still on {}: it was not forgotten to the end, and "
        "what it has not handled is not trimmed. `continuum group forget -t {} -g {} --yes` does it",
        topic, printable(group), partition_text(partitions), topic, printable(group)));
  }
  return texts;
}

Audit::Audit(redis::Session& session, const GroupArguments& arguments, std::string what)
    : session_(session), topic_(arguments.topic) {
  entry_.who = operator_name();
  entry_.what = std::move(what);
  entry_.why = arguments.why;
}

void Audit::begin(std::string_view touched) {
  write(AuditEntry::Step::begun, touched);
}

void Audit::done(std::string_view touched) {
  write(AuditEntry::Step::done, touched);
}

void Audit::write(AuditEntry::Step step, std::string_view touched) {
  entry_.step = step;
  entry_.touched = touched;
  write_audit(session_, topic_, entry_);
}

}  // namespace continuum::app
