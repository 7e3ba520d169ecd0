#include "continuum/archive_check.hpp"

#include "continuum/archive_index.hpp"
#include "continuum/archive_reader.hpp"
#include "continuum/archive_segment.hpp"
#include "continuum/archive_topic.hpp"
#include "continuum/error.hpp"
#include "continuum/frame.hpp"
#include "continuum/names.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>

namespace continuum {

namespace {

constexpr std::size_t header_window_bytes = 4096;
constexpr std::size_t stream_bytes = 1 << 20;

using Kind = ArchiveProblem::Kind;

std::uint64_t bytes_of(const PartitionDirectory& directory, const std::string& name) {
  struct stat found{};
  return lstat(directory.path_of(name).c_str(), &found) == 0 && S_ISREG(found.st_mode)
             ? static_cast<std::uint64_t>(found.st_size)
             : 0;
}

bool is_chosen(const ArchiveCheckOptions& options, Partition partition) {
  return options.partitions.empty() ||
         std::ranges::find(options.partitions, partition) != options.partitions.end();
}

std::vector<std::string> chosen_topics(const ArchiveDirectory& archive, const ArchiveCheckOptions& options) {
  auto topics = archive.topics();
  std::erase_if(topics, [&](const std::string& topic) {
    return !options.topics.empty() && std::ranges::find(options.topics, topic) == options.topics.end();
  });
  return topics;
}

// --- verify

class Verifier {
 public:
  Verifier(const ArchiveDirectory& archive, const std::string& topic, Partition partition,
           const ArchiveCheckOptions& options, ArchiveTotals& totals)
      : archive_(archive), directory_(archive, topic, partition), options_(options), totals_(totals) {}

  void run() {
    ++totals_.partitions;
    if (!find_out_identity()) {
      return;
    }
    learn_newest_ring();
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
        report(problem);
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
    report(problem);
  }
  void report(const ArchiveProblem& problem) const {
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

  void learn_newest_ring() {
    try {
      if (const auto topic = read_archived_topic(archive_, directory_.topic())) {
        newest_ = topic->rings.rbegin()->first;
      }
    } catch (const Error&) {
      newest_.reset();  // verify_topics() tells it
    }
  }

  bool find_out_identity() {
    try {
      if (auto identity = directory_.identity()) {
        identity_ = *identity;
        lockable_ = true;
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
    // Before the segment: what it has is in there, however much a writer appends meanwhile.
    const auto index_was = read_index_of(first);
    SegmentFile segment(directory_, first, stream_bytes);
    const std::string_view known = index_was ? std::string_view(*index_was) : std::string_view();
    indexed_ = indexed_end(known, identity_, first);
    cut_off_ = indexed_.bytes > segment.bytes();
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
        next = damage->to.value_or(limit.value_or(cut_off_ ? indexed_.next : next));
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
    if (const Offset end = limit.value_or(indexed_.next); cut_off_ && next < end) {
      contiguous = false;
      report_cut_off(segment, next, end);
      next = end;
    }
    expected_ = limit ? std::min(next, *limit) : next;
    if (index_was) {
      verify_index(first, *index_was, index, contiguous);
    }
  }

  // Now, or since the segment was opened.
  [[nodiscard]] bool is_written(const SegmentFile& segment) const {
    const std::string name = PartitionDirectory::segment_name(segment.first());
    return (lockable_ && directory_.is_locked()) || bytes_of(directory_, name) != segment.bytes() ||
           directory_.contents().segments.back() != segment.first();
  }

  void report_damage(const SegmentFile& segment, const SegmentDamage& damage,
                     const std::optional<Offset>& limit) const {
    const bool tail = damage.kind == SegmentDamage::Kind::tail;
    const bool superseded = limit && damage.from >= *limit;
    // A frame that is in the index was whole once.
    const bool torn = tail && !limit && damage.position >= indexed_.bytes;
    if (torn && is_written(segment)) {
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
        kind = torn || superseded ? Kind::tail : Kind::damaged;
        break;
    }
    ArchiveProblem problem = about(kind, PartitionDirectory::segment_name(segment.first()));
    problem.position = damage.position;
    problem.what = damage.why;
    if (superseded) {
      problem.what += "; the next segment has these events";
    } else {
      problem.from = damage.from;
      problem.to = damage.to ? damage.to : limit;
      if (tail && cut_off_ && !limit) {
        problem.to = indexed_.next;
        problem.what += "; " + cut_off_text(segment.bytes(), indexed_);
      }
    }
    report(problem);
  }

  // Between two frames, so that all that is there is right.
  void report_cut_off(const SegmentFile& segment, Offset from, Offset to) const {
    ArchiveProblem problem = about(Kind::damaged, PartitionDirectory::segment_name(segment.first()));
    problem.from = from;
    problem.to = to;
    problem.position = segment.bytes();
    problem.what = cut_off_text(segment.bytes(), indexed_);
    report(problem);
  }

  void report_superseded(const SegmentFile& segment, const ArchivedFrame& frame) const {
    ArchiveProblem problem = about(Kind::tail, PartitionDirectory::segment_name(segment.first()));
    problem.position = frame.position;
    problem.what = fmt::format("its last {} bytes hold events that the next segment has too",
                               segment.bytes() - frame.position);
    report(problem);
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
      report(problem);
    }
    if (header.barrier() && newest_ &&
        header.generation.value > std::uint64_t{newest_->value} + unknown_generations_max) {
      wrong = fmt::format("a barrier of generation {}, and the newest ring of the topic is of generation {}",
                          header.generation, *newest_);
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
    report(problem);
    return false;
  }

  // nullopt when there is none, or nothing that one may read.
  std::optional<std::string> read_index_of(Offset first) {
    const std::string name = PartitionDirectory::index_name(first);
    if (!directory_.exists(name)) {
      return std::nullopt;
    }
    try {
      (void)directory_.open(name, PartitionDirectory::Access::read);
    } catch (const Error& error) {
      tell(Kind::index, name, error.message());
      return std::nullopt;
    }
    return read_index(directory_, identity_, first);
  }

  // A part of the index is no lie: the rest is read from the segment. Of a damaged segment it may have more
  // than can be `made`.
  void verify_index(Offset first, const std::string& index, const std::string& made, bool complete) {
    progress(index.size());
    if (!made.starts_with(std::string_view(index).substr(0, made.size())) ||
        (index.size() > made.size() && complete)) {
      tell(Kind::index, PartitionDirectory::index_name(first),
           "it does not say what its segment says: repair makes it anew");
    }
  }

  const ArchiveDirectory& archive_;
  PartitionDirectory directory_;
  const ArchiveCheckOptions& options_;
  ArchiveTotals& totals_;
  ArchiveIdentity identity_;
  bool lockable_ = false;  // there is a file that a writer holds
  IndexedEnd indexed_;     // of the segment that is verified
  bool cut_off_ = false;   // it was longer, by its index
  std::optional<Offset> expected_;
  std::optional<Generation> generation_;
  std::optional<Generation> newest_;  // ring of the topic, as far as that is known
  EntryId last_id_;
  FrameDecoder decoder_;
  std::string lines_;
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

std::vector<std::pair<std::string, Partition>> choose_partitions(const ArchiveDirectory& archive,
                                                                 const ArchiveCheckOptions& options) {
  const auto topics = archive.topics();
  if (topics.empty()) {
    fail(ErrorKind::usage, "{} is not an archive: it has no directory TOPIC/PARTITION",
         printable(archive.path()));
  }
  for (const auto& topic : options.topics) {
    if (std::ranges::find(topics, topic) == topics.end()) {
      fail(ErrorKind::usage, "{} has no topic {}{}", printable(archive.path()), topic,
           hint_of(topic, topics));
    }
  }
  std::vector<std::pair<std::string, Partition>> chosen;
  for (const auto& topic : chosen_topics(archive, options)) {
    for (const Partition partition : archive.partitions(topic)) {
      if (is_chosen(options, partition)) {
        chosen.emplace_back(topic, partition);
      }
    }
  }
  for (const Partition partition : options.partitions) {
    if (std::ranges::find(chosen, partition, [](const auto& one) { return one.second; }) == chosen.end()) {
      fail(ErrorKind::usage, "{} has no partition {}{}", printable(archive.path()), partition,
           options.topics.empty() ? std::string() : " of topic " + options.topics.front());
    }
  }
  return chosen;
}

std::string_view name_of(ArchiveProblem::Kind kind) {
  constexpr std::array<std::string_view, 6> names{"damaged", "hole", "foreign", "tail", "index", "identity"};
  return names.at(static_cast<std::size_t>(kind));
}

std::vector<SegmentSummary> list_archive(const std::string& path, const ArchiveCheckOptions& options) {
  std::vector<SegmentSummary> list;
  const ArchiveDirectory archive(path);
  for (const auto& [topic, partition] : choose_partitions(archive, options)) {
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
  }
  return list;
}

std::uint64_t bytes_to_verify(const std::string& path, const ArchiveCheckOptions& options) {
  std::uint64_t bytes = 0;
  const ArchiveDirectory archive(path);
  for (const auto& [topic, partition] : choose_partitions(archive, options)) {
    const PartitionDirectory directory(archive, topic, partition);
    const auto contents = directory.contents();
    for (const Offset first : contents.segments) {
      bytes += bytes_of(directory, PartitionDirectory::segment_name(first));
    }
    for (const Offset first : contents.indexes) {
      bytes += bytes_of(directory, PartitionDirectory::index_name(first));
    }
  }
  return bytes;
}

namespace {

// Without it the topic cannot be restored.
void verify_topics(const ArchiveDirectory& archive, const ArchiveCheckOptions& options) {
  for (const auto& topic : chosen_topics(archive, options)) {
    ArchiveProblem problem;
    try {
      if (read_archived_topic(archive, topic)) {
        continue;
      }
      problem.what = "it is missing: `continuum work --archive` makes it anew while the topic is there";
    } catch (const Error& error) {
      problem.what = error.message();
    }
    problem.kind = Kind::identity;
    problem.topic = topic;
    problem.path = fmt::format("{}/{}/{}", archive.path(), topic, archived_topic_name);
    if (options.on_problem) {
      options.on_problem(problem);
    }
  }
}

void report_foreign_partitions(const ArchiveDirectory& archive, const ArchiveCheckOptions& options) {
  for (const auto& topic : chosen_topics(archive, options)) {
    for (const Partition partition : archive.foreign_partitions(topic)) {
      if (!is_chosen(options, partition) || !options.on_problem) {
        continue;
      }
      ArchiveProblem problem;
      problem.kind = Kind::foreign;
      problem.topic = topic;
      problem.partition = partition;
      problem.path = fmt::format("{}/{}/{}", archive.path(), topic, partition);
      problem.what = "it is no directory, or a symbolic link to one, which is not followed: move it away";
      options.on_problem(problem);
    }
  }
}

}  // namespace

ArchiveTotals verify_archive(const std::string& path, const ArchiveCheckOptions& options) {
  ArchiveTotals totals;
  const ArchiveDirectory archive(path);
  for (const auto& [topic, partition] : choose_partitions(archive, options)) {
    Verifier(archive, topic, partition, options, totals).run();
  }
  report_foreign_partitions(archive, options);
  verify_topics(archive, options);
  return totals;
}

}  // namespace continuum
