// What the commands that change a group have in common: its options, and the audit of who did it.
#pragma once

#include "server.hpp"

#include "continuum/audit.hpp"
#include "continuum/inspect.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace continuum::app {

struct GroupArguments {
  std::string topic;
  std::string group;
  std::string partitions = "all";
  std::string why;
  bool yes = false;
  bool dry_run = false;
};
// -t and -g, both required.
void add_group_options(CLI::App& command, GroupArguments& arguments);
void add_partition_option(CLI::App& command, GroupArguments& arguments);
// --why and --dry-run.
void add_change_options(CLI::App& command, GroupArguments& arguments);
void add_yes_option(CLI::App& command, GroupArguments& arguments);

// A topic that has the group, and the partitions that were named. Throws Error{usage}.
struct GroupPlace {
  Topic topic;
  std::vector<Partition> partitions;
};
[[nodiscard]] GroupPlace find_group(redis::Session& session, const GroupArguments& arguments);

// USER@HOST
[[nodiscard]] std::string operator_name();
// HOST:PID, for leases.
[[nodiscard]] std::string this_process();
// USER@HOST, and why when that was said.
[[nodiscard]] std::string operator_and_why(const GroupArguments& arguments);

// "partition 3", "partitions 0-2,5" or "nothing"
[[nodiscard]] std::string partition_text(const std::vector<Partition>& partitions);

// What there is to say of groups that were not forgotten to the end, and the command that does it; for a
// person.
[[nodiscard]] std::vector<std::string> orphan_texts(const std::vector<PartitionView>& views);

// One command's entries. `what`: its words, such as "group seek -g G --to start".
class Audit {
 public:
  Audit(redis::Session& session, const GroupArguments& arguments, std::string what);
  // Before something is destroyed or moved, and when nothing speaks against it any more.
  void begin(std::string_view touched);
  void done(std::string_view touched);

 private:
  void write(AuditEntry::Step step, std::string_view touched);

  redis::Session& session_;
  std::string topic_;
  AuditEntry entry_;
};

}  // namespace continuum::app
