#include "continuum/archive_reader.hpp"

#include "continuum/archive_index.hpp"
#include "continuum/archive_segment.hpp"
#include "continuum/error.hpp"
#include "continuum/frame.hpp"
#include "continuum/names.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

namespace continuum {

namespace {

// When everything is wanted, and when headers are gone over.
constexpr std::size_t stream_bytes = 1 << 20;
constexpr std::size_t header_window_bytes = 4096;

}  // namespace

struct ArchiveReader::Impl {
  Impl(const ArchiveDirectory& archive, std::string_view topic, Partition partition,
       const std::optional<std::string>& log_id, ArchiveChoice chosen)
      : directory(archive, topic, partition),
        choice(std::move(chosen)),
        whole(!choice.since && !choice.until && !choice.key) {
    if (choice.indexes == nullptr) {
      choice.indexes = &own_indexes;
    }
    if (choice.key) {
      key_hash = archive_key_hash(*choice.key);
    }
    const auto known = find_identity(directory);
    if (!known) {
      done = true;  // nothing was archived yet
      return;
    }
    identity = *known;
    if (log_id && identity.log_id != *log_id) {
      fail(ErrorKind::loss,
           "{} is the archive of log {}, and {} has log {}: it is another topic's, or the topic was created "
           "anew",
           printable(directory.path()), identity.log_id, place(topic, partition), *log_id);
    }
    segments = directory.contents().segments;
    if (segments.empty()) {
      done = true;
      return;
    }
    if (choice.from && *choice.from < segments.front()) {
      const Offset end = choice.to ? std::min(*choice.to, segments.front()) : segments.front();
      if (*choice.from < end) {
        pending_loss =
            fmt::format("{}: {} are not kept: the archive begins at offset {}", printable(directory.path()),
                        range_text(*choice.from, end), segments.front());
      }
    }
    begin_at(first_segment());
  }

  // --- which segment

  std::size_t first_segment() {
    if (choice.from) {
      const auto behind = std::ranges::upper_bound(segments, *choice.from);
      return behind == segments.begin() ? 0 : static_cast<std::size_t>(behind - segments.begin()) - 1;
    }
    if (!choice.since) {
      return 0;
    }
    // The last one that begins before that time: entries of one time may lie on both sides of a seam.
    std::size_t low = 0;
    std::size_t high = segments.size();
    while (high - low > 1) {
      const std::size_t middle = low + (high - low) / 2;
      const auto begins = first_time_of(segments[middle]);
      if (!begins) {
        return low;  // damaged: what is there is looked at frame by frame
      }
      (*begins < *choice.since ? low : high) = middle;
    }
    return low;
  }

  std::optional<SystemTime> first_time_of(Offset first) {
    SegmentFile segment(directory, first, header_window_bytes);
    const auto item = SegmentScanner(segment, identity, 0, first).next();
    bytes_read += segment.bytes_read();
    const auto* frame = std::get_if<ArchivedFrame>(&item);
    return frame != nullptr ? std::optional(first_time(frame->header)) : std::nullopt;
  }

  void begin_at(std::size_t which) {
    segment_index = which;
    expected = segments[which];
    open_segment();
  }

  void open_segment() {
    const Offset first = segments[segment_index];
    close_segment();
    file.emplace(directory, first, choice.ahead_bytes.value_or(whole ? stream_bytes : header_window_bytes));
    limit = segment_index + 1 < segments.size() ? std::optional(segments[segment_index + 1]) : std::nullopt;
    record = 0;
    if (!whole || (choice.from && *choice.from > first)) {
      index = choice.indexes->index_of(directory, identity, *file, bytes_read);
    }
    scan_from(index ? index->covered_bytes() : 0, index ? index->next() : first);
  }

  void scan_from(std::uint64_t position, Offset offset) {
    scanner.emplace(*file, identity, position, offset);
  }

  void close_segment() {
    if (file) {
      bytes_read += file->bytes_read();
    }
    scanner.reset();
    index.reset();
    file.reset();
  }

  // --- which frame

  enum class Verdict : std::uint8_t { wanted, passed_over, behind };

  template <class Frame>
  Verdict judge(const Frame& frame, SystemTime begins, SystemTime ends, std::string_view filter) const {
    if ((choice.to && frame.first >= *choice.to) || (choice.until && begins >= *choice.until)) {
      return Verdict::behind;
    }
    const bool early = (choice.from && frame.next() <= *choice.from && frame.events > 0) ||
                       (choice.from && frame.first < *choice.from && frame.events == 0) ||
                       (choice.since && ends < *choice.since);
    return early || (frame.events > 0 && choice.key && !may_hold(filter, key_hash)) ? Verdict::passed_over
                                                                                    : Verdict::wanted;
  }

  // False at the end. Throws for damage among what is wanted.
  bool load_frame() {
    while (!loaded) {
      if (done) {
        return false;
      }
      if (!file) {
        next_segment();  // the one before could not be opened
      } else if (index && record < index->records().size()) {
        load_by_index(index->records()[record]);
      } else {
        load_by_scan();
      }
    }
    return true;
  }

  void load_by_index(IndexRecord next) {
    if (limit && next.events > 0 && next.first >= *limit) {
      next_segment();
      return;
    }
    const Verdict verdict = judge(next, next.first_time, next.last_time, next.filter);
    if (verdict == Verdict::behind) {
      finish(next.first);
      return;
    }
    ++record;
    expected = next.next();
    if (verdict == Verdict::passed_over) {
      return;
    }
    // Header and frame in one read.
    const std::string_view bytes = file->read(next.position, next.header_bytes + next.frame_bytes);
    ArchivedFrame frame{next.position, next.header_bytes, {}};
    ArchiveIdentity found;
    const bool there =
        bytes.size() >= next.header_bytes &&
        read_header(bytes.substr(0, next.header_bytes), found, frame.header) == HeaderRead::sound &&
        found == identity && frame.header.hash == next.header_hash && frame.header.first == next.first &&
        frame.header.events == next.events;
    if (!there) {
      // The index lies, or the segment is damaged here: the segment itself says which.
      index.reset();
      resume = next.first;
      expected = file->first();
      scan_from(0, file->first());
      return;
    }
    load(frame);
  }

  void load_by_scan() {
    const auto item = scanner->next();
    if (const auto* damage = std::get_if<SegmentDamage>(&item)) {
      note(*damage);
      return;
    }
    const auto* frame = std::get_if<ArchivedFrame>(&item);
    if (frame == nullptr) {
      end_of_segment();
      return;
    }
    const FrameHeader& header = frame->header;
    if (limit && !header.barrier() && header.first >= *limit) {
      end_of_segment();
      return;
    }
    expected = header.next();
    const Verdict verdict = judge(header, first_time(header), last_time(header), {});
    if (verdict == Verdict::behind) {
      finish(header.first);
      return;
    }
    const bool known = resume && (header.barrier() ? header.first < *resume : header.next() <= *resume);
    if (verdict == Verdict::passed_over || known) {
      if (choice.since && last_time(header) < *choice.since) {
        noted.reset();  // whatever was damaged before it is older still
      }
      throw_noted(std::nullopt);
      return;
    }
    throw_noted(*frame);
    load(*frame);
  }

  // --- damage

  [[nodiscard]] bool concerns(const SegmentDamage& damage) const {
    if (limit && damage.from >= *limit) {
      return false;  // a writer that went on in the next segment left it
    }
    const std::optional<Offset> end = damage.to ? damage.to : limit;
    return !(choice.to && damage.from >= *choice.to) && !(choice.from && end && *end <= *choice.from) &&
           !(resume && end && *end <= *resume);
  }

  // What is wrong is told with the next sound frame: only its time says whether it was wanted.
  void note(const SegmentDamage& damage) {
    if (!concerns(damage)) {
      return;
    }
    const bool last = !limit && damage.kind == SegmentDamage::Kind::tail;
    if (last && !choice.to) {
      return;  // is being written, or was when its writer died
    }
    if (!noted) {
      noted = fmt::format("{}, {}, byte {}: {}. `continuum archive verify {}` has the whole list",
                          printable(file->path()), range_text(damage.from, damage.to ? damage.to : limit),
                          damage.position, damage.why, printable(archive_path()));
    }
  }

  [[nodiscard]] std::string archive_path() const {
    const std::string& path = directory.path();
    return path.substr(
        0, path.size() - directory.topic().size() - 2 - std::to_string(directory.partition().value).size());
  }

  // `then`: comes with the next call.
  void throw_noted(const std::optional<ArchivedFrame>& then) {
    if (noted) {
      held = then;
      const std::string why = std::move(*noted);
      noted.reset();
      throw Error(ErrorKind::loss, why);
    }
  }

  // --- from segment to segment

  void end_of_segment() {
    if (limit && expected < *limit && !noted &&
        concerns({SegmentDamage::Kind::hole, expected, limit, 0, 0, {}})) {
      noted = fmt::format("{}: {} are missing between {} and the next segment", printable(directory.path()),
                          range_text(expected, limit), printable(file->path()));
    }
    next_segment();
  }

  void next_segment() {
    resume.reset();
    if (segment_index + 1 >= segments.size()) {
      finish(expected);
      return;
    }
    if (choice.to && segments[segment_index + 1] >= *choice.to) {
      finish(segments[segment_index + 1]);
      return;
    }
    begin_at(segment_index + 1);
  }

  void finish(Offset reached) {
    const bool short_of = choice.to && reached < *choice.to && !choice.until;
    done = true;
    close_segment();
    throw_noted(std::nullopt);
    if (short_of) {
      fail(ErrorKind::loss, "{}: {} are missing: the archive ends at offset {}", printable(directory.path()),
           range_text(reached, choice.to), reached);
    }
  }

  // --- entries of a frame

  void load(const ArchivedFrame& frame) {
    if (frame.header.barrier()) {
      lines.clear();
      frame_bytes = {};
    } else {
      const auto data = scanner->data(frame);
      if (!data) {
        SegmentDamage damage = SegmentScanner::damage_of(frame);
        if (concerns(damage)) {
          note(damage);
          throw_noted(std::nullopt);
        }
        return;
      }
      decode(frame, *data);
      frame_bytes = frame.header.entries.size() == 1 ? *data : std::string_view();
    }
    loaded = frame.header;
    producer = 0;
    std::ranges::sort(loaded->producers, {}, &FrameHeader::Producer::entry);
    entry = 0;
    rest = lines;
    at = frame.header.first;
  }

  void decode(const ArchivedFrame& frame, std::string_view data) {
    try {
      decoder.decode(Encoding::zstd, data, frame.header.events, lines);
    } catch (const Error& error) {
      fail(ErrorKind::loss, "{}, {}, byte {}: {}", printable(file->path()),
           range_text(frame.header.first, frame.header.next()), frame.position, error.message());
    }
  }

  std::string_view take_lines(std::uint32_t events) {
    const char* end = rest.data();
    for (std::uint32_t i = 0; i < events; ++i) {
      const auto left = static_cast<std::size_t>(rest.data() + rest.size() - end);
      end = static_cast<const char*>(std::memchr(end, '\n', left)) + 1;
    }
    const std::string_view taken = rest.substr(0, static_cast<std::size_t>(end - rest.data()));
    rest.remove_prefix(taken.size());
    return taken;
  }

  // Of the entry that was taken just now.
  void take_producer(ArchivedEntry& out) {
    if (producer < loaded->producers.size() && loaded->producers[producer].entry == entry - 1) {
      const FrameHeader::Producer& whose = loaded->producers[producer++];
      out.producer = whose.name;
      out.position = whose.position;
      out.digest = whose.digest;
    }
  }

  // The next one of the loaded frame that is wanted.
  std::optional<ArchivedEntry> take_entry() {
    while (loaded && entry < loaded->entries.size()) {
      const auto& held_entry = loaded->entries[entry++];
      const bool last = entry == loaded->entries.size();
      ArchivedEntry out;
      out.id = held_entry.id;
      out.first = at;
      out.events = held_entry.events;
      out.generation = loaded->generation;
      out.lines = last ? rest : take_lines(held_entry.events);
      out.frame = frame_bytes;
      take_producer(out);
      at = out.next();
      const SystemTime time(Milliseconds(static_cast<std::int64_t>(out.id.milliseconds)));
      // A barrier that a writer wrote again when it went on in a new segment.
      const bool again = out.id <= last_id;
      const bool wanted = judge(out, time, time, {}) == Verdict::wanted && (!resume || out.first >= *resume);
      if (wanted && !again) {
        last_id = out.id;
        return out;
      }
    }
    loaded.reset();
    return std::nullopt;
  }

  PartitionDirectory directory;
  ArchiveChoice choice;
  ArchiveIndexes own_indexes;  // when none are shared
  bool whole;                  // by offsets at most
  std::uint64_t key_hash = 0;
  ArchiveIdentity identity;
  std::vector<Offset> segments;
  std::uint64_t bytes_read = 0;

  bool done = false;
  std::size_t segment_index = 0;
  std::optional<Offset> limit;  // where the next segment begins
  std::optional<SegmentFile> file;
  std::shared_ptr<const SegmentIndex> index;
  std::size_t record = 0;  // the next one of the index
  std::optional<SegmentScanner> scanner;
  Offset expected;
  std::optional<Offset> resume;  // what comes before it was read by an index that turned out to be wrong

  std::optional<std::string> pending_loss;
  std::optional<std::string> noted;
  std::optional<ArchivedFrame> held;

  FrameDecoder decoder;
  std::optional<FrameHeader> loaded;
  std::string lines;
  std::size_t entry = 0;
  std::size_t producer = 0;      // the next one, in the order of their entries
  std::string_view frame_bytes;  // of a loaded frame with a single entry
  std::string_view rest;
  Offset at;
  EntryId last_id;
};

std::shared_ptr<const SegmentIndex> ArchiveIndexes::index_of(const PartitionDirectory& directory,
                                                             const ArchiveIdentity& identity,
                                                             SegmentFile& segment,
                                                             std::uint64_t& bytes_read) {
  const std::lock_guard lock(mutex_);
  const std::pair place(directory.partition(), segment.first());
  if (const auto known = indexes_.find(place); known != indexes_.end()) {
    return known->second;
  }
  if (bytes_ >= bytes_max) {
    indexes_.clear();
    bytes_ = 0;
  }
  const auto index = std::make_shared<const SegmentIndex>(directory, identity, segment);
  bytes_read += index->bytes_read();
  bytes_ += index->bytes_read();
  return indexes_[place] = index;
}

ArchiveReader::ArchiveReader(const ArchiveDirectory& archive, std::string_view topic, Partition partition,
                             const std::optional<std::string>& log_id, ArchiveChoice choice)
    : impl_(std::make_unique<Impl>(archive, topic, partition, log_id, std::move(choice))) {}

ArchiveReader::~ArchiveReader() = default;

std::optional<ArchivedEntry> ArchiveReader::next() {
  if (impl_->pending_loss) {
    const std::string why = std::move(*impl_->pending_loss);
    impl_->pending_loss.reset();
    throw Error(ErrorKind::loss, why);
  }
  for (;;) {
    if (auto entry = impl_->take_entry()) {
      return entry;
    }
    if (impl_->held && impl_->file) {
      const ArchivedFrame frame = std::move(*impl_->held);
      impl_->held.reset();
      impl_->load(frame);
    } else if (!impl_->load_frame()) {
      return std::nullopt;
    }
  }
}

std::optional<Offset> ArchiveReader::first_offset() const {
  return impl_->segments.empty() ? std::nullopt : std::optional(impl_->segments.front());
}

std::uint64_t ArchiveReader::bytes_read() const {
  return impl_->bytes_read + (impl_->file ? impl_->file->bytes_read() : 0);
}

std::optional<ArchiveIdentity> find_identity(const PartitionDirectory& directory) {
  if (auto identity = directory.identity()) {
    return identity;
  }
  for (const Offset first : directory.contents().segments) {
    SegmentFile segment(directory, first, header_window_bytes);
    const auto size = header_size(segment.read(0, 8));
    ArchiveIdentity identity;
    FrameHeader header;
    if (size && read_header(segment.read(0, *size), identity, header) == HeaderRead::sound &&
        identity.partition == directory.partition()) {
      return identity;
    }
  }
  return std::nullopt;
}

}  // namespace continuum
