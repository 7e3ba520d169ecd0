#include "continuum/inspect.hpp"

#include "continuum/error.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <set>
#include <span>
#include <utility>

namespace continuum {

namespace {

// Asked in one request, so that an answer stays small: it holds two entries of each partition.
constexpr std::size_t partitions_at_once = 64;
// How busy a partition may be for some time: more, and every burst waits.
constexpr std::uint64_t busy_permille_goal = 700;

// A time that needs another look at the log: that of the first event behind an entry, or of the last one
// before.
struct TimeWanted {
  std::string key;
  Partition partition;
  EntryId at;
  enum class Side : std::uint8_t { after, before } side;
  std::optional<SystemTime>* out;
  std::optional<Offset>* first;  // of the entry, where that is wanted, too
};
// What a group has not wholly passed.
struct Unhandled {
  std::optional<SystemTime> since;
  std::optional<Offset> first;
};

class Inspector {
 public:
  Inspector(redis::Session& session, const Topic& topic) : session_(session), topic_(topic) {}

  // What should go from the logs; before look().
  void want_trimmed(const TrimGoal& goal, Milliseconds stall_limit) {
    goal_ = goal;
    stall_limit_ = stall_limit;
  }

  std::vector<PartitionView> look() {
    look_at_all();
    // What was not asked for in one moment may look lost because of what was trimmed between two answers.
    if (!together_ &&
        std::ranges::any_of(views_, [](const PartitionView& view) { return !view.loss.empty(); })) {
      look_at_all();
    }
    return std::move(views_);
  }

 private:
  void look_at_all() {
    const std::vector<Partition> partitions = topic_.partitions();
    views_.assign(partitions.size(), {});
    unhandled_.assign(partitions.size(), {});
    orphan_unhandled_.assign(partitions.size(), {});
    stateless_.clear();
    maybe_orphans_.clear();
    for (std::size_t begin = 0; begin < partitions.size(); begin += partitions_at_once) {
      const std::size_t count = std::min(partitions_at_once, partitions.size() - begin);
      look_at(std::span(partitions).subspan(begin, count), begin);
    }
    if (!maybe_orphans_.empty()) {
      find_orphans();
    }
    while (!wanted_.empty()) {
      find_times();
    }
    for (std::size_t i = 0; i < views_.size(); ++i) {
      finish(i);
    }
  }

  void look_at(std::span<const Partition> partitions, std::size_t begin) {
    redis::Replies replies = ask(partitions);
    if (together_ && is_full(replies)) {
      together_ = false;
      replies = ask(partitions);
    }
    const std::size_t each = (replies.size() - 1) / partitions.size();
    now_ = time_of(replies[replies.size() - 1]);
    for (std::size_t i = 0; i < partitions.size(); ++i) {
      const std::size_t first = i * each;
      const redis::Reply whole = replies[first + each - 2];  // of the transaction
      if (together_ && whole.is_error()) {
        fail(ErrorKind::usage, "{}: the server refuses to show it: {}", place(topic_.name, partitions[i]),
             whole.text());
      }
      const Answers answers = [&](std::size_t k) { return together_ ? whole[k] : replies[first + k]; };
      read(begin + i, partitions[i], answers, replies[first + each - 1]);
    }
  }

  redis::Replies ask(std::span<const Partition> partitions) {
    redis::Request request;
    request.keep_errors().keep_full();
    for (const Partition partition : partitions) {
      if (together_) {
        request.command("MULTI");
      }
      request_ends(request, topic_.name, partition);
      for (const auto& [group, registered] : topic_.groups) {
        request.command("HGETALL", group_key(topic_.name, partition, group));
      }
      if (goal_.before) {
        request.command("XRANGE", log_key(topic_.name, partition),
                        std::max<std::int64_t>(0, goal_.before->time_since_epoch().count()), "+", "COUNT", 1);
      }
      if (together_) {
        request.command("EXEC");
      }
      request.command("MEMORY", "USAGE", log_key(topic_.name, partition), "SAMPLES", memory_samples);
    }
    request.command("TIME");
    return session_.call(std::move(request));
  }

  // A full server takes no transactions, not even to read. It takes no events either, so that a log and its
  // state agree without one, unless it is just being trimmed.
  static bool is_full(const redis::Replies& replies) {
    for (std::size_t i = 0; i < replies.size(); ++i) {
      if (replies[i].is_error() && replies[i].text().starts_with("OOM")) {
        return true;
      }
    }
    return false;
  }

  static SystemTime time_of(redis::Reply reply) {
    return SystemTime(Milliseconds(reply[0].integer() * 1000 + reply[1].integer() / 1000));
  }

  // To the commands about one partition, in their order.
  using Answers = std::function<redis::Reply(std::size_t)>;

  void read(std::size_t i, Partition partition, const Answers& answers, redis::Reply memory) {
    const LogEnds ends = parse_ends(answers(0), answers(1), topic_.name, partition, topic_.log_id);
    PartitionView& view = views_[i];
    view.topic = topic_.name;
    view.partition = partition;
    view.generation = ends.state.generation;
    view.first = ends.first();
    view.next = std::max(ends.state.next, view.first);
    view.loss = ends.loss.empty() ? ends.head_loss : ends.loss;
    if (memory.is_nil()) {
      view.log_bytes = 0;
    } else if (!memory.is_error()) {
      view.log_bytes = memory.number();
    }
    if (ends.newest && view.first < view.next) {
      if (ends.newest->barrier) {
        want(view, ends.newest->id, TimeWanted::Side::before, view.newest);
      } else {
        view.newest = ends.newest->time();
      }
    }
    std::size_t answer = 2;
    view.groups.reserve(topic_.groups.size());
    unhandled_[i].resize(topic_.groups.size());
    for (const auto& [group, registered] : topic_.groups) {
      const bool was_registered = answers(0).field("group:" + group).has_value();
      const redis::Reply state = answers(answer++);
      if (state.size() == 0) {
        stateless_.emplace(i, view.groups.size());
      }
      GroupView& seen = view.groups.emplace_back(read_group(view, ends, group, state, was_registered));
      want_unhandled(view, seen, unhandled_[i][view.groups.size() - 1]);
    }
    if (!goal_.wants_nothing() && ends.loss.empty()) {
      view.retention.emplace();
      view.retention->wanted = wanted_of(view, answers, answer);
    }
    constexpr std::string_view group_field = "group:";
    const redis::Reply meta = answers(0);
    for (std::size_t field = 0; field + 1 < meta.size(); field += 2) {
      const std::string_view name = meta[field].text();
      if (name.starts_with(group_field) &&
          !topic_.groups.contains(std::string(name.substr(group_field.size())))) {
        maybe_orphans_.emplace_back(i, name.substr(group_field.size()));
      }
    }
  }

  // One that was registered since the topic was read is none. So the topic is asked again, and then whether
  // the partition still has it.
  void find_orphans() {
    redis::Request ask;
    for (const auto& [i, name] : maybe_orphans_) {
      ask.command("HEXISTS", topic_key(topic_.name), "group:" + name);
    }
    const redis::Replies in_topic = session_.call(std::move(ask));
    std::size_t asked = 0;
    std::erase_if(maybe_orphans_, [&](const auto&) { return in_topic[asked++].integer() != 0; });
    std::ranges::sort(maybe_orphans_);
    redis::Request request;
    for (const auto& [i, name] : maybe_orphans_) {
      request.command("HEXISTS", meta_key(topic_.name, views_[i].partition), "group:" + name);
      request.command("HGETALL", group_key(topic_.name, views_[i].partition, name));
    }
    if (request.empty()) {
      return;
    }
    const redis::Replies replies = session_.call(std::move(request));
    for (std::size_t k = 0; k < maybe_orphans_.size(); ++k) {
      const auto& [i, name] = maybe_orphans_[k];
      if (replies[2 * k].integer() != 0) {
        views_[i].orphans.push_back(read_orphan(views_[i], name, replies[2 * k + 1]));
      }
    }
    for (std::size_t i = 0; i < views_.size(); ++i) {
      orphan_unhandled_[i].resize(views_[i].orphans.size());
      for (std::size_t g = 0; g < views_[i].orphans.size(); ++g) {
        want_unhandled(views_[i], views_[i].orphans[g], orphan_unhandled_[i][g]);
      }
    }
  }

  // Nobody loses anything by what is wrong with it.
  static GroupView read_orphan(const PartitionView& view, const std::string& group, redis::Reply reply) {
    GroupView seen;
    seen.group = group;
    seen.state.cursor = {view.first, EntryId{}};
    try {
      if (auto state = parse_group(reply)) {
        seen.state = *std::move(state);
      }
    } catch (const Error&) {
      seen.state.cursor = {view.first, EntryId{}};
    }
    const Offset cursor = seen.state.cursor.offset;
    seen.lag_events = view.next > cursor ? view.next - cursor : 0;
    seen.motion = motion_of(seen);
    return seen;
  }

  Offset wanted_of(const PartitionView& view, const Answers& answers, std::size_t answer) const {
    Offset wanted = view.first;
    if (goal_.before) {
      const redis::Reply kept = answers(answer);
      const bool any = !kept.is_error() && kept.size() > 0;
      wanted = any ? std::max(wanted, parse_entry(kept[0], topic_.name, view.partition).first) : view.next;
    }
    const std::uint64_t bytes = view.log_bytes.value_or(0);
    if (goal_.bytes_max && bytes > *goal_.bytes_max) {
      const double share = static_cast<double>(bytes - *goal_.bytes_max) /
                           static_cast<double>(std::max<std::uint64_t>(1, bytes));
      wanted = std::max(wanted,
                        view.first + static_cast<std::uint64_t>(share * static_cast<double>(view.events())));
    }
    return wanted;
  }

  GroupView read_group(const PartitionView& view, const LogEnds& ends, const std::string& group,
                       redis::Reply reply, bool was_registered) const {
    GroupView seen;
    seen.group = group;
    const std::string at = fmt::format("{}, group {}", place(topic_.name, view.partition), group);
    std::optional<GroupState> state;
    try {
      state = parse_group(reply);
    } catch (const Error& error) {
      seen.loss = fmt::format("{}: {}", at, error.message());
    }
    if (!state) {
      // A registration that is under way has not come here yet.
      seen.state.cursor = {view.first, EntryId{}};
      seen.lag_events = view.events();
      if (was_registered && seen.loss.empty()) {
        seen.loss = fmt::format("{}: its state is gone: was {} deleted or evicted?", at,
                                group_key(topic_.name, view.partition, group));
      }
    } else {
      seen.state = std::move(*state);
      const Offset cursor = seen.state.cursor.offset;
      seen.lag_events = view.next > cursor ? view.next - cursor : 0;
      if (ends.loss.empty()) {
        seen.loss = loss_of_group(view, ends, seen.state.cursor, at);
      }
    }
    seen.motion = motion_of(seen);
    return seen;
  }

  static std::string loss_of_group(const PartitionView& view, const LogEnds& ends, const Cursor& cursor,
                                   const std::string& at) {
    if (cursor.offset > view.next || cursor.entry > ends.last_id) {
      return fmt::format(
          "{}: it has handled events up to offset {}, but the log ends at {}: the server lost the end of the "
          "log (failover, or an old snapshot)",
          at, cursor.offset, view.next);
    }
    if (cursor.offset < view.first) {
      return fmt::format("{}: offsets {} to {} were removed before it handled them", at, cursor.offset,
                         view.first.value - 1);
    }
    return {};
  }

  static GroupMotion motion_of(const GroupView& seen) {
    if (seen.state.state == "halted") {
      return GroupMotion::halted;
    }
    if (!seen.state.paused.empty()) {
      return GroupMotion::paused;
    }
    constexpr std::array<std::pair<std::string_view, GroupMotion>, 4> told{
        {{"refused", GroupMotion::refused},
         {"down", GroupMotion::down},
         {"full", GroupMotion::full},
         {"retrying", GroupMotion::retrying}}};
    for (const auto& [state, motion] : told) {
      if (seen.state.state == state && !seen.state.owner.empty()) {
        return motion;
      }
    }
    if (seen.lag_events == 0) {
      return GroupMotion::caught_up;
    }
    return seen.state.owner.empty() ? GroupMotion::no_owner : GroupMotion::running;
  }

  void want(const PartitionView& view, EntryId at, TimeWanted::Side side, std::optional<SystemTime>& out,
            std::optional<Offset>* first = nullptr) {
    wanted_.push_back({log_key(view.topic, view.partition), view.partition, at, side, &out, first});
  }
  void want_unhandled(const PartitionView& view, const GroupView& seen, Unhandled& out) {
    if (seen.lag_events > 0) {
      want(view, seen.state.cursor.entry, TimeWanted::Side::after, out.since, &out.first);
    }
  }

  // One step for all; what meets a barrier stays and goes on behind it.
  void find_times() {
    const std::size_t count = std::min(partitions_at_once, wanted_.size());
    redis::Request request;
    for (std::size_t i = 0; i < count; ++i) {
      const TimeWanted& w = wanted_[i];
      const std::string from = "(" + w.at.text();
      if (w.side == TimeWanted::Side::after) {
        request.command("XRANGE", w.key, from, "+", "COUNT", 1);
      } else {
        request.command("XREVRANGE", w.key, from, "-", "COUNT", 1);
      }
    }
    const redis::Replies replies = session_.call(std::move(request));
    std::vector<TimeWanted> rest(wanted_.begin() + static_cast<std::ptrdiff_t>(count), wanted_.end());
    for (std::size_t i = 0; i < count; ++i) {
      TimeWanted& w = wanted_[i];
      if (replies[i].size() == 0) {
        continue;
      }
      try {
        const Entry entry = parse_entry(replies[i][0], topic_.name, w.partition);
        if (entry.barrier) {
          w.at = entry.id;
          rest.push_back(std::move(w));
        } else {
          *w.out = entry.time();
          if (w.first != nullptr) {
            *w.first = entry.first;
          }
        }
      } catch (const Error& error) {
        view_of(w.partition).loss = error.message();
      }
    }
    wanted_ = std::move(rest);
  }

  PartitionView& view_of(Partition partition) {
    return *std::find_if(views_.begin(), views_.end(),
                         [&](const PartitionView& view) { return view.partition == partition; });
  }

  void finish(std::size_t i) {
    const auto age = [&](SystemTime time) { return std::max(Milliseconds(0), now_ - time); };
    PartitionView& view = views_[i];
    if (view.newest) {
      view.newest_age = age(*view.newest);
    }
    for (std::size_t g = 0; g < view.groups.size(); ++g) {
      // Where its registration has not come to yet it cannot have stood still.
      const auto standing = stateless_.contains({i, g}) ? Standing::begins : Standing::member;
      finish(view, view.groups[g], unhandled_[i][g], standing);
    }
    for (std::size_t g = 0; g < view.orphans.size(); ++g) {
      finish(view, view.orphans[g], orphan_unhandled_[i][g], Standing::orphan);
    }
    if (view.retention) {
      std::ranges::stable_sort(view.retention->holders, {}, &RetentionView::Holder::offset);
    }
  }

  enum class Standing : std::uint8_t { member, begins, orphan };

  void finish(PartitionView& view, GroupView& seen, const Unhandled& unhandled, Standing standing) const {
    const auto age = [&](SystemTime time) { return std::max(Milliseconds(0), now_ - time); };
    if (unhandled.since) {
      seen.lag = age(*unhandled.since);
    }
    const GroupState& state = seen.state;
    if (!view.retention || state.cursor.offset >= view.retention->wanted) {
      return;
    }
    RetentionView::Holder holder;
    holder.group = seen.group;
    holder.offset = state.cursor.offset;
    holder.until = std::max(view.first, unhandled.first.value_or(state.cursor.offset));
    holder.stand = {state.cursor.entry, state.run, state.moved};
    holder.since = std::max(state.moved, unhandled.since.value_or(state.moved));
    holder.stalled = standing != Standing::begins && age(holder.since) > stall_limit_;
    holder.orphan = standing == Standing::orphan;
    view.retention->holders.push_back(std::move(holder));
  }

  redis::Session& session_;
  const Topic& topic_;
  TrimGoal goal_;
  Milliseconds stall_limit_{0};
  bool together_ = true;  // what is asked of a partition is of one moment
  SystemTime now_{};      // the server's clock, which also made the entry ids
  std::vector<PartitionView> views_;
  std::vector<std::vector<Unhandled>> unhandled_;  // by partition and group
  std::vector<std::vector<Unhandled>> orphan_unhandled_;
  std::vector<std::pair<std::size_t, std::string>> maybe_orphans_;  // partition and group
  std::set<std::pair<std::size_t, std::size_t>> stateless_;         // partition and group
  std::vector<TimeWanted> wanted_;
};

}  // namespace

std::string_view name_of(GroupMotion motion) {
  switch (motion) {
    case GroupMotion::halted:
      return "halted";
    case GroupMotion::paused:
      return "paused";
    case GroupMotion::refused:
      return "server full";
    case GroupMotion::down:
      return "handler down";
    case GroupMotion::full:
      return "full";
    case GroupMotion::retrying:
      return "retrying";
    case GroupMotion::caught_up:
      return "caught up";
    case GroupMotion::no_owner:
      return "no owner";
    case GroupMotion::running:
      break;
  }
  return "running";
}

std::optional<std::uint64_t> partitions_enough(const std::vector<PartitionView>& views,
                                               std::string_view group) {
  std::uint64_t busy_permille = 0;
  for (const PartitionView& view : views) {
    for (const GroupView& seen : view.groups) {
      if (seen.group == group && !seen.state.owner.empty()) {
        busy_permille += seen.state.busy_permille;
      }
    }
  }
  if (busy_permille == 0) {
    return std::nullopt;
  }
  return (busy_permille + busy_permille_goal - 1) / busy_permille_goal;
}

std::vector<PartitionView> inspect_topic(redis::Session& session, const Topic& topic) {
  if (!topic.settings.trims()) {
    return Inspector(session, topic).look();
  }
  redis::Request request;
  request.command("TIME");
  const redis::Replies replies = session.call(std::move(request));
  const SystemTime now(Milliseconds(replies[0][0].integer() * 1000 + replies[0][1].integer() / 1000));
  return inspect_topic(session, topic, goal_of(topic.settings, now), stall_limit_of(topic.settings));
}

std::vector<PartitionView> inspect_topic(redis::Session& session, const Topic& topic, const TrimGoal& goal,
                                         Milliseconds stall_limit) {
  Inspector inspector(session, topic);
  inspector.want_trimmed(goal, stall_limit);
  return inspector.look();
}

}  // namespace continuum
