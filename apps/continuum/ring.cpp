// continuum ring: how keys are placed on partitions.
#include "continuum/ring.hpp"

#include "commands.hpp"
#include "options.hpp"
#include "output.hpp"

#include "continuum/error.hpp"
#include "continuum/json.hpp"
#include "continuum/topic.hpp"

#include <unistd.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>

namespace continuum::app {
namespace {

constexpr double bar_columns = 30;
constexpr std::size_t key_bytes_max = 1 << 20;

struct Options {
  std::string topic;
  std::uint32_t partitions = 0;  // 0: a topic's ring is asked for
  std::string hash = "xxh3";
  std::uint32_t virtual_nodes = 256;
  std::vector<std::string> keys;
};

struct Asked {
  RingDescription description;
  std::optional<Generation> generation;       // of a topic
  std::map<Partition, std::uint64_t> events;  // of a topic
};

Asked ask(const Context& context, const Options& options) {
  if (options.partitions > 0 && !options.topic.empty()) {
    fail(ErrorKind::usage, "give -t NAME for the ring of a topic, or --partitions N for any other; not both");
  }
  if (options.partitions > 0) {
    auto description = RingDescription::uniform(options.partitions);
    description.algorithm = options.hash;
    description.virtual_nodes = options.virtual_nodes;
    return {RingDescription::parse(description.text()), std::nullopt, {}};
  }
  if (options.topic.empty()) {
    fail(ErrorKind::usage, "which ring? Give -t NAME for the ring of a topic, or --partitions N");
  }
  const auto session = connect(context, redis::Needs::Access::read);
  const auto topic = load_topic(*session, options.topic);
  Asked asked{topic.ring(), topic.active, {}};
  for (const auto& stored : stored_events(*session, topic)) {
    asked.events[stored.partition] = stored.next - stored.first;
  }
  return asked;
}

// --- show

int show(const Context& context, const Options& options) {
  const auto asked = ask(context, options);
  const Ring ring(asked.description);
  const auto shares = ring.shares();
  std::map<Partition, std::uint64_t> nodes;
  for (const auto& point : ring.points()) {
    ++nodes[point.partition];
  }
  double weights = 0;
  for (const auto& member : asked.description.members) {
    weights += member.weight_thousandths;
  }
  const double largest = *std::ranges::max_element(shares);
  double spread = 0;  // how much more than its fair share the unluckiest partition has
  std::vector<Table::Column> columns{{"PARTITION", Table::Align::right},
                                     {"VNODES", Table::Align::right},
                                     {"SHARE", Table::Align::right},
                                     {"FAIR", Table::Align::right}};
  if (asked.generation) {
    columns.push_back({"EVENTS", Table::Align::right});
  }
  columns.push_back({"BAR"});
  Table table(columns);
  Output out;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const auto& member = asked.description.members[i];
    const double fair = member.weight_thousandths / weights;
    spread = std::max(spread, shares[i] / fair);
    if (context.json) {
      JsonObject object;
      if (asked.generation) {
        object.add("topic", options.topic);
      }
      object.add("partition", member.partition).add("virtual_nodes", nodes[member.partition]);
      object.add("share", shares[i]).add("fair", fair);
      if (asked.generation) {
        object.add("events", asked.events.at(member.partition));
      }
      out.line(object.text());
      continue;
    }
    std::vector<Cell> row{member.partition.value, nodes[member.partition],
                          fmt::format("{:.2f}%", shares[i] * 100), fmt::format("{:.2f}%", fair * 100)};
    if (asked.generation) {
      row.emplace_back(asked.events.at(member.partition));
    }
    row.emplace_back(
        std::string(static_cast<std::size_t>(std::lround(shares[i] / largest * bar_columns)), '#'));
    table.row(std::move(row));
  }
  if (context.json) {
    JsonObject summary;
    summary.add("ring", asked.description.text()).add("generation", asked.generation);
    summary.add("partitions", shares.size()).add("largest_to_fair", spread);
    out.line(JsonObject().add_raw("summary", summary.text()).text());
  } else {
    table.print(out);
    out.line("");
    out.line(fmt::format("ring {}{}: the largest share is {:.3f} times its fair one",
                         asked.description.text(),
                         asked.generation ? fmt::format(", generation {}", *asked.generation) : "", spread));
  }
  out.flush();
  return 0;
}

// --- locate

// Lines of stdin, as they come: a pipe may stay open.
class Lines {
 public:
  std::optional<std::string> next() {
    for (;;) {
      if (const auto newline = buffer_.find('\n', at_); newline != std::string::npos) {
        auto line = buffer_.substr(at_, newline - at_);
        at_ = newline + 1;
        return line;
      }
      buffer_.erase(0, at_);
      at_ = 0;
      if (buffer_.size() > key_bytes_max) {
        fail(ErrorKind::usage, "a key on stdin is longer than {} bytes", key_bytes_max);
      }
      if (!fill()) {
        return buffer_.empty() ? std::nullopt : std::optional(std::exchange(buffer_, {}));
      }
    }
  }
  [[nodiscard]] bool has_whole_line() const { return buffer_.find('\n', at_) != std::string::npos; }

 private:
  bool fill() {
    std::array<char, 64 << 10> bytes;
    for (;;) {
      const auto n = read(STDIN_FILENO, bytes.data(), bytes.size());
      if (n >= 0) {
        buffer_.append(bytes.data(), static_cast<std::size_t>(n));
        return n > 0;
      }
      if (errno != EINTR) {
        fail(ErrorKind::usage, "cannot read keys from stdin: {}", std::strerror(errno));
      }
    }
  }

  std::string buffer_;
  std::size_t at_ = 0;
};

std::string located_json(const Ring& ring, std::string_view key,
                         const std::optional<Generation>& generation) {
  const auto located = ring.locate(key);
  return JsonObject()
      .add("key", key)
      .add("partition", located.partition)
      .add("generation", generation)
      .add("hash", fmt::format("{:016x}", located.key_hash))
      .add("point", fmt::format("{:016x}", located.point))
      .text();
}

int locate(const Context& context, const Options& options) {
  const auto asked = ask(context, options);
  const Ring ring(asked.description);
  Table table({{"KEY"}, {"PARTITION", Table::Align::right}, {"GENERATION", Table::Align::right}, {"POINT"}});
  Output out;
  Lines lines;
  std::size_t next = 0;
  const auto next_key = [&]() -> std::optional<std::string> {
    if (options.keys.empty()) {
      return lines.next();
    }
    return next < options.keys.size() ? std::optional(options.keys[next++]) : std::nullopt;
  };
  while (const auto key = next_key()) {
    if (context.json) {
      out.line(located_json(ring, *key, asked.generation));
      if (options.keys.empty() && !lines.has_whole_line()) {
        out.flush();
      }
      continue;
    }
    const auto located = ring.locate(*key);
    table.row({*key, located.partition.value,
               asked.generation ? std::to_string(asked.generation->value) : std::string(),
               fmt::format("{:016x}", located.point)});
  }
  if (!context.json) {
    table.print(out);
  }
  out.flush();
  return 0;
}

std::shared_ptr<Options> add_ring_options(CLI::App& command) {
  const auto options = std::make_shared<Options>();
  add_topic_option(command, options->topic)->required(false);
  add_number(command, "-p,--partitions", options->partitions, {1, partitions_max},
             "a ring of that many, without any server");
  add_text(command, "--hash", "ALGORITHM", options->hash, "with --partitions: xxh3");
  add_number(command, "--virtual-nodes", options->virtual_nodes, {1, 1 << 20},
             "with --partitions: for each (256)");
  return options;
}

}  // namespace

void add_ring(CLI::App& command, Context& context) {
  auto& show_command = add_subcommand(command, "show", "the share of each partition, and of its events");
  const auto shown = add_ring_options(show_command);
  run_with(show_command, context, [&context, shown] { return show(context, *shown); });

  auto& locate_command = add_subcommand(command, "locate", "the partition of each key");
  const auto located = add_ring_options(locate_command);
  locate_command.add_option("KEY", located->keys, "keys; else one a line from stdin");
  run_with(locate_command, context, [&context, located] { return locate(context, *located); });
}

}  // namespace continuum::app
