// `archive restore`: what comes out of an archive is the topic that went in (G8).
#include "redis/work.hpp"
#include "unit/archive_data.hpp"

#include "continuum/archive_restore.hpp"
#include "continuum/trim.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <map>
#include <stdexcept>
#include <thread>

using namespace continuum;
using namespace test;

namespace {

const std::string group_name(archive_group);

// What a server has of a topic, as far as an archive keeps it.
struct Snapshot {
  std::string log_id;
  Generation active;
  std::vector<std::pair<std::string, std::string>> limits;
  std::map<Generation, std::string> rings;
  // By partition: what identifies each entry, and its events.
  std::map<Partition, std::vector<std::string>> entries;
  std::map<Partition, std::string> metas;
  std::map<std::string, std::string> producers;
  friend bool operator==(const Snapshot&, const Snapshot&) = default;
};

std::map<std::string, std::string> hash_of(redis::Session& session, const std::string& key) {
  const auto replies = session.call(std::move(redis::Request().command("HGETALL", key)));
  std::map<std::string, std::string> hash;
  for (std::size_t i = 0; i + 1 < replies[0].size(); i += 2) {
    hash[std::string(replies[0][i].text())] = replies[0][i + 1].text();
  }
  return hash;
}

Snapshot snapshot_of(redis::Session& session, const std::string& name = "t") {
  Snapshot snapshot;
  const Topic topic = load_topic(session, name);
  snapshot.log_id = topic.log_id;
  snapshot.active = topic.active;
  snapshot.limits = texts_of_limits(topic.settings);
  for (const auto& [generation, ring] : topic.rings) {
    snapshot.rings[generation] = ring.text();
  }
  FrameDecoder decoder;
  std::string lines;
  for (const Partition p : topic.partitions()) {
    const auto replies = session.call(std::move(redis::Request()
                                                    .command("XRANGE", log_key(name, p), "-", "+")
                                                    .command("HGETALL", meta_key(name, p))));
    for (std::size_t i = 0; i < replies[0].size(); ++i) {
      const Entry entry = parse_entry(replies[0][i], name, p);
      lines.clear();
      if (!entry.barrier) {
        decode_entry(decoder, entry, name, p, lines);
      }
      snapshot.entries[p].push_back(fmt::format("{} {} {} {} {}\n{}", entry.id.text(), entry.first,
                                                entry.events, entry.generation,
                                                entry.barrier ? "barrier" : "", lines));
    }
    const auto state = parse_meta(replies[1]);
    REQUIRE(state);
    snapshot.metas[p] = fmt::format("{} {} {} {} {}", state->log_id, state->generation, state->born,
                                    state->next, state->trimmed);
    for (const std::string producer : {"importer", "counter"}) {
      for (const auto& [field, value] : hash_of(session, producer_key(name, p, producer))) {
        snapshot.producers[fmt::format("{} {} {}", p, producer, field)] = value;
      }
    }
  }
  return snapshot;
}

// Where two snapshots differ, or nothing.
std::string difference(const Snapshot& a, const Snapshot& b) {
  for (const auto& [partition, entries] : a.entries) {
    const auto other = b.entries.find(partition);
    if (other == b.entries.end()) {
      return fmt::format("partition {} is missing", partition);
    }
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (i >= other->second.size() || entries[i] != other->second[i]) {
        return fmt::format("partition {}, entry {} of {} and {}: {} | {}", partition, i, entries.size(),
                           other->second.size(), entries[i],
                           i < other->second.size() ? other->second[i] : std::string());
      }
    }
    if (other->second.size() > entries.size()) {
      return fmt::format("partition {} has more: {}", partition, other->second[entries.size()]);
    }
  }
  return a.entries.size() == b.entries.size() ? std::string() : std::string("a partition more");
}

bool has_identity_problem(const ArchivePlace& place) {
  const auto problems = verify(place).problems;
  return problems.size() == 1 && problems[0].kind == ArchiveProblem::Kind::identity;
}

// A socket behind which the server is. Before the first request that has `word` in it goes on, `meanwhile`
// happens.
class Detour {
 public:
  Detour(std::string server, std::string word, std::function<void()> meanwhile)
      : server_(std::move(server)), word_(std::move(word)), meanwhile_(std::move(meanwhile)) {
    fd_ = socket_at(file_.file("s"), ::bind);
    REQUIRE(::listen(fd_, 8) == 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~Detour() {
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
  }
  Detour(const Detour&) = delete;
  Detour& operator=(const Detour&) = delete;
  [[nodiscard]] std::string url() const { return "unix://" + file_.file("s"); }

 private:
  template <class Call>
  static int socket_at(const std::string& path, Call call) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(call(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    return fd;
  }
  void serve() {
    for (int client = ::accept(fd_, nullptr, nullptr); client >= 0;
         client = ::accept(fd_, nullptr, nullptr)) {
      const int server = socket_at(server_, ::connect);
      pollfd both[2] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
      for (bool open = true; open && ::poll(both, 2, -1) > 0;) {
        open = pass(both[0], server, [this](std::string_view request) { look_at(request); }) &&
               pass(both[1], client, [](std::string_view) {});
      }
      ::close(server);
      ::close(client);
    }
  }
  void look_at(std::string_view request) {
    if (meanwhile_ && request.find(word_) != std::string_view::npos) {
      std::exchange(meanwhile_, nullptr)();
    }
  }
  // False at the end.
  template <class Look>
  static bool pass(const pollfd& from, int to, Look look) {
    if (from.revents == 0) {
      return true;
    }
    char bytes[1 << 16];
    const ssize_t got = ::read(from.fd, bytes, sizeof bytes);
    if (got <= 0) {
      return false;
    }
    const std::string_view text(bytes, static_cast<std::size_t>(got));
    look(text);
    return write_all(to, text) == 0;
  }

  std::string server_;
  std::string word_;
  std::function<void()> meanwhile_;
  TemporaryDirectory file_;
  int fd_ = -1;
  std::thread thread_;
};

class Archived {
 public:
  explicit Archived(std::uint32_t partitions = 2) : work(partitions) {
    work.options().group = group_name;
    work.options().archive = place.path();
  }

  void archive() {
    work.data().topic() = load_topic(*session, "t");
    register_group(*session, work.data().topic(), group_name, "start");
    work.options().partitions = work.data().topic().partitions();
    (void)work.run();
  }
  void publish(std::uint32_t partition, std::uint32_t events, std::uint32_t generation = 1) {
    std::vector<std::string> lines;
    for (std::uint32_t i = 0; i < events; ++i, ++published) {
      lines.push_back(event_line("e" + std::to_string(published), "k" + std::to_string(published % 17)));
    }
    work.data().append(partition, lines, Frames::automatic, generation);
  }
  // As a named producer stores it.
  void import(std::uint32_t partition, const std::string& producer, std::uint64_t position,
              std::uint32_t generation = 1) {
    const std::string key = producer_key("t", Partition(partition), producer);
    const std::string before = hash_of(*session, key)[fmt::format("pos.{}", generation)];
    work.data().command("HSETNX", key, "epoch", 0);
    const auto replies = session->call(std::move(redis::Request().run(
        redis::Script::append, {work.data().log(partition), work.data().meta(partition), key},
        work.data().topic().log_id, generation, "named", 0, before.empty() ? "0" : before, position,
        fmt::format("{:016x}", position * 77), 1, "e",
        event_line("i" + std::to_string(published++), "k") + "\n", producer)));
    REQUIRE(replies[0][0].text() == "OK");
  }
  void resize(std::uint32_t partitions, std::uint32_t generation) {
    const std::uint32_t before = static_cast<std::uint32_t>(load_topic(*session, "t").partitions().size());
    work.data().command("HSET", topic_key("t"), fmt::format("gen:{}", generation),
                        RingDescription::uniform(partitions).text());
    for (std::uint32_t p = 0; p < std::max(before, partitions); ++p) {
      work.data().seal(p, generation, p < before ? "old" : "new");
    }
    work.data().command("HSET", topic_key("t"), "active", generation);
  }
  // Everything that an archive should keep.
  void publish_all_kinds() {
    publish(0, 600);  // more than 32 KiB: kept as it is
    publish(1, 3);
    for (std::uint64_t i = 1; i <= 40; ++i) {
      publish(0, 1);
      import(0, "importer", 3 * i);
      import(i % 2, "counter", i);
    }
    resize(3, 2);
    import(2, "importer", 5, 2);
    publish(2, 20, 2);
    publish(0, 30, 2);
    import(0, "importer", 9, 2);
    publish(0, 2, 2);
  }
  // Through another socket, if one is named.
  RestoreSummary restore_by(const std::string& url, RestoreOptions options) {
    redis::ClientOptions client;
    client.needs.access = redis::Needs::Access::write;
    redis::Session other(redis::Address::parse(url), client);
    return restore_archive(other, place.path(), options);
  }
  // Each time as a dry run before, which says the same and writes nothing.
  RestoreSummary restore(const std::function<void(RestoreOptions&)>& change = {}) {
    RestoreOptions options;
    options.topic = "t";
    if (change) {
      change(options);
    }
    const RestoreSummary dry = dry_run(options);
    const RestoreSummary summary = restore_archive(*session, place.path(), options);
    CHECK(dry.topic == summary.topic);
    CHECK(dry.active == summary.active);
    CHECK(dry.notices == summary.notices);
    REQUIRE(dry.partitions.size() == summary.partitions.size());
    for (std::size_t i = 0; i < dry.partitions.size(); ++i) {
      CHECK(dry.partitions[i].partition == summary.partitions[i].partition);
      CHECK(dry.partitions[i].first == summary.partitions[i].first);
      CHECK(dry.partitions[i].next == summary.partitions[i].next);
    }
    return summary;
  }
  std::string refusal(ErrorKind kind, const std::function<void(RestoreOptions&)>& change = {}) {
    RestoreOptions options;
    options.topic = "t";
    if (change) {
      change(options);
    }
    std::string dry;
    CHECK(kind_of([&] { (void)dry_run(options); }, &dry) == kind);
    std::string message;
    CHECK(kind_of([&] { (void)restore_archive(*session, place.path(), options); }, &message) == kind);
    // What became of the topic, and what to do with it, is said by the run alone.
    const std::string what = message.substr(0, message.find(". "));
    CHECK(dry.starts_with(what));
    return message;
  }
  RestoreSummary dry_run(RestoreOptions options) {
    options.mode = RestoreMode::dry_run;
    options.on_progress = {};
    struct Untouched {
      Archived& archived;
      std::string before = archived.writes();
      ~Untouched() { CHECK(archived.writes() == before); }
    } const untouched{*this};
    return restore_archive(*session, place.path(), options);
  }
  // That the server has counted.
  std::string writes() {
    const std::string info(work.data().command("INFO", "persistence")[0].text());
    const std::string name = "rdb_changes_since_last_save:";
    const std::size_t at = info.find(name);
    REQUIRE(at != std::string::npos);
    return info.substr(at, info.find('\r', at) - at);
  }
  void flush() { work.data().command("FLUSHALL"); }

  Work work;
  std::unique_ptr<redis::Session> session = work.session();
  ArchivePlace place;
  std::uint64_t published = 0;
};

}  // namespace

TEST_SUITE("archive restore") {
  TEST_CASE("a topic that is restored has its entries, offsets, times, rings and producers again") {
    Archived archived;
    archived.publish_all_kinds();
    archived.work.data().command("HSET", topic_key("t"), "retention", 5'000, "retention_bytes", 1 << 30);
    archived.archive();
    Snapshot before = snapshot_of(*archived.session);
    const auto frame_of = [&] {
      const auto replies =
          archived.work.data().command("XRANGE", archived.work.data().log(0), "-", "+", "COUNT", 2);
      CHECK(replies[0][1][1][6].text() == "z");
      return std::string(replies[0][1][1][7].text());
    };
    const std::string first_frame = frame_of();
    archived.flush();
    const RestoreSummary summary = archived.restore();
    CHECK(summary.events() == archived.published);
    CHECK(summary.active == Generation(2));
    std::erase_if(before.producers, [](const auto& field) { return field.first.ends_with(" epoch"); });
    Snapshot after = snapshot_of(*archived.session);
    std::erase_if(after.producers, [](const auto& field) { return field.first.ends_with(" epoch"); });
    CHECK(after.log_id == before.log_id);
    CHECK(after.limits == before.limits);
    CHECK(after.limits.size() == 2);
    REQUIRE(summary.notices.size() == 1);
    CHECK(summary.notices[0].find("`continuum topic set t retention=none retention_bytes=none`") !=
          std::string::npos);
    CHECK(after.active == before.active);
    CHECK(after.rings == before.rings);
    CHECK(difference(before, after) == "");
    CHECK(after.metas == before.metas);
    CHECK(after.producers == before.producers);
    CHECK(after.producers.size() >= 12);
    CHECK(frame_of() == first_frame);
  }

  TEST_CASE("a topic that was restored goes on: it is published to, worked, and archived as before") {
    Archived archived;
    archived.publish_all_kinds();
    archived.archive();
    archived.flush();
    (void)archived.restore();
    archived.archive();
    const std::string nothing_new = archived.work.said();
    CHECK(nothing_new.find("again") == std::string::npos);
    archived.publish(0, 25, 2);
    archived.import(0, "importer", 12, 2);
    archived.publish(1, 4, 2);
    {
      Topic topic = load_topic(*archived.session, "t");
      register_group(*archived.session, topic, "g", "start");
      archived.work.data().topic() = topic;
      archived.work.options().group = "g";
      archived.work.options().archive.reset();
      CHECK(archived.work.run().handled == archived.published);
      archived.work.options().group = group_name;
      archived.work.options().archive = archived.place.path();
    }
    archived.resize(2, 3);
    archived.publish(1, 4, 3);
    archived.archive();
    const Snapshot whole = snapshot_of(*archived.session);
    CHECK(verify(archived.place).problems.empty());
    // All of it comes back once more.
    archived.flush();
    CHECK(archived.restore().events() == archived.published);
    const Snapshot again = snapshot_of(*archived.session);
    CHECK(difference(whole, again).empty());
    CHECK(again.rings == whole.rings);
    CHECK(again.metas == whole.metas);
  }

  TEST_CASE("after a restore nothing is trimmed that is not archived yet") {
    Archived archived;
    archived.publish_all_kinds();
    archived.archive();
    archived.flush();
    const RestoreSummary summary = archived.restore();
    REQUIRE(summary.partitions.size() == 3);
    for (std::uint32_t p = 0; p < 3; ++p) {
      archived.publish(p, 9, 2);
    }
    const Topic topic = load_topic(*archived.session, "t");
    CHECK(topic.groups.at(group_name).policy == "start");
    const TrimGoal goal{.before = SystemTime::max(), .bytes_max = std::nullopt};
    for (const auto& restored : summary.partitions) {
      const auto group = parse_group(
          archived.work.data().command("HGETALL", group_key("t", restored.partition, group_name))[0]);
      REQUIRE(group);
      CHECK(group->cursor.offset == restored.next);
      CHECK(trim_log(*archived.session, topic, restored.partition, goal, {}, TrimHead::recorded, {}).first ==
            restored.next);
    }
    archived.archive();
    CHECK(archived.work.said().empty());
    CHECK(verify(archived.place).problems.empty());
    archived.flush();
    CHECK(archived.restore().events() == archived.published);
    CHECK(archived.restore([](auto& options) { options.to = "u"; }).events() == archived.published);
    CHECK(load_topic(*archived.session, "u").groups.empty());
  }

  TEST_CASE("a log that was not archived up to a resize is said, and producers do not claim what it lacks") {
    Archived archived;
    archived.import(0, "importer", 1);
    archived.import(1, "importer", 2);
    archived.archive();
    archived.import(1, "importer", 3);  // is never archived
    archived.resize(1, 2);
    archived.import(0, "importer", 4, 2);
    archived.work.options().partitions = {Partition(0)};
    (void)archived.work.run();
    archived.flush();
    for (int run = 0; run < 2; ++run) {
      const std::string why = archived.refusal(ErrorKind::loss);
      CHECK(why.find("partition 1 ends in generation 1, and others have events of generation 2") !=
            std::string::npos);
      CHECK(kind_of([&] { (void)load_topic(*archived.session, "t"); }) == ErrorKind::usage);
    }
    const auto summary = archived.restore([](auto& o) { o.missing = MissingPartitions::empty; });
    CHECK(summary.events() == 3);
    REQUIRE(summary.notices.size() == 2);
    CHECK(summary.notices[1].find("after generation 1") != std::string::npos);
    const auto producers = snapshot_of(*archived.session).producers;
    CHECK(producers.at("0 importer pos.1") == "1");
    CHECK(producers.at("1 importer pos.1") == "2");
    CHECK(!producers.contains("0 importer pos.2"));
    CHECK(!producers.contains("0 importer dig.2"));
  }

  TEST_CASE("of logs that were not archived to their end all are named") {
    constexpr std::uint32_t partitions = 15;
    Archived archived(partitions);
    for (std::uint32_t p = 0; p < partitions; ++p) {
      archived.publish(p, 1);
    }
    archived.archive();
    archived.resize(partitions, 2);
    archived.publish(0, 1, 2);
    SUBCASE("a few") {
      archived.work.options().partitions.clear();
      for (std::uint32_t p = 0; p < partitions; ++p) {
        if (p != 3 && p != 14) {
          archived.work.options().partitions.emplace_back(p);
        }
      }
      (void)archived.work.run();
      archived.flush();
      const std::string why = archived.refusal(ErrorKind::loss);
      CHECK(why.find("partition 3 ends in generation 1") != std::string::npos);
      CHECK(why.find("partition 14 ends in generation 1") != std::string::npos);
      CHECK(why.find("partition 4 ") == std::string::npos);
    }
    SUBCASE("all but one") {
      archived.work.options().partitions = {Partition(0)};
      (void)archived.work.run();
      archived.flush();
      const std::string why = archived.refusal(ErrorKind::loss);
      CHECK(why.find("partition 10 ends in generation 1") != std::string::npos);
      CHECK(why.find("partition 11 ") == std::string::npos);
      CHECK(why.find("; 4 more partitions likewise.") != std::string::npos);
    }
  }

  TEST_CASE("a restore that is killed leaves nothing that can be used, and the next one goes on") {
    Archived archived;
    for (int i = 0; i < 2200; ++i) {
      archived.publish(static_cast<std::uint32_t>(i % 2), 1);
      archived.import(1, "counter", static_cast<std::uint64_t>(i) + 1);
    }
    archived.archive();
    const Snapshot before = snapshot_of(*archived.session);
    archived.flush();
    int kills = 0;
    for (bool done = false; !done;) {
      const pid_t child = ::fork();
      if (child == 0) {
        const auto session = archived.work.session();
        RestoreOptions options;
        options.topic = "t";
        int told = 0;
        options.on_progress = [&](std::uint64_t) {
          if (++told == 3) {
            ::kill(::getpid(), SIGKILL);
          }
        };
        (void)restore_archive(*session, archived.place.path(), options);
        ::_exit(0);
      }
      int status = 0;
      ::waitpid(child, &status, 0);
      done = WIFEXITED(status);
      kills += done ? 0 : 1;
      REQUIRE(kills < 20);
      if (!done) {
        std::string message;
        CHECK(kind_of([&] { (void)load_topic(*archived.session, "t"); }, &message) == ErrorKind::usage);
        CHECK(message.find("is being restored") != std::string::npos);
        CHECK(kind_of([&] { (void)create_topic(*archived.session, "t", RingDescription::uniform(2), {}); }) ==
              ErrorKind::usage);
        CHECK(archived.work.data().command("EXISTS", meta_key("t", Partition(0)))[0].number() == 0);
        CHECK(archived.work.data().command("HGET", topic_key("t"), "active")[0].text() == "0");
      }
    }
    CHECK(kills >= 4);
    const Snapshot after = snapshot_of(*archived.session);
    CHECK(difference(before, after) == "");
    CHECK(after.metas == before.metas);
  }

  TEST_CASE("a restore that comes late writes nothing into a topic that is finished, dropped or anew") {
    Archived archived;
    for (int i = 0; i < 2200; ++i) {
      archived.import(1, "counter", static_cast<std::uint64_t>(i) + 1);
    }
    archived.archive();
    archived.flush();
    const auto all = [&] {
      std::map<std::string, std::string> dump;
      const auto keys = archived.work.data().command("KEYS", "*");
      for (std::size_t i = 0; i < keys[0].size(); ++i) {
        const std::string key(keys[0][i].text());
        dump[key] = archived.work.data().command("DUMP", key)[0].text();
      }
      return dump;
    };
    std::map<std::string, std::string> before;
    std::function<void()> meanwhile;
    SUBCASE("finished by another run, and published to since") {
      meanwhile = [&] {
        CHECK(archived.restore().events() == 2200);
        archived.import(1, "counter", 9000);
        CHECK(archived.work.data().command("EXISTS", restoring_key("t", Partition(1)))[0].number() == 0);
      };
    }
    SUBCASE("dropped") {
      meanwhile = [&] { CHECK(drop_topic(*archived.session, "t") > 0); };
    }
    SUBCASE("dropped and created anew") {
      meanwhile = [&] {
        CHECK(drop_topic(*archived.session, "t") > 0);
        CHECK(create_topic(*archived.session, "t", RingDescription::uniform(2), {}) == Created::created);
      };
    }
    SUBCASE("dropped and created anew with fewer partitions") {
      meanwhile = [&] {
        CHECK(drop_topic(*archived.session, "t") > 0);
        CHECK(create_topic(*archived.session, "t", RingDescription::uniform(1), {}) == Created::created);
      };
    }
    for (const int moment : {1, 2, 3}) {
      archived.flush();
      const auto session = archived.work.session();
      RestoreOptions options;
      options.topic = "t";
      int told = 0;
      options.on_progress = [&](std::uint64_t) {
        if (++told == moment) {
          meanwhile();
          before = all();
        }
      };
      CHECK(kind_of([&] { (void)restore_archive(*session, archived.place.path(), options); }) != ErrorKind{});
      CHECK(told >= moment);
      CHECK(all() == before);
    }
  }

  TEST_CASE("what is there is not restored over, and the way out is said") {
    Archived archived;
    archived.publish(0, 10);
    archived.publish(1, 10);
    archived.archive();
    CHECK(archived.refusal(ErrorKind::usage).find("topic t exists") != std::string::npos);
    CHECK(archived.refusal(ErrorKind::usage, [](auto& options) { options.topic = "tt"; })
              .find("has no topic tt; did you mean t?") != std::string::npos);
    SUBCASE("what is left of a dropped one") {
      archived.work.data().command("DEL", topic_key("t"));
      CHECK(archived.refusal(ErrorKind::usage).find("of another topic of that name") != std::string::npos);
    }
    SUBCASE("one that is being restored from another archive") {
      archived.flush();
      archived.work.data().command("HSET", topic_key("t"), "id", std::string(32, 'a'), "format", 1, "created",
                                   1, "frames", "auto", "event_bytes_max", 4096, "active", 0, "pending", 1,
                                   "restoring", std::string(32, 'a'), "gen:1", "xxh3:256:0");
      CHECK(archived.refusal(ErrorKind::usage).find("from another archive") != std::string::npos);
      CHECK(drop_topic(*archived.session, "t") == 1);
      CHECK(archived.restore().events() == 20);
    }
  }

  TEST_CASE("of two restores at once none takes the other's logs for what is left of a topic") {
    Archived archived;
    archived.publish(0, 10);
    archived.publish(1, 10);
    archived.archive();
    archived.flush();
    RestoreOptions options;
    options.topic = "t";
    const std::string server = archived.work.url().substr(std::string("unix://").size());
    SUBCASE("that is finished meanwhile") {
      const Detour detour(server, restoring_key("t", Partition(0)),
                          [&] { CHECK(archived.restore().events() == 20); });
      SUBCASE("the run") {}
      SUBCASE("the dry run") {
        options.mode = RestoreMode::dry_run;
      }
      std::string why;
      CHECK(kind_of([&] { (void)archived.restore_by(detour.url(), options); }, &why) == ErrorKind::usage);
      CHECK(why.find("topic t exists") != std::string::npos);
      CHECK(snapshot_of(*archived.session).entries.size() == 2);
    }
    SUBCASE("that stops half way meanwhile") {
      const Detour detour(server, restoring_key("t", Partition(0)), [&] {
        RestoreOptions other = options;
        other.on_progress = [](std::uint64_t) { throw std::runtime_error("stopped"); };
        const auto session = archived.work.session();
        CHECK_THROWS_AS((void)restore_archive(*session, archived.place.path(), other), std::runtime_error);
      });
      CHECK(archived.restore_by(detour.url(), options).events() == 20);
      CHECK(snapshot_of(*archived.session).entries.size() == 2);
    }
  }

  TEST_CASE("a restore that goes on with an older copy of the archive says so") {
    Archived archived;
    archived.publish(0, 10);
    archived.publish(1, 10);
    archived.archive();
    const std::string older = bytes_of(archived.place.segments().at(0));
    const std::string older_index = bytes_of(archived.place.indexes().at(0));
    archived.publish(0, 10);
    archived.archive();
    archived.flush();
    const fs::path other = archived.place.partition(1) / PartitionDirectory::segment_name(Offset(0));
    const std::string good = bytes_of(other);
    std::string bytes = good;
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    put_bytes(other, bytes);
    (void)archived.refusal(ErrorKind::loss);  // partition 0 is restored then
    put_bytes(other, good);
    const std::string newer = bytes_of(archived.place.segments().at(0));
    const std::string newer_index = bytes_of(archived.place.indexes().at(0));
    put_bytes(archived.place.segments().at(0), older);
    put_bytes(archived.place.indexes().at(0), older_index);
    const std::string why = archived.refusal(ErrorKind::usage);
    CHECK(
        why.find("is restored up to offset 20 already, and this archive ends at offset 10: it is an older") !=
        std::string::npos);
    CHECK(why.find("another topic") == std::string::npos);
    put_bytes(archived.place.segments().at(0), newer);
    put_bytes(archived.place.indexes().at(0), newer_index);
    CHECK(archived.restore().events() == 30);
  }

  TEST_CASE("under another name it is a topic of its own beside the one that it was") {
    Archived archived;
    archived.publish_all_kinds();
    archived.archive();
    const Snapshot before = snapshot_of(*archived.session);
    const auto summary = archived.restore([](auto& options) { options.to = "u"; });
    CHECK(summary.topic == "u");
    const Snapshot copy = snapshot_of(*archived.session, "u");
    CHECK(copy.log_id != before.log_id);
    CHECK(copy.log_id == summary.log_id);
    CHECK(difference(before, copy) == "");
    CHECK(snapshot_of(*archived.session) == before);
  }

  TEST_CASE("damage is exit 4 with its range, and with a good copy the same restore is finished") {
    Archived archived(1);
    for (int i = 0; i < 5; ++i) {
      archived.publish(0, 300);
      archived.archive();
    }
    const Snapshot before = snapshot_of(*archived.session);
    archived.flush();
    const fs::path segment = archived.place.segments().at(0);
    const std::string good = bytes_of(segment);
    std::string bytes = good;
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    put_bytes(segment, bytes);
    const std::string why = archived.refusal(ErrorKind::loss);
    CHECK(why.find("offsets 600 to 899") != std::string::npos);
    CHECK(why.find("put a copy of the file in its place") != std::string::npos);
    put_bytes(segment, good);
    CHECK(archived.restore().events() == 1500);
    CHECK(difference(before, snapshot_of(*archived.session)) == "");
  }

  TEST_CASE("a damaged end that the index has is exit 4, and a torn one that it has not is said") {
    Archived archived(1);
    for (int i = 0; i < 3; ++i) {
      archived.publish(0, 50);
      archived.archive();
    }
    archived.flush();
    const fs::path segment = archived.place.segments().at(0);
    const std::string good = bytes_of(segment);
    std::string bytes = good;
    SUBCASE("its header") {
      const std::size_t at = bytes.rfind("\x5c\x2a\x4d\x18") + 60;
      bytes[at] = static_cast<char>(bytes[at] ^ 1);
    }
    SUBCASE("cut within a frame") {
      bytes.resize(bytes.size() - 10);
    }
    SUBCASE("cut between frames") {
      bytes.resize(bytes.rfind("\x5c\x2a\x4d\x18"));
    }
    SUBCASE("torn") {
      put_bytes(segment, good.substr(0, good.size() - 10));
      fs::remove(archived.place.indexes().at(0));
      const auto summary = archived.restore();
      CHECK(summary.events() == 100);
      REQUIRE(summary.notices.size() == 1);
      CHECK(summary.notices[0].find("offsets 100 to 149") != std::string::npos);
      return;
    }
    put_bytes(segment, bytes);
    const std::string why = archived.refusal(ErrorKind::loss);
    CHECK(why.find("index has") != std::string::npos);
    CHECK(why.find("offsets 100 to 149") != std::string::npos);
    CHECK(archived.work.data().command("DBSIZE")[0].number() == 0);
    put_bytes(segment, good);
    CHECK(archived.restore().events() == 150);
  }

  TEST_CASE("a generation far beyond the rings that are known is damage") {
    Archived archived(1);
    archived.publish(0, 10);
    SUBCASE("of a barrier") {
      archived.work.data().seal(0, 4294967295, "old");
      archived.archive();
      archived.flush();
      CHECK(archived.refusal(ErrorKind::loss).find("barrier of generation 4294967295") != std::string::npos);
      const auto problems = verify(archived.place).problems;
      REQUIRE(problems.size() == 1);
      CHECK(problems[0].what.find("barrier of generation 4294967295") != std::string::npos);
    }
    SUBCASE("of a ring") {
      archived.archive();
      archived.flush();
      Topic topic = *read_archived_topic(ArchiveDirectory(archived.place.path()), "t");
      topic.active = Generation(4294967295);
      topic.rings.emplace(topic.active, topic.rings.begin()->second);
      write_archived_topic(ArchiveDirectory(archived.place.path()), topic);
      CHECK(archived.refusal(ErrorKind::loss).find("t/topic is damaged") != std::string::npos);
      CHECK(has_identity_problem(archived.place));
    }
  }

  TEST_CASE("what is missing in an archive is said before anything is restored") {
    Archived archived;
    archived.publish_all_kinds();
    archived.archive();
    archived.flush();
    SUBCASE("the file of the topic") {
      fs::remove(fs::path(archived.place.path()) / "t" / "topic");
      CHECK(archived.refusal(ErrorKind::loss).find("t/topic is missing") != std::string::npos);
      CHECK(has_identity_problem(archived.place));
    }
    SUBCASE("the file of the topic is damaged") {
      const fs::path file = fs::path(archived.place.path()) / "t" / "topic";
      std::string bytes = bytes_of(file);
      bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
      put_bytes(file, bytes);
      CHECK(archived.refusal(ErrorKind::loss).find("t/topic is damaged") != std::string::npos);
      CHECK(has_identity_problem(archived.place));
    }
    SUBCASE("the ring of a generation") {
      Topic older = *read_archived_topic(ArchiveDirectory(archived.place.path()), "t");
      older.active = Generation(1);
      older.rings.erase(Generation(2));
      fs::remove(fs::path(archived.place.path()) / "t" / "topic");
      write_archived_topic(ArchiveDirectory(archived.place.path()), older);
      CHECK(archived.refusal(ErrorKind::loss).find("the file is an older copy") != std::string::npos);
    }
    SUBCASE("a partition, for a symbolic link") {
      const fs::path aside = archived.place.path() + "/aside";
      fs::rename(archived.place.partition(1), aside);
      fs::create_directory_symlink(aside, archived.place.partition(1));
      for (const auto missing : {MissingPartitions::refuse, MissingPartitions::empty}) {
        const auto why = archived.refusal(ErrorKind::usage, [&](auto& o) { o.missing = missing; });
        CHECK(why.find("t/1 is no directory, or a symbolic link") != std::string::npos);
      }
    }
    SUBCASE("the frames of a partition") {
      const fs::path segment = archived.place.partition(1) / PartitionDirectory::segment_name(Offset(0));
      SUBCASE("it is empty") {
        put_bytes(segment, "");
      }
      SUBCASE("it is torn") {
        put_bytes(segment, bytes_of(segment).substr(0, 40));
      }
      CHECK(archived.refusal(ErrorKind::loss).find("was") != std::string::npos);  // its index has more
      fs::remove(archived.place.partition(1) / PartitionDirectory::index_name(Offset(0)));
      const std::string why = archived.refusal(ErrorKind::loss);
      CHECK(why.find("nothing of partition 1 of topic t: no whole frame is in ") != std::string::npos);
      CHECK(why.find("t/1/00000000000000000000.ndjson.zst") != std::string::npos);
      CHECK(archived.work.data().command("DBSIZE")[0].number() == 0);
      const auto allow = [](auto& options) { options.missing = MissingPartitions::empty; };
      CHECK(archived.restore(allow).partitions.size() == 2);
      return;
    }
    SUBCASE("a partition") {
      fs::remove_all(archived.place.partition(1));
      CHECK(archived.refusal(ErrorKind::loss).find("nothing of partition 1 of topic t") != std::string::npos);
      const auto allow = [](auto& options) { options.missing = MissingPartitions::empty; };
      CHECK(archived.restore(allow).partitions.size() == 2);
      const Snapshot after = snapshot_of(*archived.session);
      CHECK(after.entries.at(Partition(1)).size() == 2);  // its barriers
      archived.publish(1, 5, 2);
      return;
    }
    CHECK(archived.work.data().command("DBSIZE")[0].number() == 0);
  }

  TEST_CASE("a resize that was under way is finished, and a ring that was never in force is that before it") {
    Archived archived;
    archived.publish(0, 10);
    archived.publish(1, 10);
    SUBCASE("its ring is known") {
      archived.work.data().command("HSET", topic_key("t"), "gen:2", RingDescription::uniform(3).text(),
                                   "pending", 2);
      archived.work.data().seal(0, 2, "old");
      archived.archive();
      archived.flush();
      CHECK(archived.restore([](auto& o) { o.missing = MissingPartitions::empty; }).active == Generation(2));
      CHECK(snapshot_of(*archived.session).rings.at(Generation(2)) == RingDescription::uniform(3).text());
      archived.publish(2, 5, 2);
    }
    SUBCASE("it is not") {
      archived.archive();
      archived.work.data().seal(0, 2, "old");
      archived.work.data().command("HSET", topic_key("t"), "pending", 2, "gen:2",
                                   RingDescription::uniform(2).text());
      archived.archive();
      Topic older = *read_archived_topic(ArchiveDirectory(archived.place.path()), "t");
      older.rings.erase(Generation(2));
      write_archived_topic(ArchiveDirectory(archived.place.path()), older);
      archived.flush();
      CHECK(archived.restore().active == Generation(2));
      CHECK(snapshot_of(*archived.session).rings.at(Generation(2)) == RingDescription::uniform(2).text());
    }
    archived.publish(1, 5, 2);
    CHECK(snapshot_of(*archived.session).metas.at(Partition(1)).find(" 2 1 15 0") != std::string::npos);
  }

  TEST_CASE(
      "an archive that begins in the middle of a log is restored from there, and no loss is seen in it") {
    Archived archived(1);
    archived.publish(0, 10);
    archived.publish(0, 10);
    archived.work.data().command("XTRIM", archived.work.data().log(0), "MAXLEN", 1);
    archived.archive();
    archived.flush();
    const auto summary = archived.restore();
    CHECK(summary.partitions.at(0).first == Offset(10));
    REQUIRE(summary.notices.size() == 1);
    CHECK(summary.notices[0].find("of partition 0 does not begin at offset 0") != std::string::npos);
    CHECK(summary.events() == 10);
    redis::Request request;
    request_ends(request, "t", Partition(0));
    const auto replies = archived.session->call(std::move(request));
    const auto ends = parse_ends(replies[0], replies[1], "t", Partition(0), summary.log_id);
    CHECK(ends.loss.empty());
    CHECK(ends.head_loss.empty());
    CHECK(ends.state.next == Offset(20));
    // Nor does a trim take it for a log that somebody cut by hand.
    const TrimGoal goal{.before = SystemTime::max(), .bytes_max = std::nullopt};
    const Topic topic = load_topic(*archived.session, "t");
    const auto trimmed = trim_log(*archived.session, topic, Partition(0), goal, {}, TrimHead::recorded, {});
    CHECK(trimmed.first == Offset(20));
  }

  TEST_CASE("a ring is in the archive before the events that were stored under it are") {
    Archived archived(1);
    archived.work.data().topic() = load_topic(*archived.session, "t");
    register_group(*archived.session, archived.work.data().topic(), group_name, "start");
    const auto file = [&] { return *read_archived_topic(ArchiveDirectory(archived.place.path()), "t"); };
    const auto group = [&] {
      return *parse_group(
          archived.work.data().command("HGETALL", group_key("t", Partition(0), group_name))[0]);
    };
    Running running(archived.work);
    archived.publish(0, 5);
    await("events are archived", [&] { return group().cursor.offset == Offset(5); });
    CHECK(file().active == Generation(1));
    archived.work.data().command("HSET", topic_key("t"), "gen:2", "xxh3:256:0*2", "pending", 2);
    archived.work.data().seal(0, 2, "old");
    await("a barrier is archived", [&] { return group().passed == Generation(2); });
    CHECK(file().active == Generation(1));
    CHECK(file().rings.contains(Generation(2)));
    // Called off: the ring that was pending is not the one that comes into force.
    archived.work.data().command("HSET", topic_key("t"), "gen:2", "xxh3:256:0", "active", 2);
    archived.work.data().command("HDEL", topic_key("t"), "pending");
    archived.publish(0, 5, 2);
    await("events are archived", [&] { return group().cursor.offset == Offset(10); });
    CHECK(file().active == Generation(2));
    CHECK(file().rings.at(Generation(2)).text() == "xxh3:256:0");
    running.stop();
  }
}
