#include "continuum/log_reader.hpp"

#include "continuum/error.hpp"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>

#include <algorithm>
#include <utility>

namespace continuum {

namespace {

constexpr std::size_t queue_bytes_max = std::size_t{4} << 20;
constexpr std::size_t answer_bytes_goal = std::size_t{4} << 20;
constexpr std::size_t count_max = 4096;
constexpr std::size_t count_growth_max = 4;
constexpr Milliseconds block{2'000};
// An entry takes memory beyond its frame: a flood of tiny ones is bounded too.
constexpr std::size_t entry_overhead_bytes = sizeof(FetchedEntry);

}  // namespace

const FetchedEntry* LogQueue::front() const {
  if (entries_.empty() && error_) {
    std::rethrow_exception(error_);
  }
  return entries_.empty() ? nullptr : &entries_.front();
}

FetchedEntry LogQueue::take() {
  FetchedEntry entry = std::move(entries_.front());
  entries_.pop_front();
  bytes_ -= entry.entry.frame.size() + entry_overhead_bytes;
  if (full_ && bytes_ <= queue_bytes_max / 2 && reader_ != nullptr) {
    reader_->resume(*this);
  }
  return entry;
}

LogReader::LogReader(asio::any_io_executor executor, redis::Client& client, redis::Client& control,
                     std::string topic)
    : executor_(std::move(executor)),
      client_(client),
      control_(control),
      topic_(std::move(topic)),
      wake_(executor_),
      unblocked_(executor_) {}

std::shared_ptr<LogQueue> LogReader::subscribe(Partition partition, EntryId after, Wake& wake) {
  auto queue = std::make_shared<LogQueue>();
  queue->position_ = after;
  queue->wake_ = &wake;
  queue->reader_ = this;
  queues_[partition] = queue;
  check(queues_.size() <= streams_max, "a reader has a bounded number of streams");
  wake_call();
  return queue;
}

void LogReader::unsubscribe(Partition partition) {
  if (const auto found = queues_.find(partition); found != queues_.end()) {
    // A call that is out still holds the queue; what it brings is of no use to anybody.
    found->second->wake_ = nullptr;
    found->second->reader_ = nullptr;
    queues_.erase(found);
  }
}

void LogReader::resume(LogQueue& queue) {
  queue.full_ = false;
  wake_call();
}

void LogReader::stop() {
  stopping_ = true;
  wake_.notify();
  unblocked_.notify();
  client_.close();
}

void LogReader::fail_all(const std::exception_ptr& error) {
  for (const auto& [partition, queue] : queues_) {
    queue->error_ = error;
    queue->wake_->notify();
  }
}

asio::awaitable<void> LogReader::run() {
  try {
    while (!stopping_) {
      asked_.clear();
      for (const auto& [partition, queue] : queues_) {
        if (!queue->full_ && !queue->error_) {
          asked_.emplace(log_key(topic_, partition), std::pair(partition, queue));
        }
      }
      if (asked_.empty()) {
        co_await wake_.wait();
        continue;
      }
      redis::Request request;
      const std::string count = std::to_string(count_);
      const std::string block_text = std::to_string(block.count());
      std::vector<std::string_view> args{"XREAD", "COUNT", count, "BLOCK", block_text, "STREAMS"};
      std::vector<std::string> ids;
      ids.reserve(asked_.size());
      for (const auto& [key, of] : asked_) {
        args.push_back(key);
        ids.push_back(of.second->position_.text());
      }
      args.insert(args.end(), ids.begin(), ids.end());
      request.add(args).may_block(block);
      call_ = ++calls_;
      const redis::Replies replies = co_await client_.call(std::move(request));
      call_ = 0;
      unblocked_.notify();
      take_answer(replies[0]);
    }
  } catch (const Error&) {
    if (!stopping_) {
      fail_all(std::current_exception());
    }
  }
  call_ = 0;
  while (unblocking_ > 0) {
    unblocked_.notify();
    co_await wake_.wait();
  }
}

void LogReader::take_answer(redis::Reply answer) {
  answer_bytes_ = 0;
  answer_entries_ = 0;
  for (std::size_t i = 0; i < answer.size(); ++i) {
    const auto asked = asked_.find(answer[i][0].text());
    check(asked != asked_.end(), "XREAD answers about streams that were asked for");
    const auto& [partition, queue] = asked->second;
    const auto now = queues_.find(partition);
    if (now != queues_.end() && now->second == queue) {
      take_stream(partition, answer[i][1]);
    }
  }
  if (answer_entries_ > 0) {
    const std::size_t entry_bytes = answer_bytes_ / answer_entries_ + 1;
    const std::size_t goal = answer_bytes_goal / (entry_bytes * asked_.size());
    count_ = std::clamp<std::size_t>(goal, 1, std::min(count_ * count_growth_max, count_max));
  }
}

void LogReader::take_stream(Partition partition, redis::Reply entries) {
  LogQueue& queue = *queues_.at(partition);
  const std::size_t size = entries.size();
  std::vector<Entry> parsed;
  parsed.reserve(size);
  std::size_t bytes = 0;
  try {
    for (std::size_t i = 0; i < size; ++i) {
      parsed.push_back(parse_entry(entries[i], topic_, partition));
      bytes += parsed.back().frame.size() + parsed.back().producer.size() + parsed.back().digest.size();
    }
  } catch (const Error&) {
    queue.error_ = std::current_exception();
  }
  // One copy out of the answer: a partition that stands still would otherwise keep the answers of all.
  auto storage = std::make_shared<std::string>();
  storage->reserve(bytes);
  const auto keep = [&](std::string_view& text) {
    const std::size_t at = storage->size();
    storage->append(text);
    text = std::string_view(storage->data() + at, text.size());
  };
  for (Entry& entry : parsed) {
    keep(entry.frame);
    keep(entry.producer);
    keep(entry.digest);
    queue.position_ = entry.id;
    queue.read_up_to_ = entry.next();
    queue.entries_.push_back({entry, storage});
  }
  queue.bytes_ += bytes + parsed.size() * entry_overhead_bytes;
  queue.full_ = queue.bytes_ >= queue_bytes_max;
  answer_bytes_ += bytes;
  answer_entries_ += parsed.size();
  queue.wake_->notify();
}

// A call that is out does not know of the partition that just joined: it is ended, and the next one does.
void LogReader::wake_call() {
  wake_.notify();
  if (call_ != 0 && unblocking_ == 0) {
    ++unblocking_;
    asio::co_spawn(executor_, unblock(call_), asio::detached);
  }
}

asio::awaitable<void> LogReader::unblock(std::uint64_t call) {
  try {
    while (!stopping_ && call_ == call) {
      redis::Request request;
      request.command("CLIENT", "UNBLOCK", client_.client_id()).keep_errors();
      const redis::Replies replies = co_await control_.call(std::move(request));
      // It may not have been blocked at that moment, and be so by now.
      if (call_ == call) {
        co_await unblocked_.wait_until(Clock::now() + Milliseconds(replies[0].is_error() ? 200 : 2));
      }
    }
  } catch (const Error&) {
    // The control connection is gone: its owner hears of that by itself.
  }
  --unblocking_;
  wake_.notify();
}

}  // namespace continuum
