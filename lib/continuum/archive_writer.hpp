// Appends the log of one partition to its archive, entry by entry as Redis has them.
//
// append() gathers in memory, sync() writes and makes durable. Whatever fails on the way, nothing is lost
// while this object lives: all that is not durable is kept, a file on which a write or an fsync failed is
// never written to again, and the next sync() goes on in a new segment. For one thread at a time; sync()
// blocks.
#pragma once

#include "continuum/archive_directory.hpp"
#include "continuum/archive_recovery.hpp"
#include "continuum/archive_segment.hpp"
#include "continuum/frame.hpp"
#include "continuum/log.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

struct ArchiveOptions {
  // A segment that has as many bytes, or whose first entry is as much older than the next one, is followed by
  // another.
  std::uint64_t segment_bytes = std::uint64_t{128} << 20;
  Milliseconds segment_time = std::chrono::hours(24);
  // For tests of what a disk does: like fsync(2).
  int (*sync)(int fd) = nullptr;
};

// Everything before `next` is durable, and `entry` is the last entry of it.
struct ArchiveMark {
  Offset next;
  EntryId entry;
  Generation generation;
};

class ArchiveWriter {
 public:
  // Opens DIR/TOPIC/PARTITION, or makes it; DIR itself must be there, since it may be a disk that is not
  // mounted. Finds its end (recover_archive), and what is left is synced. Throws Error{fenced} while another
  // process writes here, and Error{loss} when the archive is of another log, damaged at its end so that
  // nobody can go on, or of a newer version.
  ArchiveWriter(const std::string& archive, std::string_view topic, Partition partition,
                std::string_view log_id, const ArchiveResume& resume, ArchiveOptions options);
  ~ArchiveWriter();
  ArchiveWriter(const ArchiveWriter&) = delete;
  ArchiveWriter& operator=(const ArchiveWriter&) = delete;

  struct Recovered {
    std::string archive_id;
    std::optional<ArchiveMark> end;  // nothing was archived yet: any entry may be the first
    std::vector<std::string> said;   // what was cut or is archived again, each for a person
    std::vector<std::string> lost;   // what stays damaged, likewise
  };
  [[nodiscard]] const Recovered& recovered() const;

  enum class Taken : std::uint8_t { appended, known };
  // `known`: it is archived, or appended, already. The entry's bytes are copied. Throws Error{loss} when it
  // is damaged or does not follow the one before; then nothing of it is taken.
  Taken append(const Entry& entry);
  // What sync() would write. Beyond pending_bytes_max nothing may be appended before a sync.
  [[nodiscard]] std::size_t pending_bytes() const;
  static constexpr std::size_t pending_bytes_max = std::size_t{32} << 20;

  // Returns when all that was appended is durable. Throws Error{server} naming the file when the disk does
  // not take it (full, failing): calling again tries again.
  std::optional<ArchiveMark> sync();
  [[nodiscard]] std::optional<ArchiveMark> durable() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace continuum
