#include "continuum/lease.hpp"

#include "continuum/error.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

namespace continuum {

namespace {

constexpr std::size_t error_bytes_max = 500;

// The part of `text` that is stored: not cut inside of a UTF-8 sequence.
std::string_view bounded(std::string_view text) {
  if (text.size() <= error_bytes_max) {
    return text;
  }
  std::size_t end = error_bytes_max;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) {
    --end;
  }
  return text.substr(0, end);
}

[[noreturn]] void damaged(std::string_view field) {
  fail(ErrorKind::loss,
       "the state of the group has a field \"{}\" that is missing or out of bounds: something else wrote to "
       "its key",
       field);
}

std::uint64_t number_in(std::string_view text, std::string_view field, std::uint64_t max = number_max) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value > max) {
    damaged(field);
  }
  return value;
}

Generation generation_in(std::string_view text, std::string_view field) {
  return Generation(
      static_cast<Generation::rep>(number_in(text, field, std::numeric_limits<Generation::rep>::max())));
}

Milliseconds milliseconds_in(std::string_view text, std::string_view field) {
  return Milliseconds(static_cast<Milliseconds::rep>(number_in(text, field)));
}

EntryId entry_in(std::string_view text, std::string_view field) {
  const auto id = EntryId::parse(text);
  if (!id) {
    damaged(field);
  }
  return *id;
}

[[noreturn]] void not_understood(std::string_view script, std::string_view answer) {
  fail(ErrorKind::server, "the server answered \"{}\" to {}, which this version does not understand",
       answer.substr(0, 40), script);
}

}  // namespace

Import Import::parse(std::string_view text) {
  Import import;
  if (text.empty()) {
    return import;
  }
  const auto blank = text.find(' ');
  import.generation = generation_in(text.substr(0, blank), "import");
  if (blank == std::string_view::npos) {
    return import;
  }
  const auto rest = text.substr(blank + 1);
  const auto second = std::min(rest.find(' '), rest.size());
  import.donor =
      Partition(static_cast<Partition::rep>(number_in(rest.substr(0, second), "import", partitions_max - 1)));
  import.last = entry_in(rest.substr(std::min(second + 1, rest.size())), "import");
  return import;
}

std::string Import::text() const {
  if (generation == Generation(0)) {
    return {};
  }
  return donor ? fmt::format("{} {} {}", generation, *donor, last.text()) : fmt::to_string(generation.value);
}

std::optional<GroupState> parse_group(redis::Reply reply) {
  if (reply.size() == 0) {
    return std::nullopt;
  }
  const auto required = [&](std::string_view name) {
    const auto value = reply.field(name);
    if (!value) {
      damaged(name);
    }
    return *value;
  };
  // What only a worker writes is absent until the first one came.
  const auto optional = [&](std::string_view name, std::string_view otherwise) {
    return reply.field(name).value_or(otherwise);
  };
  GroupState state;
  state.cursor.offset = Offset(number_in(required("offset"), "offset"));
  state.cursor.entry = entry_in(required("entry"), "entry");
  state.number = number_in(required("number"), "number");
  state.passed = generation_in(required("passed"), "passed");
  state.from = generation_in(required("from"), "from");
  state.reached = generation_in(optional("reached", "0"), "reached");
  state.import = Import::parse(optional("import", ""));
  state.owner = required("owner");
  state.who = optional("who", "");
  state.fence = Fence(number_in(required("fence"), "fence"));
  state.beat = number_in(required("beat"), "beat");
  state.ttl = milliseconds_in(optional("ttl", "0"), "ttl");
  state.state = optional("state", "");
  state.at = Offset(number_in(optional("at", "0"), "at"));
  state.since = SystemTime(milliseconds_in(optional("since", "0"), "since"));
  state.attempt = static_cast<std::uint32_t>(
      number_in(optional("attempt", "0"), "attempt", std::numeric_limits<std::uint32_t>::max()));
  state.error = optional("error", "");
  state.handler = optional("handler", "");
  state.busy_permille = static_cast<std::uint32_t>(number_in(optional("busy", "0"), "busy", 1000));
  state.paused = optional("paused", "");
  state.run = number_in(optional("run", "1"), "run");
  state.outbox = number_in(optional("outbox", "0"), "outbox");
  state.handlers = optional("handlers", "");
  state.moved = SystemTime(milliseconds_in(optional("moved", "0"), "moved"));
  return state;
}

void request_acquire(redis::Request& request, std::string_view key, const LeaseHolder& me,
                     const std::optional<Held>& seen) {
  request.run(redis::Script::acquire, {key}, me.owner, seen ? seen->fence : "", seen ? seen->beat : "",
              me.ttl.count(), me.who);
}

std::variant<Acquired, Held, NotRegistered> parse_acquire(redis::Reply reply) {
  const std::string_view code = reply[0].text();
  if (code == "NOGROUP") {
    return NotRegistered{};
  }
  if (code == "HELD") {
    Held held;
    held.owner = reply[1].text();
    held.fence = reply[2].text();
    held.beat = reply[3].text();
    held.ttl = milliseconds_in(reply[4].text(), "ttl");
    held.who = reply[5].text();
    return held;
  }
  if (code != "OK") {
    not_understood("acquire", code);
  }
  Acquired acquired;
  acquired.fence = Fence(number_in(reply[1].text(), "fence"));
  acquired.number = number_in(reply[2].text(), "number");
  acquired.cursor.offset = Offset(number_in(reply[3].text(), "offset"));
  acquired.cursor.entry = entry_in(reply[4].text(), "entry");
  acquired.passed = generation_in(reply[5].text(), "passed");
  acquired.from = generation_in(reply[6].text(), "from");
  acquired.import = Import::parse(reply[7].text());
  return acquired;
}

void request_renew(redis::Request& request, std::string_view group_key, std::string_view meta_key,
                   Fence fence, std::string_view log_id, const Doing& doing) {
  request.run(redis::Script::renew, {group_key, meta_key}, fence, log_id, doing.state, doing.handler,
              doing.at, doing.since.time_since_epoch().count(), doing.attempt, bounded(doing.error),
              doing.busy_permille, doing.handlers);
}

Milliseconds margin_of(Milliseconds ttl) {
  return std::min(ttl / 10, Milliseconds(500));
}

void request_release(redis::Request& request, std::string_view group_key, Fence fence) {
  request.run(redis::Script::release, {group_key}, fence);
}

namespace {

// The refusals that renew and commit have in common.
std::optional<Kept> refusal_of(std::string_view code) {
  if (code == "FENCED") {
    return Kept::fenced;
  }
  if (code == "NOGROUP") {
    return Kept::not_registered;
  }
  if (code == "NOLOG") {
    return Kept::no_log;
  }
  return std::nullopt;
}

}  // namespace

Renewed parse_renew(redis::Reply reply) {
  const std::string_view code = reply[0].text();
  if (code == "OK") {
    return {Kept::ok, Offset(number_in(reply[1].text(), "next")), number_in(reply[2].text(), "requests"),
            std::string(reply[3].text()), generation_in(reply[4].text(), "gen")};
  }
  if (const auto refusal = refusal_of(code)) {
    return {*refusal, Offset(), 0, {}, Generation()};
  }
  not_understood("renew", code);
}

Kept parse_commit(redis::Reply reply) {
  const std::string_view code = reply[0].text();
  if (code == "OK" || code == "ALREADY") {
    return Kept::ok;
  }
  if (code == "CONFLICT") {
    return Kept::conflict;
  }
  if (const auto refusal = refusal_of(code)) {
    return *refusal;
  }
  not_understood("commit", code);
}

}  // namespace continuum
