// What all commands share: the options that name a server, and the way to it.
#pragma once

#include "continuum/redis.hpp"
#include "continuum/topic.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace continuum::app {

struct Context {
  std::string redis_url;      // -u, --redis
  std::string password_file;  // --password-file
  bool allow_eviction = false;
  bool json = false;
  bool quiet = false;
  bool verbose = false;
  std::function<int()> body;  // set by run_with()
};

// For a person, on stderr, as one line `continuum: TEXT`. say() is silent with -q, say_more() without -v.
void say(const Context& context, std::string_view text);
void say_more(const Context& context, std::string_view text);

// Flag, then CONTINUUM_REDIS, REDIS_URL, the profile, else the embedded server, which is started when it is
// named or a person is there. Throws Error{usage} with the ways to name a server otherwise.
[[nodiscard]] redis::Address resolve_server(const Context& context);

// connect() to that server. needs.eviction and notice are filled in from the context; the rest of `options`
// is the command's.
[[nodiscard]] std::unique_ptr<redis::Session> connect(const Context& context, redis::ClientOptions options);
[[nodiscard]] std::unique_ptr<redis::Session> connect(const Context& context, redis::Needs::Access access);

// Says what this server may lose by its configuration. For commands that store.
void warn_of_loss(const Context& context, const redis::Session& session);

// The topic that events are to be stored in. One that does not exist is created on an embedded server, or
// when that is asked for; else throws Error{usage} with the nearest name.
enum class MissingTopic : std::uint8_t { refuse, create };
[[nodiscard]] Topic topic_to_write_to(const Context& context, redis::Session& session, std::string_view name,
                                      MissingTopic missing);

// The directory of the embedded server, absolute: `named`, else that of the local: server which the flag, the
// environment or the profile names, else continuum/ in the user's state directory.
[[nodiscard]] std::string local_directory(const Context& context, std::string_view named);
// Starts the embedded server and says so. False when it ran already.
bool ensure_local(const Context& context, const std::string& directory);

}  // namespace continuum::app
