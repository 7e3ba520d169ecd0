#include "continuum/topic.hpp"

#include "continuum/error.hpp"
#include "continuum/log.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <algorithm>
#include <charconv>
#include <set>

namespace continuum {
namespace {

constexpr std::uint64_t format_version = 1;
constexpr std::string_view scan_count = "1000";
constexpr int update_attempts_max = 100;
// Logs whose first entries are asked for at once: each may bring a whole frame.
constexpr std::size_t logs_asked_at_once = 64;

std::string now_text() {
  const auto now = std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now());
  return std::to_string(now.time_since_epoch().count());
}

// A field of the topic hash that must be there and be a number.
std::uint64_t number_field(redis::Reply reply, std::string_view topic, std::string_view name,
                           std::uint64_t max) {
  const auto text = reply.field(name).value_or("");
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > max) {
    fail(ErrorKind::loss, "topic {}: the field {} of its hash {} is damaged (\"{}\")", topic, name,
         topic_key(topic), printable(text));
  }
  return value;
}

Generation generation_field(redis::Reply reply, std::string_view topic, std::string_view name) {
  return Generation(static_cast<Generation::rep>(number_field(reply, topic, name, UINT32_MAX)));
}

std::optional<Generation> generation_of(std::string_view digits) {
  Generation::rep value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return error == std::errc() && end == digits.data() + digits.size() ? std::optional(Generation(value))
                                                                      : std::nullopt;
}

void read_field(Topic& topic, std::string_view name, std::string_view value) {
  if (name.starts_with("gen:")) {
    if (const auto generation = generation_of(name.substr(4))) {
      topic.rings.emplace(*generation, RingDescription::parse(value));
    }
  } else if (name.starts_with("group:")) {
    // The policy may have a blank in it ("since MS"), the generation has none.
    const auto blank = value.rfind(' ');
    const auto generation =
        blank == std::string_view::npos ? std::nullopt : generation_of(value.substr(blank + 1));
    if (!generation) {
      fail(ErrorKind::loss, "topic {}: the field {} of its hash is damaged", topic.name, printable(name));
    }
    topic.groups[std::string(name.substr(6))] = {std::string(value.substr(0, blank)), *generation};
  }
}

// Settings that a topic need not have.
std::optional<std::uint64_t> limit_field(redis::Reply reply, std::string_view topic, std::string_view name) {
  return reply.field(name) ? std::optional(number_field(reply, topic, name, number_max)) : std::nullopt;
}
std::optional<Milliseconds> duration_field(redis::Reply reply, std::string_view topic,
                                           std::string_view name) {
  const auto ms = limit_field(reply, topic, name);
  return ms ? std::optional(Milliseconds(static_cast<std::int64_t>(*ms))) : std::nullopt;
}

// --- scanning

template <class Visit>
void scan(redis::Session& session, std::string_view pattern, Visit visit) {
  std::string cursor = "0";
  do {
    redis::Request request;
    request.command("SCAN", cursor, "MATCH", pattern, "COUNT", scan_count);
    const auto replies = session.call(std::move(request));
    cursor = replies[0][0].text();
    visit(replies[0][1]);
  } while (cursor != "0");
}

std::uint64_t unlink(redis::Session& session, std::span<const std::string> keys) {
  if (keys.empty()) {
    return 0;
  }
  // One key a command, so that each finds its own slot of a Cluster.
  redis::Request request;
  for (const auto& key : keys) {
    request.command("UNLINK", key);
  }
  const auto replies = session.call(std::move(request));
  std::uint64_t deleted = 0;
  for (std::size_t i = 0; i < replies.size(); ++i) {
    deleted += replies[i].number();
  }
  return deleted;
}

// --- creating

// Steps 2 and 4 of PROTOCOLS: Resize, for generation `x` which no partition has an older one of.
bool finish_creation(redis::Session& session, const Topic& topic, Generation x) {
  const auto& ring = topic.rings.at(x);
  redis::Request seal;
  for (const auto& member : ring.members) {
    seal.run(redis::Script::seal,
             {meta_key(topic.name, member.partition), log_key(topic.name, member.partition)}, topic.log_id, x,
             "new");
  }
  const auto sealed = session.call(std::move(seal));
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    if (sealed[i][0].text() == "NOLOG") {
      fail(ErrorKind::usage,
           "{} holds the log of another topic of that name: look at it, then delete what is left by "
           "`continuum topic "
           "drop -t {} --yes`",
           place(topic.name, ring.members[i].partition), topic.name);
    }
  }
  redis::Request activate;
  activate.run(redis::Script::activate, {topic_key(topic.name)}, x);
  return session.call(std::move(activate))[0][0].text() == "OK";
}

std::optional<Topic> ask_topic(redis::Session& session, std::string_view name) {
  require_name("topic", name);
  redis::Request request;
  request_topic(request, name);
  return parse_topic(name, session.call(std::move(request))[0]);
}

void refuse_restoring(const Topic& topic) {
  if (topic.restoring) {
    fail(
        ErrorKind::usage,
        "topic {} is being restored from an archive, and cannot be used before that is finished. When it was "
        "interrupted, run `continuum archive restore` again; `continuum topic drop -t {} --yes` gives it up",
        topic.name, topic.name);
  }
}

// --- changing the topic hash

// Runs `commands` on the topic's hash only while it still is this topic: a command that came a moment after a
// drop would otherwise leave half a topic behind.
template <class Commands>
redis::Replies update(redis::Session& session, const Topic& topic, Commands commands) {
  const auto key = topic_key(topic.name);
  for (int attempt = 0; attempt < update_attempts_max; ++attempt) {
    redis::Request watch;
    watch.command("WATCH", key).command("HGET", key, "id");
    const auto watched = session.call(std::move(watch));
    if (watched[1].is_nil() || watched[1].text() != topic.log_id) {
      redis::Request unwatch;
      unwatch.command("UNWATCH");
      (void)session.call(std::move(unwatch));
      fail(ErrorKind::loss, "topic {} was dropped while it was being changed", topic.name);
    }
    redis::Request change;
    change.command("MULTI");
    commands(change, key);
    change.command("EXEC");
    auto replies = session.call(std::move(change));
    if (!replies[replies.size() - 1].is_nil()) {
      return replies;
    }
  }
  fail(ErrorKind::server, "topic {} is being changed all the time by somebody else: try again", topic.name);
}

bool is_policy(std::string_view text) {
  if (text.starts_with("since ")) {
    const auto digits = text.substr(6);
    std::uint64_t ms = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), ms);
    return error == std::errc() && end == digits.data() + digits.size() && ms <= number_max;
  }
  return text == "start" || text == "end";
}

// Registers the group in the topic unless somebody did; either way topic.groups then has what holds.
void register_in_topic(redis::Session& session, Topic& topic, const std::string& group,
                       const std::string& policy) {
  check(is_policy(policy), "a group's start policy is start, end or since MS");
  const auto field = "group:" + group;
  const auto replies = update(session, topic, [&](redis::Request& request, const std::string& key) {
    request.command("HSETNX", key, field, fmt::format("{} {}", policy, topic.active));
    request.command("HGET", key, field);
  });
  read_field(topic, field, replies[replies.size() - 1][1].text());
}

[[noreturn]] void fail_no_log(const Topic& topic, Partition partition) {
  fail(ErrorKind::loss, "{}: its log is gone. Was the server flushed, or the topic dropped just now?",
       place(topic.name, partition));
}

// Where the group has no state yet.
std::vector<Partition> partitions_without(redis::Session& session, const Topic& topic,
                                          std::string_view group) {
  const auto partitions = topic.partitions();
  redis::Request request;
  for (const auto partition : partitions) {
    request.command("HGET", meta_key(topic.name, partition), "id");
    request.command("HEXISTS", group_key(topic.name, partition, group), "offset");
  }
  const auto replies = session.call(std::move(request));
  std::vector<Partition> missing;
  for (std::size_t i = 0; i < partitions.size(); ++i) {
    if (replies[2 * i].is_nil() || replies[2 * i].text() != topic.log_id) {
      fail_no_log(topic, partitions[i]);
    }
    if (replies[2 * i + 1].integer() == 0) {
      missing.push_back(partitions[i]);
    }
  }
  return missing;
}

}  // namespace

std::vector<Partition> Topic::partitions() const {
  std::set<Partition> all;
  for (const auto& [generation, ring] : rings) {
    if (generation <= active) {
      for (const auto& member : ring.members) {
        all.insert(member.partition);
      }
    }
  }
  return {all.begin(), all.end()};
}

void request_topic(redis::Request& request, std::string_view name) {
  request.command("HGETALL", topic_key(name));
}

std::optional<Topic> parse_topic(std::string_view name, redis::Reply reply) {
  if (reply.size() == 0) {
    return std::nullopt;
  }
  if (const auto format = number_field(reply, name, "format", number_max); format > format_version) {
    fail(ErrorKind::usage,
         "topic {} was written by a newer version of Continuum (format {}, this one knows {}): update", name,
         format, format_version);
  }
  Topic topic;
  topic.name = name;
  topic.log_id = reply.field("id").value_or("");
  topic.active = generation_field(reply, name, "active");
  if (reply.field("pending")) {
    topic.pending = generation_field(reply, name, "pending");
  }
  if (const auto archived = reply.field("restoring")) {
    topic.restoring = *archived;
  }
  topic.created =
      SystemTime(Milliseconds(static_cast<std::int64_t>(number_field(reply, name, "created", number_max))));
  topic.settings.frames = parse_frames(reply.field("frames").value_or(""));
  topic.settings.event_bytes_max = number_field(reply, name, "event_bytes_max", number_max);
  topic.settings.retention = duration_field(reply, name, "retention");
  topic.settings.retention_bytes = limit_field(reply, name, "retention_bytes");
  topic.settings.stall_limit = duration_field(reply, name, "stall_limit");
  for (std::size_t i = 0; i + 1 < reply.size(); i += 2) {
    read_field(topic, reply[i].text(), reply[i + 1].text());
  }
  const auto named = topic.pending.value_or(topic.active);
  if (topic.log_id.empty() || !topic.rings.contains(named) ||
      (topic.active.value > 0 && !topic.rings.contains(topic.active))) {
    fail(ErrorKind::loss,
         "topic {}: its hash {} has no id or no description of its ring: was it changed by hand?", name,
         topic_key(name));
  }
  return topic;
}

void request_registration(redis::Request& request, const Topic& topic, std::string_view group,
                          Partition partition) {
  const auto found = topic.groups.find(std::string(group));
  if (found == topic.groups.end()) {
    fail(ErrorKind::loss,
         "topic {} does not know group {} any more: was it forgotten, or the server restored from an older "
         "copy?",
         topic.name, group);
  }
  const auto& registered = found->second;
  const std::string_view whole = registered.policy;
  const auto blank = whole.find(' ');
  const auto since = blank == std::string_view::npos ? std::string_view("0") : whole.substr(blank + 1);
  request.run(redis::Script::register_group,
              {group_key(topic.name, partition, group), meta_key(topic.name, partition),
               log_key(topic.name, partition)},
              topic.log_id, group, whole.substr(0, blank), since, registered.generation);
}

std::optional<Topic> find_topic(redis::Session& session, std::string_view name) {
  auto topic = ask_topic(session, name);
  return topic && topic->active.value > 0 ? std::move(topic) : std::nullopt;
}

Topic load_topic(redis::Session& session, std::string_view name) {
  auto topic = ask_topic(session, name);
  if (!topic) {
    fail(ErrorKind::usage, "there is no topic {} on {}{}", name, session.address().text(),
         hint_of(name, list_topics(session)));
  }
  refuse_restoring(*topic);
  if (topic->active.value == 0) {
    fail(ErrorKind::usage,
         "the creation of topic {} was not finished: `continuum topic create {}` finishes it", name, name);
  }
  return *std::move(topic);
}

std::vector<std::string> list_topics(redis::Session& session) {
  constexpr std::string_view before = "continuum:{";
  constexpr std::string_view behind = "}:topic";
  std::set<std::string> names;
  scan(session, "continuum:{*}:topic", [&](redis::Reply keys) {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      auto key = keys[i].text();
      key.remove_prefix(before.size());
      key.remove_suffix(behind.size());
      // A partition's key could only look like this if somebody named it so by hand.
      if (key.find_first_of(":{}") == std::string_view::npos) {
        names.emplace(key);
      }
    }
  });
  return {names.begin(), names.end()};
}

Created create_topic(redis::Session& session, std::string_view name, const RingDescription& ring,
                     const TopicSettings& settings) {
  require_name("topic", name);
  std::vector<std::string> arguments{"0",
                                     ring.text(),
                                     "id",
                                     random_id(),
                                     "format",
                                     std::to_string(format_version),
                                     "created",
                                     now_text(),
                                     "frames",
                                     std::string(name_of(settings.frames)),
                                     "event_bytes_max",
                                     std::to_string(settings.event_bytes_max)};
  for (const auto& [field, value] : limits_of(settings)) {
    if (value) {
      arguments.emplace_back(field);
      arguments.push_back(std::to_string(*value));
    }
  }
  redis::Request begin;
  const std::vector<std::string_view> views(arguments.begin(), arguments.end());
  begin.script(redis::Script::begin, {topic_key(name)}, views);
  const auto answer = session.call(std::move(begin));
  if (answer[0][0].text() == "CHANGED") {
    return Created::existed;
  }
  // OK, or BUSY: somebody else's creation, which may have died. Whoever comes finishes it, as it was begun.
  const auto topic = ask_topic(session, name);
  if (!topic) {
    fail(ErrorKind::loss, "topic {} was dropped while it was being created", name);
  }
  refuse_restoring(*topic);
  if (topic->active.value > 0 || !topic->pending) {
    return Created::existed;
  }
  return finish_creation(session, *topic, *topic->pending) ? Created::created : Created::existed;
}

void set_topic(redis::Session& session, const Topic& topic, const TopicSettings& settings) {
  (void)update(session, topic, [&](redis::Request& request, const std::string& key) {
    request.command("HSET", key, "frames", name_of(settings.frames), "event_bytes_max",
                    settings.event_bytes_max);
    for (const auto& [field, value] : limits_of(settings)) {
      if (value) {
        request.command("HSET", key, field, *value);
      } else {
        request.command("HDEL", key, field);
      }
    }
  });
}

std::uint64_t drop_topic(redis::Session& session, std::string_view name) {
  // Without its meta a partition takes no append and no renewal: nothing comes back while the rest goes.
  std::vector<std::string> keys;
  if (const auto topic = ask_topic(session, name)) {
    if (topic->restoring) {
      // From here on nobody marks a partition as being restored.
      (void)update(session, *topic, [](redis::Request& request, const std::string& key) {
        request.command("HSET", key, "restoring", "dropped");
      });
    }
    for (const auto& [generation, ring] : topic->rings) {
      for (const auto& member : ring.members) {
        keys.push_back(meta_key(name, member.partition));
      }
    }
  }
  std::uint64_t deleted = unlink(session, keys);
  const auto last = topic_key(name);
  const auto delete_found = [&](redis::Reply found) {
    keys.clear();
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (found[i].text() != last) {
        keys.emplace_back(found[i].text());
      }
    }
    deleted += unlink(session, keys);
  };
  scan(session, fmt::format("continuum:{{{}:*", name), delete_found);
  scan(session, fmt::format("continuum:{{{}}}:*", name), delete_found);
  return deleted + unlink(session, {&last, 1});
}

std::vector<StoredEvents> stored_events(redis::Session& session, const Topic& topic) {
  const auto partitions = topic.partitions();
  std::vector<StoredEvents> stored;
  for (std::size_t begin = 0; begin < partitions.size(); begin += logs_asked_at_once) {
    const auto end = std::min(begin + logs_asked_at_once, partitions.size());
    redis::Request request;
    for (std::size_t i = begin; i < end; ++i) {
      request.command("HGETALL", meta_key(topic.name, partitions[i]));
      request.command("XRANGE", log_key(topic.name, partitions[i]), "-", "+", "COUNT", "1");
    }
    const auto replies = session.call(std::move(request));
    for (std::size_t i = begin; i < end; ++i) {
      const auto state = parse_meta(replies[2 * (i - begin)]);
      if (!state || state->log_id != topic.log_id) {
        fail_no_log(topic, partitions[i]);
      }
      const auto entries = replies[2 * (i - begin) + 1];
      const auto first =
          entries.size() == 0 ? state->next : parse_entry(entries[0], topic.name, partitions[i]).first;
      stored.push_back({partitions[i], first, state->next});
    }
  }
  return stored;
}

std::map<Partition, Offset> register_group(redis::Session& session, Topic& topic, std::string_view group,
                                           const std::optional<std::string>& policy) {
  require_name("group", group);
  const std::string name(group);
  if (!topic.groups.contains(name)) {
    if (!policy) {
      std::vector<std::string> known;
      for (const auto& [other, registered] : topic.groups) {
        known.push_back(other);
      }
      fail(ErrorKind::usage, "topic {} has no group {}{}; --from start or --from end creates it", topic.name,
           group, hint_of(group, known));
    }
    register_in_topic(session, topic, name, *policy);
  }
  // Asked first: a server that is full refuses the script, and a worker of a group that is registered
  // everywhere is what empties it.
  const auto missing = partitions_without(session, topic, group);
  std::map<Partition, Offset> again;
  if (missing.empty()) {
    return again;
  }
  redis::Request request;
  for (const auto partition : missing) {
    request_registration(request, topic, group, partition);
  }
  const auto replies = session.call(std::move(request));
  for (std::size_t i = 0; i < replies.size(); ++i) {
    if (replies[i][0].text() == "NOLOG") {
      fail_no_log(topic, missing[i]);
    }
    if (replies[i][0].text() == "OK" && replies[i][3].number() == 1) {
      again.emplace(missing[i], Offset(replies[i][1].number()));
    }
  }
  return again;
}

void unregister_group(redis::Session& session, const Topic& topic, std::string_view group) {
  redis::Request request;
  request.run(redis::Script::unregister, {topic_key(topic.name), members_key(topic.name, group)},
              topic.log_id, group);
  const auto replies = session.call(std::move(request));
  if (replies[0][0].text() != "OK") {
    fail(ErrorKind::loss, "topic {} was dropped while it was being changed", topic.name);
  }
}

}  // namespace continuum
