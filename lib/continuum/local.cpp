#include "continuum/local.hpp"

#include "continuum/daemon.hpp"
#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

namespace continuum::local {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t socket_path_bytes_max = sizeof(sockaddr_un::sun_path) - 1;
constexpr std::uintmax_t log_bytes_max = 1 << 20;
constexpr std::size_t log_lines_shown = 6;
constexpr Milliseconds stop_patience{60'000};

struct Files {
  std::string socket;
  std::string log;
  std::string pid;
  std::string lock;
  std::string configuration;
  explicit Files(const std::string& d)
      : socket(d + "/redis.sock"),
        log(d + "/redis.log"),
        pid(d + "/redis.pid"),
        lock(d + "/lock"),
        configuration(d + "/redis.conf") {}
};

// --- the directory

void make_directories(const std::string& directory) {
  for (std::size_t at = 1; at != std::string::npos;) {
    at = directory.find('/', at + 1);
    const auto part = directory.substr(0, at);
    struct stat known{};
    // Asked first: on a read-only file system mkdir fails for directories that exist, too.
    if (stat(part.c_str(), &known) != 0 && mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      fail_by_errno("create the directory", part);
    }
  }
}

// Anybody who can write here could put another server, or other data, in the place of ours.
void require_ours(const std::string& directory) {
  struct stat found{};
  if (stat(directory.c_str(), &found) != 0) {
    fail_by_errno("look at", directory);
  }
  if (!S_ISDIR(found.st_mode)) {
    fail(ErrorKind::usage, "{} is not a directory: name another one with -u local:DIR", directory);
  }
  if (found.st_uid != geteuid()) {
    fail(ErrorKind::usage,
         "the embedded server's directory {} belongs to user {}, and we are user {}: name another one with "
         "-u local:DIR",
         directory, found.st_uid, geteuid());
  }
  if ((found.st_mode & 077) != 0) {
    fail(
        ErrorKind::usage,
        "the embedded server's directory {} is open to other users: `chmod 700 {}`, or name another one with "
        "-u local:DIR",
        directory, directory);
  }
}

// Held while a server is started or stopped. The holder has a deadline, so nobody waits here for ever.
Descriptor take_lock(const Files& files) {
  Descriptor lock(open(files.lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (lock.get() < 0) {
    fail_by_errno("open", files.lock);
  }
  while (flock(lock.get(), LOCK_EX) != 0) {
    if (errno != EINTR) {
      fail_by_errno("lock", files.lock);
    }
  }
  return lock;
}

// --- who is on the socket

enum class Found : std::uint8_t {
  nothing,
  stale,    // a socket that nobody listens on: its server was killed
  ours,     // the process of the pid file
  somebody  // listens, but is not known to be ours
};

struct Probe {
  Found found;
  pid_t pid = 0;
};

pid_t read_pid(const std::string& path) {
  std::array<char, 32> text{};
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const auto n = file.get() < 0 ? -1 : read(file.get(), text.data(), text.size());
  pid_t pid = 0;
  if (n > 0) {
    (void)std::from_chars(text.data(), text.data() + n, pid);
  }
  return pid;
}

// Without a round trip: every command on the embedded server begins with this.
Probe probe(const Files& files) {
  sockaddr_un where{};
  where.sun_family = AF_UNIX;
  check(files.socket.size() <= socket_path_bytes_max, "the socket path was checked");
  std::memcpy(where.sun_path, files.socket.data(), files.socket.size());
  const Descriptor s(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (s.get() < 0) {
    fail_by_errno("create a socket for", files.socket);
  }
  if (connect(s.get(), reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return {Found::nothing};
    }
    if (errno == ECONNREFUSED) {
      return {Found::stale};
    }
    fail_by_errno("connect to", files.socket);
  }
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(s.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    fail_by_errno("ask who listens on", files.socket);
  }
  if (peer.uid != geteuid()) {
    fail(ErrorKind::usage,
         "the socket {} belongs to process {} of user {}, not to us: name another directory with "
         "-u local:DIR",
         files.socket, peer.pid, peer.uid);
  }
  const bool known = peer.pid > 0 && peer.pid == read_pid(files.pid);
  return {known ? Found::ours : Found::somebody, peer.pid};
}

redis::ClientOptions client_options() {
  redis::ClientOptions options;
  options.timeout = Milliseconds(10'000);
  return options;
}

// Whether the server on the socket is the one of this directory. Throws Error{usage} when it is not.
void require_same(const std::string& directory, const Files& files, pid_t pid) {
  std::string why;
  try {
    redis::Session session(address(directory), client_options());
    redis::Request request;
    request.command("CONFIG", "GET", "dir");
    const auto replies = session.call(std::move(request));
    const std::string dir(replies[0].field("dir").value_or(""));
    std::error_code ignored;
    if (std::filesystem::equivalent(dir, directory, ignored)) {
      return;
    }
    why = fmt::format("it is a Redis server that keeps its data in {}", printable(dir));
  } catch (const Error& error) {
    why = error.message();
  }
  fail(
      ErrorKind::usage,
      "process {} listens on {}, but is not our embedded server ({}): end it, or name another directory with "
      "-u local:DIR",
      pid, files.socket, why);
}

// --- starting

// redis.conf knows C escapes within double quotes.
std::string quoted_word(std::string_view path) {
  std::string out = "\"";
  for (const char c : path) {
    if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

void write_configuration(const std::string& directory, const Files& files) {
  const auto text = fmt::format(
      "# Written by `continuum local` at each start: changes are lost.\n"
      "port 0\n"
      "unixsocket {}\n"
      "unixsocketperm 700\n"
      "dir {}\n"
      "pidfile {}\n"
      "logfile {}\n"
      "daemonize no\n"
      "save \"\"\n"
      "appendonly yes\n"
      "appendfsync everysec\n"
      "maxmemory-policy noeviction\n",
      quoted_word(files.socket), quoted_word(directory), quoted_word(files.pid), quoted_word(files.log));
  const Descriptor file(
      open(files.configuration.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file.get() < 0) {
    fail_by_errno("write", files.configuration);
  }
  for (std::string_view rest = text; !rest.empty();) {
    const auto n = write(file.get(), rest.data(), rest.size());
    if (n < 0 && errno != EINTR) {
      fail_by_errno("write", files.configuration);
    }
    rest.remove_prefix(n < 0 ? 0 : static_cast<std::size_t>(n));
  }
}

std::uintmax_t size_of(const std::string& path) {
  std::error_code none;
  const auto size = std::filesystem::file_size(path, none);
  return none ? 0 : size;
}

// What the server said since `from`, as indented lines; empty when it said nothing.
std::string log_tail(const Files& files, std::uintmax_t from) {
  std::ifstream log(files.log);
  log.seekg(static_cast<std::streamoff>(from));
  std::vector<std::string> lines;
  for (std::string line; std::getline(log, line);) {
    lines.push_back(line.substr(0, 300));
    if (lines.size() > log_lines_shown) {
      lines.erase(lines.begin());
    }
  }
  return lines.empty() ? std::string() : fmt::format(" The end of its log:\n{}", fmt::join(lines, "\n"));
}

enum class Launched : std::uint8_t { answers, not_found, ended };

// Starts one server and waits for it. Throws when it lives but does not answer.
Launched launch(const std::string& directory, const Files& files, const StartOptions& options,
                const std::vector<std::string>& launcher) {
  std::vector<std::string> words = launcher;
  words.insert(words.end(), {"redis-server", files.configuration});
  const auto spawned = spawn_daemon(words, options.environment, directory, files.log);
  if (spawned.error == ENOENT) {
    return Launched::not_found;
  }
  if (spawned.error != 0) {
    errno = spawned.error;
    fail_by_errno("run", words.front());
  }
  const ForeignProcess process(spawned.pid);
  const auto until = Clock::now() + options.patience;
  Milliseconds pause{1};
  while (probe(files).found != Found::ours) {
    if (process.ended_within(pause)) {
      return Launched::ended;
    }
    if (Clock::now() > until) {
      process.terminate();
      fail(ErrorKind::server, "redis-server (process {}) did not open {} within {} s: look into {}",
           spawned.pid, files.socket, options.patience.count() / 1000, files.log);
    }
    pause = std::min(pause * 2, Milliseconds(20));
  }
  try {
    redis::Session session(address(directory), client_options());
    return Launched::answers;
  } catch (const Error&) {
    if (process.ended_within(Milliseconds(100))) {
      return Launched::ended;
    }
    process.terminate();
    throw;
  }
}

[[noreturn]] void explain_end(const std::string& directory, const Files& files, std::uintmax_t log_from) {
  struct statvfs disk{};
  const bool full = statvfs(directory.c_str(), &disk) == 0 && disk.f_bavail == 0;
  fail(ErrorKind::server, "redis-server ended right after its start{}.{}",
       full ? fmt::format(" (the disk of {} is full: free some space there)", directory) : std::string(),
       log_tail(files, log_from));
}

}  // namespace

redis::Address address(const std::string& directory) {
  redis::Address where;
  where.socket_path = Files(directory).socket;
  if (where.socket_path.size() > socket_path_bytes_max) {
    fail(ErrorKind::usage,
         "the path {} has {} bytes, and the system allows {} for a socket: name a shorter directory with -u "
         "local:DIR",
         where.socket_path, where.socket_path.size(), socket_path_bytes_max);
  }
  return where;
}

Start start(const std::string& directory, const StartOptions& options) {
  (void)address(directory);
  const Files files(directory);
  if (probe(files).found == Found::ours) {
    return Start::was_running;
  }
  make_directories(directory);
  require_ours(directory);
  const auto lock = take_lock(files);
  const auto seen = probe(files);
  if (seen.found == Found::ours) {
    return Start::was_running;
  }
  if (seen.found == Found::somebody) {
    require_same(directory, files, seen.pid);
    return Start::was_running;
  }
  if (seen.found == Found::stale && unlink(files.socket.c_str()) != 0 && errno != ENOENT) {
    fail_by_errno("remove the stale socket", files.socket);
  }
  write_configuration(directory, files);
  if (size_of(files.log) > log_bytes_max) {
    (void)rename(files.log.c_str(), (files.log + ".1").c_str());
  }
  const auto log_from = size_of(files.log);
  auto launched = Launched::ended;
  if (!options.launcher.empty()) {
    launched = launch(directory, files, options, options.launcher);
  }
  if (launched != Launched::answers) {
    launched = launch(directory, files, options, {});
  }
  if (launched == Launched::not_found) {
    fail(ErrorKind::usage,
         "redis-server is not installed, and the embedded server needs it: `apt install redis-server`, or "
         "name a "
         "server with -u URL");
  }
  if (launched == Launched::ended) {
    explain_end(directory, files, log_from);
  }
  return Start::started;
}

bool stop(const std::string& directory) {
  (void)address(directory);
  const Files files(directory);
  if (const auto seen = probe(files).found; seen == Found::nothing || seen == Found::stale) {
    return false;
  }
  require_ours(directory);
  const auto lock = take_lock(files);
  const auto seen = probe(files);
  if (seen.found == Found::nothing || seen.found == Found::stale) {
    return false;
  }
  if (seen.found == Found::somebody) {
    require_same(directory, files, seen.pid);
  }
  const ForeignProcess process(seen.pid);
  std::string refusal;
  try {
    redis::Session session(address(directory), client_options());
    redis::Request request;
    request.command("SHUTDOWN");
    (void)session.call(std::move(request));
  } catch (const Error& error) {
    refusal = error.message();  // or the end of the connection, which is what was asked for
  }
  if (!process.ended_within(stop_patience)) {
    fail(ErrorKind::server, "the embedded server (process {}) did not end: {}. Its log is {}", seen.pid,
         refusal, files.log);
  }
  return true;
}

std::optional<Status> status(const std::string& directory) {
  const auto where = address(directory);
  const Files files(directory);
  const auto seen = probe(files);
  if (seen.found == Found::nothing || seen.found == Found::stale) {
    return std::nullopt;
  }
  if (seen.found == Found::somebody) {
    require_same(directory, files, seen.pid);
  }
  redis::Session session(where, client_options());
  redis::Request request;
  request.command("INFO", "server").command("INFO", "memory");
  const auto replies = session.call(std::move(request));
  const auto number = [](std::string_view info, std::string_view name) {
    std::uint64_t value = 0;
    if (const auto at = info.find(name); at != std::string_view::npos) {
      const auto digits = info.substr(at + name.size());
      (void)std::from_chars(digits.data(), digits.data() + digits.size(), value);
    }
    return value;
  };
  return Status{seen.pid, session.facts().version, number(replies[1].text(), "\nused_memory:"),
                std::chrono::seconds(number(replies[0].text(), "\nuptime_in_seconds:"))};
}

}  // namespace continuum::local
