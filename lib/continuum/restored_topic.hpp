// The hash of a topic that is being restored: it says of whom, and nobody else may use the topic while it
// does. It is changed only when nobody else has changed it meanwhile.
#pragma once

#include "continuum/archive_restore.hpp"
#include "continuum/redis.hpp"
#include "continuum/restore_generations.hpp"
#include "continuum/restore_source.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace continuum {

class RestoredTopic {
 public:
  // Session and source outlive it.
  RestoredTopic(redis::Session& session, const RestoreSource& source, const RestoreOptions& options);

  [[nodiscard]] redis::Session& session() const { return session_; }
  [[nodiscard]] const RestoreSource& source() const { return source_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] RestoreMode mode() const { return mode_; }
  // Once it has begun; empty before the first run under another name.
  [[nodiscard]] const std::string& log_id() const { return log_id_; }

  // Marks the topic as being restored, or finds that an earlier run did; a dry run only looks. Throws
  // Error{usage} when there is
  // another one, or something is left of one; Error{fenced} when somebody is changing it at this moment.
  void begin();
  // Whether the mark is still that of this restore.
  [[nodiscard]] bool is_ours() const;

  // The group of the archive, behind what was restored: from the first moment on nothing may be trimmed that
  // is not archived yet. Not under another name: the archive is not that topic's.
  void register_archive(Generation active, const RestoredLogs& logs);
  // From here on anybody can use it. `rings`: all up to the active one.
  void activate(const Topic& rings);

  // Somebody else is at it.
  [[noreturn]] void fail_changed() const;
  // The partition has keys of another log: somebody made them just now, or they were left.
  [[noreturn]] void fail_not_ours(Partition partition) const;

 private:
  // What is to be done to the hash, with the key and what is there now.
  using Change =
      std::function<void(const std::optional<Topic>& there, redis::Request& request, const std::string& key)>;
  bool change(const Change& change);
  void request_new(redis::Request& request, const std::string& key) const;
  bool mark(std::optional<Partition>& left);
  bool look(std::optional<Partition>& left);
  void require_ours(const Topic& there) const;
  [[nodiscard]] std::optional<Partition> find_left() const;
  [[noreturn]] void fail_left(Partition partition) const;
  [[nodiscard]] std::optional<Topic> load() const;
  [[nodiscard]] bool is_ours(const std::optional<Topic>& there) const;

  redis::Session& session_;
  const RestoreSource& source_;
  bool renamed_;
  RestoreMode mode_;
  std::string name_;
  std::string log_id_;
};

}  // namespace continuum
