// continuum ring: how keys are placed on partitions.
#include "continuum/ring.hpp"

#include "commands.hpp"
#include "options.hpp"
#include "output.hpp"
#include "ring_choice.hpp"
#include "ring_plan.hpp"
#include "ring_resize.hpp"
#include "ring_view.hpp"

#include "continuum/error.hpp"
#include "continuum/json.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <unistd.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace continuum::app {
namespace {

constexpr double bar_columns = 30;
constexpr std::size_t key_bytes_max = 1 << 20;
constexpr auto right = Table::Align::right;

enum class Draw : std::uint8_t { automatic, colour, ascii, never };

struct ShowOptions {
  RingChoice choice;
  NewRing ring;
  std::uint64_t sample = sampled_events_usual;
  std::uint64_t keys = 5;
  Draw draw = Draw::automatic;
  std::string svg;
};

struct LocateOptions {
  RingChoice choice;
  NewRing ring;
  std::vector<std::string> keys;
};

// The ring of --partitions, when that or names of nodes were given.
std::optional<RingDescription> unnamed(const NewRing& ring) {
  constexpr std::uint32_t unsaid = 1;
  return ring.partitions || ring.node_names ? std::optional(ring.describe(unsaid)) : std::nullopt;
}

// --- show

void print_json(const RingView& view, Output& out) {
  const bool has_points = continuum::has_points(view.ring.description().algorithm);
  for (const PartitionShare& partition : view.partitions) {
    JsonObject object;
    if (view.generation) {
      object.add("topic", view.topic);
    }
    object.add("partition", partition.partition);
    if (!partition.node.empty()) {
      object.add("node", partition.node);
    }
    object.add("virtual_nodes", has_points ? std::optional(partition.virtual_nodes) : std::nullopt);
    object.add("share", partition.share).add("fair", partition.fair);
    if (partition.events) {
      object.add("events", *partition.events).add("events_share", partition.events_share);
    }
    out.line(object.text());
  }
  for (const HotKey& key : view.hottest) {
    out.line(JsonObject()
                 .add("topic", view.topic)
                 .add("key", key.key)
                 .add("partition", key.partition)
                 .add("events", key.events)
                 .add("share", key.share)
                 .text());
  }
  JsonObject summary;
  summary.add("ring", view.ring.description().text()).add("generation", view.generation);
  summary.add("partitions", view.partitions.size()).add("largest_to_fair", view.largest_to_fair);
  if (view.generation) {
    summary.add("sampled_events", view.sampled_events);
  }
  out.line(JsonObject().add_raw("summary", summary.text()).text());
}

std::string percent(double share) {
  return fmt::format("{:.2f}%", share * 100);
}

void print_partitions(const RingView& view, Output& out) {
  const RingAlgorithm algorithm = view.ring.description().algorithm;
  std::vector<Table::Column> columns{{"PARTITION", right}};
  if (has_node_names(algorithm)) {
    columns.push_back({"NODE"});
  }
  columns.insert(columns.end(), {{"VNODES", right}, {"SHARE", right}, {"FAIR", right}});
  if (view.generation) {
    columns.insert(columns.end(), {{"EVENTS", right}, {"STORED", right}});
  }
  columns.push_back({"BAR"});
  double largest = 0;
  for (const PartitionShare& partition : view.partitions) {
    largest = std::max(largest, partition.share);
  }
  Table table(columns);
  for (const PartitionShare& partition : view.partitions) {
    std::vector<Cell> row{partition.partition.value};
    if (has_node_names(algorithm)) {
      row.emplace_back(partition.node);
    }
    row.push_back(has_points(algorithm) ? Cell(partition.virtual_nodes) : Cell(""));
    row.insert(row.end(), {percent(partition.share), percent(partition.fair)});
    if (partition.events) {
      row.emplace_back(*partition.events);
      row.emplace_back(partition.events_share ? percent(*partition.events_share) : std::string());
    }
    row.emplace_back(
        std::string(static_cast<std::size_t>(std::lround(partition.share / largest * bar_columns)), '#'));
    table.row(std::move(row));
  }
  table.print(out);
}

void print_hottest(const RingView& view, Output& out) {
  if (view.hottest.empty()) {
    return;
  }
  out.line("");
  Table table({{"KEY"}, {"PARTITION", right}, {"EVENTS", right}, {"TRAFFIC", right}});
  for (const HotKey& key : view.hottest) {
    table.row({key.key, key.partition.value, key.events, percent(key.share)});
  }
  table.print(out);
  out.line(fmt::format("The hottest keys among {} stored events.", format_count(view.sampled_events)));
}

bool is_utf8_terminal() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') {
      const std::string_view text(value);
      return text.ends_with("UTF-8") || text.ends_with("utf8") || text.ends_with("UTF8") ||
             text.ends_with("utf-8");
    }
  }
  return false;
}

// nullopt: nothing is drawn.
std::optional<Palette> palette_of(Draw draw) {
  if (draw == Draw::never || (draw == Draw::automatic && !is_terminal(Stream::out))) {
    return std::nullopt;
  }
  if (draw == Draw::ascii || (draw == Draw::automatic && (!has_colour(Stream::out) || !is_utf8_terminal()))) {
    return Palette::none;
  }
  const char* depth = std::getenv("COLORTERM");
  const std::string_view text = depth == nullptr ? "" : depth;
  return text == "truecolor" || text == "24bit" ? Palette::true_colour : Palette::xterm_256;
}

// The picture is there as a whole or, when this fails, as it was.
void write_svg(const RingView& view, const std::string& path) {
  const std::string part = path + ".part";
  const auto failed = [&] {
    const int error = errno;
    (void)std::remove(part.c_str());
    fail(ErrorKind::usage, "cannot write the picture to {}: {}", printable(path), std::strerror(error));
  };
  std::FILE* const file = std::fopen(part.c_str(), "wxe");
  if (file == nullptr) {
    const int error = errno;
    fail(ErrorKind::usage, "cannot create {}: {}{}", printable(part), std::strerror(error),
         error == EEXIST ? "; remove what an earlier run has left there" : "");
  }
  const std::string svg = svg_picture(view);
  const bool written = std::fwrite(svg.data(), 1, svg.size(), file) == svg.size();
  if (std::fclose(file) != 0 || !written || std::rename(part.c_str(), path.c_str()) != 0) {
    failed();
  }
}

int show(const Context& context, const ShowOptions& options) {
  const RingView view =
      view_of(choose_ring(context, options.choice, unnamed(options.ring), options.sample), options.keys);
  const RingDescription& description = view.ring.description();
  if (!options.svg.empty()) {
    if (!has_points(description.algorithm)) {
      fail(ErrorKind::usage, "--svg: {} divides by the number of partitions: there is no ring to draw",
           name_of(description.algorithm));
    }
    write_svg(view, options.svg);
  }
  Output out;
  if (context.json) {
    print_json(view, out);
    out.flush();
    return 0;
  }
  print_partitions(view, out);
  if (const auto palette = palette_of(options.draw); palette && has_points(description.algorithm)) {
    out.line("").write(text_picture(view, *palette));
  }
  print_hottest(view, out);
  out.line("");
  out.line(fmt::format("ring {}{}: the largest share is {:.3f} times its fair one", description.text(),
                       view.generation ? fmt::format(", generation {}", *view.generation) : "",
                       view.largest_to_fair));
  if (!has_points(description.algorithm)) {
    out.line(
        fmt::format("{} divides by the number of partitions: there is no ring, and changing that number "
                    "moves most keys.",
                    name_of(description.algorithm)));
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

std::string digits_of(const Ring& ring, std::uint64_t hash) {
  return fmt::format("{:0{}x}", hash, ring.hash_digits());
}

std::string located_json(const Ring& ring, std::string_view key,
                         const std::optional<Generation>& generation) {
  const auto located = ring.locate(key);
  return JsonObject()
      .add("key", key)
      .add("partition", located.partition)
      .add("generation", generation)
      .add("hash", digits_of(ring, located.key_hash))
      .add("point", located.point ? std::optional(digits_of(ring, *located.point)) : std::nullopt)
      .text();
}

int locate(const Context& context, const LocateOptions& options) {
  constexpr std::uint64_t no_sample = 0;
  const auto asked = choose_ring(context, options.choice, unnamed(options.ring), no_sample);
  const Ring ring(asked.description);
  Table table({{"KEY"}, {"PARTITION", right}, {"GENERATION", right}, {"POINT"}});
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
               located.point ? digits_of(ring, *located.point) : std::string()});
  }
  if (!context.json) {
    table.print(out);
  }
  out.flush();
  return 0;
}

void add_choice(CLI::App& command, RingChoice& choice, NewRing& ring) {
  add_ring_choice(command, choice);
  add_number(command, "-p,--partitions", ring.partitions, {1, partitions_max},
             "a ring of that many, without any server");
  add_new_ring_options(command, ring, "with -p: ");
}

Draw parse_draw(const std::string& text) {
  const std::vector<std::string> names{"auto", "colour", "ascii", "never"};
  const auto found = std::ranges::find(names, text);
  if (found == names.end()) {
    fail(ErrorKind::usage, "give auto, colour, ascii or never");
  }
  return static_cast<Draw>(found - names.begin());
}

void add_show(CLI::App& command, Context& context) {
  auto& show_command =
      add_subcommand(command, "show", "the ring as a picture, the share of each partition, the hottest keys");
  const auto options = std::make_shared<ShowOptions>();
  add_choice(show_command, options->choice, options->ring);
  add_number(show_command, "--sample", options->sample, {0, sampled_events_max},
             "with -t: about how many stored events to look for hot keys in (10000; 0: none)");
  add_number(show_command, "--keys", options->keys, {0, 1000}, "how many of the hottest keys (5)");
  add_parsed(show_command, "--draw", "MODE", "the ring itself: auto (on a terminal), colour, ascii, never",
             [options](const std::string& text) { options->draw = parse_draw(text); });
  add_text(show_command, "--svg", "FILE", options->svg, "also write the picture to FILE");
  run_with(show_command, context, [&context, options] { return show(context, *options); });
}

void add_locate(CLI::App& command, Context& context) {
  auto& locate_command = add_subcommand(command, "locate", "the partition of each key");
  const auto options = std::make_shared<LocateOptions>();
  add_choice(locate_command, options->choice, options->ring);
  locate_command.add_option("KEY", options->keys, "keys; else one a line from stdin");
  run_with(locate_command, context, [&context, options] { return locate(context, *options); });
}

}  // namespace

void add_ring(CLI::App& command, Context& context) {
  add_show(command, context);
  add_locate(command, context);
  add_ring_plan(command, context);
  add_ring_resize(command, context);
}

}  // namespace continuum::app
