#include "continuum/publish_input.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace continuum {
namespace {

// Open batches over all partitions. More partitions than this allows frames for get smaller frames.
constexpr std::size_t open_bytes_max = std::size_t{32} << 20;

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r") == std::string_view::npos;
}

}  // namespace

std::uint64_t chained(std::uint64_t chain, Position position, std::uint64_t line_hash) {
  const std::array<std::uint64_t, 3> link{chain, position.value, line_hash};
  return XXH3_64bits(link.data(), sizeof link);
}

std::string digest_text(std::uint64_t chain) {
  return fmt::format("{:016x}", chain);
}

std::uint64_t digest_value(const std::string& text) {
  return std::strtoull(text.c_str(), nullptr, 16);
}

PublishInput::PublishInput(const PublishOptions& options, const Topic& topic, const Stored& stored,
                           std::vector<LineSource> sources, int wake, const PublishHooks& hooks,
                           std::function<void(BatchPointer)> ready, std::function<void()> paused,
                           Budget& budget, InputCounters& counters)
    : options_(options),
      frames_(topic.settings.frames),
      hooks_(hooks),
      ready_(std::move(ready)),
      paused_(std::move(paused)),
      budget_(budget),
      counters_(counters),
      wrapper_(options.wrap),
      reader_(std::move(sources), wake) {
  std::uint32_t lanes = 0;
  for (const auto& [generation, description] : topic.rings) {
    if (generation > topic.active) {
      break;
    }
    for (const auto& member : description.members) {
      lanes = std::max(lanes, member.partition.value + 1);
    }
    if (generation != topic.active && !stored.contains(generation)) {
      continue;  // nothing of it is to be found again
    }
    Generations g{generation, std::make_unique<Ring>(description), {}};
    if (const auto found = stored.find(generation); found != stored.end()) {
      for (const auto& [partition, state] : found->second) {
        claimed_until_ = std::max(claimed_until_, state.position);
        const bool counted = state.digest == by_position;
        if (counted != options.wrap.position.has_value()) {
          fail(ErrorKind::usage, "producer {} has published to topic {} {} --position so far; {}",
               options.producer, topic.name, counted ? "with" : "without",
               counted ? "give the same --position, or another --producer"
                       : "leave it out, or give another --producer");
        }
        // Positions out of the events say themselves what was stored: input may begin anywhere.
        g.claims.emplace(partition, Claim{state.position, state.digest, 0, counted});
        unmet_ += counted ? 0 : 1;
      }
    }
    generations_.push_back(std::move(g));
  }
  lanes_.resize(lanes);
  for (const auto& [partition, claim] : generations_.back().claims) {
    lanes_[partition.value].chain = digest_value(claim.digest);
  }
}

void PublishInput::run() {
  const auto deadline = [&]() -> std::optional<std::chrono::steady_clock::time_point> {
    return oldest_ ? std::optional(*oldest_ + options_.linger) : std::nullopt;
  };
  Line line;
  while (!stopped()) {
    if (pausing()) {
      wait_for_resume();
      continue;
    }
    const auto got = [&] {
      try {
        return reader_.next(line);
      } catch (const Error&) {
        flush();
        throw;
      }
    }();
    if (got == LineReader::Got::end) {
      require_claims(Position(number_max));
      break;
    }
    if (got == LineReader::Got::line) {
      take(line);
      continue;
    }
    if (options_.linger.count() == 0 || (oldest_ && *deadline() <= std::chrono::steady_clock::now())) {
      flush();
    }
    reader_.wait(deadline());
  }
  flush();
}

void PublishInput::stop() {
  {
    const std::lock_guard lock(resume_mutex_);
    stopped_.store(true, std::memory_order_relaxed);
  }
  resumed_.notify_all();
}

void PublishInput::wait_for_resume() {
  flush();
  paused_();
  std::unique_lock lock(resume_mutex_);
  resumed_.wait(lock, [&] { return !pausing() || stopped(); });
}

void PublishInput::resume(Generation generation, std::unique_ptr<Ring> ring,
                          const std::map<Partition, std::uint64_t>& chains) {
  {
    const std::lock_guard lock(resume_mutex_);
    for (const auto& member : ring->description().members) {
      if (lanes_.size() <= member.partition.value) {
        lanes_.resize(member.partition.value + 1);
      }
    }
    for (auto& lane : lanes_) {
      lane.chain = 0;
    }
    for (const auto& [partition, chain] : chains) {
      lanes_.at(partition.value).chain = chain;
    }
    generations_.push_back({generation, std::move(ring), {}});
    pausing_.store(false, std::memory_order_relaxed);
  }
  resumed_.notify_all();
}

void PublishInput::take(const Line& line) {
  // Input that never goes idle must not keep a batch for longer than --linger.
  if (oldest_ && options_.linger.count() > 0 && line.number % 256 == 0 &&
      *oldest_ + options_.linger <= std::chrono::steady_clock::now()) {
    flush();
  }
  if (is_blank(line.text) && line.cut_bytes == 0) {
    return;
  }
  if (line.cut_bytes > 0) {
    reject(line,
           fmt::format("the line has {} bytes, over what can be read", line.text.size() + line.cut_bytes));
    return;
  }
  if (const auto why = wrapper_.read(line.text, Position(line.number))) {
    reject(line, *why);
    return;
  }
  const Position position = wrapper_.position();
  if (position <= last_position_) {
    reject(line, fmt::format("its position {} does not rise: the event before it has {}", position,
                             last_position_));
    return;
  }
  last_position_ = position;
  if (position <= claimed_until_) {
    if (const auto partition = stored_at(line, position)) {
      ++counters_.duplicates;
      if (hooks_.duplicate) {
        hooks_.duplicate({position, *partition, wrapper_.id()});
      }
      return;
    }
  } else if (unmet_ > 0) {
    require_claims(position);
  }
  add(generations_.back().ring->owner(wrapper_.key()), line, position);
  keep_rate();
}

void PublishInput::add(Partition partition, const Line& line, Position position) {
  Lane& lane = lanes_[partition.value];
  if (!lane.batch) {
    lane.batch = std::make_unique<Batch>();
    lane.batch->partition = partition;
    // A flood goes on as it came: as large as the batch before, without growing there step by step.
    lane.batch->lines.reserve(lane.bytes_before + lane.bytes_before / 8);
    lane.batch->positions.reserve(lane.events_before + lane.events_before / 8);
    if (!options_.producer.empty()) {
      lane.batch->line_hashes.reserve(lane.events_before + lane.events_before / 8);
    }
    open_lanes_.push_back(partition.value);
    if (!oldest_) {
      oldest_ = std::chrono::steady_clock::now();
    }
  }
  Batch& batch = *lane.batch;
  const std::size_t before = batch.lines.size();
  wrapper_.write(batch.lines, reader_.read_at());
  batch.positions.push_back(position);
  open_bytes_ += batch.lines.size() - before;
  if (!options_.producer.empty()) {
    const auto line_hash = XXH3_64bits(line.text.data(), line.text.size());
    lane.chain = chained(lane.chain, position, line_hash);
    batch.line_hashes.push_back(line_hash);
  }
  if (batch.lines.size() >= options_.frame_bytes || frames_ == Frames::single) {
    pass_on(lane);
  } else if (open_bytes_ >= open_bytes_max) {
    flush();
  }
}

void PublishInput::reject(const Line& line, std::string_view reason) {
  ++counters_.rejected;
  if (hooks_.rejected) {
    hooks_.rejected({line.number, reader_.source(line.source).name, line.text, line.cut_bytes, reason});
  }
  if (options_.bad_line == PublishOptions::BadLine::stop) {
    stop();
  }
}

std::optional<Partition> PublishInput::stored_at(const Line& line, Position position) {
  for (auto& g : generations_) {
    const auto found = g.claims.find(g.ring->owner(wrapper_.key()));
    if (found == g.claims.end() || position > found->second.position) {
      continue;
    }
    Claim& claim = found->second;
    if (!claim.met) {
      claim.chain = chained(claim.chain, position, XXH3_64bits(line.text.data(), line.text.size()));
      if (position == claim.position) {
        if (digest_text(claim.chain) != claim.digest) {
          fail(
              ErrorKind::loss,
              "the input differs from the one stored under producer {}: up to line {} it does not match what "
              "partition {} has. Nothing was published; give another --producer for another input",
              options_.producer, position, found->first);
        }
        claim.met = true;
        if (--unmet_ == 0) {
          for (auto& batch : std::exchange(held_, {})) {
            send(std::move(batch));
          }
        }
      }
    }
    return found->first;
  }
  return std::nullopt;
}

// The input has passed `passed`: every claim up to there must have been met.
void PublishInput::require_claims(Position passed) const {
  if (unmet_ == 0) {
    return;
  }
  for (const auto& g : generations_) {
    for (const auto& [partition, claim] : g.claims) {
      if (!claim.met && claim.position < passed) {
        fail(ErrorKind::loss,
             "the input differs from the one stored under producer {}: it has no event at line {} for "
             "partition {}, "
             "where the stored one has. Nothing was published; give another --producer for another input",
             options_.producer, claim.position, partition);
      }
    }
  }
}

void PublishInput::pass_on(Lane& lane) {
  BatchPointer batch = std::move(lane.batch);
  lane.bytes_before = batch->lines.size();
  lane.events_before = batch->positions.size();
  open_bytes_ -= batch->lines.size();
  if (!options_.producer.empty()) {
    batch->digest = options_.wrap.position ? std::string(by_position) : digest_text(lane.chain);
  }
  std::erase(open_lanes_, batch->partition.value);
  if (open_lanes_.empty()) {
    oldest_.reset();
  }
  if (unmet_ > 0) {
    held_.push_back(std::move(batch));
  } else {
    send(std::move(batch));
  }
}

void PublishInput::send(BatchPointer batch) {
  if (budget_.take(batch->lines.size())) {
    ready_(std::move(batch));
  }
}

void PublishInput::flush() {
  while (!open_lanes_.empty()) {
    pass_on(lanes_[open_lanes_.front()]);
  }
}

void PublishInput::keep_rate() {
  if (options_.rate_per_second == 0) {
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (rate_events_ == 0) {
    rate_start_ = now;
  }
  ++rate_events_;
  const auto due =
      rate_start_ + std::chrono::nanoseconds(rate_events_ * 1'000'000'000 / options_.rate_per_second);
  // Sleeps shorter than a timer tick would make the rate wrong.
  if (due - now < std::chrono::milliseconds(1)) {
    return;
  }
  flush();
  while (std::chrono::steady_clock::now() < due && !stopped() && !pausing()) {
    reader_.wait_only(due);
  }
}

}  // namespace continuum
