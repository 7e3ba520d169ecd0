#include "continuum/why.hpp"

#include "continuum/dead_letter_listing.hpp"
#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/handler_spec.hpp"
#include "continuum/names.hpp"
#include "continuum/ring_change.hpp"
#include "continuum/units.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <thread>
#include <tuple>
#include <utility>

namespace continuum {

namespace {

constexpr std::array<std::string_view, 16> names{
    "moving",   "caught up",     "held keys",  "loss",   "paused",   "halted",  "server refuses writes",
    "no owner", "handler down",  "held limit", "outbox", "retrying", "barrier", "handler running",
    "waiting",  "half forgotten"};
// How a worker that is full says of what.
constexpr std::string_view of_held_keys = "behind held keys";

// --- from what is known to the cause

class Explainer {
 public:
  explicit Explainer(const Standing& standing) : s_(standing), state_(standing.state) {}

  [[nodiscard]] Why explain() const {
    Why why = cause();
    if (s_.holds_back_events > 0) {
      why.text +=
          fmt::format("; {} that the topic's retention would remove {} kept for it",
                      counted(s_.holds_back_events, "event"), s_.holds_back_events == 1 ? "is" : "are");
    }
    return why;
  }

 private:
  [[nodiscard]] Why cause() const {
    const bool waits = s_.lag_events > 0;
    if (s_.orphan) {
      return {Obstacle::half_forgotten,
              fmt::format("it is no longer in the topic, and was not forgotten to the end{}: what it has not "
                          "handled is not trimmed",
                          waits ? waiting_events() : ""),
              fmt::format("continuum group forget -t {} -g {} --yes", s_.topic, s_.group)};
    }
    if (!s_.loss.empty()) {
      return {Obstacle::loss, printable(s_.loss), fmt::format("continuum inspect groups -t {}", s_.topic)};
    }
    if (!state_.paused.empty()) {
      return {Obstacle::paused,
              fmt::format("paused by {}{}", printable(state_.paused), waits ? waiting_events() : ""),
              fmt::format("continuum group resume {}", where())};
    }
    if (!waits) {
      return at_end();
    }
    if (state_.state == "halted") {
      return halted();
    }
    if (s_.writes == Standing::Writes::refused) {
      return refused(s_.refusal);
    }
    if (s_.motion == Standing::Motion::moving) {
      return {
          Obstacle::moving, fmt::format("{} events to go{}", format_count(s_.lag_events), held_too()), {}};
    }
    return s_.owner == Standing::Owner::alive ? of_worker() : no_owner();
  }

  [[nodiscard]] Why at_end() const {
    if (s_.letters > 0) {
      return {Obstacle::held_keys,
              fmt::format("{} of {} {} behind failed ones; all else is handled, and other keys go on",
                          counted(s_.letters, "event"), counted(s_.held_keys, "held key"),
                          s_.letters == 1 ? "waits" : "wait"),
              fmt::format("continuum dead ls {}", where())};
    }
    if (!s_.waited_by.empty()) {
      const std::string others = fmt::format("partition {}", some_of(s_.waited_by));
      return s_.owner == Standing::Owner::alive
                 ? Why{Obstacle::waiting,
                       fmt::format("no event waits here, and {} waits until this one has come to the barrier",
                                   others),
                       fmt::format("continuum inspect groups -t {}", s_.topic)}
                 : no_owner(fmt::format("; no event waits here, but {} waits for it", others));
    }
    return {Obstacle::caught_up, "no event waits", {}};
  }

  [[nodiscard]] Why halted() const {
    return {Obstacle::halted,
            fmt::format("halted at offset {}{} for {}{}{}; repair the handler and start the worker again, or "
                        "pass the event",
                        state_.at, with_handler(), since(), attempts(), error()),
            fmt::format("continuum group skip {}", where())};
  }

  [[nodiscard]] Why refused(std::string_view refusal) const {
    const bool full = s_.writes != Standing::Writes::refused;
    return {Obstacle::server_refuses,
            fmt::format("{}{}", printable(refusal), full ? "; failed events cannot be set aside" : ""),
            full ? "redis-cli INFO memory" : "redis-cli INFO"};
  }

  [[nodiscard]] Why no_owner() const { return no_owner(waiting_events()); }
  [[nodiscard]] Why no_owner(const std::string& consequence) const {
    const std::string who = printable(state_.who.empty() ? state_.owner : state_.who);
    const std::string why =
        s_.owner == Standing::Owner::none
            ? std::string("no worker has the lease")
            : fmt::format("{} is silent for longer than its lease of {}", who, format_duration(state_.ttl));
    return {Obstacle::no_owner, why + consequence,
            fmt::format("continuum work -t {} -g {} --partition {} -- HANDLER", s_.topic, s_.group,
                        s_.partition)};
  }

  [[nodiscard]] Why of_worker() const {
    const std::string who = printable(state_.who.empty() ? state_.owner : state_.who);
    if (state_.state == "down") {
      return {
          Obstacle::handler_down,
          fmt::format("the handler{} is down for {}{}; no event is to blame", handler(), since(), error()),
          fmt::format("repair the handler on {}: the worker tries again by itself", who)};
    }
    if (state_.state == "refused") {
      return refused(s_.refusal.empty() ? state_.error : s_.refusal);
    }
    if (state_.state == "full") {
      return full();
    }
    if (state_.state == "retrying") {
      return {Obstacle::retrying,
              fmt::format("offset {} is tried again{} for {}{}{}", state_.at, with_handler(), since(),
                          attempts(), error()),
              show_event()};
    }
    if (state_.state == "running" && state_.since != SystemTime()) {
      return {Obstacle::handler_running,
              fmt::format("offset {} has been with the handler{} for {} on {}{}", state_.at, handler(),
                          since(), who, held_too()),
              show_event()};
    }
    if (s_.barrier) {
      return at_barrier();
    }
    if (s_.writes == Standing::Writes::refused_when_growing) {
      return refused(s_.refusal);
    }
    return {Obstacle::waiting,
            fmt::format("{} has the lease, and nothing is with a handler{}: look at its messages", who,
                        held_too()),
            fmt::format("continuum inspect groups -t {}", s_.topic)};
  }

  [[nodiscard]] Why full() const {
    if (state_.error.find(of_held_keys) == std::string::npos) {
      return {Obstacle::outbox, printable(state_.error),
              fmt::format("continuum inspect groups -t {}", s_.topic)};
    }
    return {Obstacle::held_limit,
            fmt::format("{}: no more can be set aside, and offset {} would be one more",
                        printable(state_.error), state_.at),
            fmt::format("continuum dead ls {}", where())};
  }

  [[nodiscard]] Why at_barrier() const {
    std::string text = fmt::format("the barrier of generation {} stands before offset {}", *s_.barrier,
                                   state_.cursor.offset);
    if (*s_.barrier > s_.active) {
      return {
          Obstacle::barrier,
          fmt::format("{}, and generation {} is still in force: its resize is not finished", text, s_.active),
          fmt::format("continuum ring resize -t {}", s_.topic)};
    }
    if (!s_.behind.empty()) {
      return {Obstacle::barrier, fmt::format("{}; partition {} has not come to it", text, some_of(s_.behind)),
              fmt::format("continuum inspect groups -t {}", s_.topic)};
    }
    return {Obstacle::barrier, text, fmt::format("continuum inspect groups -t {}", s_.topic)};
  }

  // --- words

  [[nodiscard]] std::string where() const {
    return fmt::format("-t {} -g {} -p {}", s_.topic, s_.group, s_.partition);
  }
  [[nodiscard]] std::string show_event() const {
    return fmt::format("continuum replay -t {} -p {} --from-offset {} --to-offset {}", s_.topic, s_.partition,
                       state_.at, state_.at + 1);
  }
  static std::string some_of(const std::vector<Partition>& partitions) {
    return fmt::format("{}{}", partitions.front(),
                       partitions.size() > 1 ? fmt::format(" (and {} more)", partitions.size() - 1) : "");
  }
  static std::string counted(std::uint64_t count, std::string_view what) {
    return fmt::format("{} {}{}", format_count(count), what, count == 1 ? "" : "s");
  }
  [[nodiscard]] std::string waiting_events() const {
    return fmt::format("; {} {}", counted(s_.lag_events, "event"), s_.lag_events == 1 ? "waits" : "wait");
  }
  [[nodiscard]] std::string handler() const {
    return is_named() ? " " + printable(state_.handler) : std::string();
  }
  [[nodiscard]] std::string with_handler() const {
    return is_named() ? fmt::format(" with handler {}", printable(state_.handler)) : std::string();
  }
  [[nodiscard]] bool is_named() const {
    return !state_.handler.empty() && state_.handler != command_line_handler;
  }
  [[nodiscard]] std::string since() const {
    const auto age = std::max(Milliseconds(0), s_.now - state_.since);
    return state_.since == SystemTime() ? "an unknown time" : format_duration(age);
  }
  [[nodiscard]] std::string attempts() const {
    return state_.attempt == 0 ? std::string() : fmt::format(", attempt {}", state_.attempt);
  }
  [[nodiscard]] std::string error() const {
    return state_.error.empty() ? std::string() : fmt::format(": {}", printable(state_.error));
  }
  [[nodiscard]] std::string held_too() const {
    return s_.letters == 0
               ? std::string()
               : fmt::format(" ({} of {} {}, blocking nobody else)", counted(s_.letters, "event"),
                             counted(s_.held_keys, "held key"), s_.letters == 1 ? "waits" : "wait");
  }

  const Standing& s_;
  const GroupState& state_;
};

// --- looking

constexpr Milliseconds look_again_every{100};

class Looker {
 public:
  Looker(redis::Session& session, const Topic& topic) : session_(session), topic_(topic) {}

  Situation look(const std::optional<std::string>& group) {
    probe();
    now_ = server_time();
    for (const PartitionView& view : inspect_topic(session_, topic_)) {
      for (const GroupView& seen : view.groups) {
        if (!group || seen.group == *group) {
          add(view, seen);
        }
      }
      for (const GroupView& orphan : view.orphans) {
        if (!group || orphan.group == *group) {
          add(view, orphan);
          out_.standings.back().orphan = true;
        }
      }
    }
    std::sort(out_.standings.begin(), out_.standings.end(), [](const Standing& a, const Standing& b) {
      return std::tie(a.group, a.partition) < std::tie(b.group, b.partition);
    });
    add_held();
    watch();
    find_barriers();
    add_waited_by();
    return std::move(out_);
  }

 private:
  using Clock = std::chrono::steady_clock;

  // A script that may write is refused before it begins, and this one does nothing else.
  void probe() {
    if (session_.facts().replica) {
      return;
    }
    redis::Request request;
    request.command("EVAL", "#!lua\nreturn 1", 1, topic_key(topic_.name)).keep_full();
    try {
      const redis::Replies replies = session_.call(std::move(request));
      if (replies[0].is_error()) {
        writes_ = Standing::Writes::refused_when_growing;
        out_.refusal = fmt::format("{} is full (maxmemory): raise it, or trim (it answered: {})",
                                   session_.address().text(), replies[0].text());
      }
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::server) {
        return;  // a user that may only read cannot know
      }
      out_.refusal = error.message();
      writes_ = Standing::Writes::refused;
    }
  }

  SystemTime server_time() {
    redis::Request request;
    request.command("TIME");
    const redis::Replies replies = session_.call(std::move(request));
    return SystemTime(Milliseconds(replies[0][0].integer() * 1000 + replies[0][1].integer() / 1000));
  }

  void add(const PartitionView& view, const GroupView& seen) {
    Standing standing;
    standing.topic = topic_.name;
    standing.partition = view.partition;
    standing.group = seen.group;
    standing.state = seen.state;
    standing.lag_events = seen.lag_events;
    standing.loss = view.loss.empty() ? seen.loss : view.loss;
    standing.owner = seen.state.owner.empty() ? Standing::Owner::none : Standing::Owner::alive;
    standing.writes = writes_;
    standing.refusal = out_.refusal;
    standing.active = topic_.active;
    standing.now = now_;
    if (view.retention && seen.state.cursor.offset < view.retention->wanted) {
      standing.holds_back_events = view.retention->wanted - seen.state.cursor.offset;
    }
    out_.standings.push_back(std::move(standing));
  }

  void add_held() {
    std::map<std::string, std::vector<Standing*>> groups;
    for (Standing& standing : out_.standings) {
      groups[standing.group].push_back(&standing);
    }
    for (auto& [group, standings] : groups) {
      std::vector<Partition> partitions;
      for (const Standing* standing : standings) {
        partitions.push_back(standing->partition);
      }
      const auto held = held_keys(session_, topic_, group, partitions);
      for (std::size_t i = 0; i < held.size(); ++i) {
        for (const HeldKey& key : held[i].held.keys) {
          if (key.held == HeldKey::Held::yes) {
            ++standings[i]->held_keys;
            standings[i]->letters += key.letters;
          }
        }
      }
    }
  }

  // One look cannot tell a worker that is slow from one that died, or from one that goes on.
  void watch() {
    struct Watched {
      Standing* standing;
      Clock::time_point silent_at;
    };
    std::vector<Watched> watched;
    const auto begin = Clock::now();
    for (Standing& standing : out_.standings) {
      if (standing.lag_events > 0 && standing.owner == Standing::Owner::alive && standing.loss.empty() &&
          !standing.orphan && standing.state.paused.empty() && standing.state.state != "halted") {
        watched.push_back({&standing, begin + standing.state.ttl});
      }
    }
    while (!watched.empty()) {
      std::this_thread::sleep_for(look_again_every);
      redis::Request request;
      for (const Watched& one : watched) {
        request.command("HMGET", group_key(topic_.name, one.standing->partition, one.standing->group),
                        "fence", "beat", "offset");
      }
      const redis::Replies replies = session_.call(std::move(request));
      std::vector<Watched> rest;
      for (std::size_t i = 0; i < watched.size(); ++i) {
        Standing& standing = *watched[i].standing;
        if (replies[i][0].is_nil()) {
          continue;  // the group was forgotten just now
        }
        const bool moved = Offset(replies[i][2].number()) != standing.state.cursor.offset;
        const bool beats = Fence(replies[i][0].number()) != standing.state.fence ||
                           replies[i][1].number() != standing.state.beat;
        if (moved) {
          standing.motion = Standing::Motion::moving;
        } else if (!beats && Clock::now() < watched[i].silent_at) {
          rest.push_back(watched[i]);
        } else if (!beats) {
          standing.owner = Standing::Owner::silent;
        }
      }
      watched = std::move(rest);
    }
  }

  void find_barriers() {
    std::vector<Standing*> still;
    redis::Request request;
    for (Standing& standing : out_.standings) {
      if (standing.lag_events > 0 && standing.owner == Standing::Owner::alive &&
          standing.motion == Standing::Motion::still && standing.loss.empty() && !standing.orphan) {
        still.push_back(&standing);
        request.command("XRANGE", log_key(topic_.name, standing.partition),
                        "(" + standing.state.cursor.entry.text(), "+", "COUNT", 1);
      }
    }
    if (still.empty()) {
      return;
    }
    const redis::Replies replies = session_.call(std::move(request));
    for (std::size_t i = 0; i < still.size(); ++i) {
      if (replies[i].size() == 0) {
        continue;
      }
      const Entry entry = parse_entry(replies[i][0], topic_.name, still[i]->partition);
      if (entry.barrier && entry.first == still[i]->state.cursor.offset) {
        still[i]->barrier = entry.barrier;
        add_behind(*still[i]);
      } else if (still[i]->state.passed < still[i]->state.from) {
        add_barrier_before(*still[i]);
      }
    }
  }

  void add_waited_by() {
    for (const Standing& waiting : out_.standings) {
      for (const Partition partition : waiting.behind) {
        for (Standing& other : out_.standings) {
          if (other.group == waiting.group && other.partition == partition) {
            other.waited_by.push_back(waiting.partition);
          }
        }
      }
    }
  }

  // A group that begins in the middle of a log passes the barriers before it without moving.
  void add_barrier_before(Standing& standing) {
    standing.barrier = standing.state.passed + 1;
    add_behind(standing);
    if (standing.behind.empty()) {
      standing.barrier.reset();
    }
  }

  // Those that had keys which are its own now, and have not come to that barrier; and those that have to take
  // over what it keeps of keys that left it.
  void add_behind(Standing& standing) {
    const Generation barrier = *standing.barrier;
    auto known = donors_.find(barrier);
    if (known == donors_.end()) {
      const auto before = topic_.rings.find(Generation(barrier.value - 1));
      const auto after = topic_.rings.find(barrier);
      if (before == topic_.rings.end() || after == topic_.rings.end()) {
        return;
      }
      known = donors_.emplace(barrier, donors(Ring(before->second), Ring(after->second))).first;
    }
    const Donors& all = known->second;
    const auto mine = all.find(standing.partition);
    const bool marked = standing.state.import.generation >= barrier;
    for (const Standing& other : out_.standings) {
      if (other.group != standing.group || other.partition == standing.partition) {
        continue;
      }
      const bool gives =
          mine != all.end() && std::binary_search(mine->second.begin(), mine->second.end(), other.partition);
      const bool came = std::max(other.state.passed, other.state.import.generation) >= barrier;
      const bool takes = !marked && standing.letters > 0 && other.state.passed < standing.state.passed;
      if ((gives && !came) || takes) {
        standing.behind.push_back(other.partition);
      }
    }
  }

  redis::Session& session_;
  const Topic& topic_;
  std::map<Generation, Donors> donors_;
  Situation out_;
  SystemTime now_{};
  Standing::Writes writes_ = Standing::Writes::taken;
};

}  // namespace

std::string_view name_of(Obstacle cause) {
  return names.at(static_cast<std::size_t>(cause));
}

Why why_of(const Standing& standing) {
  return Explainer(standing).explain();
}

Situation look_why(redis::Session& session, const Topic& topic, const std::optional<std::string>& group) {
  return Looker(session, topic).look(group);
}

}  // namespace continuum
