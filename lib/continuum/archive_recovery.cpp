#include "continuum/archive_recovery.hpp"

#include "continuum/archive_index.hpp"
#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace continuum {

namespace {

// For headers: most of them are a hundred bytes, with a frame of some kilobytes between them.
constexpr std::size_t header_window_bytes = 4096;

// Goes over the last segment.
class Recovery {
 public:
  Recovery(const PartitionDirectory& directory, const ArchiveIdentity& identity, Offset first,
           ArchiveEnd& end)
      : directory_(directory),
        identity_(identity),
        segment_(directory, first, header_window_bytes),
        scanner_(segment_, identity, 0, first),
        end_(end) {}

  // False when no sound frame is there.
  bool run() {
    for (;;) {
      auto item = scanner_.next();
      if (auto* frame = std::get_if<ArchivedFrame>(&item)) {
        const bool recent = frame->end() + unsynced_bytes_max >= segment_.bytes();
        if (recent && !scanner_.data(*frame)) {
          note(SegmentScanner::damage_of(*frame));
        } else {
          take(std::move(*frame));
        }
      } else if (auto* damage = std::get_if<SegmentDamage>(&item)) {
        note(std::move(*damage));
      } else {
        break;
      }
    }
    if (sound_bytes_ < segment_.bytes() || sound_bytes_ == 0) {
      cut();
    }
    return end_.last.has_value();
  }

 private:
  void take(ArchivedFrame frame) {
    // What is damaged before a sound frame was written before it, and is no torn tail.
    for (const auto& damage : open_) {
      end_.said.push_back(fmt::format("{}, {}, byte {}: {}. `continuum archive verify` has the whole list",
                                      printable(segment_.path()), range_text(damage.from, damage.to),
                                      damage.position, damage.why));
    }
    open_.clear();
    sound_bytes_ = frame.end();
    if (!frame.header.barrier() && !end_.first_event) {
      end_.first_event = first_time(frame.header);
      end_.barriers.clear();
    }
    if (!end_.first_event) {
      end_.barriers += segment_.read(frame.position, frame.header_bytes);
    }
    end_.last = std::move(frame.header);
    end_.segment = segment_.first();
    end_.bytes = sound_bytes_;
  }

  void note(SegmentDamage damage) {
    if (damage.kind == SegmentDamage::Kind::foreign) {
      fail(ErrorKind::loss, "{}, byte {}: {}. Nothing is written behind it: see `continuum archive verify`",
           printable(segment_.path()), damage.position, damage.why);
    }
    open_.push_back(std::move(damage));
  }

  void cut() {
    const std::uint64_t bytes = segment_.bytes() - sound_bytes_;
    if (bytes > unsynced_bytes_max) {
      fail(ErrorKind::loss,
           "{}: its last {} bytes are damaged, from offset {} on, and that is more than a crash tears. Look "
           "at the "
           "disk, and at `continuum archive verify`; a copy of the file can take its place",
           printable(segment_.path()), bytes, open_.front().from);
    }
    const std::string name = PartitionDirectory::segment_name(segment_.first());
    if (sound_bytes_ == 0) {
      directory_.remove(PartitionDirectory::index_name(segment_.first()));
      directory_.remove(name);
      directory_.sync();
    } else {
      const Descriptor file = directory_.open(name, PartitionDirectory::Access::append);
      if (ftruncate(file.get(), static_cast<off_t>(sound_bytes_)) != 0 || fsync(file.get()) != 0) {
        fail(ErrorKind::server, "cannot cut the torn end of {}: {}", printable(segment_.path()),
             std::strerror(errno));
      }
    }
    if (open_.empty()) {
      return;  // an empty file
    }
    end_.said.push_back(fmt::format("{}: cut its last {} bytes, {}: {}", printable(segment_.path()), bytes,
                                    range_text(open_.front().from, std::nullopt), open_.front().why));
  }

  const PartitionDirectory& directory_;
  const ArchiveIdentity& identity_;
  SegmentFile segment_;
  SegmentScanner scanner_;
  ArchiveEnd& end_;
  std::uint64_t sound_bytes_ = 0;
  std::vector<SegmentDamage> open_;  // behind the last sound frame
};

}  // namespace

ArchiveEnd recover_archive(const PartitionDirectory& directory, const ArchiveIdentity& identity) {
  directory.remove(PartitionDirectory::new_name);
  ArchiveEnd end;
  const auto segments = directory.contents().segments;
  for (auto first = segments.rbegin(); first != segments.rend(); ++first) {
    if (Recovery(directory, identity, *first, end).run()) {
      break;
    }
  }
  return end;
}

}  // namespace continuum
