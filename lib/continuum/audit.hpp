// Who changed what by hand, of each topic (formats: audit).
#pragma once

#include "continuum/log.hpp"
#include "continuum/redis.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace continuum {

inline constexpr std::uint64_t audit_entries_max = 10'000;  // older ones are forgotten

struct AuditEntry {
  EntryId id;  // when, by the server's clock; zero before it is stored
  // What destroys or moves something says so before and after: a "begun" without its "done" was killed, or
  // failed, on the way. What is refused says nothing.
  enum class Step : std::uint8_t { begun, done } step = Step::done;
  std::string who;   // USER@HOST
  std::string what;  // the command, without secrets
  std::string why;   // as its user says; may be empty
  std::string touched;
};

// All texts are cut at 1,000 bytes. Also a full server takes it.
void write_audit(redis::Session& session, std::string_view topic, const AuditEntry& entry);
// The last ones, oldest first.
[[nodiscard]] std::vector<AuditEntry> read_audit(redis::Session& session, std::string_view topic,
                                                 std::uint64_t last);

}  // namespace continuum
