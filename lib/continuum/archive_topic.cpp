#include "continuum/archive_topic.hpp"

#include "continuum/archive_format.hpp"
#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

namespace continuum {

namespace {

constexpr std::string_view version_line = "continuum topic 1";
constexpr std::string_view version_name = "continuum topic ";
// A ring has a few bytes for each partition, and there are not many generations.
constexpr std::size_t bytes_max = std::size_t{16} << 20;
constexpr mode_t file_mode = 0640;

std::string path_in(const ArchiveDirectory& archive, std::string_view topic) {
  return fmt::format("{}/{}/{}", archive.path(), topic, archived_topic_name);
}

[[noreturn]] void fail_at(ErrorKind kind, std::string_view doing, std::string_view path) {
  const int error = errno;
  fail(kind, "cannot {} {}: {}", doing, printable(path), std::strerror(error));
}

std::string hash_line(std::string_view text) {
  return fmt::format("hash {:016x}\n", archive_hash(text));
}

std::string text_of(const Topic& topic) {
  std::string text = fmt::format("{}\ntopic {}\nlog {}\ncreated {}\n", version_line, topic.name, topic.log_id,
                                 topic.created.time_since_epoch().count());
  text += fmt::format("set frames={}\nset event_bytes_max={}\n", name_of(topic.settings.frames),
                      topic.settings.event_bytes_max);
  for (const auto& [name, value] : texts_of_limits(topic.settings)) {
    text += fmt::format("set {}={}\n", name, value);
  }
  text += fmt::format("active {}\n", topic.active);
  for (const auto& [generation, ring] : topic.rings) {
    text += fmt::format("ring {} {}\n", generation, ring.text());
  }
  return text + hash_line(text);
}

// nullopt when there is none.
std::optional<std::string> bytes_of(int directory, const std::string& path) {
  const Descriptor file(openat(directory, std::string(archived_topic_name).c_str(),
                               O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) {
    if (errno == ENOENT) {
      return std::nullopt;
    }
    if (errno == ELOOP) {
      fail(ErrorKind::loss,
           "{} is a symbolic link: in an archive none is followed. Put the file itself there",
           printable(path));
    }
    fail_at(ErrorKind::usage, "open", path);
  }
  struct stat found{};
  if (fstat(file.get(), &found) != 0 || !S_ISREG(found.st_mode)) {
    fail(ErrorKind::loss, "{} is not a regular file: move it away", printable(path));
  }
  std::string bytes(std::min<std::size_t>(static_cast<std::size_t>(found.st_size), bytes_max), '\0');
  std::size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got = read(file.get(), bytes.data() + have, bytes.size() - have);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      fail_at(ErrorKind::server, "read", path);
    }
    if (got == 0) {
      break;
    }
    have += static_cast<std::size_t>(got);
  }
  bytes.resize(have);
  return bytes;
}

// Takes lines off the front.
class Lines {
 public:
  explicit Lines(std::string_view rest) : rest_(rest) {}
  // What stands behind `name` when that begins the next line; else nothing is taken.
  std::optional<std::string_view> take(std::string_view name) {
    const std::size_t end = rest_.find('\n');
    if (end == std::string_view::npos || !rest_.starts_with(name)) {
      return std::nullopt;
    }
    const std::string_view value = rest_.substr(name.size(), end - name.size());
    rest_.remove_prefix(end + 1);
    return value;
  }
  std::optional<std::uint64_t> take_number(std::string_view name) {
    const auto text = take(name);
    return text ? number_in(*text) : std::nullopt;
  }
  [[nodiscard]] bool empty() const { return rest_.empty(); }

  static std::optional<std::uint64_t> number_in(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() && value <= number_max
               ? std::optional(value)
               : std::nullopt;
  }

 private:
  std::string_view rest_;
};

std::optional<Generation> generation_in(std::optional<std::uint64_t> number) {
  return number && *number >= 1 && *number <= UINT32_MAX
             ? std::optional(Generation(static_cast<Generation::rep>(*number)))
             : std::nullopt;
}

// False when it is not what its grammar says.
bool parse_body(Lines lines, Topic& topic) {
  const auto name = lines.take("topic ");
  const auto log = lines.take("log ");
  const auto created = lines.take_number("created ");
  if (!name || !log || !is_archive_id(*log) || !created) {
    return false;
  }
  topic.name = *name;
  topic.log_id = *log;
  topic.created = SystemTime(Milliseconds(static_cast<std::int64_t>(*created)));
  while (const auto setting = lines.take("set ")) {
    apply_setting(topic.settings, *setting);
  }
  const auto active = generation_in(lines.take_number("active "));
  while (const auto ring = lines.take("ring ")) {
    const auto blank = ring->find(' ');
    const auto generation = generation_in(Lines::number_in(ring->substr(0, blank)));
    if (!generation || blank == std::string_view::npos) {
      return false;
    }
    topic.rings.emplace(*generation, RingDescription::parse(ring->substr(blank + 1)));
  }
  topic.active = active.value_or(Generation(0));
  return lines.empty() && topic.rings.contains(topic.active) &&
         topic.rings.rbegin()->first.value - topic.rings.begin()->first.value <
             topic.rings.size() + unknown_generations_max;
}

Topic parse(std::string_view bytes, std::string_view name, const std::string& path) {
  const auto damaged = [&]() {
    fail(ErrorKind::loss,
         "{} is damaged. Put a copy of it in its place; while the topic is there, `continuum work --archive` "
         "makes it anew",
         printable(path));
  };
  const std::size_t at = bytes.rfind("hash ");
  if (at == std::string_view::npos || bytes.substr(at) != hash_line(bytes.substr(0, at))) {
    damaged();
  }
  Lines lines(bytes.substr(0, at));
  if (lines.take(version_name) != version_line.substr(version_name.size())) {
    fail(ErrorKind::usage, "{} was written by a newer version of Continuum: update", printable(path));
  }
  Topic topic;
  try {
    if (!parse_body(lines, topic)) {
      damaged();
    }
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::usage) {
      throw;
    }
    fail(ErrorKind::usage, "{}: {}. Was it written by a newer version of Continuum?", printable(path),
         error.message());
  }
  if (topic.name != name) {
    fail(ErrorKind::loss, "{} is that of topic {}: it was moved or renamed. Move it back", printable(path),
         printable(topic.name));
  }
  return topic;
}

// nullopt: it is damaged.
std::optional<Topic> parse_sound(std::string_view bytes, std::string_view name, const std::string& path) {
  try {
    return parse(bytes, name, path);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::loss) {
      throw;
    }
    return std::nullopt;
  }
}

void replace(int directory, const std::string& text, const std::string& path) {
  const std::string making = fmt::format("{}-new", archived_topic_name);
  if (unlinkat(directory, making.c_str(), 0) != 0 && errno != ENOENT) {
    fail_at(ErrorKind::server, "remove what a crash left beside", path);
  }
  {
    const Descriptor file(
        openat(directory, making.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, file_mode));
    if (!file) {
      fail_at(errno == EACCES || errno == EPERM || errno == EROFS ? ErrorKind::usage : ErrorKind::server,
              "create", path);
    }
    const int error = write_all(file.get(), text);
    if (error != 0 || fsync(file.get()) != 0) {
      const int why = error != 0 ? error : errno;
      (void)unlinkat(directory, making.c_str(), 0);
      fail(ErrorKind::server, "cannot write {}: {}", printable(path), std::strerror(why));
    }
  }
  if (renameat(directory, making.c_str(), directory, std::string(archived_topic_name).c_str()) != 0) {
    fail_at(ErrorKind::server, "create", path);
  }
  if (fsync(directory) != 0 && errno != EINVAL) {
    fail_at(ErrorKind::server, "sync the directory of", path);
  }
}

}  // namespace

std::optional<Topic> read_archived_topic(const ArchiveDirectory& archive, std::string_view topic) {
  const std::string path = path_in(archive, topic);
  const Descriptor directory = archive.topic_directory(topic);
  const auto bytes = bytes_of(directory.get(), path);
  return bytes ? std::optional(parse(*bytes, topic, path)) : std::nullopt;
}

void write_archived_topic(const ArchiveDirectory& archive, const Topic& topic) {
  const std::string path = path_in(archive, topic.name);
  const Descriptor directory = archive.make_topic_directory(topic.name);
  // Until it is closed. Held for moments only.
  while (flock(directory.get(), LOCK_EX) != 0) {
    if (errno != EINTR) {
      fail_at(ErrorKind::server, "lock the directory of", path);
    }
  }
  const std::string text = text_of(topic);
  if (const auto bytes = bytes_of(directory.get(), path)) {
    const auto there = parse_sound(*bytes, topic.name, path);
    if (there && there->log_id != topic.log_id) {
      fail(ErrorKind::loss,
           "{} is of log {}, and topic {} now has log {}: the topic was dropped and created anew, or it is "
           "another server's. Name another directory for --archive",
           printable(path), there->log_id, topic.name, topic.log_id);
    }
    if (*bytes == text || (there && there->active > topic.active)) {
      return;
    }
  }
  replace(directory.get(), text, path);
}

}  // namespace continuum
