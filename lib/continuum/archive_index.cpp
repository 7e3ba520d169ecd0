#include "continuum/archive_index.hpp"

#include "continuum/error.hpp"
#include "continuum/frame.hpp"
#include "continuum/little_endian.hpp"
#include "continuum/names.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <concepts>
#include <cstring>

namespace continuum {

namespace {

constexpr std::string_view magic = "CIX1";
constexpr std::size_t hash_bytes = 8;
constexpr std::size_t record_fixed_bytes = 68;  // without the filter
// A frame has at most frame_events_max keys, of ten bits each.
constexpr std::size_t record_bytes_max = record_fixed_bytes + std::size_t{frame_events_max} * 2;
// What is behind it is read from the segment.
constexpr std::size_t index_bytes_max = std::size_t{128} << 20;
constexpr std::size_t window_bytes = 1 << 20;

template <std::unsigned_integral T>
T take(std::string_view& rest) {
  const T value = number_at<T>(rest);
  rest.remove_prefix(sizeof(T));
  return value;
}

SystemTime time_of(std::uint64_t milliseconds) {
  return SystemTime(Milliseconds(static_cast<std::int64_t>(milliseconds)));
}

std::size_t read_all(int fd, char* to, std::size_t count) {
  std::size_t have = 0;
  while (have < count) {
    const ssize_t got = read(fd, to + have, count - have);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      break;
    }
    have += static_cast<std::size_t>(got);
  }
  return have;
}

// The record at the start of `bytes`, or nothing when it is not whole. Takes it off.
std::optional<IndexRecord> take_record(std::string_view& bytes) {
  if (bytes.size() < record_fixed_bytes) {
    return std::nullopt;
  }
  std::string_view rest = bytes;
  const auto size = take<std::uint32_t>(rest);
  if (size < record_fixed_bytes || size > record_bytes_max || size > bytes.size()) {
    return std::nullopt;
  }
  std::string_view stored = bytes.substr(size - hash_bytes, hash_bytes);
  if (take<std::uint64_t>(stored) != archive_hash(bytes.substr(0, size - hash_bytes))) {
    return std::nullopt;
  }
  IndexRecord record;
  record.position = take<std::uint64_t>(rest);
  record.header_bytes = take<std::uint32_t>(rest);
  record.frame_bytes = take<std::uint32_t>(rest);
  record.header_hash = take<std::uint64_t>(rest);
  record.first = Offset(take<std::uint64_t>(rest));
  record.events = take<std::uint32_t>(rest);
  record.generation = Generation(take<std::uint32_t>(rest));
  record.first_time = time_of(take<std::uint64_t>(rest));
  record.last_time = time_of(take<std::uint64_t>(rest));
  record.filter = rest.substr(0, size - record_fixed_bytes);
  bytes.remove_prefix(size);
  return record;
}

// Whether the segment has that frame there.
bool is_in(const IndexRecord& record, SegmentFile& segment) {
  const std::string_view bytes = segment.read(record.position, record.header_bytes);
  if (bytes.size() != record.header_bytes || bytes.size() < hash_bytes || record.end() > segment.bytes()) {
    return false;
  }
  std::string_view hash = bytes.substr(bytes.size() - hash_bytes);
  return take<std::uint64_t>(hash) == record.header_hash;
}

// Appends the records of the frames from `position` on. Returns where they end.
std::uint64_t append_records(std::string& out, SegmentFile& segment, const ArchiveIdentity& identity,
                             std::uint64_t position, Offset expected) {
  SegmentScanner scanner(segment, identity, position, expected);
  FrameDecoder decoder;
  std::string lines;
  for (;;) {
    const auto item = scanner.next();
    const auto* frame = std::get_if<ArchivedFrame>(&item);
    if (frame == nullptr) {
      return position;
    }
    const auto data = scanner.data(*frame);
    if (!data) {
      return position;
    }
    std::string filter;
    if (!frame->header.barrier()) {
      try {
        decoder.decode(Encoding::zstd, *data, frame->header.events, lines);
      } catch (const Error&) {
        return position;
      }
      filter = key_filter_of(lines);
    }
    append_record(out, *frame, filter);
    position = frame->end();
  }
}

}  // namespace

SystemTime first_time(const FrameHeader& header) {
  return time_of(header.entries.front().id.milliseconds);
}

SystemTime last_time(const FrameHeader& header) {
  return time_of(header.entries.back().id.milliseconds);
}

std::string index_head(const ArchiveIdentity& identity, Offset first) {
  std::string out(magic);
  put_number(out, identity.partition.value);
  out += identity.log_id;
  out += identity.archive_id;
  put_number(out, first.value);
  put_number(out, archive_hash(out));
  return out;
}

void append_record(std::string& out, const ArchivedFrame& frame, std::string_view filter) {
  const FrameHeader& header = frame.header;
  const std::size_t start = out.size();
  put_number(out, static_cast<std::uint32_t>(record_fixed_bytes + filter.size()));
  put_number(out, frame.position);
  put_number(out, frame.header_bytes);
  put_number(out, header.frame_bytes);
  put_number(out, header.hash);
  put_number(out, header.first.value);
  put_number(out, header.events);
  put_number(out, header.generation.value);
  put_number(out, header.entries.front().id.milliseconds);
  put_number(out, header.entries.back().id.milliseconds);
  out += filter;
  put_number(out, archive_hash(std::string_view(out).substr(start)));
}

// As long as it is an index: the size that a file says it has is not believed.
std::string read_index(const PartitionDirectory& directory, const ArchiveIdentity& identity, Offset first) {
  const std::string name = PartitionDirectory::index_name(first);
  if (!directory.exists(name)) {
    return {};
  }
  Descriptor file;
  try {
    file = directory.open(name, PartitionDirectory::Access::read);
  } catch (const Error&) {
    return {};
  }
  const std::string head = index_head(identity, first);
  std::string bytes;
  std::size_t sound = 0;
  for (;;) {
    const std::size_t before = bytes.size();
    bytes.resize(before + window_bytes);
    bytes.resize(before + read_all(file.get(), bytes.data() + before, window_bytes));
    if (sound == 0 && !bytes.starts_with(head)) {
      return bytes;
    }
    sound = std::max(sound, head.size());
    std::string_view rest = std::string_view(bytes).substr(sound);
    while (take_record(rest)) {
    }
    sound = bytes.size() - rest.size();
    if (bytes.size() < before + window_bytes || rest.size() > record_bytes_max ||
        bytes.size() >= index_bytes_max) {
      return bytes;
    }
  }
}

IndexedEnd indexed_end(std::string_view index, const ArchiveIdentity& identity, Offset first,
                       std::uint64_t segment_bytes) {
  IndexedEnd end{0, first};
  const std::string head = index_head(identity, first);
  if (!index.starts_with(head)) {
    return end;
  }
  index.remove_prefix(head.size());
  for (auto record = take_record(index);
       record && record->position == end.bytes && record->end() <= segment_bytes;
       record = take_record(index)) {
    end = {record->end(), record->next()};
  }
  return end;
}

std::string cut_off_text(std::uint64_t segment_bytes, const IndexedEnd& known) {
  return fmt::format(
      "the file ends with byte {}, and its index has records of {}, up to offset {}: it was cut off, or "
      "copied "
      "before its index was",
      segment_bytes, known.bytes, known.next);
}

SegmentIndex::SegmentIndex(const PartitionDirectory& directory, const ArchiveIdentity& identity,
                           SegmentFile& segment)
    : first_(segment.first()), bytes_(read_index(directory, identity, segment.first())) {
  const std::string head = index_head(identity, first_);
  if (!bytes_.starts_with(head)) {
    return;
  }
  std::string_view rest = std::string_view(bytes_).substr(head.size());
  sound_bytes_ = head.size();
  while (auto record = take_record(rest)) {
    if (record->position != covered_bytes() || record->first != next() || record->end() > segment.bytes()) {
      break;
    }
    records_.push_back(*record);
    sound_bytes_ = bytes_.size() - rest.size();
  }
  if (!records_.empty() && !is_in(records_.back(), segment)) {
    records_.clear();
    sound_bytes_ = 0;
  }
}

MadeIndex make_index(SegmentFile& segment, const ArchiveIdentity& identity) {
  MadeIndex made{index_head(identity, segment.first()), 0};
  made.covered_bytes = append_records(made.bytes, segment, identity, 0, segment.first());
  return made;
}

void complete_index(const PartitionDirectory& directory, const ArchiveIdentity& identity, Offset first) {
  SegmentFile segment(directory, first, window_bytes);
  const SegmentIndex index(directory, identity, segment);
  if (index.sound_bytes() > 0 && index.sound_bytes() == index.bytes().size() &&
      index.covered_bytes() == segment.bytes()) {
    return;
  }
  std::string bytes = index.bytes().substr(0, static_cast<std::size_t>(index.sound_bytes()));
  if (bytes.empty()) {
    bytes = index_head(identity, first);
  }
  (void)append_records(bytes, segment, identity, index.covered_bytes(), index.next());
  directory.remove(PartitionDirectory::new_name);
  {
    const Descriptor file = directory.open(PartitionDirectory::new_name, PartitionDirectory::Access::create);
    if (const int error = write_all(file.get(), bytes); error != 0) {
      directory.remove(PartitionDirectory::new_name);
      fail(ErrorKind::server, "cannot write {}: {}",
           printable(directory.path_of(PartitionDirectory::index_name(first))), std::strerror(error));
    }
  }
  directory.rename(PartitionDirectory::new_name, PartitionDirectory::index_name(first));
}

}  // namespace continuum
