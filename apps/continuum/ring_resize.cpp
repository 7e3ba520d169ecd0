// continuum ring resize: another ring for a topic that is in use.
#include "ring_resize.hpp"

#include "commands.hpp"
#include "operator.hpp"
#include "options.hpp"
#include "output.hpp"
#include "ring_choice.hpp"
#include "ring_plan.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/resize.hpp"

#include <CLI/CLI.hpp>

#include <memory>

namespace continuum::app {
namespace {

struct Options {
  GroupArguments common;  // the topic, --why, --dry-run
  RingChange change;
  bool abort = false;
};

std::string_view name_of(Resized::How how) {
  switch (how) {
    case Resized::How::unchanged:
      return "unchanged";
    case Resized::How::resized:
      return "resized";
    case Resized::How::continued:
      return "continued";
    case Resized::How::aborted:
      break;
  }
  return "aborted";
}

void report(const Context& context, const std::string& topic, const Resized& resized) {
  const double held_up_ms = static_cast<double>(resized.held_up.count()) / 1000;
  Output out;
  if (context.json) {
    out.line(JsonObject()
                 .add("topic", topic)
                 .add("status", name_of(resized.how))
                 .add("generation_before", resized.before)
                 .add("generation", resized.generation)
                 .add("partitions_before", resized.ring_before.members.size())
                 .add("partitions", resized.ring.members.size())
                 .add("ring_before", resized.ring_before.text())
                 .add("ring", resized.ring.text())
                 .add("lost_generation", resized.lost)
                 .add("sealed", resized.sealed)
                 .add("held_up_ms", held_up_ms)
                 .text());
  } else if (resized.how == Resized::How::unchanged) {
    out.line(fmt::format("topic {} has this ring already: {}, generation {}", topic, resized.ring.text(),
                         resized.generation));
  } else {
    const auto count = [](const RingDescription& ring) {
      return fmt::format("{} partition{}", ring.members.size(), ring.members.size() == 1 ? "" : "s");
    };
    std::string_view begun_before;
    if (resized.how == Resized::How::continued) {
      begun_before = "; the resize had been begun before";
    } else if (resized.how == Resized::How::aborted) {
      begun_before = "; the resize that was pending is given up";
    }
    out.line(fmt::format(
        "topic {}: {} in generation {}, {} in generation {} before{}. Publishers were held up for "
        "{:.1f} ms",
        topic, count(resized.ring), resized.generation, count(resized.ring_before), resized.before,
        begun_before, held_up_ms));
  }
  out.flush();
}

std::string words_of(const Options& options) {
  std::string words = "ring resize";
  if (options.abort) {
    words += " --abort";
  }
  if (options.change.partitions) {
    words += fmt::format(" --partitions {}", *options.change.partitions);
  }
  if (options.change.node_names) {
    words += fmt::format(" --node-names {}", *options.change.node_names);
  }
  for (const PartitionWeight& weight : options.change.weights) {
    words += fmt::format(" --weight {}={}", weight.partition, weight_text(weight.thousandths));
  }
  return words;
}

int resize(const Context& context, const Options& options) {
  if (options.abort && !options.change.is_none()) {
    fail(ErrorKind::usage, "--abort gives up what is pending; it takes no other ring");
  }
  const std::string& name = options.common.topic;
  const auto session = connect(context, redis::Needs::Access::write);
  const Topic topic = load_topic(*session, name);
  const RingDescription target = options.change.applied_to(topic.ring());
  if (options.common.dry_run) {
    const bool goes_on = options.change.is_none() && !options.abort && topic.pending;
    if (!options.change.is_none()) {
      require_no_other_resize(topic, target);
    }
    const ChosenRing now = choose_ring(context, {name, std::nullopt}, std::nullopt, sampled_events_usual);
    print_plan(context, now, goes_on ? topic.rings.at(*topic.pending) : target, std::nullopt);
    return 0;
  }
  Audit audit(*session, options.common, words_of(options));
  const bool changes = topic.pending || target != topic.ring();
  if (changes) {
    audit.begin(fmt::format("{}, generation {}", topic.ring().text(), topic.active));
  }
  const Resized resized = options.abort               ? abort_resize(*session, name)
                          : !options.change.is_none() ? resize_topic(*session, name, target)
                                                      : continue_resize(*session, name);
  if (changes || resized.lost) {
    audit.done(fmt::format("{}, generation {}", resized.ring.text(), resized.generation));
  }
  if (context.json || !context.quiet) {
    report(context, name, resized);
  }
  if (resized.lost) {
    say(context,
        fmt::format("the server had lost the topic's generations up to {}, in which nothing was stored: they "
                    "count as copies of generation {}",
                    *resized.lost, resized.before));
  }
  return 0;
}

}  // namespace

void add_ring_resize(CLI::App& command, Context& context) {
  auto& resize_command =
      add_subcommand(command, "resize", "change the partitions' number, weights or names, while in use");
  const auto options = std::make_shared<Options>();
  add_topic_option(resize_command, options->common.topic);
  add_ring_change_options(resize_command, options->change);
  add_flag(resize_command, "--abort", options->abort, "give up a resize that was begun and is not finished");
  add_change_options(resize_command, options->common);
  run_with(resize_command, context, [&context, options] { return resize(context, *options); });
}

}  // namespace continuum::app
