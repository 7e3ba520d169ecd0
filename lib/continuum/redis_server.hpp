// What a server says of itself and of its refusals, and what we make of it. Private to the redis module.
#pragma once

#include "continuum/error.hpp"
#include "continuum/redis.hpp"

#include <optional>
#include <string_view>

namespace continuum::redis {

// Why a connection ended.
enum class Trouble : std::uint8_t {
  lost,      // reset, closed, timed out, refused
  waiting,   // the server says that it will be ready soon: LOADING, BUSY; or forgot our scripts
  refusing,  // the server takes no writes now: OOM, MISCONF, READONLY
  fatal,     // trying again cannot help
};

struct Lost {
  Trouble trouble;
  Error error;
};

// By the first word of an error answer. nullopt: it is an answer for the caller.
[[nodiscard]] std::optional<Trouble> trouble_of(std::string_view error);

// The server takes nothing that needs memory.
[[nodiscard]] bool is_full(std::string_view error);

// An error answer for a person, with what to do about it.
[[nodiscard]] Error explain(std::string_view error, const Address& address);

// The answers to INFO server, memory, persistence and replication, from replies[at] on. Throws Lost when this
// is no Redis.
[[nodiscard]] ServerFacts learn_facts(const Replies& replies, std::size_t at, const Address& address);

// Throws Lost for a server that is too old, or cannot keep the promises. Met again: a primary that became a
// replica may become a primary once more.
enum class Meeting : std::uint8_t { first, again };
void require_fit(const ServerFacts& facts, const Needs& needs, const Address& address, Meeting meeting);

}  // namespace continuum::redis
