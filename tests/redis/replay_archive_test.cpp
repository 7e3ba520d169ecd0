// Replays over the archive and the log as one sequence (G8), wherever the seam is and whoever moves it.
#include "redis/log_data.hpp"
#include "redis/server.hpp"
#include "unit/archive_data.hpp"

#include "continuum/event.hpp"
#include "continuum/replay.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

using namespace continuum;
using test::event_line;

namespace {

// The logs of topic t and an archive of them.
struct Archived {
  explicit Archived(std::uint32_t partitions = 1) : data(*session, partitions) {}

  // One entry.
  EntryId append(std::uint32_t partition, std::uint32_t events, std::uint32_t generation = 1) {
    std::vector<std::string> lines;
    for (std::uint32_t i = 0; i < events; ++i, ++appended) {
      lines.push_back(fmt::format(
          R"({{"specversion":"1.0","id":"e{0}","source":"/t","type":"{1}","time":"2024-05-01T12:{2:02}:00.000Z","partitionkey":"k{3}","data":{{"n":{0}}}}})",
          appended, appended % 3 == 0 ? "post.created" : "post.read", appended * 7 % 60, appended % 5));
    }
    const Frames frames = events % 2 == 0 ? Frames::plain : Frames::automatic;
    const auto id = *EntryId::parse(data.append(partition, lines, frames, generation));
    pass_a_millisecond();
    return id;
  }
  // The server's clock moves on, so that the next entry has another time.
  void pass_a_millisecond() {
    const auto now = [&] {
      const auto replies = data.command("TIME");
      return replies[0][0].number() * 1000 + replies[0][1].number() / 1000;
    };
    const auto begin = now();
    while (now() == begin) {
    }
  }
  void resize(std::uint32_t generation) {
    for (const Partition partition : data.topic().partitions()) {
      data.seal(partition.value, generation, "old");
    }
    data.topic().active = Generation(generation);
    data.topic().rings.emplace(Generation(generation), data.topic().rings.at(Generation(1)));
  }

  // As a worker does: what the log has and the archive does not, or the first entries of that.
  void archive(std::uint32_t partition, std::size_t entries = SIZE_MAX) {
    auto& writer = writers[partition];
    const auto log = entries_of(partition);
    if (!writer) {
      const Offset first = log.empty() ? Offset(0) : log.front().first;
      writer = std::make_unique<ArchiveWriter>(place.path(), "t", Partition(partition), data.topic().log_id,
                                               ArchiveResume{Offset(0), first}, archive_options);
    }
    const auto replies = data.command("XRANGE", data.log(partition), "-", "+");
    for (std::size_t i = 0; i < replies[0].size() && entries > 0; ++i) {
      const auto taken = writer->append(parse_entry(replies[0][i], "t", Partition(partition)));
      entries -= taken == ArchiveWriter::Taken::appended ? 1 : 0;
    }
    (void)writer->sync();
  }
  // Without the views.
  std::vector<Entry> entries_of(std::uint32_t partition) {
    std::vector<Entry> out;
    const auto replies = data.command("XRANGE", data.log(partition), "-", "+");
    for (std::size_t i = 0; i < replies[0].size(); ++i) {
      out.push_back(parse_entry(replies[0][i], "t", Partition(partition)));
    }
    return out;
  }
  // By hand, all before that entry.
  void trim(std::uint32_t partition, const EntryId& first) {
    data.command("XTRIM", data.log(partition), "MINID", first.text());
  }
  void trim_all(std::uint32_t partition) { data.command("XTRIM", data.log(partition), "MAXLEN", 0); }
  // As a trimmer that may remove all that is durable, up to that entry.
  void trim_archived(std::uint32_t partition) {
    const EntryId last = writers.at(partition)->durable()->entry;
    trim(partition, {last.milliseconds, last.sequence + 1});
  }

  [[nodiscard]] ReplayOptions both() const {
    ReplayOptions options;
    options.archive = place.path();
    return options;
  }

  test::RedisServer server;
  std::unique_ptr<redis::Session> session = server.session();
  test::LogData data;
  test::ArchivePlace place;
  ArchiveOptions archive_options;
  std::map<std::uint32_t, std::unique_ptr<ArchiveWriter>> writers;
  std::uint64_t appended = 0;
};

struct Replayed {
  std::string lines;  // with their places
  std::uint64_t in_range = 0;
  std::uint64_t bytes_read = 0;
  bool operator==(const Replayed& other) const { return lines == other.lines && in_range == other.in_range; }
};

Replayed replayed(Archived& archived, ReplayOptions options) {
  Replay replay(*archived.session, archived.data.topic(), std::move(options));
  Replayed out;
  out.in_range = replay.events_in_range();
  while (const auto run = replay.next()) {
    append_events(out.lines, *run, EventForm::with_place);
  }
  out.bytes_read = replay.archive_bytes_read();
  return out;
}

// What a replay that must find loss says, and what it gave before.
struct Lost {
  std::string before;
  std::string message = "nothing was reported";
};
Lost loss_of(Archived& archived, ReplayOptions options) {
  Lost lost;
  try {
    Replay replay(*archived.session, archived.data.topic(), std::move(options));
    while (const auto run = replay.next()) {
      append_events(lost.before, *run, EventForm::with_place);
    }
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::loss);
    lost.message = error.message();
  }
  return lost;
}

void check_contains(const std::string& text, std::string_view part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
}

SystemTime time_of(const EntryId& id) {
  return SystemTime(Milliseconds(static_cast<std::int64_t>(id.milliseconds)));
}

ReplayOptions by_offset(ReplayOptions options, std::uint64_t from, std::optional<std::uint64_t> to = {}) {
  options.partitions = {Partition(0)};
  options.range.from = Offset(from);
  if (to) {
    options.range.to = Offset(*to);
  }
  return options;
}

// Every way to choose events, of a log with these entries in partition 0.
std::vector<ReplayOptions> selections(const ReplayOptions& all, const std::vector<Entry>& entries) {
  std::vector<ReplayOptions> out{all};
  const auto add = [&](const std::function<void(ReplayOptions&)>& choose) {
    out.push_back(all);
    choose(out.back());
  };
  add([](auto& options) { options.filter.key = "k3"; });
  add([](auto& options) { options.filter.types = {"*.created"}; });
  add([](auto& options) { options.filter.where = {Where::parse("/data/n=7")}; });
  add([](auto& options) { options.partitions = {Partition(1)}; });
  add([](auto& options) { options.events_max = 9; });
  add([](auto& options) {
    options.range.by = RangeOptions::By::event_time;
    options.range.since = parse_time("2024-05-01T12:20:00Z");
    options.range.until = parse_time("2024-05-01T12:40:00Z");
  });
  for (std::uint64_t from = 0; from < 20; from += 3) {
    out.push_back(by_offset(all, from, from + 8));
    out.push_back(by_offset(all, from));
    out.push_back(by_offset(all, from, from));
  }
  for (const Entry& from : entries) {
    for (const Entry& to : entries) {
      if (from.id <= to.id) {
        add([&](auto& options) {
          options.range.since = time_of(from.id);
          options.range.until = time_of(to.id);
        });
      }
    }
    add([&](auto& options) { options.range.since = time_of(from.id) + Milliseconds(1); });
    add([&](auto& options) {
      options.range.until = time_of(from.id) + Milliseconds(1);
      options.filter.key = "k1";
    });
  }
  return out;
}

// Three generations in two partitions.
void append_some(Archived& archived) {
  for (const std::uint32_t generation : {1U, 2U, 3U}) {
    if (generation > 1) {
      archived.resize(generation);
    }
    for (const std::uint32_t events : {3U, 1U, 60U}) {
      archived.append(0, events, generation);
      archived.append(1, events + 1, generation);
    }
  }
}

}  // namespace

TEST_SUITE("replay archive") {
  TEST_CASE("wherever the log begins, the archive and it are what the log alone was, by every selector") {
    Archived archived(2);
    append_some(archived);
    const auto first = archived.entries_of(0);
    const auto second = archived.entries_of(1);
    REQUIRE(first.size() == second.size());
    const auto chosen = selections({}, first);
    std::vector<Replayed> expected;
    for (const ReplayOptions& options : chosen) {
      expected.push_back(replayed(archived, options));
    }
    archived.archive(0);
    archived.archive(1);
    const auto archived_choices = selections(archived.both(), first);
    for (std::size_t cut = 0; cut <= first.size(); ++cut) {
      CAPTURE(cut);
      if (cut < first.size()) {
        archived.trim(0, first[cut].id);
        archived.trim(1, second[cut].id);
      } else {
        archived.trim_all(0);
        archived.trim_all(1);
      }
      for (std::size_t i = 0; i < chosen.size(); ++i) {
        CAPTURE(i);
        CHECK(replayed(archived, archived_choices[i]) == expected[i]);
      }
    }
  }

  TEST_CASE("what is trimmed while we read is read in the archive") {
    Archived archived(2);
    append_some(archived);
    const Replayed expected = replayed(archived, {});
    archived.archive(0);
    archived.archive(1);
    std::size_t passed_before = 0;
    const auto trim = [&] {
      archived.trim_archived(0);
      archived.trim_archived(1);
    };
    SUBCASE("before anything was read") {}
    SUBCASE("after the first entries") {
      passed_before = 2;
    }
    SUBCASE("after more") {
      passed_before = 6;
    }
    Replay replay(*archived.session, archived.data.topic(), archived.both());
    std::string lines;
    for (std::size_t i = 0; i < passed_before; ++i) {
      append_events(lines, *replay.next(), EventForm::with_place);
    }
    trim();
    while (const auto run = replay.next()) {
      append_events(lines, *run, EventForm::with_place);
    }
    CHECK(lines == expected.lines);
  }

  TEST_CASE("while the log is archived and trimmed step by step, a replay sees no seam") {
    Archived archived;
    for (int i = 0; i < 600; ++i) {
      archived.append(0, 1 + static_cast<std::uint32_t>(i % 2));
    }
    const Replayed expected = replayed(archived, {});
    ReplayOptions options = archived.both();
    SUBCASE("all events") {}
    SUBCASE("of a key") {
      options.filter.key = "k2";
    }
    Replayed chosen = expected;
    if (options.filter.key) {
      ReplayOptions of_log;
      of_log.filter.key = options.filter.key;
      chosen = replayed(archived, of_log);
    }
    // The trimmer follows the archive, and overtakes the replay, which asks for more of the log again and
    // again.
    archived.archive(0, 5);
    Replay replay(*archived.session, archived.data.topic(), options);
    std::string lines;
    for (int i = 0;; ++i) {
      const auto run = replay.next(3, 3);
      if (!run) {
        break;
      }
      append_events(lines, *run, EventForm::with_place);
      if (i % 5 == 4) {
        archived.archive(0, 7);
        archived.trim_archived(0);
      }
    }
    CHECK(lines == chosen.lines);
  }

  TEST_CASE(
      "a replay goes on inside of the archive where another one stopped, also when the log is trimmed on") {
    Archived archived(2);
    append_some(archived);
    const Replayed expected = replayed(archived, {});
    archived.archive(0);
    archived.archive(1);
    const auto entries = archived.entries_of(0);
    bool has_entries = true;
    SUBCASE("behind an entry") {}
    SUBCASE("at a place that has to be searched") {
      has_entries = false;
    }
    std::string lines;
    std::optional<ResumeAt> at;
    std::size_t runs = 0;
    for (;; ++runs) {
      ReplayOptions options = archived.both();
      options.range.resume = at;
      options.events_max = 5;
      Replay replay(*archived.session, archived.data.topic(), options);
      while (const auto run = replay.next()) {
        append_events(lines, *run, EventForm::with_place);
      }
      if (replay.events_matched() == 0) {
        break;
      }
      at = replay.resume_at();
      if (!has_entries) {
        for (auto& [partition, place] : at->places) {
          place.entry = {};
        }
      }
      if (runs % 3 == 2 && runs / 3 < entries.size()) {
        archived.trim(0, entries[runs / 3].id);
      }
    }
    CHECK(runs > 30);
    CHECK(lines == expected.lines);
  }

  TEST_CASE("taken up again before the time that its range begins at, it begins there, in the archive too") {
    Archived archived;
    archived.append(0, 4);
    ReplayOptions options = archived.both();
    options.range.resume = ResumeAt{{{Partition(0), Cursor{Offset(2), {}}}}, Generation(1)};
    archived.append(0, 4);
    const EntryId then = archived.append(0, 4);
    archived.append(0, 4);
    options.range.since = time_of(then);
    archived.archive(0);
    for (const std::uint64_t place : {2U, 4U, 9U, 16U}) {
      CAPTURE(place);
      options.range.resume->places.begin()->second.offset = Offset(place);
      CHECK(replayed(archived, options).in_range == 16 - std::max<std::uint64_t>(place, 8));
    }
    archived.trim_archived(0);
    for (const std::uint64_t place : {2U, 4U, 9U, 16U}) {
      CAPTURE(place);
      options.range.resume->places.begin()->second.offset = Offset(place);
      const auto rest = replayed(archived, options);
      CHECK(rest.in_range == 16 - std::max<std::uint64_t>(place, 8));
      CHECK(std::count(rest.lines.begin(), rest.lines.end(), '\n') ==
            static_cast<std::ptrdiff_t>(rest.in_range));
    }
  }

  TEST_CASE("a partition that is new has no archive yet") {
    Archived archived(2);
    archived.append(0, 4);
    archived.append(1, 4);
    archived.archive(0);
    archived.trim_archived(0);
    CHECK(replayed(archived, archived.both()).in_range == 8);
    Replay replay(*archived.session, archived.data.topic(), archived.both());
    archived.trim_all(1);
    check_contains(test::error_of(ErrorKind::loss,
                                  [&] {
                                    while (replay.next()) {
                                    }
                                  }),
                   "topic t, partition 1: the log does not have offsets 0 to 3 any more");
    check_contains(loss_of(archived, archived.both()).message,
                   "topic t, partition 1: offsets 0 to 3 are gone");
  }

  TEST_CASE(
      "events that are neither in the archive nor in the log are told, and what comes before them given") {
    Archived archived;
    archived.append(0, 4);
    archived.append(0, 4);
    const auto before = replayed(archived, {});
    archived.archive(0);
    archived.append(0, 4);
    const EntryId kept = archived.append(0, 4);
    archived.trim(0, kept);
    const Lost lost = loss_of(archived, archived.both());
    CHECK(lost.before == before.lines);
    check_contains(lost.message, "topic t, partition 0: the log does not have offsets 8 to 11 any more");
    check_contains(lost.message, "the archive ends at offset 8");
    check_contains(lost.message, "--from-offset 12");
    CHECK(loss_of(archived, by_offset(archived.both(), 9, 11)).before.empty());
    CHECK(replayed(archived, by_offset(archived.both(), 0, 8)).in_range == 8);
    CHECK(replayed(archived, by_offset(archived.both(), 12)).in_range == 4);
    ReplayOptions since = archived.both();
    since.range.since = time_of(kept);
    check_contains(loss_of(archived, since).message, "the archive ends at offset 8");
  }

  TEST_CASE("an archive that begins late has what it has") {
    Archived archived;
    const EntryId oldest = archived.append(0, 4);
    const EntryId second = archived.append(0, 4);
    archived.append(0, 4);
    archived.trim(0, second);
    archived.data.command("HSET", archived.data.meta(0), "trimmed", 1);
    const auto expected = replayed(archived, {});
    archived.archive(0);
    archived.trim_archived(0);
    CHECK(replayed(archived, archived.both()) == expected);
    check_contains(loss_of(archived, by_offset(archived.both(), 2)).message,
                   "offsets 2 to 3 are no longer kept. What is kept can be read with --from-offset 4");
    ReplayOptions since = archived.both();
    since.range.since = time_of(oldest);
    check_contains(loss_of(archived, since).message, "the archive is kept from offset 4");
    since.range.since = time_of(second) + Milliseconds(1);
    CHECK(replayed(archived, since).in_range == 4);
  }

  TEST_CASE("without a beginning, a partition that was trimmed and is not in the archive is loss") {
    Archived archived(2);
    archived.append(0, 4);
    archived.append(1, 4);
    const EntryId removed = archived.append(1, 4);
    archived.archive(0);
    const EntryId kept = archived.append(1, 4);
    archived.trim(1, kept);
    archived.data.command("HSET", archived.data.meta(1), "trimmed", 1, "trimmed_offset", 8, "trimmed_entry",
                          removed.text());
    std::string message = loss_of(archived, archived.both()).message;
    check_contains(message,
                   "topic t, partition 1: the log is kept from offset 8 on, and nothing is archived in");
    check_contains(message, "/t/1. Is the archive mounted");
    check_contains(message, "--from-offset 8");
    // A copy that has lost its first segments is no better.
    archived.append(1, 4);
    archived.writers[1] = std::make_unique<ArchiveWriter>(
        archived.place.path(), "t", Partition(1), archived.data.topic().log_id,
        ArchiveResume{Offset(12), Offset(12)}, archived.archive_options);
    const auto newest = archived.data.command("XREVRANGE", archived.data.log(1), "+", "-", "COUNT", 1);
    (void)archived.writers[1]->append(parse_entry(newest[0][0], "t", Partition(1)));
    (void)archived.writers[1]->sync();
    message = loss_of(archived, archived.both()).message;
    check_contains(message, "only from offset 12 on");
    // What is there can be had.
    CHECK(replayed(archived, {}).in_range == 12);
    ReplayOptions options = archived.both();
    options.partitions = {Partition(1)};
    options.range.from = Offset(8);
    CHECK(replayed(archived, options).in_range == 8);
    options = archived.both();
    options.range.since = time_of(kept);
    CHECK(replayed(archived, options).in_range == 8);
  }

  TEST_CASE("a log that went back behind its archive is loss") {
    Archived archived;
    archived.append(0, 4);
    archived.append(0, 4);
    archived.archive(0);
    const auto line = event_line("other", "k") + "\n";
    archived.trim_all(0);
    SUBCASE("and went on") {
      archived.data.command("DEL", archived.data.log(0));
      archived.data.command("XADD", archived.data.log(0), "1-1", "n", 1, "o", 8, "g", 1, "e", line);
      archived.data.command("HSET", archived.data.meta(0), "next", 9);
      check_contains(loss_of(archived, archived.both()).message, "they do not belong together");
    }
    SUBCASE("and its offsets are given again, in other entries") {
      archived.data.command("XADD", archived.data.log(0), "*", "n", 3, "o", 6, "g", 1, "e",
                            line + line + line);
      archived.data.command("HSET", archived.data.meta(0), "next", 9);
      check_contains(loss_of(archived, archived.both()).message, "offset 6 comes where 8 is expected");
    }
    SUBCASE("and its offsets are given again") {
      archived.data.command("XADD", archived.data.log(0), "*", "n", 3, "o", 4, "g", 1, "e",
                            line + line + line);
      archived.data.command("HSET", archived.data.meta(0), "next", 7);
      check_contains(loss_of(archived, archived.both()).message, "they do not belong together");
    }
  }

  TEST_CASE("what is damaged in the archive is loss with its range, and the rest can be asked for") {
    Archived archived;
    for (int i = 0; i < 6; ++i) {
      archived.append(0, 400);
    }
    const auto expected = replayed(archived, by_offset({}, 800));
    archived.archive(0);
    archived.trim_archived(0);
    archived.append(0, 1);
    const auto path = archived.place.segments().front();
    std::string bytes = test::bytes_of(path);
    bytes[bytes.size() / 20] = static_cast<char>(bytes[bytes.size() / 20] ^ 1);
    test::put_bytes(path, bytes);
    const Lost lost = loss_of(archived, archived.both());
    check_contains(lost.message, "topic t, partition 0: the log does not have");
    check_contains(lost.message, path.string());
    CHECK(replayed(archived, by_offset(archived.both(), 2000)).in_range == 401);
  }

  TEST_CASE("a time, and a key, are found without reading the rest of an archive") {
    Archived archived;
    std::vector<EntryId> ids;
    for (int i = 0; i < 60; ++i) {
      ids.push_back(archived.append(0, 1501));
    }
    archived.data.append(0, {event_line("rare", "rare")});
    archived.archive(0);
    ReplayOptions minute = archived.both();
    minute.range.since = time_of(ids[30]);
    minute.range.until = time_of(ids[31]);
    ReplayOptions key;
    key.filter.key = "rare";
    const auto of_time = replayed(archived, [&] {
      ReplayOptions options = minute;
      options.archive.reset();
      return options;
    }());
    const auto of_key = replayed(archived, key);
    const auto everything = replayed(archived, {});
    archived.trim_archived(0);
    const std::uint64_t size = test::bytes_of(archived.place.segments().front()).size();
    const auto time_again = replayed(archived, minute);
    CHECK(time_again == of_time);
    CHECK(time_again.in_range == 1501);
    CHECK(time_again.bytes_read < size / 5);
    key.archive = archived.place.path();
    const auto key_again = replayed(archived, key);
    CHECK(key_again == of_key);
    CHECK(key_again.bytes_read < size / 5);
    // All of it is read ahead, and so is the damage in it.
    CHECK(replayed(archived, archived.both()) == everything);
    const auto path = archived.place.segments().front();
    std::string bytes = test::bytes_of(path);
    bytes[size / 2] = static_cast<char>(bytes[size / 2] ^ 1);
    test::put_bytes(path, bytes);
    const Lost lost = loss_of(archived, archived.both());
    check_contains(lost.message, path.string());
    CHECK(lost.before.size() > everything.lines.size() / 3);
    CHECK(everything.lines.starts_with(lost.before));
  }

  TEST_CASE("what is no archive of the topic is refused") {
    Archived archived;
    archived.append(0, 4);
    const auto said = [&](ErrorKind kind, ReplayOptions options) {
      return test::error_of(
          kind, [&] { (void)Replay(*archived.session, archived.data.topic(), std::move(options)); });
    };
    CHECK(said(ErrorKind::usage, archived.both()) ==
          archived.place.path() + " is not an archive: it has no directory TOPIC/PARTITION");
    archived.archive(0);
    archived.writers.clear();
    ReplayOptions nowhere;
    nowhere.archive = archived.place.path() + "/nowhere";
    check_contains(said(ErrorKind::usage, nowhere), "cannot open the archive");
    test::fs::create_directory_symlink(archived.place.partition(0), archived.place.partition(1));
    test::fs::rename(archived.place.partition(0).parent_path(), archived.place.path() + "/u");
    check_contains(said(ErrorKind::usage, archived.both()), "has no topic t");
    test::fs::rename(archived.place.path() + "/u", archived.place.partition(0).parent_path());
    CHECK(replayed(archived, archived.both()).in_range == 4);
    archived.data.topic().log_id = test::log_id;
    archived.data.command("HSET", archived.data.meta(0), "id", test::log_id);
    check_contains(said(ErrorKind::loss, archived.both()), "is the archive of log");
  }
}
