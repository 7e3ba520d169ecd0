// `work --archive`: what is on disk is the log (G8), whatever happens to the worker.
#include "redis/work.hpp"
#include "unit/archive_data.hpp"

#include "continuum/archive_segment.hpp"
#include "continuum/archive_writer.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <random>

using namespace continuum;
using namespace test;

namespace {

const std::string group_name(archive_group);

// The log of topic t and an archive of it.
struct Archived {
  explicit Archived(std::uint32_t partitions = 1) : work(partitions) {
    begin_group();
    work.options().group = group_name;
    work.options().archive = place.path();
  }
  void begin_group() {
    work.data().topic() = load_topic(*session, "t");
    register_group(*session, work.data().topic(), group_name, "start");
  }

  // One entry of so many events.
  void publish(std::uint32_t events, std::uint32_t generation = 1) {
    std::vector<std::string> lines;
    for (std::uint32_t i = 0; i < events; ++i, ++published) {
      const std::string number = std::to_string(published);
      lines.push_back(event_line("e" + number, "k" + std::to_string(published % 17)));
      all += lines.back() + "\n";
    }
    work.data().append(0, lines, events % 3 == 0 ? Frames::plain : Frames::automatic, generation);
  }

  [[nodiscard]] GroupState state() {
    return *parse_group(work.data().command("HGETALL", group_key("t", Partition(0), group_name))[0]);
  }
  [[nodiscard]] ReadBack read() {
    ReadBack back;
    const ArchiveDirectory directory(place.path());
    ArchiveReader reader(directory, "t", Partition(0), work.data().topic().log_id,
                         {.to = state().cursor.offset});
    while (const auto entry = reader.next()) {
      back.ids.push_back(entry->id);
      if (entry->barrier()) {
        back.barriers.push_back(entry->first);
      }
      back.lines += entry->lines;
    }
    return back;
  }
  // Every entry of the log, barriers too.
  [[nodiscard]] std::vector<EntryId> log_ids() {
    std::vector<EntryId> ids;
    const auto replies = work.data().command("XRANGE", work.data().log(0), "-", "+");
    for (std::size_t i = 0; i < replies[0].size(); ++i) {
      ids.push_back(parse_entry(replies[0][i], "t", Partition(0)).id);
    }
    return ids;
  }

  Work work;
  std::unique_ptr<redis::Session> session = work.session();
  ArchivePlace place;
  std::uint64_t published = 0;
  std::string all;
};

// Files take no more than that while it is there.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    struct rlimit small = before_;
    small.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  ~SmallDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, old_handler_);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

 private:
  void (*old_handler_)(int);
  struct rlimit before_{};
};

// Of the last frame that has any.
std::vector<FrameHeader::Producer> archived_producers(const ArchivePlace& place) {
  const ArchiveDirectory archive(place.path());
  const PartitionDirectory directory(archive, "t", Partition(0));
  const auto identity = *directory.identity();
  std::vector<FrameHeader::Producer> producers;
  for (const Offset first : directory.contents().segments) {
    SegmentFile file(directory, first, 4096);
    SegmentScanner scanner(file, identity, 0, first);
    for (auto item = scanner.next(); const auto* frame = std::get_if<ArchivedFrame>(&item);
         item = scanner.next()) {
      if (!frame->header.producers.empty()) {
        producers = frame->header.producers;
      }
    }
  }
  return producers;
}

}  // namespace

TEST_SUITE("archive") {
  TEST_CASE("a worker archives the entries of the log, and commits what is durable") {
    Archived archived;
    archived.publish(40);
    archived.publish(1);
    archived.work.data().seal(0, 2, "old");
    archived.publish(300, 2);
    archived.publish(2, 2);
    const auto summary = archived.work.run();
    CHECK(summary.handled == 343);
    const ReadBack back = archived.read();
    CHECK(back.lines == archived.all);
    CHECK(back.ids == archived.log_ids());
    CHECK(back.barriers == std::vector{Offset(0), Offset(41)});
    CHECK(archived.state().cursor.offset == Offset(343));
    CHECK(archived.state().cursor.entry == archived.log_ids().back());
    CHECK(archived.state().passed == Generation(2));
    CHECK(verify(archived.place).problems.empty());
    // Nothing to do is nothing done.
    CHECK(archived.work.run().handled == 0);
    CHECK(archived.read().lines == archived.all);
  }

  TEST_CASE("a worker that goes on archives what comes, and everything of it when it is stopped") {
    Archived archived;
    Running running(archived.work);
    archived.publish(3);
    await("the first event is durable", [&] { return archived.state().cursor.offset == Offset(3); });
    for (int i = 0; i < 50; ++i) {
      archived.publish(1 + static_cast<std::uint32_t>(i));
    }
    await("the rest is durable",
          [&] { return archived.state().cursor.offset == Offset(archived.published); });
    running.stop();
    CHECK(archived.read().lines == archived.all);
    // A trickle shares frames and syncs.
    CHECK(archived.place.segments().size() == 1);
  }

  TEST_CASE("killed again and again, an archive has every event of the log once") {
    Archived archived;
    std::mt19937 random(9);
    archived.work.options().ending = Ending::never;
    archived.work.options().lease = Milliseconds(200);
    for (int round = 0; round < 15; ++round) {
      const pid_t child = ::fork();
      if (child == 0) {
        (void)archived.work.run();
        ::_exit(0);
      }
      const auto entries = 1 + random() % 40;
      for (std::uint64_t i = 0; i < entries; ++i) {
        archived.publish(1 + static_cast<std::uint32_t>(random() % 60));
        std::this_thread::sleep_for(std::chrono::milliseconds(random() % 30));
      }
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
    }
    archived.work.options().ending = Ending::drained;
    (void)archived.work.run();
    const ReadBack back = archived.read();
    CHECK(back.lines == archived.all);
    CHECK(back.ids == archived.log_ids());
    CHECK(verify(archived.place).problems.empty());
  }

  TEST_CASE("an archive that is older than the group's cursor is filled up from the log") {
    Archived archived;
    archived.publish(10);
    (void)archived.work.run();
    const fs::path older = archived.place.path() + "-older";
    fs::copy(archived.place.path(), older, fs::copy_options::recursive);
    archived.publish(10);
    (void)archived.work.run();
    SUBCASE("an older copy of it") {
      fs::remove_all(archived.place.path());
      fs::copy(older, archived.place.path(), fs::copy_options::recursive);
    }
    SUBCASE("an empty directory") {
      fs::remove_all(archived.place.path());
      fs::create_directory(archived.place.path());
    }
    archived.publish(10);
    (void)archived.work.run();
    CHECK(archived.read().lines == archived.all);
    CHECK(archived.work.said().find("from the log again") != std::string::npos);
    fs::remove_all(older);
  }

  TEST_CASE("what is neither in the archive nor in the log is loss, and nothing is archived over it") {
    Archived archived;
    archived.publish(10);
    archived.publish(10);
    (void)archived.work.run();
    fs::remove_all(archived.place.path());
    fs::create_directory(archived.place.path());
    archived.work.data().command("XTRIM", archived.work.data().log(0), "MAXLEN", 1);
    archived.publish(10);
    for (int run = 0; run < 2; ++run) {
      std::string message;
      CHECK(kind_of([&] { (void)archived.work.run(); }, &message) == ErrorKind::loss);
      CHECK(message.find("offsets 0 to 9") != std::string::npos);
      CHECK(archived.place.files(".zst").empty());
    }
  }

  TEST_CASE("a log that does not have what follows the archive's end is loss, also when it is drained") {
    Archived archived;
    archived.publish(10);
    (void)archived.work.run();
    archived.publish(10);
    archived.work.data().command("XTRIM", archived.work.data().log(0), "MAXLEN", 0);
    bool is_empty = true;
    SUBCASE("and the group has not come there") {}
    SUBCASE("and the group is registered behind it") {
      archived.work.data().command("DEL", group_key("t", Partition(0), group_name));
      archived.begin_group();
    }
    SUBCASE("and there is more") {
      archived.publish(10);
      is_empty = false;
    }
    const Offset before = archived.state().cursor.offset;
    for (int run = 0; run < 2; ++run) {
      std::string message;
      CHECK(kind_of([&] { (void)archived.work.run(); }, &message) == ErrorKind::loss);
      CHECK(message.find("offsets 10 to 19 are neither in its archive") != std::string::npos);
      CHECK(archived.state().cursor.offset == before);
    }
    CHECK(archived.work.said().find("from the log again") == std::string::npos);
    if (is_empty) {
      CHECK(verify(archived.place).problems.empty());
    }
  }

  TEST_CASE("an archive that goes further than the log is said to, and nothing is committed") {
    Archived archived;
    archived.publish(10);
    archived.publish(10);
    (void)archived.work.run();
    // An older state of the log.
    archived.work.data().command("XDEL", archived.work.data().log(0), archived.log_ids().back().text());
    archived.work.data().command("HINCRBY", archived.work.data().meta(0), "next", -10);
    archived.work.data().command("DEL", group_key("t", Partition(0), group_name));
    archived.begin_group();
    const std::string segment = bytes_of(archived.place.segments().at(0));
    const auto refused = [&](std::string_view why) {
      std::string message;
      CHECK(kind_of([&] { (void)archived.work.run(); }, &message) == ErrorKind::loss);
      CHECK(message.find("ends at offset 20 (entry") != std::string::npos);
      CHECK_MESSAGE(message.find(why) != std::string::npos, message);
      CHECK(message.find("archive restore") != std::string::npos);
      CHECK(archived.state().cursor.offset == Offset(0));
      CHECK(bytes_of(archived.place.segments().at(0)) == segment);
    };
    refused("the log ends at offset 10");
    archived.publish(10);
    refused("the log, which ends at offset 20, has other events there");
    archived.publish(10);
    refused("the log, which ends at offset 30, has other events there");
    // Into another directory.
    const ArchivePlace other;
    archived.work.options().archive = other.path();
    (void)archived.work.run();
    CHECK(archived.state().cursor.offset == Offset(30));
  }

  TEST_CASE("a log whose beginning was trimmed before there was an archive is archived from there") {
    Archived archived;
    archived.publish(10);
    archived.publish(10);
    archived.work.data().command("DEL", group_key("t", Partition(0), group_name));
    archived.work.data().command("XTRIM", archived.work.data().log(0), "MAXLEN", 1);
    archived.begin_group();
    archived.publish(10);
    (void)archived.work.run();
    const std::string lines = archived.read().lines;
    CHECK(std::count(lines.begin(), lines.end(), '\n') == 20);
    CHECK(archived.all.ends_with(lines));
    CHECK(verify(archived.place).problems.empty());
  }

  TEST_CASE("a directory that is not there ends the worker, and nothing is committed") {
    Archived archived;
    archived.publish(10);
    archived.work.options().archive = archived.place.path() + "/not-mounted";
    std::string message;
    CHECK(kind_of([&] { (void)archived.work.run(); }, &message) == ErrorKind::usage);
    CHECK(message.find("not-mounted") != std::string::npos);
    CHECK(archived.state().cursor.offset == Offset(0));
  }

  TEST_CASE("while the disk takes nothing the worker says so and commits nothing, and then goes on") {
    Archived archived;
    archived.publish(500);
    (void)archived.work.run();
    const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
    struct rlimit before{};
    ::getrlimit(RLIMIT_FSIZE, &before);
    archived.publish(5000);
    {
      struct rlimit small = before;
      small.rlim_cur = 2000;
      ::setrlimit(RLIMIT_FSIZE, &small);
      Running running(archived.work);
      await("it is said", [&] { return archived.work.said().find("File too large") != std::string::npos; });
      await("it is seen", [&] { return archived.state().state == "retrying"; });
      CHECK(archived.state().cursor.offset == Offset(500));
      ::setrlimit(RLIMIT_FSIZE, &before);
      await("it is durable", [&] { return archived.state().cursor.offset == Offset(5500); });
      running.stop();
    }
    std::signal(SIGXFSZ, old_handler);
    CHECK(archived.work.said().find("is written again") != std::string::npos);
    CHECK(archived.read().lines == archived.all);
    CHECK(verify(archived.place).problems.empty());
  }

  TEST_CASE("of a named producer the archive has the name, the last position and its digest") {
    Archived archived;
    archived.publish(3);
    const std::string name = "importer-" + std::string(200, 'x');
    for (std::uint64_t i = 0; i < 50; ++i, ++archived.published) {
      archived.all += event_line("e" + std::to_string(i), "k") + "\n";
      archived.work.data().command("XADD", archived.work.data().log(0), "*", "n", 1, "o", archived.published,
                                   "g", 1, "p", name, "l", 7 + i, "d", fmt::format("{:016x}", i), "e",
                                   event_line("e" + std::to_string(i), "k") + "\n");
      archived.work.data().command("HINCRBY", archived.work.data().meta(0), "next", 1);
    }
    (void)archived.work.run();
    CHECK(archived.read().lines == archived.all);
    const auto producers = archived_producers(archived.place);
    REQUIRE(producers.size() == 1);
    CHECK(producers[0].name == name);
    CHECK(producers[0].position == Position(56));
    CHECK(producers[0].digest == fmt::format("{:016x}", 49));
  }

  TEST_CASE("while another process holds the archive a worker waits, and ends when it is told to") {
    Archived archived;
    archived.publish(10);
    (void)archived.work.run();
    archived.publish(10);
    const ArchiveDirectory archive(archived.place.path());
    auto lock = PartitionDirectory(archive, "t", Partition(0)).lock();
    REQUIRE(lock);
    Running running(archived.work);
    await("it is said",
          [&] { return archived.work.said().find("waiting for it to end") != std::string::npos; });
    await("it is seen", [&] { return archived.state().state == "retrying"; });
    SUBCASE("and goes on then") {
      lock.reset();
      await("it is durable", [&] { return archived.state().cursor.offset == Offset(20); });
      CHECK(running.stop().handled == 10);
      CHECK(archived.read().lines == archived.all);
    }
    SUBCASE("or ends") {
      archived.work.options().drain_within = Milliseconds(30'000);
      const auto before = std::chrono::steady_clock::now();
      CHECK(running.stop().handled == 0);
      CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(5));
      CHECK(archived.state().owner.empty());
      CHECK(archived.state().cursor.offset == Offset(10));
    }
  }

  TEST_CASE("a worker that shares partitions opens each archive before it is done with it") {
    Archived archived(2);
    archived.work.options().sharing = Sharing::shared;
    archived.publish(10);
    (void)archived.work.run();
    fs::remove_all(archived.place.path());
    fs::create_directory(archived.place.path());
    (void)archived.work.run();
    CHECK(archived.read().lines == archived.all);
    CHECK(archived.state().cursor.offset == Offset(10));
    std::string message;
    archived.work.options().archive = archived.place.path() + "/not-mounted";
    CHECK(kind_of([&] { (void)archived.work.run(); }, &message) == ErrorKind::usage);
  }

  TEST_CASE("a partition that is out of the ring is archived too, also again when its archive is gone") {
    Archived archived(2);
    archived.work.options().sharing = Sharing::shared;
    std::string all;
    for (int i = 0; i < 40; ++i) {
      const std::string line = event_line("old" + std::to_string(i), "k");
      archived.work.data().append(1, {line});
      all += line + "\n";
    }
    archived.work.data().command("HSET", topic_key("t"), "gen:2", RingDescription::uniform(1).text(),
                                 "active", "2");
    archived.work.data().seal(0, 2, "old");
    archived.work.data().seal(1, 2, "old");
    archived.begin_group();
    const auto read = [&] {
      std::string lines;
      const ArchiveDirectory directory(archived.place.path());
      ArchiveReader reader(directory, "t", Partition(1), archived.work.data().topic().log_id, {});
      while (const auto entry = reader.next()) {
        lines += entry->lines;
      }
      return lines;
    };
    for (int round = 0; round < 2; ++round) {
      (void)archived.work.run();
      CHECK(read() == all);
      const auto state =
          *parse_group(archived.work.data().command("HGETALL", group_key("t", Partition(1), group_name))[0]);
      CHECK(state.cursor.offset == Offset(40));
      CHECK(state.passed == Generation(2));
      fs::remove_all(archived.place.partition(1));
    }
    // And by one that goes on.
    {
      Running running(archived.work);
      await("it is archived again", [&] {
        return fs::exists(archived.place.partition(1) / PartitionDirectory::segment_name(Offset(0)));
      });
      await("and left alone then", [&] {
        const auto state = *parse_group(
            archived.work.data().command("HGETALL", group_key("t", Partition(1), group_name))[0]);
        return state.owner.empty() && state.cursor.offset == Offset(40) && state.passed == Generation(2);
      });
      running.stop();
    }
    CHECK(read() == all);
  }

  TEST_CASE("a worker whose time is over ends while the disk takes nothing, and says what is left") {
    Archived archived;
    archived.publish(500);
    (void)archived.work.run();
    archived.publish(5000);
    const auto before = std::chrono::steady_clock::now();
    {
      const SmallDisk small(2000);
      SUBCASE("by its time") {
        archived.work.options().time_max = Milliseconds(1'500);
        const auto summary = archived.work.run();
        CHECK(summary.unarchived == 1);
        CHECK(!summary.stopped);
      }
      SUBCASE("by a signal") {
        Running running(archived.work);
        await("it is said", [&] { return archived.work.said().find("File too large") != std::string::npos; });
        const auto summary = running.stop();
        CHECK(summary.unarchived == 1);
        CHECK(summary.stopped);
      }
    }
    CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(15));
    CHECK(archived.state().cursor.offset == Offset(500));
    CHECK(archived.state().owner.empty());
    archived.work.options().time_max.reset();
    CHECK(archived.work.run().unarchived == 0);
    CHECK(archived.read().lines == archived.all);
  }

  TEST_CASE("a damaged frame comes from the log again, as long as that has it") {
    Archived archived;
    for (int i = 0; i < 5; ++i) {
      archived.publish(100);
      (void)archived.work.run();
    }
    const fs::path segment = archived.place.segments().at(0);
    std::string bytes = bytes_of(segment);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    put_bytes(segment, bytes);
    bool kept = true;
    SUBCASE("it has") {}
    SUBCASE("it has not") {
      kept = false;
      archived.work.data().command("XTRIM", archived.work.data().log(0), "MAXLEN", 1);
    }
    archived.publish(10);
    CHECK(archived.work.run().damaged == (kept ? 0 : 1));
    CHECK(archived.state().cursor.offset == Offset(510));
    if (kept) {
      CHECK(archived.work.said().find("the log is archived again") != std::string::npos);
      CHECK(archived.read().lines == archived.all);
      CHECK(verify(archived.place).problems.empty());
    } else {
      CHECK(archived.work.said().find("The log does not have that any more, it begins at offset 400") !=
            std::string::npos);
      CHECK(verify(archived.place).problems.size() == 1);
    }
  }
}
