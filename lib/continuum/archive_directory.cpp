#include "continuum/archive_directory.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

namespace continuum {

namespace {

constexpr std::size_t offset_digits = 20;
constexpr std::string_view segment_suffix = ".ndjson.zst";
constexpr std::string_view index_suffix = ".index";
constexpr std::size_t identity_bytes_max = 4096;
constexpr mode_t directory_mode = 0750;
constexpr mode_t file_mode = 0640;
constexpr int directory_flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

[[noreturn]] void fail_at(ErrorKind kind, std::string_view doing, std::string_view path) {
  const int error = errno;
  fail(kind, "cannot {} {}: {}", doing, printable(path), std::strerror(error));
}

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};

// Names in a directory, but for `.` and `..`.
std::vector<std::string> names_in(int fd, std::string_view path) {
  // A description of its own, because reading moves it.
  const int own = openat(fd, ".", directory_flags);
  std::unique_ptr<DIR, CloseDirectory> directory(own < 0 ? nullptr : fdopendir(own));
  if (!directory) {
    if (own >= 0) {
      ::close(own);
    }
    fail_at(ErrorKind::usage, "read the directory", path);
  }
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(directory.get());
    if (entry == nullptr) {
      if (errno != 0) {
        fail_at(ErrorKind::server, "read the directory", path);
      }
      break;
    }
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") {
      names.emplace_back(name);
    }
  }
  std::ranges::sort(names);
  return names;
}

std::optional<std::uint64_t> number_in(std::string_view text, std::uint64_t max) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value <= max ? std::optional(value)
                                                                                  : std::nullopt;
}

std::optional<Offset> offset_in(std::string_view name, std::string_view suffix) {
  if (name.size() != offset_digits + suffix.size() || !name.ends_with(suffix)) {
    return std::nullopt;
  }
  const auto value = number_in(name.substr(0, offset_digits), number_max);
  return value ? std::optional(Offset(*value)) : std::nullopt;
}

bool is_topic_name(std::string_view name) {
  try {
    require_name("topic", name);
  } catch (const Error&) {
    return false;
  }
  return name != "." && name != "..";
}

Descriptor open_directory(int at, const std::string& name, const std::string& path) {
  Descriptor fd(openat(at, name.c_str(), directory_flags | O_NOFOLLOW));
  if (!fd) {
    if (errno == ELOOP || errno == ENOTDIR) {
      fail(
          ErrorKind::usage,
          "{} is not a directory, or a symbolic link to one: in an archive neither is followed. Move it away",
          printable(path));
    }
    fail_at(ErrorKind::usage, "open the directory", path);
  }
  return fd;
}

void sync_directory(int fd, std::string_view path) {
  // EINVAL: a file system that has nothing to sync in a directory.
  if (fsync(fd) != 0 && errno != EINVAL) {
    fail_at(ErrorKind::server, "sync the directory", path);
  }
}

Descriptor make_directory(int at, const std::string& name, const std::string& path) {
  if (mkdirat(at, name.c_str(), directory_mode) != 0 && errno != EEXIST) {
    fail_at(errno == ENOSPC || errno == EDQUOT || errno == EIO ? ErrorKind::server : ErrorKind::usage,
            "create the directory", path);
  }
  // Also when it was there: whoever made it may have died before.
  sync_directory(at, path);
  return open_directory(at, name, path);
}

enum class Found : std::uint8_t { partition, foreign, other };

// What `name`, which is that of a partition, is.
Found look_at_partition(int topic, const std::string& name, const std::string& path) {
  const Descriptor fd(openat(topic, name.c_str(), directory_flags | O_NOFOLLOW));
  if (!fd) {
    // One that may not be read is an error of whoever opens it.
    return errno == ELOOP || errno == ENOTDIR ? Found::foreign : Found::partition;
  }
  struct stat found{};
  if (fstatat(fd.get(), PartitionDirectory::identity_name, &found, AT_SYMLINK_NOFOLLOW) == 0) {
    return Found::partition;
  }
  const auto names = names_in(fd.get(), path);
  const bool segments = std::ranges::any_of(
      names, [](const std::string& inside) { return offset_in(inside, segment_suffix).has_value(); });
  return segments ? Found::partition : Found::other;
}

std::vector<Partition> partitions_in(int archive, const std::string& topic, const std::string& path,
                                     Found wanted) {
  const Descriptor fd = open_directory(archive, topic, path);
  std::vector<Partition> partitions;
  for (const auto& name : names_in(fd.get(), path)) {
    const auto number = number_in(name, partitions_max - 1);
    if (number && name == std::to_string(*number) &&
        look_at_partition(fd.get(), name, path + "/" + name) == wanted) {
      partitions.emplace_back(static_cast<Partition::rep>(*number));
    }
  }
  std::ranges::sort(partitions);
  return partitions;
}

std::string path_below(std::string_view archive, std::string_view topic, Partition partition) {
  return fmt::format("{}/{}/{}", archive, topic, partition);
}

}  // namespace

int write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(written));
    } else if (written == 0 || errno != EINTR) {
      return written == 0 ? ENOSPC : errno;
    }
  }
  return 0;
}

ArchiveDirectory::ArchiveDirectory(std::string path)
    : path_(std::move(path)), fd_(::open(path_.c_str(), directory_flags)) {
  if (!fd_) {
    fail_at(ErrorKind::usage, "open the archive", path_);
  }
}

std::vector<std::string> ArchiveDirectory::topics() const {
  std::vector<std::string> topics;
  for (auto& name : names_in(fd_.get(), path_)) {
    struct stat found{};
    if (is_topic_name(name) && fstatat(fd_.get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(found.st_mode) && !partitions(name).empty()) {
      topics.push_back(std::move(name));
    }
  }
  return topics;
}

std::vector<Partition> ArchiveDirectory::partitions(std::string_view topic) const {
  return partitions_in(fd_.get(), std::string(topic), path_ + "/" + std::string(topic), Found::partition);
}

std::vector<Partition> ArchiveDirectory::foreign_partitions(std::string_view topic) const {
  return partitions_in(fd_.get(), std::string(topic), path_ + "/" + std::string(topic), Found::foreign);
}

Descriptor ArchiveDirectory::topic_directory(std::string_view topic) const {
  require_name("topic", topic);
  const std::string name(topic);
  return open_directory(fd_.get(), name, path_ + "/" + name);
}

Descriptor ArchiveDirectory::make_topic_directory(std::string_view topic) const {
  require_name("topic", topic);
  const std::string name(topic);
  return make_directory(fd_.get(), name, path_ + "/" + name);
}

PartitionDirectory::PartitionDirectory(std::string path, std::string_view topic, Partition partition)
    : path_(std::move(path)), topic_(topic), partition_(partition) {}

PartitionDirectory::PartitionDirectory(const ArchiveDirectory& archive, std::string_view topic,
                                       Partition partition)
    : PartitionDirectory(path_below(archive.path(), topic, partition), topic, partition) {
  const Descriptor above = archive.topic_directory(topic);
  fd_ = open_directory(above.get(), fmt::format("{}", partition), path_);
}

PartitionDirectory PartitionDirectory::create(const std::string& archive, std::string_view topic,
                                              Partition partition, std::string_view log_id) {
  require_name("topic", topic);
  check(is_archive_id(log_id), "a log id is 32 hex digits");
  PartitionDirectory made(path_below(archive, topic, partition), topic, partition);
  const Descriptor above = ArchiveDirectory(archive).make_topic_directory(topic);
  made.fd_ = make_directory(above.get(), fmt::format("{}", partition), made.path_);
  if (!made.identity()) {
    if (!made.contents().segments.empty()) {
      fail(ErrorKind::loss,
           "{} is missing, and there are segments: `continuum archive repair {}` makes it anew from them",
           printable(made.path_of(identity_name)), printable(archive));
    }
    made.write_identity({partition, std::string(log_id), random_id()});
  }
  return made;
}

std::optional<ArchiveIdentity> PartitionDirectory::identity() const {
  const Descriptor file(openat(fd_.get(), identity_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) {
    if (errno == ENOENT) {
      return std::nullopt;
    }
    fail_at(ErrorKind::usage, "open", path_of(identity_name));
  }
  std::array<char, identity_bytes_max> bytes{};
  const ssize_t size = read(file.get(), bytes.data(), bytes.size());
  if (size < 0) {
    fail_at(ErrorKind::server, "read", path_of(identity_name));
  }
  std::string_view rest(bytes.data(), static_cast<std::size_t>(size));
  const auto line = [&](std::string_view name) -> std::string_view {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view text = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return text.starts_with(name) ? text.substr(name.size()) : std::string_view();
  };
  const std::string_view version = line("continuum archive ");
  const std::string_view topic = line("topic ");
  const std::string_view partition = line("partition ");
  ArchiveIdentity identity{partition_, std::string(line("log ")), std::string(line("archive "))};
  if (version != "1" || !is_archive_id(identity.log_id) || !is_archive_id(identity.archive_id)) {
    fail(ErrorKind::loss,
         "{} is damaged, or of a newer version of continuum. If there are segments, move it away: `continuum "
         "archive repair` makes it anew from them",
         printable(path_of(identity_name)));
  }
  if (topic != topic_ || partition != fmt::format("{}", partition_)) {
    fail(
        ErrorKind::loss,
        "{} is the archive of topic {}, partition {}: it was moved or renamed. Move it back, or name another "
        "directory",
        printable(path_), printable(topic), printable(partition));
  }
  return identity;
}

void PartitionDirectory::write_identity(const ArchiveIdentity& identity) const {
  // A name of its own: nobody can hold the lock yet, and two may be at it.
  const std::string making = fmt::format("{}-{}", new_name, random_id());
  const std::string text = fmt::format("continuum archive 1\ntopic {}\npartition {}\nlog {}\narchive {}\n",
                                       topic_, partition_, identity.log_id, identity.archive_id);
  {
    const Descriptor file = open(making, Access::create);
    if (const int error = write_all(file.get(), text); error != 0) {
      remove(making);
      fail(ErrorKind::server, "cannot write {}: {}", printable(path_of(identity_name)), std::strerror(error));
    }
    if (fsync(file.get()) != 0) {
      fail_at(ErrorKind::server, "sync", path_of(identity_name));
    }
  }
  // Of two writers that begin at the same time the first one's identity stays; it may have tidied up by now.
  if (linkat(fd_.get(), making.c_str(), fd_.get(), identity_name, 0) != 0 && errno != EEXIST &&
      !(errno == ENOENT && exists(identity_name))) {
    fail_at(ErrorKind::server, "create", path_of(identity_name));
  }
  remove(making);
  sync();
}

namespace {

// nullopt when another process has it.
std::optional<Descriptor> try_lock(int directory, int open_flags, int lock, const std::string& path) {
  Descriptor file(
      openat(directory, PartitionDirectory::identity_name, open_flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) {
    fail_at(ErrorKind::usage, "open", path);
  }
  while (flock(file.get(), lock | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return std::nullopt;
    }
    if (errno != EINTR) {
      fail_at(ErrorKind::server, "lock", path);
    }
  }
  return file;
}

}  // namespace

std::optional<Descriptor> PartitionDirectory::lock() const {
  return try_lock(fd_.get(), O_RDWR, LOCK_EX, path_of(identity_name));
}

bool PartitionDirectory::is_locked() const {
  return !try_lock(fd_.get(), O_RDONLY, LOCK_SH, path_of(identity_name));
}

PartitionDirectory::Contents PartitionDirectory::contents() const {
  Contents contents;
  for (auto& name : names_in(fd_.get(), path_)) {
    if (const auto segment = offset_in(name, segment_suffix)) {
      contents.segments.push_back(*segment);
    } else if (const auto index = offset_in(name, index_suffix)) {
      contents.indexes.push_back(*index);
    } else if (name == new_name || name.starts_with(std::string(new_name) + "-")) {
      contents.unfinished.push_back(std::move(name));
    } else if (name != identity_name) {
      contents.foreign.push_back(std::move(name));
    }
  }
  return contents;
}

std::string PartitionDirectory::segment_name(Offset first) {
  return fmt::format("{:020}{}", first.value, segment_suffix);
}

std::string PartitionDirectory::index_name(Offset first) {
  return fmt::format("{:020}{}", first.value, index_suffix);
}

std::string PartitionDirectory::path_of(std::string_view name) const {
  return fmt::format("{}/{}", path_, name);
}

Descriptor PartitionDirectory::open(const std::string& name, Access access) const {
  // O_NONBLOCK: somebody may have put a pipe there.
  int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  flags |= access == Access::read ? O_RDONLY : O_RDWR | O_APPEND;
  flags |= access == Access::create ? O_CREAT | O_EXCL : 0;
  Descriptor file(openat(fd_.get(), name.c_str(), flags, file_mode));
  if (!file) {
    if (errno == ELOOP) {
      fail(ErrorKind::loss,
           "{} is a symbolic link: in an archive none is followed. Put the file itself there",
           printable(path_of(name)));
    }
    fail_at(errno == EACCES || errno == EPERM || errno == EROFS ? ErrorKind::usage : ErrorKind::server,
            access == Access::create ? "create" : "open", path_of(name));
  }
  struct stat found{};
  if (fstat(file.get(), &found) != 0 || !S_ISREG(found.st_mode)) {
    fail(ErrorKind::loss, "{} is not a regular file: move it away", printable(path_of(name)));
  }
  return file;
}

bool PartitionDirectory::exists(const std::string& name) const {
  struct stat found{};
  return fstatat(fd_.get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0;
}

void PartitionDirectory::remove(const std::string& name) const {
  if (unlinkat(fd_.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
    fail_at(ErrorKind::server, "remove", path_of(name));
  }
}

void PartitionDirectory::rename(const std::string& from, const std::string& to) const {
  if (renameat(fd_.get(), from.c_str(), fd_.get(), to.c_str()) != 0) {
    fail_at(ErrorKind::server, "rename to", path_of(to));
  }
}

void PartitionDirectory::sync() const {
  sync_directory(fd_.get(), path_);
}

}  // namespace continuum
