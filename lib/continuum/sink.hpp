// What becomes of the entries of one partition while its lease is held: they are printed, handled or
// archived. Private to the library: includes Asio.
#pragma once

#include "continuum/handler_set.hpp"
#include "continuum/log_reader.hpp"
#include "continuum/wake.hpp"
#include "continuum/window.hpp"
#include "continuum/worker.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace continuum {

struct Commit;
class DecodePool;
class HeldEvents;
class LeftKeys;
struct EventRun;
class OutputWriter;
class ProcessGuard;

// Goes on while the process is stopped and while the machine sleeps, as the server's clock does.
struct BootClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;
  static time_point now() noexcept;
};

// What the partitions of one worker share.
struct Workplace {
  asio::any_io_executor executor;
  const Topic& topic;
  const WorkOptions& options;
  DecodePool& pool;
  OutputWriter* output = nullptr;  // when events are printed
  ProcessGuard* guard = nullptr;   // when they are handled
  HandlerSet handlers;             // likewise
  Budget budget;
  std::function<void(int error)> on_output_error;
  std::uint64_t handled = 0;  // events that every handler is done with
  std::uint64_t failed = 0;   // events that a handler gave up

  enum class Printed : std::uint8_t { lines, array };
  // Makes final events of what a handler printed for an event. Returns what is wrong with it, or nothing.
  // Empty when nothing is emitted.
  std::function<std::optional<std::string>(const EmitCause& cause, std::string_view printed, Printed as,
                                           std::string& output)>
      emit;

  // Of a trial: what handlers say is told, and has no consequences. Empty: it has.
  struct Judged {
    Partition partition;
    Offset offset;
    Verdict verdict;
    std::string_view why;
    std::string_view output;
  };
  std::function<void(const Judged&)> judge;
  std::function<void(std::string_view why)> on_down;

  // Of a replay, which is outside of any group: there are no dead letters, nothing is emitted, and events may
  // have been left out. Null: there is a group.
  LeftKeys* replay = nullptr;

  // When they are archived: threads of their own, which may hang as long as a disk does.
  DecodePool* disk = nullptr;
  std::function<asio::awaitable<Topic>()> load_topic = {};  // as it is now
  std::uint64_t damaged = 0;                                // places in archives that stay so
  std::uint64_t unarchived = 0;                             // partitions whose disk took nothing at the end

  void say(const std::string& text) const {
    if (options.say) {
      options.say(text);
    }
  }
};

// The time for which a partition is ours.
struct Tenure {
  Partition partition;
  Fence fence;
  Generation passed;  // with the fence, the token for what handlers write to
  BootClock::time_point until;
  mutable bool lapsed = false;

  // To be asked before anything is started, believed or committed: this process may just have been stopped
  // for minutes. Once it was over it stays over, also when a late answer extends it: verdicts may have been
  // dropped.
  [[nodiscard]] bool holds() const {
    lapsed = lapsed || BootClock::now() >= until;
    return !lapsed;
  }
};

// What the server has of the log of a partition.
struct LogExtent {
  Offset first;  // `next` when it is empty
  Offset next;
  bool lacks_entry = false;  // the one asked for is missing, and was not trimmed
};

// How things stand when a sink begins.
struct Beginning {
  Cursor committed;
  std::optional<Offset> log_first;  // of an archive: of what the log still has; nothing: it is empty
  std::function<bool()> goes_on;    // false: the worker is to end, or to leave this partition to others
  // Of an archive: as it is now, and whether it has this entry (0-0: none).
  std::function<asio::awaitable<LogExtent>(EntryId entry)> look_at_log = {};
};

enum class Leave : std::uint8_t {
  gently,   // nothing is running: an idle process may end by itself
  at_once,  // kills
};

// Its owner calls it from one coroutine; `wake` is notified whenever something below may have changed.
class Sink {
 public:
  Sink() = default;
  virtual ~Sink() = default;
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;

  // Before anything else: where the log is to be read from. nullopt: it did not come to that. `beginning`
  // stays until then.
  virtual asio::awaitable<std::optional<Cursor>> begin(const Beginning& beginning) {
    co_return beginning.committed;
  }
  [[nodiscard]] virtual bool wants_entry() const = 0;
  // Barriers are given like other entries, and nobody waits at them.
  [[nodiscard]] virtual bool takes_barriers() const { return false; }
  virtual void give(FetchedEntry entry) = 0;
  // Starts what may start. Throws Error{loss} for an entry that is damaged.
  virtual void pump() = 0;
  // When pump() should be called even if nothing happens.
  [[nodiscard]] virtual std::optional<Clock::time_point> next_time() const = 0;
  // From here on nothing more is started; what runs goes on to its end.
  virtual void finish() = 0;
  [[nodiscard]] virtual bool running() const = 0;
  // Ends the processes that are left, and waits for them. Verdicts are no longer believed.
  virtual asio::awaitable<void> end(Leave leave) = 0;

  [[nodiscard]] virtual Cursor finished() const = 0;  // the longest finished prefix
  [[nodiscard]] virtual bool empty() const = 0;       // everything given is finished
  [[nodiscard]] virtual bool settled() const = 0;     // everything that budget was taken for is finished
  [[nodiscard]] virtual Doing doing() const = 0;
  [[nodiscard]] virtual bool halted() const = 0;
  // Starts nothing more for now, because somebody wants that. Empty: goes on.
  virtual void pause(const std::string& why) = 0;
  // Likewise, because what it did has no room any more.
  virtual void hold_back(const std::string& why) { (void)why; }

  // What goes with a commit of everything before its cursor; it is taken out of here.
  virtual void collect(Commit& commit) { (void)commit; }
  // The generation that it has come to, where not its owner passes the barriers.
  [[nodiscard]] virtual Generation passed(Generation of_owner) const { return of_owner; }
  virtual void committed() {}
  // There is something to be committed besides the cursor.
  [[nodiscard]] virtual bool wants_commit() const { return false; }
  [[nodiscard]] virtual HeldEvents* held() { return nullptr; }
  // An operator has asked for letters to be handled again or taken away, and that is not done yet.
  [[nodiscard]] virtual bool releasing() const { return false; }
  virtual void set_handlers(const HandlerSet& handlers) { (void)handlers; }
  // Of the time since the last call, how much something was being handled, in thousandths.
  [[nodiscard]] virtual std::uint32_t busy_permille() { return 0; }
};

[[nodiscard]] std::shared_ptr<Sink> make_printer(Workplace& place, const Tenure& tenure, const Cursor& start,
                                                 Wake& wake);
[[nodiscard]] std::shared_ptr<Sink> make_dispatcher(Workplace& place, const Tenure& tenure,
                                                    const Cursor& start, Wake& wake);

[[nodiscard]] std::shared_ptr<Sink> make_archiver(Workplace& place, const Tenure& tenure, const Cursor& start,
                                                  Wake& wake);

// An event's line as people and handlers get it: with where it lies, as its first members.
class LocatedLine {
 public:
  explicit LocatedLine(Partition partition)
      : begin_(fmt::format("{{\"partition\":{},\"offset\":", partition)) {}

  // Bytes that write() adds at most to those of the line, its newline included.
  [[nodiscard]] std::size_t added_max() const { return begin_.size() + 24; }
  // `line` is a JSON object with members. Returns the end of what was written.
  char* write(char* out, Offset offset, std::string_view line) const;
  void append(std::string& out, Offset offset, std::string_view line) const;

 private:
  std::string begin_;
};

// A copy of what was read back, as an entry of its own.
[[nodiscard]] FetchedEntry entry_of(const EventRun& run);

// Decodes on this thread. Throws Error{loss} that names the place.
void decode_entry(const FetchedEntry& fetched, std::string_view topic, Partition partition,
                  std::string& lines);

}  // namespace continuum
