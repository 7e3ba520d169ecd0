// G1, G3, G7: publishers while the ring changes.
#include "redis/log_data.hpp"
#include "redis/server.hpp"
#include "redis/work.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/publisher.hpp"
#include "continuum/resize.hpp"

#include <doctest/doctest.h>

#include <unistd.h>

#include <atomic>
#include <map>
#include <set>
#include <string>
#include <thread>

using namespace continuum;
using test::await;
using test::LogData;
using test::RedisServer;

namespace {

constexpr int keys = 97;

std::string line_at(int n) {
  return "{\"k\":\"k" + std::to_string(n * 7919 % keys) + "\",\"n\":" + std::to_string(n) + "}\n";
}

struct Publishing {
  RedisServer server;
  std::unique_ptr<redis::Session> session = server.session();
  LogData data{*session, 3};
  PublishOptions options;
  std::atomic<std::uint64_t> stored{0};

  Publishing() {
    options.wrap.key = Selector::parse("k");
    options.wrap.type = Selector::parse("=post");
  }

  PublishSummary publish(LineSource source, const Topic& topic) {
    redis::ClientOptions client;
    client.needs.access = redis::Needs::Access::write;
    client.retry_for = Milliseconds(10'000);
    redis::Session own(redis::Address::parse(server.url()), client);
    PublishHooks hooks;
    hooks.stored = [this](const StoredBatch& batch) { stored += batch.positions.size(); };
    return continuum::publish(own, topic, options, {std::move(source)}, hooks);
  }
  PublishSummary publish_text(const std::string& text, const Topic& topic) {
    return publish({"text", -1, text}, topic);
  }
  void resize(const RingDescription& ring) { (void)resize_topic(*session, "t", ring); }

  // Every event from 1 to `last` once, and those of a key in order over the generations.
  void require_exactly(int last) {
    const Topic topic = load_topic(*session, "t");
    std::map<std::pair<std::string, Generation>, std::set<Partition>> places;
    std::map<Generation, std::map<std::string, std::vector<int>>> by_generation;
    std::multiset<int> all;
    FrameDecoder decoder;
    for (const Partition p : topic.partitions()) {
      const auto replies = data.command("XRANGE", data.log(p.value), "-", "+");
      for (std::size_t i = 0; i < replies[0].size(); ++i) {
        const Entry entry = parse_entry(replies[0][i], "t", p);
        if (entry.barrier) {
          continue;
        }
        std::string lines;
        decode_entry(decoder, entry, "t", p, lines);
        for (std::string_view rest = lines; !rest.empty();) {
          const auto line = rest.substr(0, rest.find('\n'));
          rest.remove_prefix(line.size() + 1);
          const int n = std::atoi(line.substr(line.find("\"n\":") + 4).data());
          const std::string key = "k" + std::to_string(n * 7919 % keys);
          all.insert(n);
          by_generation[entry.generation][key].push_back(n);
          CHECK(Ring(topic.rings.at(entry.generation)).owner(key) == p);
        }
      }
    }
    CHECK(all.size() == static_cast<std::size_t>(last));
    CHECK(std::set<int>(all.begin(), all.end()).size() == static_cast<std::size_t>(last));
    std::map<std::string, int> before;
    for (const auto& [generation, of_keys] : by_generation) {
      for (const auto& [key, numbers] : of_keys) {
        for (const int n : numbers) {
          CHECK(n > before[key]);
          before[key] = n;
        }
      }
    }
  }
};

// A publish from a pipe that is fed step by step.
class Fed {
 public:
  explicit Fed(Publishing& publishing) : publishing_(publishing) {
    REQUIRE(::pipe(ends_) == 0);
    thread_ = std::thread([this, topic = load_topic(*publishing.session, "t")] {
      summary_ = publishing_.publish({"pipe", ends_[0], {}}, topic);
    });
  }
  ~Fed() { (void)finish(); }
  Fed(const Fed&) = delete;
  Fed& operator=(const Fed&) = delete;

  void feed(int from, int to) {
    for (int n = from; n <= to; ++n) {
      const std::string text = line_at(n);
      REQUIRE(::write(ends_[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    }
  }
  PublishSummary finish() {
    if (thread_.joinable()) {
      ::close(ends_[1]);
      thread_.join();
      ::close(ends_[0]);
    }
    return summary_;
  }

 private:
  Publishing& publishing_;
  int ends_[2] = {-1, -1};
  std::thread thread_;
  PublishSummary summary_;
};

std::string text_of(int last) {
  std::string text;
  for (int n = 1; n <= last; ++n) {
    text += line_at(n);
  }
  return text;
}

}  // namespace

TEST_SUITE("resize publish") {
  TEST_CASE("a publisher follows the ring: every event once, in order, where its generation wants it") {
    for (const char* producer : {"P", ""}) {
      CAPTURE(producer);
      Publishing p;
      p.options.producer = producer;
      {
        Fed fed(p);
        fed.feed(1, 500);
        await("they are stored", [&] { return p.stored == 500; });
        p.resize(RingDescription::uniform(5));
        fed.feed(501, 1'000);
        await("they are stored", [&] { return p.stored == 1'000; });
        p.resize(RingDescription::uniform(2));
        fed.feed(1'001, 1'200);
        p.resize(RingDescription::parse("xxh3:256:0-3,4*0.5"));
        fed.feed(1'201, 1'500);
        const auto summary = fed.finish();
        CHECK_FALSE(summary.error);
        CHECK(summary.stored == 1'500);
        CHECK(summary.duplicates == 0);
      }
      p.require_exactly(1'500);
      if (*producer != '\0') {
        // Each generation has a digest that the same input matches.
        const auto again = p.publish_text(text_of(1'500), load_topic(*p.session, "t"));
        CHECK_FALSE(again.error);
        CHECK(again.duplicates == 1'500);
        CHECK(again.stored == 0);
        p.require_exactly(1'500);
      }
    }
  }

  TEST_CASE("a publisher in full flow is resized many times") {
    for (const char* producer : {"P", ""}) {
      CAPTURE(producer);
      Publishing p;
      p.options.producer = producer;
      p.options.frame_bytes = 4'000;
      constexpr int last = 30'000;
      Fed fed(p);
      std::thread feeding([&] { fed.feed(1, last); });
      std::uint32_t partitions = 3;
      while (p.stored < last * 9 / 10) {
        partitions = partitions % 7 + 2;
        p.resize(RingDescription::uniform(partitions));
        const auto seen = p.stored.load();
        await("it goes on", [&] { return p.stored > seen || p.stored == last; });
      }
      feeding.join();
      const auto summary = fed.finish();
      CHECK_FALSE(summary.error);
      CHECK(summary.stored == last);
      CHECK(p.stored == last);
      CHECK(load_topic(*p.session, "t").active > Generation(2));
      p.require_exactly(last);
      if (*producer != '\0') {
        CHECK(p.publish_text(text_of(last), load_topic(*p.session, "t")).duplicates == last);
      }
    }
  }

  TEST_CASE("one event at hand follows a ring that has changed since the topic was read") {
    for (const char* producer : {"P", ""}) {
      Publishing p;
      p.options.producer = producer;
      const Topic before = load_topic(*p.session, "t");
      p.resize(RingDescription::uniform(5));
      const auto summary = p.publish_text(text_of(20), before);
      CHECK_FALSE(summary.error);
      CHECK(summary.stored == 20);
      p.require_exactly(20);
    }
  }

  TEST_CASE("a publisher keeps to the settings that it began with when it follows a ring") {
    for (const char* producer : {"P", ""}) {
      Publishing p;
      p.options.producer = producer;
      Topic before = load_topic(*p.session, "t");
      auto settings = before.settings;
      settings.frames = Frames::single;
      set_topic(*p.session, before, settings);
      before = load_topic(*p.session, "t");
      settings.frames = Frames::automatic;
      set_topic(*p.session, before, settings);
      p.resize(RingDescription::uniform(5));
      const auto summary = p.publish_text(text_of(20), before);
      CHECK_FALSE(summary.error);
      CHECK(summary.stored == 20);
      p.require_exactly(20);
      std::uint64_t entries = 0;
      for (const std::uint32_t partition : {0U, 1U, 2U, 3U, 4U}) {
        const auto replies = p.data.command("XRANGE", p.data.log(partition), "-", "+");
        for (std::size_t i = 0; i < replies[0].size(); ++i) {
          entries += parse_entry(replies[0][i], "t", Partition(partition)).barrier ? 0U : 1U;
        }
      }
      CHECK(entries == 20);
    }
  }

  TEST_CASE("positions out of the events follow the ring, too") {
    Publishing p;
    p.options.producer = "P";
    p.options.wrap.position = Selector::parse("n");
    {
      Fed fed(p);
      fed.feed(1, 300);
      await("they are stored", [&] { return p.stored == 300; });
      p.resize(RingDescription::uniform(6));
      fed.feed(301, 600);
      CHECK(fed.finish().stored == 600);
    }
    CHECK(p.publish_text(text_of(700), load_topic(*p.session, "t")).duplicates == 600);
    p.require_exactly(700);
  }

  TEST_CASE("a publisher finishes the resize of a coordinator that died") {
    Publishing p;
    p.options.producer = "P";
    Fed fed(p);
    fed.feed(1, 100);
    await("they are stored", [&] { return p.stored == 100; });
    redis::Request begin;
    begin.run(redis::Script::begin, {topic_key("t")}, "1", RingDescription::uniform(5).text());
    (void)p.session->call(std::move(begin));
    for (std::uint32_t partition = 0; partition < 3; ++partition) {
      p.data.seal(partition, 2, "old");
    }
    fed.feed(101, 200);
    CHECK(fed.finish().stored == 200);
    CHECK(load_topic(*p.session, "t").active == Generation(2));
    p.require_exactly(200);
  }

  TEST_CASE("a run that follows one which died across a resize stores the rest, and only that") {
    Publishing p;
    p.options.producer = "P";
    (void)p.publish_text(text_of(300), load_topic(*p.session, "t"));
    p.resize(RingDescription::uniform(5));
    (void)p.publish_text(text_of(600), load_topic(*p.session, "t"));
    p.resize(RingDescription::uniform(2));
    const auto summary = p.publish_text(text_of(900), load_topic(*p.session, "t"));
    CHECK(summary.duplicates == 600);
    CHECK(summary.stored == 300);
    p.require_exactly(900);
    // Another input is found out in whatever generation it was stored.
    std::string other = text_of(900);
    other.replace(other.find("\"n\":450}"), 8, "\"n\":451}");
    const auto refused = p.publish_text(other, load_topic(*p.session, "t"));
    REQUIRE(refused.error);
    CHECK(refused.error->kind() == ErrorKind::loss);
  }

  TEST_CASE("a partition that lost its seal is sealed again, and that is loss") {
    Publishing p;
    p.resize(RingDescription::uniform(5));
    const Topic topic = load_topic(*p.session, "t");
    for (std::uint32_t partition = 0; partition < 5; ++partition) {
      p.data.command("HSET", p.data.meta(partition), "gen", "1");
    }
    const auto summary = p.publish_text(text_of(1), topic);
    REQUIRE(summary.error);
    CHECK(summary.error->kind() == ErrorKind::loss);
    const Partition owner = Ring(topic.ring()).owner("k" + std::to_string(7919 % keys));
    CHECK(p.data.command("HGET", p.data.meta(owner.value), "gen")[0].text() == "2");
    CHECK(test::stored_lines(*p.session, "t", owner.value).empty());
  }

  TEST_CASE("a server that went back over a resize is not sealed, and takes the events again") {
    Publishing p;
    p.options.producer = "P";
    Fed fed(p);
    fed.feed(1, 100);
    await("they are stored", [&] { return p.stored == 100; });
    const Topic before = load_topic(*p.session, "t");
    p.resize(RingDescription::uniform(2));
    fed.feed(101, 200);
    await("those, too", [&] { return p.stored == 200; });
    // As a copy from before the resize has it, but for what was stored.
    p.data.command("HSET", topic_key("t"), "active", "1");
    p.data.command("HDEL", topic_key("t"), "gen:2");
    for (std::uint32_t partition = 0; partition < 3; ++partition) {
      p.data.command("HSET", p.data.meta(partition), "gen", "1");
    }
    fed.feed(201, 300);
    const auto summary = fed.finish();
    REQUIRE(summary.error);
    CHECK(summary.error->kind() == ErrorKind::loss);
    CHECK(std::string(summary.error->what()).find("A resize that the server lost") != std::string::npos);
    for (std::uint32_t partition = 0; partition < 3; ++partition) {
      CHECK(p.data.command("HGET", p.data.meta(partition), "gen")[0].text() == "1");
    }
    // Publishers that begin anew are taken.
    p.options.producer.clear();
    CHECK_FALSE(p.publish_text(text_of(10), load_topic(*p.session, "t")).error);
  }

  TEST_CASE("a partition beyond all generations of its topic is loss") {
    Publishing p;
    for (std::uint32_t partition = 0; partition < 3; ++partition) {
      p.data.command("HSET", p.data.meta(partition), "gen", "7");
    }
    const auto summary = p.publish_text(text_of(1), load_topic(*p.session, "t"));
    REQUIRE(summary.error);
    CHECK(summary.error->kind() == ErrorKind::loss);
  }
}
