// Mends what can be made anew in an archive (archive_check.hpp).
#include "continuum/archive_check.hpp"
#include "continuum/archive_index.hpp"
#include "continuum/archive_reader.hpp"
#include "continuum/archive_segment.hpp"
#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace continuum {

namespace {

constexpr std::size_t header_window_bytes = 4096;
constexpr std::size_t stream_bytes = 1 << 20;

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
    // Who only looks keeps nobody from writing.
    const auto lock = mode_ == RepairMode::act ? directory_.lock() : std::nullopt;
    if (there && (mode_ == RepairMode::act ? !lock : directory_.is_locked())) {
      note(PartitionDirectory::identity_name, "passed over: its writer is at work, and mends by itself");
      return;
    }
    const auto contents = directory_.contents();
    for (std::size_t i = 0; i < contents.segments.size(); ++i) {
      const bool last = i + 1 == contents.segments.size();
      std::optional<Offset> limit;
      if (!last) {
        limit = contents.segments[i + 1];
      }
      const std::uint64_t bytes = cut_tail(*identity, contents.segments[i], limit);
      mend_index(*identity, contents.segments[i], limit, bytes);
    }
    for (const Offset first : contents.indexes) {
      if (!std::ranges::binary_search(contents.segments, first)) {
        remove(PartitionDirectory::index_name(first), "removed: the index of no segment");
      }
    }
    for (const auto& name : contents.unfinished) {
      remove(name, "removed: a crash left it");
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

  // Only what no reader takes for events, and no writer ever had on the disk: a frame that was not written to
  // its end, or is not there to its end, or what the next segment has. Returns how long the segment is then.
  std::uint64_t cut_tail(const ArchiveIdentity& identity, Offset first,
                         const std::optional<Offset>& limit) const {
    SegmentFile segment(directory_, first, header_window_bytes);
    const std::uint64_t indexed =
        indexed_end(read_index(directory_, identity, first), identity, first, segment.bytes()).bytes;
    SegmentScanner scanner(segment, identity, 0, first);
    std::uint64_t position = 0;
    std::string why;
    for (auto item = scanner.next(); why.empty(); item = scanner.next()) {
      if (const auto* frame = std::get_if<ArchivedFrame>(&item)) {
        position = frame->position;
        if (limit && !frame->header.barrier() && frame->header.first >= *limit) {
          why = "the next segment has these events";
        }
      } else if (const auto* damage = std::get_if<SegmentDamage>(&item)) {
        position = damage->position;
        if (damage->kind == SegmentDamage::Kind::foreign) {
          return segment.bytes();
        }
        const bool torn = damage->kind == SegmentDamage::Kind::tail && damage->position >= indexed;
        if (limit ? damage->from >= *limit : torn) {
          why = damage->why;
        }
      } else {
        return segment.bytes();
      }
    }
    // A file without any sound frame is evidence, not a tail.
    if (position == 0) {
      return segment.bytes();
    }
    const std::string name = PartitionDirectory::segment_name(first);
    note(name, fmt::format("its last {} bytes cut: {}", segment.bytes() - position, why));
    if (mode_ == RepairMode::act) {
      const Descriptor file = directory_.open(name, PartitionDirectory::Access::append);
      if (ftruncate(file.get(), static_cast<off_t>(position)) != 0 || fsync(file.get()) != 0) {
        fail(ErrorKind::server, "cannot cut {}: {}", printable(segment.path()), std::strerror(errno));
      }
    }
    return position;
  }

  // `segment_bytes`: as long as it is when its tail is cut.
  void mend_index(const ArchiveIdentity& identity, Offset first, const std::optional<Offset>& limit,
                  std::uint64_t segment_bytes) const {
    SegmentFile segment(directory_, first, stream_bytes);
    const MadeIndex made = make_index(segment, identity);
    const std::string name = PartitionDirectory::index_name(first);
    const bool there = directory_.exists(name);
    // Of a damaged segment the index that was written at the time knows more than one that is made now.
    const bool damaged = made.covered_bytes < segment_bytes;
    const std::string bytes = there ? index_bytes(name, made.bytes.size() + 1) : std::string();
    if (there && bytes.starts_with(made.bytes) && (damaged || bytes.size() == made.bytes.size())) {
      return;
    }
    note(name, there ? "made anew: it did not say all that its segment says" +
                           lost_with_it(identity, first, limit, made)
                     : "made anew: it was missing");
    if (mode_ == RepairMode::act) {
      // What an index has is on the disk.
      const Descriptor file =
          directory_.open(PartitionDirectory::segment_name(first), PartitionDirectory::Access::append);
      if (fsync(file.get()) != 0) {
        fail(ErrorKind::server, "cannot sync {}: {}", printable(segment.path()), std::strerror(errno));
      }
      directory_.remove(name);
      complete_index(directory_, identity, first);
    }
  }

  // The old index may be the only one that knows of them.
  [[nodiscard]] std::string lost_with_it(const ArchiveIdentity& identity, Offset first,
                                         const std::optional<Offset>& limit, const MadeIndex& made) const {
    const IndexedEnd known = indexed_end(read_index(directory_, identity, first), identity, first);
    const IndexedEnd left = indexed_end(made.bytes, identity, first);
    Offset end = known.next;
    if (limit && *limit < end) {
      end = *limit;
    }
    if (end <= left.next) {
      return {};
    }
    return fmt::format(". {} are lost: only it has records of them. A whole copy of the segment has them",
                       range_text(left.next, end));
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

}  // namespace

std::vector<ArchiveRepair> repair_archive(const std::string& path, const ArchiveCheckOptions& options,
                                          RepairMode mode) {
  std::vector<ArchiveRepair> done;
  const ArchiveDirectory archive(path);
  for (const auto& [topic, partition] : choose_partitions(archive, options)) {
    Repairer(archive, topic, partition, mode, done).run();
  }
  return done;
}

}  // namespace continuum
