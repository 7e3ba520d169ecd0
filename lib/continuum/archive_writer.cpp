#include "continuum/archive_writer.hpp"

#include "continuum/archive_index.hpp"
#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace continuum {

namespace {

// Frames of at least as many bytes of lines are taken as they are; smaller ones are gathered up to the second
// limit, since a frame for itself would compress them badly.
constexpr std::size_t whole_from_bytes = 32 << 10;
constexpr std::size_t gathered_bytes_max = 256 << 10;
constexpr int gathered_level = 3;
constexpr std::size_t gathered_producers_max = 1024;  // names may be long, and a header has a limit
constexpr std::size_t producer_name_bytes_max = 1024;
constexpr std::size_t digest_bytes_max = 64;

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};

class Compressor {
 public:
  Compressor() {
    check(context_ != nullptr && set(ZSTD_c_compressionLevel, gathered_level) &&
              set(ZSTD_c_contentSizeFlag, 1) && set(ZSTD_c_checksumFlag, 1),
          "zstd takes its settings");
  }

  std::string_view compress(std::string_view lines) {
    bytes_.resize(std::max(bytes_.size(), ZSTD_compressBound(lines.size())));
    const std::size_t size =
        ZSTD_compress2(context_.get(), bytes_.data(), bytes_.size(), lines.data(), lines.size());
    check(ZSTD_isError(size) == 0, "zstd compresses into a buffer that is large enough");
    return std::string_view(bytes_).substr(0, size);
  }

 private:
  bool set(ZSTD_cParameter parameter, int value) {
    return ZSTD_isError(ZSTD_CCtx_setParameter(context_.get(), parameter, value)) == 0;
  }

  std::unique_ptr<ZSTD_CCtx, FreeContext> context_{ZSTD_createCCtx()};
  std::string bytes_;
};

// A frame that is not durable yet: its header and bytes are in `pending`.
struct PendingFrame {
  ArchivedFrame frame;  // its position counts from the beginning of `pending`
  std::string filter;
};

// The segment that is written to.
struct Open {
  Descriptor file;
  Offset first;
  std::uint64_t bytes = 0;  // durable
  std::optional<SystemTime> first_event;
  std::string barriers;  // all that is in it, as long as it holds no event
};

// The end of a segment that comes again behind it.
struct Leftover {
  Offset segment;
  std::uint64_t from_byte = 0;
  Offset until;
};

}  // namespace

struct ArchiveWriter::Impl {
  Impl(const std::string& archive, std::string_view topic, Partition partition, std::string_view log_id,
       const ArchiveResume& resume, ArchiveOptions given)
      : options(given), directory(PartitionDirectory::create(archive, topic, partition, log_id)) {
    auto held = directory.lock();
    if (!held) {
      fail(ErrorKind::fenced, "{} is being written by another process: an archive has one writer",
           printable(directory.path()));
    }
    lock = std::move(*held);
    const auto known = directory.identity();
    check(known.has_value(), "an archive that was made has an identity");
    identity = *known;
    if (identity.log_id != log_id) {
      fail(ErrorKind::loss,
           "{} is the archive of log {}, and {} now has log {}: the topic was dropped and created anew, or "
           "it is "
           "another server's. Name another directory for --archive",
           printable(directory.path()), identity.log_id, place(topic, partition), log_id);
    }
    recovered.archive_id = identity.archive_id;
    recover(resume);
  }

  void recover(const ArchiveResume& resume) {
    ArchiveEnd found = recover_archive(directory, identity, resume);
    recovered.said = std::move(found.said);
    recovered.lost = std::move(found.lost);
    if (!found.last) {
      return;
    }
    recovered.end = ArchiveMark{found.last->next(), found.last->entries.back().id, found.last->generation};
    durable = appended = recovered.end;
    segment.emplace();
    segment->first = found.segment;
    segment->bytes = found.bytes;
    segment->first_event = found.first_event;
    segment->barriers = std::move(found.barriers);
    segment->file =
        directory.open(PartitionDirectory::segment_name(found.segment), PartitionDirectory::Access::append);
    // What another process wrote, and did not sync before it was killed.
    if (sync_file(segment->file.get()) != 0) {
      fail(ErrorKind::server, "cannot sync {}: {}",
           printable(directory.path_of(PartitionDirectory::segment_name(found.segment))),
           std::strerror(errno));
    }
    directory.sync();
    if (found.again_until) {
      broken = true;
      leftover = Leftover{found.segment, found.bytes, *found.again_until};
    } else {
      index_segment(segment->first);
    }
  }

  [[nodiscard]] int sync_file(int fd) const { return options.sync != nullptr ? options.sync(fd) : fsync(fd); }

  // An index can be made at any time: what the disk does not take now is read from the segment.
  void index_segment(Offset first) const {
    try {
      complete_index(directory, identity, first);
    } catch (const Error&) {
      return;
    }
  }

  // --- taking entries

  [[nodiscard]] std::string at(const Entry& entry) const {
    return fmt::format("{} (entry {})", place(directory.topic(), directory.partition()), entry.id.text());
  }

  bool is_known(const Entry& entry) const {
    if (!appended || entry.id > appended->entry) {
      return false;
    }
    if (entry.next() > appended->next) {
      fail(ErrorKind::loss,
           "{}: its events end at offset {}, but the archive {}, which has it, ends at {}: the log is not "
           "the one "
           "that was archived",
           at(entry), entry.next(), printable(directory.path()), appended->next);
    }
    return true;
  }

  void require_next(const Entry& entry) const {
    if (appended && (entry.first != appended->next || entry.generation < appended->generation)) {
      fail(ErrorKind::loss,
           "{}: its first offset is {} (generation {}), and the archive {} ends at {} (generation {}): what "
           "is "
           "between them is missing in the log",
           at(entry), entry.first, entry.generation, printable(directory.path()), appended->next,
           appended->generation);
    }
    if (entry.id.milliseconds > number_max || entry.producer.size() > producer_name_bytes_max ||
        entry.digest.size() > digest_bytes_max) {
      fail(ErrorKind::loss, "{}: its id, or its producer, is longer than any that Continuum writes",
           at(entry));
    }
  }

  void take_barrier(const Entry& entry) {
    flush_gathered();
    FrameHeader header;
    header.generation = entry.generation;
    header.first = entry.first;
    header.entries.push_back({entry.id, 0});
    add(std::move(header), {}, {});
  }

  void take_events(const Entry& entry) {
    decode_entry(decoder, entry, directory.topic(), directory.partition(), lines);
    if (entry.encoding == Encoding::zstd && lines.size() >= whole_from_bytes) {
      flush_gathered();
      FrameHeader header = begin_header(entry);
      note_entry(header, entry);
      add(std::move(header), entry.frame, key_filter_of(lines));
      return;
    }
    if (!gathered.entries.empty() &&
        (gathered_lines.size() + lines.size() > gathered_bytes_max ||
         gathered.generation != entry.generation || gathered.entries.size() == gathered_entries_max ||
         gathered.producers.size() == gathered_producers_max ||
         gathered.events + entry.events > frame_events_max)) {
      flush_gathered();
    }
    if (gathered.entries.empty()) {
      gathered = begin_header(entry);
    }
    note_entry(gathered, entry);
    gathered_lines += lines;
  }

  static FrameHeader begin_header(const Entry& entry) {
    FrameHeader header;
    header.generation = entry.generation;
    header.first = entry.first;
    return header;
  }

  static void note_entry(FrameHeader& header, const Entry& entry) {
    header.entries.push_back({entry.id, entry.events});
    header.events += entry.events;
    if (entry.producer.empty()) {
      return;
    }
    auto found = std::ranges::find(header.producers, entry.producer, &FrameHeader::Producer::name);
    if (found == header.producers.end()) {
      found = header.producers.insert(found, {std::string(entry.producer), {}, {}, 0});
    }
    found->position = entry.position;
    found->digest = entry.digest;
    found->entry = static_cast<std::uint32_t>(header.entries.size() - 1);
  }

  void flush_gathered() {
    if (gathered.entries.empty()) {
      return;
    }
    std::string filter = key_filter_of(gathered_lines);
    add(std::exchange(gathered, {}), compressor.compress(gathered_lines), std::move(filter));
    gathered_lines.clear();
  }

  void add(FrameHeader header, std::string_view frame, std::string filter) {
    header.frame_bytes = static_cast<std::uint32_t>(frame.size());
    header.frame_hash = frame.empty() ? 0 : archive_hash(frame);
    PendingFrame added;
    added.frame.position = pending.size();
    append_header(pending, identity, header);
    added.frame.header_bytes = static_cast<std::uint32_t>(pending.size() - added.frame.position);
    added.frame.header = std::move(header);
    added.filter = std::move(filter);
    pending += frame;
    frames.push_back(std::move(added));
  }

  // --- writing

  [[nodiscard]] bool is_due() const {
    if (!segment->first_event) {
      return false;
    }
    return segment->bytes >= options.segment_bytes ||
           first_time(frames.front().frame.header) - *segment->first_event >= options.segment_time;
  }

  // All in front of `bytes_written` stays valid when it fails.
  void write_pending() {
    const Offset first = frames.front().frame.header.first;
    if (segment && !broken && !is_due()) {
      write_to(segment->file.get(), PartitionDirectory::segment_name(segment->first), pending);
      return;
    }
    // A segment in which no event is durable has the name that its successor needs: that one takes its place.
    const bool instead = segment && segment->first == first;
    const std::string name = PartitionDirectory::segment_name(first);
    const std::string made = instead ? PartitionDirectory::new_name : name;
    Open next;
    next.first = first;
    next.barriers = instead ? segment->barriers : std::string();
    next.bytes = next.barriers.size();
    if (instead || unfinished == first) {
      directory.remove(made);
    }
    // One may be left of a segment that somebody moved away.
    directory.remove(PartitionDirectory::index_name(first));
    next.file = directory.open(made, PartitionDirectory::Access::create);
    unfinished = first;
    try {
      write_to(next.file.get(), made, next.barriers + pending);
      if (instead) {
        directory.rename(made, name);
      }
      directory.sync();
    } catch (const Error&) {
      drop(made);
      throw;
    }
    unfinished.reset();
    broken = false;
    segment = std::move(next);
  }

  void write_to(int fd, const std::string& name, std::string_view bytes) const {
    if (const int error = write_all(fd, bytes); error != 0) {
      refuse("write", name, error);
    }
    if (sync_file(fd) != 0) {
      refuse("sync", name, errno);
    }
  }

  [[noreturn]] void refuse(std::string_view doing, const std::string& name, int error) const {
    fail(ErrorKind::server,
         "cannot {} {}: {}. The archive of {} is safe up to offset {}; what follows stays in Redis until "
         "there is "
         "room on a disk that works",
         doing, printable(directory.path_of(name)), std::strerror(error),
         place(directory.topic(), directory.partition()), durable ? durable->next : Offset(0));
  }

  // Of a new segment that failed. Also of its name nothing is left, or the next attempt removes it.
  void drop(const std::string& name) const noexcept {
    try {
      directory.remove(name);
    } catch (const Error&) {
      return;
    }
  }

  // After the segment is durable. What the disk does not take is read from the segment.
  void append_index() const {
    const std::string name = PartitionDirectory::index_name(segment->first);
    const bool fresh = !directory.exists(name);
    if (fresh && segment->bytes > 0) {
      index_segment(segment->first);
      return;
    }
    std::string records = fresh ? index_head(identity, segment->first) : std::string();
    for (const auto& added : frames) {
      ArchivedFrame frame = added.frame;
      frame.position += segment->bytes;
      append_record(records, frame, added.filter);
    }
    try {
      const Descriptor file = directory.open(
          name, fresh ? PartitionDirectory::Access::create : PartitionDirectory::Access::append);
      if (write_all(file.get(), records) != 0) {
        directory.remove(name);  // half a record would be a lie
      }
    } catch (const Error&) {
      return;
    }
  }

  void sync() {
    flush_gathered();
    if (frames.empty()) {
      return;
    }
    try {
      write_pending();
    } catch (const Error&) {
      abandon_segment();
      throw;
    }
    append_index();
    for (const auto& written : frames) {
      const FrameHeader& header = written.frame.header;
      if (!header.barrier() && !segment->first_event) {
        segment->first_event = first_time(header);
      }
    }
    if (segment->first_event) {
      segment->barriers.clear();
    } else {
      segment->barriers += pending;
    }
    segment->bytes += pending.size();
    durable = appended;
    pending.clear();
    frames.clear();
    if (leftover && durable->next >= leftover->until) {
      cut_leftover();
    }
  }

  // So that the files read one after the other have every event once. Where it fails, readers pass over it.
  void cut_leftover() {
    const Leftover cut = *std::exchange(leftover, std::nullopt);
    if (segment->first == cut.segment) {
      return;  // this one took its place
    }
    try {
      const Descriptor file =
          directory.open(PartitionDirectory::segment_name(cut.segment), PartitionDirectory::Access::append);
      if (ftruncate(file.get(), static_cast<off_t>(cut.from_byte)) == 0) {
        index_segment(cut.segment);
      }
    } catch (const Error&) {
      return;
    }
  }

  // After an error nobody knows which bytes are on the disk. What was not durable is taken off, so that the
  // files read one after the other have every event once; where that fails too, a reader knows that a segment
  // ends where the next one begins.
  void abandon_segment() {
    if (segment && !unfinished && !broken) {
      broken = true;
      (void)!ftruncate(segment->file.get(), static_cast<off_t>(segment->bytes));
    }
  }

  static constexpr std::size_t gathered_entries_max = 1 << 14;

  ArchiveOptions options;
  PartitionDirectory directory;
  Descriptor lock;
  ArchiveIdentity identity;
  Recovered recovered;
  std::optional<ArchiveMark> appended;
  std::optional<ArchiveMark> durable;

  std::optional<Open> segment;
  bool broken = false;  // nothing more is written to `segment`: a write or an fsync failed, or it is damaged
  std::optional<Leftover> leftover;
  std::optional<Offset> unfinished;  // a segment that could not be made durable when it was new

  std::string pending;
  std::vector<PendingFrame> frames;
  FrameHeader gathered;
  std::string gathered_lines;

  FrameDecoder decoder;
  Compressor compressor;
  std::string lines;
};

ArchiveWriter::ArchiveWriter(const std::string& archive, std::string_view topic, Partition partition,
                             std::string_view log_id, const ArchiveResume& resume, ArchiveOptions options)
    : impl_(std::make_unique<Impl>(archive, topic, partition, log_id, resume, options)) {}

ArchiveWriter::~ArchiveWriter() = default;

const ArchiveWriter::Recovered& ArchiveWriter::recovered() const {
  return impl_->recovered;
}

ArchiveWriter::Taken ArchiveWriter::append(const Entry& entry) {
  check(pending_bytes() < pending_bytes_max, "an archive is synced before it holds too much");
  if (impl_->is_known(entry)) {
    return Taken::known;
  }
  impl_->require_next(entry);
  if (entry.barrier) {
    impl_->take_barrier(entry);
  } else {
    impl_->take_events(entry);
  }
  impl_->appended = ArchiveMark{entry.next(), entry.id, entry.generation};
  return Taken::appended;
}

std::size_t ArchiveWriter::pending_bytes() const {
  return impl_->pending.size() + impl_->gathered_lines.size();
}

std::optional<ArchiveMark> ArchiveWriter::sync() {
  impl_->sync();
  return impl_->durable;
}

std::optional<ArchiveMark> ArchiveWriter::durable() const {
  return impl_->durable;
}

}  // namespace continuum
