#include "continuum/resize.hpp"

#include "continuum/error.hpp"
#include "continuum/log.hpp"
#include "continuum/resize_steps.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace continuum {

namespace {

// Who waits looks again after 1 ms, then after twice as long each time.
constexpr Milliseconds poll_min{1};
constexpr Milliseconds poll_max{50};
// A coordinator that is alive needs far less.
constexpr Milliseconds help_after{1'000};
// Others may change the topic between two steps of ours; each time we look again.
constexpr int attempts_max = 100;

std::set<Partition> partitions_of(const RingDescription& ring) {
  std::set<Partition> partitions;
  for (const RingMember& member : ring.members) {
    partitions.insert(member.partition);
  }
  return partitions;
}

// Of every generation before `x`: what is sealed there has a log, or has lost it.
std::set<Partition> partitions_before(const Topic& topic, Generation x) {
  std::set<Partition> partitions;
  for (const auto& [generation, ring] : topic.rings) {
    if (generation < x) {
      partitions.merge(partitions_of(ring));
    }
  }
  return partitions;
}

void request_seal(redis::Request& request, const Topic& topic, Partition partition, Generation x,
                  std::string_view age) {
  request.run(redis::Script::seal, {meta_key(topic.name, partition), log_key(topic.name, partition)},
              topic.log_id, x, age);
}

[[noreturn]] void fail_no_log(std::string_view topic, Partition partition) {
  fail(ErrorKind::loss,
       "{}: its log is gone, or is another one: was the server flushed, or the topic dropped just now?",
       place(topic, partition));
}

}  // namespace

// --- steps that anybody may take

asio::awaitable<Topic> reload_topic(redis::Client& client, std::string_view name, std::string_view log_id) {
  redis::Request request;
  request_topic(request, name);
  const redis::Replies replies = co_await client.call(std::move(request));
  auto topic = parse_topic(name, replies[0]);
  if (!topic || topic->log_id != log_id) {
    fail(ErrorKind::loss,
         "topic {} is gone from {}, or is another one of that name: was it dropped, flushed, or restarted "
         "empty? `continuum topic ls` shows what is there",
         name, client.address().text());
  }
  co_return *std::move(topic);
}

asio::awaitable<std::vector<Partition>> register_groups(redis::Client& client, const Topic& topic,
                                                        std::vector<std::string> groups,
                                                        std::vector<Partition> partitions,
                                                        WhenFull when_full) {
  // Asked first: a server that is full refuses the script also where it has nothing to do.
  redis::Request ask;
  for (const Partition partition : partitions) {
    for (const std::string& group : groups) {
      ask.command("HEXISTS", group_key(topic.name, partition, group), "offset");
    }
  }
  if (ask.empty()) {
    co_return std::vector<Partition>{};
  }
  const redis::Replies known = co_await client.call(std::move(ask));
  redis::Request request;
  std::vector<Partition> asked;
  std::size_t at = 0;
  for (const Partition partition : partitions) {
    for (const std::string& group : groups) {
      if (known[at++].integer() == 0) {
        request_registration(request, topic, group, partition);
        asked.push_back(partition);
      }
    }
  }
  if (request.empty()) {
    co_return std::vector<Partition>{};
  }
  if (when_full == WhenFull::leave) {
    request.keep_full();
  }
  const redis::Replies replies = co_await client.call(std::move(request));
  std::set<Partition> refused;
  for (std::size_t i = 0; i < replies.size(); ++i) {
    if (replies[i].is_error()) {
      refused.insert(asked[i]);
    } else if (replies[i][0].text() == "NOLOG") {
      fail_no_log(topic.name, asked[i]);
    }
  }
  co_return std::vector<Partition>(refused.begin(), refused.end());
}

asio::awaitable<FinishedResize> finish_resize(redis::Client& client, Topic topic, WhenFull when_full) {
  check(topic.pending.has_value() && topic.active.value > 0, "a resize is pending");
  const Generation x = *topic.pending;
  const std::set<Partition> known = partitions_before(topic, x);
  const std::set<Partition> after = partitions_of(topic.rings.at(x));
  std::set<Partition> all = partitions_of(topic.ring());
  all.insert(after.begin(), after.end());

  FinishedResize finished{x, 0, std::chrono::microseconds{0}, {}};
  const auto began = Clock::now();
  redis::Request seals;
  for (const Partition partition : all) {
    request_seal(seals, topic, partition, x, known.contains(partition) ? "old" : "new");
  }
  const redis::Replies sealed = co_await client.call(std::move(seals));
  std::size_t at = 0;
  for (const Partition partition : all) {
    const auto code = sealed[at++][0].text();
    if (code == "NOLOG") {
      fail_no_log(topic.name, partition);
    }
    finished.sealed += code == "OK" ? 1U : 0U;
  }

  std::vector<Partition> added;
  std::set_difference(after.begin(), after.end(), known.begin(), known.end(), std::back_inserter(added));
  if (!added.empty()) {
    // Groups may have come while the partitions were sealed.
    const Topic now = co_await reload_topic(client, topic.name, topic.log_id);
    std::vector<std::string> groups;
    for (const auto& [group, registered] : now.groups) {
      groups.push_back(group);
    }
    finished.refused = co_await register_groups(client, now, std::move(groups), std::move(added), when_full);
    if (!finished.refused.empty()) {
      co_return finished;
    }
  }
  redis::Request activate;
  activate.run(redis::Script::activate, {topic_key(topic.name)}, x);
  const redis::Replies activated = co_await client.call(std::move(activate));
  if (activated[0][0].text() == "NO") {
    fail(ErrorKind::loss,
         "topic {} no longer knows that its resize to generation {} was begun: the server lost it; see {}",
         topic.name, x, lost_resize_section);
  }
  finished.held_up = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began);
  co_return finished;
}

asio::awaitable<std::optional<Topic>> await_generation(redis::Client& client, std::string_view name,
                                                       std::string_view log_id, Generation told,
                                                       std::function<bool()> goes_on) {
  const auto began = Clock::now();
  for (Milliseconds pause = poll_min; goes_on(); pause = std::min(2 * pause, poll_max)) {
    Topic topic = co_await reload_topic(client, name, log_id);
    if (topic.active >= told) {
      co_return std::optional(std::move(topic));
    }
    // It is begun before the first partition is sealed.
    if (!topic.pending || *topic.pending < told) {
      fail(ErrorKind::loss,
           "topic {} is at generation {} of its ring, and a partition of it at generation {}: the server "
           "lost a resize; see {}",
           name, topic.active, told, lost_resize_section);
    }
    if (Clock::now() - began >= help_after) {
      (void)co_await finish_resize(client, std::move(topic));
      continue;
    }
    asio::steady_timer timer(co_await asio::this_coro::executor, pause);
    co_await timer.async_wait(as_result);
  }
  co_return std::nullopt;
}

asio::awaitable<void> seal_again(redis::Client& client, const Topic& topic, Partition partition) {
  // A server that went back as a whole has neither the seal nor the resize. A seal of a generation that the
  // topic does not have would be one that nobody can follow.
  const Topic now = co_await reload_topic(client, topic.name, topic.log_id);
  if (now.active < topic.active) {
    fail(ErrorKind::loss,
         "topic {} is at generation {} of its ring, and was at generation {} before: the server went back, "
         "and "
         "lost what was stored since. Nothing of this was changed on it; see {}",
         topic.name, now.active, topic.active, lost_resize_section);
  }
  redis::Request request;
  request_seal(request, topic, partition, topic.active, "old");
  const redis::Replies replies = co_await client.call(std::move(request));
  if (replies[0][0].text() == "NOLOG") {
    fail_no_log(topic.name, partition);
  }
}

// --- generations that the server lost

namespace {

// Events of a lost generation are the last ones of a log; behind them may be what a resize just now sealed.
constexpr int entries_looked_at_max = 1'000;
constexpr std::size_t partitions_at_once = 512;

std::map<Partition, LogState> states_of(redis::Session& session, const Topic& topic,
                                        std::span<const Partition> partitions) {
  redis::Request request;
  for (const Partition partition : partitions) {
    request.command("HGETALL", meta_key(topic.name, partition));
  }
  const redis::Replies replies = session.call(std::move(request));
  std::map<Partition, LogState> states;
  for (std::size_t i = 0; i < partitions.size(); ++i) {
    const auto state = parse_meta(replies[i]);
    if (state && state->log_id == topic.log_id) {
      states.emplace(partitions[i], *state);
    }
  }
  return states;
}

// The highest generation that a partition has, if nothing that the topic knows of explains it.
std::optional<Generation> lost_generation(redis::Session& session, const Topic& topic,
                                          const RingDescription& target) {
  std::set<Partition> all = partitions_of(target);
  for (const Partition partition : topic.partitions()) {
    all.insert(partition);
  }
  Generation highest = topic.active;
  for (const auto& [partition, state] :
       states_of(session, topic, std::vector<Partition>(all.begin(), all.end()))) {
    highest = std::max(highest, state.generation);
  }
  if (highest == topic.active) {
    return std::nullopt;
  }
  // Somebody may have begun a resize since the topic was read; that is written before any seal.
  const Topic now = load_topic(session, topic.name);
  return now.active == topic.active && !now.pending ? std::optional(highest) : std::nullopt;
}

// Of generations in (after, last].
bool has_events(redis::Session& session, const Topic& topic, Partition partition, const LogState& state,
                Generation after, Generation last) {
  if (state.trimmed > after && state.trimmed <= last) {
    return true;
  }
  std::string from = "+";
  for (int i = 0; i < entries_looked_at_max; ++i) {
    redis::Request request;
    request.command("XREVRANGE", log_key(topic.name, partition), from, "-", "COUNT", 1);
    const redis::Replies replies = session.call(std::move(request));
    if (replies[0].size() == 0) {
      // Trimmed away, all that a partition had that is in no generation which the topic knows.
      return state.born > after && state.next > Offset(0);
    }
    const Entry entry = parse_entry(replies[0][0], topic.name, partition);
    const Generation generation = entry.barrier.value_or(entry.generation);
    if (generation <= after) {
      return false;
    }
    if (!entry.barrier && generation <= last) {
      return true;
    }
    from = "(" + entry.id.text();
  }
  return false;
}

void require_no_events_of_lost(redis::Session& session, const Topic& topic, Generation lost) {
  // The lost ring may have had partitions that no other one has.
  for (std::uint32_t begin = 0; begin < partitions_max; begin += partitions_at_once) {
    std::vector<Partition> some;
    for (std::uint32_t p = begin; p < std::min<std::uint32_t>(begin + partitions_at_once, partitions_max);
         ++p) {
      some.emplace_back(p);
    }
    for (const auto& [partition, state] : states_of(session, topic, some)) {
      if (state.generation > topic.active &&
          has_events(session, topic, partition, state, topic.active, lost)) {
        fail(ErrorKind::loss,
             "{} has events of a generation from {} to {} of the ring, and the server lost what that ring "
             "was: "
             "another one would mix up the order of their keys; see {}",
             place(topic.name, partition), topic.active + 1, lost, lost_resize_section);
      }
    }
  }
}

}  // namespace

// --- the coordinator

namespace {

class Coordinator {
 public:
  Coordinator(redis::Session& session, std::string_view topic) : session_(session), topic_(topic) {}

  Resized resize(const RingDescription& target) {
    for (int attempt = 0; attempt < attempts_max; ++attempt) {
      const Topic topic = load_topic(session_, topic_);
      if (topic.pending) {
        require_no_other_resize(topic, target);
        auto resized =
            finish(topic, begun_ == topic.pending ? Resized::How::resized : Resized::How::continued);
        if (resized.ring != target) {
          fail(ErrorKind::fenced, "the resize of topic {} to {} was aborted by somebody else", topic_,
               target.text());
        }
        return resized;
      }
      const std::optional<Generation> lost = lost_generation(session_, topic, target);
      if (topic.ring() == target && !lost) {
        return result(topic, topic.active,
                      begun_ == topic.active ? Resized::How::resized : Resized::How::unchanged);
      }
      if (lost) {
        require_no_events_of_lost(session_, topic, *lost);
      }
      begin(topic, target, lost);
    }
    fail(ErrorKind::server, "topic {} is being resized all the time by somebody else: try again", topic_);
  }

  Resized go_on() {
    const Topic topic = load_topic(session_, topic_);
    if (!topic.pending) {
      if (const auto lost = lost_generation(session_, topic, topic.ring())) {
        fail(ErrorKind::loss,
             "no resize of topic {} is pending, and partitions of it are at generation {} where the topic is "
             "at "
             "{}: the server lost a resize. `continuum ring resize -t {} --partitions {}` goes on from "
             "there; see "
             "{}",
             topic_, *lost, topic.active, topic_, topic.ring().members.size(), lost_resize_section);
      }
      fail(ErrorKind::usage,
           "no resize of topic {} is pending: say which ring it is to have, by --partitions or --weight",
           topic_);
    }
    return finish(topic, Resized::How::continued);
  }

  Resized abort() {
    Topic topic = load_topic(session_, topic_);
    if (!topic.pending) {
      fail(ErrorKind::usage,
           "no resize of topic {} is pending, and what is done cannot be aborted: `continuum ring resize -t "
           "{} --partitions {}` would be another one",
           topic_, topic_, topic.ring().members.size());
    }
    redis::Request request;
    request.run(redis::Script::abort, {topic_key(topic_)}, *topic.pending);
    if (session_.call(std::move(request))[0][0].text() != "OK") {
      fail(ErrorKind::usage,
           "the resize of topic {} to generation {} was finished meanwhile: it is too late to abort it",
           topic_, *topic.pending);
    }
    topic.rings.at(*topic.pending) = topic.ring();
    return finish(topic, Resized::How::aborted);
  }

 private:
  // Nothing happens when somebody else was faster: the next look says so.
  void begin(const Topic& topic, const RingDescription& target, std::optional<Generation> lost) {
    std::vector<std::string> arguments{std::to_string(topic.active.value), target.text()};
    // Nothing was stored in them: no key has moved.
    for (Generation next = topic.active + 1; lost && next <= *lost; ++next) {
      arguments.push_back(fmt::format("gen:{}", next));
      arguments.push_back(topic.ring().text());
    }
    redis::Request request;
    const std::vector<std::string_view> views(arguments.begin(), arguments.end());
    request.script(redis::Script::begin, {topic_key(topic_)}, views);
    const auto replies = session_.call(std::move(request));
    if (replies[0][0].text() == "OK") {
      begun_ = Generation(static_cast<Generation::rep>(replies[0][1].number()));
      lost_ = lost;
    }
  }

  Resized finish(const Topic& topic, Resized::How how) {
    const auto finished =
        run_until_done(redis::io_of(session_), finish_resize(redis::client_of(session_), topic));
    Resized resized = result(topic, finished.generation, how);
    resized.ring = load_topic(session_, topic_).rings.at(finished.generation);
    resized.sealed = finished.sealed;
    resized.held_up = finished.held_up;
    if (lost_ && how == Resized::How::resized) {
      resized.lost = lost_;
      // A publisher that remembers the lost ring may have stored something until its partition was sealed.
      require_no_events_of_lost(session_, topic, *lost_);
    }
    return resized;
  }

  static Resized result(const Topic& topic, Generation now, Resized::How how) {
    Resized resized;
    resized.how = how;
    resized.before = topic.active;
    resized.generation = now;
    resized.ring_before = topic.ring();
    resized.ring = topic.rings.at(now);
    return resized;
  }

  redis::Session& session_;
  const std::string topic_;
  std::optional<Generation> begun_;  // by this run
  std::optional<Generation> lost_;   // of the topic as it was then
};

}  // namespace

void require_no_other_resize(const Topic& topic, const RingDescription& target) {
  if (topic.pending && topic.rings.at(*topic.pending) != target) {
    fail(ErrorKind::usage,
         "topic {} is being resized to {} (generation {}): `continuum ring resize -t {}` finishes that, and "
         "`continuum ring resize -t {} --abort` gives it up; then run this again",
         topic.name, topic.rings.at(*topic.pending).text(), *topic.pending, topic.name, topic.name);
  }
}

Resized resize_topic(redis::Session& session, std::string_view topic, const RingDescription& target) {
  return Coordinator(session, topic).resize(target);
}

Resized continue_resize(redis::Session& session, std::string_view topic) {
  return Coordinator(session, topic).go_on();
}

Resized abort_resize(redis::Session& session, std::string_view topic) {
  return Coordinator(session, topic).abort();
}

}  // namespace continuum
