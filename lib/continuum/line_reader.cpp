#include "continuum/line_reader.hpp"

#include "continuum/error.hpp"
#include "continuum/json.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace continuum {
namespace {
constexpr std::size_t chunk_bytes = std::size_t{1} << 20;
constexpr int pipe_bytes = 1 << 20;
}  // namespace

LineReader::LineReader(std::vector<LineSource> sources, int wake)
    : sources_(std::move(sources)), wake_(wake) {
  // Events given as a text need no megabyte.
  const bool small = sources_.size() == 1 && sources_[0].descriptor < 0;
  buffer_.resize((small ? sources_[0].text.size() + 1 : chunk_bytes) + json::padding_bytes);
}

LineReader::Got LineReader::next(Line& line) {
  for (;;) {
    const char* data = buffer_.data();
    if (const void* found = std::memchr(data + scanned_, '\n', end_ - scanned_)) {
      const auto end = static_cast<std::size_t>(static_cast<const char*>(found) - data);
      give(line, end, 1);
      return Got::line;
    }
    scanned_ = end_;
    switch (fill()) {
      case Filled::more:
        break;
      case Filled::idle:
        return Got::idle;
      case Filled::end:
        // The last line of a source may lack its newline.
        const bool has_rest = end_ > begin_ || cut_ > 0;
        if (has_rest) {
          give(line, end_, 0);
        }
        if (source_ < sources_.size()) {
          ++source_;
          opened_ = false;
        }
        if (has_rest) {
          return Got::line;
        }
        if (source_ >= sources_.size()) {
          return Got::end;
        }
        break;
    }
  }
}

void LineReader::give(Line& line, std::size_t end, std::size_t skip) {
  line.text = std::string_view(buffer_.data() + begin_, end - begin_);
  line.number = ++number_;
  line.source = source_;
  line.cut_bytes = std::exchange(cut_, 0);
  begin_ = end + skip;
  scanned_ = begin_;
}

void LineReader::make_room() {
  if (begin_ > 0 && (begin_ == end_ || buffer_.size() - json::padding_bytes - end_ < chunk_bytes / 4)) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    scanned_ -= begin_;
    begin_ = 0;
  }
  if (end_ + json::padding_bytes < buffer_.size()) {
    return;
  }
  if (end_ - begin_ < line_bytes_max) {
    buffer_.resize(std::min(buffer_.size() * 2, line_bytes_max + chunk_bytes + json::padding_bytes));
    return;
  }
  // An overlong line: keep its beginning, forget what lies behind.
  const std::size_t keep = begin_ + line_bytes_max;
  cut_ += end_ - keep;
  end_ = keep;
  scanned_ = keep;
}

LineReader::Filled LineReader::fill() {
  if (source_ >= sources_.size()) {
    return Filled::end;
  }
  LineSource& from = sources_[source_];
  if (from.descriptor < 0) {
    if (opened_) {
      return Filled::end;
    }
    opened_ = true;
    if (buffer_.size() < end_ + from.text.size() + json::padding_bytes) {
      buffer_.resize(end_ + from.text.size() + json::padding_bytes);
    }
    std::memcpy(buffer_.data() + end_, from.text.data(), from.text.size());
    end_ += from.text.size();
    bytes_read_ += from.text.size();
    read_at_ = std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now());
    return Filled::more;
  }
  if (!opened_) {
    opened_ = true;
    struct stat status{};
    const bool known = ::fstat(from.descriptor, &status) == 0;
    is_file_ = known && S_ISREG(status.st_mode);
    if (known && S_ISFIFO(status.st_mode)) {
      // With the usual 64 KiB a fast writer is found idle again and again, and its batches stay small. A
      // system that grants no more goes on as it is.
      ::fcntl(from.descriptor, F_SETPIPE_SZ, pipe_bytes);
    }
  }
  make_room();
  if (!is_file_) {
    pollfd ready{from.descriptor, POLLIN, 0};
    if (::poll(&ready, 1, 0) == 0) {
      return Filled::idle;
    }
  }
  for (;;) {
    const auto n =
        ::read(from.descriptor, buffer_.data() + end_, buffer_.size() - json::padding_bytes - end_);
    if (n > 0) {
      end_ += static_cast<std::size_t>(n);
      bytes_read_ += static_cast<std::uint64_t>(n);
      read_at_ = std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now());
      return Filled::more;
    }
    if (n == 0) {
      return Filled::end;
    }
    if (errno == EAGAIN) {  // an inherited descriptor may be non-blocking, and keeps its flags
      return Filled::idle;
    }
    if (errno != EINTR) {
      fail(ErrorKind::usage, "cannot read {} after line {}: {}", from.name, number_, std::strerror(errno));
    }
  }
}

namespace {
void poll_until(int first, int second, std::optional<std::chrono::steady_clock::time_point> deadline) {
  pollfd ready[2] = {{first, POLLIN, 0}, {second, POLLIN, 0}};
  int timeout = -1;
  if (deadline) {
    const auto left = std::chrono::ceil<Milliseconds>(*deadline - std::chrono::steady_clock::now()).count();
    timeout = static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000));
  }
  ::poll(ready, 2, timeout);
}
}  // namespace

void LineReader::wait(std::optional<std::chrono::steady_clock::time_point> deadline) const {
  poll_until(wake_, source_ < sources_.size() ? sources_[source_].descriptor : -1, deadline);
}

void LineReader::wait_only(std::chrono::steady_clock::time_point deadline) const {
  poll_until(wake_, -1, deadline);
}

}  // namespace continuum
