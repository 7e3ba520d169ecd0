#include "continuum/archive_restore.hpp"

#include "continuum/archive_check.hpp"
#include "continuum/archive_index.hpp"
#include "continuum/archive_reader.hpp"
#include "continuum/archive_segment.hpp"
#include "continuum/archive_topic.hpp"
#include "continuum/error.hpp"
#include "continuum/frame.hpp"
#include "continuum/log.hpp"
#include "continuum/names.hpp"
#include "continuum/sharing.hpp"
#include "continuum/topic.hpp"
#include "continuum/worker.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace continuum {

namespace {

// Of one request.
constexpr std::size_t chunk_bytes_max = 1 << 20;
constexpr std::size_t chunk_entries_max = 512;
constexpr std::size_t header_window_bytes = 4096;
// Frames of at least as many bytes of lines were archived as they came (archive_writer.cpp).
constexpr std::size_t whole_from_bytes = 32 << 10;

struct LogEdge {
  EntryId id;
  Offset first;
  Offset next;
  Generation generation;
  bool barrier = false;
};

// Entries on their way into a log.
struct Chunk {
  struct Producer {
    Position position;
    std::string digest;
    Offset end;
  };
  std::map<std::pair<std::string, Generation>, Producer> producers;  // by key, behind the last entry
  std::vector<std::string> texts;                                    // as the script takes them
  std::size_t bytes = 0;
  std::size_t entries = 0;
  std::uint64_t events = 0;
  EntryId last;
};

class Restore {
 public:
  Restore(redis::Session& session, const std::string& path, const RestoreOptions& options)
      : session_(session), archive_(path), options_(options), source_(archived_topic()) {
    target_ = options.to.value_or(source_.name);
    if (options.to) {
      require_name("topic", target_);
    }
    frames_ = source_.settings.frames;
  }

  // What the archive has of it, ascending.
  std::vector<Partition> partitions() {
    std::vector<Partition> found;
    std::vector<Partition> missing = source_.partitions();
    for (const Partition partition : archive_.partitions(source_.name)) {
      if (!has_entries(partition)) {
        continue;
      }
      const bool known =
          std::ranges::any_of(source_.rings, [&](const auto& ring) { return is_in(ring.second, partition); });
      if (!known) {
        fail(ErrorKind::loss,
             "{}/{}/{} knows no ring that has partition {}, and there is an archive of it: the file is an "
             "older "
             "copy. Put the latest one in its place",
             printable(archive_.path()), source_.name, archived_topic_name, partition);
      }
      found.push_back(partition);
      std::erase(missing, partition);
    }
    if (found.empty()) {
      fail(ErrorKind::usage, "{} has no archive of any partition of topic {}", printable(archive_.path()),
           source_.name);
    }
    if (!missing.empty() && options_.missing == MissingPartitions::refuse) {
      fail(ErrorKind::loss,
           "{} has nothing of partition{} {} of topic {}. Put {} archive there; --allow-missing begins {} "
           "anew, "
           "without events",
           printable(archive_.path()), missing.size() == 1 ? "" : "s", partition_list(missing), source_.name,
           missing.size() == 1 ? "its" : "their", missing.size() == 1 ? "it" : "them");
    }
    return found;
  }

  RestoreSummary run() {
    const std::vector<Partition> archived = partitions();
    for (const Partition partition : archived) {
      look_at_end(partition);
    }
    begin(archived);
    for (const Partition partition : archived) {
      restore_partition(partition);
    }
    for (const Partition partition : archived) {
      require_all(partition);
    }
    const Generation active = complete_rings();
    for (std::string& cut : settle_cut_logs()) {
      notices_.push_back(std::move(cut));
    }
    RestoreSummary summary{target_, log_id_, active, {}, notices_};
    for (const Partition partition : archived) {
      make_whole(partition);
      summary.partitions.push_back(
          {partition, edges_.at(partition).first.first, edges_.at(partition).second.next});
    }
    register_archive(active);
    seal(active);
    activate(active);
    add_notices(summary);
    return summary;
  }

 private:
  // --- the archive

  Topic archived_topic() const {
    const auto topics = archive_.topics();
    if (std::ranges::find(topics, options_.topic) == topics.end()) {
      fail(ErrorKind::usage, "{} has no topic {}{}", printable(archive_.path()), printable(options_.topic),
           hint_of(options_.topic, topics));
    }
    auto topic = read_archived_topic(archive_, options_.topic);
    if (!topic) {
      fail(ErrorKind::loss,
           "{}/{}/{} is missing: it says what the ring of the topic is. Put a copy of it there",
           printable(archive_.path()), options_.topic, archived_topic_name);
    }
    return *std::move(topic);
  }

  static bool is_in(const RingDescription& ring, Partition partition) {
    return std::ranges::find(ring.members, partition, &RingMember::partition) != ring.members.end();
  }

  [[nodiscard]] bool has_entries(Partition partition) const {
    return ArchiveReader(archive_, source_.name, partition, source_.log_id, {}).first_offset().has_value();
  }

  // How far the archive of a partition goes, by its headers. Frames are in an index once they are on the
  // disk: what it has and the segment has not is damage, and not what a writer that died left.
  void look_at_end(Partition partition) {
    const PartitionDirectory directory(archive_, source_.name, partition);
    const auto identity = find_identity(directory);
    const auto segments = directory.contents().segments;
    if (!identity || segments.empty()) {
      return;
    }
    const Offset first = segments.back();
    // Before the segment, which a writer may be appending to.
    const std::string known = read_index(directory, *identity, first);
    SegmentFile segment(directory, first, header_window_bytes);
    SegmentScanner scanner(segment, *identity, 0, first);
    Offset next = first;
    for (auto item = scanner.next(); !std::holds_alternative<SegmentScanner::End>(item);
         item = scanner.next()) {
      if (const auto* frame = std::get_if<ArchivedFrame>(&item)) {
        next = frame->header.next();
      } else if (const auto& damage = std::get<SegmentDamage>(item);
                 damage.kind == SegmentDamage::Kind::tail) {
        const std::string what = fmt::format("{}, {}, byte {}: {}", printable(segment.path()),
                                             range_text(damage.from, damage.to), damage.position, damage.why);
        if (damage.position < indexed_bytes(known, *identity, first)) {
          fail(ErrorKind::loss,
               "{}. Its index has a record of that: it was whole once. Put a copy of the file in its place; "
               "when there is none, `continuum archive verify {}` says what is lost, and without its index "
               "what lies before it can be restored",
               what, printable(archive_.path()));
        }
        notices_.push_back(what + ". That was being written, and is not restored");
      }
    }
    if (indexed_bytes(known, *identity, first) > segment.bytes()) {
      fail(ErrorKind::loss,
           "{} has {} bytes, and its index has records of more: it was cut off. Put a whole copy of the file "
           "in "
           "its place; when there is none, remove the index, and what the segment has can be restored",
           printable(segment.path()), segment.bytes());
    }
    ends_[partition] = next;
  }

  // Before the topic can be used: a good copy of a file can still be put in its place.
  void require_all(Partition partition) const {
    const auto end = ends_.find(partition);
    const Offset restored = edges_.at(partition).second.next;
    if (end != ends_.end() && restored < end->second) {
      fail(ErrorKind::loss,
           "{}: {} are in the archive and were not restored. Topic {} is not to be used yet: see `continuum "
           "archive verify {}`",
           place(target_, partition), range_text(restored, end->second), target_, printable(archive_.path()));
    }
  }

  // --- the topic's hash

  // `change` is done if nobody changes the hash meanwhile. False: somebody did.
  template <class Change>
  bool change_topic(Change change) {
    const std::string key = topic_key(target_);
    redis::Request watch;
    watch.command("WATCH", key);
    request_topic(watch, target_);
    const auto watched = session_.call(std::move(watch));
    redis::Request request;
    request.command("MULTI");
    try {
      change(parse_topic(target_, watched[1]), request, key);
    } catch (const Error&) {
      redis::Request unwatch;
      unwatch.command("UNWATCH");
      (void)session_.call(std::move(unwatch));
      throw;
    }
    request.command("EXEC");
    const auto replies = session_.call(std::move(request));
    return !replies[replies.size() - 1].is_nil();
  }

  void begin(const std::vector<Partition>& archived) {
    bool done = false;
    for (int attempt = 0; attempt < 3 && !done; ++attempt) {
      done = change_topic(
          [&](const std::optional<Topic>& there, redis::Request& request, const std::string& key) {
            if (there) {
              require_ours(*there);
              log_id_ = there->log_id;
              return;
            }
            require_nothing_left(archived);
            log_id_ = options_.to ? random_id() : source_.log_id;
            request.command("HSET", key, "id", log_id_, "format", 1, "created",
                            source_.created.time_since_epoch().count(), "frames", name_of(frames_),
                            "event_bytes_max", source_.settings.event_bytes_max, "active", 0, "pending",
                            source_.active, "restoring", source_.log_id, ring_field(source_.active),
                            source_.ring().text());
            request_limits(request, key);
          });
    }
    if (!done) {
      fail_changed();
    }
  }

  void request_limits(redis::Request& request, const std::string& key) const {
    const TopicSettings& settings = source_.settings;
    if (settings.retention) {
      request.command("HSET", key, "retention", settings.retention->count());
    }
    if (settings.retention_bytes) {
      request.command("HSET", key, "retention_bytes", *settings.retention_bytes);
    }
    if (settings.stall_limit) {
      request.command("HSET", key, "stall_limit", settings.stall_limit->count());
    }
  }

  // What whoever restores has to know of the topic that there is now.
  void add_notices(RestoreSummary& summary) const {
    std::string limits;
    for (const auto& [name, value] : texts_of_limits(source_.settings)) {
      if (name != "stall_limit") {
        limits += fmt::format("{}{}={}", limits.empty() ? "" : " and ", name, value);
      }
    }
    if (!limits.empty()) {
      const std::string off = fmt::format("{}{}", source_.settings.retention ? " retention=none" : "",
                                          source_.settings.retention_bytes ? " retention_bytes=none" : "");
      summary.notices.push_back(fmt::format(
          "topic {0} has {1} again: workers trim by it what every registered group has passed, which is at "
          "first only the archive. `continuum topic set {0}{2}` keeps it",
          target_, limits, off));
    }
    std::vector<Partition> cut;
    for (const auto& partition : summary.partitions) {
      if (partition.first > Offset(0)) {
        cut.push_back(partition.partition);
      }
    }
    if (!cut.empty()) {
      summary.notices.push_back(fmt::format(
          "the archive of partition{} {} does not begin at offset 0: a named producer that has stored "
          "nothing "
          "there since is not known any more. Run again, it stores once more what it had stored before",
          cut.size() == 1 ? "" : "s", partition_list(cut)));
    }
  }

  void require_ours(const Topic& there) const {
    if (!there.restoring) {
      fail(ErrorKind::usage,
           "topic {} exists on {}: an archive is restored where there is none of that name. Give it another "
           "one "
           "by --to NAME; or delete the one that is there, with all its events: `continuum topic drop -t {} "
           "--yes`",
           target_, session_.address().text(), target_);
    }
    if (*there.restoring != source_.log_id || (!options_.to && there.log_id != source_.log_id)) {
      fail(ErrorKind::usage,
           "topic {} is being restored from another archive (of log {}): let that be finished, or give it up "
           "with `continuum topic drop -t {} --yes`",
           target_, printable(*there.restoring), target_);
    }
  }

  [[noreturn]] void fail_changed() const {
    fail(ErrorKind::fenced, "somebody else restores or changes topic {}: one at a time. Run it again then",
         target_);
  }

  // Of a topic that was dropped half way. Its keys would be taken for ours.
  void require_nothing_left(const std::vector<Partition>& archived) {
    redis::Request request;
    for (const Partition partition : archived) {
      request.command("EXISTS", meta_key(target_, partition), log_key(target_, partition),
                      restoring_key(target_, partition));
    }
    const auto replies = session_.call(std::move(request));
    for (std::size_t i = 0; i < archived.size(); ++i) {
      if (replies[i].number() > 0) {
        fail_left(archived[i]);
      }
    }
  }

  [[noreturn]] void fail_left(Partition partition) const {
    fail(ErrorKind::usage,
         "{} holds the log of another topic of that name: delete what is left of it by `continuum topic drop "
         "-t "
         "{} --yes`",
         place(target_, partition), target_);
  }

  static std::string ring_field(Generation generation) { return fmt::format("gen:{}", generation); }

  // Of every generation that the logs know, the last of which is then in force. One that nobody had described
  // was never in force: as when a resize is called off, it has the ring of the one before.
  Generation complete_rings() {
    Generation active = source_.active;
    for (const auto& [partition, edges] : edges_) {
      active = std::max(active, edges.second.generation);
    }
    std::erase_if(source_.rings, [&](const auto& ring) { return ring.first > active; });
    for (Generation x = source_.rings.begin()->first; x < active; ++x) {
      source_.rings.emplace(x + 1, source_.rings.at(x));
    }
    return active;
  }

  // What the logs lack of the barriers, as if a resize were finished (PROTOCOLS: Resize).
  void seal(Generation active) {
    const RingDescription* before = nullptr;
    for (const auto& [x, ring] : source_.rings) {
      redis::Request request;
      for (const Partition partition : members_of(before, ring)) {
        if (!edges_.contains(partition) && begun_.insert(partition).second) {
          make_empty(partition, x);
        }
        // Not "new": that would make a log where the topic was dropped meanwhile.
        request.run(redis::Script::seal, {meta_key(target_, partition), log_key(target_, partition)}, log_id_,
                    x, "old");
      }
      const auto answers = session_.call(std::move(request));
      for (std::size_t i = 0; i < answers.size(); ++i) {
        if (answers[i][0].text() == "NOLOG") {
          fail_changed();
        }
      }
      before = &ring;
    }
    check(before != nullptr && source_.rings.rbegin()->first == active, "the active ring is the last");
  }

  static std::set<Partition> members_of(const RingDescription* before, const RingDescription& ring) {
    std::set<Partition> all;
    for (const RingDescription* one : {before, &ring}) {
      for (std::size_t i = 0; one != nullptr && i < one->members.size(); ++i) {
        all.insert(one->members[i].partition);
      }
    }
    return all;
  }

  // A log that ends before a barrier behind which others have events was not archived to its end. A
  // producer's positions in the generations behind it would claim what is missing there (PROTOCOLS: a line is
  // stored when any generation has it). Returns what is to be said.
  std::vector<std::string> settle_cut_logs() {
    Generation newest;
    for (const auto& [partition, edges] : edges_) {
      newest = std::max(newest, newest_of_events(partition, edges.second));
    }
    Generation whole = newest;
    std::vector<std::string> said;
    for (const Partition partition : source_.partitions()) {
      const Generation end = end_generation(partition);
      if (end == Generation(0) || last_barrier(partition, newest) <= end) {
        continue;
      }
      said.push_back(
          edges_.contains(partition)
              ? fmt::format(
                    "partition {} ends in generation {}, and others have events of generation {}: its "
                    "last events were not archived",
                    partition, end, newest)
              : fmt::format("partition {} begins anew, and others have events of generation {}: its events "
                            "are missing",
                            partition, newest));
      whole = std::min(whole, end);
    }
    if (said.empty()) {
      return said;
    }
    if (options_.missing == MissingPartitions::refuse) {
      fail(ErrorKind::loss,
           "topic {}: {}. What there is is restored, and not to be used yet: put a newer copy of the archive "
           "in "
           "its place and run this again; or --allow-missing goes on without them, and publishers with "
           "--producer that are run again then store a second time what they stored after generation {}; or "
           "give it up with `continuum topic drop -t {} --yes`",
           target_, said.front(), whole, target_);
    }
    forget_positions(whole, newest);
    said.push_back(fmt::format(
        "what producers stored after generation {} is not known of them: a publish --producer that "
        "is run again stores it a second time",
        whole));
    return said;
  }

  // That a log ends with; of one that begins anew the one that it was born in; 0: it was not yet.
  [[nodiscard]] Generation end_generation(Partition partition) const {
    if (const auto found = edges_.find(partition); found != edges_.end()) {
      return found->second.second.generation;
    }
    for (const auto& [x, ring] : source_.rings) {
      if (is_in(ring, partition)) {
        return x;
      }
    }
    return Generation(0);
  }

  // The newest that its whole log has a barrier of, up to `newest`.
  [[nodiscard]] Generation last_barrier(Partition partition, Generation newest) const {
    Generation last;
    const RingDescription* before = nullptr;
    for (const auto& [x, ring] : source_.rings) {
      if (x <= newest && members_of(before, ring).contains(partition)) {
        last = x;
      }
      before = &ring;
    }
    return last;
  }

  Generation newest_of_events(Partition partition, const LogEdge& last) {
    std::optional<LogEdge> at = last;
    while (at && at->barrier) {
      redis::Request request;
      request.command("XREVRANGE", log_key(target_, partition), "(" + at->id.text(), "-", "COUNT", 1);
      at = edge(partition, session_.call(std::move(request))[0]);
    }
    return at ? at->generation : Generation(0);
  }

  // Of producers in generations above `whole`. Their hashes are found by their names: a run before this one
  // may have written them.
  void forget_positions(Generation whole, Generation newest) {
    std::set<std::string> beginnings;  // of keys
    for (const auto& [partition, edges] : edges_) {
      beginnings.insert(producer_key(target_, partition, ""));
    }
    const std::string pattern = fmt::format("continuum:{{{}:*", target_);
    std::string cursor = "0";
    do {
      redis::Request scan;
      scan.command("SCAN", cursor, "MATCH", pattern, "COUNT", 1000);
      const auto found = session_.call(std::move(scan));
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
        (void)session_.call(std::move(change));
      }
    } while (cursor != "0");
  }

  // From the first moment on nothing may be trimmed that is not archived yet. On a partition that begins anew
  // the group is given its cursor by whoever needs it first, as on one that a resize adds. Under another name
  // it is not the log of this archive.
  void register_archive(Generation active) {
    if (options_.to) {
      return;
    }
    Topic topic = source_;
    topic.name = target_;
    topic.log_id = log_id_;
    topic.active = active;
    const std::string group(archive_group);
    const auto field = fmt::format("group:{}", group);
    const bool done =
        change_topic([&](const std::optional<Topic>& there, redis::Request& request, const std::string& key) {
          if (!there || there->log_id != log_id_ || !there->restoring) {
            fail_changed();
          }
          request.command("HSETNX", key, field, fmt::format("start {}", active));
        });
    if (!done) {
      fail_changed();
    }
    // Behind what was restored, before the barriers that the archive does not have.
    topic.groups = {{group, {"end", active}}};
    redis::Request request;
    for (const auto& [partition, edges] : edges_) {
      request_registration(request, topic, group, partition);
    }
    const auto replies = session_.call(std::move(request));
    for (std::size_t i = 0; i < replies.size(); ++i) {
      if (replies[i][0].text() == "NOLOG") {
        fail_changed();
      }
    }
  }

  void activate(Generation active) {
    const bool done =
        change_topic([&](const std::optional<Topic>& there, redis::Request& request, const std::string& key) {
          if (!there || there->log_id != log_id_ || !there->restoring) {
            fail_changed();
          }
          for (const auto& [generation, ring] : source_.rings) {
            request.command("HSET", key, ring_field(generation), ring.text());
          }
          request.command("HSET", key, "active", active);
          request.command("HDEL", key, "pending", "restoring");
        });
    if (!done) {
      fail_changed();
    }
  }

  // --- entries

  std::optional<LogEdge> edge(Partition partition, redis::Reply entries) const {
    if (entries.size() == 0) {
      return std::nullopt;
    }
    const Entry entry = parse_entry(entries[0], target_, partition);
    return LogEdge{entry.id, entry.first, entry.next(), entry.generation, entry.barrier.has_value()};
  }

  void restore_partition(Partition partition) {
    redis::Request request;
    request.command("HGET", meta_key(target_, partition), "id");
    request.command("XREVRANGE", log_key(target_, partition), "+", "-", "COUNT", 1);
    const auto replies = session_.call(std::move(request));
    const auto there = edge(partition, replies[1]);
    if (!replies[0].is_nil() && (replies[0].text() != log_id_ || !there)) {
      fail_left(partition);
    }
    if (replies[0].is_nil()) {
      try {
        claim(partition);
        copy(partition, there);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::loss) {
          throw;
        }
        fail(ErrorKind::loss,
             "{}. Topic {} is restored up to there, and not to be used yet: put a copy of the file in its "
             "place "
             "and run this again, or give it up with `continuum topic drop -t {} --yes`",
             error.message(), target_, target_);
      }
    }
    learn_edges(partition);
    done_ += edges_.at(partition).second.next - edges_.at(partition).first.first;
    in_chunks_ = 0;
    tell();
  }

  // Marks the partition as one of this restore, unless it is whole. A drop deletes the mark, and what comes
  // late then is refused by the scripts, also when there is a topic of that name again.
  void claim(Partition partition) {
    const std::string mark = restoring_key(target_, partition);
    redis::Request request;
    request.command("SET", mark, log_id_, "NX");
    request.command("GET", mark);
    request.command("EXISTS", meta_key(target_, partition));
    const auto replies = session_.call(std::move(request));
    if (!replies[1].is_nil() && replies[1].text() != log_id_) {
      fail_left(partition);
    }
    // Behind the mark: a drop that begins after this finds it.
    redis::Request ask;
    request_topic(ask, target_);
    const auto asked = session_.call(std::move(ask));
    const auto there = parse_topic(target_, asked[0]);
    const bool ours = there && there->restoring == source_.log_id && there->log_id == log_id_;
    if (!ours || replies[2].number() > 0) {
      redis::Request unmark;
      unmark.command("DEL", mark);
      (void)session_.call(std::move(unmark));
    }
    if (!ours) {
      fail_changed();
    }
  }

  void learn_edges(Partition partition) {
    redis::Request request;
    request.command("XRANGE", log_key(target_, partition), "-", "+", "COUNT", 1);
    request.command("XREVRANGE", log_key(target_, partition), "+", "-", "COUNT", 1);
    const auto replies = session_.call(std::move(request));
    const auto first = edge(partition, replies[0]);
    const auto last = edge(partition, replies[1]);
    if (!first || !last) {
      fail(ErrorKind::loss,
           "{}: its log is gone again. Was the server flushed, or the topic dropped just now?",
           place(target_, partition));
    }
    edges_[partition] = {*first, *last};
  }

  void copy(Partition partition, const std::optional<LogEdge>& there) {
    ArchiveChoice choice;
    if (there) {
      choice.from = there->first;
    }
    ArchiveReader reader(archive_, source_.name, partition, source_.log_id, choice);
    EntryId last = there ? there->id : EntryId{};
    std::optional<Offset> expected = there ? std::optional(there->next) : std::nullopt;
    bool met = !there;  // the entry that the log ends with
    Chunk chunk;
    while (const auto entry = reader.next()) {
      if (entry->id <= last) {
        met = met || (entry->id == last && entry->next() == *expected);
        continue;
      }
      if (!met) {
        break;
      }
      if (expected && entry->first != *expected) {
        fail(ErrorKind::loss, "{}: offset {} comes where offset {} was expected",
             place(source_.name, partition), entry->first, *expected);
      }
      add(chunk, partition, *entry);
      expected = entry->next();
      if (chunk.bytes >= chunk_bytes_max || chunk.entries >= chunk_entries_max) {
        last = store(std::exchange(chunk, {}), partition, last);
      }
    }
    if (!met) {
      fail_left(partition);
    }
    if (chunk.entries > 0) {
      store(std::move(chunk), partition, last);
    }
  }

  void add(Chunk& chunk, Partition partition, const ArchivedEntry& entry) {
    auto& texts = chunk.texts;
    texts.push_back(entry.id.text());
    const std::size_t count_at = texts.size();
    texts.emplace_back();
    const auto field = [&](std::string_view name, std::string_view value) {
      texts.emplace_back(name);
      texts.emplace_back(value);
    };
    if (entry.barrier()) {
      if (const Generation newest = source_.rings.rbegin()->first;
          entry.generation.value > std::uint64_t{newest.value} + unknown_generations_max) {
        fail(ErrorKind::loss,
             "{} has a barrier of generation {} before offset {}, and the newest ring in {}/{}/{} is of "
             "generation {}: the file is an older copy, or the barrier is damaged",
             place(source_.name, partition), entry.generation, entry.first, printable(archive_.path()),
             source_.name, archived_topic_name, newest);
      }
      field("barrier", fmt::to_string(entry.generation.value));
      field("o", fmt::to_string(entry.first.value));
    } else {
      if (!source_.rings.contains(entry.generation)) {
        fail(ErrorKind::loss,
             "{}/{}/{} has no ring of generation {}, and {} has events of it from offset {} on: the file is "
             "an "
             "older copy. Put the latest one in its place",
             printable(archive_.path()), source_.name, archived_topic_name, entry.generation,
             place(source_.name, partition), entry.first);
      }
      field("n", fmt::to_string(entry.events));
      field("o", fmt::to_string(entry.first.value));
      field("g", fmt::to_string(entry.generation.value));
      if (!entry.producer.empty()) {
        field("p", entry.producer);
        field("l", fmt::to_string(entry.position.value));
        field("d", entry.digest);
        chunk.producers[{producer_key(target_, partition, entry.producer), entry.generation}] = {
            entry.position, std::string(entry.digest), entry.next()};
      }
      add_frame(texts, entry);
    }
    chunk.bytes += texts.back().size();
    texts[count_at] = std::to_string(texts.size() - count_at - 1);
    chunk.last = entry.id;
    chunk.events += entry.events;
    ++chunk.entries;
  }

  // As the topic's setting says; what was archived as it came goes back as it is.
  void add_frame(std::vector<std::string>& texts, const ArchivedEntry& entry) {
    const bool compresses = frames_ == Frames::automatic;
    if (compresses && !entry.frame.empty() && entry.lines.size() >= whole_from_bytes) {
      texts.emplace_back("z");
      texts.emplace_back(entry.frame);
      return;
    }
    const auto encoded =
        encoder_.encode(entry.lines, entry.events, compresses ? Frames::automatic : Frames::plain);
    texts.emplace_back(encoded.encoding == Encoding::zstd ? "z" : "e");
    texts.emplace_back(encoded.bytes);
  }

  // Returns the id that the log ends with then.
  EntryId store(Chunk chunk, Partition partition, const EntryId& last) {
    std::vector<std::string> keys{log_key(target_, partition), meta_key(target_, partition),
                                  restoring_key(target_, partition)};
    std::vector<std::string> state{log_id_, last.text()};
    for (const auto& [whose, producer] : chunk.producers) {
      keys.push_back(whose.first);
      state.insert(state.end(), {fmt::to_string(whose.second.value), fmt::to_string(producer.position.value),
                                 producer.digest, fmt::to_string(producer.end.value)});
    }
    std::vector<std::string_view> args(state.begin(), state.end());
    args.insert(args.end(), chunk.texts.begin(), chunk.texts.end());
    redis::Request request;
    request.script(redis::Script::restore, std::vector<std::string_view>(keys.begin(), keys.end()), args);
    const auto replies = session_.call(std::move(request));
    const auto answer = replies[0];
    // MOVED to where we are: an answer was lost, and the request sent again.
    if (answer[0].text() != "OK" && !(answer[0].text() == "MOVED" && answer[1].text() == chunk.last.text())) {
      fail_changed();
    }
    in_chunks_ += chunk.events;
    tell();
    return chunk.last;
  }

  void make_whole(Partition partition) {
    const auto& [first, last] = edges_.at(partition);
    Generation born;
    for (const auto& [generation, ring] : source_.rings) {
      if (is_in(ring, partition)) {
        born = generation;
        break;
      }
    }
    // The last barrier that is not in the log any more; its archive may begin behind it.
    Generation trimmed = first.generation;
    if (first.barrier) {
      trimmed = first.generation == born ? Generation(0) : Generation(first.generation.value - 1);
    }
    const bool is_whole = first.first == Offset(0) && trimmed == Generation(0);
    redis::Request request;
    request.run(
        redis::Script::restored,
        {log_key(target_, partition), meta_key(target_, partition), restoring_key(target_, partition)},
        last.id.text(), log_id_, last.generation, born, last.next, trimmed,
        is_whole ? std::string() : fmt::to_string(first.first.value), first.id.before().text());
    require_whole(session_.call(std::move(request))[0][0].text());
  }

  // Of which there is no archive. It begins in generation `born`.
  void make_empty(Partition partition, Generation born) {
    claim(partition);
    redis::Request request;
    request.run(
        redis::Script::restored,
        {log_key(target_, partition), meta_key(target_, partition), restoring_key(target_, partition)},
        EntryId{}.text(), log_id_, born, born, Offset(0), Generation(0), std::string(), std::string());
    require_whole(session_.call(std::move(request))[0][0].text());
  }

  void require_whole(std::string_view answer) const {
    if (answer != "OK" && answer != "WHOLE") {
      fail_changed();
    }
  }

  void tell() const {
    if (options_.on_progress) {
      options_.on_progress(done_ + in_chunks_);
    }
  }

  redis::Session& session_;
  ArchiveDirectory archive_;
  const RestoreOptions& options_;
  Topic source_;
  std::string target_;
  std::string log_id_;
  Frames frames_ = Frames::automatic;
  std::map<Partition, std::pair<LogEdge, LogEdge>> edges_;  // of logs that are restored
  std::map<Partition, Offset> ends_;                        // of the archive
  std::vector<std::string> notices_;
  std::set<Partition> begun_;  // without an archive
  FrameEncoder encoder_;
  std::uint64_t done_ = 0;       // events of those
  std::uint64_t in_chunks_ = 0;  // of the one that is being restored, in this run
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
