#include "continuum/replay_cursor.hpp"

#include "continuum/error.hpp"
#include "continuum/log.hpp"
#include "continuum/names.hpp"
#include "continuum/sink.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

namespace continuum {

namespace {

using Clock = std::chrono::steady_clock;

constexpr Milliseconds poll_every{50};
constexpr int beats_per_lease = 5;
constexpr std::size_t cursors_asked_at_once = 64;
constexpr std::string_view place_prefix = "at.";
constexpr std::string_view copied_prefix = "to.";

std::string random_owner() {
  std::random_device random;
  std::string owner;
  for (int i = 0; i < 4; ++i) {
    owner += fmt::format("{:08x}", static_cast<std::uint32_t>(random()));
  }
  return owner;
}

// One cursor's hash on its way into a state.
class StateReader {
 public:
  StateReader(std::string_view topic, std::string name) : topic_(topic) { state_.name = std::move(name); }

  ReplayCursorState read(redis::Reply fields) {
    state_.selection = fields.field("selection").value_or("");
    state_.owner = fields.field("owner").value_or("");
    state_.who = fields.field("who").value_or("");
    try {
      read_numbers(fields);
    } catch (const Error& error) {
      state_.damage = error.message();
    }
    return std::move(state_);
  }

 private:
  void read_numbers(redis::Reply fields) {
    state_.run = number(fields.field("run").value_or(""));
    state_.events = number(fields.field("events").value_or("0"));
    state_.moved =
        SystemTime(Milliseconds(static_cast<std::int64_t>(number(fields.field("moved").value_or("0")))));
    if (const auto target = fields.field("target")) {
      const std::size_t blank = std::min(target->find(' '), target->size());
      state_.copied.log_id = target->substr(0, blank);
      state_.copied.topic = target->substr(std::min(blank + 1, target->size()));
    }
    if (const auto generation = fields.field("generation")) {
      state_.at.emplace().generation = Generation(static_cast<Generation::rep>(number(*generation)));
      for (std::size_t i = 0; i + 1 < fields.size(); i += 2) {
        if (fields[i].text().starts_with(place_prefix)) {
          read_place(fields[i].text().substr(place_prefix.size()), fields[i + 1].text());
        } else if (fields[i].text().starts_with(copied_prefix)) {
          read_copied(fields[i].text().substr(copied_prefix.size()), fields[i + 1].text());
        }
      }
    }
  }

  void read_place(std::string_view of, std::string_view text) {
    const std::size_t blank = text.find(' ');
    const auto entry = EntryId::parse(text.substr(std::min(blank, text.size() - 1) + 1));
    if (blank == std::string_view::npos || !entry) {
      damaged(text);
    }
    state_.at->places[partition(of)] = Cursor{Offset(number(text.substr(0, blank))), *entry};
  }

  void read_copied(std::string_view partitions, std::string_view text) {
    const std::size_t dot = partitions.find('.');
    if (dot == std::string_view::npos) {
      damaged(partitions);
    }
    state_.copied.positions[{partition(partitions.substr(0, dot)), partition(partitions.substr(dot + 1))}] =
        Position(number(text));
  }

  Partition partition(std::string_view text) const {
    return Partition(static_cast<Partition::rep>(number(text)));
  }

  std::uint64_t number(std::string_view text) const {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value > number_max) {
      damaged(text);
    }
    return value;
  }

  [[noreturn]] void damaged(std::string_view text) const {
    fail(ErrorKind::loss,
         "topic {}: the cursor {} in {} is damaged (\"{}\"): `continuum cursor rm -t {} {}` removes it",
         topic_, state_.name, replay_cursor_key(topic_, state_.name), printable(text.substr(0, 40)), topic_,
         state_.name);
  }

  std::string_view topic_;
  ReplayCursorState state_;
};

void require_whole(const ReplayCursorState& state) {
  if (!state.damage.empty()) {
    throw Error(ErrorKind::loss, state.damage);
  }
}

[[noreturn]] void other_selection(std::string_view topic, std::string_view name, std::string_view selection) {
  fail(ErrorKind::usage,
       "topic {}: the cursor {} is of another selection: {}. Use another name, or remove it: `continuum "
       "cursor "
       "rm -t {} {}`",
       topic, name, printable(selection), topic, name);
}

}  // namespace

std::vector<ReplayCursorState> list_replay_cursors(redis::Session& session, const Topic& topic) {
  constexpr std::string_view prefix = "cursor:";
  redis::Request ask;
  ask.command("HKEYS", topic_key(topic.name));
  const redis::Replies fields = session.call(std::move(ask));
  std::vector<std::string> names;
  for (std::size_t i = 0; i < fields[0].size(); ++i) {
    if (fields[0][i].text().starts_with(prefix)) {
      names.emplace_back(fields[0][i].text().substr(prefix.size()));
    }
  }
  std::sort(names.begin(), names.end());
  std::vector<ReplayCursorState> out;
  for (std::size_t begin = 0; begin < names.size(); begin += cursors_asked_at_once) {
    const std::size_t end = std::min(begin + cursors_asked_at_once, names.size());
    redis::Request request;
    for (std::size_t i = begin; i < end; ++i) {
      request.command("HGETALL", replay_cursor_key(topic.name, names[i]));
    }
    const redis::Replies replies = session.call(std::move(request));
    for (std::size_t i = begin; i < end; ++i) {
      // Removed meanwhile.
      if (replies[i - begin].size() > 0) {
        out.push_back(StateReader(topic.name, names[i]).read(replies[i - begin]));
      }
    }
  }
  return out;
}

std::optional<ResumeAt> place_of_cursor(redis::Session& session, const Topic& topic, std::string_view name,
                                        std::string_view selection) {
  redis::Request request;
  request.command("HGETALL", replay_cursor_key(topic.name, name));
  const redis::Replies replies = session.call(std::move(request));
  if (replies[0].size() == 0) {
    return std::nullopt;
  }
  ReplayCursorState state = StateReader(topic.name, std::string(name)).read(replies[0]);
  require_whole(state);
  if (state.at && state.selection != selection) {
    other_selection(topic.name, name, state.selection);
  }
  return std::move(state.at);
}

struct ReplayCursor::Impl {
  Impl(redis::Session& s, const Topic& t, Options o)
      : session(s),
        topic(t.name),
        log_id(t.log_id),
        options(std::move(o)),
        key(replay_cursor_key(topic, options.name)),
        owner(random_owner()) {}

  // The lease of somebody else, and since when nothing was heard of them.
  struct Watched {
    std::string fence;
    std::string beat;
    Milliseconds ttl{0};
    BootClock::time_point since;
  };

  std::optional<std::string> take(Milliseconds patience) {
    const auto until = Clock::now() + patience;
    std::optional<Watched> watched;
    bool lives = false;
    for (;;) {
      const auto sent = BootClock::now();
      const bool stood_still = watched && sent - watched->since >= watched->ttl;
      redis::Request request;
      request.run(redis::Script::take_cursor, {topic_key(topic), key}, log_id, options.name, owner,
                  stood_still ? watched->fence : "", stood_still ? watched->beat : "", options.lease.count(),
                  options.who, options.selection);
      const redis::Replies replies = session.call(std::move(request));
      const redis::Reply answer = replies[0];
      if (answer[0].text() != "HELD") {
        took(answer);
        extend(sent);
        return std::nullopt;
      }
      const std::string_view seen_fence = answer[2].text();
      const std::string_view seen_beat = answer[3].text();
      if (!watched || watched->fence != seen_fence || watched->beat != seen_beat) {
        lives = watched.has_value();
        watched = Watched{std::string(seen_fence), std::string(seen_beat), Milliseconds(answer[4].integer()),
                          BootClock::now()};
      }
      if (lives && Clock::now() >= until) {
        return std::string(answer[5].text());
      }
      std::this_thread::sleep_for(poll_every);
    }
  }

  void took(redis::Reply answer) {
    const std::string_view code = answer[0].text();
    if (code == "OK") {
      fence = answer[1].number();
      state = StateReader(topic, options.name).read(answer[2]);
      was_moved = state.at || !state.damage.empty();
      if (!options.selection.empty()) {
        require_whole(state);
      }
      return;
    }
    if (code == "OTHER") {
      other_selection(topic, options.name, answer[1].text());
    }
    if (code == "NOCURSOR") {
      fail(ErrorKind::usage, "topic {} has no cursor {}; `continuum cursor ls -t {}` shows those it has",
           topic, options.name, topic);
    }
    if (code == "NOLOG") {
      fail_no_log();
    }
    fail(ErrorKind::server,
         "the server answered \"{}\" to take_cursor, which this version does not understand",
         printable(code.substr(0, 40)));
  }

  [[noreturn]] void fail_no_log() const {
    fail(ErrorKind::loss, "topic {} is gone, or is another one: was it dropped, or the server flushed?",
         topic);
  }

  [[noreturn]] void fail_fenced() const {
    redis::Request request;
    request.command("HGET", topic_key(topic), "id");
    const redis::Replies replies = session.call(std::move(request));
    if (replies[0].is_nil() || replies[0].text() != log_id) {
      fail_no_log();
    }
    fail(ErrorKind::fenced,
         "topic {}: another run has taken the cursor {} over, or it was removed: this one stops", topic,
         options.name);
  }

  // --- the lease

  [[nodiscard]] redis::Request request_release() const {
    redis::Request request;
    continuum::request_release(request, key, Fence(*fence));
    return request;
  }

  [[nodiscard]] redis::Request request_forget() const {
    redis::Request request;
    request.run(redis::Script::forget_cursor, {topic_key(topic), key}, *fence, options.name);
    return request;
  }

  // Renewed by a request that was sent then.
  void extend(BootClock::time_point sent) {
    held_until = (sent + options.lease - margin_of(options.lease)).time_since_epoch().count();
  }

  void require_ours() {
    if (lost) {
      fail_fenced();
    }
    // This process may just have been stopped for minutes, and have told nobody yet.
    if (BootClock::now().time_since_epoch().count() >= held_until) {
      redis::Request request;
      request.run(redis::Script::move_cursor, {key}, *fence);
      call_fenced(std::move(request));
    }
  }

  void keep_alive() {
    const auto every = options.lease / beats_per_lease;
    std::unique_lock lock(mutex);
    while (!ending.wait_for(lock, every, [this] { return ends; })) {
      lock.unlock();
      try {
        const auto sent = BootClock::now();
        redis::Request request;
        request.run(redis::Script::move_cursor, {key}, *fence);
        if (keeper->call(std::move(request))[0][0].text() == "OK") {
          extend(sent);
        } else {
          lost = true;
        }
      } catch (const Error&) {
        // The next step of the main thread says what is wrong with the server, or finds that it is well
        // again.
      }
      lock.lock();
    }
  }

  void stop_keeping() {
    if (!thread.joinable()) {
      return;
    }
    {
      const std::lock_guard lock(mutex);
      ends = true;
    }
    ending.notify_one();
    thread.join();
  }

  // What the hash does not have yet.
  void add_copied(std::vector<std::string>& values, const CopiedTo& copied) {
    CopiedTo& known = state.copied;
    if (known.topic != copied.topic || known.log_id != copied.log_id) {
      known.topic = copied.topic;
      known.log_id = copied.log_id;
      values.insert(values.end(), {"target", fmt::format("{} {}", copied.log_id, copied.topic)});
    }
    for (const auto& [places, position] : copied.positions) {
      if (std::exchange(known.positions[places], position) != position) {
        values.push_back(fmt::format("{}{}.{}", copied_prefix, places.first, places.second));
        values.push_back(fmt::format("{}", position));
      }
    }
  }

  void call_fenced(redis::Request request) {
    const auto sent = BootClock::now();
    const redis::Replies replies = session.call(std::move(request));
    if (replies[0][0].text() != "OK") {
      lost = true;
      fail_fenced();
    }
    extend(sent);
  }

  redis::Session& session;
  const std::string topic;
  const std::string log_id;
  const Options options;
  const std::string key;
  const std::string owner;
  std::optional<std::uint64_t> fence;  // while we have the lease
  ReplayCursorState state;
  bool was_moved = false;
  std::map<Partition, Cursor> stored;

  std::unique_ptr<redis::Session> keeper;
  std::thread thread;
  std::mutex mutex;
  std::condition_variable ending;
  bool ends = false;
  std::atomic<bool> lost = false;
  std::atomic<BootClock::rep> held_until = 0;  // by our own clock
};

ReplayCursor::ReplayCursor(redis::Session& session, const Topic& topic, Options options)
    : impl_(std::make_unique<Impl>(session, topic, std::move(options))) {
  if (impl_->options.selection.size() > selection_bytes_max) {
    fail(ErrorKind::usage, "the selectors of a cursor are {} bytes long: at most {} are remembered",
         impl_->options.selection.size(), selection_bytes_max);
  }
}

ReplayCursor::~ReplayCursor() {
  try {
    release();
  } catch (...) {
    // It runs out by itself.
  }
}

std::optional<std::string> ReplayCursor::take(Milliseconds patience) {
  return impl_->take(patience);
}

const ReplayCursorState& ReplayCursor::state() const {
  return impl_->state;
}

void ReplayCursor::keep(std::unique_ptr<redis::Session> connection) {
  impl_->keeper = std::move(connection);
  impl_->thread = std::thread([this] { impl_->keep_alive(); });
}

void ReplayCursor::require_ours() {
  impl_->require_ours();
}

void ReplayCursor::advance(const ResumeAt& at, std::uint64_t events, const CopiedTo* copied) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::vector<std::string> values{
      std::to_string(*impl_->fence),
      "events",
      std::to_string(impl_->state.events + events),
      "moved",
      std::to_string(std::chrono::duration_cast<Milliseconds>(now).count()),
      "generation",
      std::to_string(at.generation.value),
  };
  for (const auto& [partition, place] : at.places) {
    const auto [stored, is_new] = impl_->stored.try_emplace(partition, place);
    if (!is_new && stored->second.offset == place.offset) {
      continue;
    }
    stored->second = place;
    values.push_back(fmt::format("{}{}", place_prefix, partition));
    values.push_back(fmt::format("{} {}", place.offset, place.entry.text()));
  }
  if (copied != nullptr) {
    impl_->add_copied(values, *copied);
  }
  const std::vector<std::string_view> views(values.begin(), values.end());
  redis::Request request;
  request.script(redis::Script::move_cursor, {impl_->key}, views);
  impl_->call_fenced(std::move(request));
  impl_->was_moved = true;
}

void ReplayCursor::forget() {
  impl_->stop_keeping();
  impl_->call_fenced(impl_->request_forget());
  impl_->fence.reset();
}

void ReplayCursor::release() {
  impl_->stop_keeping();
  if (impl_->fence && !impl_->lost) {
    (void)impl_->session.call(impl_->was_moved ? impl_->request_release() : impl_->request_forget());
  }
  impl_->fence.reset();
}

}  // namespace continuum
