#include "continuum/batch.hpp"

namespace continuum {

void BatchQueue::push(BatchPointer batch) {
  {
    const std::lock_guard lock(mutex_);
    batches_.push_back(std::move(batch));
  }
  arrived_.notify_one();
}

void BatchQueue::end() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  arrived_.notify_one();
}

BatchPointer BatchQueue::pop() {
  std::unique_lock lock(mutex_);
  arrived_.wait(lock, [&] { return ended_ || !batches_.empty(); });
  if (batches_.empty()) {
    return nullptr;
  }
  auto batch = std::move(batches_.front());
  batches_.pop_front();
  return batch;
}

bool Budget::take(std::size_t bytes) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return closed_ || used_ == 0 || used_ + bytes <= bytes_max_; });
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

void Budget::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
}

}  // namespace continuum
