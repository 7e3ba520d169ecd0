#include "redis/log_data.hpp"
#include "redis/server.hpp"

#include "continuum/lease.hpp"
#include "continuum/log.hpp"
#include "continuum/workers_view.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;

namespace {

class Topics {
 public:
  explicit Topics(std::uint32_t partitions) : session_(server_.session()), data_(*session_, partitions) {
    register_group(*session_, data_.topic(), "g", "start");
  }

  test::LogData& data() { return data_; }
  void acquire(std::uint32_t partition, const std::string& owner, const std::string& who) {
    redis::Request request;
    request_acquire(request, group_key("t", Partition(partition), "g"), {owner, who, 5s}, std::nullopt);
    const auto replies = session_->call(std::move(request));
    fence_ = std::get<Acquired>(parse_acquire(replies[0])).fence;
  }
  // Of the lease that was taken last.
  void renew(std::uint32_t partition, const std::string& handlers) {
    redis::Request request;
    Doing doing;
    doing.handlers = handlers;
    request_renew(request, group_key("t", Partition(partition), "g"), data_.meta(partition), fence_,
                  data_.topic().log_id, doing);
    const auto replies = session_->call(std::move(request));
    REQUIRE(parse_renew(replies[0]).kept == Kept::ok);
  }
  void release(std::uint32_t partition) {
    redis::Request request;
    request_release(request, group_key("t", Partition(partition), "g"), fence_);
    (void)session_->call(std::move(request));
  }
  std::vector<WorkerView> look() {
    return inspect_workers(*session_, data_.topic(), inspect_topic(*session_, data_.topic()));
  }
  std::vector<std::string> join(const std::string& member, std::int64_t alive_ms) {
    redis::Request request;
    request.run(redis::Script::join, {members_key("t", "g")}, member, alive_ms);
    const auto replies = session_->call(std::move(request));
    std::vector<std::string> members;
    for (std::size_t i = 0; i < replies[0].size(); ++i) {
      members.emplace_back(replies[0][i].text());
    }
    return members;
  }

 private:
  test::RedisServer server_;
  std::unique_ptr<redis::Session> session_;
  test::LogData data_;
  Fence fence_;
};

std::vector<Partition> list(std::initializer_list<std::uint32_t> numbers) {
  std::vector<Partition> partitions;
  for (const auto number : numbers) {
    partitions.emplace_back(number);
  }
  return partitions;
}

}  // namespace

TEST_CASE("who joins hears of those that are alive, and those that are not are forgotten") {
  Topics topics(1);
  CHECK(topics.join("b host:2", 60'000) == std::vector<std::string>{"b host:2"});
  topics.data().command("ZADD", members_key("t", "g"), 1, "c host:3");  // silent since 1970
  CHECK(topics.join("a host:1", 60'000).size() == 2);
  CHECK(topics.data().command("ZRANGE", members_key("t", "g"), 0, -1)[0].size() == 2);
}

TEST_CASE(
    "workers are seen with what they have, those that stand by with nothing, and what is nobody's last") {
  Topics topics(4);
  topics.data().append(0, {test::event_line("1", "k")});
  topics.data().append(2, {test::event_line("1", "k"), test::event_line("2", "k")});
  topics.data().append(3, {test::event_line("1", "k")});
  topics.acquire(0, "owner-b", "host:2");
  topics.acquire(2, "owner-b", "host:2");
  topics.acquire(1, "owner-a", "host:1");
  topics.join("owner-b host:2", 60'000);
  topics.join("owner-c host:3", 60'000);
  topics.data().command("ZADD", members_key("t", "g"), 1000, "owner-d host:4");

  const auto workers = topics.look();
  REQUIRE(workers.size() == 5);
  CHECK(workers[0].who == "host:1");
  CHECK(workers[0].partitions == list({1}));
  CHECK_FALSE(workers[0].expires_in);  // it does not share
  CHECK(workers[1].who == "host:2");
  CHECK(workers[1].partitions == list({0, 2}));
  CHECK(workers[1].lag_events == 3);
  REQUIRE(workers[1].since_age);
  CHECK(*workers[1].since_age >= 0ms);
  CHECK(*workers[1].since_age < 30s);
  REQUIRE(workers[1].expires_in);
  CHECK(*workers[1].expires_in > 30s);
  CHECK(*workers[1].expires_in <= 60s);
  CHECK(workers[2].who == "host:3");
  CHECK(workers[2].partitions.empty());
  CHECK_FALSE(workers[2].since);
  CHECK(workers[3].who == "host:4");
  CHECK(*workers[3].expires_in < 0ms);
  CHECK(workers[4].owner.empty());
  CHECK(workers[4].partitions == list({3}));
  CHECK(workers[4].lag_events == 1);
}

TEST_CASE("a worker is seen with the fingerprint of its handlers, and no other inherits it") {
  Topics topics(2);
  topics.acquire(0, "owner-a", "host:1");
  CHECK(topics.look()[0].handlers.empty());
  topics.renew(0, "0123456789abcdef");
  topics.acquire(1, "owner-b", "host:2");
  topics.renew(1, "");
  CHECK(topics.look()[0].handlers == "0123456789abcdef");
  CHECK(topics.look()[1].handlers.empty());

  topics.renew(1, "fedcba9876543210");
  topics.release(1);
  CHECK(topics.look()[1].owner.empty());
  CHECK(topics.look()[1].handlers.empty());
  topics.acquire(1, "owner-c", "host:3");
  CHECK(topics.look()[1].who == "host:3");
  CHECK(topics.look()[1].handlers.empty());
}

TEST_CASE("a partition that left the ring and has nothing more to do is nobody's in silence") {
  Topics topics(2);
  topics.data().append(1, {test::event_line("1", "k")});
  topics.data().topic().active = Generation(2);
  topics.data().topic().rings[Generation(2)] = RingDescription::uniform(1);
  CHECK(topics.look().back().partitions == list({0, 1}));
  topics.data().command("HSET", group_key("t", Partition(1), "g"), "offset", 1);
  CHECK(topics.look().back().partitions == list({0}));
}

TEST_CASE("a member that Continuum did not write is passed over") {
  Topics topics(1);
  topics.data().command("ZADD", members_key("t", "g"), "inf", "somebody");
  topics.data().command("ZADD", members_key("t", "g"), "60000", "nameless");
  const auto workers = topics.look();
  REQUIRE(workers.size() == 2);
  CHECK(workers[0].owner == "nameless");
  CHECK(workers[0].who.empty());
}
