// A worker in this process against a server of its own.
#pragma once

#include "redis/log_data.hpp"
#include "redis/server.hpp"

#include "continuum/dead_letters.hpp"
#include "continuum/error.hpp"
#include "continuum/lease.hpp"
#include "continuum/worker.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace test {

// For what another thread or process does: there is no event of ours to wait for.
inline void await(const char* what, const std::function<bool()>& holds,
                  std::chrono::milliseconds within = std::chrono::seconds(30)) {
  const auto deadline = std::chrono::steady_clock::now() + within;
  while (!holds()) {
    REQUIRE_MESSAGE(std::chrono::steady_clock::now() < deadline, what);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

inline continuum::ErrorKind kind_of(const std::function<void()>& body, std::string* message = nullptr) {
  try {
    body();
  } catch (const continuum::Error& error) {
    if (message != nullptr) {
      *message = error.message();
    }
    return error.kind();
  }
  FAIL("no error");
  return continuum::ErrorKind::usage;
}

// A topic "t", a group "g" from its start, and what a worker of it is told.
class Work {
 public:
  explicit Work(std::uint32_t partitions = 1) : session_(server_.session()), data_(*session_, partitions) {
    continuum::register_group(*session_, data_.topic(), "g", "start");
    options_.group = "g";
    options_.partitions = data_.topic().partitions();
    options_.ending = continuum::Ending::drained;
    options_.environment = {"PATH=/usr/bin:/bin", "OUT=" + directory_.file("handled"),
                            "DIR=" + directory_.path(), "SOCKET=" + server_.socket()};
    handler_.name = continuum::command_line_handler;
    handler_.backoff_min = continuum::Milliseconds(1);
    handler_.backoff_max = continuum::Milliseconds(5);
    handler_.on_failure = continuum::OnFailure::halt;
    options_.lease = continuum::Milliseconds(1'000);
    options_.say = [this](const std::string& text) {
      const std::lock_guard lock(mutex_);
      said_ += text + "\n";
    };
  }

  LogData& data() { return data_; }
  continuum::WorkOptions& options() { return options_; }
  continuum::HandlerSpec& handler() { return handler_; }
  [[nodiscard]] std::string said() const {
    const std::lock_guard lock(mutex_);
    return said_;
  }
  [[nodiscard]] std::string handled() const { return read_file(directory_.file("handled")); }
  // Where handlers find and leave things: $DIR is the directory.
  [[nodiscard]] std::string file(const std::string& name) const { return directory_.file(name); }

  // Runs the shell line for each event; $OUT is what handled() reads.
  void handle(const std::string& line, continuum::HandlerMode mode = continuum::HandlerMode::exec) {
    handler_.command = {"sh", "-c", line};
    handler_.mode = mode;
  }
  // Instead: several of them, otherwise like handler().
  void add_handler(const std::string& name, const std::string& line) {
    continuum::HandlerSpec handler = handler_;
    handler.name = name;
    handler.command = {"sh", "-c", line};
    handlers_.push_back(std::move(handler));
  }

  continuum::WorkSummary run() {
    const int fd = ::open(directory_.file("printed").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    options_.output_fd = fd;
    struct Close {
      int fd;
      ~Close() { ::close(fd); }
    } const close{fd};
    if (!handlers_.empty()) {
      options_.handlers = handlers_;
    } else if (!handler_.command.empty()) {
      options_.handlers = {handler_};
    }
    const auto session = this->session();
    return continuum::work(*session, data_.topic(), options_);
  }
  [[nodiscard]] std::string printed() const { return read_file(directory_.file("printed")); }

  [[nodiscard]] continuum::GroupState state(std::uint32_t partition = 0) {
    return *continuum::parse_group(data_.command("HGETALL", group(partition))[0]);
  }
  [[nodiscard]] static std::string group(std::uint32_t partition) {
    return continuum::group_key("t", continuum::Partition(partition), "g");
  }
  [[nodiscard]] std::string url() const { return server_.url(); }
  // A connection of its own, for what happens while run() has another one.
  [[nodiscard]] std::unique_ptr<continuum::redis::Session> session() const {
    continuum::redis::ClientOptions options;
    options.needs.access = continuum::redis::Needs::Access::write;
    options.retry_for = retry_for;
    return std::make_unique<continuum::redis::Session>(continuum::redis::Address::parse(server_.url()),
                                                       options);
  }

  // --- dead letters

  [[nodiscard]] std::vector<continuum::DeadLetter> letters(std::uint32_t partition = 0) {
    const auto replies =
        data_.command("XRANGE", continuum::dead_key("t", continuum::Partition(partition), "g"), "-", "+");
    std::vector<continuum::DeadLetter> letters;
    for (std::size_t i = 0; i < replies[0].size(); ++i) {
      letters.push_back(continuum::parse_dead_letter(replies[0][i]));
    }
    return letters;
  }
  [[nodiscard]] continuum::HeldKeys held(std::uint32_t partition = 0) {
    return continuum::parse_held(data_.command("HGETALL", held_key(partition))[0]);
  }
  [[nodiscard]] static std::string held_key(std::uint32_t partition) {
    return continuum::held_key("t", continuum::Partition(partition), "g");
  }
  continuum::Asked ask(const continuum::HandlerKey& whose, const continuum::LetterRequest& what = {}) {
    continuum::redis::Request request;
    continuum::request_release(request, group(0), held_key(0), whose, what);
    return continuum::parse_release(session_->call(std::move(request))[0]);
  }
  // Empty: resume.
  void pause(const std::string& why) {
    continuum::redis::Request request;
    request.run(continuum::redis::Script::pause, {group(0)}, why);
    session_->call(std::move(request));
  }

  continuum::Milliseconds retry_for{10'000};

 private:
  RedisServer server_;
  TemporaryDirectory directory_;
  std::unique_ptr<continuum::redis::Session> session_;
  LogData data_;
  continuum::WorkOptions options_;
  continuum::HandlerSpec handler_;
  std::vector<continuum::HandlerSpec> handlers_;
  mutable std::mutex mutex_;
  std::string said_;
};

// The worker on a thread of its own, until it is told to stop.
class Running {
 public:
  explicit Running(Work& work) : work_(work), ending_(work.options().ending) {
    REQUIRE(::pipe(ends_) == 0);
    work_.options().requests_fd = ends_[0];
    work_.options().ending = continuum::Ending::never;
    thread_ = std::thread([this] {
      try {
        summary_ = work_.run();
      } catch (...) {
        error_ = std::current_exception();
      }
    });
  }
  ~Running() {
    end("tt");
    work_.options().requests_fd = -1;
    work_.options().ending = ending_;
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  void request(char what) { REQUIRE(::write(ends_[1], &what, 1) == 1); }
  continuum::WorkSummary stop() { return finish("t"); }
  continuum::WorkSummary stop_at_once() { return finish("tt"); }

 private:
  void end(const std::string& requests) {
    if (thread_.joinable()) {
      for (const char what : requests) {
        (void)!::write(ends_[1], &what, 1);
      }
      thread_.join();
    }
  }
  continuum::WorkSummary finish(const std::string& requests) {
    end(requests);
    if (error_) {
      std::rethrow_exception(error_);
    }
    return summary_;
  }

  Work& work_;
  const continuum::Ending ending_;
  int ends_[2] = {-1, -1};
  std::thread thread_;
  continuum::WorkSummary summary_;
  std::exception_ptr error_;
};

}  // namespace test
