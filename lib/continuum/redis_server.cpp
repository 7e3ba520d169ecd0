#include "continuum/redis_server.hpp"

#include <cstdlib>
#include <string>

namespace continuum::redis {
namespace {

std::string info_value(std::string_view info, std::string_view name) {
  std::size_t at = 0;
  while (at < info.size()) {
    auto end = info.find('\n', at);
    end = end == std::string_view::npos ? info.size() : end;
    std::string_view line = info.substr(at, end - at);
    if (line.ends_with('\r')) {
      line.remove_suffix(1);
    }
    if (line.size() > name.size() && line.starts_with(name) && line[name.size()] == ':') {
      return std::string(line.substr(name.size() + 1));
    }
    at = end + 1;
  }
  return {};
}

}  // namespace

std::optional<Trouble> trouble_of(std::string_view error) {
  const auto code = error.substr(0, error.find(' '));
  for (const std::string_view c : {"LOADING", "BUSY", "NOSCRIPT", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN"}) {
    if (code == c) {
      return Trouble::waiting;
    }
  }
  for (const std::string_view c : {"OOM", "MISCONF", "READONLY", "NOREPLICAS", "UNBLOCKED"}) {
    if (code == c) {
      return Trouble::refusing;
    }
  }
  for (const std::string_view c : {"NOAUTH", "WRONGPASS", "NOPERM"}) {
    if (code == c) {
      return Trouble::fatal;
    }
  }
  // Said before the connection is closed again.
  if (error.starts_with("ERR max number of clients")) {
    return Trouble::waiting;
  }
  return std::nullopt;
}

bool is_full(std::string_view error) {
  return error.starts_with("OOM ");
}

Error explain(std::string_view error, const Address& address) {
  const auto code = error.substr(0, error.find(' '));
  const auto at = address.text();
  const auto say = [&](ErrorKind kind, std::string_view what) {
    return Error(kind, fmt::format("{} {} (it answered: {})", at, what, error.substr(0, 300)));
  };
  if (code == "NOAUTH") {
    return say(ErrorKind::usage,
               "wants a password: set REDISCLI_AUTH, give --password-file FILE, or put it into the URL");
  }
  if (code == "WRONGPASS") {
    return say(ErrorKind::usage, "refused the user name or password");
  }
  if (code == "NOPERM") {
    return say(ErrorKind::usage,
               "does not allow this user what Continuum needs: docs/operations.md has the ACL rule");
  }
  if (code == "LOADING") {
    return say(ErrorKind::server, "is still loading its data: try again in a moment");
  }
  if (error.starts_with("ERR max number of clients")) {
    return say(ErrorKind::server, "has as many clients as it allows (maxclients)");
  }
  if (code == "BUSY") {
    return say(ErrorKind::server, "is busy with somebody's script: see SCRIPT KILL");
  }
  if (code == "OOM") {
    return say(ErrorKind::server, "is full (maxmemory) and takes no writes: raise maxmemory or trim");
  }
  if (code == "MISCONF") {
    return say(ErrorKind::server,
               "takes no writes because it cannot write its own files: look at its disk and log");
  }
  if (code == "READONLY") {
    return say(ErrorKind::server, "is a replica and takes no writes: name its primary");
  }
  if (code == "NOSCRIPT") {
    return say(ErrorKind::server, "keeps forgetting our scripts: does something call SCRIPT FLUSH?");
  }
  if (code == "WRONGTYPE") {
    return say(ErrorKind::usage, "has a key named continuum:… that is not ours: look with `redis-cli TYPE`");
  }
  return say(ErrorKind::server, "refused a command");
}

ServerFacts learn_facts(const Replies& replies, std::size_t at, const Address& address) {
  ServerFacts facts;
  const auto server = replies[at].text();
  facts.version = info_value(server, "redis_version");
  if (const auto valkey = info_value(server, "valkey_version"); !valkey.empty()) {
    facts.name = "Valkey";
    facts.version = valkey;
  }
  if (facts.version.empty()) {
    throw Lost{Trouble::fatal,
               Error(ErrorKind::usage,
                     fmt::format("{} does not say its version in INFO: is it Redis?", address.text()))};
  }
  facts.eviction = info_value(replies[at + 1].text(), "maxmemory_policy");
  facts.append_only_file = info_value(replies[at + 2].text(), "aof_enabled") == "1";
  const auto replication = replies[at + 3].text();
  facts.replica = info_value(replication, "role") == "slave";
  if (facts.replica) {
    facts.master = info_value(replication, "master_host") + ":" + info_value(replication, "master_port");
  }
  return facts;
}

void require_fit(const ServerFacts& facts, const Needs& needs, const Address& address, Meeting meeting) {
  const auto refuse = [](Trouble trouble, ErrorKind kind, std::string why) {
    throw Lost{trouble, Error(kind, std::move(why))};
  };
  if (std::atoi(facts.version.c_str()) < 7) {
    refuse(Trouble::fatal, ErrorKind::usage,
           fmt::format("{} is {} {}; Continuum needs Redis 7.0 or later, or Valkey", address.text(),
                       facts.name, facts.version));
  }
  if (needs.access == Needs::Access::read) {
    return;
  }
  if (facts.replica) {
    refuse(meeting == Meeting::first ? Trouble::fatal : Trouble::refusing, ErrorKind::server,
           fmt::format("{} is a replica of {} and takes no writes: name the primary", address.text(),
                       facts.master));
  }
  if (facts.eviction.starts_with("allkeys-") && needs.eviction == Needs::Eviction::refuse) {
    refuse(Trouble::fatal, ErrorKind::usage,
           fmt::format("{} evicts any key when it is full (maxmemory-policy {}), and would lose events: "
                       "set it to noeviction or volatile-lru, or give --allow-eviction",
                       address.text(), facts.eviction));
  }
}

}  // namespace continuum::redis
