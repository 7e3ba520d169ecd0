// A topic: its settings, and every generation of its ring.
#pragma once

#include "continuum/redis.hpp"
#include "continuum/ring.hpp"
#include "continuum/topic_settings.hpp"
#include "continuum/types.hpp"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

struct Topic {
  std::string name;
  std::string log_id;  // random, of this creation of the topic: a log under another id is another log
  Generation active;   // 0 while the topic is still being created
  std::optional<Generation> pending;
  // Of the archive that it is being restored from: nobody may use it before that is finished.
  std::optional<std::string> restoring;
  std::map<Generation, RingDescription> rings;
  TopicSettings settings;
  SystemTime created{};
  // start policy ("start", "end", "since MS") and generation in force at registration
  struct Group {
    std::string policy;
    Generation generation;
  };
  std::map<std::string, Group> groups;

  [[nodiscard]] const RingDescription& ring() const { return rings.at(active); }
  // Of every generation up to the active one, ascending.
  [[nodiscard]] std::vector<Partition> partitions() const;
};

// --- without waiting: for those who overlap requests

void request_topic(redis::Request& request, std::string_view name);
// nullopt when the topic does not exist. Throws Error{usage} when a newer version wrote it.
[[nodiscard]] std::optional<Topic> parse_topic(std::string_view name, redis::Reply reply);

// --- asking and waiting. All throw Error{usage} for a bad name.

// nullopt when it does not exist, or its creation never finished.
[[nodiscard]] std::optional<Topic> find_topic(redis::Session& session, std::string_view name);
// Throws Error{usage} with the nearest name.
[[nodiscard]] Topic load_topic(redis::Session& session, std::string_view name);
[[nodiscard]] std::vector<std::string> list_topics(redis::Session& session);

enum class Created : std::uint8_t { created, existed };
// Creates the topic, or finishes a creation that died half way. A topic that exists is left as it is.
Created create_topic(redis::Session& session, std::string_view name, const RingDescription& ring,
                     const TopicSettings& settings);
void set_topic(redis::Session& session, const Topic& topic, const TopicSettings& settings);
// Deletes every key of the topic. Publishers and workers are refused from the first step on; killed half way
// it can be run again. Returns the number of keys deleted.
std::uint64_t drop_topic(redis::Session& session, std::string_view name);

// What the log of each partition keeps: offsets in [first, next). Throws Error{loss} when a log is gone.
struct StoredEvents {
  Partition partition;
  Offset first;
  Offset next;
};
[[nodiscard]] std::vector<StoredEvents> stored_events(redis::Session& session, const Topic& topic);

// Registers the group in the topic and gives it a cursor on every partition. policy: start, end, "since MS".
// Without a policy the group must exist: throws Error{usage} with the nearest name. Returns where it begins
// on partitions on which it had a cursor that is gone: what it had handled there is handled again, or, where
// the policy is end, what it had not may never be.
std::map<Partition, Offset> register_group(redis::Session& session, Topic& topic, std::string_view group,
                                           const std::optional<std::string>& policy);
// The same for one partition and a group that the topic has: a script that answers OK, ALREADY or NOLOG.
void request_registration(redis::Request& request, const Topic& topic, std::string_view group,
                          Partition partition);
// Takes the group out of the topic; its partitions still have it (group_control.hpp: forget_group).
void unregister_group(redis::Session& session, const Topic& topic, std::string_view group);

}  // namespace continuum
