// Programs under test as real processes, and directories that go away again.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace test {

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void write_file(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "continuum-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      throw std::runtime_error("no temporary directory");
    }
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Ended {
  int status = 0;  // exit status, or 128 + signal
  std::string out;
  std::string err;
};

// A child that dies with the test. Its stdout and stderr go to files, so that it never blocks on them.
class Process {
 public:
  struct Redirect {
    std::string in = "/dev/null";
    std::string out = "/dev/null";
    std::string err = "/dev/null";
  };
  Process(const std::vector<std::string>& command, const Redirect& to) {
    std::vector<char*> argv;
    argv.reserve(command.size() + 1);
    for (const auto& arg : command) {
      argv.push_back(const_cast<char*>(arg.c_str()));
    }
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::dup2(::open(to.in.c_str(), O_RDONLY), 0);
      ::dup2(::open(to.out.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600), 1);
      ::dup2(::open(to.err.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600), 2);
      ::execvp(argv[0], argv.data());
      ::_exit(127);
    }
    descriptor_ = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
  }
  ~Process() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      wait();
    }
  }
  Process(Process&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)), descriptor_(std::exchange(other.descriptor_, -1)) {}
  Process& operator=(Process&&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  void signal(int number) const {
    if (pid_ > 0) {
      ::kill(pid_, number);
    }
  }
  // True when it has ended within the time.
  [[nodiscard]] bool ended_within(std::chrono::milliseconds time) const {
    pollfd ended{descriptor_, POLLIN, 0};
    return ::poll(&ended, 1, static_cast<int>(time.count())) == 1;
  }
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    ::close(std::exchange(descriptor_, -1));
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  int descriptor_ = -1;
};

inline Ended run(const std::vector<std::string>& command, const std::string& in = "/dev/null") {
  const TemporaryDirectory directory;
  Process process(command, {in, directory.file("out"), directory.file("err")});
  Ended ended;
  ended.status = process.wait();
  ended.out = read_file(directory.file("out"));
  ended.err = read_file(directory.file("err"));
  return ended;
}

}  // namespace test
