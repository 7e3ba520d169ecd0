// G6: a handler that is down is not a poison event. Handlers that fail for everything for a while, or cannot
// be started.
#include "chaos/recorded_forum.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

using namespace continuum;
using namespace test;

namespace {

// A process per event is what takes the time.
std::uint32_t keys_for(const std::string& mode) {
  return mode == "exec" ? 40 : is_long() ? 10'000 : 1'000;
}

void handle_all(const RecordedForum& forum) {
  await("everything is committed", [&] { return forum.everything_is_committed(); });
}

// Events come for a second while nothing can be handled.
void sit_out(RecordedForum& forum) {
  auto publisher = forum.start_publishing(forum.events / 4, forum.events / 4);
  await("the handler is down", [&] { return forum.all_partitions_are("down"); });
  CHECK(end_of(publisher) == 0);
  CHECK(forum.all_partitions_are("down"));
}

// The handlers of this worker that still run the former program.
void end_processes(const Process& worker, const std::string& name) {
  const std::string proc = "/proc/" + std::to_string(worker.pid()) + "/task";
  for (const auto& task : std::filesystem::directory_iterator(proc)) {
    std::istringstream children(read_file(task.path() / "children"));
    for (pid_t pid = 0; children >> pid;) {
      if (read_file("/proc/" + std::to_string(pid) + "/comm") == name + "\n") {
        ::kill(pid, SIGTERM);
      }
    }
  }
}

void check_all_handled_once(const RecordedForum& forum) {
  check_once(forum, forum.seen(RecordedForum::handler), Bad::seen);
  check_once(forum, forum.seen("20-second"), Bad::seen);
}

}  // namespace

TEST_CASE("an outage costs the events of at most five keys their place, and all goes on by itself") {
  for (const std::string mode : {"stream", "exec"}) {
    CAPTURE(mode);
    RecordedForum forum(keys_for(mode));
    forum.write_handler({.divisor = 1, .mode = mode});
    forum.write_handler({.name = "20-second"});
    forum.mend();
    auto worker = forum.work_directory({"--partition", "all"});
    forum.publish(forum.events / 4);
    handle_all(forum);

    forum.break_again();
    sit_out(forum);
    const auto letters = forum.letters();
    forum.mend();
    handle_all(forum);
    CHECK(forum.held_keys() <= 5);
    // Only those that wait behind the held ones have come since.
    CHECK(letters <= 5);
    std::uint32_t failed = 0;
    for (const auto& [key, those] : forum.all_letters()) {
      for (const auto& letter : those) {
        failed += letter.state == LetterState::failed ? 1U : 0U;
      }
    }
    CHECK(failed <= 5);

    forum.publish(forum.events / 4);
    handle_all(forum);
    forum.release();
    await("every letter is handled", [&] { return forum.letters() == 0 && forum.held_keys() == 0; });
    worker.signal(SIGTERM);
    CHECK(end_of(worker) == (failed > 0 ? 1 : 0));
    check_all_handled_once(forum);
  }
}

TEST_CASE("a handler whose program is missing during a deploy costs nothing but time") {
  for (const std::string mode : {"stream", "exec"}) {
    for (const bool through_shell : {false, true}) {
      CAPTURE(mode);
      CAPTURE(through_shell);
      RecordedForum forum(keys_for(mode));
      const std::string program = forum.file("program");
      const std::string elsewhere = forum.file("elsewhere");
      std::filesystem::copy_file(recording_handler(), program);
      RecordedForum::Recorder recorder{.mode = mode, .program = {program}};
      if (through_shell) {
        recorder.program = {"sh", "-c", "exec \"$0\" \"$@\"", program};
      }
      forum.write_handler(recorder);
      forum.write_handler({.name = "20-second"});
      auto worker = forum.work_directory({"--partition", "all"});
      forum.publish(forum.events / 4);
      handle_all(forum);

      std::filesystem::rename(program, elsewhere);
      end_processes(worker, "program");  // as a deploy does
      sit_out(forum);
      std::filesystem::rename(elsewhere, program);
      handle_all(forum);

      CHECK(forum.letters() == 0);
      worker.signal(SIGTERM);
      CHECK(end_of(worker) == 0);
      check_all_handled_once(forum);
    }
  }
}
