#include "continuum/outbox.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/names.hpp"
#include "continuum/resize_steps.hpp"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>

#include <algorithm>
#include <charconv>

namespace continuum {

namespace {

constexpr std::size_t frame_bytes = 192 << 10;  // of events before compression
// Of one round: it is held three times, as read, as lines and as a request.
constexpr std::size_t round_bytes = std::size_t{4} << 20;
constexpr std::size_t round_entries_max = 1'000;
constexpr Milliseconds generation_poll{20};
// A coordinator that is alive needs far less: after this the resize is finished from here.
constexpr Milliseconds help_after{1'000};
// A server that was restarted may hold again what was gone from the outbox.
constexpr Milliseconds idle_check{5'000};
constexpr std::uint32_t refusals_max = 10;
constexpr std::uint32_t losses_at_once = 3;
constexpr Milliseconds backoff_min{10};
constexpr Milliseconds backoff_max{2'000};
// In the place of a digest: positions say by themselves what is stored, as with publish --position.
constexpr std::string_view by_position = "position";

std::uint64_t number_in(redis::Reply fields, std::string_view name) {
  const auto text = fields.field(name).value_or("");
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > number_max) {
    fail(ErrorKind::loss, "its field {} is damaged (\"{}\")", name, printable(text.substr(0, 40)));
  }
  return value;
}

std::uint64_t number_or_zero(redis::Reply reply) {
  return reply.is_nil() ? 0 : reply.number();
}

// One entry of the outbox: "n" number of its first event, "r" run, "t" topic, "e" events.
struct Emitted {
  EntryId id;
  Position first;
  std::uint64_t run = 0;
  std::string_view topic;
  std::string_view lines;
};

Emitted parse_emitted(redis::Reply entry) {
  const auto id = EntryId::parse(entry[0].text());
  const auto fields = entry[1];
  const auto lines = fields.field("e").value_or("");
  if (!id || !lines.ends_with('\n')) {
    fail(ErrorKind::loss, "it holds no events");
  }
  return {*id, Position(number_in(fields, "n")), number_in(fields, "r"), fields.field("t").value_or(""),
          lines};
}

}  // namespace

// --- the story

Outbox::Outbox(asio::any_io_executor executor, redis::Client& client, EmitTarget& target, OutboxSource source,
               Wake& owner)
    : executor_(std::move(executor)),
      client_(client),
      target_(target),
      source_(std::move(source)),
      keys_(source_.topic, source_.partition, source_.group),
      where_(fmt::format("{}, outbox of group {}", place(source_.topic, source_.partition), source_.group)),
      owner_(owner),
      wake_(executor_),
      ended_(executor_) {}

void Outbox::start() {
  running_ = true;
  asio::co_spawn(executor_, run(), asio::detached);
}

asio::awaitable<void> Outbox::end() {
  stopping_ = true;
  wake_.notify();
  while (running_) {
    co_await ended_.wait();
  }
}

void Outbox::committed(std::size_t entries, std::size_t bytes) {
  unread_ = true;
  ++notices_;
  entries_ += entries;
  bytes_ += bytes;
  wake_.notify();
}

void Outbox::throw_if_failed() const {
  if (error_) {
    std::rethrow_exception(error_);
  }
}

asio::awaitable<void> Outbox::run() {
  try {
    co_await forward();
  } catch (...) {
    error_ = std::current_exception();
  }
  running_ = false;
  ended_.notify();
  owner_.notify();
}

asio::awaitable<void> Outbox::forward() {
  while (!stopping_ && !fenced_) {
    if (!unread_) {
      co_await wake_.wait(Clock::now() + idle_check);
      if (stopping_) {
        break;
      }
    }
    std::optional<Error> contradiction;
    try {
      co_await round();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::loss && error.kind() != ErrorKind::usage) {
        throw;
      }
      contradiction = error;
    }
    if (contradiction) {
      // What looks like loss to one who was fenced while it slept is none.
      const bool ours = co_await still_ours();
      if (ours) {
        throw Error(*contradiction);
      }
    }
  }
}

asio::awaitable<bool> Outbox::still_ours() {
  redis::Request request;
  request.command("HGET", keys_.group, "fence");
  const redis::Replies replies = co_await client_.call(std::move(request));
  if (number_or_zero(replies[0]) != source_.fence.value) {
    set_fenced();
  }
  co_return !fenced_;
}

asio::awaitable<void> Outbox::round() {
  if (!connection_) {
    co_await connect();
  }
  if (!connection_) {
    co_return;
  }
  const auto reading = co_await read();
  if (!reading) {
    co_return;
  }
  if (opened_ && reading->run != run_) {
    opened_ = false;
  }
  if (!opened_) {
    co_await take_over(*reading);
  }
  if (!opened_) {
    co_return;
  }
  redis::Request request;
  std::vector<Sent> sent;
  send(*reading, request, sent);
  if (!request.empty()) {
    const auto replies = co_await ask(std::move(request));
    if (!replies) {
      co_return;
    }
    for (std::size_t i = 0; i < sent.size(); ++i) {
      if ((*replies)[i][0].text() == "BEHIND") {
        co_await seal_again(client_, target_.topic(), sent[i].partition);
      }
    }
    if (!acknowledged(*replies, sent)) {
      begin_again();
      co_return;
    }
  }
  refusals_ = 0;
  losses_ = 0;
  set_waits_for({});
  read_up_to_ = reading->last_id;
  next_ = reading->next;
  delete_up_to_ = reading->last_id;
  bytes_ -= std::min(bytes_, reading->bytes);
  read_entries_ =
      std::clamp<std::size_t>(round_bytes * reading->entries / reading->bytes, 1, round_entries_max);
}

// Waits until a connection stands, unless nothing is to be done on it.
asio::awaitable<void> Outbox::connect() {
  if (losses_ > losses_at_once) {
    const auto pause = std::min(backoff_max, backoff_min * (1U << std::min(losses_ - losses_at_once, 10U)));
    const auto until = Clock::now() + pause;
    while (!stopping_ && Clock::now() < until) {
      co_await wake_.wait(until);
    }
  }
  if (stopping_) {
    co_return;
  }
  const bool ours = co_await still_ours();
  if (ours) {
    connection_ = client_.connections();
  }
}

// Nothing: the connection was lost.
asio::awaitable<std::optional<redis::Replies>> Outbox::ask(redis::Request request) {
  request.only_on(*connection_);
  redis::Replies replies = co_await client_.call(std::move(request));
  if (replies.size() == 0) {
    ++losses_;
    unread_ = true;
    connection_.reset();
    begin_again();
    if (losses_ > losses_at_once) {
      set_waits_for(
          fmt::format("{} does not answer, or refuses to store what is emitted", client_.address().text()));
    }
    co_return std::nullopt;
  }
  co_return replies;
}

void Outbox::set_fenced() {
  fenced_ = true;
  owner_.notify();
}

void Outbox::set_waits_for(std::string what) {
  if (what != waits_for_) {
    waits_for_ = std::move(what);
    owner_.notify();
  }
}

void Outbox::begin_again() {
  opened_ = false;
  read_up_to_ = EntryId();
  next_.reset();
  delete_up_to_.reset();
}

// --- reading

// Also deletes what the round before has forwarded.
asio::awaitable<std::optional<Outbox::Reading>> Outbox::read() {
  redis::Request request;
  if (delete_up_to_) {
    // Right even when another worker has the lease by now: the topic has all of it.
    const EntryId first_kept{delete_up_to_->milliseconds, delete_up_to_->sequence + 1};
    request.command("XTRIM", keys_.outbox, "MINID", first_kept.text());
  }
  request.command("XLEN", keys_.outbox);
  request.command("XRANGE", keys_.outbox, "(" + read_up_to_.text(), "+", "COUNT", read_entries_);
  const auto notices = notices_;
  auto replies = co_await ask(std::move(request));
  if (!replies) {
    co_return std::nullopt;
  }
  Reading reading;
  reading.replies = std::move(*replies);
  delete_up_to_.reset();
  entries_ = reading.replies[reading.replies.size() - 2].number();
  if (reading.read().size() == 0) {
    unread_ = notices != notices_;
    bytes_ = unread_ ? bytes_ : 0;
    losses_ = 0;
    set_waits_for({});
    owner_.notify();
    co_return std::nullopt;
  }
  unread_ = true;
  measure(reading);
  owner_.notify();
  co_return reading;
}

void Outbox::measure(Reading& reading) const {
  const auto entries = reading.read();
  for (std::size_t i = 0; i < entries.size(); ++i) {
    Emitted emitted;
    try {
      emitted = parse_emitted(entries[i]);
    } catch (const Error& error) {
      fail(ErrorKind::loss, "{}: entry {} was changed or damaged: {}", where_,
           printable(entries[i][0].text()), error.message());
    }
    // One who had the lease before may delete what it has published up to when we opened.
    const std::optional<Position> expected = i == 0 ? next_ : reading.next;
    if (expected && emitted.first != *expected &&
        (emitted.first < *expected || emitted.first > stored_until_ + 1)) {
      fail(ErrorKind::loss,
           "{}: emitted events number {} to {} are gone from it: they were not published yet", where_,
           *expected, emitted.first.value - 1);
    }
    if (emitted.topic != target_.topic().name) {
      fail(ErrorKind::usage,
           "{}: it holds events that were emitted to topic {} and are not there yet: run the worker with "
           "--emit {} "
           "once more, until its outbox is empty",
           where_, printable(emitted.topic), printable(emitted.topic));
    }
    if (i == 0) {
      reading.first = emitted.first;
      reading.run = emitted.run;
    } else if (emitted.run != reading.run) {
      break;
    }
    const auto events = std::count(emitted.lines.begin(), emitted.lines.end(), '\n');
    reading.next = emitted.first + static_cast<std::uint64_t>(events);
    reading.last_id = emitted.id;
    reading.bytes += emitted.lines.size();
    ++reading.entries;
  }
}

// --- the producer (PROTOCOLS: Producer resume)

asio::awaitable<void> Outbox::take_over(const Reading& reading) {
  if (reading.run != run_) {
    run_ = reading.run;
    acked_.clear();
    producer_ = fmt::format("~emit/{}/{}/{}/{}/{}", source_.topic, source_.log_id, source_.partition,
                            source_.group, run_);
  }
  const bool ready = co_await wait_for_generation();
  if (!ready) {
    co_return;
  }
  const bool opened = co_await open();
  if (opened) {
    check_positions(reading);
  }
  opened_ = opened;
}

asio::awaitable<bool> Outbox::wait_for_generation() {
  const auto began = Clock::now();
  while (!stopping_) {
    redis::Request request;
    request_topic(request, target_.topic().name);
    request.command("HMGET", keys_.group, "fence", "outbox");
    const auto replies = co_await ask(std::move(request));
    if (!replies) {
      break;
    }
    if (number_or_zero((*replies)[1][0]) != source_.fence.value) {
      set_fenced();
      break;
    }
    numbered_ = Position(number_or_zero((*replies)[1][1]));
    auto topic = parse_topic(target_.topic().name, (*replies)[0]);
    if (!topic) {
      no_log();
    }
    target_.update(std::move(*topic));
    if (target_.topic().active >= told_) {
      co_return true;
    }
    set_waits_for(fmt::format("topic {}, which is emitted to, is being resized", target_.topic().name));
    if (Clock::now() - began >= help_after && target_.topic().pending) {
      (void)co_await finish_resize(client_, target_.topic());
      continue;
    }
    co_await wake_.wait(Clock::now() + generation_poll);
  }
  co_return false;
}

asio::awaitable<bool> Outbox::open() {
  const Topic& topic = target_.topic();
  active_ = topic.active;
  const auto partitions = topic.partitions();
  redis::Request request;
  for (const auto p : partitions) {
    request.run(redis::Script::open, {meta_key(topic.name, p), producer_key(topic.name, p, producer_)},
                topic.log_id, source_.fence);
  }
  const auto replies = co_await ask(std::move(request));
  if (!replies) {
    co_return false;
  }
  stored_.clear();
  stored_until_ = Position();
  lanes_.clear();
  for (std::size_t i = 0; i < partitions.size(); ++i) {
    if (const auto code = (*replies)[i][0].text(); code == "FENCED") {
      set_fenced();
      co_return false;
    } else if (code != "OK") {
      no_log();
    }
    const auto fields = (*replies)[i][1];
    for (Generation g(1); g <= active_; ++g) {
      const auto name = fmt::format("pos.{}", g);
      if (fields.field(name)) {
        const Position position(number_in(fields, name));
        stored_[g][partitions[i]] = position;
        stored_until_ = std::max(stored_until_, position);
      }
    }
  }
  for (const auto& [partition, position] : stored_[active_]) {
    lanes_[partition].sent = position;
  }
  co_return true;
}

// What was deleted from the outbox must be in the topic, and the topic cannot have what was never there.
void Outbox::check_positions(const Reading& reading) const {
  if (stored_until_ > numbered_) {
    fail(ErrorKind::loss,
         "{}: topic {} has emitted events up to number {}, but only {} were ever numbered: the state of the "
         "group is "
         "older than what was published (a failover, or a restored copy?). `continuum group seek` begins a "
         "new run",
         where_, target_.topic().name, stored_until_, numbered_);
  }
  for (const auto& [generation, partitions] : acked_) {
    for (const auto& [partition, acked] : partitions) {
      const auto in_generation = stored_.find(generation);
      const bool known = in_generation != stored_.end() && in_generation->second.contains(partition);
      const Position has = known ? in_generation->second.at(partition) : Position();
      if (has < acked && acked < reading.first) {
        fail(ErrorKind::loss,
             "{}: {} lost events of {}: it had confirmed emitted events up to number {} and now has only up "
             "to "
             "number {}, and the outbox no longer has them",
             where_, client_.address().text(), place(target_.topic().name, partition), acked, has);
      }
    }
  }
}

bool Outbox::is_stored(std::string_view key, Position position) const {
  if (position > stored_until_) {
    return false;
  }
  return std::ranges::any_of(stored_, [&](const auto& generation) {
    const auto found = generation.second.find(target_.ring(generation.first).owner(key));
    return found != generation.second.end() && position <= found->second;
  });
}

// --- appending

void Outbox::send(const Reading& reading, redis::Request& request, std::vector<Sent>& sent) {
  const bool single = target_.topic().settings.frames == Frames::single;
  const Ring& ring = target_.ring(active_);
  const auto entries = reading.read();
  Position position = reading.first;
  std::string scratch;
  for (std::size_t i = 0; i < reading.entries; ++i) {
    std::string_view lines = *entries[i][1].field("e");
    for (; !lines.empty(); ++position) {
      const auto line = lines.substr(0, lines.find('\n'));
      lines.remove_prefix(line.size() + 1);
      const std::string_view key = key_of(attributes_of(line), scratch);
      if (is_stored(key, position)) {
        continue;
      }
      const Partition partition = ring.owner(key);
      Lane& lane = lanes_[partition];
      lane.lines.append(line.data(), line.size() + 1);
      lane.last = position;
      ++lane.events;
      if (single || lane.lines.size() >= frame_bytes) {
        flush(partition, lane, request, sent);
      }
    }
  }
  for (auto& [partition, lane] : lanes_) {
    if (lane.events > 0) {
      flush(partition, lane, request, sent);
    }
  }
}

void Outbox::flush(Partition partition, Lane& lane, redis::Request& request, std::vector<Sent>& sent) {
  const Topic& topic = target_.topic();
  const auto encoded = target_.encoder().encode(lane.lines, lane.events, topic.settings.frames);
  request.run(redis::Script::append,
              {log_key(topic.name, partition), meta_key(topic.name, partition),
               producer_key(topic.name, partition, producer_)},
              topic.log_id, active_, "named", source_.fence, lane.sent, lane.last, by_position, lane.events,
              encoded.encoding == Encoding::plain ? "e" : "z", encoded.bytes, producer_);
  sent.push_back({partition, lane.last});
  lane.sent = lane.last;
  lane.lines.clear();
  lane.events = 0;
}

// Whether all of it is stored. If not, the topic has to be asked again where it stands.
bool Outbox::acknowledged(const redis::Replies& replies, const std::vector<Sent>& sent) {
  bool refused = false;
  bool stale = false;
  for (std::size_t i = 0; i < sent.size(); ++i) {
    const auto code = replies[i][0].text();
    if (code == "OK" || code == "DUPLICATE") {
      // A duplicate was stored by ourselves: its answer was lost with a connection.
      Position& acked = acked_[active_][sent[i].partition];
      acked = std::max(acked, sent[i].last);
      continue;
    }
    if (code == "FENCED") {
      set_fenced();
    } else if (code == "STALE") {
      stale = true;
      told_ = std::max(told_, Generation(static_cast<Generation::rep>(replies[i][1].number())));
    } else if (code == "NOLOG") {
      no_log();
    } else if (code == "BEHIND") {
      fail(ErrorKind::loss, "{}: {} is at an older ring than its topic: the server lost a resize; see {}",
           where_, place(target_.topic().name, sent[i].partition), lost_resize_section);
    } else if (code == "GAP" || code == "UNKNOWN") {
      refused = true;
    } else {
      fail(ErrorKind::server,
           "{}: the server answered \"{}\" to append, which this version does not understand", where_,
           printable(code.substr(0, 40)));
    }
  }
  if (refused && ++refusals_ > refusals_max) {
    fail(ErrorKind::loss,
         "{}: topic {} refuses to go on from where it says that it stands: does another program write as the "
         "producer {}?",
         where_, target_.topic().name, producer_);
  }
  return !refused && !stale && !fenced_;
}

void Outbox::no_log() const {
  fail(ErrorKind::loss,
       "{}: the log of topic {}, which is emitted to, is gone from {}, or is another one: was it dropped, "
       "flushed, or "
       "restarted empty?",
       where_, target_.topic().name, client_.address().text());
}

}  // namespace continuum
