// One segment of an archive, read frame by frame, also when it is damaged.
#pragma once

#include "continuum/archive_directory.hpp"
#include "continuum/archive_format.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace continuum {

// A file as it was long when it was opened, read through a window.
class SegmentFile {
 public:
  // `ahead_bytes`: how much is read at once when nobody asks for more.
  SegmentFile(const PartitionDirectory& directory, Offset first, std::size_t ahead_bytes);

  [[nodiscard]] Offset first() const { return first_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  // Fewer bytes at the end of the file. Valid until the next call. Throws Error{server} for what the disk
  // refuses.
  [[nodiscard]] std::string_view read(std::uint64_t position, std::size_t count);
  // What was asked of the operating system.
  [[nodiscard]] std::uint64_t bytes_read() const { return bytes_read_; }

 private:
  Offset first_;
  std::string path_;
  Descriptor file_;
  std::size_t ahead_bytes_;
  std::uint64_t bytes_ = 0;
  std::uint64_t bytes_read_ = 0;
  std::string window_;
  std::uint64_t window_at_ = 0;
};

struct ArchivedFrame {
  std::uint64_t position = 0;  // of its header
  std::uint32_t header_bytes = 0;
  FrameHeader header;

  [[nodiscard]] std::uint64_t data_position() const { return position + header_bytes; }
  [[nodiscard]] std::uint64_t end() const { return data_position() + header.frame_bytes; }
};

struct SegmentDamage {
  enum class Kind : std::uint8_t {
    damaged,  // the bytes are not those that were written
    hole,     // events are missing between two sound frames
    foreign,  // of another archive, another offset than the name says, or a newer version
    tail,     // no sound frame follows: cut off while it was written, or damaged
  };
  Kind kind = Kind::damaged;
  // The events that are lost with it; up to the next segment, or nobody knows, when `to` is not there.
  Offset from;
  std::optional<Offset> to;
  std::uint64_t position = 0;
  std::uint64_t bytes = 0;
  std::string why;
};
// "offsets 17 to 20", "offset 17", "from offset 17 on", "no event, before offset 17" (such as a barrier).
[[nodiscard]] std::string range_text(Offset from, const std::optional<Offset>& to);

// Goes from header to header. Behind a damaged one it looks for the next that is sound.
class SegmentScanner {
 public:
  // `file` and `identity` outlive it. Begins with the frame at `position`, whose first event is `expected`.
  SegmentScanner(SegmentFile& file, const ArchiveIdentity& identity, std::uint64_t position, Offset expected);

  struct End {};
  using Item = std::variant<End, ArchivedFrame, SegmentDamage>;
  [[nodiscard]] Item next();
  // The frame's bytes, valid until the next call here; nullopt when they are not those that were written. Its
  // damage is told by damage_of().
  [[nodiscard]] std::optional<std::string_view> data(const ArchivedFrame& frame);
  [[nodiscard]] static SegmentDamage damage_of(const ArchivedFrame& frame);

 private:
  struct Look {
    HeaderRead read = HeaderRead::damaged;
    bool ours = false;
    ArchivedFrame frame;
    ArchiveIdentity identity;
  };
  [[nodiscard]] Look look_at(std::uint64_t position);
  [[nodiscard]] std::optional<ArchivedFrame> find_from(std::uint64_t position);
  [[nodiscard]] Item take(ArchivedFrame frame);
  [[nodiscard]] SegmentDamage damage_at(const Look& look);

  SegmentFile& file_;
  const ArchiveIdentity& identity_;
  std::uint64_t position_;
  Offset expected_;
  std::optional<std::uint64_t> suspect_;  // where the data of a damaged frame begin, if it was the last one
  std::optional<ArchivedFrame> found_;    // behind damage
};

}  // namespace continuum
