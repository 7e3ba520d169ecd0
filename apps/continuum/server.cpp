#include "server.hpp"

#include "output.hpp"
#include "profile.hpp"

#include "continuum/error.hpp"
#include "continuum/local.hpp"
#include "continuum/names.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

extern char** environ;

namespace continuum::app {
namespace {

constexpr std::uint32_t partitions_of_new_topic = 8;

constexpr std::string_view local_scheme = "local:";
constexpr std::size_t password_bytes_max = 4096;

std::optional<std::string> environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? std::nullopt : std::optional<std::string>(value);
}

std::string read_password(const Context& context) {
  const auto& path = context.password_file;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    fail(ErrorKind::usage, "cannot read the password file {}: {}", path, std::strerror(errno));
  }
  struct stat found{};
  std::array<char, password_bytes_max + 1> text{};
  const bool known = fstat(fd, &found) == 0;
  const auto n = read(fd, text.data(), text.size());
  const int error = errno;
  close(fd);
  if (n < 0) {
    fail(ErrorKind::usage, "cannot read the password file {}: {}", path, std::strerror(error));
  }
  std::string password(text.data(), static_cast<std::size_t>(n));
  while (password.ends_with('\n') || password.ends_with('\r')) {
    password.pop_back();
  }
  if (password.empty() || password.size() > password_bytes_max) {
    fail(ErrorKind::usage, "the password file {} {}", path,
         password.empty() ? "is empty" : "is too long: one line with the password is expected");
  }
  if (known && S_ISREG(found.st_mode) && (found.st_mode & 077) != 0) {
    say(context, fmt::format("the password file {} is open to other users: `chmod 600 {}`", path, path));
  }
  return password;
}

// What the embedded server may know of ours: no secrets, and nothing that would change how it works.
std::vector<std::string> server_environment() {
  std::vector<std::string> kept;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    for (const std::string_view name :
         {"PATH=", "HOME=", "TZ=", "LANG=", "XDG_RUNTIME_DIR=", "DBUS_SESSION_BUS_ADDRESS="}) {
      if (text.starts_with(name)) {
        kept.emplace_back(text);
      }
    }
  }
  return kept;
}

// A unit's processes end with it; a scope of its own does not.
std::vector<std::string> launcher() {
  if (!environment("INVOCATION_ID")) {
    return {};
  }
  std::vector<std::string> words{"systemd-run", "--scope", "--quiet", "--collect"};
  if (geteuid() != 0) {
    words.insert(words.begin() + 1, "--user");
  }
  words.emplace_back("--");
  return words;
}

struct Choice {
  std::string url;
  std::string source;  // for messages
};

std::optional<Choice> chosen_server(const Context& context) {
  if (!context.redis_url.empty()) {
    return Choice{context.redis_url, "--redis"};
  }
  for (const auto* name : {"CONTINUUM_REDIS", "REDIS_URL"}) {
    if (auto url = environment(name)) {
      return Choice{std::move(*url), name};
    }
  }
  if (auto profile = read_profile(); profile.redis) {
    return Choice{std::move(*profile.redis), std::move(profile.path)};
  }
  return std::nullopt;
}

// Absolute; `named` may be empty.
std::string directory_of(std::string_view named) {
  std::filesystem::path path(named);
  if (named.empty()) {
    const auto state = environment("XDG_STATE_HOME");
    const auto home = environment("HOME");
    if (state && state->starts_with('/')) {  // the specification: a relative one is ignored
      path = *state;
    } else if (home && home->starts_with('/')) {
      path = std::filesystem::path(*home) / ".local/state";
    } else {
      fail(ErrorKind::usage,
           "HOME is not set, so there is no directory for the embedded server: name one with -u local:DIR");
    }
    path /= "continuum";
  }
  auto text = std::filesystem::absolute(path).lexically_normal().string();
  if (text.size() > 1 && text.ends_with('/')) {
    text.pop_back();
  }
  return text;
}

}  // namespace

void say(const Context& context, std::string_view text) {
  if (!context.quiet) {
    const auto line = fmt::format("continuum: {}\n", printable(text));
    std::fwrite(line.data(), 1, line.size(), stderr);
  }
}

void say_more(const Context& context, std::string_view text) {
  if (context.verbose) {
    say(context, text);
  }
}

redis::Address resolve_server(const Context& context) {
  const auto choice = chosen_server(context);
  if (!choice && !is_terminal(Stream::err)) {
    fail(ErrorKind::usage,
         "no server is named. Without a terminal one must be:\n"
         "-u URL, such as -u redis://HOST or -u unix:///run/redis/redis.sock\n"
         "CONTINUUM_REDIS=URL or REDIS_URL=URL in the environment\n"
         "-u local: for the embedded server (`continuum local start` starts it)");
  }
  if (!choice || choice->url.starts_with(local_scheme)) {
    const auto directory =
        directory_of(choice ? std::string_view(choice->url).substr(local_scheme.size()) : std::string_view());
    ensure_local(context, directory);
    auto embedded = local::address(directory);
    embedded.embedded = true;
    return embedded;
  }
  redis::Address address;
  try {
    address = redis::Address::parse(choice->url);
  } catch (const Error& error) {
    fail(error.kind(), "{}: {}", choice->source, error.message());
  }
  if (address.password.empty() && !context.password_file.empty()) {
    address.password = read_password(context);
  } else if (address.password.empty()) {
    address.password = environment("REDISCLI_AUTH").value_or("");
  }
  return address;
}

std::unique_ptr<redis::Session> connect(const Context& context, redis::ClientOptions options) {
  if (context.allow_eviction) {
    options.needs.eviction = redis::Needs::Eviction::allow;
  }
  if (!options.notice) {
    options.notice = [&context](const std::string& text) { say(context, text); };
  }
  return std::make_unique<redis::Session>(resolve_server(context), std::move(options));
}

std::unique_ptr<redis::Session> connect(const Context& context, redis::Needs::Access access) {
  redis::ClientOptions options;
  options.needs.access = access;
  return connect(context, std::move(options));
}

void warn_of_loss(const Context& context, const redis::Session& session) {
  const auto& facts = session.facts();
  const auto at = session.address().text();
  if (!facts.append_only_file) {
    say(context,
        fmt::format("{} has no append-only file: events since its last snapshot are lost when it stops "
                    "(appendonly yes keeps them)",
                    at));
  }
  if (facts.eviction.starts_with("volatile-")) {
    say(context,
        fmt::format("{} may evict the state of unnamed producers when it is full (maxmemory-policy {}): a "
                    "retry could then store an event twice",
                    at, facts.eviction));
  }
}

Topic topic_to_write_to(const Context& context, redis::Session& session, std::string_view name,
                        MissingTopic missing) {
  if (missing == MissingTopic::refuse && !session.address().embedded) {
    return load_topic(session, name);
  }
  if (auto topic = find_topic(session, name)) {
    return *topic;
  }
  if (create_topic(session, name, RingDescription::uniform(partitions_of_new_topic), {}) ==
      Created::created) {
    say(context, fmt::format("created topic {} with {} partitions", name, partitions_of_new_topic));
  }
  return load_topic(session, name);
}

std::string local_directory(const Context& context, std::string_view named) {
  if (named.empty()) {
    if (const auto choice = chosen_server(context); choice && choice->url.starts_with(local_scheme)) {
      return directory_of(std::string_view(choice->url).substr(local_scheme.size()));
    }
  }
  return directory_of(named);
}

bool ensure_local(const Context& context, const std::string& directory) {
  local::StartOptions options;
  options.environment = server_environment();
  options.launcher = launcher();
  if (local::start(directory, options) == local::Start::was_running) {
    return false;
  }
  const auto status = local::status(directory);
  say(context, fmt::format("started redis-server {} on {} (`continuum local stop` ends it)",
                           status ? status->version : "", local::address(directory).text()));
  return true;
}

}  // namespace continuum::app
