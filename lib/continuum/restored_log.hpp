// The log of one partition of a topic that is being restored, on the server. It says itself how far it came:
// another run goes on behind its last entry. Nobody can use it before it is made whole.
#pragma once

#include "continuum/frame.hpp"
#include "continuum/restore_generations.hpp"
#include "continuum/restored_topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

class RestoredLog {
 public:
  // The topic has begun, and outlives it.
  RestoredLog(const RestoredTopic& topic, Partition partition);

  // Copies what is not there yet, unless it is whole; a dry run reads it, and returns what there would be.
  // `on_events`: that were copied in this run until now. Throws Error: loss (the archive is damaged; what
  // lies before it is copied), fenced (somebody else is at it), usage (it is the log of something else).
  RestoredEnds restore(const std::function<void(std::uint64_t events)>& on_events);
  // Restored: from here on it can be read and appended to, once the topic can. `born`: of the partition.
  void make_whole(const RestoredEnds& ends, Generation born);
  // Instead, of which there is no archive. It begins in generation `born`.
  void make_empty(Generation born);

 private:
  struct Chunk;
  [[nodiscard]] std::optional<LogEdge> edge(redis::Reply entries) const;
  [[nodiscard]] std::optional<RestoredEnds> ends() const;
  [[nodiscard]] Generation newest_of_events(const LogEdge& last) const;
  void claim();
  [[noreturn]] void fail_lost(std::string_view what) const;
  [[noreturn]] void fail_diverged(const LogEdge& there) const;
  void copy(std::optional<RestoredEnds>& ends, const std::function<void(std::uint64_t events)>& on_events);
  void add(Chunk& chunk, const ArchivedEntry& entry);
  void add_frame(std::vector<std::string>& texts, const ArchivedEntry& entry);
  EntryId store(Chunk chunk, const EntryId& last);
  void require_whole(std::string_view answer) const;

  const RestoredTopic& topic_;
  redis::Session& session_;
  Partition partition_;
  std::string log_key_;
  std::string meta_key_;
  std::string mark_key_;
  FrameEncoder encoder_;
};

}  // namespace continuum
