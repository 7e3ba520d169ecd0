#include "continuum/archive_restore.hpp"

#include "continuum/archive_check.hpp"
#include "continuum/archive_segment.hpp"
#include "continuum/error.hpp"
#include "continuum/log.hpp"
#include "continuum/names.hpp"
#include "continuum/restore_generations.hpp"
#include "continuum/restore_source.hpp"
#include "continuum/restored_log.hpp"
#include "continuum/restored_topic.hpp"
#include "continuum/sharing.hpp"

#include <fmt/ranges.h>

#include <set>
#include <utility>

namespace continuum {

namespace {

class Restore {
 public:
  Restore(redis::Session& session, const std::string& path, const RestoreOptions& options)
      : options_(options),
        source_(path, options.topic),
        notices_(source_.notices()),
        rings_(source_.topic()),
        topic_(session, source_, options) {}

  RestoreSummary run() {
    require_partitions();
    topic_.begin();
    for (const Partition partition : source_.partitions()) {
      restore(partition);
    }
    for (const Partition partition : source_.partitions()) {
      require_all(partition);
    }
    const Generation active = complete_rings(rings_, logs_);
    settle_cut_logs();
    if (options_.mode == RestoreMode::act) {
      finish(active);
    }
    return summary(active);
  }

 private:
  void finish(Generation active) {
    for (const auto& [partition, ends] : logs_) {
      RestoredLog(topic_, partition).make_whole(ends, born_in(rings_, partition));
    }
    topic_.register_archive(active, logs_);
    seal();
    topic_.activate(rings_);
  }

  void require_partitions() const {
    const auto& missing = source_.missing();
    if (!missing.empty() && options_.missing == MissingPartitions::refuse) {
      const bool one = missing.size() == 1;
      fail(ErrorKind::loss,
           "{} has nothing of partition{} {} of topic {}{}. Put {} archive there; --allow-missing begins {} "
           "anew, without events",
           printable(source_.path()), one ? "" : "s", partition_list(missing), source_.topic().name,
           source_.empty_segment().empty()
               ? std::string()
               : fmt::format(": no whole frame is in {}", printable(source_.empty_segment())),
           one ? "its" : "their", one ? "it" : "them");
    }
  }

  void restore(Partition partition) {
    RestoredLog log(topic_, partition);
    const RestoredEnds ends = log.restore([this](std::uint64_t events) { tell(done_ + events); });
    logs_.emplace(partition, ends);
    done_ += ends.last.next - ends.first.first;
    tell(done_);
  }

  void tell(std::uint64_t events) const {
    if (options_.on_progress) {
      options_.on_progress(events);
    }
  }

  // Before the topic can be used: a good copy of a file can still be put in its place.
  void require_all(Partition partition) const {
    const Offset restored = logs_.at(partition).last.next;
    const Offset end = source_.end(partition);
    if (restored < end) {
      fail(ErrorKind::loss, "{}: {} are in the archive and {} restored{}: see `continuum archive verify {}`",
           place(topic_.name(), partition), range_text(restored, end),
           options_.mode == RestoreMode::act ? "were not" : "could not be",
           options_.mode == RestoreMode::act ? fmt::format(". Topic {} is not to be used yet", topic_.name())
                                             : std::string(),
           printable(source_.path()));
    }
  }

  // A producer's positions in the generations behind the cut would claim what is missing there (PROTOCOLS: a
  // line is stored when any generation has it).
  void settle_cut_logs() {
    const CutLogs cut = find_cut_logs(rings_, logs_);
    if (cut.logs == 0) {
      return;
    }
    if (options_.missing == MissingPartitions::refuse) {
      fail_cut(cut);
    }
    if (options_.mode == RestoreMode::act) {
      forget_positions(cut.whole, cut.newest);
    }
    notices_.insert(notices_.end(), cut.said.begin(), cut.said.end());
    notices_.push_back(fmt::format(
        "what producers stored after generation {} is not known of them: a publish --producer that is run "
        "again stores it a second time",
        cut.whole));
  }

  [[noreturn]] void fail_cut(const CutLogs& cut) const {
    const std::string said = fmt::format("{}", fmt::join(cut.said, "; "));
    const bool acts = options_.mode == RestoreMode::act;
    fail(ErrorKind::loss,
         "topic {}: {}. {}: put a newer copy of the archive in its place{}; or --allow-missing goes on "
         "without them, and publishers with --producer that are run again then store a second time what they "
         "stored after generation {}{}",
         topic_.name(), said,
         acts ? "What there is is restored, and not to be used yet" : "A restore would end with that",
         acts ? " and run this again" : "", cut.whole,
         acts ? fmt::format("; or give it up with `continuum topic drop -t {} --yes`", topic_.name())
              : std::string());
  }

  // Of producers in generations above `whole`. Their hashes are found by their names: a run before this one
  // may have written them.
  void forget_positions(Generation whole, Generation newest) {
    std::set<std::string> beginnings;  // of keys
    for (const auto& [partition, ends] : logs_) {
      beginnings.insert(producer_key(topic_.name(), partition, ""));
    }
    const std::string pattern = fmt::format("continuum:{{{}:*", topic_.name());
    std::string cursor = "0";
    do {
      redis::Request scan;
      scan.command("SCAN", cursor, "MATCH", pattern, "COUNT", 1000);
      const auto found = topic_.session().call(std::move(scan));
      cursor = found[0][0].text();
      redis::Request change;
      for (std::size_t i = 0; i < found[0][1].size(); ++i) {
        const std::string_view key = found[0][1][i].text();
        const auto after = beginnings.upper_bound(std::string(key));
        if (after == beginnings.begin() || !key.starts_with(*std::prev(after))) {
          continue;
        }
        for (Generation x(whole.value + 1); x <= newest; x = Generation(x.value + 1)) {
          change.command("HDEL", key, fmt::format("pos.{}", x), fmt::format("dig.{}", x),
                         fmt::format("end.{}", x));
        }
      }
      if (!change.empty()) {
        (void)topic_.session().call(std::move(change));
      }
    } while (cursor != "0");
  }

  // What the logs lack of the barriers, as if a resize were finished (PROTOCOLS: Resize).
  void seal() {
    const RingDescription* before = nullptr;
    for (const auto& [x, ring] : rings_.rings) {
      redis::Request request;
      for (const Partition partition : members_of(before, ring)) {
        if (!logs_.contains(partition) && begun_.insert(partition).second) {
          RestoredLog(topic_, partition).make_empty(x);
        }
        // Not "new": that would make a log where the topic was dropped meanwhile.
        request.run(redis::Script::seal,
                    {meta_key(topic_.name(), partition), log_key(topic_.name(), partition)}, topic_.log_id(),
                    x, "old");
      }
      const auto answers = topic_.session().call(std::move(request));
      for (std::size_t i = 0; i < answers.size(); ++i) {
        if (answers[i][0].text() == "NOLOG") {
          topic_.fail_changed();
        }
      }
      before = &ring;
    }
  }

  RestoreSummary summary(Generation active) {
    RestoreSummary summary{topic_.name(), topic_.log_id(), active, {}, {}};
    for (const auto& [partition, ends] : logs_) {
      summary.partitions.push_back({partition, ends.first.first, ends.last.next});
    }
    note_limits();
    note_beginnings();
    summary.notices = notices_;
    return summary;
  }

  void note_limits() {
    const TopicSettings& settings = source_.topic().settings;
    std::string limits;
    for (const auto& [name, value] : texts_of_limits(settings)) {
      if (name != "stall_limit") {
        limits += fmt::format("{}{}={}", limits.empty() ? "" : " and ", name, value);
      }
    }
    if (limits.empty()) {
      return;
    }
    const std::string off = fmt::format("{}{}", settings.retention ? " retention=none" : "",
                                        settings.retention_bytes ? " retention_bytes=none" : "");
    notices_.push_back(fmt::format(
        "topic {0} has {1} again: workers trim by it what every registered group has passed, which is at "
        "first only the archive. `continuum topic set {0}{2}` keeps it",
        topic_.name(), limits, off));
  }

  void note_beginnings() {
    std::vector<Partition> cut;
    for (const auto& [partition, ends] : logs_) {
      if (ends.first.first > Offset(0)) {
        cut.push_back(partition);
      }
    }
    if (!cut.empty()) {
      notices_.push_back(fmt::format(
          "the archive of partition{} {} does not begin at offset 0: a named producer that has stored "
          "nothing there since is not known any more. Run again, it stores once more what it had stored "
          "before",
          cut.size() == 1 ? "" : "s", partition_list(cut)));
    }
  }

  const RestoreOptions& options_;
  const RestoreSource source_;
  std::vector<std::string> notices_;
  Topic rings_;  // with those that only the logs know
  RestoredTopic topic_;
  RestoredLogs logs_;
  std::set<Partition> begun_;  // without an archive
  std::uint64_t done_ = 0;     // events of logs that are restored
};

}  // namespace

std::uint64_t RestoreSummary::events() const {
  std::uint64_t events = 0;
  for (const auto& partition : partitions) {
    events += partition.next - partition.first;
  }
  return events;
}

std::uint64_t events_to_restore(const std::string& archive, const RestoreOptions& options) {
  ArchiveCheckOptions chosen;
  chosen.topics.push_back(options.topic);
  // Says better than a list what is wrong with it.
  const RestoreSource source(archive, options.topic);
  std::uint64_t events = 0;
  for (const auto& segment : list_archive(archive, chosen)) {
    events += segment.events();
  }
  return events;
}

RestoreSummary restore_archive(redis::Session& session, const std::string& archive,
                               const RestoreOptions& options) {
  return Restore(session, archive, options).run();
}

}  // namespace continuum
