#include "continuum/appender.hpp"

#include "continuum/log.hpp"
#include "continuum/reroute.hpp"
#include "continuum/resize_steps.hpp"

#include <algorithm>
#include <iterator>
#include <random>
#include <utility>

namespace continuum {
namespace {

// After a clean end nobody sends for an unnamed producer again; late bytes of a dead connection still might.
constexpr std::uint64_t ended_producer_seconds = 600;
// As long as append lets it live.
constexpr std::uint64_t unnamed_producer_ms = 86'400'000;

std::string random_name() {
  constexpr std::string_view letters = "0123456789abcdefghjkmnpqrstvwxyz";
  std::random_device device;
  std::string out;
  for (int i = 0; i < 26; ++i) {  // 130 bits
    out += letters[device() % letters.size()];
  }
  return out;
}

}  // namespace

Appender::Appender(redis::Client& client, const Topic& topic, const PublishOptions& options, Done done)
    : client_(client),
      topic_(topic),
      options_(options),
      done_(std::move(done)),
      named_(!options.producer.empty()),
      producer_(named_ ? options.producer : "~" + random_name()),
      acknowledgement_(client, options.acknowledge) {}

// --- before the first event

asio::awaitable<Stored> Appender::begin() {
  co_await acknowledgement_.verify();
  Stored stored;
  if (named_) {
    co_await take_over();
    stored = co_await open(topic_);
  }
  begin_lanes(stored);
  for (const auto& [generation, partitions] : stored) {
    for (const auto& [partition, state] : partitions) {
      mine_[generation][partition] = state.position;
    }
  }
  co_return stored;
}

// Fences every earlier process of this name.
asio::awaitable<void> Appender::take_over() {
  redis::Request ask;
  ask.run(redis::Script::epoch, {topic_key(topic_.name)}, topic_.log_id, producer_);
  const auto answer = co_await client_.call(std::move(ask));
  if (answer[0][0].text() != "OK") {
    no_log();
  }
  epoch_ = answer[0][1].number();
  // Not before: an earlier process may have followed the ring further than we knew.
  adopt(co_await reload_topic(client_, topic_.name, topic_.log_id));
}

void Appender::adopt(Topic now) {
  now.settings = topic_.settings;
  topic_ = std::move(now);
}

// What is stored, over all generations up to the active one.
asio::awaitable<Stored> Appender::open(const Topic& topic) {
  redis::Request request;
  const auto partitions = topic.partitions();
  for (const auto p : partitions) {
    const auto key = producer_key(topic.name, p, producer_);
    if (named_) {
      request.run(redis::Script::open, {meta_key(topic.name, p), key}, topic.log_id, epoch_);
    } else {
      // Also a write: what follows on this connection confirms what is read.
      request.command("PEXPIRE", key, unnamed_producer_ms).command("HGETALL", key);
    }
  }
  acknowledgement_.ask(request);
  const auto replies = co_await client_.call(std::move(request));
  Stored stored;
  for (std::size_t i = 0; i < partitions.size(); ++i) {
    if (named_ && replies[i][0].text() != "OK") {
      replies[i][0].text() == "FENCED" ? fenced() : no_log();
    }
    const auto fields = named_ ? replies[i][1] : replies[2 * i + 1];
    for (Generation generation(1); generation <= topic.active; ++generation) {
      if (const auto position = fields.field(fmt::format("pos.{}", generation))) {
        const auto digest = fields.field(fmt::format("dig.{}", generation));
        stored[generation][partitions[i]] = {Position(std::stoull(std::string(*position))),
                                             std::string(digest.value_or(""))};
      }
    }
  }
  const std::size_t writes = partitions.size() * (named_ ? 1 : 2);
  confirmed_ = acknowledgement_.confirmed(replies, writes);
  co_return stored;
}

// Chains that were begun in the active generation.
void Appender::begin_lanes(const Stored& stored) {
  lanes_.clear();
  if (const auto begun = stored.find(topic_.active); begun != stored.end()) {
    for (const auto& [partition, state] : begun->second) {
      Lane& lane = lanes_[partition];
      lane.sent = lane.acked = lane.most = state.position;
    }
  }
}

// --- sending and acknowledging

void Appender::send(BatchPointer batch) {
  if (told_) {
    unstored_.push_back(std::move(batch));
    return;
  }
  Lane& lane = lanes_[batch->partition];
  if (lane.broken) {
    lane.again.push_back(std::move(batch));
    return;
  }
  redis::Request request;
  const auto p = batch->partition;
  request.run(redis::Script::append,
              {log_key(topic_.name, p), meta_key(topic_.name, p), producer_key(topic_.name, p, producer_)},
              topic_.log_id, topic_.active, named_ ? "named" : "unnamed", epoch_, lane.sent, batch->last(),
              batch->digest, batch->events(), batch->encoding == Encoding::plain ? "e" : "z",
              batch->encoding == Encoding::plain ? batch->lines : batch->frame, producer_);
  acknowledgement_.ask(request);
  lane.sent = batch->last();
  lane.most = std::max(lane.most, lane.sent);
  ++lane.outstanding;
  auto answer = client_.call(std::move(request));
  in_flight_.push_back({std::move(batch), std::move(answer)});
}

asio::awaitable<void> Appender::take_answer() {
  const auto replies = co_await std::move(in_flight_.front().answer);
  co_await acknowledgement_.verify();
  auto batch = std::move(in_flight_.front().batch);
  in_flight_.pop_front();
  if (replies[0][0].text() == "BEHIND") {
    co_await seal_again(client_, topic_, batch->partition);
  }
  acknowledge(std::move(batch), replies);
}

void Appender::acknowledge(BatchPointer batch, const redis::Replies& replies) {
  Lane& lane = lanes_[batch->partition];
  --lane.outstanding;
  const auto code = replies[0][0].text();
  if (code == "OK" || code == "DUPLICATE") {
    // A duplicate was stored by this process: its answer was lost with a connection. Of the last append of
    // the chain the server still knows the offset.
    std::optional<Offset> first;
    if (code == "OK") {
      first = Offset(replies[0][1].number());
    } else if (Position(replies[0][1].number()) == batch->last()) {
      first = Offset(replies[0][2].number() - batch->events());
    }
    lane.acked = std::max(lane.acked, batch->last());
    const bool confirmed = acknowledgement_.confirmed(replies, 1);
    done_(*batch, first, confirmed ? StoredBatch::Status::stored : StoredBatch::Status::unconfirmed);
  } else if (code == "GAP") {
    const Position position(replies[0][1].number());
    if (position < lane.acked) {
      fail_lost(batch->partition, lane.acked, position);
    }
    lane.broken = true;
    lane.resume = position;
    lane.again.push_back(std::move(batch));
  } else if (code == "STALE") {
    told_ = std::max(told_.value_or(Generation()),
                     Generation(static_cast<Generation::rep>(replies[0][1].number())));
    unstored_.push_back(std::move(batch));
  } else {
    refuse(code, *batch);
  }
  if (lane.broken && lane.outstanding == 0 && !told_) {
    resend(lane);
  }
}

// The chain of a partition goes on from where the log stands.
void Appender::resend(Lane& lane) {
  lane.broken = false;
  lane.sent = lane.resume;
  for (auto& batch : std::exchange(lane.again, {})) {
    if (batch->last() <= lane.resume) {
      done_(*batch, std::nullopt, StoredBatch::Status::stored);
    } else {
      send(std::move(batch));
    }
  }
}

// --- the ring has changed

asio::awaitable<Appender::Followed> Appender::follow(std::function<bool()> goes_on) {
  for (auto& [partition, lane] : lanes_) {
    touched_.insert(partition);
    std::move(lane.again.begin(), lane.again.end(), std::back_inserter(unstored_));
    lane.again.clear();
  }
  auto next = co_await await_generation(client_, topic_.name, topic_.log_id, *told_, std::move(goes_on));
  if (!next) {
    fail(ErrorKind::interrupted, "interrupted while the topic {} is being resized", topic_.name);
  }
  const Stored stored = co_await open(*next);
  require_kept(stored);
  adopt(*std::move(next));

  std::map<Generation, Ring> rings;
  for (const auto& [generation, ring] : topic_.rings) {
    if (generation == topic_.active || stored.contains(generation)) {
      rings.emplace(generation, ring);
    }
  }
  RerouteRules rules{topic_.active, options_.frame_bytes, topic_.settings.frames, RerouteRules::Digest::none};
  if (named_) {
    rules.digest = options_.wrap.position ? RerouteRules::Digest::position : RerouteRules::Digest::chained;
  }
  auto rerouted = reroute(std::exchange(unstored_, {}), stored, rings, rules);
  begin_lanes(stored);
  told_.reset();
  for (const auto& batch : rerouted.stored) {
    done_(*batch, std::nullopt, confirmed_ ? StoredBatch::Status::stored : StoredBatch::Status::unconfirmed);
  }
  co_return Followed{std::move(rerouted.unstored), std::move(rerouted.chains)};
}

// What was confirmed must still be there, and what we did not send cannot be: positions tell what is ours
// only as long as nobody else writes under our name.
void Appender::require_kept(const Stored& stored) {
  const auto position_in = [&](Generation generation, Partition partition) {
    const auto in = stored.find(generation);
    if (in == stored.end() || !in->second.contains(partition)) {
      return Position();
    }
    return in->second.at(partition).position;
  };
  for (const auto& [partition, lane] : lanes_) {
    Position& most = mine_[topic_.active][partition];
    most = std::max(most, lane.most);
    if (const auto has = position_in(topic_.active, partition); has < lane.acked) {
      fail_lost(partition, lane.acked, has);
    }
  }
  for (const auto& [generation, partitions] : stored) {
    for (const auto& [partition, state] : partitions) {
      const auto in = mine_.find(generation);
      if (in == mine_.end() || !in->second.contains(partition) || in->second.at(partition) < state.position) {
        fail(ErrorKind::server,
             "{}: an earlier process published as producer {} while this one began: run it again, it "
             "continues where that one stopped",
             place(topic_.name, partition), producer_);
      }
    }
  }
}

// --- the end

void Appender::give_up() {
  const auto lost = [&](const Batch& batch) { done_(batch, std::nullopt, StoredBatch::Status::unconfirmed); };
  for (const auto& flight : std::exchange(in_flight_, {})) {
    if (flight.batch) {
      lost(*flight.batch);
    }
  }
  for (auto& [partition, lane] : lanes_) {
    for (const auto& batch : std::exchange(lane.again, {})) {
      lost(*batch);
    }
  }
  for (const auto& batch : std::exchange(unstored_, {})) {
    lost(*batch);
  }
}

std::optional<asio::awaitable<redis::Replies>> Appender::farewell() {
  if (named_) {
    return std::nullopt;
  }
  for (const auto& [partition, lane] : lanes_) {
    touched_.insert(partition);
  }
  redis::Request request;
  for (const auto partition : touched_) {
    request.command("EXPIRE", producer_key(topic_.name, partition, producer_), ended_producer_seconds);
  }
  if (request.empty()) {
    return std::nullopt;
  }
  return client_.call(std::move(request));
}

// --- what cannot go on

void Appender::refuse(std::string_view code, const Batch& batch) const {
  const auto at = place(topic_.name, batch.partition);
  if (code == "BEHIND") {
    fail(ErrorKind::loss,
         "{}: the partition was at an older ring than the topic: the server lost its part of a resize, and "
         "what was stored there meanwhile under the older one may be out of order. It is sealed now; see {}",
         at, lost_resize_section);
  }
  if (code == "FENCED") {
    fenced();
  }
  if (code == "UNKNOWN" || code == "EXPIRED") {
    fail(ErrorKind::loss, "{}: the server no longer knows the producer {}: its state was deleted or evicted",
         at, options_.wrap.producer);
  }
  if (code == "NOLOG") {
    no_log();
  }
  fail(ErrorKind::server, "{}: the server gave an answer to append that this version does not know: {}", at,
       code);
}

void Appender::fail_lost(Partition partition, Position confirmed, Position has) const {
  fail(ErrorKind::loss,
       "{} lost events of topic {}, partition {}: it had confirmed up to line {} and now has only up "
       "to line {}. {}",
       client_.address().text(), topic_.name, partition, confirmed, has,
       named_ ? "Run the same command again to store them again"
              : "Did it restart or fail over? `continuum inspect` shows what it has");
}

void Appender::no_log() const {
  fail(ErrorKind::loss,
       "the log of topic {} is gone from {}, or is another one: was it dropped, flushed, or restarted "
       "empty? "
       "`continuum topic ls` shows what is there",
       topic_.name, client_.address().text());
}

void Appender::fenced() const {
  fail(ErrorKind::fenced, "another process publishes as producer {} to topic {} and has taken over",
       producer_, topic_.name);
}

}  // namespace continuum
