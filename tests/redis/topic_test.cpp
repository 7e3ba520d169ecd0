// Topics on a real server: created by several, half created, changed, dropped, damaged.
#include "continuum/topic.hpp"

#include "redis/server.hpp"

#include "continuum/error.hpp"
#include "continuum/log.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

using namespace continuum;

namespace {

template <class... Args>
redis::Replies command(redis::Session& session, const Args&... args) {
  return session.call(std::move(redis::Request().command(args...)));
}

Error thrown_by(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error;
  }
  return {ErrorKind::partial, "nothing was thrown"};
}

RingDescription ring_of(std::uint32_t partitions) {
  return RingDescription::uniform(partitions);
}

// Step 1 of a creation whose process then died.
void begin_only(redis::Session& session, const std::string& name, std::uint32_t partitions) {
  session.call(
      std::move(redis::Request().run(redis::Script::begin, {topic_key(name)}, 0, ring_of(partitions).text(),
                                     "id", "0123456789abcdef0123456789abcdef", "format", 1, "created",
                                     1700000000000, "frames", "auto", "event_bytes_max", 1048576)));
}

std::uint64_t keys_in(redis::Session& session) {
  return command(session, "DBSIZE")[0].number();
}

}  // namespace

TEST_CASE("a topic is read back as it was created") {
  const test::RedisServer server;
  const auto session = server.session();
  TopicSettings settings;
  apply_setting(settings, "frames=single");
  apply_setting(settings, "event_bytes_max=64KiB");
  CHECK(create_topic(*session, "posts", ring_of(4), settings) == Created::created);
  const auto topic = load_topic(*session, "posts");
  CHECK(topic.name == "posts");
  CHECK(topic.log_id.size() == 32);
  CHECK(topic.active == Generation(1));
  CHECK_FALSE(topic.pending);
  CHECK(topic.ring() == ring_of(4));
  CHECK(topic.settings.frames == Frames::single);
  CHECK(topic.settings.event_bytes_max == 65536);
  CHECK(topic.partitions().size() == 4);
  CHECK(list_topics(*session) == std::vector<std::string>{"posts"});
  for (const auto& stored : stored_events(*session, topic)) {
    CHECK(stored.first == Offset(0));
    CHECK(stored.next == Offset(0));
  }
}

TEST_CASE("creating a topic that exists leaves it as it is") {
  const test::RedisServer server;
  const auto session = server.session();
  create_topic(*session, "posts", ring_of(4), {});
  const auto before = load_topic(*session, "posts");
  CHECK(create_topic(*session, "posts", ring_of(9), {}) == Created::existed);
  const auto after = load_topic(*session, "posts");
  CHECK(after.log_id == before.log_id);
  CHECK(after.ring() == ring_of(4));
}

TEST_CASE("of many creators at once exactly one says that it created the topic") {
  const test::RedisServer server;
  std::atomic<int> created{0};
  std::vector<std::thread> creators;
  for (int i = 0; i < 8; ++i) {
    creators.emplace_back([&server, &created] {
      const auto session = server.session();
      created += create_topic(*session, "posts", ring_of(16), {}) == Created::created ? 1 : 0;
    });
  }
  for (auto& creator : creators) {
    creator.join();
  }
  CHECK(created == 1);
  const auto session = server.session();
  const auto topic = load_topic(*session, "posts");
  CHECK(topic.partitions().size() == 16);
  CHECK(stored_events(*session, topic).size() == 16);
}

TEST_CASE("a creation that died is not a topic until somebody finishes it") {
  const test::RedisServer server;
  const auto session = server.session();
  begin_only(*session, "posts", 4);
  // It also got as far as one of its partitions.
  const std::string meta = meta_key("posts", Partition(2));
  session->call(std::move(redis::Request().run(redis::Script::seal, {meta, log_key("posts", Partition(2))},
                                               "0123456789abcdef0123456789abcdef", 1, "new")));
  CHECK_FALSE(find_topic(*session, "posts"));
  const auto error = thrown_by([&] { (void)load_topic(*session, "posts"); });
  CHECK(error.kind() == ErrorKind::usage);
  CHECK(error.message().find("`continuum topic create posts` finishes it") != std::string::npos);

  CHECK(create_topic(*session, "posts", ring_of(9), {}) == Created::created);
  const auto topic = load_topic(*session, "posts");
  CHECK(topic.ring() == ring_of(4));
  CHECK(stored_events(*session, topic).size() == 4);
  // The partition that was there has one barrier, not two.
  CHECK(command(*session, "XLEN", log_key("posts", Partition(2)))[0].integer() == 1);
}

TEST_CASE("a topic is not created over what is left of another one") {
  const test::RedisServer server;
  const auto session = server.session();
  create_topic(*session, "posts", ring_of(2), {});
  command(*session, "DEL", topic_key("posts"));
  const auto error = thrown_by([&] { create_topic(*session, "posts", ring_of(2), {}); });
  CHECK(error.kind() == ErrorKind::usage);
  CHECK(error.message().find("continuum topic drop -t posts --yes") != std::string::npos);
  CHECK(drop_topic(*session, "posts") > 0);
  CHECK(create_topic(*session, "posts", ring_of(2), {}) == Created::created);
}

TEST_CASE("a topic that does not exist is told with the nearest name") {
  const test::RedisServer server;
  const auto session = server.session();
  create_topic(*session, "posts", ring_of(1), {});
  const auto error = thrown_by([&] { (void)load_topic(*session, "psots"); });
  CHECK(error.kind() == ErrorKind::usage);
  CHECK(error.message().ends_with("did you mean posts?"));
  CHECK_FALSE(find_topic(*session, "psots"));
  CHECK(thrown_by([&] { (void)find_topic(*session, "a{b"); }).kind() == ErrorKind::usage);
}

TEST_CASE("dropping a topic deletes its keys and no other ones") {
  const test::RedisServer server;
  const auto session = server.session();
  create_topic(*session, "post", ring_of(2), {});
  create_topic(*session, "posts", ring_of(2), {});
  command(*session, "SET", "continuum:posts", "somebody's");
  auto posts = load_topic(*session, "posts");
  register_group(*session, posts, "g", "start");
  const auto before = keys_in(*session);
  const auto deleted = drop_topic(*session, "posts");
  CHECK(deleted == 7);  // the topic, and meta, log and group of two partitions
  CHECK(keys_in(*session) == before - deleted);
  CHECK(stored_events(*session, load_topic(*session, "post")).size() == 2);
  CHECK(drop_topic(*session, "posts") == 0);
}

TEST_CASE("settings change the topic, and not one that was dropped meanwhile") {
  const test::RedisServer server;
  const auto session = server.session();
  create_topic(*session, "posts", ring_of(1), {});
  const auto topic = load_topic(*session, "posts");
  auto settings = topic.settings;
  apply_setting(settings, "frames=plain");
  set_topic(*session, topic, settings);
  CHECK(load_topic(*session, "posts").settings.frames == Frames::plain);
  drop_topic(*session, "posts");
  CHECK(thrown_by([&] { set_topic(*session, topic, settings); }).kind() == ErrorKind::loss);
  CHECK(keys_in(*session) == 0);
}

TEST_CASE("a setting that is none is refused with those there are") {
  TopicSettings settings;
  CHECK(
      thrown_by([&] { apply_setting(settings, "frame=plain"); }).message().ends_with("did you mean frames?"));
  CHECK(thrown_by([&] { apply_setting(settings, "frames=zip"); }).kind() == ErrorKind::usage);
  CHECK(thrown_by([&] { apply_setting(settings, "frames"); }).kind() == ErrorKind::usage);
  CHECK(thrown_by([&] { apply_setting(settings, "event_bytes_max=1"); }).kind() == ErrorKind::usage);
  CHECK(thrown_by([&] { apply_setting(settings, "event_bytes_max=1GiB"); }).kind() == ErrorKind::usage);
}

TEST_CASE("a group gets a cursor on every partition and keeps its first policy") {
  const test::RedisServer server;
  const auto session = server.session();
  create_topic(*session, "posts", ring_of(3), {});
  auto topic = load_topic(*session, "posts");
  register_group(*session, topic, "g", "since 1700000000000");
  CHECK(topic.groups.at("g").policy == "since 1700000000000");
  CHECK(topic.groups.at("g").generation == Generation(1));
  for (const auto partition : topic.partitions()) {
    CHECK(command(*session, "HGET", group_key("posts", partition, "g"), "offset")[0].text() == "0");
  }
  // From a copy that has not seen it: the stored policy holds.
  auto fresh = load_topic(*session, "posts");
  fresh.groups.clear();
  register_group(*session, fresh, "g", "end");
  CHECK(fresh.groups.at("g").policy == "since 1700000000000");
  auto again = load_topic(*session, "posts");
  register_group(*session, again, "g", std::nullopt);
}

TEST_CASE("a registration that died on its way is finished by the next one") {
  const test::RedisServer server;
  const auto session = server.session();
  create_topic(*session, "posts", ring_of(3), {});
  auto topic = load_topic(*session, "posts");
  CHECK(register_group(*session, topic, "g", "start").empty());
  command(*session, "DEL", group_key("posts", Partition(1), "g"));
  command(*session, "HDEL", meta_key("posts", Partition(1)), "group:g");
  CHECK(register_group(*session, topic, "g", std::nullopt).empty());
  CHECK(command(*session, "HGET", group_key("posts", Partition(1), "g"), "offset")[0].text() == "0");
}

TEST_CASE("a group whose state is gone begins anew, and that is told") {
  const test::RedisServer server;
  const auto session = server.session();
  create_topic(*session, "posts", ring_of(3), {});
  auto topic = load_topic(*session, "posts");
  CHECK(register_group(*session, topic, "g", "start").empty());
  command(*session, "DEL", group_key("posts", Partition(1), "g"));
  CHECK(register_group(*session, topic, "g", std::nullopt) ==
        std::map<Partition, Offset>{{Partition(1), Offset(0)}});
  CHECK(register_group(*session, topic, "g", std::nullopt).empty());
}

TEST_CASE("a group that does not exist needs a policy, and is told with the nearest name") {
  const test::RedisServer server;
  const auto session = server.session();
  create_topic(*session, "posts", ring_of(1), {});
  auto topic = load_topic(*session, "posts");
  register_group(*session, topic, "mailer", "start");
  const auto error = thrown_by([&] { register_group(*session, topic, "mialer", std::nullopt); });
  CHECK(error.kind() == ErrorKind::usage);
  CHECK(error.message().find("did you mean mailer?") != std::string::npos);
}

TEST_CASE("a flushed partition is loss, not an empty one") {
  const test::RedisServer server;
  const auto session = server.session();
  create_topic(*session, "posts", ring_of(2), {});
  auto topic = load_topic(*session, "posts");
  command(*session, "DEL", meta_key("posts", Partition(1)));
  CHECK(thrown_by([&] { (void)stored_events(*session, topic); }).kind() == ErrorKind::loss);
  CHECK(thrown_by([&] { register_group(*session, topic, "g", "start"); }).kind() == ErrorKind::loss);
}

TEST_CASE("a topic hash that was damaged or comes from a newer version is said so") {
  const test::RedisServer server;
  const auto session = server.session();
  create_topic(*session, "posts", ring_of(1), {});
  const auto key = topic_key("posts");
  command(*session, "HSET", key, "format", 2);
  CHECK(thrown_by([&] { (void)find_topic(*session, "posts"); }).kind() == ErrorKind::usage);
  command(*session, "HSET", key, "format", 1, "active", "one");
  CHECK(thrown_by([&] { (void)find_topic(*session, "posts"); }).kind() == ErrorKind::loss);
  command(*session, "HSET", key, "active", 7);
  CHECK(thrown_by([&] { (void)find_topic(*session, "posts"); }).kind() == ErrorKind::loss);
  command(*session, "DEL", key);
  command(*session, "SET", key, "text");
  CHECK(thrown_by([&] { (void)find_topic(*session, "posts"); }).kind() == ErrorKind::usage);
}
