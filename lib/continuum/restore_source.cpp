#include "continuum/restore_source.hpp"

#include "continuum/archive_index.hpp"
#include "continuum/archive_segment.hpp"
#include "continuum/archive_topic.hpp"
#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/restore_generations.hpp"

#include <algorithm>

namespace continuum {

namespace {

constexpr std::size_t header_window_bytes = 4096;

}  // namespace

RestoreSource::RestoreSource(const std::string& path, const std::string& topic)
    : archive_(path), topic_(archived_topic(topic)), missing_(topic_.partitions()) {
  for (const Partition partition : archive_.partitions(topic_.name)) {
    if (!has_segments(partition)) {
      continue;
    }
    require_ring(partition);
    if (const auto end = find_end(partition)) {
      ends_.emplace(partition, *end);
      partitions_.push_back(partition);
      std::erase(missing_, partition);
    }
  }
  if (partitions_.empty()) {
    fail(ErrorKind::usage, "{} has no archive of any partition of topic {}", printable(archive_.path()),
         topic_.name);
  }
}

Topic RestoreSource::archived_topic(const std::string& name) const {
  refuse_foreign(name);
  const auto topics = archive_.topics();
  if (std::ranges::find(topics, name) == topics.end()) {
    fail(ErrorKind::usage, "{} has no topic {}{}", printable(archive_.path()), printable(name),
         hint_of(name, topics));
  }
  auto topic = read_archived_topic(archive_, name);
  if (!topic) {
    fail(ErrorKind::loss,
         "{}/{}/{} is missing: it says what the ring of the topic is. Put a copy of it there",
         printable(archive_.path()), name, archived_topic_name);
  }
  return *std::move(topic);
}

// Passed over, it would be a partition of which there is nothing.
void RestoreSource::refuse_foreign(const std::string& topic) const {
  std::vector<Partition> foreign;
  try {
    foreign = archive_.foreign_partitions(topic);
  } catch (const Error&) {
    return;  // there is no such directory
  }
  if (!foreign.empty()) {
    fail(ErrorKind::usage,
         "{}/{}/{} is no directory, or a symbolic link to one: in an archive neither is followed. Put the "
         "directory itself there, or mount it there; or move it away",
         printable(archive_.path()), topic, foreign.front());
  }
}

std::string RestoreSource::topic_path() const {
  return fmt::format("{}/{}/{}", printable(archive_.path()), topic_.name, archived_topic_name);
}

bool RestoreSource::has_segments(Partition partition) const {
  return read(partition, std::nullopt)->first_offset().has_value();
}

void RestoreSource::require_ring(Partition partition) const {
  if (born_in(topic_, partition) == Generation(0)) {
    fail(ErrorKind::loss,
         "{} knows no ring that has partition {}, and there is an archive of it: the file is an older copy. "
         "Put the latest one in its place",
         topic_path(), partition);
  }
}

// nullopt: nothing of it is whole, such as when a writer died that had just begun. Frames are in an index
// once they are on the disk: what it has and the segment has not is damage, and not what a writer that died
// left.
std::optional<Offset> RestoreSource::find_end(Partition partition) {
  const PartitionDirectory directory(archive_, topic_.name, partition);
  const auto identity = find_identity(directory);
  const auto segments = directory.contents().segments;
  const Offset first = segments.back();
  // Before the segment, which a writer may be appending to.
  const IndexedEnd known = indexed_end(read_index(directory, *identity, first), *identity, first);
  SegmentFile segment(directory, first, header_window_bytes);
  SegmentScanner scanner(segment, *identity, 0, first);
  std::optional<Offset> next;
  if (segments.size() > 1) {
    next = first;
  }
  for (auto item = scanner.next(); !std::holds_alternative<SegmentScanner::End>(item);
       item = scanner.next()) {
    if (const auto* frame = std::get_if<ArchivedFrame>(&item)) {
      next = frame->header.next();
    } else if (const auto& damage = std::get<SegmentDamage>(item); damage.kind == SegmentDamage::Kind::tail) {
      if (known.bytes > segment.bytes()) {
        break;
      }
      const bool was_whole = damage.position < known.bytes;
      const std::string what =
          fmt::format("{}, {}, byte {}: {}", printable(segment.path()),
                      range_text(damage.from, was_whole ? std::optional(known.next) : damage.to),
                      damage.position, damage.why);
      if (was_whole) {
        fail(ErrorKind::loss,
             "{}. Its index has a record of that: it was whole once. Put a copy of the file in its place; "
             "when there is none, `continuum archive verify {}` says what is lost, and without its index "
             "what lies before it can be restored",
             what, printable(archive_.path()));
      }
      notices_.push_back(what + ". That was being written, and is not restored");
    }
  }
  if (known.bytes > segment.bytes()) {
    fail(ErrorKind::loss,
         "{}, {}: {}. Put a whole copy of the file in its place; when there is none, remove its index, "
         "and what the segment has can be restored",
         printable(segment.path()), range_text(next.value_or(first), known.next),
         cut_off_text(segment.bytes(), known));
  }
  if (!next) {
    empty_segment_ = segment.path();
    if (first > Offset(0)) {
      fail(
          ErrorKind::loss,
          "{} has no whole frame, and says with its name that there were events before offset {}. Put a copy "
          "of it in its place",
          printable(segment.path()), first);
    }
  }
  return next;
}

std::unique_ptr<ArchiveReader> RestoreSource::read(Partition partition, std::optional<Offset> from) const {
  ArchiveChoice choice;
  choice.from = from;
  return std::make_unique<ArchiveReader>(archive_, topic_.name, partition, topic_.log_id, std::move(choice));
}

void RestoreSource::require_generation(Partition partition, const ArchivedEntry& entry) const {
  if (!entry.barrier()) {
    if (!topic_.rings.contains(entry.generation)) {
      fail(ErrorKind::loss,
           "{} has no ring of generation {}, and {} has events of it from offset {} on: the file is an older "
           "copy. Put the latest one in its place",
           topic_path(), entry.generation, place(topic_.name, partition), entry.first);
    }
    return;
  }
  if (const Generation newest = topic_.rings.rbegin()->first;
      entry.generation.value > std::uint64_t{newest.value} + unknown_generations_max) {
    fail(ErrorKind::loss,
         "{} has a barrier of generation {} before offset {}, and the newest ring in {} is of generation {}: "
         "the file is an older copy, or the barrier is damaged",
         place(topic_.name, partition), entry.generation, entry.first, topic_path(), newest);
  }
}

}  // namespace continuum
