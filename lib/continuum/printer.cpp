#include "continuum/printer.hpp"

#include "continuum/decode_pool.hpp"
#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/sink.hpp"

#include <unistd.h>
#include <asio/post.hpp>

#include <cerrno>
#include <chrono>
#include <cstring>

namespace continuum {

// --- the writing thread

struct OutputWriter::State {
  State(int f, asio::any_io_executor e) : fd(f), executor(std::move(e)) {}
  const int fd;
  asio::any_io_executor executor;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Piece> queue;
  bool ending = false;
  bool ended = false;

  // Returns an errno.
  [[nodiscard]] int write_all(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd, bytes.data(), bytes.size());
      if (n < 0 && errno != EINTR) {
        return errno;
      }
      bytes.remove_prefix(n > 0 ? static_cast<std::size_t>(n) : 0);
    }
    return 0;
  }

  void run() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [this] { return ending || !queue.empty(); });
      if (ending) {
        break;
      }
      Piece piece = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      const int error = piece.cancelled->load() ? ECANCELED : write_all(piece.bytes);
      lock.lock();
      if (!ending) {
        asio::post(executor, [done = std::move(piece.done), error] { done(error); });
      }
    }
    ended = true;
    changed.notify_all();
  }
};

OutputWriter::OutputWriter(int fd, asio::any_io_executor executor)
    : state_(std::make_shared<State>(fd, std::move(executor))) {
  const SignalsBlocked blocked;
  std::thread([state = state_] { state->run(); }).detach();
}

OutputWriter::~OutputWriter() {
  std::unique_lock lock(state_->mutex);
  state_->ending = true;
  state_->changed.notify_all();
  state_->changed.wait_for(lock, std::chrono::milliseconds(200), [this] { return state_->ended; });
}

void OutputWriter::write(Piece piece) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->queue.push_back(std::move(piece));
  }
  state_->changed.notify_all();
}

namespace {

// --- the sink

constexpr std::size_t job_bytes_max = 64 << 10;         // of frames, unless one is larger
constexpr std::size_t job_plain_bytes_max = 256 << 10;  // frames that are not compressed
constexpr std::size_t jobs_max = 4;

struct Job {
  std::vector<FetchedEntry> entries;
  std::size_t bytes = 0;
  Offset from;  // events before it are passed over
  Budget* budget = nullptr;

  std::string out;  // only its first `used` bytes count: it is used again without being cleared
  std::size_t used = 0;
  std::string lines;
  Cursor end;  // behind what was printed
  std::uint64_t printed = 0;
  std::exception_ptr error;

  std::shared_ptr<std::atomic<bool>> cancelled = std::make_shared<std::atomic<bool>>(false);
  enum class State : std::uint8_t { decoding, decoded, writing, written } state = State::decoding;

  [[nodiscard]] bool fits(const Entry& entry) const {
    const std::size_t max = entry.encoding == Encoding::plain ? job_plain_bytes_max : job_bytes_max;
    return entries.empty() || bytes + entry.frame.size() <= max;
  }
};

// How a job's events are written; shared with the decoding threads, so it never changes.
struct Form {
  std::string topic;
  Partition partition;
  Printing printing;
  TypeFilter filter;
  LocatedLine located;

  // Fills the job's output, up to the end of the budget.
  void fill(Job& job) const {
    for (const FetchedEntry& fetched : job.entries) {
      decode_entry(fetched, topic, partition, job.lines);
      const Entry& entry = fetched.entry;
      const std::size_t bound = job.used + job.lines.size() + entry.events * located.added_max();
      if (job.out.size() < bound) {
        job.out.resize(bound + bound / 8);
      }
      if (!fill_from(job, entry)) {
        return;
      }
      job.end.entry = entry.id;
    }
  }

 private:
  // False when the budget ended inside of the entry.
  bool fill_from(Job& job, const Entry& entry) const {
    const char* at = job.lines.data();
    const char* const end = at + job.lines.size();
    char* out = job.out.data() + job.used;
    for (Offset offset = entry.first; at != end; ++offset) {
      const auto* const newline =
          static_cast<const char*>(std::memchr(at, '\n', static_cast<std::size_t>(end - at)));
      const std::string_view line(at, static_cast<std::size_t>(newline - at));
      at = newline + 1;
      if (offset < job.from) {
        continue;
      }
      char* const behind = write(out, offset, line, job);
      if (behind == nullptr) {
        job.used = static_cast<std::size_t>(out - job.out.data());
        return false;
      }
      out = behind;
      job.end.offset = offset + 1;
    }
    job.used = static_cast<std::size_t>(out - job.out.data());
    return true;
  }

  // nullptr when there is no budget for the event.
  char* write(char* out, Offset offset, std::string_view line, Job& job) const {
    Attributes attributes;
    if (!filter.takes_all() || printing == Printing::data) {
      attributes = attributes_of(line);
    }
    if (!filter.takes_all() && !filter.takes(attributes.type)) {
      return out;
    }
    if (!job.budget->take()) {
      return nullptr;
    }
    ++job.printed;
    if (printing == Printing::event) {
      return located.write(out, offset, line);
    }
    const std::string_view data = attributes.data.empty() ? std::string_view("null") : attributes.data;
    std::memcpy(out, data.data(), data.size());
    out[data.size()] = '\n';
    return out + data.size() + 1;
  }
};

class Printer final : public Sink, public std::enable_shared_from_this<Printer> {
 public:
  Printer(Workplace& workplace, const Tenure& tenure, const Cursor& start, Wake& wake)
      : place_(workplace),
        tenure_(tenure),
        wake_(wake),
        form_(
            std::make_shared<Form>(Form{workplace.topic.name, tenure.partition, workplace.options.printing,
                                        TypeFilter(workplace.options.types), LocatedLine(tenure.partition)})),
        finished_(start),
        given_(start.offset) {}

  [[nodiscard]] bool wants_entry() const override {
    // One at a time when events are counted, so that the next one knows what is left.
    return !finishing_ && paused_.empty() && !place_.budget.spent() &&
           jobs_.size() < (place_.budget.limited() ? 1 : jobs_max);
  }

  void give(FetchedEntry entry) override {
    if (next_ && !next_->fits(entry.entry)) {
      submit();
    }
    if (!next_) {
      next_ = spare();
      next_->from = given_;
    }
    given_ = entry.entry.next();
    next_->bytes += entry.entry.frame.size();
    next_->entries.push_back(std::move(entry));
  }

  void pump() override {
    if (next_ && !finishing_) {
      submit();
    }
    while (!jobs_.empty() && jobs_.front()->state == Job::State::written) {
      retire(jobs_.front());
      jobs_.pop_front();
    }
    for (const std::shared_ptr<Job>& job : jobs_) {
      if (job->state == Job::State::decoding) {
        break;
      }
      if (job->state == Job::State::decoded) {
        if (job->error) {
          std::rethrow_exception(job->error);
        }
        print(job);
      }
    }
  }

  [[nodiscard]] std::optional<Clock::time_point> next_time() const override { return std::nullopt; }
  void finish() override { finishing_ = true; }
  [[nodiscard]] bool running() const override { return !jobs_.empty(); }

  asio::awaitable<void> end(Leave) override {
    finishing_ = true;
    for (const std::shared_ptr<Job>& job : jobs_) {
      job->cancelled->store(true);
    }
    jobs_.clear();
    next_.reset();
    co_return;
  }

  [[nodiscard]] Cursor finished() const override { return finished_; }
  [[nodiscard]] bool empty() const override { return finished_.offset == given_; }
  [[nodiscard]] bool settled() const override { return jobs_.empty() && !next_; }
  [[nodiscard]] Doing doing() const override {
    Doing doing;
    doing.at = finished_.offset;
    doing.state = paused_.empty() ? "running" : "paused";
    doing.error = paused_;
    return doing;
  }
  [[nodiscard]] bool halted() const override { return false; }
  void pause(const std::string& why) override { paused_ = why; }

 private:
  std::shared_ptr<Job> spare() {
    if (spares_.empty()) {
      return std::make_shared<Job>();
    }
    auto job = std::move(spares_.back());
    spares_.pop_back();
    return job;
  }

  void submit() {
    const std::shared_ptr<Job> job = std::exchange(next_, nullptr);
    job->budget = &place_.budget;
    job->end = finished_;
    job->state = Job::State::decoding;
    jobs_.push_back(job);
    place_.pool.submit([job, form = form_, executor = place_.executor, self = weak_from_this()] {
      try {
        form->fill(*job);
      } catch (...) {
        job->error = std::current_exception();
      }
      asio::post(executor, [job, self] {
        job->state = Job::State::decoded;
        if (const auto printer = self.lock()) {
          printer->wake_.notify();
        }
      });
    });
  }

  void print(const std::shared_ptr<Job>& job) {
    job->state = Job::State::writing;
    if (job->used == 0) {
      job->state = Job::State::written;
      wake_.notify();
      return;
    }
    if (!tenure_.holds()) {
      return;  // the partition's loop sees the same and ends us
    }
    place_.output->write({std::string_view(job->out.data(), job->used), job->cancelled,
                          [job, self = weak_from_this()](int error) {
                            if (const auto printer = self.lock()) {
                              printer->written(job, error);
                            }
                          }});
  }

  void written(const std::shared_ptr<Job>& job, int error) {
    if (error == 0) {
      job->state = Job::State::written;
    } else if (!job->cancelled->load()) {
      // What was cancelled was not refused by the output: the lease was lost, or an earlier piece was
      // refused.
      place_.on_output_error(error);
    }
    wake_.notify();
  }

  void retire(const std::shared_ptr<Job>& job) {
    finished_ = job->end;
    place_.handled += job->printed;
    job->entries.clear();
    job->bytes = 0;
    job->used = 0;
    job->printed = 0;
    spares_.push_back(job);
  }

  Workplace& place_;
  const Tenure& tenure_;
  Wake& wake_;
  std::shared_ptr<const Form> form_;
  std::deque<std::shared_ptr<Job>> jobs_;
  std::shared_ptr<Job> next_;                 // being gathered
  std::vector<std::shared_ptr<Job>> spares_;  // with buffers that are large enough already
  Cursor finished_;
  Offset given_;
  std::string paused_;  // why; empty: not
  bool finishing_ = false;
};

}  // namespace

std::shared_ptr<Sink> make_printer(Workplace& place, const Tenure& tenure, const Cursor& start, Wake& wake) {
  return std::make_shared<Printer>(place, tenure, start, wake);
}

}  // namespace continuum
