// The embedded server: a private redis-server on a unix socket in one directory.
//
// The directory is 0700, ours, and holds redis.sock, redis.log, redis.pid, redis.conf (written at each
// start), lock, and appendonlydir. The server outlives the command that started it: it is nobody's child and
// in nobody's session. However many processes start it at the same moment, one does, under the lock.
#pragma once

#include "continuum/redis.hpp"
#include "continuum/types.hpp"

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuum::local {

struct StartOptions {
  std::vector<std::string> environment;  // NAME=value: all that the server gets; PATH is not taken from here
  // Words in front of `redis-server redis.conf` that run it somewhere else, such as in a scope of the user's
  // systemd. When they fail it is started without them. Must end up as the same process (exec).
  std::vector<std::string> launcher;
  Milliseconds patience{30'000};  // until it answers
};

enum class Start : std::uint8_t { started, was_running };

struct Status {
  pid_t pid = 0;
  std::string version;
  std::uint64_t memory_bytes = 0;
  std::chrono::seconds uptime{0};
};

// `directory` is absolute here and below. Throws Error{usage} when the socket's path would be too long for
// the system.
[[nodiscard]] redis::Address address(const std::string& directory);

// Makes sure that the server runs and answers. Cheap when it does. Throws Error{usage} when the directory is
// not ours alone, something else is on the socket, or redis-server is missing or too old; Error{server} when
// it does not come up, with the end of its log.
Start start(const std::string& directory, const StartOptions& options);

// Ends the server and waits until it is gone. False when it did not run. Throws Error{server} when it
// refuses.
bool stop(const std::string& directory);

// nullopt when it does not run.
[[nodiscard]] std::optional<Status> status(const std::string& directory);

}  // namespace continuum::local
