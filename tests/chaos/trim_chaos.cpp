// G2 under trimming: publishers, two groups of which one stops for a while, an archive, and workers that trim
// all the time and are killed at random moments. The seed of a failing run is printed.
#include "chaos/recorded_forum.hpp"

#include "continuum/archive_directory.hpp"
#include "continuum/archive_reader.hpp"
#include "continuum/inspect.hpp"

#include <doctest/doctest.h>

#include <charconv>
#include <ctime>
#include <filesystem>
#include <list>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <vector>

using namespace continuum;
using test::await;
using test::binary;
using test::end_of;
using test::is_long;
using test::RecordedForum;

namespace {

constexpr std::uint64_t per_second = 5'000;
const std::vector<std::string> groups{"archive", "g", "h"};

class TrimmedForum {
 public:
  TrimmedForum() : session_(forum.server().session()) {
    std::filesystem::create_directory(forum.file("archive"));
    Topic topic = load_topic(*session_, "forum");
    register_group(*session_, topic, "h", "start");
    register_group(*session_, topic, "archive", "start");
    TopicSettings settings = topic.settings;
    apply_setting(settings, "retention=1ms");
    apply_setting(settings, "stall_limit=200ms");
    set_topic(*session_, topic, settings);
  }

  RecordedForum forum;

  [[nodiscard]] test::Process start(const std::string& group,
                                    const std::vector<std::string>& more = {}) const {
    std::vector<std::string> command{binary(),  "work",  "-u",           forum.server().url(),
                                     "-t",      "forum", "--partition",  "all",
                                     "--lease", "500ms", "--trim-every", "100ms"};
    command.insert(command.end(), more.begin(), more.end());
    if (group == "archive") {
      command.insert(command.end(), {"--archive", forum.file("archive")});
    } else {
      command.insert(command.end(), {"-g", group, "--mode", "stream", "--", test::recording_handler(),
                                     forum.file("by-" + group), "0", forum.file("mended")});
    }
    return test::Process(command, {"/dev/null", "/dev/null", forum.file("err")});
  }
  [[nodiscard]] int run_trim() const {
    test::Process trim(
        {binary(), "topic", "trim", "forum", "-u", forum.server().url(), "--yes", "--keep", "1ms"},
        {"/dev/null", "/dev/null", forum.file("err")});
    return end_of(trim);
  }

  [[nodiscard]] std::vector<PartitionView> look() const {
    return inspect_topic(*session_, load_topic(*session_, "forum"));
  }
  // Nothing is gone that somebody has not passed; returns how many events the logs keep.
  std::uint64_t check_kept() const {
    std::uint64_t kept = 0;
    for (const PartitionView& view : look()) {
      REQUIRE_MESSAGE(view.loss == "", view.loss);
      kept += view.events();
      CHECK(view.groups.size() == groups.size());
      for (const GroupView& group : view.groups) {
        REQUIRE_MESSAGE(group.loss == "", group.loss);
      }
    }
    return kept;
  }

  // The archive of all partitions is what was published: each key's numbers in order, each once, no offset
  // missing.
  void check_archive() const {
    const ArchiveDirectory directory(forum.file("archive"));
    std::map<std::string, std::uint32_t> numbers;
    std::uint64_t events = 0;
    std::uint64_t wrong = 0;
    for (std::uint32_t p = 0; p < RecordedForum::partitions; ++p) {
      ArchiveReader reader(directory, "forum", Partition(p), std::nullopt, {});
      Offset next;
      while (const auto entry = reader.next()) {
        wrong += entry->first == next ? 0U : 1U;
        next = entry->next();
        for (std::string_view lines = entry->lines; !lines.empty();) {
          const std::string_view line = lines.substr(0, lines.find('\n'));
          lines.remove_prefix(line.size() + 1);
          const auto data = line.find("\"data\":{\"k\":\"") + 13;
          const auto behind = line.find('"', data);
          std::uint32_t number = 0;
          std::from_chars(line.data() + behind + 6, line.data() + line.size(), number);
          wrong += number == ++numbers[std::string(line.substr(data, behind - data))] ? 0U : 1U;
          ++events;
        }
      }
    }
    CHECK(events == forum.published());
    CHECK(wrong == 0);
  }

 private:
  std::unique_ptr<redis::Session> session_;
};

struct Worker {
  std::string group;
  test::Process process;
};

}  // namespace

TEST_CASE("what is trimmed under load was passed by every group and by the archive, whoever is killed") {
  const auto seed = static_cast<std::mt19937::result_type>(std::time(nullptr));
  CAPTURE(seed);
  std::mt19937 random(seed);
  TrimmedForum world;
  auto& forum = world.forum;
  auto publisher = forum.start_publishing(forum.events, per_second);

  std::list<Worker> workers;
  for (const std::string group : {"g", "g", "h", "archive", "archive"}) {
    workers.push_back({group, world.start(group)});
  }
  const auto kill_one = [&](const std::string& avoid) {
    auto victim = std::next(workers.begin(), static_cast<std::ptrdiff_t>(random() % workers.size()));
    // One that ended by itself has lost something.
    REQUIRE_MESSAGE(!victim->process.ended_within(std::chrono::milliseconds(random() % 150)), forum.said());
    victim->process.signal(SIGKILL);
    victim->process.wait();
    const std::string group = victim->group;
    workers.erase(victim);
    if (group != avoid) {
      workers.push_back({group, world.start(group)});
    }
  };
  const auto go_on_until = [&](std::uint64_t published, const std::string& avoid) {
    for (;;) {
      std::uint64_t stored = 0;
      for (const PartitionView& view : world.look()) {
        stored += view.next.value;
      }
      static_cast<void>(world.check_kept());
      if (stored >= published) {
        return;
      }
      kill_one(avoid);
      if (random() % 4 == 0) {
        const int status = world.run_trim();
        CHECK((status == 0 || status == 1));
      }
    }
  };

  // A third with all of them, a third without h, a third with all again.
  go_on_until(forum.events / 3, {});
  workers.remove_if([](const Worker& worker) { return worker.group == "h"; });
  go_on_until(forum.events * 2 / 3, {});
  await("the other groups have handled, and what the stopped one has not handled is all there", [&] {
    std::uint64_t lag = 0;
    for (const PartitionView& view : world.look()) {
      for (const GroupView& group : view.groups) {
        lag += group.group == "h" ? group.lag_events : 0;
      }
    }
    return lag >= forum.events / 6 && world.check_kept() >= lag;
  });
  // And the state says why memory grows.
  await("it is said who holds the logs", [&] {
    for (const PartitionView& view : world.look()) {
      REQUIRE(view.retention);
      const auto& holders = view.retention->holders;
      if (holders.empty() || holders.front().group != "h" || !holders.front().stalled) {
        return false;
      }
    }
    return true;
  });
  await("a worker says it", [&] {
    return test::read_file(forum.file("err")).find("group h has stood still") != std::string::npos;
  });
  workers.push_back({"h", world.start("h")});
  go_on_until(forum.events, {});
  CHECK(end_of(publisher) == 0);
  workers.clear();  // killed

  for (const std::string& group : groups) {
    auto last = world.start(group, {"--drain"});
    CHECK_MESSAGE(end_of(last) == 0, forum.said());
  }
  for (const std::string name : {"by-g", "by-h"}) {
    CAPTURE(name);
    const test::Seen seen = forum.seen(name);
    CHECK(seen.events() == forum.published());
    CHECK(seen.gaps == 0);
  }
  world.check_archive();
  CHECK(world.run_trim() == 0);
  CHECK(world.check_kept() == 0);
}
