// G1, G3, G7: rings that change while publishers, workers and coordinators are killed. The seed of a failing
// run is printed.
#include "chaos/real_process.hpp"
#include "redis/server.hpp"
#include "support/process.hpp"

#include "continuum/lease.hpp"
#include "continuum/log.hpp"
#include "continuum/topic.hpp"

#include <doctest/doctest.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;
using test::binary;
using test::end_of;
using test::is_long;

namespace {

constexpr std::uint32_t publishers = 4;
constexpr std::uint32_t workers_each = 2;
const std::array<const char*, 3> groups{"a", "b", "c"};

std::uint64_t number_after(std::string_view text, std::string_view name) {
  const auto at = text.find(name);
  std::uint64_t value = 0;
  if (at != std::string_view::npos) {
    std::from_chars(text.data() + at + name.size(), text.data() + text.size(), value);
  }
  return value;
}

// What was seen of each publisher's part of a key.
struct Seen {
  std::map<std::string, std::uint64_t> last;  // by publisher and key: where the reading of it stands
  std::map<std::string, std::uint64_t> most;
  std::uint64_t gaps = 0;     // came before the one in front of it
  std::uint64_t repeats = 0;  // came again

  void add(std::string_view line) {
    // A worker that was killed while it wrote leaves half a line, and the next one's begins behind it.
    const auto begin = line.rfind("{\"partition\":");
    line.remove_prefix(begin == std::string_view::npos ? 0 : begin);
    const auto data = line.find("\"data\":{\"k\":\"");
    if (data == std::string_view::npos || !line.ends_with("}}")) {
      return;
    }
    const auto of = line.substr(data);
    const auto key = of.substr(13, of.find('"', 13) - 13);
    const std::string whose = std::to_string(number_after(of, "\"p\":")) + "/" + std::string(key);
    const auto n = number_after(of, "\"n\":");
    auto& before = last[whose];
    gaps += n > before + 1 ? 1U : 0U;
    repeats += n <= most[whose] ? 1U : 0U;
    before = n;
    most[whose] = std::max(most[whose], n);
  }
  [[nodiscard]] std::uint64_t events() const {
    std::uint64_t sum = 0;
    for (const auto& [whose, n] : most) {
      sum += n;
    }
    return sum;
  }
};

Seen read(const std::string& text) {
  Seen seen;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    seen.add(std::string_view(text).substr(at, end - at));
    at = end + 1;
  }
  return seen;
}

class UnderFire {
 public:
  explicit UnderFire(std::uint64_t seed) : random_(seed) {
    std::filesystem::create_directory(file("archive"));
    const auto session = server_.session();
    create_topic(*session, "forum", RingDescription::uniform(8), {});
    auto topic = load_topic(*session, "forum");
    for (const char* group : groups) {
      register_group(*session, topic, group, "start");
    }
    for (std::uint32_t p = 0; p < publishers; ++p) {
      std::map<std::uint64_t, std::uint64_t> count;
      std::string text;
      for (std::uint64_t i = 0; i < lines; ++i) {
        const auto key = random_() % keys;
        text += "{\"k\":\"k" + std::to_string(key) + "\",\"n\":" + std::to_string(++count[key]) +
                ",\"p\":" + std::to_string(p) + "}\n";
      }
      test::write_file(file("in" + std::to_string(p)), text);
    }
  }

  const std::uint64_t keys = is_long() ? 20'000 : 2'000;
  const std::uint64_t lines = is_long() ? 60'000 : 12'000;  // of each publisher
  const std::uint64_t per_second = is_long() ? 6'000 : 3'000;

  [[nodiscard]] std::string file(const std::string& name) const { return directory_.file(name); }

  void start() {
    for (std::uint32_t p = 0; p < publishers; ++p) {
      publishing_.push_back(publisher(p, {"--rate", std::to_string(per_second)}));
    }
    for (std::uint32_t w = 0; w < groups.size() * workers_each; ++w) {
      working_.push_back(worker(w % groups.size()));
    }
    archiving_ = archiver({});
  }

  // Kills and starts again.
  void fire(std::chrono::milliseconds during, bool spare_first) {
    const auto until = std::chrono::steady_clock::now() + during;
    while (std::chrono::steady_clock::now() < until) {
      pause_at_most(200ms);
      const auto which = random_() % 5;
      if (which == 0) {
        kill(*archiving_);
        archiving_ = archiver({});
      } else if (which <= 2) {
        const auto p = static_cast<std::uint32_t>(random_() % publishers);
        if (p > 0 || !spare_first) {
          kill(*publishing_[p]);
          publishing_[p] = publisher(p, {"--rate", std::to_string(per_second)});
        }
      } else {
        const auto w = static_cast<std::uint32_t>(random_() % working_.size());
        kill(*working_[w]);
        working_[w] = worker(w % groups.size());
      }
    }
  }

  struct Target {
    std::string description;
    std::vector<std::string> arguments;
  };

  // The coordinator is killed a few times, and given up once in a while, before it comes to its end.
  void resize(const Target& target) {
    const auto& ring = target.arguments;
    if (random_() % 2 == 0) {
      die_half_way(target.description);
      if (const auto then = random_() % 3; then == 0) {
        // Publishers and workers finish it.
        test::await("somebody finishes it", [&] { return !topic().pending; });
      } else if (then == 1) {
        const int status = end_of(*resizing({"--abort"}));
        CHECK((status == 0 || status == 2));  // 2: nothing is pending any more
      }
    }
    for (auto kills = random_() % 4; kills > 0; --kills) {
      auto coordinator = resizing(ring);
      pause_at_most(150ms);
      kill(*coordinator);
      if (random_() % 3 == 0) {
        const int status = end_of(*resizing({"--abort"}));
        CHECK((status == 0 || status == 2));  // 2: nothing is pending
      }
    }
    const auto coordinator = resizing(ring);
    CHECK_MESSAGE(end_of(*coordinator) == 0, test::read_file(file("resize")));
  }
  void stop_first() { publishing_[0]->signal(SIGSTOP); }
  void wake_first() { publishing_[0]->signal(SIGCONT); }

  void finish() {
    for (auto& process : publishing_) {
      end_of(*process);
    }
    for (std::uint32_t p = 0; p < publishers; ++p) {
      const auto last = publisher(p, {});
      CHECK_MESSAGE(end_of(*last) == 0, test::read_file(file("publish" + std::to_string(p))));
    }
    test::await("everything is handled", [&] { return everything_is_handled(); });
    for (auto& process : working_) {
      test::await_started(*process);
      process->signal(SIGTERM);
    }
    for (auto& process : working_) {
      const int status = end_of(*process);
      const bool is_well = status == 0 || status == 128 + SIGTERM;  // that one had only just been started
      const std::string said = test::read_file(file("work"));
      CHECK_MESSAGE(is_well, "exit status ", status,
                    ", workers said: ", said.substr(said.size() - std::min<std::size_t>(said.size(), 4'000)));
    }
    kill(*archiving_);
    const auto last = archiver({"--drain"});
    CHECK_MESSAGE(end_of(*last) == 0, test::read_file(file("archiver")));
  }

  void check() const {
    const std::uint64_t all = lines * publishers;
    const auto replayed = test::run({binary(), "replay", "-u", server_.url(), "-t", "forum"});
    CHECK(replayed.status == 0);
    const Seen stored = read(replayed.out);
    CHECK(stored.events() == all);
    CHECK(stored.repeats == 0);
    CHECK(stored.gaps == 0);
    for (const char* group : groups) {
      CAPTURE(group);
      const Seen handled = read(test::read_file(file(std::string("handled.") + group)));
      CHECK(handled.events() == all);
      CHECK(handled.gaps == 0);
      MESSAGE("repeats: ", handled.repeats);
    }
    const auto verified = test::run({binary(), "archive", "verify", file("archive")});
    CHECK_MESSAGE(verified.status == 0, verified.out);
    // From here on all events come from the archive.
    const auto trimmed =
        test::run({binary(), "topic", "trim", "-u", server_.url(), "forum", "--keep", "1ms", "--yes"});
    CHECK_MESSAGE(trimmed.status == 0, trimmed.err);
    const auto from_archive =
        test::run({binary(), "replay", "-u", server_.url(), "-t", "forum", "--archive", file("archive")});
    CHECK(from_archive.status == 0);
    CHECK((from_archive.out == replayed.out));
    const auto session = server_.session(redis::Needs::Access::read);
    const auto topic = load_topic(*session, "forum");
    MESSAGE("generations: ", topic.active.value);
    CHECK(topic.ring() == RingDescription::uniform(8));
  }

 private:
  // As a coordinator that is killed between two of its requests, or within one.
  void die_half_way(const std::string& description) {
    const auto session = server_.session();
    redis::Request begin;
    begin.run(redis::Script::begin, {topic_key("forum")}, topic().active, description);
    static_cast<void>(session->call(std::move(begin)));
    const Topic pending = topic();
    if (!pending.pending) {
      return;
    }
    std::set<Partition> known;
    std::set<Partition> concerned;
    for (const auto& [generation, ring] : pending.rings) {
      for (const RingMember& member : ring.members) {
        if (generation < *pending.pending) {
          known.insert(member.partition);
        }
        if (generation >= pending.active) {
          concerned.insert(member.partition);
        }
      }
    }
    for (const Partition p : concerned) {
      // One at least, so that somebody sees that it is under way.
      if (p == Partition(0) || random_() % 2 == 0) {
        redis::Request seal;
        seal.run(redis::Script::seal, {meta_key("forum", p), log_key("forum", p)}, pending.log_id,
                 *pending.pending, known.contains(p) ? "old" : "new");
        static_cast<void>(session->call(std::move(seal)));
      }
    }
  }
  // And every partition has passed every barrier.
  [[nodiscard]] bool everything_is_handled() const {
    const auto session = server_.session(redis::Needs::Access::read);
    const auto partitions = topic().partitions();
    redis::Request request;
    for (const Partition p : partitions) {
      request.command("HGETALL", meta_key("forum", p));
      for (const char* group : groups) {
        request.command("HGETALL", group_key("forum", p, group));
      }
    }
    const auto replies = session->call(std::move(request));
    for (std::size_t i = 0; i < replies.size(); ++i) {
      const std::size_t of = i / (groups.size() + 1) * (groups.size() + 1);
      const auto log = parse_meta(replies[of]);
      if (i == of) {
        continue;
      }
      const auto state = parse_group(replies[i]);
      if (!state || state->cursor.offset != log->next || state->passed != log->generation) {
        return false;
      }
    }
    return true;
  }
  [[nodiscard]] Topic topic() const {
    return load_topic(*server_.session(redis::Needs::Access::read), "forum");
  }

  using ProcessPointer = std::unique_ptr<test::Process>;

  static void kill(test::Process& process) {
    process.signal(SIGKILL);
    process.wait();
  }
  void pause_at_most(std::chrono::microseconds longest) {
    // The moment of a kill has to be random: there is no event to wait for.
    std::this_thread::sleep_for(
        std::chrono::microseconds(random_() % static_cast<std::uint64_t>(longest.count())));
  }
  [[nodiscard]] ProcessPointer publisher(std::uint32_t p, const std::vector<std::string>& more) const {
    const std::string number = std::to_string(p);
    std::vector<std::string> command{binary(), "publish",    "-u",         server_.url(),      "-t",
                                     "forum",  "-k",         "k",          "--type",           "=post",
                                     "-q",     "--producer", "P" + number, file("in" + number)};
    command.insert(command.end(), more.begin(), more.end());
    return std::make_unique<test::Process>(
        command, test::Process::Redirect{"/dev/null", "/dev/null", file("publish" + number)});
  }
  [[nodiscard]] ProcessPointer worker(std::uint32_t g) const {
    return std::make_unique<test::Process>(
        std::vector<std::string>{binary(), "work", "-u", server_.url(), "-t", "forum", "-g", groups[g],
                                 "--lease", "1s"},
        test::Process::Redirect{"/dev/null", file(std::string("handled.") + groups[g]), file("work")});
  }
  [[nodiscard]] ProcessPointer archiver(const std::vector<std::string>& more) const {
    std::vector<std::string> command{binary(),    "work",          "-u",      server_.url(), "-t", "forum",
                                     "--archive", file("archive"), "--lease", "1s"};
    command.insert(command.end(), more.begin(), more.end());
    return std::make_unique<test::Process>(
        command, test::Process::Redirect{"/dev/null", "/dev/null", file("archiver")});
  }
  [[nodiscard]] ProcessPointer resizing(const std::vector<std::string>& ring) const {
    std::vector<std::string> command{binary(), "ring", "resize", "-u", server_.url(), "-t", "forum"};
    command.insert(command.end(), ring.begin(), ring.end());
    return std::make_unique<test::Process>(
        command, test::Process::Redirect{"/dev/null", file("resize"), file("resize")});
  }

  test::RedisServer server_;
  test::TemporaryDirectory directory_;
  std::mt19937_64 random_;
  std::vector<ProcessPointer> publishing_;
  std::vector<ProcessPointer> working_;
  ProcessPointer archiving_;
};

}  // namespace

TEST_CASE(
    "resize under fire: each event once, and each key in order, for every group, in the replay and in the "
    "archive") {
  const std::vector<UnderFire::Target> rings{
      {"xxh3:256:0-11", {"--partitions", "12"}},
      {"xxh3:256:0-4", {"--partitions", "5"}},
      {"xxh3:256:0*2,1-2,3*0.5,4-6,7*3,8",
       {"--partitions", "9", "--weight", "0=2", "--weight", "3=0.5", "--weight", "7=3"}},
      {"xxh3:256:0-7", {"--partitions", "8", "--weight", "0=1", "--weight", "3=1", "--weight", "7=1"}}};
  const char* const given = std::getenv("CONTINUUM_SEED");
  const std::uint64_t first = given == nullptr ? std::random_device{}() : std::strtoull(given, nullptr, 10);
  for (std::uint64_t seed = first; seed < first + (is_long() ? 20 : 1); ++seed) {
    CAPTURE(seed);
    MESSAGE("CONTINUUM_SEED=", seed);
    UnderFire fight(seed);
    const auto time = is_long() ? 1'500ms : 500ms;
    fight.start();
    fight.fire(time, false);
    for (std::size_t i = 0; i < rings.size(); ++i) {
      const bool stopped = i == seed % rings.size();
      if (stopped) {
        fight.stop_first();
      }
      fight.resize(rings[i]);
      fight.fire(time, stopped);
      if (stopped) {
        fight.wake_first();
      }
    }
    fight.finish();
    fight.check();
  }
}
