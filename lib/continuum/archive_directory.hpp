// The directories and files of an archive. Below DIR no symbolic link is followed, and nothing but
// directories and regular files is opened.
//
//   DIR/TOPIC/topic                                    what the topic is (archive_topic.hpp)
//   DIR/TOPIC/PARTITION/archive                        what this is (below); locked (flock) by its writer
//                       <offset>.ndjson.zst            segments; the offset of the first event, 20 digits
//                       <offset>.index                 of each segment; can be made anew at any time
//                       new, new-<id>                  being made, or left by a crash
//
//   archive = "continuum archive 1" LF "topic " name LF "partition " number LF "log " id LF "archive " id LF
#pragma once

#include "continuum/archive_format.hpp"
#include "continuum/descriptor.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

class ArchiveDirectory {
 public:
  // Throws Error{usage} when it cannot be opened.
  explicit ArchiveDirectory(std::string path);

  [[nodiscard]] const std::string& path() const { return path_; }
  // Ascending: topics, and partitions of them, which have an identity or segments. What else is there is
  // passed over.
  [[nodiscard]] std::vector<std::string> topics() const;
  [[nodiscard]] std::vector<Partition> partitions(std::string_view topic) const;
  // What has the name of a partition of a topic, and is no directory: a symbolic link, for one.
  [[nodiscard]] std::vector<Partition> foreign_partitions(std::string_view topic) const;
  // DIR/TOPIC. Throws Error{usage} when it is not there.
  [[nodiscard]] Descriptor topic_directory(std::string_view topic) const;
  // Made if need be.
  [[nodiscard]] Descriptor make_topic_directory(std::string_view topic) const;

 private:
  friend class PartitionDirectory;
  std::string path_;
  Descriptor fd_;
};

// All throw Error{usage} when a path is not what it must be, Error{server} for what the disk refuses, and
// Error{loss} for what is damaged; each names the path.
class PartitionDirectory {
 public:
  // Throws Error{usage} when it is not there.
  PartitionDirectory(const ArchiveDirectory& archive, std::string_view topic, Partition partition);
  // Makes it if need be: when this returns it is on the disk, with an identity of its own.
  static PartitionDirectory create(const std::string& archive, std::string_view topic, Partition partition,
                                   std::string_view log_id);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::string& topic() const { return topic_; }
  [[nodiscard]] Partition partition() const { return partition_; }

  // From the file `archive`; nullopt when there is none.
  [[nodiscard]] std::optional<ArchiveIdentity> identity() const;
  void write_identity(const ArchiveIdentity& identity) const;
  // Until the descriptor is closed. nullopt when another writer has it.
  [[nodiscard]] std::optional<Descriptor> lock() const;
  // Whether a writer is at work, as far as one can know.
  [[nodiscard]] bool is_locked() const;

  struct Contents {
    std::vector<Offset> segments;         // ascending
    std::vector<Offset> indexes;          // ascending
    std::vector<std::string> unfinished;  // being made, or left by a crash
    std::vector<std::string> foreign;     // names of files that are no part of an archive
  };
  [[nodiscard]] Contents contents() const;

  static std::string segment_name(Offset first);
  static std::string index_name(Offset first);
  static constexpr const char* new_name = "new";
  static constexpr const char* identity_name = "archive";

  enum class Access : std::uint8_t { read, append, create };
  // `create`: it must not exist yet. Throws Error{loss} when it is there and is no regular file.
  [[nodiscard]] Descriptor open(const std::string& name, Access access) const;
  [[nodiscard]] bool exists(const std::string& name) const;
  // Of files that may be absent.
  void remove(const std::string& name) const;
  void rename(const std::string& from, const std::string& to) const;
  void sync() const;
  [[nodiscard]] std::string path_of(std::string_view name) const;

 private:
  PartitionDirectory(std::string path, std::string_view topic, Partition partition);

  std::string path_;
  std::string topic_;
  Partition partition_;
  Descriptor fd_;
};

// Writes all of it. Returns 0 or errno.
[[nodiscard]] int write_all(int fd, std::string_view bytes);

}  // namespace continuum
