#include "continuum/archive_segment.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace continuum {

namespace {

constexpr std::size_t search_bytes = 1 << 20;

}  // namespace

SegmentFile::SegmentFile(const PartitionDirectory& directory, Offset first, std::size_t ahead_bytes)
    : first_(first),
      path_(directory.path_of(PartitionDirectory::segment_name(first))),
      file_(directory.open(PartitionDirectory::segment_name(first), PartitionDirectory::Access::read)),
      ahead_bytes_(ahead_bytes) {
  struct stat found{};
  if (fstat(file_.get(), &found) != 0) {
    fail(ErrorKind::server, "cannot look at {}: {}", printable(path_), std::strerror(errno));
  }
  bytes_ = static_cast<std::uint64_t>(found.st_size);
}

std::string_view SegmentFile::read(std::uint64_t position, std::size_t count) {
  if (position >= bytes_) {
    return {};
  }
  count = static_cast<std::size_t>(std::min<std::uint64_t>(count, bytes_ - position));
  if (position >= window_at_ && position + count <= window_at_ + window_.size()) {
    return std::string_view(window_).substr(static_cast<std::size_t>(position - window_at_), count);
  }
  const std::size_t wanted =
      static_cast<std::size_t>(std::min<std::uint64_t>(std::max(count, ahead_bytes_), bytes_ - position));
  window_.resize(wanted);
  window_at_ = position;
  std::size_t have = 0;
  while (have < wanted) {
    const ssize_t got =
        pread(file_.get(), window_.data() + have, wanted - have, static_cast<off_t>(position + have));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      const int error = errno;
      window_.clear();
      fail(ErrorKind::server, "cannot read {} at byte {}: {}", printable(path_), position,
           std::strerror(error));
    }
    if (got == 0) {
      break;  // it was cut meanwhile
    }
    have += static_cast<std::size_t>(got);
  }
  window_.resize(have);
  bytes_read_ += have;
  return std::string_view(window_).substr(0, count);
}

std::string range_text(Offset from, const std::optional<Offset>& to) {
  if (!to) {
    return fmt::format("from offset {} on", from);
  }
  if (*to == from) {
    return fmt::format("no event, before offset {}", from);
  }
  return *to - from == 1 ? fmt::format("offset {}", from)
                         : fmt::format("offsets {} to {}", from, to->value - 1);
}

SegmentScanner::SegmentScanner(SegmentFile& file, const ArchiveIdentity& identity, std::uint64_t position,
                               Offset expected)
    : file_(file), identity_(identity), position_(position), expected_(expected) {}

SegmentScanner::Look SegmentScanner::look_at(std::uint64_t position) {
  Look look;
  constexpr std::size_t size_known_after = 8;
  const auto size = header_size(file_.read(position, size_known_after));
  if (!size) {
    return look;
  }
  const std::string_view bytes = file_.read(position, *size);
  look.frame.position = position;
  look.frame.header_bytes = static_cast<std::uint32_t>(*size);
  look.read =
      bytes.size() < *size ? HeaderRead::damaged : read_header(bytes, look.identity, look.frame.header);
  look.ours = look.read == HeaderRead::sound && look.identity == identity_;
  return look;
}

// Only one that can follow: what lies in the data of a frame may look like a header. Most of what a stranger
// puts there is found out before megabytes of it are hashed.
std::optional<ArchivedFrame> SegmentScanner::find_from(std::uint64_t position) {
  constexpr std::size_t overlap = header_begin_bytes - 1;
  while (position < file_.bytes()) {
    const std::string_view bytes = file_.read(position, search_bytes);
    std::size_t at = bytes.find(archive_magic);
    while (at != std::string_view::npos && !begins_header(bytes.substr(at), identity_, expected_)) {
      at = bytes.find(archive_magic, at + 1);
    }
    if (at != std::string_view::npos) {
      Look look = look_at(position + at);
      if (look.ours && look.frame.header.first >= expected_) {
        return std::move(look.frame);
      }
      position += at + 1;
    } else if (bytes.size() <= overlap) {
      break;
    } else {
      position += bytes.size() - overlap;
    }
  }
  return std::nullopt;
}

SegmentDamage SegmentScanner::damage_at(const Look& look) {
  SegmentDamage damage;
  damage.from = expected_;
  damage.position = position_;
  if (look.read == HeaderRead::newer) {
    damage.kind = SegmentDamage::Kind::foreign;
    damage.why = "a newer version of continuum wrote it: read it with that one";
  } else if (look.read == HeaderRead::sound && !look.ours) {
    damage.kind = SegmentDamage::Kind::foreign;
    damage.why = fmt::format("it is of another archive (log {}, archive {}, partition {})",
                             look.identity.log_id, look.identity.archive_id, look.identity.partition);
  } else if (look.ours) {
    damage.kind = SegmentDamage::Kind::foreign;
    damage.why = fmt::format("offset {} comes where offset {} was expected: was the segment renamed?",
                             look.frame.header.first, expected_);
  } else {
    damage.why = "the header of a frame is damaged";
  }
  return damage;
}

SegmentScanner::Item SegmentScanner::next() {
  if (found_) {
    ArchivedFrame frame = std::move(*found_);
    found_.reset();
    return take(std::move(frame));
  }
  if (position_ >= file_.bytes()) {
    return End{};
  }
  Look look = look_at(position_);
  const bool renamed = position_ == 0 && look.ours && look.frame.header.first != expected_;
  if (look.ours && look.frame.header.first >= expected_ && !renamed) {
    return take(std::move(look.frame));
  }
  SegmentDamage damage = damage_at(look);
  found_ = renamed ? std::nullopt : find_from(std::exchange(suspect_, std::nullopt).value_or(position_ + 1));
  const std::uint64_t end = found_ ? found_->position : file_.bytes();
  damage.bytes = end > position_ ? end - position_ : 0;
  if (found_) {
    damage.to = found_->header.first;
    expected_ = found_->header.first;
  } else if (damage.kind == SegmentDamage::Kind::damaged) {
    damage.kind = SegmentDamage::Kind::tail;
    damage.why = fmt::format("its last {} bytes are no whole frame", damage.bytes);
  }
  position_ = end;
  return damage;
}

SegmentScanner::Item SegmentScanner::take(ArchivedFrame frame) {
  if (frame.header.first > expected_) {
    SegmentDamage hole{SegmentDamage::Kind::hole, expected_, frame.header.first, frame.position, 0,
                       "the events are missing"};
    expected_ = frame.header.first;
    found_ = std::move(frame);
    return hole;
  }
  if (frame.end() > file_.bytes()) {
    SegmentDamage tail{SegmentDamage::Kind::tail,
                       frame.header.first,
                       frame.header.next(),
                       frame.position,
                       file_.bytes() - frame.position,
                       fmt::format("its last frame ends {} bytes too early", frame.end() - file_.bytes())};
    position_ = file_.bytes();
    return tail;
  }
  suspect_.reset();
  position_ = frame.end();
  expected_ = frame.header.next();
  return frame;
}

std::optional<std::string_view> SegmentScanner::data(const ArchivedFrame& frame) {
  const std::string_view bytes = file_.read(frame.data_position(), frame.header.frame_bytes);
  const bool sound = bytes.size() == frame.header.frame_bytes &&
                     (frame.header.barrier() || archive_hash(bytes) == frame.header.frame_hash);
  if (!sound) {
    suspect_ = frame.data_position();
    return std::nullopt;
  }
  return bytes;
}

SegmentDamage SegmentScanner::damage_of(const ArchivedFrame& frame) {
  return {SegmentDamage::Kind::damaged, frame.header.first,
          frame.header.next(),          frame.position,
          frame.end() - frame.position, "the checksum of a frame is wrong"};
}

}  // namespace continuum
