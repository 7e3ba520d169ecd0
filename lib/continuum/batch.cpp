#include "continuum/batch.hpp"

namespace continuum {

void BatchQueue::push(Item item) {
  {
    const std::lock_guard lock(mutex_);
    items_.push_back(std::move(item));
  }
  arrived_.notify_one();
}

void BatchQueue::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  arrived_.notify_one();
}

BatchQueue::Item BatchQueue::pop() {
  std::unique_lock lock(mutex_);
  arrived_.wait(lock, [&] { return closed_ || !items_.empty(); });
  if (closed_) {
    return {nullptr, Mark::closed};
  }
  auto item = std::move(items_.front());
  items_.pop_front();
  return item;
}

bool Budget::take(std::size_t bytes) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return closed_ || lifted_ || used_ == 0 || used_ + bytes <= bytes_max_; });
  used_ += bytes;
  return !closed_;
}

void Budget::give(std::size_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    used_ -= bytes;
  }
  changed_.notify_one();
}

void Budget::lift() {
  {
    const std::lock_guard lock(mutex_);
    lifted_ = true;
  }
  changed_.notify_all();
}

void Budget::restore() {
  const std::lock_guard lock(mutex_);
  lifted_ = false;
}

void Budget::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
}

}  // namespace continuum
