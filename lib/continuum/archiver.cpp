// The sink of `work --archive`: the entries of a partition, barriers too, onto disk.
#include "continuum/archive_topic.hpp"
#include "continuum/archive_writer.hpp"
#include "continuum/commit.hpp"
#include "continuum/decode_pool.hpp"
#include "continuum/error.hpp"
#include "continuum/sink.hpp"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/post.hpp>

#include <algorithm>
#include <exception>
#include <functional>
#include <memory>
#include <vector>

namespace continuum {

namespace {

// A batch is written when it has so many bytes of frames, or its first entry has waited so long: what comes
// in a trickle shares a frame and an fsync.
constexpr std::size_t batch_bytes_max = 4 << 20;
constexpr Milliseconds linger{500};
// While the disk does not take it.
constexpr Milliseconds retry_min{200};
constexpr Milliseconds retry_max{10'000};
// Another process writes there: it may be ending, or stopped, or it is a repair.
constexpr Milliseconds lock_retry_min{100};
constexpr Milliseconds lock_retry_max{1'000};
constexpr Milliseconds lock_tell_after{1'000};
constexpr Milliseconds lock_wait{10'000};  // of who does not stand by

Cursor cursor_of(const ArchiveMark& mark) {
  return {mark.next, mark.entry};
}

// What the disk's thread does. It alone uses the writer while it runs.
struct DiskJob {
  std::string archive;
  std::shared_ptr<const Topic>
      topic;                          // to be written before the entries; nullptr: nothing new is known of it
  std::vector<FetchedEntry> entries;  // taken into the writer from the front
  std::size_t appended = 0;

  std::optional<ArchiveMark> durable;
  std::string refused;       // by the disk: to be tried again
  std::exception_ptr error;  // of an entry: the end

  void run(ArchiveWriter& writer) noexcept {
    try {
      if (topic) {
        write_archived_topic(ArchiveDirectory(archive), *topic);
        topic.reset();
      }
      append_all(writer);
    } catch (const Error& failed) {
      if (topic && failed.kind() == ErrorKind::server) {
        refused = failed.message();
        durable = writer.durable();
        return;
      }
      error = std::current_exception();
    } catch (...) {
      error = std::current_exception();
    }
    // What was appended before is whole.
    try {
      durable = writer.sync();
    } catch (const Error& failed) {
      refused = failed.message();
      durable = writer.durable();
    } catch (...) {
      error = std::current_exception();
    }
  }

 private:
  void append_all(ArchiveWriter& writer) {
    while (appended < entries.size()) {
      if (writer.pending_bytes() >= ArchiveWriter::pending_bytes_max) {
        return;  // what is left comes with the next job
      }
      (void)writer.append(entries[appended].entry);
      ++appended;
    }
  }
};

class Archiver final : public Sink, public std::enable_shared_from_this<Archiver> {
 public:
  Archiver(Workplace& workplace, const Tenure& tenure, const Cursor& start, Wake& wake)
      : place_(workplace),
        tenure_(tenure),
        wake_(wake),
        came_back_(workplace.executor),
        finished_(start),
        given_(start) {}

  // --- opening

  asio::awaitable<std::optional<Cursor>> begin(const Beginning& beginning) override {
    if (!co_await open_when_free(beginning)) {
      co_return std::nullopt;
    }
    const Cursor& committed = beginning.committed;
    const auto& recovered = writer_->recovered();
    for (const std::string& said : recovered.said) {
      place_.say(said);
    }
    for (const std::string& lost : recovered.lost) {
      place_.say(lost);
    }
    place_.damaged += recovered.lost.size();
    const LogExtent log = co_await beginning.look_at_log(recovered.end ? recovered.end->entry : EntryId{});
    if (!tenure_.holds()) {
      co_return std::nullopt;
    }
    if (recovered.end) {
      require_same_log(*recovered.end, log);
    }
    require_no_gap(recovered.end                 ? recovered.end->next
                   : committed.entry > EntryId{} ? Offset(0)
                                                 : committed.offset,
                   log);
    if (const auto& end = recovered.end) {
      finished_ = given_ = cursor_of(*end);
      generation_ = end->generation;
      if (end->next < committed.offset) {
        place_.say(
            fmt::format("{}: its archive in {} ends at offset {}, and the group archive had come to {}: what "
                        "is between is taken from the log again",
                        place(), *place_.options.archive, end->next, committed.offset));
      }
    } else if (committed.entry > EntryId{}) {
      // Not where the group was registered: an archive had come there.
      finished_ = given_ = {};
      place_.say(
          fmt::format("{}: {} has no archive of it, and the group archive had come to offset {} with another "
                      "one: everything is taken from the log again",
                      place(), *place_.options.archive, committed.offset));
    }
    co_return given_;
  }

  // --- entries

  [[nodiscard]] bool takes_barriers() const override { return true; }
  [[nodiscard]] bool wants_entry() const override {
    return writer_ && !finishing_ && paused_.empty() && refused_.empty() && batch_bytes_ < batch_bytes_max;
  }

  void give(FetchedEntry entry) override {
    if (batch_.empty()) {
      due_ = place_.options.ending == Ending::drained ? Clock::now() : Clock::now() + linger;
    }
    Generation& newest = entry.entry.barrier ? given_barrier_ : given_events_;
    newest = std::max(newest, entry.entry.generation);
    given_ = {entry.entry.next(), entry.entry.id};
    batch_bytes_ += entry.entry.frame.size() + 1;
    batch_.push_back(std::move(entry));
  }

  void pump() override {
    if (error_) {
      std::rethrow_exception(error_);
    }
    if (running_ || !writer_ || gave_up_ || !tenure_.holds() || Clock::now() < retry_at_) {
      return;
    }
    const bool due = finishing_ || batch_bytes_ >= batch_bytes_max || Clock::now() >= due_;
    if (!refused_.empty() || (!batch_.empty() && due)) {
      if (knows_topic()) {
        submit();
      } else {
        running_ = true;
        asio::co_spawn(place_.executor, learn_topic(shared_from_this()), asio::detached);
      }
    }
  }

  [[nodiscard]] std::optional<Clock::time_point> next_time() const override {
    if (running_ || !writer_ || gave_up_ || (batch_.empty() && refused_.empty())) {
      return std::nullopt;
    }
    return refused_.empty() ? due_ : retry_at_;
  }

  // A disk that takes nothing is asked once more; what it does not have stays in the log.
  void finish() override {
    if (!std::exchange(finishing_, true)) {
      retry_at_ = {};
      wake_.notify();
    }
  }
  [[nodiscard]] bool running() const override {
    return running_ || (!gave_up_ && (!batch_.empty() || !refused_.empty()));
  }

  asio::awaitable<void> end(Leave) override {
    finishing_ = true;
    while (running_) {
      co_await came_back_.wait();
    }
    batch_.clear();
    batch_bytes_ = 0;
    refused_.clear();
    writer_.reset();
  }

  [[nodiscard]] Cursor finished() const override { return finished_; }
  [[nodiscard]] bool empty() const override { return given_.entry == finished_.entry; }
  [[nodiscard]] bool settled() const override { return empty(); }
  [[nodiscard]] Doing doing() const override {
    Doing doing;
    doing.at = finished_.offset;
    const std::string& refused = refused_.empty() ? taken_ : refused_;
    doing.state = !refused.empty() ? "retrying" : paused_.empty() ? "running" : "paused";
    doing.error = refused.empty() ? paused_ : refused;
    doing.since = refused_since_;
    doing.attempt = attempts_;
    return doing;
  }
  [[nodiscard]] bool halted() const override { return false; }
  void pause(const std::string& why) override { paused_ = why; }
  // Of the archive, which may be another one than that of the last commit.
  [[nodiscard]] Generation passed(Generation) const override { return generation_; }
  void collect(Commit& commit) override { commit.passed = generation_; }

 private:
  [[nodiscard]] std::string place() const { return continuum::place(place_.topic.name, tenure_.partition); }

  // The archive may be of a future that the log has lost.
  void require_same_log(const ArchiveMark& end, const LogExtent& log) const {
    if (end.next <= log.next && !log.lacks_entry) {
      return;
    }
    const std::string found =
        end.next > log.next
            ? fmt::format("the log ends at offset {}", log.next)
            : fmt::format("the log, which ends at offset {}, has other events there", log.next);
    fail(
        ErrorKind::loss,
        "{}: its archive in {} ends at offset {} (entry {}), and {}: the archive has events that the log has "
        "lost (it was restored from an older copy; or a failover, or a restart without a synced append-only "
        "file). Nothing was archived or committed. To have them again: `continuum topic drop -t {} --yes`, "
        "then `continuum archive restore` from this archive. To go on without them: name another, empty "
        "directory for --archive",
        place(), *place_.options.archive, end.next, end.entry.text(), found, place_.topic.name);
  }

  void require_no_gap(Offset from, const LogExtent& log) const {
    if (from >= log.first) {
      return;
    }
    fail(ErrorKind::loss,
         "{}: offsets {} to {} are neither in its archive in {} nor in the log, which has nothing before "
         "offset {}. Nothing was archived over it: put the right archive there; or let go of what is gone "
         "with `continuum group forget -t {} -g {} --yes`, and begin in an empty directory with what the log "
         "has",
         place(), from, log.first.value - 1, *place_.options.archive, log.first, place_.topic.name,
         archive_group);
  }

  // Keeps the lease while another process writes, so that what is said of the partition is true. False: not
  // to go on.
  asio::awaitable<bool> open_when_free(const Beginning& beginning) {
    const auto since = Clock::now();
    const bool stands_by = place_.options.standby == Standby::wait && place_.options.ending == Ending::never;
    Milliseconds pause = lock_retry_min;
    while (tenure_.holds() && beginning.goes_on()) {
      std::string taken;
      try {
        co_await open(beginning);
      } catch (const Error& error) {
        const auto waited = Clock::now() - since;
        if (error.kind() != ErrorKind::fenced || (!stands_by && waited >= lock_wait)) {
          throw;
        }
        taken = error.message();
        if (taken_.empty() && waited >= lock_tell_after) {
          place_.say(taken + "; waiting for it to end");
          taken_ = taken;
          refused_since_ = std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now());
        }
      }
      if (taken.empty()) {
        taken_.clear();
        co_return true;
      }
      co_await wake_.wait(Clock::now() + pause);
      pause = std::min(2 * pause, lock_retry_max);
    }
    co_return false;
  }

  // On the disk's thread; a directory may hang as a file may.
  asio::awaitable<void> open(const Beginning& beginning) {
    struct Opening {
      std::unique_ptr<ArchiveWriter> writer;
      std::exception_ptr error;
    };
    const auto opening = std::make_shared<Opening>();
    on_disk([opening, archive = *place_.options.archive, topic = place_.topic, partition = tenure_.partition,
             resume = ArchiveResume{beginning.committed.offset, beginning.log_first}] {
      try {
        opening->writer = std::make_unique<ArchiveWriter>(archive, topic.name, partition, topic.log_id,
                                                          resume, ArchiveOptions{});
        write_archived_topic(ArchiveDirectory(archive), topic);
      } catch (...) {
        opening->error = std::current_exception();
      }
    });
    while (running_) {
      co_await came_back_.wait();
    }
    if (opening->error) {
      std::rethrow_exception(opening->error);
    }
    writer_ = std::move(opening->writer);
    topic_active_ = topic_looked_at_ = place_.topic.active;
  }

  // The ring under which events were stored is final once it is active, and on the disk before they are.
  [[nodiscard]] bool knows_topic() const {
    return given_events_ <= topic_active_ && std::max(given_events_, given_barrier_) <= topic_looked_at_;
  }

  asio::awaitable<void> learn_topic(std::shared_ptr<Archiver> self) {
    const Generation newest = std::max(given_events_, given_barrier_);
    try {
      topic_ = std::make_shared<const Topic>(co_await place_.load_topic());
      topic_active_ = std::max(topic_->active, given_events_);
      topic_looked_at_ = newest;
    } catch (...) {
      error_ = std::current_exception();
    }
    running_ = false;
    wake_.notify();
    came_back_.notify();
    self.reset();
  }

  void submit() {
    const auto job = std::make_shared<DiskJob>();
    job->archive = *place_.options.archive;
    job->topic = topic_;
    job->entries = std::move(batch_);
    batch_.clear();
    batch_bytes_ = 0;
    on_disk([job, writer = writer_.get()] { job->run(*writer); },
            [job, self = shared_from_this()] { self->written(*job); });
  }

  // Runs it on a thread of the disk, and `then` on ours. This object lives until then, and ends here: its
  // timer belongs to this thread.
  void on_disk(std::function<void()> run, std::function<void()> then = {}) {
    running_ = true;
    place_.disk->submit([run = std::move(run), then = std::move(then), self = shared_from_this()]() mutable {
      run();
      const asio::any_io_executor executor = self->place_.executor;
      asio::post(executor, [then = std::move(then), self = std::move(self)] {
        self->running_ = false;
        if (then) {
          then();
        }
        self->came_back_.notify();
      });
    });
  }

  void written(DiskJob& job) {
    error_ = job.error;
    if (!job.topic) {
      topic_.reset();
    }
    if (job.durable && job.durable->entry > finished_.entry) {
      place_.handled += job.durable->next - finished_.offset;
      finished_ = cursor_of(*job.durable);
      generation_ = job.durable->generation;
    }
    // What did not fit comes before what was given meanwhile.
    for (std::size_t i = job.entries.size(); i > job.appended && !error_; --i) {
      batch_bytes_ += job.entries[i - 1].entry.frame.size() + 1;
      batch_.insert(batch_.begin(), std::move(job.entries[i - 1]));
    }
    if (!job.refused.empty()) {
      note_refusal(job.refused);
      if (finishing_ && !std::exchange(gave_up_, true)) {
        ++place_.unarchived;
      }
    } else if (!refused_.empty()) {
      place_.say(fmt::format("{}: its archive is written again", place()));
      refused_.clear();
      attempts_ = 0;
    }
    wake_.notify();
  }

  void note_refusal(const std::string& why) {
    if (refused_.empty()) {
      place_.say(why);
      refused_since_ = std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now());
    }
    refused_ = why;
    const Milliseconds pause = std::min(retry_max, retry_min * (std::int64_t{1} << std::min(attempts_, 10U)));
    ++attempts_;
    retry_at_ = Clock::now() + pause;
  }

  Workplace& place_;
  const Tenure& tenure_;
  Wake& wake_;
  Wake came_back_;  // from a thread of the disk
  std::unique_ptr<ArchiveWriter> writer_;
  std::vector<FetchedEntry> batch_;
  std::size_t batch_bytes_ = 0;
  Clock::time_point due_{};
  bool running_ = false;  // on the disk's thread
  bool finishing_ = false;
  bool gave_up_ = false;  // finishing, with a disk that takes nothing
  std::exception_ptr error_;
  Cursor finished_;  // durable
  Generation generation_;
  Cursor given_;
  Generation given_events_;   // the newest of an event
  Generation given_barrier_;  // and of a barrier
  // What the file of the topic says, or will say with the next batch.
  std::shared_ptr<const Topic> topic_;  // nullptr: it says it
  Generation topic_active_;
  Generation topic_looked_at_;
  std::string paused_;
  std::string refused_;  // why the disk does not take it; empty: it does
  std::string taken_;    // who else writes; empty: nobody, or not for long
  SystemTime refused_since_{};
  std::uint32_t attempts_ = 0;
  Clock::time_point retry_at_{};
};

}  // namespace

std::shared_ptr<Sink> make_archiver(Workplace& place, const Tenure& tenure, const Cursor& start, Wake& wake) {
  return std::make_shared<Archiver>(place, tenure, start, wake);
}

}  // namespace continuum
