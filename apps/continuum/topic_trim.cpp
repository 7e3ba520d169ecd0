// continuum topic trim: what is old, or too much, and has been handled by every group, goes from the logs.
#include "topic_trim.hpp"

#include "commands.hpp"
#include "operator.hpp"
#include "options.hpp"
#include "output.hpp"
#include "selectors.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/inspect.hpp"
#include "continuum/names.hpp"
#include "continuum/topic.hpp"
#include "continuum/trim.hpp"
#include "continuum/units.hpp"
#include "continuum/worker.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <utility>

namespace continuum::app {
namespace {

struct Options {
  GroupArguments common;  // of no group
  std::optional<Moment> before;
  std::optional<Milliseconds> keep;
  std::optional<std::uint64_t> keep_bytes;
  std::optional<Milliseconds> stall_limit;
  bool force = false;

  [[nodiscard]] bool acts() const { return common.yes && !common.dry_run; }
};

Moment ago(Milliseconds time) {
  Moment moment;
  moment.is = Moment::Is::ago;
  moment.ago = time;
  return moment;
}

TrimGoal goal_for(const Options& options, const Topic& topic, redis::Session& session) {
  if (options.before && options.keep) {
    fail(ErrorKind::usage, "--before and --keep say the same in two ways: give one of them");
  }
  TrimGoal goal;
  if (options.before || options.keep) {
    goal.before = resolve(options.before ? *options.before : ago(*options.keep), session);
  }
  goal.bytes_max = options.keep_bytes;
  if (goal.wants_nothing()) {
    goal = goal_of(topic.settings, resolve(ago(Milliseconds(0)), session));
  }
  if (goal.wants_nothing()) {
    fail(ErrorKind::usage,
         "topic {} has no retention: set one (`continuum topic set -t {} retention=7d`), or say what to keep "
         "with "
         "--keep, --keep-bytes or --before",
         topic.name, topic.name);
  }
  return goal;
}

// The archive is never one of them: what it lacks would be gone for good. Nor is what a forget has left:
// forgetting it to the end is what helps.
bool is_passed_over(const Options& options, const RetentionView::Holder& holder) {
  return options.force && holder.stalled && !holder.orphan && holder.group != archive_group;
}

std::vector<TrimGroup> passed_over(const Options& options, const PartitionView& view) {
  std::vector<TrimGroup> groups;
  for (const auto& holder : view.retention->holders) {
    if (is_passed_over(options, holder)) {
      groups.push_back({holder.group, holder.stand});
    }
  }
  return groups;
}

// Who keeps the log from beginning where it should.
const RetentionView::Holder* holder_of(const Options& options, const PartitionView& view) {
  for (const auto& holder : view.retention->holders) {
    if (!is_passed_over(options, holder)) {
      return &holder;
    }
  }
  return nullptr;
}

Offset until_of(const Options& options, const PartitionView& view) {
  const auto* const holder = holder_of(options, view);
  const Offset wanted = std::max(view.first, view.retention->wanted);
  return holder == nullptr ? wanted : std::min(wanted, holder->until);
}

// That holds something.
bool has_orphan(const PartitionView& view) {
  return std::ranges::any_of(view.retention->holders, &RetentionView::Holder::orphan);
}

class Trim {
 public:
  Trim(const Context& context, const Options& options, redis::Session& session)
      : context_(context),
        options_(options),
        session_(session),
        topic_(load_topic(session, options.common.topic)) {
    partitions_ = parse_partitions_of(topic_, options.common.partitions);
    goal_ = goal_for(options, topic_, session);
    before_ = look();
  }

  int run() {
    after_ = before_;
    if (options_.acts()) {
      act();
      after_ = look();
    }
    show();
    say_stalled();
    for (const std::string& text : orphan_texts(after_)) {
      say(context_, text);
    }
    if (!options_.acts() && !options_.common.dry_run) {
      say(context_, "nothing was changed: --yes does it");
    }
    const bool is_held = !stalled_.empty() || std::ranges::any_of(after_, has_orphan);
    return options_.acts() && is_held ? static_cast<int>(ErrorKind::partial) : 0;
  }

 private:
  [[nodiscard]] std::vector<PartitionView> look() const {
    const Milliseconds limit = options_.stall_limit.value_or(stall_limit_of(topic_.settings));
    std::vector<PartitionView> views = inspect_topic(session_, topic_, goal_, limit);
    std::erase_if(views, [&](const PartitionView& view) {
      return std::ranges::find(partitions_, view.partition) == partitions_.end();
    });
    for (const PartitionView& view : views) {
      if (!view.loss.empty() && (!view.retention || !options_.force)) {
        fail(ErrorKind::loss, "{}. Nothing was trimmed{}", view.loss,
             view.retention ? "; --force takes the log as it is" : "");
      }
    }
    return views;
  }

  void act() {
    std::uint64_t events = 0;
    std::set<std::string> over;
    bool takes_head = false;
    for (const PartitionView& view : before_) {
      events += until_of(options_, view) - view.first;
      takes_head = takes_head || !view.loss.empty();
      for (const TrimGroup& group : passed_over(options_, view)) {
        over.insert(group.name);
      }
    }
    std::string what = fmt::format("topic trim{}", options_.force ? " --force" : "");
    if (goal_.before) {
      what += " --before " + format_time(*goal_.before);
    }
    if (goal_.bytes_max) {
      what += fmt::format(" --keep-bytes {}", *goal_.bytes_max);
    }
    const std::string groups =
        over.empty() ? std::string()
                     : fmt::format(", over {}", printable(fmt::format("{}", fmt::join(over, ", "))));
    Audit audit(session_, options_.common, what);
    // Run by cron it has nothing to do most of the time.
    const bool is_begun = events > 0 || !over.empty() || takes_head;
    if (is_begun) {
      audit.begin(fmt::format("{}: about {} events{}", partition_text(partitions_), events, groups));
    }
    const auto head = options_.force ? TrimHead::any : TrimHead::recorded;
    std::uint64_t removed = 0;
    for (const PartitionView& view : before_) {
      Offset first = view.first;
      const auto passed = passed_over(options_, view);
      TrimResult result;
      do {
        result = trim_log(session_, topic_, view.partition, goal_, passed, head, [] { return true; });
        removed += result.entries > 0 ? result.first - std::exchange(first, result.first) : 0;
      } while (result.goal_is_old && read_goal());
      if (result.goal_is_old) {
        break;
      }
    }
    if (is_begun || removed > 0) {
      audit.done(fmt::format("{}: {} events{}", partition_text(partitions_), removed, groups));
    }
  }

  // What the topic's settings want now; whether they want anything.
  bool read_goal() {
    Topic now = load_topic(session_, topic_.name);
    if (now.log_id != topic_.log_id) {
      fail(ErrorKind::loss, "topic {} was dropped while it was trimmed", topic_.name);
    }
    topic_ = std::move(now);
    const TrimGoal goal = goal_of(topic_.settings, resolve(ago(Milliseconds(0)), session_));
    if (goal.wants_nothing()) {
      say(context_,
          fmt::format("topic {}: the retention was taken away, and nothing more is trimmed", topic_.name));
      return false;
    }
    goal_ = goal;
    return true;
  }

  void show() {
    Output out;
    constexpr auto right = Table::Align::right;
    Table table({{"PARTITION", right},
                 {"FIRST", right},
                 {"NEXT", right},
                 {"WANTED", right},
                 {options_.acts() ? "TRIMMED" : "TRIMS", right},
                 {"BEGINS", right},
                 {"HELD_BY"},
                 {"SINCE"}});
    for (std::size_t i = 0; i < before_.size(); ++i) {
      const PartitionView& view = before_[i];
      const PartitionView& now = after_[i];
      const Offset until = options_.acts() ? now.first : until_of(options_, view);
      const auto* const holder = holder_of(options_, now);
      std::optional<std::string> held_by;
      std::optional<std::string> since;
      if (holder != nullptr) {
        held_by = holder->group;
        since = format_time(holder->since);
        if (holder->stalled && !holder->orphan) {
          stalled_[holder->group].push_back(view.partition);
        }
      }
      if (context_.json) {
        out.line(JsonObject()
                     .add("topic", topic_.name)
                     .add("partition", view.partition)
                     .add("status", options_.acts() ? "trimmed" : "planned")
                     .add("first_offset", view.first)
                     .add("next_offset", view.next)
                     .add("wanted_offset", now.retention->wanted)
                     .add("until_offset", until)
                     .add("events", until - view.first)
                     .add("held_by", held_by)
                     .add("since", since)
                     .add("stalled", holder != nullptr && holder->stalled)
                     .text());
      } else {
        table.row({view.partition.value, view.first.value, view.next.value, now.retention->wanted.value,
                   until - view.first, until.value, held_by.value_or(""), since.value_or("")});
      }
    }
    if (!context_.json) {
      table.print(out);
    }
    out.flush();
  }

  void say_stalled() const {
    const Milliseconds limit = options_.stall_limit.value_or(stall_limit_of(topic_.settings));
    for (const auto& [group, partitions] : stalled_) {
      say(context_,
          fmt::format(
              "topic {}: group {} has stood still for more than {} on {}, and what it has not handled is "
              "kept. {}",
              topic_.name, group, exact_duration(limit), partition_text(partitions),
              group == archive_group
                  ? fmt::format(
                        "What is not archived is not trimmed, not even with --force: start its "
                        "worker. Or end the archive: `continuum group forget -t {} -g {} --yes`; what "
                        "is not archived is then free to be trimmed, and is in no archive",
                        topic_.name, group)
                  : fmt::format("`continuum inspect why -t {} -g {}` says why; --force trims over it: it "
                                "loses these events",
                                topic_.name, group)));
    }
  }

  const Context& context_;
  const Options& options_;
  redis::Session& session_;
  Topic topic_;
  std::vector<Partition> partitions_;
  TrimGoal goal_;
  std::vector<PartitionView> before_;
  std::vector<PartitionView> after_;
  std::map<std::string, std::vector<Partition>> stalled_;
};

int trim(const Context& context, const Options& options) {
  if (options.common.topic.empty()) {
    fail(ErrorKind::usage, "which topic? Give NAME or -t NAME");
  }
  const auto session =
      connect(context, options.acts() ? redis::Needs::Access::write : redis::Needs::Access::read);
  return Trim(context, options, *session).run();
}

}  // namespace

void add_topic_trim(CLI::App& command, Context& context) {
  const auto options = std::make_shared<Options>();
  const auto parse_name = [options](const std::string& text) {
    require_name("topic", text);
    if (!options->common.topic.empty() && options->common.topic != text) {
      fail(ErrorKind::usage, "another topic, {}, is named, too", options->common.topic);
    }
    options->common.topic = text;
  };
  auto& trim_command = add_subcommand(command, "trim", "remove old events that every group has handled");
  add_parsed(trim_command, "NAME", "", "the topic", parse_name);
  add_parsed(trim_command, "-t,--topic", "NAME", "the topic", parse_name);
  add_partition_option(trim_command, options->common);
  add_duration(trim_command, "--keep", options->keep, "keep what is younger (the topic's retention)");
  add_parsed(trim_command, "--before", "TIME",
             "keep what was stored then or later: a time, a date, or how long ago",
             [options](const std::string& text) { options->before = parse_moment(text); });
  add_parsed(trim_command, "--keep-bytes", "SIZE",
             "keep so much of each partition in Redis memory (the topic's retention_bytes)",
             [options](const std::string& text) { options->keep_bytes = parse_bytes(text); });
  add_flag(trim_command, "--force", options->force,
           "also what groups have not handled that stand still for longer than the limit");
  add_duration(trim_command, "--stall-limit", options->stall_limit,
               "that limit (the topic's stall_limit, else its retention, at most 7d)");
  add_change_options(trim_command, options->common);
  add_yes_option(trim_command, options->common);
  run_with(trim_command, context, [&context, options] { return trim(context, *options); });
}

}  // namespace continuum::app
