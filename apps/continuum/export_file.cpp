#include "export_file.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace continuum::app {

namespace {

constexpr std::size_t buffer_bytes = 1 << 16;

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

ExportFile::ExportFile(std::string path)
    : path_(std::move(path)), fd_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) {
  if (fd_ < 0) {
    fail(ErrorKind::usage, "cannot create {}: {}{}", printable(path_), std::strerror(errno),
         errno == EEXIST ? ". Nothing is overwritten: give another name" : "");
  }
}

ExportFile::~ExportFile() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

void ExportFile::line(std::string_view text) {
  buffer_ += text;
  buffer_ += '\n';
  if (buffer_.size() >= buffer_bytes) {
    write_out();
  }
}

void ExportFile::finish() {
  write_out();
  if (::fsync(fd_) != 0) {
    fail_writing();
  }
  if (::close(std::exchange(fd_, -1)) != 0) {
    fail_writing();
  }
  // Its name has to survive, too.
  const int directory = ::open(directory_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) {
    fail_writing();
  }
  const bool synced = ::fsync(directory) == 0 || errno == EINVAL;
  ::close(directory);
  if (!synced) {
    fail_writing();
  }
}

void ExportFile::write_out() {
  std::string_view rest = buffer_;
  while (!rest.empty()) {
    const auto n = ::write(fd_, rest.data(), rest.size());
    if (n >= 0) {
      rest.remove_prefix(static_cast<std::size_t>(n));
    } else if (errno != EINTR) {
      fail_writing();
    }
  }
  buffer_.clear();
}

void ExportFile::fail_writing() const {
  fail(ErrorKind::usage, "cannot write {}: {}. What was written of it is not complete", printable(path_),
       std::strerror(errno));
}

}  // namespace continuum::app
