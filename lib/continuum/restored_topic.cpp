#include "continuum/restored_topic.hpp"

#include "continuum/error.hpp"
#include "continuum/log.hpp"
#include "continuum/names.hpp"
#include "continuum/worker.hpp"

#include <vector>

namespace continuum {

namespace {

// Of finding the topic as it was a moment ago.
constexpr int attempts_max = 3;

std::string ring_field(Generation generation) {
  return fmt::format("gen:{}", generation);
}

void request_limits(redis::Request& request, const std::string& key, const TopicSettings& settings) {
  if (settings.retention) {
    request.command("HSET", key, "retention", settings.retention->count());
  }
  if (settings.retention_bytes) {
    request.command("HSET", key, "retention_bytes", *settings.retention_bytes);
  }
  if (settings.stall_limit) {
    request.command("HSET", key, "stall_limit", settings.stall_limit->count());
  }
}

}  // namespace

RestoredTopic::RestoredTopic(redis::Session& session, const RestoreSource& source,
                             const RestoreOptions& options)
    : session_(session),
      source_(source),
      renamed_(options.to.has_value()),
      mode_(options.mode),
      name_(options.to.value_or(source.topic().name)) {
  require_name("topic", name_);
}

// False: somebody changed it meanwhile.
bool RestoredTopic::change(const Change& change) {
  const std::string key = topic_key(name_);
  redis::Request watch;
  watch.command("WATCH", key);
  request_topic(watch, name_);
  const auto watched = session_.call(std::move(watch));
  redis::Request request;
  request.command("MULTI");
  try {
    change(parse_topic(name_, watched[1]), request, key);
  } catch (const Error&) {
    redis::Request unwatch;
    unwatch.command("UNWATCH");
    (void)session_.call(std::move(unwatch));
    throw;
  }
  request.command("EXEC");
  const auto replies = session_.call(std::move(request));
  return !replies[replies.size() - 1].is_nil();
}

void RestoredTopic::begin() {
  for (int attempt = 0; attempt < attempts_max; ++attempt) {
    std::optional<Partition> left;
    const bool done = mode_ == RestoreMode::act ? mark(left) : look(left);
    if (done && left) {
      fail_left(*left);
    }
    if (done) {
      return;
    }
  }
  fail_changed();
}

// False: somebody changed the topic meanwhile. What was `left` may then be theirs.
bool RestoredTopic::mark(std::optional<Partition>& left) {
  return change([&](const std::optional<Topic>& there, redis::Request& request, const std::string& key) {
    if (there) {
      require_ours(*there);
      log_id_ = there->log_id;
      return;
    }
    left = find_left();
    if (!left) {
      log_id_ = renamed_ ? random_id() : source_.topic().log_id;
      request_new(request, key);
    }
  });
}

bool RestoredTopic::look(std::optional<Partition>& left) {
  if (const auto there = load()) {
    require_ours(*there);
    log_id_ = there->log_id;
    return true;
  }
  log_id_ = renamed_ ? std::string() : source_.topic().log_id;
  left = find_left();
  return !left || !load();
}

void RestoredTopic::request_new(redis::Request& request, const std::string& key) const {
  const Topic& topic = source_.topic();
  request.command("HSET", key, "id", log_id_, "format", 1, "created",
                  topic.created.time_since_epoch().count(), "frames", name_of(topic.settings.frames),
                  "event_bytes_max", topic.settings.event_bytes_max, "active", 0, "pending", topic.active,
                  "restoring", topic.log_id, ring_field(topic.active), topic.ring().text());
  request_limits(request, key, topic.settings);
}

void RestoredTopic::require_ours(const Topic& there) const {
  if (!there.restoring) {
    fail(
        ErrorKind::usage,
        "topic {} exists on {}: an archive is restored where there is none of that name. Give it another "
        "one by --to NAME; or delete the one that is there, with all its events: `continuum topic drop -t {} "
        "--yes`",
        name_, session_.address().text(), name_);
  }
  const std::string& archived = source_.topic().log_id;
  if (*there.restoring != archived || (!renamed_ && there.log_id != archived)) {
    fail(ErrorKind::usage,
         "topic {} is being restored from another archive (of log {}): let that be finished, or give it up "
         "with `continuum topic drop -t {} --yes`",
         name_, printable(*there.restoring), name_);
  }
}

bool RestoredTopic::is_ours(const std::optional<Topic>& there) const {
  return there && there->restoring == source_.topic().log_id && there->log_id == log_id_;
}

bool RestoredTopic::is_ours() const {
  return is_ours(load());
}

std::optional<Topic> RestoredTopic::load() const {
  redis::Request ask;
  request_topic(ask, name_);
  const auto asked = session_.call(std::move(ask));
  return parse_topic(name_, asked[0]);
}

// Of a topic that was dropped half way. Its keys would be taken for ours.
std::optional<Partition> RestoredTopic::find_left() const {
  std::vector<Partition> partitions = source_.partitions();
  partitions.insert(partitions.end(), source_.missing().begin(), source_.missing().end());
  redis::Request request;
  for (const Partition partition : partitions) {
    request.command("EXISTS", meta_key(name_, partition), log_key(name_, partition),
                    restoring_key(name_, partition));
  }
  const auto replies = session_.call(std::move(request));
  for (std::size_t i = 0; i < partitions.size(); ++i) {
    if (replies[i].number() > 0) {
      return partitions[i];
    }
  }
  return std::nullopt;
}

void RestoredTopic::fail_changed() const {
  fail(ErrorKind::fenced, "somebody else restores or changes topic {}: one at a time. Run it again then",
       name_);
}

void RestoredTopic::fail_not_ours(Partition partition) const {
  if (!is_ours()) {
    fail_changed();
  }
  fail_left(partition);
}

void RestoredTopic::fail_left(Partition partition) const {
  fail(
      ErrorKind::usage,
      "{} holds the log of another topic of that name: delete what is left of it by `continuum topic drop -t "
      "{} --yes`",
      place(name_, partition), name_);
}

// On a partition that begins anew the group is given its cursor by whoever needs it first, as on one that a
// resize adds.
void RestoredTopic::register_archive(Generation active, const RestoredLogs& logs) {
  if (renamed_) {
    return;
  }
  const std::string group(archive_group);
  const bool done =
      change([&](const std::optional<Topic>& there, redis::Request& request, const std::string& key) {
        if (!is_ours(there)) {
          fail_changed();
        }
        request.command("HSETNX", key, fmt::format("group:{}", group), fmt::format("start {}", active));
      });
  if (!done) {
    fail_changed();
  }
  Topic topic = source_.topic();
  topic.name = name_;
  topic.log_id = log_id_;
  topic.active = active;
  // Behind what was restored, before the barriers that the archive does not have.
  topic.groups = {{group, {"end", active}}};
  redis::Request request;
  for (const auto& [partition, ends] : logs) {
    request_registration(request, topic, group, partition);
  }
  const auto replies = session_.call(std::move(request));
  for (std::size_t i = 0; i < replies.size(); ++i) {
    if (replies[i][0].text() == "NOLOG") {
      fail_changed();
    }
  }
}

void RestoredTopic::activate(const Topic& rings) {
  const bool done =
      change([&](const std::optional<Topic>& there, redis::Request& request, const std::string& key) {
        if (!is_ours(there)) {
          fail_changed();
        }
        for (const auto& [generation, ring] : rings.rings) {
          request.command("HSET", key, ring_field(generation), ring.text());
        }
        request.command("HSET", key, "active", rings.rings.rbegin()->first);
        request.command("HDEL", key, "pending", "restoring");
      });
  if (!done) {
    fail_changed();
  }
}

}  // namespace continuum
