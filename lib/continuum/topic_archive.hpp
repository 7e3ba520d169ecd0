// The archive of a topic beside its logs: what a log does not have any more is read there. Private to the
// library.
#pragma once

#include "continuum/archive_reader.hpp"
#include "continuum/decode_pool.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace continuum {

class TopicArchive {
 public:
  // Throws Error{usage} when `path` is no archive of the topic, and Error{loss} when one of those partitions
  // is archived from another log. A partition that is not there has not been archived yet.
  TopicArchive(const std::string& path, const Topic& topic, const std::vector<Partition>& partitions);

  // Of the oldest event that is kept of a partition; nullopt when nothing is.
  [[nodiscard]] std::optional<Offset> first(Partition partition) const;
  // Where that is, or would be. Printable.
  [[nodiscard]] std::string place_of(Partition partition) const;

  // The following need a partition of which something is kept. All throw Error{loss} for what is damaged.

  // The offset at which the first entry begins whose time is not before `time`, or `end` when all of those
  // before `end` are older. Throws Error{loss} also when that cannot be said: the archive does not reach
  // `end`.
  [[nodiscard]] Offset find(Partition partition, SystemTime time, Offset end);
  // Of its oldest entry.
  [[nodiscard]] SystemTime first_time(Partition partition);
  // Of the entry whose first event that is; nullopt when there is none, or it is damaged.
  [[nodiscard]] std::optional<EntryId> entry_of(Partition partition, Offset first);

  // The entries that overlap [from, to), all of them; of a key, those that can hold it. Long ranges are read,
  // decompressed and checked by other threads, ahead of who asks for them.
  class Reading {
   public:
    Reading(TopicArchive& archive, Partition partition, ArchiveChoice choice);
    ~Reading();
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;
    // As ArchiveReader::next(), but for frames and producers.
    [[nodiscard]] std::optional<ArchivedEntry> next();

   private:
    friend class TopicArchive;
    struct Batch {
      std::vector<ArchivedEntry> entries;  // of their lines only the sizes hold
      std::string lines;
      bool at_end = false;
      std::exception_ptr error;  // after the entries
    };
    void fill(Batch& batch) noexcept;
    void fill_ahead();
    void wait();

    TopicArchive& archive_;
    const bool reads_ahead_;
    ArchiveReader reader_;  // of the one who fills a batch
    std::atomic<std::uint64_t> bytes_read_ = 0;
    Batch present_;
    std::size_t at_ = 0;  // in present_.entries
    std::size_t line_at_ = 0;
    Batch following_;
    std::mutex mutex_;
    std::condition_variable filled_;
    bool filling_ = false;
    bool is_ahead_ = false;  // following_ is filled, or being filled
  };

  // Of the disk, by all readings.
  [[nodiscard]] std::uint64_t bytes_read() const;

 private:
  ArchiveDirectory directory_;
  const std::string topic_;
  const std::string log_id_;
  const std::size_t ahead_bytes_;  // of each reading that reads ahead
  ArchiveIndexes indexes_;
  std::map<Partition, Offset> first_;
  std::optional<DecodePool> pool_;  // once it is needed
  std::uint64_t bytes_read_ = 0;    // by those that are over
  std::vector<const Reading*> readings_;
};

}  // namespace continuum
