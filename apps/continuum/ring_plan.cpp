// continuum ring plan: what a change would move. Changes nothing.
#include "ring_plan.hpp"

#include "commands.hpp"
#include "options.hpp"
#include "output.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/ring_change.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

namespace continuum::app {
namespace {

constexpr auto right = Table::Align::right;
// What is left free for bursts, and for a worker that takes over from another one.
constexpr double busy_max = 0.7;
// More moves than a person reads are summed up; --json has them all.
constexpr std::size_t moves_shown_max = 24;

struct Traffic {
  std::uint64_t events = 0;
  std::uint64_t keys = 0;
};

struct Plan {
  const ChosenRing& chosen;
  Ring now;
  Ring then;
  std::vector<PartitionShare> shares_now;
  std::vector<PartitionShare> shares_then;
  std::vector<RingMove> moved;
  double moved_share = 0;
  Traffic moved_traffic;
  std::map<std::pair<Partition, Partition>, Traffic> traffic_of_moves;
  std::map<Partition, std::uint64_t> events_now;  // of the sample
  std::map<Partition, std::uint64_t> events_then;

  Plan(const ChosenRing& ring, const RingDescription& wanted)
      : chosen(ring),
        now(ring.description),
        then(wanted),
        shares_now(shares_of(now)),
        shares_then(shares_of(then)),
        moved(moves(now, then)) {
    for (const RingMove& move : moved) {
      moved_share += move.share;
    }
    const std::vector<SampledKey>& sampled = ring.sample.keys;
    std::vector<std::string_view> keys(sampled.size());
    std::ranges::transform(sampled, keys.begin(), &SampledKey::key);
    std::vector<Partition> owners_now(keys.size());
    std::vector<Partition> owners_then(keys.size());
    now.owners(keys, owners_now);
    then.owners(keys, owners_then);
    for (std::size_t i = 0; i < sampled.size(); ++i) {
      const SampledKey& key = sampled[i];
      const Partition from = owners_now[i];
      const Partition to = owners_then[i];
      events_now[from] += key.events;
      events_then[to] += key.events;
      if (from != to) {
        for (Traffic* traffic : {&moved_traffic, &traffic_of_moves[{from, to}]}) {
          traffic->events += key.events;
          ++traffic->keys;
        }
      }
    }
  }

  [[nodiscard]] bool has_sample() const { return chosen.sample.events > 0; }
  // Of the sample; nullopt without one.
  [[nodiscard]] std::optional<double> traffic_share(std::uint64_t events) const {
    return has_sample()
               ? std::optional(static_cast<double>(events) / static_cast<double>(chosen.sample.events))
               : std::nullopt;
  }
  [[nodiscard]] std::uint64_t partitions_now() const { return now.description().members.size(); }
  [[nodiscard]] std::uint64_t partitions_then() const { return then.description().members.size(); }
  // nullopt: weights alone change, which a modulo does not have.
  [[nodiscard]] std::optional<double> moved_by_modulo() const {
    return partitions_now() == partitions_then()
               ? std::nullopt
               : std::optional(continuum::moved_by_modulo(partitions_now(), partitions_then()));
  }
  // Share of the busiest partition, by the sample where that says more than the key space.
  [[nodiscard]] double busiest_then() const {
    double busiest = 0;
    for (const PartitionShare& partition : shares_then) {
      const auto found = events_then.find(partition.partition);
      const std::uint64_t events = found == events_then.end() ? 0 : found->second;
      busiest = std::max({busiest, partition.share, traffic_share(events).value_or(0)});
    }
    return busiest;
  }
};

std::string percent(double share) {
  return fmt::format("{:.2f}%", share * 100);
}

std::string percent(const std::optional<double>& share) {
  return share ? percent(*share) : std::string();
}

struct Both {
  std::optional<double> now;
  std::optional<double> then;
};

// Every partition of either ring, with what it has of the key space.
std::map<Partition, Both> shares_of_both(const Plan& plan) {
  std::map<Partition, Both> both;
  for (const PartitionShare& partition : plan.shares_now) {
    both[partition.partition].now = partition.share;
  }
  for (const PartitionShare& partition : plan.shares_then) {
    both[partition.partition].then = partition.share;
  }
  return both;
}

Both traffic_of_both(const Plan& plan, Partition partition, const Both& shares) {
  const auto of = [&](const std::map<Partition, std::uint64_t>& events) {
    const auto found = events.find(partition);
    return plan.traffic_share(found == events.end() ? 0 : found->second);
  };
  return {shares.now ? of(plan.events_now) : std::nullopt, shares.then ? of(plan.events_then) : std::nullopt};
}

// --- demand

PartitionNeed need_of(const RingDescription& like, const Demand& demand) {
  return partitions_needed(like, demand.events_per_second,
                           std::chrono::duration<double>(demand.handler_time).count(), busy_max);
}

void print_demand(const Plan& plan, const Demand& demand, Output& out) {
  const PartitionNeed need = need_of(plan.then.description(), demand);
  const double busiest = need.handlers_busy * plan.busiest_then();
  out.line("");
  const std::string handlers =
      need.handlers_busy < 100 ? fmt::format("{:.1f}", need.handlers_busy) : format_rate(need.handlers_busy);
  const std::string motion =
      busiest > 1
          ? fmt::format("could not keep up: it would need {:.2f} times the time that there is", busiest)
          : fmt::format("would be busy for {:.0f}% of its time", busiest * 100);
  out.line(
      fmt::format("{} events a second of {} each keep {} handlers busy. The busiest of {} partitions {}.",
                  format_rate(demand.events_per_second), format_duration(demand.handler_time), handlers,
                  plan.partitions_then(), motion));
  if (need.partitions == 0) {
    out.line(
        fmt::format("No {} partitions are enough: handle several keys at a time (work --concurrency), or "
                    "events in batches.",
                    partitions_max));
  } else {
    out.line(
        fmt::format("By their shares {} partition{} of equal weight {} enough to keep the busiest one below "
                    "{:.0f}%, when each "
                    "handles one event at a time.",
                    need.partitions, need.partitions == 1 ? "" : "s", need.partitions == 1 ? "is" : "are",
                    busy_max * 100));
  }
  if (plan.has_sample()) {
    const SampledKey& hottest = plan.chosen.sample.keys.front();
    const double busy = need.handlers_busy * *plan.traffic_share(hottest.events);
    if (busy > busy_max) {
      out.line(
          fmt::format("The key {} alone has {} of the traffic and keeps {:.1f} handlers busy: no number of "
                      "partitions divides a key.",
                      printable(hottest.key), percent(plan.traffic_share(hottest.events)), busy));
    }
  }
}

// --- for people

void print_partitions(const Plan& plan, Output& out) {
  std::vector<Table::Column> columns{
      {"PARTITION", right}, {"SHARE_NOW", right}, {"SHARE_THEN", right}, {"CHANGE", right}};
  if (plan.has_sample()) {
    columns.insert(columns.end(), {{"TRAFFIC_NOW", right}, {"TRAFFIC_THEN", right}});
  }
  Table table(columns);
  for (const auto& [partition, shares] : shares_of_both(plan)) {
    const double change = shares.then.value_or(0) - shares.now.value_or(0);
    std::vector<Cell> row{partition.value, percent(shares.now), percent(shares.then),
                          change == 0 ? std::string() : fmt::format("{:+.2f}%", change * 100)};
    if (plan.has_sample()) {
      const Both traffic = traffic_of_both(plan, partition, shares);
      row.insert(row.end(), {percent(traffic.now), percent(traffic.then)});
    }
    table.row(std::move(row));
  }
  table.print(out);
}

Traffic traffic_of(const Plan& plan, const RingMove& move) {
  const auto found = plan.traffic_of_moves.find({move.from, move.to});
  return found == plan.traffic_of_moves.end() ? Traffic{} : found->second;
}

void print_moves(const Plan& plan, Output& out) {
  if (plan.moved.empty()) {
    return;
  }
  std::vector<Table::Column> columns{{"FROM", right}, {"TO", right}, {"SHARE", right}};
  if (plan.has_sample()) {
    columns.insert(columns.end(), {{"KEYS", right}, {"TRAFFIC", right}});
  }
  Table table(columns);
  for (std::size_t i = 0; i < std::min(moves_shown_max, plan.moved.size()); ++i) {
    const RingMove& move = plan.moved[i];
    std::vector<Cell> row{move.from.value, move.to.value, percent(move.share)};
    if (plan.has_sample()) {
      const Traffic traffic = traffic_of(plan, move);
      row.insert(row.end(), {Cell(traffic.keys), Cell(percent(plan.traffic_share(traffic.events)))});
    }
    table.row(std::move(row));
  }
  out.line("");
  table.print(out);
  if (plan.moved.size() > moves_shown_max) {
    double rest = plan.moved_share;
    for (std::size_t i = 0; i < moves_shown_max; ++i) {
      rest -= plan.moved[i].share;
    }
    out.line(fmt::format("and {} more moves of {} together (--json has them all)",
                         format_count(plan.moved.size() - moves_shown_max), percent(rest)));
  }
}

void print_sums(const Plan& plan, Output& out) {
  const double least = moved_if_fair(plan.now.description(), plan.then.description());
  out.line("");
  out.line(fmt::format("{} -> {}", plan.now.description().text(), plan.then.description().text()));
  out.line(fmt::format("Moves {} of the key space ({} if all shares were exactly fair).",
                       percent(plan.moved_share), percent(least)));
  if (const auto modulo = plan.moved_by_modulo(); modulo && has_points(plan.now.description().algorithm)) {
    out.line(fmt::format("Placement by hash modulo partitions would have moved {}.", percent(*modulo)));
  } else if (modulo) {
    out.line(
        fmt::format("{} divides by the number of partitions: a ring of virtual nodes would move about {}.",
                    name_of(plan.now.description().algorithm), percent(least)));
  }
  if (plan.has_sample()) {
    out.line(
        fmt::format("Of {} stored events that were looked at {} would lie elsewhere, of their {} keys {}.",
                    format_count(plan.chosen.sample.events), format_count(plan.moved_traffic.events),
                    format_count(plan.chosen.sample.keys.size()), format_count(plan.moved_traffic.keys)));
  }
  out.line(fmt::format("The largest share is {:.3f} times its fair one then, {:.3f} now.",
                       largest_to_fair(plan.shares_then), largest_to_fair(plan.shares_now)));
}

// --- for programs

void print_json(const Plan& plan, const std::optional<Demand>& demand, Output& out) {
  for (const auto& [partition, shares] : shares_of_both(plan)) {
    const Both traffic = traffic_of_both(plan, partition, shares);
    out.line(JsonObject()
                 .add("partition", partition)
                 .add("share_now", shares.now)
                 .add("share_then", shares.then)
                 .add("traffic_now", traffic.now)
                 .add("traffic_then", traffic.then)
                 .text());
  }
  for (const RingMove& move : plan.moved) {
    const Traffic traffic = traffic_of(plan, move);
    out.line(JsonObject()
                 .add("from", move.from)
                 .add("to", move.to)
                 .add("share", move.share)
                 .add("keys", traffic.keys)
                 .add("traffic", plan.traffic_share(traffic.events))
                 .text());
  }
  JsonObject summary;
  summary.add("ring_now", plan.now.description().text())
      .add("ring_then", plan.then.description().text())
      .add("generation", plan.chosen.generation)
      .add("moved", plan.moved_share)
      .add("moved_if_fair", moved_if_fair(plan.now.description(), plan.then.description()))
      .add("moved_by_modulo", plan.moved_by_modulo())
      .add("largest_to_fair_now", largest_to_fair(plan.shares_now))
      .add("largest_to_fair_then", largest_to_fair(plan.shares_then))
      .add("sampled_events", plan.chosen.sample.events)
      .add("moved_events", plan.moved_traffic.events)
      .add("sampled_keys", plan.chosen.sample.keys.size())
      .add("moved_keys", plan.moved_traffic.keys);
  if (demand) {
    const PartitionNeed need = need_of(plan.then.description(), *demand);
    summary.add("handlers_busy", need.handlers_busy)
        .add("busiest", need.handlers_busy * plan.busiest_then())
        .add("partitions_enough", need.partitions == 0 ? std::nullopt : std::optional(need.partitions));
  }
  out.line(JsonObject().add_raw("summary", summary.text()).text());
}

// --- options

struct Options {
  RingChoice choice;
  RingChange change;
  std::optional<double> rate;
  std::optional<Milliseconds> handler_time;
  std::uint64_t sample = sampled_events_usual;
};

std::optional<Demand> demand_of(const Options& options) {
  if (options.rate.has_value() != options.handler_time.has_value()) {
    fail(ErrorKind::usage, "--rate and --handler-time go together: give {}, too",
         options.rate ? "--handler-time, such as 300ms" : "--rate, such as 1600/m");
  }
  return options.rate ? std::optional(Demand{*options.rate, *options.handler_time}) : std::nullopt;
}

int plan(const Context& context, const Options& options) {
  const auto demand = demand_of(options);
  if (options.change.is_none() && !demand) {
    fail(ErrorKind::usage,
         "plan what? Give --partitions M, --node-names, --weight P=W, or --rate R with --handler-time D");
  }
  const ChosenRing now = choose_ring(context, options.choice, std::nullopt, options.sample);
  print_plan(context, now, options.change.applied_to(now.description), demand);
  return 0;
}

}  // namespace

RingDescription RingChange::applied_to(const RingDescription& ring) const {
  RingDescription changed = ring;
  if (node_names) {
    changed = ring.with_nodes(parse_node_names(*node_names, ring.algorithm, partitions));
  } else if (partitions) {
    changed = ring.with_partitions(static_cast<std::uint32_t>(*partitions));
  }
  return weights.empty() ? changed : changed.with_weights(weights);
}

void add_ring_change_options(CLI::App& command, RingChange& change) {
  add_number(command, "-p,--partitions", change.partitions, {1, partitions_max},
             "this many: 0 to M-1; those that stay keep their weights and names");
  add_text(command, "--node-names", "NAME,NAME…", change.node_names,
           "murmur3, uhashring and ketama: what all partitions are called then, from 0 on");
  const auto parse = [&change](const std::string& text) {
    change.weights.push_back(parse_partition_weight(text));
  };
  add_parsed(command, "--weight", "P=W", "partition P gets W times what weight 1 gets; may be repeated",
             parse)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->trigger_on_parse();
}

void print_plan(const Context& context, const ChosenRing& now, const RingDescription& then,
                const std::optional<Demand>& demand) {
  const Plan plan(now, then);
  Output out;
  if (context.json) {
    print_json(plan, demand, out);
    out.flush();
    return;
  }
  print_partitions(plan, out);
  print_moves(plan, out);
  if (then != now.description) {
    print_sums(plan, out);
  } else if (!demand) {
    out.line("").line(fmt::format("{} is what it is already: nothing would move.", then.text()));
  }
  if (demand) {
    print_demand(plan, *demand, out);
  }
  out.flush();
}

void add_ring_plan(CLI::App& command, Context& context) {
  auto& plan_command =
      add_subcommand(command, "plan", "what a change would move, and how many partitions a rate needs");
  const auto options = std::make_shared<Options>();
  add_ring_choice(plan_command, options->choice);
  add_ring_change_options(plan_command, options->change);
  add_parsed(plan_command, "--rate", "RATE", "events to handle, such as 1600/m",
             [options](const std::string& text) { options->rate = parse_rate(text); });
  add_duration(plan_command, "--handler-time", options->handler_time,
               "how long a handler takes for one of them, such as 300ms");
  add_number(plan_command, "--sample", options->sample, {0, sampled_events_max},
             "with -t: about how many stored events to tell the traffic from (10000; 0: none)");
  run_with(plan_command, context, [&context, options] { return plan(context, *options); });
}

}  // namespace continuum::app
