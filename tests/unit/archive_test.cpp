#include "archive_data.hpp"

#include "continuum/archive_format.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <random>
#include <thread>

using namespace continuum;
using namespace test;

namespace {

// Bursts of large frames, a trickle of single events, and a resize in between.
LogInMemory mixed_log() {
  LogInMemory log;
  std::mt19937 random(7);
  for (int i = 0; i < 120; ++i) {
    if (i == 60) {
      log.barrier(2);
    }
    const auto any = static_cast<std::uint32_t>(random());
    const std::uint32_t kind = any % 3;
    log.events(kind == 0 ? 1 : kind == 1 ? 2 + any % 20 : 200 + any % 200, any % 4);
  }
  log.barrier(3);
  return log;
}

constexpr ArchiveOptions small_segments{.segment_bytes = 40'000};

std::string output_of(const std::string& command) {
  std::string out;
  std::FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::array<char, 4096> bytes{};
  while (const std::size_t got = std::fread(bytes.data(), 1, bytes.size(), pipe)) {
    out.append(bytes.data(), got);
  }
  pclose(pipe);
  return out;
}

bool all_syncs_fail = false;
int failing_sync(int fd) {
  if (all_syncs_fail) {
    errno = EIO;
    return -1;
  }
  return fsync(fd);
}

}  // namespace

TEST_SUITE("archive") {
  TEST_CASE("a header comes back as it was, and every flipped bit of it is noticed") {
    const ArchiveIdentity identity{Partition(3), log_id, random_id()};
    FrameHeader header;
    header.generation = Generation(2);
    header.first = Offset(17);
    header.events = 304;
    header.frame_bytes = 11;
    header.frame_hash = 12;
    header.entries = {{{1'700'000'000'000, 3}, 1},
                      {{1'700'000'000'000, 4}, 300},
                      {{1'700'000'000'900, 0}, 1},
                      {{1'700'000'000'901, 7}, 2}};
    header.producers = {{"import", Position(9), "6d12adc7bb04a900", 3},
                        {"~emit/t", Position(3), "position", 0}};
    std::string bytes;
    append_header(bytes, identity, header);
    CHECK(header_size(bytes) == bytes.size());
    ArchiveIdentity found;
    FrameHeader read;
    REQUIRE(read_header(bytes, found, read) == HeaderRead::sound);
    CHECK(found == identity);
    CHECK(read.first == Offset(17));
    CHECK(read.next() == Offset(321));
    REQUIRE(read.entries.size() == 4);
    for (std::size_t i = 0; i < 4; ++i) {
      CHECK(read.entries[i].id == header.entries[i].id);
      CHECK(read.entries[i].events == header.entries[i].events);
    }
    REQUIRE(read.producers.size() == 2);
    CHECK(read.producers[1].name == "~emit/t");
    CHECK(read.producers[0].digest == "6d12adc7bb04a900");
    CHECK(read.producers[0].position == Position(9));
    CHECK(read.producers[0].entry == 3);
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      std::string flipped = bytes;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
      REQUIRE(read_header(flipped, found, read) == HeaderRead::damaged);
    }
  }

  TEST_CASE("the filter of a frame has all of its keys, and few others") {
    std::vector<std::uint64_t> hashes;
    for (int i = 0; i < 1000; ++i) {
      hashes.push_back(archive_key_hash("key-" + std::to_string(i % 500)));
    }
    const std::string filter = make_key_filter(hashes);
    CHECK(filter.size() <= 500 * 12 / 8);
    int others = 0;
    for (int i = 0; i < 10'000; ++i) {
      const bool found = may_hold(filter, archive_key_hash("key-" + std::to_string(i)));
      CHECK((i >= 500 || found));
      others += i >= 500 && found ? 1 : 0;
    }
    CHECK(others < 300);
    CHECK(may_hold("", 5));
    CHECK(key_filter_of("no event\n").empty());
  }

  TEST_CASE("an archive has the entries of the log: ids, offsets, barriers and every byte of the events") {
    ArchivePlace place;
    const LogInMemory log = mixed_log();
    archive(place, log, 7, small_segments);
    CHECK(place.segments().size() > 3);
    const ReadBack back = read_back(place);
    CHECK(back.errors.empty());
    CHECK(back.lines == log.lines());
    REQUIRE(back.ids.size() == log.entries().size());
    for (std::size_t i = 0; i < back.ids.size(); ++i) {
      CHECK(back.ids[i] == log.entries()[i].id);
    }
    CHECK(back.barriers.size() == 3);
    CHECK(back.barriers.back() == log.next());
    const Verified verified = verify(place);
    CHECK(verified.problems.empty());
    CHECK(verified.totals.events == log.next().value);
    CHECK(verified.totals.segments == place.segments().size());
  }

  TEST_CASE("zstdcat reads the segments one after the other as the events") {
    if (std::system("command -v zstdcat >/dev/null") != 0) {
      return;
    }
    ArchivePlace place;
    const LogInMemory log = mixed_log();
    archive(place, log, 7, small_segments);
    CHECK(output_of("zstdcat " + place.partition().string() + "/*.zst") == log.lines());
  }

  TEST_CASE("a frame is archived as it came, and a trickle is gathered") {
    ArchivePlace place;
    LogInMemory log;
    const std::string frame(log.events(500).frame);
    for (int i = 0; i < 300; ++i) {
      log.events(1);
    }
    archive(place, log, 1000);
    const std::string bytes = bytes_of(place.segments().at(0));
    CHECK(bytes.find(frame) != std::string::npos);
    // One header for the barrier, one for the frame, one for all that was gathered.
    std::size_t headers = 0;
    for (std::size_t at = bytes.find(archive_magic); at != std::string::npos;
         at = bytes.find(archive_magic, at + 1)) {
      ++headers;
    }
    CHECK(headers == 3);
    CHECK(bytes.size() < log.lines().size() / 4);
  }

  TEST_CASE("writers that come one after the other go on where the last one ended") {
    ArchivePlace place;
    LogInMemory log;
    for (int round = 0; round < 10; ++round) {
      for (int i = 0; i < 5; ++i) {
        log.events(1 + static_cast<std::uint32_t>(i) * 40);
      }
      const auto writer = open_writer(place);
      const auto end = writer->recovered().end;
      CHECK(end.has_value() == (round > 0));
      std::size_t known = 0;
      for (const auto& entry : log.entries()) {
        known += writer->append(entry) == ArchiveWriter::Taken::known ? 1U : 0U;
      }
      CHECK(known == (round == 0 ? 0 : 1 + static_cast<std::size_t>(round) * 5));
      const auto mark = writer->sync();
      REQUIRE(mark);
      CHECK(mark->next == log.next());
      CHECK(mark->entry == log.entries().back().id);
      CHECK(writer->recovered().said.empty());
    }
    CHECK(place.segments().size() == 1);
    CHECK(read_back(place).lines == log.lines());
    CHECK(verify(place).problems.empty());
  }

  TEST_CASE("a mark is given for what is synced, and nothing else is in the file") {
    ArchivePlace place;
    LogInMemory log;
    log.events(3);
    const auto writer = open_writer(place);
    for (const auto& entry : log.entries()) {
      writer->append(entry);
    }
    CHECK(!writer->durable());
    CHECK(place.segments().empty());
    CHECK(writer->sync()->next == Offset(3));
    CHECK(writer->pending_bytes() == 0);
    CHECK(place.segments().size() == 1);
  }

  TEST_CASE("a segment rolls by size and by time, but not before it holds an event") {
    ArchivePlace place;
    LogInMemory log;
    log.barrier(2);
    const ArchiveOptions options{.segment_bytes = 1, .segment_time = std::chrono::hours(1)};
    archive(place, log, 1, options);
    CHECK(place.segments().size() == 1);
    log.events(2);
    log.events(2);
    archive(place, log, 1, options);
    CHECK(place.segments().size() == 2);
    CHECK(place.segments().at(1).filename() == "00000000000000000002.ndjson.zst");
    log.events(2, 3'600'000);
    archive(place, log, 1, {.segment_time = std::chrono::hours(1)});
    CHECK(place.segments().size() == 3);
    CHECK(read_back(place).lines == log.lines());
    CHECK(verify(place).problems.empty());
  }

  TEST_CASE("the log must go on where the archive ends") {
    ArchivePlace place;
    LogInMemory log;
    log.events(5);
    archive(place, log);
    const auto writer = open_writer(place);
    Entry gap = log.events(5);
    gap.first = Offset(6);
    CHECK(error_of(ErrorKind::loss, [&] { writer->append(gap); }).find("ends at 5") != std::string::npos);
    Entry doubled = log.entries()[1];
    doubled.events = 9;
    CHECK(error_of(ErrorKind::loss, [&] {
            writer->append(doubled);
          }).find("is not the one that was archived") != std::string::npos);
    Entry damaged = log.entries().back();
    damaged.frame = "no line";
    CHECK(error_of(ErrorKind::loss, [&] { writer->append(damaged); }).find("offsets 5 to 9") !=
          std::string::npos);
    // None of that was taken.
    writer->append(log.entries().back());
    writer->sync();
    CHECK(read_back(place).lines == log.lines());
  }

  TEST_CASE("a log whose beginning was trimmed can be archived from there") {
    ArchivePlace place;
    LogInMemory log(1000);
    log.events(5);
    archive(place, log);
    CHECK(read_back(place).lines == log.lines(1000));
    const auto before = read_back(place, {.from = Offset(10), .to = Offset(1002)});
    REQUIRE(before.errors.size() == 1);
    CHECK(before.errors[0].find("offsets 10 to 999 are not kept") != std::string::npos);
  }

  TEST_CASE("many producers with long names need not fit into one header") {
    ArchivePlace place;
    LogInMemory log;
    std::vector<std::string> names;
    std::string lines;
    constexpr std::size_t count = 6000;
    for (std::size_t i = 0; i < count; ++i) {
      names.push_back(std::to_string(i) + std::string(1000, 'p'));
      Entry& entry = log.events(1);
      entry.encoding = Encoding::plain;
      entry.frame = "{}\n";
      entry.producer = names.back();
      lines += entry.frame;
    }
    archive(place, log, count + 1);
    CHECK(read_back(place).lines == lines);
    CHECK(verify(place).problems.empty());
  }

  TEST_CASE("a reader gives a named producer with its last entry in a frame, and the frame of a lone entry") {
    ArchivePlace place;
    LogInMemory log;
    const auto store = [&](const char* producer, std::uint64_t position) {
      Entry& entry = log.events(1);
      entry.producer = producer;
      entry.position = Position(position);
      entry.digest = "d";
    };
    store("a", 1);
    store("b", 5);
    store("a", 2);
    log.events(1);
    const std::string frame(log.events(500).frame);
    store("a", 9);
    archive(place, log, 1000);
    const ArchiveDirectory directory(place.path());
    ArchiveReader reader(directory, "t", Partition(0), log_id, {});
    std::vector<std::string> found;
    while (const auto entry = reader.next()) {
      if (!entry->producer.empty()) {
        CHECK(entry->digest == "d");
        found.push_back(fmt::format("{} {} {}", entry->first, entry->producer, entry->position));
      }
      if (entry->events == 500) {
        CHECK(entry->frame == frame);
      }
      CHECK(entry->frame.empty() == (entry->next() <= Offset(4)));
    }
    CHECK(found == std::vector<std::string>{"1 b 5", "2 a 2", "504 a 9"});
  }

  TEST_CASE("what a topic is stands beside its archive, and is never replaced by something older") {
    ArchivePlace place;
    const ArchiveDirectory archive(place.path());
    Topic topic;
    topic.name = "t";
    topic.log_id = log_id;
    topic.active = Generation(2);
    topic.created = SystemTime(Milliseconds(1'700'000'000'123));
    topic.settings.frames = Frames::plain;
    topic.settings.event_bytes_max = 4096;
    topic.rings.emplace(Generation(1), RingDescription::uniform(4));
    topic.rings.emplace(Generation(2), RingDescription::parse("xxh3:64:0-2,7*1.5"));
    write_archived_topic(archive, topic);
    const auto back = read_archived_topic(archive, "t");
    REQUIRE(back);
    CHECK(back->log_id == log_id);
    CHECK(back->active == Generation(2));
    CHECK(back->created == topic.created);
    CHECK(back->settings.frames == Frames::plain);
    CHECK(back->settings.event_bytes_max == 4096);
    CHECK(back->rings == topic.rings);

    const fs::path file = fs::path(place.path()) / "t" / "topic";
    const std::string bytes = bytes_of(file);
    Topic older = topic;
    older.active = Generation(1);
    older.rings.erase(Generation(2));
    write_archived_topic(archive, older);
    CHECK(bytes_of(file) == bytes);
    for (std::size_t bit = 0; bit < bytes.size() * 8; bit += 3) {
      std::string flipped = bytes;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
      put_bytes(file, flipped);
      REQUIRE(error_of(ErrorKind::loss, [&] {
                (void)read_archived_topic(archive, "t");
              }).find("is damaged") != std::string::npos);
    }
    // Who has the topic makes it anew.
    write_archived_topic(archive, topic);
    CHECK(bytes_of(file) == bytes);
    CHECK(!read_archived_topic(archive, "t").value().pending);
    topic.log_id = std::string(32, 'a');
    CHECK(error_of(ErrorKind::loss, [&] { write_archived_topic(archive, topic); }).find("now has log aaa") !=
          std::string::npos);
    fs::remove(file);
    fs::create_symlink("/etc/passwd", file);
    CHECK(error_of(ErrorKind::loss, [&] { (void)read_archived_topic(archive, "t"); }).find("symbolic link") !=
          std::string::npos);
  }

  TEST_CASE("writers that make the same archive at the same time agree on whose it is") {
    for (int round = 0; round < 30; ++round) {
      ArchivePlace place;
      std::vector<std::string> ids(4);
      std::vector<std::thread> threads;
      threads.reserve(ids.size());
      for (std::string& id : ids) {
        threads.emplace_back([&place, &id] {
          try {
            id = PartitionDirectory::create(place.path(), "t", Partition(0), log_id).identity()->archive_id;
          } catch (const Error& error) {
            id = error.message();
          }
        });
      }
      for (auto& thread : threads) {
        thread.join();
      }
      REQUIRE(is_archive_id(ids[0]));
      REQUIRE(std::ranges::count(ids, ids[0]) == 4);
      REQUIRE(place.files("").size() == 1);
    }
  }

  TEST_CASE("a repair passes over what a writer has") {
    ArchivePlace place;
    LogInMemory log;
    log.events(5);
    archive(place, log);
    const fs::path index = place.indexes().at(0);
    fs::remove(index);
    const ArchiveDirectory archive(place.path());
    CHECK(repair_archive(place.path(), {}, RepairMode::dry_run).size() == 1);
    const auto lock = PartitionDirectory(archive, "t", Partition(0)).lock();
    const auto beside = repair_archive(place.path(), {}, RepairMode::dry_run);
    REQUIRE(beside.size() == 1);
    CHECK(beside[0].what.starts_with("passed over"));
    CHECK(repair_archive(place.path(), {}, RepairMode::act).at(0).what.starts_with("passed over"));
  }

  TEST_CASE("one process writes, of one log") {
    ArchivePlace place;
    LogInMemory log;
    log.events(5);
    archive(place, log);
    {
      const auto writer = open_writer(place);
      CHECK(error_of(ErrorKind::fenced, [&] { open_writer(place); }).find("one writer") != std::string::npos);
    }
    const std::string other(32, 'a');
    CHECK(error_of(ErrorKind::loss, [&] { open_writer(place, {}, other); }).find(log_id) !=
          std::string::npos);
    CHECK(error_of(ErrorKind::usage, [&] {
            const ArchiveWriter writer(place.path() + "/gone", "t", Partition(0), log_id, {}, {});
          }).find("cannot open the archive") != std::string::npos);
  }

  TEST_CASE("a reader takes any range of offsets, times, and the frames of a key") {
    ArchivePlace place;
    const LogInMemory log = mixed_log();
    archive(place, log, 7, small_segments);
    std::mt19937 random(11);
    for (const bool indexed : {true, false}) {
      if (!indexed) {
        for (const auto& index : place.indexes()) {
          fs::remove(index);
        }
      }
      for (int round = 0; round < 60; ++round) {
        const auto& a = log.entries()[random() % log.entries().size()];
        const auto& b = log.entries()[random() % log.entries().size()];
        ArchiveChoice offsets;
        offsets.from = std::min(a.first, b.first);
        offsets.to = std::max(a.first, b.first);
        const ReadBack by_offset = read_back(place, offsets);
        CHECK(by_offset.errors.empty());
        CHECK(by_offset.lines == log.lines(offsets.from->value, offsets.to->value));
        ArchiveChoice times;
        times.since = std::min(a.time(), b.time());
        times.until = std::max(a.time(), b.time());
        std::vector<EntryId> expected;
        for (const auto& entry : log.entries()) {
          if (entry.time() >= *times.since && entry.time() < *times.until) {
            expected.push_back(entry.id);
          }
        }
        const ReadBack by_time = read_back(place, times);
        CHECK(by_time.errors.empty());
        CHECK(by_time.ids == expected);
      }
    }
  }

  TEST_CASE("no more is read than a time range or a key needs") {
    ArchivePlace place;
    LogInMemory log;
    std::string lines;
    FrameEncoder encoder;
    for (int i = 0; i < 400; ++i) {
      log.events(200, 1000);
    }
    Entry rare = log.events(1);
    const std::string line =
        R"({"specversion":"1.0","id":"x","source":"/t","type":"y","partitionkey":"rare","data":1})"
        "\n";
    rare.frame = line;
    const auto write = [&](const ArchiveOptions options) {
      const auto writer = open_writer(place, options);
      std::size_t count = 0;
      for (const auto& entry : log.entries()) {
        writer->append(&entry == &log.entries().back() ? rare : entry);
        if (++count % 10 == 0) {
          writer->sync();
        }
      }
      writer->sync();
    };
    write({.segment_bytes = 200'000});
    const std::uint64_t all = read_back(place).bytes_read;
    const SystemTime begin = log.entries().front().time();
    ArchiveChoice minute;
    minute.since = begin + Milliseconds(200'000);
    minute.until = begin + Milliseconds(203'000);
    const ReadBack by_time = read_back(place, minute);
    CHECK(by_time.ids.size() == 3);
    CHECK(by_time.bytes_read < all / 8);
    ArchiveChoice key;
    key.key = "rare";
    const ReadBack by_key = read_back(place, key);
    CHECK(by_key.lines.find(line) != std::string::npos);
    CHECK(by_key.bytes_read < all / 4);
    ArchiveChoice tail;
    tail.from = Offset(log.next().value - 1);
    CHECK(read_back(place, tail).lines == line);
    CHECK(read_back(place, tail).bytes_read < all / 8);
  }

  TEST_CASE("after a failed fsync the file is not used again, and nothing is lost") {
    for (const bool with_events : {true, false}) {
      ArchivePlace place;
      LogInMemory log;
      all_syncs_fail = false;
      const auto writer = open_writer(place, {.sync = failing_sync});
      if (with_events) {
        log.events(50);
      }
      for (const auto& entry : log.entries()) {
        writer->append(entry);
      }
      const auto before = writer->sync();
      all_syncs_fail = true;
      writer->append(log.events(60));
      for (int attempt = 0; attempt < 3; ++attempt) {
        CHECK(error_of(ErrorKind::server, [&] { writer->sync(); }).find("cannot sync") != std::string::npos);
        CHECK(writer->durable()->next == before->next);
      }
      CHECK(verify(place).problems.empty());
      CHECK(read_back(place).lines == log.lines(0, before->next.value));
      writer->append(log.events(70));
      all_syncs_fail = false;
      CHECK(writer->sync()->next == log.next());
      CHECK(place.segments().size() == (with_events ? 2 : 1));
      writer->append(log.events(5));
      writer->sync();
      CHECK(read_back(place).lines == log.lines());
      CHECK(read_back(place).ids.size() == log.entries().size());
      CHECK(verify(place).problems.empty());
    }
  }

  TEST_CASE("a disk that is full is said, and archiving goes on when there is room") {
    struct rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
    ArchivePlace place;
    LogInMemory log;
    log.events(2000);
    const auto writer = open_writer(place);
    for (const auto& entry : log.entries()) {
      writer->append(entry);
    }
    const auto mark = writer->sync();
    const std::uint64_t size = fs::file_size(place.segments().at(0));
    writer->append(log.events(2000));
    struct rlimit small = before;
    small.rlim_cur = size / 2;
    setrlimit(RLIMIT_FSIZE, &small);
    const std::string refused = error_of(ErrorKind::server, [&] { writer->sync(); });
    const std::string again = error_of(ErrorKind::server, [&] { writer->sync(); });
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, old_handler);
    CHECK(refused.find("File too large") != std::string::npos);
    CHECK(refused.find("safe up to offset 2000") != std::string::npos);
    CHECK(again.find("File too large") != std::string::npos);
    CHECK(writer->durable()->next == mark->next);
    CHECK(fs::file_size(place.segments().at(0)) == size);
    CHECK(writer->sync()->next == Offset(4000));
    CHECK(read_back(place).lines == log.lines());
    CHECK(verify(place).problems.empty());
  }

  TEST_CASE("a writer that is killed at any moment loses nothing that it had a mark for") {
    ArchivePlace place;
    LogInMemory log;
    for (int i = 0; i < 400; ++i) {
      log.events(1 + static_cast<std::uint32_t>(i % 50) * 5);
    }
    std::mt19937 random(3);
    Offset durable;
    for (int round = 0; round < 20; ++round) {
      std::array<int, 2> ends{};
      REQUIRE(pipe(ends.data()) == 0);
      const pid_t child = fork();
      if (child == 0) {
        const auto writer = open_writer(place, {.segment_bytes = 100'000, .sync = [](int) { return 0; }});
        for (const auto& entry : log.entries()) {
          if (writer->append(entry) == ArchiveWriter::Taken::appended && entry.first.value % 3 != 0) {
            const std::uint64_t mark = writer->sync()->next.value;
            (void)!write(ends[1], &mark, sizeof mark);
          }
        }
        _exit(0);
      }
      close(ends[1]);
      std::uint64_t mark = 0;
      const auto marks = 1 + random() % 30;
      for (std::uint64_t i = 0; i < marks && read(ends[0], &mark, sizeof mark) == sizeof mark; ++i) {
        durable = std::max(durable, Offset(mark));
      }
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
      close(ends[0]);
      const auto end = open_writer(place)->recovered().end;
      REQUIRE(end);
      CHECK(end->next >= durable);
      CHECK(verify(place).problems.empty());
    }
    archive(place, log);
    CHECK(read_back(place).lines == log.lines());
  }

  TEST_CASE("a reader beside a writer sees what is whole") {
    ArchivePlace place;
    LogInMemory log;
    log.events(300);
    log.events(300);
    archive(place, log);
    const auto writer = open_writer(place);
    const std::string bytes = bytes_of(place.segments().at(0));
    fs::remove(place.indexes().at(0));  // it has a frame only once that is synced
    put_bytes(place.segments().at(0), bytes.substr(0, bytes.size() - 5));
    CHECK(read_back(place).errors.empty());
    CHECK(read_back(place).lines == log.lines(0, 300));
    CHECK(verify(place).problems.empty());
    // What is known to be durable must be there.
    const auto short_of = read_back(place, {.to = Offset(600)});
    REQUIRE(short_of.errors.size() == 1);
    CHECK(short_of.errors[0].find("offsets 300 to 599") != std::string::npos);
  }

  TEST_CASE("segments are listed without reading them") {
    ArchivePlace place;
    const LogInMemory log = mixed_log();
    archive(place, log, 7, small_segments);
    const auto list = list_archive(place.path(), {});
    REQUIRE(list.size() == place.segments().size());
    std::uint64_t events = 0;
    for (const auto& segment : list) {
      CHECK(segment.first.value == events);
      events += segment.events();
      CHECK(segment.bytes == fs::file_size(segment.path));
    }
    CHECK(events == log.next().value);
    CHECK(list.front().first_time == log.entries().front().time());
    CHECK(list.back().last_time == log.entries().back().time());
    CHECK(error_of(ErrorKind::usage, [&] { (void)list_archive(place.path(), {.topics = {"tt"}}); }) ==
          place.path() + " has no topic tt; did you mean t?");
  }
}
