#include "continuum/topic_archive.hpp"

#include "continuum/archive_check.hpp"
#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <algorithm>
#include <utility>

namespace continuum {

namespace {

// Fewer are read before threads have started.
constexpr std::uint64_t ahead_from_events = 50'000;
constexpr unsigned ahead_threads = 2;
// From the disk, by all readings together and by each.
constexpr std::size_t ahead_bytes_all = std::size_t{64} << 20;
constexpr std::size_t ahead_bytes_min = 64 << 10;
constexpr std::size_t ahead_bytes_max = 1 << 20;
constexpr std::size_t few_bytes = 4096;
// What is handed over at once: worth a wake-up, and still in a cache.
constexpr std::size_t batch_bytes = 256 << 10;
constexpr std::size_t batch_entries_max = 8192;

ArchiveChoice choice_with(ArchiveChoice choice, ArchiveIndexes& indexes, std::size_t ahead_bytes) {
  choice.indexes = &indexes;
  choice.ahead_bytes = ahead_bytes;
  return choice;
}

}  // namespace

TopicArchive::TopicArchive(const std::string& path, const Topic& topic,
                           const std::vector<Partition>& partitions)
    : directory_(path),
      topic_(topic.name),
      log_id_(topic.log_id),
      ahead_bytes_(std::clamp(ahead_bytes_all / std::max<std::size_t>(1, partitions.size()), ahead_bytes_min,
                              ahead_bytes_max)) {
  // Before it is looked for the partitions, for its messages.
  const auto archived = choose_partitions(directory_, {.topics = {topic_}});
  const auto foreign = directory_.foreign_partitions(topic_);
  for (const Partition partition : partitions) {
    if (std::ranges::find(foreign, partition) != foreign.end()) {
      fail(ErrorKind::usage,
           "{}/{}/{} is no directory, or a symbolic link to one: in an archive neither is followed",
           printable(path), topic_, partition);
    }
    if (std::ranges::find(archived, std::pair(topic_, partition)) == archived.end()) {
      continue;
    }
    const Reading reading(*this, partition, {});
    if (const auto first = reading.reader_.first_offset()) {
      first_.emplace(partition, *first);
    }
  }
}

std::optional<Offset> TopicArchive::first(Partition partition) const {
  const auto found = first_.find(partition);
  return found == first_.end() ? std::nullopt : std::optional(found->second);
}

std::string TopicArchive::place_of(Partition partition) const {
  return fmt::format("{}/{}/{}", printable(directory_.path()), topic_, partition);
}

Offset TopicArchive::find(Partition partition, SystemTime time, Offset end) {
  Reading reading(*this, partition, {.to = end, .since = time});
  const auto entry = reading.next();
  return entry ? std::min(entry->first, end) : end;
}

SystemTime TopicArchive::first_time(Partition partition) {
  Reading reading(*this, partition, {});
  const auto entry = reading.next();
  if (!entry) {
    fail(ErrorKind::loss, "{}: its first segment cannot be read", place_of(partition));
  }
  return SystemTime(Milliseconds(static_cast<std::int64_t>(entry->id.milliseconds)));
}

std::optional<EntryId> TopicArchive::entry_of(Partition partition, Offset first) {
  try {
    Reading reading(*this, partition, {.from = first});
    auto entry = reading.next();
    while (entry && entry->barrier() && entry->first == first) {
      entry = reading.next();
    }
    return entry && entry->first == first ? std::optional(entry->id) : std::nullopt;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::loss) {
      throw;
    }
    return std::nullopt;
  }
}

std::uint64_t TopicArchive::bytes_read() const {
  std::uint64_t bytes = bytes_read_;
  for (const Reading* reading : readings_) {
    bytes += reading->bytes_read_;
  }
  return bytes;
}

// --- reading

TopicArchive::Reading::Reading(TopicArchive& archive, Partition partition, ArchiveChoice choice)
    : archive_(archive),
      reads_ahead_(choice.from && choice.to && *choice.to >= *choice.from + ahead_from_events && !choice.key),
      reader_(
          archive.directory_, archive.topic_, partition, archive.log_id_,
          choice_with(std::move(choice), archive.indexes_, reads_ahead_ ? archive.ahead_bytes_ : few_bytes)) {
  if (reads_ahead_ && !archive_.pool_) {
    archive_.pool_.emplace(ahead_threads);
  }
  archive_.readings_.push_back(this);
}

TopicArchive::Reading::~Reading() {
  wait();
  archive_.bytes_read_ += reader_.bytes_read();
  std::erase(archive_.readings_, this);
}

std::optional<ArchivedEntry> TopicArchive::Reading::next() {
  if (!reads_ahead_) {
    auto entry = reader_.next();
    bytes_read_ = reader_.bytes_read();
    return entry;
  }
  while (at_ == present_.entries.size()) {
    if (present_.error) {
      std::rethrow_exception(std::exchange(present_.error, nullptr));
    }
    if (present_.at_end) {
      return std::nullopt;
    }
    if (!is_ahead_) {
      fill_ahead();
    }
    wait();
    std::swap(present_, following_);
    at_ = 0;
    line_at_ = 0;
    is_ahead_ = false;
    if (!present_.at_end && !present_.error) {
      fill_ahead();
    }
  }
  ArchivedEntry entry = present_.entries[at_++];
  entry.lines = std::string_view(present_.lines).substr(line_at_, entry.lines.size());
  line_at_ += entry.lines.size();
  return entry;
}

void TopicArchive::Reading::fill_ahead() {
  is_ahead_ = true;
  filling_ = true;
  archive_.pool_->submit([this] {
    fill(following_);
    const std::lock_guard lock(mutex_);
    filling_ = false;
    filled_.notify_one();
  });
}

void TopicArchive::Reading::wait() {
  std::unique_lock lock(mutex_);
  filled_.wait(lock, [this] { return !filling_; });
}

void TopicArchive::Reading::fill(Batch& batch) noexcept {
  batch.entries.clear();
  batch.lines.clear();
  try {
    while (batch.lines.size() < batch_bytes && batch.entries.size() < batch_entries_max) {
      const auto entry = reader_.next();
      if (!entry) {
        batch.at_end = true;
        break;
      }
      batch.entries.push_back(*entry);
      // Nobody asks for what else the reader shows of it.
      batch.entries.back().producer = batch.entries.back().digest = batch.entries.back().frame = {};
      batch.lines.append(entry->lines);
    }
  } catch (...) {
    batch.error = std::current_exception();
  }
  bytes_read_ = reader_.bytes_read();
}

}  // namespace continuum
