// What a disk, a crash or a person can do to an archive.
#include "archive_data.hpp"

#include "continuum/archive_format.hpp"
#include "continuum/little_endian.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <random>

using namespace continuum;
using namespace test;

namespace {

using Kind = ArchiveProblem::Kind;

// Four segments of several frames each.
LogInMemory log_of_segments() {
  LogInMemory log;
  for (int i = 0; i < 24; ++i) {
    log.events(i % 4 == 0 ? 3 : 200 + static_cast<std::uint32_t>(i));
  }
  return log;
}

void archive_in_segments(const ArchivePlace& place, const LogInMemory& log) {
  archive(place, log, 1, {.segment_bytes = 14'000});
  REQUIRE(place.segments().size() >= 3);
}

void flip(std::string& bytes, std::size_t at) {
  bytes.at(at) = static_cast<char>(bytes.at(at) ^ 1);
}

bool has_kind(const Verified& verified, Kind kind) {
  return std::ranges::any_of(verified.problems, [&](const auto& problem) { return problem.kind == kind; });
}

// The lines of `all` that are not among the events of a problem.
std::string without(const LogInMemory& log, const std::vector<ArchiveProblem>& problems) {
  std::string lines;
  for (std::uint64_t offset = 0; offset < log.next().value; ++offset) {
    const bool lost = std::ranges::any_of(problems, [&](const ArchiveProblem& problem) {
      return problem.from && problem.from->value <= offset && (!problem.to || offset < problem.to->value);
    });
    if (!lost) {
      lines += LogInMemory::line(offset) + "\n";
    }
  }
  return lines;
}

std::size_t events_in(const Verified& verified) {
  std::size_t events = 0;
  for (const auto& problem : verified.problems) {
    events += problem.from && problem.to ? *problem.to - *problem.from : 0;
  }
  return events;
}

}  // namespace

TEST_SUITE("archive damage") {
  TEST_CASE("a torn last frame of any length is cut, and archiving goes on before it") {
    LogInMemory log;
    log.events(40);
    log.events(3);
    ArchivePlace whole;
    archive(whole, log, 1);
    const std::string bytes = bytes_of(whole.segments().at(0));
    const std::size_t last_at = bytes.rfind(archive_magic);
    fs::remove(whole.indexes().at(0));  // only what is durable is in an index
    for (std::size_t length = last_at; length < bytes.size(); ++length) {
      put_bytes(whole.segments().at(0), std::string_view(bytes).substr(0, length));
      if (length > last_at) {
        const Verified verified = verify(whole);
        REQUIRE(verified.problems.size() == 1);
        CHECK(verified.problems[0].kind == Kind::tail);
        CHECK(verified.problems[0].from == Offset(40));
      }
      REQUIRE(read_back(whole).lines == log.lines(0, 40));
      {
        const auto writer = open_writer(whole);
        REQUIRE(writer->recovered().end->next == Offset(40));
        REQUIRE(writer->recovered().said.size() == (length > last_at ? 1 : 0));
        writer->append(log.entries().back());
        writer->sync();
      }
      REQUIRE(read_back(whole).lines == log.lines());
      REQUIRE(verify(whole).problems.empty());
      REQUIRE(bytes_of(whole.segments().at(0)) == bytes);
      fs::remove(whole.indexes().at(0));
    }
  }

  TEST_CASE("what a power cut makes of the last frames is cut: zeros, or a frame without the one before it") {
    LogInMemory log;
    for (int i = 0; i < 4; ++i) {
      log.events(40);
    }
    ArchivePlace place;
    archive(place, log, 1);
    const fs::path segment = place.segments().at(0);
    const std::string bytes = bytes_of(segment);
    const std::size_t last_at = bytes.rfind(archive_magic);
    fs::remove(place.indexes().at(0));
    SUBCASE("zeros to the end") {
      put_bytes(segment, bytes.substr(0, last_at) + std::string(bytes.size() - last_at, '\0'));
      CHECK(open_writer(place)->recovered().end->next == Offset(120));
    }
    SUBCASE("zeros in the data of the last frame") {
      put_bytes(segment, bytes.substr(0, bytes.size() - 50) + std::string(50, '\0'));
      CHECK(open_writer(place)->recovered().end->next == Offset(120));
    }
    SUBCASE("an empty file beside it") {
      put_bytes(place.partition() / PartitionDirectory::segment_name(Offset(160)), "");
      CHECK(open_writer(place)->recovered().end->next == Offset(160));
      CHECK(place.segments().size() == 1);
    }
    SUBCASE("a new segment of which nothing is whole") {
      put_bytes(place.partition() / PartitionDirectory::segment_name(Offset(160)), bytes.substr(last_at, 50));
      CHECK(open_writer(place)->recovered().end->next == Offset(160));
      CHECK(place.segments().size() == 1);
    }
    archive(place, log);
    CHECK(read_back(place).lines == log.lines());
    CHECK(verify(place).problems.empty());
  }

  TEST_CASE("what is not committed is cut at its first damage, however much is sound behind it") {
    LogInMemory log;
    for (int i = 0; i < 6; ++i) {
      log.events(40);
    }
    ArchivePlace place;
    archive(place, log, 1);
    const fs::path segment = place.segments().at(0);
    std::string bytes = bytes_of(segment);
    fs::remove(place.indexes().at(0));
    std::vector<std::size_t> frames;  // the first is the barrier
    for (std::size_t at = bytes.find(archive_magic); at != std::string::npos;
         at = bytes.find(archive_magic, at + 1)) {
      frames.push_back(at);
    }
    REQUIRE(frames.size() == 7);
    Offset end(160);
    SUBCASE("a frame of zeros") {
      std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(frames[5]),
                bytes.begin() + static_cast<std::ptrdiff_t>(frames[6]), '\0');
    }
    SUBCASE("a frame whose data are not there") {
      bytes[frames[6] - 1] = static_cast<char>(bytes[frames[6] - 1] ^ 1);
    }
    SUBCASE("the first events of the segment") {
      bytes[frames[1] + 30] = static_cast<char>(bytes[frames[1] + 30] ^ 1);
      end = Offset(0);
    }
    SUBCASE("all of the segment but its end") {
      std::fill(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(frames[6]), '\0');
      end = Offset(0);
    }
    put_bytes(segment, bytes);
    const auto writer = resume_writer(place, end.value);
    CHECK(writer->recovered().said.size() == 1);
    CHECK(writer->recovered().lost.empty());
    if (const auto& found = writer->recovered().end) {
      CHECK(found->next == end);
    } else {
      CHECK(end == Offset(0));
    }
    for (const auto& entry : log.entries()) {
      writer->append(entry);
    }
    writer->sync();
    CHECK(read_back(place, {.to = log.next()}).errors.empty());
    CHECK(read_back(place).lines == log.lines());
    CHECK(verify(place).problems.empty());
    std::string all;
    for (const auto& file : place.segments()) {
      all += bytes_of(file);
    }
    CHECK(all.size() < 2 * bytes.size());
  }

  TEST_CASE("what was committed and is damaged comes from the log again, and nothing is cut before that") {
    const LogInMemory log = log_of_segments();
    ArchivePlace place;
    archive(place, log, 1);
    const fs::path segment = place.segments().at(0);
    std::string bytes = bytes_of(segment);
    const Offset end = log.next();
    std::size_t at = 0;
    SUBCASE("within") {
      at = bytes.size() / 2;
    }
    SUBCASE("the last frame") {
      at = bytes.rfind(archive_magic) + 30;
    }
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    put_bytes(segment, bytes);
    const Verified before = verify(place);
    REQUIRE(before.problems.size() == 1);
    const Offset damaged = *before.problems[0].from;
    {
      const auto writer = resume_writer(place, end.value);
      REQUIRE(writer->recovered().said.size() == 1);
      CHECK(writer->recovered().said[0].find("archived again") != std::string::npos);
      CHECK(writer->recovered().end->next == damaged);
      CHECK(bytes_of(segment) == bytes);
      for (const auto& entry : log.entries()) {
        CHECK(bytes_of(segment) == bytes);
        if (writer->append(entry) == ArchiveWriter::Taken::appended) {
          writer->sync();
        }
      }
    }
    CHECK(bytes_of(segment).size() < bytes.size());
    CHECK(verify(place).problems.empty());
    CHECK(read_back(place, {.to = end}).lines == log.lines());
    CHECK(resume_writer(place, end.value)->recovered().said.empty());
  }

  TEST_CASE("what is damaged and not in the log any more stays, is said, and does not hinder what comes") {
    LogInMemory log = log_of_segments();
    ArchivePlace place;
    archive(place, log, 1);
    const fs::path segment = place.segments().at(0);
    std::string bytes = bytes_of(segment);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    put_bytes(segment, bytes);
    const auto before = verify(place).problems;
    REQUIRE(before.size() == 1);
    const std::uint64_t committed = log.next().value;
    const auto writer = resume_writer(place, committed, committed);
    REQUIRE(writer->recovered().lost.size() == 1);
    CHECK(writer->recovered().lost[0].find(range_text(*before[0].from, before[0].to)) != std::string::npos);
    CHECK(writer->recovered().lost[0].find("does not have that any more") != std::string::npos);
    CHECK(writer->recovered().end->next == log.next());
    log.events(10);
    writer->append(log.entries().back());
    writer->sync();
    CHECK(bytes_of(segment).starts_with(bytes));
    CHECK(read_back(place).lines == without(log, before));
  }

  TEST_CASE("an end that was committed and is in no log is not cut: the worker does not go on") {
    LogInMemory log = log_of_segments();
    ArchivePlace place;
    archive(place, log, 1);
    const fs::path segment = place.segments().at(0);
    std::string bytes = bytes_of(segment);
    flip(bytes, bytes.rfind(archive_magic) + 30);
    put_bytes(segment, bytes);
    SUBCASE("its index has it") {}
    SUBCASE("only the group's cursor says so") {
      fs::remove(place.indexes().at(0));
    }
    const std::uint64_t committed = log.next().value;
    const std::string why =
        error_of(ErrorKind::loss, [&] { (void)resume_writer(place, committed, committed); });
    CHECK(why.find("Put a copy of the file in its place") == std::string::npos);
    CHECK(why.find("put a copy of the file in its place") != std::string::npos);
    CHECK(bytes_of(segment) == bytes);
  }

  TEST_CASE("the beginning of a segment that was committed is not replaced before it has come again") {
    const LogInMemory log = log_of_segments();
    ArchivePlace place;
    archive(place, log, 1);
    const fs::path segment = place.segments().at(0);
    std::string bytes = bytes_of(segment);
    flip(bytes, bytes.find(archive_magic, 1) + 30);  // behind the barrier
    put_bytes(segment, bytes);
    {
      const auto writer = resume_writer(place, log.next().value);
      REQUIRE(writer->recovered().lost.size() == 1);
      CHECK(writer->recovered().lost[0].find("move it away") != std::string::npos);
      CHECK(writer->recovered().end->next == log.next());
      CHECK(bytes_of(segment) == bytes);
    }
    // As it says.
    fs::rename(segment, place.path() + "/aside");
    archive(place, log);
    CHECK(read_back(place).lines == log.lines());
    CHECK(verify(place).problems.empty());
  }

  TEST_CASE("repair cuts no events that are readable, and none that were durable") {
    const LogInMemory log = log_of_segments();
    ArchivePlace place;
    archive_in_segments(place, log);
    const auto segments = place.segments();
    fs::path segment = segments.at(1);
    SUBCASE("in the last frame of a segment that is not the last") {}
    SUBCASE("in the last frame of all, which is in the index") {
      segment = segments.back();
    }
    std::string bytes = bytes_of(segment);
    flip(bytes, bytes.rfind(archive_magic) + 30);
    put_bytes(segment, bytes);
    const auto before = verify(place).problems;
    REQUIRE(before.size() == 1);
    CHECK(before[0].kind == Kind::damaged);
    (void)repair_archive(place.path(), {}, RepairMode::act);
    CHECK(bytes_of(segment) == bytes);
    CHECK(read_back(place).lines == without(log, before));
  }

  TEST_CASE("repair cuts what the next segment has, but not the damaged frame before it") {
    LogInMemory log;
    for (int i = 0; i < 6; ++i) {
      log.events(100);
    }
    ArchivePlace place;
    archive(place, log, 1);
    std::string bytes = bytes_of(place.segments().at(0));
    std::vector<std::size_t> frames;
    for (std::size_t at = bytes.find(archive_magic); at != std::string::npos;
         at = bytes.find(archive_magic, at + 1)) {
      frames.push_back(at);
    }
    put_bytes(place.partition() / PartitionDirectory::segment_name(Offset(200)), bytes.substr(frames[3]));
    flip(bytes, frames[2] + 30);
    put_bytes(place.segments().at(0), bytes);
    (void)repair_archive(place.path(), {}, RepairMode::act);
    CHECK(bytes_of(place.segments().at(0)) == bytes.substr(0, frames[3]));
  }

  TEST_CASE("beside a writer a torn end is nothing, but damage to what was durable is told") {
    const LogInMemory log = log_of_segments();
    ArchivePlace place;
    archive(place, log, 1);
    const auto writer = open_writer(place);
    const fs::path segment = place.segments().at(0);
    const std::string good = bytes_of(segment);
    put_bytes(segment, good + good.substr(good.rfind(archive_magic), 40));
    CHECK(verify(place).problems.empty());
    std::string bytes = good;
    SUBCASE("flipped") {
      flip(bytes, bytes.rfind(archive_magic) + 30);
    }
    SUBCASE("cut off") {
      bytes.resize(bytes.size() - 7);
    }
    put_bytes(segment, bytes);
    const auto problems = verify(place).problems;
    REQUIRE(problems.size() == 1);
    CHECK(problems[0].kind == Kind::damaged);
  }

  TEST_CASE("a segment that ends before its index is damaged, and repair says what goes with the index") {
    LogInMemory log;
    log.events(40);
    log.events(30);
    ArchivePlace place;
    archive(place, log, 1);
    const fs::path segment = place.segments().at(0);
    const std::string bytes = bytes_of(segment);
    const std::size_t last = bytes.rfind(archive_magic);
    const std::string what = "offsets 40 to 69 are lost: only it has records of them";
    bool followed = false;
    SUBCASE("within a frame") {
      put_bytes(segment, bytes.substr(0, bytes.size() - 7));
    }
    SUBCASE("between frames") {
      put_bytes(segment, bytes.substr(0, last));
    }
    SUBCASE("between frames, and there is another one behind it") {
      put_bytes(segment, bytes.substr(0, last));
      const fs::path next = place.partition() / PartitionDirectory::segment_name(Offset(70));
      put_bytes(next, "");
      followed = true;
    }
    const auto problems = verify(place).problems;
    REQUIRE(problems.size() == 1);
    CHECK(problems[0].kind == Kind::damaged);
    CHECK(problems[0].path == segment);
    CHECK(problems[0].from == Offset(40));
    CHECK(problems[0].to == Offset(70));
    CHECK(problems[0].what.find("up to offset 70: it was cut off, or copied") != std::string::npos);
    for (const auto mode : {RepairMode::dry_run, RepairMode::act}) {
      const auto repaired = repair_archive(place.path(), {}, mode);
      const auto index =
          std::ranges::find_if(repaired, [](const auto& one) { return one.path.ends_with("00000.index"); });
      REQUIRE(index != repaired.end());
      CHECK(index->what.find(what) != std::string::npos);
    }
    CHECK(verify(place).problems.size() == (followed ? 1 : 0));
    CHECK(read_back(place).lines == log.lines(0, 40));
  }

  TEST_CASE("a writer that begins while an archive is verified is no damage") {
    const LogInMemory log = log_of_segments();
    ArchivePlace place;
    archive_in_segments(place, log);
    const fs::path segment = place.segments().back();
    const std::string good = bytes_of(segment);
    std::unique_ptr<ArchiveWriter> writer;
    ArchiveCheckOptions options;
    std::size_t problems = 0;
    options.on_problem = [&](const ArchiveProblem&) { ++problems; };
    options.on_progress = [&](std::uint64_t) {
      if (!writer) {
        writer = open_writer(place);
        // As it writes.
        put_bytes(segment, good + good.substr(good.rfind(archive_magic), 40));
      }
    };
    (void)verify_archive(place.path(), options);
    CHECK(writer);
    CHECK(problems == 0);
  }

  TEST_CASE("a flipped bit anywhere is found, with its range, and nothing else is lost") {
    const LogInMemory log = log_of_segments();
    ArchivePlace place;
    archive_in_segments(place, log);
    std::mt19937 random(5);
    for (int round = 0; round < 200; ++round) {
      CAPTURE(round);
      const auto segments = place.segments();
      const fs::path segment = segments[random() % segments.size()];
      const std::string bytes = bytes_of(segment);
      std::string flipped = bytes;
      const std::size_t at = random() % bytes.size();
      CAPTURE(segment.string());
      CAPTURE(at);
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << (random() % 8)));
      put_bytes(segment, flipped);
      const Verified verified = verify(place);
      REQUIRE(!verified.problems.empty());
      CHECK(std::ranges::all_of(verified.problems,
                                [&](const auto& p) { return p.path == segment || !p.from; }));
      // At most the frame that was hit.
      const bool open_ended =
          std::ranges::any_of(verified.problems, [](const auto& p) { return p.from && !p.to; });
      CHECK(events_in(verified) < 230);
      CHECK((!open_ended || segment == segments.back()));
      const ReadBack back = read_back(place);
      REQUIRE(back.lines == without(log, verified.problems));
      // The end of an archive may just be being written: a reader is told where it must end.
      const ReadBack told = read_back(place, {.to = log.next()});
      const bool lost = std::ranges::any_of(
          verified.problems, [](const auto& p) { return p.from && (!p.to || *p.to != *p.from); });
      CHECK((!lost || !told.errors.empty()));
      put_bytes(segment, bytes);
    }
    CHECK(verify(place).problems.empty());
  }

  TEST_CASE("bytes that were taken out, put in or overwritten cost the frames that they hit") {
    const LogInMemory log = log_of_segments();
    ArchivePlace place;
    archive_in_segments(place, log);
    const fs::path segment = place.segments().at(1);
    std::string bytes = bytes_of(segment);
    const std::size_t middle = bytes.size() / 2;
    bool one_frame = false;
    SUBCASE("a few taken out") {
      bytes.erase(middle / 2, 10);
      one_frame = true;
    }
    SUBCASE("a few put in") {
      bytes.insert(middle / 2, "0123456789");
      one_frame = true;
    }
    SUBCASE("taken out") {
      bytes.erase(middle, 4096);
    }
    SUBCASE("put in") {
      bytes.insert(middle, std::string(4096, 'x'));
    }
    SUBCASE("overwritten") {
      bytes.replace(middle, 4096, std::string(4096, '\0'));
    }
    SUBCASE("cut off") {
      bytes.resize(middle);
    }
    put_bytes(segment, bytes);
    const Verified verified = verify(place);
    REQUIRE(!verified.problems.empty());
    const ReadBack back = read_back(place);
    CHECK(!back.errors.empty());
    CHECK(back.lines == without(log, verified.problems));
    CHECK(events_in(verified) > 0);
    const auto hit = std::ranges::find(log.entries(), *verified.problems[0].from, &Entry::first);
    CHECK((!one_frame || events_in(verified) == hit->events));
  }

  TEST_CASE("damage outside of a range does not hinder it") {
    const LogInMemory log = log_of_segments();
    ArchivePlace place;
    archive_in_segments(place, log);
    const fs::path segment = place.segments().at(0);
    std::string bytes = bytes_of(segment);
    const std::size_t second = bytes.find(archive_magic, bytes.find(archive_magic, 1) + 1);
    bytes[second + 20] = static_cast<char>(bytes[second + 20] ^ 1);
    put_bytes(segment, bytes);
    for (const bool indexed : {true, false}) {
      if (!indexed) {
        fs::remove(place.indexes().at(0));
      }
      CHECK(read_back(place, {.to = log.next()}).errors.size() == 1);
      CHECK(read_back(place, {.from = Offset(700), .to = log.next()}).errors.empty());
      CHECK(read_back(place, {.from = Offset(0), .to = Offset(3)}).errors.empty());
      CHECK(read_back(place, {.since = log.entries()[8].time()}).errors.empty());
    }
  }

  TEST_CASE("an index that lies is found out, and made anew") {
    const LogInMemory log = log_of_segments();
    ArchivePlace place;
    archive_in_segments(place, log);
    const fs::path index = place.indexes().at(1);
    const std::string good = bytes_of(index);
    bool reported = true;
    SUBCASE("of another segment") {
      put_bytes(index, bytes_of(place.indexes().at(2)));
    }
    SUBCASE("a flipped bit") {
      std::string bytes = good;
      bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
      put_bytes(index, bytes);
    }
    SUBCASE("with bytes behind it") {
      put_bytes(index, good + "more");
    }
    SUBCASE("empty") {
      put_bytes(index, "");
      reported = false;  // it says too little, but nothing wrong
    }
    SUBCASE("with right checksums and wrong positions") {
      std::string bytes = good.substr(0, 88);
      std::string_view rest = std::string_view(good).substr(88);
      for (;;) {
        const std::size_t size = number_at<std::uint32_t>(rest);
        if (size == rest.size()) {
          break;  // the last one is compared when the index is opened
        }
        std::string record(rest.substr(0, size - 8));
        record[20] = static_cast<char>(record[20] ^ 1);  // of the header's hash
        rest.remove_prefix(size);
        put_number(record, archive_hash(record));
        bytes += record;
      }
      bytes += rest;
      REQUIRE(bytes != good);
      put_bytes(index, bytes);
    }
    SUBCASE("a symbolic link") {
      fs::remove(index);
      fs::create_symlink("/etc/passwd", index);
    }
    CHECK(has_kind(verify(place), Kind::index) == reported);
    for (const Offset from : {Offset(0), Offset(900), Offset(1500), Offset(2500)}) {
      const ReadBack back = read_back(place, {.from = from, .to = log.next()});
      CHECK(back.errors.empty());
      CHECK(back.lines == log.lines(back.firsts.at(0).value));
      CHECK(back.firsts.at(0) <= from);
    }
    CHECK(!repair_archive(place.path(), {}, RepairMode::dry_run).empty());
    const auto repaired = repair_archive(place.path(), {}, RepairMode::act);
    REQUIRE(repaired.size() == 1);
    CHECK(repaired[0].what.starts_with("made anew"));
    CHECK(bytes_of(index) == good);
    CHECK(verify(place).problems.empty());
    CHECK(repair_archive(place.path(), {}, RepairMode::act).empty());
  }

  TEST_CASE("missing indexes are made anew exactly as they were written") {
    const LogInMemory log = log_of_segments();
    ArchivePlace place;
    archive_in_segments(place, log);
    std::vector<std::string> good;
    for (const auto& index : place.indexes()) {
      good.push_back(bytes_of(index));
      fs::remove(index);
    }
    CHECK(verify(place).problems.empty());
    CHECK(repair_archive(place.path(), {}, RepairMode::act).size() == good.size());
    for (std::size_t i = 0; i < good.size(); ++i) {
      CHECK(bytes_of(place.indexes().at(i)) == good[i]);
    }
  }

  TEST_CASE("a segment that is gone, renamed or of another archive is said") {
    const LogInMemory log = log_of_segments();
    ArchivePlace place;
    archive_in_segments(place, log);
    const auto segments = place.segments();
    const auto offset_of = [](const fs::path& path) { return Offset(std::stoull(path.filename().string())); };
    const Offset from = offset_of(segments.at(1));
    const Offset to = offset_of(segments.at(2));
    Kind expected = Kind::hole;
    SUBCASE("gone") {
      fs::remove(segments.at(1));
    }
    SUBCASE("named for something else") {
      fs::rename(segments.at(1), place.partition() / "copy.zst");
      expected = Kind::foreign;
    }
    SUBCASE("renamed") {
      fs::rename(segments.at(1), place.partition() / PartitionDirectory::segment_name(from + 1));
      expected = Kind::foreign;
    }
    SUBCASE("a copy of the one before it") {
      fs::copy_file(segments.at(0), segments.at(1), fs::copy_options::overwrite_existing);
      expected = Kind::foreign;
    }
    SUBCASE("of another archive of the same log") {
      ArchivePlace other;
      archive_in_segments(other, log);
      fs::copy_file(other.segments().at(1), segments.at(1), fs::copy_options::overwrite_existing);
      expected = Kind::foreign;
    }
    SUBCASE("a symbolic link") {
      fs::rename(segments.at(1), place.partition() / "elsewhere");
      fs::create_symlink("elsewhere", segments.at(1));
      expected = Kind::foreign;
    }
    SUBCASE("a directory") {
      fs::remove(segments.at(1));
      fs::create_directory(segments.at(1));
      expected = Kind::foreign;
    }
    SUBCASE("a pipe") {
      fs::remove(segments.at(1));
      REQUIRE(mkfifo(segments.at(1).c_str(), 0600) == 0);
      expected = Kind::foreign;
    }
    const Verified verified = verify(place);
    CHECK(has_kind(verified, expected));
    CHECK(std::ranges::any_of(verified.problems, [&](const auto& p) { return p.to == to; }));
    const ReadBack back = read_back(place);
    CHECK(!back.errors.empty());
    CHECK(back.lines == log.lines(0, from.value) + log.lines(to.value));
  }

  TEST_CASE("what was left of a segment by a failed write is not read twice") {
    LogInMemory log;
    for (int i = 0; i < 6; ++i) {
      log.events(100);
    }
    ArchivePlace place;
    archive(place, log, 1);
    // The same events again in a segment of their own, as after an fsync that failed and a cut that failed
    // too.
    const std::string bytes = bytes_of(place.segments().at(0));
    std::size_t third = 0;
    for (int i = 0; i < 3; ++i) {
      third = bytes.find(archive_magic, third + 1);
    }
    put_bytes(place.partition() / PartitionDirectory::segment_name(Offset(200)), bytes.substr(third));
    const ReadBack back = read_back(place, {.to = log.next()});
    CHECK(back.errors.empty());
    CHECK(back.lines == log.lines());
    CHECK(back.ids.size() == log.entries().size());
    CHECK(has_kind(verify(place), Kind::tail));
    REQUIRE(repair_archive(place.path(), {}, RepairMode::act).size() >= 1);
    CHECK(bytes_of(place.segments().at(0)) == bytes.substr(0, third));
    (void)repair_archive(place.path(), {}, RepairMode::act);
    CHECK(verify(place).problems.empty());
    CHECK(read_back(place).lines == log.lines());
  }

  TEST_CASE("a directory that is no archive, or another one's, is refused") {
    ArchivePlace place;
    const auto list = [&] { (void)list_archive(place.path(), {}); };
    CHECK(error_of(ErrorKind::usage, list).find("is not an archive") != std::string::npos);
    fs::create_directories(fs::path(place.path()) / "lost+found" / "0");
    fs::create_directories(fs::path(place.path()) / "photos" / "2024x");
    put_bytes(fs::path(place.path()) / "notes", "text");
    CHECK(error_of(ErrorKind::usage, list).find("is not an archive") != std::string::npos);

    LogInMemory log;
    log.events(5);
    archive(place, log);
    SUBCASE("renamed topic") {
      fs::rename(fs::path(place.path()) / "t", fs::path(place.path()) / "u");
      fs::create_directory(fs::path(place.path()) / "t");
      fs::rename(place.partition(0, "u"), place.partition());
      fs::rename(place.partition(), place.partition(1));
      CHECK(error_of(ErrorKind::loss, [&] {
              const ArchiveWriter writer(place.path(), "t", Partition(1), log_id, {}, {});
            }).find("it was moved or renamed") != std::string::npos);
      CHECK(has_kind(verify(place), Kind::identity));
    }
    SUBCASE("another log's") {
      const ArchiveDirectory directory(place.path());
      CHECK(error_of(ErrorKind::loss, [&] {
              const ArchiveReader reader(directory, "t", Partition(0), std::string(32, 'b'), {});
            }).find("it is another topic's") != std::string::npos);
    }
    SUBCASE("symbolic links in the way") {
      fs::rename(place.partition(), place.path() + "/elsewhere");
      fs::create_symlink(place.path() + "/elsewhere", place.partition());
      CHECK(error_of(ErrorKind::usage, [&] { open_writer(place); }).find("symbolic link") !=
            std::string::npos);
      const ArchiveDirectory directory(place.path());
      CHECK(error_of(ErrorKind::usage, [&] {
              const ArchiveReader reader(directory, "t", Partition(0), log_id, {});
            }).find("symbolic link") != std::string::npos);
    }
    SUBCASE("its identity is gone") {
      fs::remove(place.partition() / "archive");
      CHECK(error_of(ErrorKind::loss, [&] { open_writer(place); }).find("archive repair") !=
            std::string::npos);
      CHECK(has_kind(verify(place), Kind::identity));
      CHECK(read_back(place).lines == log.lines());
      CHECK(repair_archive(place.path(), {}, RepairMode::act).size() == 1);
      CHECK(verify(place).problems.empty());
      CHECK(open_writer(place)->recovered().end->next == Offset(5));
    }
    SUBCASE("its identity is damaged") {
      put_bytes(place.partition() / "archive", "continuum archive 1\n");
      CHECK(error_of(ErrorKind::loss, [&] { open_writer(place); }).find("is damaged") != std::string::npos);
      CHECK(has_kind(verify(place), Kind::identity));
    }
  }

  TEST_CASE("magic numbers without end are passed over without a look at what they claim to begin") {
    LogInMemory log;
    log.events(40);
    ArchivePlace place;
    archive(place, log);
    const fs::path segment = place.segments().at(0);
    const std::string good = bytes_of(segment);
    std::string hostile;
    while (hostile.size() < (8 << 20)) {
      hostile += std::string_view("\x5C\x2A\x4D\x18\xF0\xFF\x3F\x00", 8);
    }
    put_bytes(segment, good + hostile);
    const auto before = std::chrono::steady_clock::now();
    CHECK(verify(place).problems.size() == 1);
    CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(20));
  }

  TEST_CASE("the size of an index file is not believed") {
    LogInMemory log;
    log.events(40);
    ArchivePlace place;
    archive(place, log);
    fs::resize_file(place.indexes().at(0), std::uintmax_t{1} << 29);
    const ReadBack back = read_back(place, {.since = SystemTime()});
    CHECK(back.bytes_read < (8 << 20));
    CHECK(has_kind(verify(place), Kind::index));
    CHECK(back.lines == log.lines());
  }

  TEST_CASE("what is no partition beside an archive does not hinder, and in its place it is said") {
    LogInMemory log;
    log.events(5);
    ArchivePlace place;
    archive(place, log);
    const fs::path top = place.path();
    fs::create_directories(top / "backup");
    put_bytes(top / "backup" / "5", "text");
    fs::create_directories(top / "photos" / "7");
    fs::create_directories(top / "t" / "3");
    CHECK(verify(place).problems.empty());
    CHECK(verify(place).totals.partitions == 1);
    CHECK(list_archive(place.path(), {}).size() == 1);
    CHECK(ArchiveDirectory(place.path()).topics() == std::vector<std::string>{"t"});

    fs::create_directory_symlink(top / "photos" / "7", top / "t" / "1");
    put_bytes(top / "t" / "2", "text");
    const Verified verified = verify(place);
    CHECK(verified.totals.events == 5);
    REQUIRE(verified.problems.size() == 2);
    CHECK(verified.problems[0].kind == Kind::foreign);
    CHECK(verified.problems[0].partition == Partition(1));
    CHECK(verified.problems[0].path == (top / "t" / "1").string());
    CHECK(verified.problems[1].partition == Partition(2));
  }

  TEST_CASE("a partition that is not there is an error, not nothing") {
    LogInMemory log;
    log.events(5);
    ArchivePlace place;
    archive(place, log);
    ArchiveCheckOptions options;
    options.partitions = {Partition(0), Partition(99)};
    CHECK(error_of(ErrorKind::usage, [&] {
            (void)verify_archive(place.path(), options);
          }).find("has no partition 99") != std::string::npos);
    CHECK(error_of(ErrorKind::usage, [&] {
            (void)list_archive(place.path(), options);
          }).find("has no partition 99") != std::string::npos);
    CHECK(error_of(ErrorKind::usage, [&] {
            (void)repair_archive(place.path(), options, RepairMode::dry_run);
          }).find("has no partition 99") != std::string::npos);
  }

  TEST_CASE("a barrier that is lost is noticed") {
    LogInMemory log;
    log.events(10);
    log.barrier(2);
    log.events(10);
    ArchivePlace place;
    archive(place, log, 1);
    const fs::path segment = place.segments().at(0);
    std::string bytes = bytes_of(segment);
    const std::size_t last = bytes.rfind(archive_magic);
    const std::size_t barrier = bytes.rfind(archive_magic, last - 1);
    SUBCASE("damaged") {
      bytes[barrier + 30] = static_cast<char>(bytes[barrier + 30] ^ 1);
    }
    SUBCASE("taken out") {
      bytes.erase(barrier, last - barrier);
    }
    put_bytes(segment, bytes);
    CHECK(has_kind(verify(place), Kind::damaged));
    CHECK(read_back(place).lines == log.lines());
  }
}
