#include "continuum/archive_check.hpp"

#include "continuum/archive_index.hpp"
#include "continuum/archive_reader.hpp"
#include "continuum/archive_segment.hpp"
#include "continuum/error.hpp"
#include "continuum/frame.hpp"
#include "continuum/names.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace continuum {

namespace {

constexpr std::size_t header_window_bytes = 4096;
constexpr std::size_t stream_bytes = 1 << 20;

using Kind = ArchiveProblem::Kind;

std::uint64_t bytes_of(const PartitionDirectory& directory, const std::string& name) {
  struct stat found {};
  return lstat(directory.path_of(name).c_str(), &found) == 0 && S_ISREG(found.st_mode)
             ? static_cast<std::uint64_t>(found.st_size)
             : 0;
}

// Calls `visit(directory)` for each partition that was asked for.
template <class Visit>
void for_each_partition(const std::string& path, const ArchiveCheckOptions& options, const Visit& visit) {
  const ArchiveDirectory archive(path);
  const auto topics = archive.topics();
  if (topics.empty()) {
    fail(ErrorKind::usage, "{} is not an archive: it has no directory TOPIC/PARTITION", printable(path));
  }
  for (const auto& topic : options.topics) {
    if (std::ranges::find(topics, topic) == topics.end()) {
      fail(ErrorKind::usage, "{} has no topic {}{}", printable(path), topic, hint_of(topic, topics));
    }
  }
  for (const auto& topic : topics) {
    if (!options.topics.empty() && std::ranges::find(options.topics, topic) == options.topics.end()) {
      continue;
    }
    for (const Partition partition : archive.partitions(topic)) {
      if (options.partitions.empty() ||
          std::ranges::find(options.partitions, partition) != options.partitions.end()) {
        visit(archive, topic, partition);
      }
    }
  }
}

// --- verify

class Verifier {
 public:
  Verifier(const ArchiveDirectory& archive, const std::string& topic, Partition partition,
           const ArchiveCheckOptions& options, ArchiveTotals& totals)
      : directory_(archive, topic, partition), options_(options), totals_(totals) {}

  void run() {
    ++totals_.partitions;
    if (!find_out_identity()) {
      return;
    }
    const auto contents = directory_.contents();
    for (const auto& name : contents.foreign) {
      tell(Kind::foreign, name, "it is no file of an archive: move it away");
    }
    for (const Offset first : contents.indexes) {
      if (!std::ranges::binary_search(contents.segments, first)) {
        tell(Kind::index, PartitionDirectory::index_name(first), "it is the index of no segment");
      }
    }
    for (std::size_t i = 0; i < contents.segments.size(); ++i) {
      const bool last = i + 1 == contents.segments.size();
      try {
        verify_segment(contents.segments[i], last ? std::nullopt : std::optional(contents.segments[i + 1]));
      } catch (const Error& error) {
        ArchiveProblem problem = about(Kind::foreign, PartitionDirectory::segment_name(contents.segments[i]));
        problem.from = contents.segments[i];
        problem.to = last ? std::nullopt : std::optional(contents.segments[i + 1]);
        problem.what = error.message();
        report(std::move(problem));
        expected_ = problem.to;
      }
    }
  }

 private:
  [[nodiscard]] ArchiveProblem about(Kind kind, std::string_view name) const {
    ArchiveProblem problem;
    problem.kind = kind;
    problem.topic = directory_.topic();
    problem.partition = directory_.partition();
    problem.path = directory_.path_of(name);
    return problem;
  }
  void tell(Kind kind, std::string_view name, std::string what) const {
    ArchiveProblem problem = about(kind, name);
    problem.what = std::move(what);
    report(std::move(problem));
  }
  void report(ArchiveProblem problem) const {
    if (options_.on_problem) {
      options_.on_problem(problem);
    }
  }
  void progress(std::uint64_t bytes) {
    totals_.bytes += bytes;
    if (options_.on_progress) {
      options_.on_progress(totals_.bytes);
    }
  }

  bool find_out_identity() {
    try {
      if (auto identity = directory_.identity()) {
        identity_ = *identity;
        // Asked before the segments are opened: what is torn then, a writer tore that is gone.
        writing_ = directory_.is_locked();
        return true;
      }
    } catch (const Error& error) {
      tell(Kind::identity, PartitionDirectory::identity_name, error.message());
      return false;
    }
    const auto identity = find_identity(directory_);
    if (!identity && directory_.contents().segments.empty()) {
      return false;  // a directory of no archive, or of one that was just being made
    }
    tell(Kind::identity, PartitionDirectory::identity_name, "it is missing: repair makes it anew");
    identity_ = identity.value_or(ArchiveIdentity{});
    return identity.has_value();
  }

  void verify_segment(Offset first, const std::optional<Offset>& limit) {
    SegmentFile segment(directory_, first, stream_bytes);
    ++totals_.segments;
    if (expected_ && first > *expected_) {
      ArchiveProblem hole = about(Kind::hole, PartitionDirectory::segment_name(first));
      hole.from = *expected_;
      hole.to = first;
      hole.what = "the events before this segment are missing";
      report(std::move(hole));
    }
    SegmentScanner scanner(segment, identity_, 0, first);
    std::string index = index_head(identity_, first);
    bool contiguous = true;  // an index ends before damage
    Offset next = first;
    std::uint64_t seen = 0;
    for (;;) {
      auto item = scanner.next();
      if (auto* damage = std::get_if<SegmentDamage>(&item)) {
        contiguous = false;
        next = damage->to.value_or(limit.value_or(next));
        report_damage(segment, *damage, limit);
        continue;
      }
      const auto* frame = std::get_if<ArchivedFrame>(&item);
      if (frame == nullptr) {
        break;
      }
      if (limit && !frame->header.barrier() && frame->header.first >= *limit) {
        report_superseded(segment, *frame);
        break;
      }
      std::string filter;
      if (verify_frame(segment, scanner, *frame, filter)) {
        if (contiguous) {
          append_record(index, *frame, filter);
        }
      } else {
        contiguous = false;
      }
      next = frame->header.next();
      progress(frame->end() - seen);
      seen = frame->end();
    }
    progress(segment.bytes() - std::min(seen, segment.bytes()));
    expected_ = limit ? std::min(next, *limit) : next;
    verify_index(first, index, contiguous);
  }

  void report_damage(const SegmentFile& segment, const SegmentDamage& damage,
                     const std::optional<Offset>& limit) const {
    const bool tail = damage.kind == SegmentDamage::Kind::tail;
    if (tail && !limit && writing_) {
      return;
    }
    Kind kind = Kind::damaged;
    switch (damage.kind) {
      case SegmentDamage::Kind::damaged:
        break;
      case SegmentDamage::Kind::hole:
        kind = Kind::hole;
        break;
      case SegmentDamage::Kind::foreign:
        kind = Kind::foreign;
        break;
      case SegmentDamage::Kind::tail:
        kind = Kind::tail;
        break;
    }
    ArchiveProblem problem = about(kind, PartitionDirectory::segment_name(segment.first()));
    problem.position = damage.position;
    problem.what = damage.why;
    if (limit && damage.from >= *limit) {
      problem.what += "; the next segment has these events";
    } else {
      problem.from = damage.from;
      problem.to = damage.to ? damage.to : limit;
    }
    report(std::move(problem));
  }

  void report_superseded(const SegmentFile& segment, const ArchivedFrame& frame) const {
    ArchiveProblem problem = about(Kind::tail, PartitionDirectory::segment_name(segment.first()));
    problem.position = frame.position;
    problem.what = fmt::format("its last {} bytes hold events that the next segment has too",
                               segment.bytes() - frame.position);
    report(std::move(problem));
  }

  bool verify_frame(const SegmentFile& segment, SegmentScanner& scanner, const ArchivedFrame& frame,
                    std::string& filter) {
    const FrameHeader& header = frame.header;
    std::string wrong;
    if (header.entries.front().id <= last_id_ && !header.barrier()) {
      wrong =
          fmt::format("its first entry {} comes before the one before it", header.entries.front().id.text());
    }
    if (!header.barrier() && generation_ && header.generation != *generation_) {
      ArchiveProblem problem = about(Kind::damaged, PartitionDirectory::segment_name(segment.first()));
      problem.from = problem.to = header.first;
      problem.position = frame.position;
      problem.what = fmt::format("generation {} begins without its barrier", header.generation);
      report(std::move(problem));
    }
    generation_ = header.generation;
    last_id_ = header.entries.back().id;
    const auto data = scanner.data(frame);
    if (!data) {
      wrong = SegmentScanner::damage_of(frame).why;
    } else if (!header.barrier()) {
      try {
        decoder_.decode(Encoding::zstd, *data, header.events, lines_);
        filter = key_filter_of(lines_);
      } catch (const Error& error) {
        wrong = error.message();
      }
    }
    if (wrong.empty()) {
      totals_.events += header.events;
      return true;
    }
    ArchiveProblem problem = about(Kind::damaged, PartitionDirectory::segment_name(segment.first()));
    problem.from = header.first;
    problem.to = header.next();
    problem.position = frame.position;
    problem.what = wrong;
    report(std::move(problem));
    return false;
  }

  // A part of the index is no lie: the rest is read from the segment. `made` may lack what a writer has
  // written since.
  void verify_index(Offset first, const std::string& made, bool complete) {
    const std::string name = PartitionDirectory::index_name(first);
    if (!directory_.exists(name)) {
      return;
    }
    try {
      const Descriptor file = directory_.open(name, PartitionDirectory::Access::read);
      std::string bytes(made.size() + 1, '\0');
      const ssize_t size = pread(file.get(), bytes.data(), bytes.size(), 0);
      bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
      progress(bytes.size());
      const bool longer = bytes.size() > made.size();
      if (!made.starts_with(std::string_view(bytes).substr(0, made.size())) ||
          (longer && complete && !writing_)) {
        tell(Kind::index, name, "it does not say what its segment says: repair makes it anew");
      }
    } catch (const Error& error) {
      tell(Kind::index, name, error.message());
    }
  }

  PartitionDirectory directory_;
  const ArchiveCheckOptions& options_;
  ArchiveTotals& totals_;
  ArchiveIdentity identity_;
  bool writing_ = false;
  std::optional<Offset> expected_;
  std::optional<Generation> generation_;
  EntryId last_id_;
  FrameDecoder decoder_;
  std::string lines_;
};

// --- repair

class Repairer {
 public:
  Repairer(const ArchiveDirectory& archive, const std::string& topic, Partition partition, RepairMode mode,
           std::vector<ArchiveRepair>& done)
      : directory_(archive, topic, partition), mode_(mode), done_(done) {}

  void run() {
    auto identity = directory_.identity();
    const bool missing = !identity;
    if (missing) {
      identity = find_identity(directory_);
    }
    if (!identity) {
      return;
    }
    if (missing) {
      note(PartitionDirectory::identity_name, "made anew from the segments");
      if (mode_ == RepairMode::act) {
        directory_.write_identity(*identity);
      }
    }
    const bool there = !missing || mode_ == RepairMode::act;
    const auto lock = there ? directory_.lock() : std::nullopt;
    if (there && !lock) {
      note(PartitionDirectory::identity_name, "passed over: its writer is at work, and mends by itself");
      return;
    }
    const auto contents = directory_.contents();
    for (std::size_t i = 0; i < contents.segments.size(); ++i) {
      const bool last = i + 1 == contents.segments.size();
      cut_tail(*identity, contents.segments[i],
               last ? std::nullopt : std::optional(contents.segments[i + 1]));
      mend_index(*identity, contents.segments[i]);
    }
    for (const Offset first : contents.indexes) {
      if (!std::ranges::binary_search(contents.segments, first)) {
        remove(PartitionDirectory::index_name(first), "removed: the index of no segment");
      }
    }
    if (directory_.exists(PartitionDirectory::new_name)) {
      remove(PartitionDirectory::new_name, "removed: a crash left it");
    }
  }

 private:
  void note(std::string_view name, std::string what) const {
    done_.push_back({directory_.topic(), directory_.partition(), directory_.path_of(name), std::move(what)});
  }
  void remove(const std::string& name, std::string what) const {
    note(name, std::move(what));
    if (mode_ == RepairMode::act) {
      directory_.remove(name);
    }
  }

  // Only what no reader takes for events: behind the last sound frame, or behind the beginning of the next
  // segment.
  void cut_tail(const ArchiveIdentity& identity, Offset first, const std::optional<Offset>& limit) const {
    SegmentFile segment(directory_, first, header_window_bytes);
    SegmentScanner scanner(segment, identity, 0, first);
    std::uint64_t sound = 0;
    std::string why;
    for (;;) {
      const auto item = scanner.next();
      if (const auto* frame = std::get_if<ArchivedFrame>(&item)) {
        if (limit && !frame->header.barrier() && frame->header.first >= *limit) {
          why = "the next segment has these events";
          break;
        }
        sound = frame->end();
        why.clear();
      } else if (const auto* damage = std::get_if<SegmentDamage>(&item)) {
        if (damage->kind == SegmentDamage::Kind::foreign) {
          return;
        }
        why = damage->kind == SegmentDamage::Kind::tail ? damage->why : std::string();
      } else {
        break;
      }
    }
    // A file without any sound frame is evidence, not a tail.
    if (why.empty() || sound == 0 || sound >= segment.bytes()) {
      return;
    }
    const std::string name = PartitionDirectory::segment_name(first);
    note(name, fmt::format("its last {} bytes cut: {}", segment.bytes() - sound, why));
    if (mode_ == RepairMode::act) {
      const Descriptor file = directory_.open(name, PartitionDirectory::Access::append);
      if (ftruncate(file.get(), static_cast<off_t>(sound)) != 0 || fsync(file.get()) != 0) {
        fail(ErrorKind::server, "cannot cut {}: {}", printable(segment.path()), std::strerror(errno));
      }
    }
  }

  void mend_index(const ArchiveIdentity& identity, Offset first) const {
    SegmentFile segment(directory_, first, stream_bytes);
    const MadeIndex made = make_index(segment, identity);
    const std::string name = PartitionDirectory::index_name(first);
    const bool there = directory_.exists(name);
    // Of a damaged segment the index that was written at the time knows more than one that is made now.
    const bool damaged = made.covered_bytes < segment.bytes();
    const std::string bytes = there ? index_bytes(name, made.bytes.size() + 1) : std::string();
    if (there && bytes.starts_with(made.bytes) && (damaged || bytes.size() == made.bytes.size())) {
      return;
    }
    note(name, there ? "made anew: it did not say all that its segment says" : "made anew: it was missing");
    if (mode_ == RepairMode::act) {
      directory_.remove(name);
      complete_index(directory_, identity, first);
    }
  }

  [[nodiscard]] std::string index_bytes(const std::string& name, std::size_t bytes_max) const {
    std::string bytes(bytes_max, '\0');
    try {
      const Descriptor file = directory_.open(name, PartitionDirectory::Access::read);
      const ssize_t size = pread(file.get(), bytes.data(), bytes.size(), 0);
      bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
    } catch (const Error&) {
      bytes.clear();
    }
    return bytes;
  }

  PartitionDirectory directory_;
  RepairMode mode_;
  std::vector<ArchiveRepair>& done_;
};

SegmentSummary summary_of(const PartitionDirectory& directory, const ArchiveIdentity& identity,
                          Offset first) {
  SegmentSummary summary;
  summary.topic = directory.topic();
  summary.partition = directory.partition();
  summary.path = directory.path_of(PartitionDirectory::segment_name(first));
  summary.first = summary.next = first;
  summary.bytes = bytes_of(directory, PartitionDirectory::segment_name(first));
  summary.index_bytes = bytes_of(directory, PartitionDirectory::index_name(first));
  SegmentFile segment(directory, first, header_window_bytes);
  const SegmentIndex index(directory, identity, segment);
  if (!index.records().empty()) {
    summary.first_time = index.records().front().first_time;
    summary.last_time = index.records().back().last_time;
    summary.next = index.next();
  }
  SegmentScanner scanner(segment, identity, index.covered_bytes(), index.next());
  for (auto item = scanner.next(); !std::holds_alternative<SegmentScanner::End>(item);
       item = scanner.next()) {
    if (const auto* frame = std::get_if<ArchivedFrame>(&item)) {
      summary.first_time = summary.first_time.value_or(first_time(frame->header));
      summary.last_time = last_time(frame->header);
      summary.next = frame->header.next();
    }
  }
  return summary;
}

}  // namespace

std::string_view name_of(ArchiveProblem::Kind kind) {
  constexpr std::array<std::string_view, 6> names{"damaged", "hole", "foreign", "tail", "index", "identity"};
  return names.at(static_cast<std::size_t>(kind));
}

std::vector<SegmentSummary> list_archive(const std::string& path, const ArchiveCheckOptions& options) {
  std::vector<SegmentSummary> list;
  for_each_partition(path, options,
                     [&](const ArchiveDirectory& archive, const std::string& topic, Partition partition) {
                       const PartitionDirectory directory(archive, topic, partition);
                       const auto identity = find_identity(directory);
                       const auto contents = directory.contents();
                       for (std::size_t i = 0; identity && i < contents.segments.size(); ++i) {
                         list.push_back(summary_of(directory, *identity, contents.segments[i]));
                         if (i + 1 < contents.segments.size()) {
                           // What a writer that went on in the next segment left behind counts there.
                           list.back().next = std::min(list.back().next, contents.segments[i + 1]);
                         }
                       }
                     });
  return list;
}

std::uint64_t bytes_to_verify(const std::string& path, const ArchiveCheckOptions& options) {
  std::uint64_t bytes = 0;
  for_each_partition(path, options,
                     [&](const ArchiveDirectory& archive, const std::string& topic, Partition partition) {
                       const PartitionDirectory directory(archive, topic, partition);
                       const auto contents = directory.contents();
                       for (const Offset first : contents.segments) {
                         bytes += bytes_of(directory, PartitionDirectory::segment_name(first));
                       }
                       for (const Offset first : contents.indexes) {
                         bytes += bytes_of(directory, PartitionDirectory::index_name(first));
                       }
                     });
  return bytes;
}

ArchiveTotals verify_archive(const std::string& path, const ArchiveCheckOptions& options) {
  ArchiveTotals totals;
  for_each_partition(path, options,
                     [&](const ArchiveDirectory& archive, const std::string& topic, Partition partition) {
                       Verifier(archive, topic, partition, options, totals).run();
                     });
  return totals;
}

std::vector<ArchiveRepair> repair_archive(const std::string& path, const ArchiveCheckOptions& options,
                                          RepairMode mode) {
  std::vector<ArchiveRepair> done;
  for_each_partition(path, options,
                     [&](const ArchiveDirectory& archive, const std::string& topic, Partition partition) {
                       Repairer(archive, topic, partition, mode, done).run();
                     });
  return done;
}

}  // namespace continuum
