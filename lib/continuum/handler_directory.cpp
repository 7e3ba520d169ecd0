#include "continuum/handler_directory.hpp"

#include "continuum/error.hpp"
#include "continuum/handler_file.hpp"
#include "continuum/names.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <utility>

namespace continuum {

namespace fs = std::filesystem;

// --- files

std::vector<HandlerFile> read_handler_files(const std::string& directory) {
  std::error_code error;
  std::vector<std::string> names;
  fs::directory_iterator entries(directory, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    auto name = entries->path().filename().string();
    if (name.size() > 5 && name.front() != '.' && name.ends_with(".toml")) {
      names.push_back(std::move(name));
    }
    if (names.size() > handlers_max) {
      fail(ErrorKind::usage, "{}: has more than {} handlers", printable(directory), handlers_max);
    }
  }
  if (error) {
    fail(ErrorKind::usage, "{}: the directory of handlers cannot be read: {}", printable(directory),
         error.message());
  }
  std::vector<HandlerFile> files;
  for (const std::string& name : names) {
    HandlerFile file{name.substr(0, name.size() - 5), (fs::path(directory) / name).string(), {}, {}, {}};
    try {
      auto text = read_handler_text(file.path);
      if (!text) {
        continue;  // it went away just now
      }
      file.text = std::move(*text);
      file.spec = parse_handler(file.path, file.text);
    } catch (const Error& broken) {
      file.problem = broken.message();
    }
    files.push_back(std::move(file));
  }
  // By name, not by file name: '.' of the ending would sort between others.
  std::sort(files.begin(), files.end(),
            [](const HandlerFile& a, const HandlerFile& b) { return a.name < b.name; });
  return files;
}

void require_working(const std::string& directory, const std::vector<HandlerFile>& files) {
  if (files.empty()) {
    fail(ErrorKind::usage, "{}: has no handlers: there is no file that ends in .toml", printable(directory));
  }
  std::size_t broken = 0;
  std::string text;
  for (const HandlerFile& file : files) {
    if (!file.spec) {
      ++broken;
      text += "\n" + file.problem;
    }
  }
  if (broken > 0) {
    fail(ErrorKind::usage, "{}: {} of {} handlers cannot be used:{}", printable(directory), broken,
         files.size(), text);
  }
  if (std::none_of(files.begin(), files.end(), [](const HandlerFile& file) { return file.spec->enabled; })) {
    fail(ErrorKind::usage, "{}: no handler is enabled: all events would be passed over",
         printable(directory));
  }
}

// --- being told

namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

constexpr std::uint32_t in_directory = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE |
                                       IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF;
// Where a symbolic link on the way stands: only that it is made anew.
constexpr std::uint32_t beside_link = IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE;
constexpr std::size_t links_max = 40;

// The directories whose entries decide where `path` leads: those that hold a symbolic link on the way.
std::set<std::string> link_holders(const std::string& path) {
  std::set<std::string> holders;
  std::error_code error;
  std::vector<fs::path> rest;  // what is still to be walked, the next one last
  const auto push = [&](const fs::path& part) {
    std::vector<fs::path> components(part.begin(), part.end());
    rest.insert(rest.end(), components.rbegin(), components.rend());
  };
  push(fs::absolute(path, error));
  fs::path at;
  for (std::size_t links = 0; !rest.empty() && links <= links_max;) {
    const fs::path component = rest.back();
    rest.pop_back();
    const fs::path next = at / component;
    if (fs::is_symlink(next, error)) {
      ++links;
      holders.insert(at.string());
      const fs::path target = fs::read_symlink(next, error);
      if (target.is_absolute()) {
        at.clear();
      }
      push(target);
    } else {
      at = next;
    }
  }
  return holders;
}

// One descriptor for three reasons to look.
class Watch {
 public:
  Watch(const std::string& path, Milliseconds poll_every)
      : path_(path),
        all_(::epoll_create1(EPOLL_CLOEXEC)),
        timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)),
        changes_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    const auto seconds = std::chrono::floor<std::chrono::seconds>(poll_every);
    const timespec every{seconds.count(), std::chrono::nanoseconds(poll_every - seconds).count()};
    const itimerspec times{every, every};
    if (!all_ || !timer_ || ::timerfd_settime(timer_.get(), 0, &times, nullptr) != 0 || !add(timer_)) {
      fail(ErrorKind::server, "cannot watch the directory {}: {}", printable(path), std::strerror(errno));
    }
    // Without it (the system has only so many) the timer is enough.
    if (changes_) {
      add(changes_);
    }
  }

  // To be called before the directory is read: what happens after that is heard of.
  void follow() {
    if (!changes_) {
      return;
    }
    std::set<int> now;
    const auto watch = [&](const std::string& directory, std::uint32_t events) {
      const int id =
          ::inotify_add_watch(changes_.get(), directory.c_str(), events | IN_ONLYDIR | IN_MASK_ADD);
      if (id >= 0) {
        now.insert(id);
      }
    };
    watch(path_, in_directory);
    for (const std::string& holder : link_holders(path_)) {
      watch(holder, beside_link);
    }
    for (const int id : watched_) {
      if (!now.contains(id)) {
        ::inotify_rm_watch(changes_.get(), id);
      }
    }
    watched_ = std::move(now);
  }

  [[nodiscard]] int fd() const { return all_.get(); }

  void drain() {
    alignas(inotify_event) std::array<char, 4096> bytes;
    for (const Descriptor* source : {&timer_, &changes_}) {
      while (*source && ::read(source->get(), bytes.data(), bytes.size()) > 0) {
      }
    }
  }

 private:
  bool add(const Descriptor& source) {
    epoll_event event{};
    event.events = EPOLLIN;
    return ::epoll_ctl(all_.get(), EPOLL_CTL_ADD, source.get(), &event) == 0;
  }

  std::string path_;
  Descriptor all_;
  Descriptor timer_;
  Descriptor changes_;
  std::set<int> watched_;
};

}  // namespace

// --- the directory

struct HandlerDirectory::Impl {
  struct Known {
    std::string text;
    HandlerSpec spec;
    std::string problem;  // of the file as it is now, already told; empty: none
    bool vanished = false;
  };
  using What = HandlerNotice::What;

  Impl(std::string directory, Milliseconds poll_every) : path(std::move(directory)), watch(path, poll_every) {
    watch.follow();
    auto files = read_handler_files(path);
    require_working(path, files);
    for (HandlerFile& file : files) {
      known.emplace(file.name, Known{std::move(file.text), std::move(*file.spec), {}, false});
    }
  }

  void take(HandlerFile& file, Removals removals, std::vector<HandlerNotice>& notices) {
    if (!file.spec) {
      take_broken(file, removals, notices);
      return;
    }
    broken_new.erase(file.name);
    const auto found = known.find(file.name);
    if (found == known.end()) {
      if (file.spec->enabled) {
        notices.push_back({What::added, file.name, fmt::format("handler {}: added", file.name)});
      }
      known.emplace(file.name, Known{std::move(file.text), std::move(*file.spec), {}, false});
      return;
    }
    Known& old = found->second;
    if (old.spec == *file.spec) {
      if (!old.problem.empty() || old.vanished) {
        notices.push_back({What::mended, file.name,
                           fmt::format("handler {}: {} is as it was before", file.name, file.path)});
      }
    } else if (old.spec.enabled && !file.spec->enabled) {
      notices.push_back(
          {What::removed, file.name, fmt::format("handler {}: removed, as enabled = false says", file.name)});
    } else if (!old.spec.enabled && file.spec->enabled) {
      notices.push_back({What::added, file.name, fmt::format("handler {}: added", file.name)});
    } else if (old.spec.enabled) {
      notices.push_back({What::changed, file.name, fmt::format("handler {}: changed", file.name)});
    }
    old = Known{std::move(file.text), std::move(*file.spec), {}, false};
  }

  void take_broken(HandlerFile& file, Removals removals, std::vector<HandlerNotice>& notices) {
    const auto found = known.find(file.name);
    std::string& told = found == known.end() ? broken_new[file.name] : found->second.problem;
    if (found != known.end()) {
      found->second.vanished = false;
    }
    if (told == file.problem && removals == Removals::keep) {
      return;
    }
    const auto outcome = found == known.end()         ? "it is not taken up"
                         : found->second.spec.enabled ? "it goes on as it was before"
                                                      : "it stays disabled";
    notices.push_back(
        {What::broken, file.name,
         fmt::format("handler {} cannot be used; {}:\n{}", printable(file.name), outcome, file.problem)});
    told = std::move(file.problem);
  }

  void miss(const std::set<std::string>& seen, Removals removals, std::vector<HandlerNotice>& notices) {
    std::erase_if(broken_new, [&](const auto& entry) { return !seen.contains(entry.first); });
    // The last ones are not removed: what is there instead is broken, and all events would be passed over.
    const bool is_any_left = std::any_of(known.begin(), known.end(),
                                         [&](const auto& entry) { return seen.contains(entry.first); });
    for (auto at = known.begin(); at != known.end();) {
      Known& old = at->second;
      if (seen.contains(at->first)) {
        ++at;
      } else if (!old.spec.enabled) {
        at = known.erase(at);
      } else if (removals == Removals::apply && is_any_left) {
        notices.push_back(
            {What::removed, at->first, fmt::format("handler {}: removed, its file is gone", at->first)});
        at = known.erase(at);
      } else {
        if (!old.vanished) {
          notices.push_back(
              {What::vanished, at->first,
               fmt::format("handler {}: its file is gone from {}; it goes on until the worker gets "
                           "SIGHUP",
                           at->first, path)});
        }
        old.vanished = true;
        old.problem.clear();
        ++at;
      }
    }
  }

  void tell_of_directory(std::string problem, Removals removals, std::vector<HandlerNotice>& notices) {
    if (directory_problem != problem || removals == Removals::apply) {
      notices.push_back({What::broken, {}, problem + "; the handlers go on as they were"});
    }
    directory_problem = std::move(problem);
  }

  HandlerChanges refresh(Removals removals) {
    HandlerChanges changes;
    const std::vector<HandlerSpec> before = present();
    watch.follow();
    std::vector<HandlerFile> files;
    try {
      files = read_handler_files(path);
      // A deploy that is half done, or a mount that is not there, looks like this.
      if (files.empty()) {
        fail(ErrorKind::usage, "{}: has no handlers any more", path);
      }
      directory_problem.clear();
    } catch (const Error& error) {
      tell_of_directory(error.message(), removals, changes.notices);
      changes.present = before;
      return changes;
    }
    std::set<std::string> seen;
    for (HandlerFile& file : files) {
      seen.insert(file.name);
      take(file, removals, changes.notices);
    }
    miss(seen, removals, changes.notices);
    changes.present = present();
    changes.is_other_set = changes.present != before;
    return changes;
  }

  [[nodiscard]] std::vector<HandlerSpec> present() const {
    std::vector<HandlerSpec> specs;
    for (const auto& [name, one] : known) {
      if (one.spec.enabled) {
        specs.push_back(one.spec);
      }
    }
    return specs;
  }

  const std::string path;
  Watch watch;
  std::map<std::string, Known> known;             // the last good version of each
  std::map<std::string, std::string> broken_new;  // what was told of those that never were good
  std::string directory_problem;                  // what was told
};

HandlerDirectory::HandlerDirectory(std::string path, Milliseconds poll_every)
    : impl_(std::make_unique<Impl>(std::move(path), poll_every)) {}

HandlerDirectory::~HandlerDirectory() = default;

std::vector<HandlerSpec> HandlerDirectory::present() const {
  return impl_->present();
}

HandlerChanges HandlerDirectory::refresh(Removals removals) {
  return impl_->refresh(removals);
}

std::string HandlerDirectory::fingerprint() const {
  std::string all;
  for (const auto& [name, one] : impl_->known) {
    if (one.spec.enabled) {
      // With sizes, so that nothing can move from one to the next.
      all += fmt::format("{} {} {}\n", name, one.text.size(), one.text);
    }
  }
  return fmt::format("{:016x}", XXH3_64bits(all.data(), all.size()));
}

int HandlerDirectory::notify_fd() const {
  return impl_->watch.fd();
}

void HandlerDirectory::drain() {
  impl_->watch.drain();
}

}  // namespace continuum
