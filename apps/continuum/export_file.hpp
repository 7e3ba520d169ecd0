// A new file that is to be relied on: what was there is never overwritten, and it is on the disk when
// finish() returns.
#pragma once

#include <string>
#include <string_view>

namespace continuum::app {

class ExportFile {
 public:
  // Throws Error{usage} when it exists or cannot be created.
  explicit ExportFile(std::string path);
  ~ExportFile();
  ExportFile(const ExportFile&) = delete;
  ExportFile& operator=(const ExportFile&) = delete;

  // Both throw Error{usage} naming the path when the disk does not take it.
  void line(std::string_view text);
  void finish();

 private:
  void write_out();
  [[noreturn]] void fail_writing() const;

  std::string path_;
  std::string buffer_;
  int fd_;
};

}  // namespace continuum::app
