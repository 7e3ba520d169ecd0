// What an archive has of a topic that is to be restored, and whether its parts are there and fit each other.
// Reads files alone, and of those only headers, until entries are read.
#pragma once

#include "continuum/archive_directory.hpp"
#include "continuum/archive_reader.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace continuum {

class RestoreSource {
 public:
  // Throws Error: usage (the archive cannot be read, or has nothing of such a topic, or a symbolic link in
  // its place), loss (what the topic was is missing or too old; the end of a partition is damaged).
  RestoreSource(const std::string& path, const std::string& topic);

  // As the archive knows it: without groups, and maybe without the newest generations of its logs.
  [[nodiscard]] const Topic& topic() const { return topic_; }
  [[nodiscard]] const std::string& path() const { return archive_.path(); }
  // Of which it has entries, ascending.
  [[nodiscard]] const std::vector<Partition>& partitions() const { return partitions_; }
  // Of which it has no whole frame, and should.
  [[nodiscard]] const std::vector<Partition>& missing() const { return missing_; }
  // The path of one that has been begun, of the missing; empty: there is none.
  [[nodiscard]] const std::string& empty_segment() const { return empty_segment_; }
  // The offset behind the last event of a partition, by headers.
  [[nodiscard]] Offset end(Partition partition) const { return ends_.at(partition); }
  // What a person has to know of it, one line each.
  [[nodiscard]] const std::vector<std::string>& notices() const { return notices_; }

  [[nodiscard]] std::unique_ptr<ArchiveReader> read(Partition partition, std::optional<Offset> from) const;
  // Throws Error{loss} when the topic is not known in the entry's generation.
  void require_generation(Partition partition, const ArchivedEntry& entry) const;

 private:
  [[nodiscard]] Topic archived_topic(const std::string& name) const;
  void refuse_foreign(const std::string& topic) const;
  void require_ring(Partition partition) const;
  [[nodiscard]] bool has_segments(Partition partition) const;
  [[nodiscard]] std::optional<Offset> find_end(Partition partition);
  [[nodiscard]] std::string topic_path() const;

  ArchiveDirectory archive_;
  Topic topic_;
  std::vector<Partition> partitions_;
  std::vector<Partition> missing_;
  std::map<Partition, Offset> ends_;
  std::string empty_segment_;
  std::vector<std::string> notices_;
};

}  // namespace continuum
