// Archives on disk, and entries as a log has them, for tests.
#pragma once

#include "continuum/archive_check.hpp"
#include "continuum/archive_reader.hpp"
#include "continuum/archive_topic.hpp"
#include "continuum/archive_writer.hpp"
#include "continuum/error.hpp"
#include "continuum/frame.hpp"
#include "continuum/log.hpp"

#include <doctest/doctest.h>

#include <stdlib.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace test {

namespace fs = std::filesystem;

inline const std::string log_id = "0123456789abcdef0123456789abcdef";

class ArchivePlace {
 public:
  ArchivePlace() {
    std::string name = (fs::temp_directory_path() / "archive-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~ArchivePlace() { fs::remove_all(path_); }
  ArchivePlace(const ArchivePlace&) = delete;
  ArchivePlace& operator=(const ArchivePlace&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] fs::path partition(std::uint32_t number = 0, const std::string& topic = "t") const {
    return fs::path(path_) / topic / std::to_string(number);
  }
  // Ascending.
  [[nodiscard]] std::vector<fs::path> files(const std::string& suffix) const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(partition())) {
      if (entry.path().string().ends_with(suffix)) {
        found.push_back(entry.path());
      }
    }
    std::sort(found.begin(), found.end());
    return found;
  }
  [[nodiscard]] std::vector<fs::path> segments() const { return files(".ndjson.zst"); }
  [[nodiscard]] std::vector<fs::path> indexes() const { return files(".index"); }

 private:
  std::string path_;
};

inline std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void put_bytes(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// A log in memory: what a writer is given.
class LogInMemory {
 public:
  explicit LogInMemory(std::uint64_t first = 0) : next_(first) { barrier(1); }

  continuum::Entry& barrier(std::uint32_t generation) {
    generation_ = generation;
    continuum::Entry& entry = add();
    entry.barrier = continuum::Generation(generation);
    return entry;
  }

  // An entry of so many events, compressed as a publisher does it.
  continuum::Entry& events(std::uint32_t count, std::uint64_t later_ms = 1,
                           continuum::Frames frames = continuum::Frames::automatic) {
    std::string lines;
    for (std::uint32_t i = 0; i < count; ++i) {
      lines += line(next_.value + i) + "\n";
    }
    time_ms_ += later_ms;
    lines_.push_back(lines);
    const auto encoded = encoder_->encode(lines_.back(), count, frames);
    frames_.emplace_back(encoded.bytes);
    continuum::Entry& entry = add();
    entry.events = count;
    entry.encoding = encoded.encoding;
    entry.frame = frames_.back();
    next_ = entry.next();
    return entry;
  }

  static std::string key(std::uint64_t offset) { return "thread-" + std::to_string(offset % 97); }
  static std::string line(std::uint64_t offset) {
    return fmt::format(
        R"({{"specversion":"1.0","id":"p:{}","source":"/t","type":"post.created","time":"2024-05-01T12:00:00.000Z","partitionkey":"{}","data":{{"n":{},"words":"{:x} {:x}"}}}})",
        offset, key(offset), offset, offset * 2654435761U, offset * 40503U);
  }

  [[nodiscard]] const std::deque<continuum::Entry>& entries() const { return entries_; }
  [[nodiscard]] continuum::Offset next() const { return next_; }
  // Of all entries from the given one on.
  [[nodiscard]] std::string lines(std::uint64_t from = 0,
                                  std::optional<std::uint64_t> to = std::nullopt) const {
    std::string all;
    for (std::uint64_t offset = from; offset < to.value_or(next_.value); ++offset) {
      all += line(offset) + "\n";
    }
    return all;
  }

 private:
  continuum::Entry& add() {
    continuum::Entry entry;
    id_ = id_.milliseconds == time_ms_ ? continuum::EntryId{time_ms_, id_.sequence + 1}
                                       : continuum::EntryId{time_ms_, 0};
    entry.id = id_;
    entry.first = next_;
    entry.generation = continuum::Generation(generation_);
    entries_.push_back(entry);
    return entries_.back();
  }

  std::unique_ptr<continuum::FrameEncoder> encoder_ = std::make_unique<continuum::FrameEncoder>();
  std::deque<std::string> lines_;
  std::deque<std::string> frames_;
  std::deque<continuum::Entry> entries_;
  continuum::Offset next_;
  std::uint32_t generation_ = 1;
  std::uint64_t time_ms_ = 1'700'000'000'000;
  continuum::EntryId id_;
};

inline void put_topic(const ArchivePlace& place, const std::string& id = log_id) {
  continuum::Topic topic;
  topic.name = "t";
  topic.log_id = id;
  topic.active = continuum::Generation(1);
  topic.rings.emplace(topic.active, continuum::RingDescription::uniform(1));
  continuum::write_archived_topic(continuum::ArchiveDirectory(place.path()), topic);
}

inline std::unique_ptr<continuum::ArchiveWriter> open_writer(
    const ArchivePlace& place, continuum::ArchiveOptions options = {}, const std::string& id = log_id,
    continuum::ArchiveResume resume = {continuum::Offset(0), continuum::Offset(0)}) {
  auto writer = std::make_unique<continuum::ArchiveWriter>(place.path(), "t", continuum::Partition(0), id,
                                                           resume, options);
  put_topic(place, id);
  return writer;
}

// As a worker does it whose group had come to `committed`, and whose log begins at `log_first`.
inline std::unique_ptr<continuum::ArchiveWriter> resume_writer(const ArchivePlace& place,
                                                               std::uint64_t committed,
                                                               std::uint64_t log_first = 0) {
  return open_writer(place, {}, log_id, {continuum::Offset(committed), continuum::Offset(log_first)});
}

// Appends all of it that is not there yet, with a sync after every `sync_every` entries.
inline void archive(const ArchivePlace& place, const LogInMemory& log, std::size_t sync_every = 5,
                    continuum::ArchiveOptions options = {}) {
  const auto writer = open_writer(place, options);
  std::size_t count = 0;
  for (const auto& entry : log.entries()) {
    writer->append(entry);
    if (++count % sync_every == 0) {
      writer->sync();
    }
  }
  writer->sync();
}

struct ReadBack {
  std::string lines;
  std::vector<continuum::Offset> barriers;
  std::vector<continuum::EntryId> ids;
  std::vector<std::string> errors;
  std::vector<continuum::Offset> firsts;
  std::uint64_t bytes_read = 0;
};

inline ReadBack read_back(const ArchivePlace& place, continuum::ArchiveChoice choice = {}) {
  using namespace continuum;
  ReadBack back;
  const ArchiveDirectory directory(place.path());
  ArchiveReader reader(directory, "t", Partition(0), log_id, std::move(choice));
  for (;;) {
    try {
      const auto entry = reader.next();
      if (!entry) {
        break;
      }
      back.ids.push_back(entry->id);
      if (entry->barrier()) {
        back.barriers.push_back(entry->first);
      } else {
        back.firsts.push_back(entry->first);
        back.lines += entry->lines;
      }
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::loss);
      back.errors.push_back(error.message());
    }
  }
  back.bytes_read = reader.bytes_read();
  return back;
}

struct Verified {
  continuum::ArchiveTotals totals;
  std::vector<continuum::ArchiveProblem> problems;
};

inline Verified verify(const ArchivePlace& place) {
  Verified result;
  continuum::ArchiveCheckOptions options;
  options.on_problem = [&](const continuum::ArchiveProblem& problem) { result.problems.push_back(problem); };
  result.totals = continuum::verify_archive(place.path(), options);
  return result;
}

// The message of the Error that `run` throws, or "nothing".
template <class Run>
std::string error_of(continuum::ErrorKind kind, const Run& run) {
  try {
    run();
  } catch (const continuum::Error& error) {
    CHECK(error.kind() == kind);
    return error.message();
  }
  return "nothing";
}

}  // namespace test
