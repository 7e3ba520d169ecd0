#include "continuum/trim.hpp"

#include "continuum/error.hpp"
#include "continuum/trim_steps.hpp"

#include <algorithm>
#include <set>
#include <string_view>

namespace continuum {

namespace {

// What one step may cost the server: a millisecond or two.
constexpr std::uint64_t step_entries_max = 200;
constexpr std::uint64_t step_bytes_max = 1 << 20;
// Others have their turn between two steps.
constexpr Milliseconds step_pause{2};
constexpr int group_changes_max = 10;

constexpr std::string_view trim_done = "done";
constexpr std::string_view trim_more = "more";

// The groups of the topic, and those that were met on the partition.
std::vector<TrimGroup> named_groups(const Topic& topic, const std::vector<std::string>& met,
                                    const std::vector<TrimGroup>& passed_over) {
  std::set<std::string> names(met.begin(), met.end());
  for (const auto& [group, registered] : topic.groups) {
    names.insert(group);
  }
  std::vector<TrimGroup> groups;
  for (const std::string& name : names) {
    const auto over = std::find_if(passed_over.begin(), passed_over.end(),
                                   [&](const TrimGroup& group) { return group.name == name; });
    groups.push_back({name, over == passed_over.end() ? std::nullopt : over->pass_at});
  }
  return groups;
}

std::string text_of(const TrimStand& stand) {
  return fmt::format("{} {} {}", stand.entry.text(), stand.run, stand.moved.time_since_epoch().count());
}

[[noreturn]] void fail_no_log(const Topic& topic, Partition partition) {
  fail(ErrorKind::loss, "{}: its log is gone. Was the server flushed, or the topic dropped just now?",
       place(topic.name, partition));
}

// Those groups of the topic that are missing on the partition, as the topic is now: one that was forgotten a
// moment ago must not come back.
asio::awaitable<Topic> register_missing(redis::Client& client, const Topic& topic, Partition partition,
                                        const std::vector<std::string>& registered) {
  redis::Request ask;
  request_topic(ask, topic.name);
  const redis::Replies answer = co_await client.call(std::move(ask));
  auto now = parse_topic(topic.name, answer[0]);
  if (!now || now->log_id != topic.log_id) {
    fail_no_log(topic, partition);
  }
  redis::Request request;
  for (const auto& [group, how] : now->groups) {
    if (std::find(registered.begin(), registered.end(), group) == registered.end()) {
      request_registration(request, *now, group, partition);
    }
  }
  if (!request.empty()) {
    // A full server registers nobody. Waiting here until it is not would hold up what else the client has to
    // do.
    request.keep_full();
    const redis::Replies replies = co_await client.call(std::move(request));
    for (std::size_t i = 0; i < replies.size(); ++i) {
      if (replies[i].is_error()) {
        fail(ErrorKind::server,
             "{}: a group is not registered there yet, and the server is full: stop publishers, or raise "
             "maxmemory",
             place(topic.name, partition));
      }
    }
  }
  co_return *std::move(now);
}

}  // namespace

TrimGoal goal_of(const TopicSettings& settings, SystemTime now) {
  TrimGoal goal;
  if (settings.retention) {
    goal.before = now - *settings.retention;
  }
  goal.bytes_max = settings.retention_bytes;
  goal.read = now;
  return goal;
}

void request_trim(redis::Request& request, const Topic& topic, Partition partition,
                  const std::vector<TrimGroup>& groups, const TrimGoal& goal, TrimHead head) {
  std::vector<std::string> keys{log_key(topic.name, partition), meta_key(topic.name, partition)};
  const auto before = goal.before ? std::max<std::int64_t>(0, goal.before->time_since_epoch().count()) : 0;
  std::vector<std::string> arguments{
      topic.log_id,
      std::to_string(before),
      goal.bytes_max ? std::to_string(*goal.bytes_max) : std::string(),
      std::to_string(step_entries_max),
      std::to_string(step_bytes_max),
      head == TrimHead::recorded ? "recorded" : "any",
      std::to_string(memory_samples),
      goal.read ? std::to_string(goal.read->time_since_epoch().count()) : std::string()};
  for (const TrimGroup& group : groups) {
    keys.push_back(group_key(topic.name, partition, group.name));
    arguments.push_back(group.name);
    arguments.push_back(group.pass_at ? text_of(*group.pass_at) : std::string());
  }
  const std::vector<std::string_view> key_views(keys.begin(), keys.end());
  const std::vector<std::string_view> argument_views(arguments.begin(), arguments.end());
  request.script(redis::Script::trim, key_views, argument_views);
}

TrimAnswer parse_trim(redis::Reply reply) {
  const std::string_view code = reply[0].text();
  if (code == "NOLOG") {
    return TrimNoLog{};
  }
  if (code == "OLD") {
    return TrimGoalIsOld{};
  }
  if (code == "HEAD") {
    return TrimHeadMoved{Offset(reply[1].number())};
  }
  if (code == "RETRY") {
    TrimGroups groups;
    for (std::size_t i = 0; i < reply[1].size(); ++i) {
      groups.registered.emplace_back(reply[1][i].text());
    }
    return groups;
  }
  if (code != "OK") {
    fail(ErrorKind::server, "the server answered \"{}\" to trim, which this version does not understand",
         code.substr(0, 40));
  }
  Trimmed trimmed;
  trimmed.entries = reply[1].number();
  trimmed.first = Offset(reply[2].number());
  const std::string_view state = reply[3].text();
  if (state == trim_done || state == trim_more) {
    trimmed.state = state == trim_done ? Trimmed::State::done : Trimmed::State::more;
  } else {
    trimmed.state = Trimmed::State::held;
    trimmed.holder.group = reply[4].text();
    trimmed.holder.since = SystemTime(Milliseconds(reply[5].integer()));
  }
  return trimmed;
}

asio::awaitable<TrimResult> trim_in_steps(redis::Client& client, const Topic& topic, Partition partition,
                                          const TrimGoal& goal, const std::vector<TrimGroup>& passed_over,
                                          TrimHead head, const std::function<bool()>& between) {
  Topic known = topic;
  std::vector<std::string> met;
  TrimResult result;
  asio::steady_timer pause(co_await asio::this_coro::executor);
  for (int changes = 0; changes < group_changes_max;) {
    redis::Request request;
    request_trim(request, known, partition, named_groups(known, met, passed_over), goal, head);
    const redis::Replies replies = co_await client.call(std::move(request));
    const TrimAnswer answer = parse_trim(replies[0]);
    if (std::holds_alternative<TrimNoLog>(answer)) {
      fail_no_log(topic, partition);
    }
    if (std::holds_alternative<TrimGoalIsOld>(answer)) {
      result.goal_is_old = true;
      co_return result;
    }
    if (const auto* moved = std::get_if<TrimHeadMoved>(&answer)) {
      fail(ErrorKind::loss,
           "{}: the log begins at offset {}, and no trim by Continuum left it there (XTRIM or XDEL by "
           "hand?). It "
           "is not trimmed until somebody has looked: `continuum topic trim {} --force` takes it as it is",
           place(topic.name, partition), moved->first, topic.name);
    }
    if (const auto* groups = std::get_if<TrimGroups>(&answer)) {
      ++changes;
      met = groups->registered;
      known = co_await register_missing(client, topic, partition, met);
      continue;
    }
    const auto& trimmed = std::get<Trimmed>(answer);
    result.entries += trimmed.entries;
    result.first = trimmed.first;
    if (trimmed.state == Trimmed::State::held) {
      result.holder = trimmed.holder;
      // What was met on the partition was met before the topic was asked again.
      result.holder->orphan = !known.groups.contains(trimmed.holder.group);
    }
    if (trimmed.state != Trimmed::State::more) {
      co_return result;
    }
    pause.expires_after(step_pause);
    co_await pause.async_wait(as_result);
    // Directly before the next step: in the pause the process may have been stopped.
    if (!between()) {
      co_return result;
    }
  }
  fail(ErrorKind::server, "{}: its groups change all the time: try again", place(topic.name, partition));
}

TrimResult trim_log(redis::Session& session, const Topic& topic, Partition partition, const TrimGoal& goal,
                    const std::vector<TrimGroup>& passed_over, TrimHead head,
                    const std::function<bool()>& between) {
  return run_until_done(redis::io_of(session), trim_in_steps(redis::client_of(session), topic, partition,
                                                             goal, passed_over, head, between));
}

}  // namespace continuum
