#include "continuum/archive_recovery.hpp"

#include "continuum/archive_index.hpp"
#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace continuum {

namespace {

constexpr std::size_t window_bytes = 1 << 20;

// Goes over the last segment.
class Recovery {
 public:
  Recovery(const PartitionDirectory& directory, const ArchiveIdentity& identity, const ArchiveResume& resume,
           Offset first, ArchiveEnd& end)
      : directory_(directory),
        resume_(resume),
        indexed_bytes_(indexed_end(read_index(directory, identity, first), identity, first).bytes),
        segment_(directory, first, window_bytes),
        scanner_(segment_, identity, 0, first),
        end_(end) {}

  // False when the segment is gone: no sound frame was in it.
  bool run() {
    for (;;) {
      auto item = scanner_.next();
      if (auto* frame = std::get_if<ArchivedFrame>(&item)) {
        if (scanner_.data(*frame)) {
          take(std::move(*frame));
        } else {
          note(SegmentScanner::damage_of(*frame));
        }
      } else if (auto* damage = std::get_if<SegmentDamage>(&item)) {
        note(std::move(*damage));
      } else {
        break;
      }
    }
    if (!open_.empty()) {
      settle();
    } else if (sound_bytes_ == 0) {
      remove();  // an empty file
    }
    return sound_bytes_ > 0;
  }

 private:
  void take(ArchivedFrame frame) {
    reached_ = frame.header.next();
    if (again_) {
      return;
    }
    if (!open_.empty()) {
      if (can_come_again()) {
        again_ = true;
        return;
      }
      for (const auto& damage : open_) {
        end_.lost.push_back(describe(damage) + cure());
      }
      open_.clear();
    }
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
    if (!again_) {
      open_.push_back(std::move(damage));
    }
  }

  // The index has a frame only when it is synced.
  [[nodiscard]] bool was_durable() const {
    return open_.front().from < resume_.committed || open_.front().position < indexed_bytes_;
  }
  [[nodiscard]] bool log_has_it() const {
    return resume_.log_first && *resume_.log_first <= open_.front().from;
  }
  // A segment that begins with it has the name that its successor needs: what was durable in there would be
  // gone before it has come again.
  [[nodiscard]] bool can_come_again() const { return log_has_it() && (end_.first_event || !was_durable()); }

  [[nodiscard]] std::string describe(const SegmentDamage& damage) const {
    return fmt::format("{}, {}, byte {}: {}", printable(segment_.path()), range_text(damage.from, damage.to),
                       damage.position, damage.why);
  }
  [[nodiscard]] std::string cure() const {
    return log_has_it() ? std::string(
                              ". Put a copy of the file in its place; or move it away: then all of it is "
                              "taken from the log again")
                        : fmt::format(
                              ". The log does not have that any more{}: put a copy of the file in its place. "
                              "`continuum archive verify` has the whole list",
                              resume_.log_first ? fmt::format(", it begins at offset {}", *resume_.log_first)
                                                : std::string());
  }

  // What becomes of the damage at the end, and of what lies behind it.
  void settle() {
    const bool torn = !again_ && !was_durable() && log_has_it();
    if (sound_bytes_ == 0) {
      if (!torn && !again_) {
        fail(ErrorKind::loss, "{}{}", describe(open_.front()), cure());
      }
      remove();
    } else if (torn) {
      cut();
    } else if (!again_ && was_durable() && !log_has_it()) {
      fail(ErrorKind::loss, "{}{}", describe(open_.front()), cure());
    } else {
      end_.again_until = std::max({reached_, open_.front().from, resume_.committed});
      end_.said.push_back(describe(open_.front()) + ". From there on the log is archived again");
    }
  }

  void remove() {
    directory_.remove(PartitionDirectory::index_name(segment_.first()));
    directory_.remove(PartitionDirectory::segment_name(segment_.first()));
    directory_.sync();
    if (!open_.empty()) {
      end_.said.push_back(describe(open_.front()) + ". It was never committed, and is archived again");
    }
  }

  void cut() {
    const Descriptor file = directory_.open(PartitionDirectory::segment_name(segment_.first()),
                                            PartitionDirectory::Access::append);
    if (ftruncate(file.get(), static_cast<off_t>(sound_bytes_)) != 0 || fsync(file.get()) != 0) {
      fail(ErrorKind::server, "cannot cut the torn end of {}: {}", printable(segment_.path()),
           std::strerror(errno));
    }
    end_.said.push_back(fmt::format("{}: cut its last {} bytes, {}: {}", printable(segment_.path()),
                                    segment_.bytes() - sound_bytes_,
                                    range_text(open_.front().from, std::nullopt), open_.front().why));
  }

  const PartitionDirectory& directory_;
  const ArchiveResume& resume_;
  std::uint64_t indexed_bytes_;
  SegmentFile segment_;
  SegmentScanner scanner_;
  ArchiveEnd& end_;
  std::uint64_t sound_bytes_ = 0;
  Offset reached_;                   // behind the last sound frame
  std::vector<SegmentDamage> open_;  // behind the last sound frame that stays
  bool again_ = false;               // what follows comes from the log again
};

}  // namespace

ArchiveEnd recover_archive(const PartitionDirectory& directory, const ArchiveIdentity& identity,
                           const ArchiveResume& resume) {
  const auto contents = directory.contents();
  for (const auto& name : contents.unfinished) {
    directory.remove(name);
  }
  ArchiveEnd end;
  const auto& segments = contents.segments;
  for (auto first = segments.rbegin(); first != segments.rend(); ++first) {
    if (Recovery(directory, identity, resume, *first, end).run()) {
      break;
    }
  }
  return end;
}

}  // namespace continuum
