// G5, emitted events: workers of a chain of topics, and their server, are killed at random moments, while
// their handlers give out something else each time. The seed of a failing run is printed.
#include "redis/server.hpp"
#include "support/process.hpp"

#include "continuum/event.hpp"
#include "continuum/log.hpp"
#include "continuum/topic.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <ctime>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;

namespace {

std::string binary() {
  const char* path = std::getenv("CONTINUUM_BINARY");
  return path == nullptr ? "./continuum" : path;
}

int kill_count() {
  return std::getenv("CONTINUUM_LONG") == nullptr ? 10 : 50;
}

// What handlers give out for one event: one to three events of random keys, which say whose they are, how
// many there are of this run, which of them this is, and which run it was.
constexpr std::string_view give_out = R"(
give_out() {
  [[ $1 =~ ^\{\"partition\":([0-9]+),\"offset\":([0-9]+), ]]
  local of=$((RANDOM % 3 + 1)) run=$RANDOM-$RANDOM i
  out=()
  for ((i = 0; i < of; i++)); do
    out+=("{\"k\":\"k$((RANDOM % 40))\",\"whose\":\"${BASH_REMATCH[1]}-${BASH_REMATCH[2]}\",\"of\":$of,\"i\":$i,\"run\":\"$run\"}")
  done
}
)";
constexpr std::string_view stream_handler =
    R"(while IFS= read -r line; do give_out "$line"; IFS=,; echo "ok ${BASH_REMATCH[2]} [${out[*]}]"; IFS=; done)";
constexpr std::string_view exec_handler = R"(IFS= read -r line; give_out "$line"; printf '%s\n' "${out[@]}")";

// From then on a signal finds the program and not the copy of this test that becomes it.
void await_started(const test::Process& process) {
  const auto deadline = std::chrono::steady_clock::now() + 30s;
  while (test::read_file("/proc/" + std::to_string(process.pid()) + "/comm") != "continuum\n") {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    std::this_thread::sleep_for(2ms);
  }
}

std::string field(std::string_view data, const std::string& name) {
  const auto begin = data.find("\"" + name + "\":");
  REQUIRE(begin != std::string_view::npos);
  auto value = data.substr(begin + name.size() + 3);
  if (value.front() == '"') {
    value.remove_prefix(1);
    return std::string(value.substr(0, value.find('"')));
  }
  return std::string(value.substr(0, value.find_first_of(",}")));
}

class Chain {
 public:
  static constexpr std::uint32_t partitions = 4;

  Chain() {
    const auto session = server_.session();
    for (const auto* topic : {"first", "second", "third"}) {
      create_topic(*session, topic, RingDescription::uniform(partitions), {});
    }
    for (const auto* topic : {"first", "second"}) {
      auto loaded = load_topic(*session, topic);
      register_group(*session, loaded, "g", "start");
    }
  }

  [[nodiscard]] test::Process start_publishing(std::uint64_t events, std::uint64_t per_second) {
    std::string text;
    for (std::uint64_t i = 0; i < events; ++i) {
      text += "{\"k\":\"k" + std::to_string(i * 7919 % 100) + "\"}\n";
    }
    test::write_file(directory_.file("input"), text);
    return test::Process({binary(), "publish", "-u", server_.url(), "-t", "first", "-k", "k", "--type", "=in",
                          "--rate", std::to_string(per_second), directory_.file("input")},
                         {"/dev/null", "/dev/null", log()});
  }

  // The second stage takes a key of its own for each event; the other one's keys are inherited.
  [[nodiscard]] test::Process work(const std::string& from, const std::string& to, const std::string& mode,
                                   const std::vector<std::string>& more = {}) const {
    std::vector<std::string> command{binary(), "work",   "-u", server_.url(), "-t",    from,     "-g",
                                     "g",      "--emit", to,   "--lease",     "500ms", "--mode", mode};
    if (to == "second") {
      command.insert(command.end(), {"--emit-key", "k"});
    }
    command.insert(command.end(), more.begin(), more.end());
    const auto body = mode == "exec" ? exec_handler : stream_handler;
    command.insert(command.end(), {"--", "bash", "-c", std::string(give_out) + std::string(body)});
    return test::Process(command, {"/dev/null", "/dev/null", log()});
  }

  void drain(const std::string& from, const std::string& to, const std::string& mode) const {
    // Pinned: waits for the leases of those that were killed.
    auto worker = work(from, to, mode, {"--drain", "--partition", "all"});
    REQUIRE(worker.ended_within(120s));
    CHECK_MESSAGE(worker.wait() == 0, test::read_file(log()));
  }

  // Until two workers share each stage.
  void await_workers() const {
    const auto session = server_.session();
    const auto deadline = std::chrono::steady_clock::now() + 30s;
    for (const auto* topic : {"first", "second"}) {
      for (std::uint64_t members = 0; members < 2;) {
        REQUIRE(std::chrono::steady_clock::now() < deadline);
        redis::Request request;
        request.command("ZCARD", members_key(topic, "g"));
        members = session->call(std::move(request))[0].number();
        std::this_thread::sleep_for(2ms);
      }
    }
  }

  struct Event {
    std::string place;  // PARTITION-OFFSET
    std::string key;
    std::string id;
    std::string data;
  };
  // Of one partition after the other.
  [[nodiscard]] std::vector<Event> events(const std::string& topic) const {
    const auto session = server_.session();
    std::vector<Event> out;
    FrameDecoder decoder;
    std::string lines;
    std::string scratch;
    for (std::uint32_t p = 0; p < partitions; ++p) {
      redis::Request request;
      request.command("XRANGE", log_key(topic, Partition(p)), "-", "+");
      const auto replies = session->call(std::move(request));
      for (std::size_t i = 0; i < replies[0].size(); ++i) {
        const Entry entry = parse_entry(replies[0][i], topic, Partition(p));
        if (entry.barrier) {
          continue;
        }
        decode_entry(decoder, entry, topic, Partition(p), lines);
        Offset offset = entry.first;
        for (std::string_view rest = lines; !rest.empty(); ++offset) {
          const auto line = rest.substr(0, rest.find('\n'));
          rest.remove_prefix(line.size() + 1);
          const auto attributes = attributes_of(line);
          out.push_back({fmt::format("{}-{}", p, offset), std::string(key_of(attributes, scratch)),
                         std::string(attributes.id), std::string(attributes.data)});
        }
      }
    }
    return out;
  }

  test::RedisServer& server() { return server_; }
  [[nodiscard]] std::string log() const { return directory_.file("err"); }

 private:
  test::RedisServer server_;
  test::TemporaryDirectory directory_;
};

// Every event of `from` has one complete set of derived events in `to`, of a single run; and those of one key
// that inherited it are in the order of their causes.
void check_sets(const Chain& chain, const std::string& from, const std::string& to) {
  CAPTURE(to);
  struct Set {
    std::string run;
    std::set<std::string> seen;
    std::size_t of = 0;
  };
  std::map<std::string, Set> sets;
  std::set<std::string> ids;
  std::map<std::string, std::string> key_of_place;
  const auto causes = chain.events(from);
  for (const auto& cause : causes) {
    sets[cause.place];
    key_of_place[cause.place] = cause.key;
  }
  std::map<std::string, std::uint64_t> last;
  std::uint64_t unordered = 0;
  for (const auto& event : chain.events(to)) {
    CHECK(ids.insert(event.id).second);
    const std::string whose = field(event.data, "whose");
    REQUIRE(sets.contains(whose));
    Set& set = sets[whose];
    const std::string run = field(event.data, "run");
    CHECK((set.run.empty() || set.run == run));
    set.run = run;
    set.of = std::stoul(field(event.data, "of"));
    CHECK(set.seen.insert(field(event.data, "i")).second);
    if (to == "third") {
      CHECK(event.key == key_of_place[whose]);
      const auto offset = std::stoull(whose.substr(whose.find('-') + 1));
      unordered += offset < last[event.key] ? 1U : 0U;
      last[event.key] = offset;
    }
  }
  std::uint64_t incomplete = 0;
  for (const auto& [place, set] : sets) {
    incomplete += set.of == 0 || set.seen.size() != set.of ? 1U : 0U;
  }
  CHECK(incomplete == 0);
  CHECK(unordered == 0);
  CHECK(causes.size() == sets.size());
}

void kill_chain(const std::string& mode, std::uint64_t per_second, int server_kills) {
  Chain chain;
  const int kills = kill_count();
  const auto seed = static_cast<std::mt19937::result_type>(std::time(nullptr));
  CAPTURE(seed);
  std::mt19937 random(seed);
  const std::uint64_t events = per_second * static_cast<std::uint64_t>(kills) / 8;
  auto publisher = chain.start_publishing(events, per_second);
  const auto start = [&](std::size_t i) {
    return i % 2 == 0 ? chain.work("first", "second", mode) : chain.work("second", "third", mode);
  };
  std::vector<test::Process> workers;
  workers.reserve(4);
  for (std::size_t i = 0; i < 4; ++i) {
    workers.push_back(start(i));
  }
  // A worker that never reached the server does not wait for it.
  chain.await_workers();
  for (int i = 0; i < kills; ++i) {
    const std::size_t which = random() % workers.size();
    auto& victim = workers[which];
    CHECK_FALSE_MESSAGE(victim.ended_within(std::chrono::milliseconds(random() % 250)),
                        test::read_file(chain.log()));
    if (i < server_kills) {
      chain.server().kill();
      chain.server().start();
      continue;
    }
    victim.signal(SIGKILL);
    victim.wait();
    victim.~Process();
    new (&victim) test::Process(start(which));
  }
  REQUIRE(publisher.ended_within(60s));
  CHECK(publisher.wait() == 0);
  for (auto& worker : workers) {
    await_started(worker);
    worker.signal(SIGTERM);
    REQUIRE(worker.ended_within(60s));
    const int status = worker.wait();
    CHECK_MESSAGE((status == 0 || status == 128 + SIGTERM), test::read_file(chain.log()));
  }
  chain.drain("first", "second", mode);
  chain.drain("second", "third", mode);
  CHECK(chain.events("first").size() == events);
  check_sets(chain, "first", "second");
  check_sets(chain, "second", "third");
  MESSAGE("events: ", events, ", ", chain.events("second").size(), ", ", chain.events("third").size());
}

}  // namespace

TEST_CASE("each event has one complete set of derived events when workers of a chain are killed") {
  kill_chain("stream", 4'000, 0);
}

TEST_CASE("each event has one complete set of derived events when workers with exec handlers are killed") {
  kill_chain("exec", 60, 0);
}

TEST_CASE("each event has one complete set of derived events when the server is killed") {
  kill_chain("stream", 4'000, 4);
}
