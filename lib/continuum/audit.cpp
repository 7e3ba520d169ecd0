#include "continuum/audit.hpp"

#include "continuum/error.hpp"

#include <algorithm>

namespace continuum {

namespace {

constexpr std::size_t text_bytes_max = 1000;

std::string_view bounded(std::string_view text) {
  std::size_t end = std::min(text.size(), text_bytes_max);
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) {
    --end;  // not inside of a UTF-8 sequence
  }
  return text.substr(0, end);
}

}  // namespace

void write_audit(redis::Session& session, std::string_view topic, const AuditEntry& entry) {
  redis::Request request;
  request.run(redis::Script::audit, {audit_key(topic)}, audit_entries_max, "step",
              entry.step == AuditEntry::Step::begun ? "begun" : "done", "who", bounded(entry.who), "what",
              bounded(entry.what), "why", bounded(entry.why), "touched", bounded(entry.touched));
  (void)session.call(std::move(request));
}

std::vector<AuditEntry> read_audit(redis::Session& session, std::string_view topic, std::uint64_t last) {
  redis::Request request;
  request.command("XREVRANGE", audit_key(topic), "+", "-", "COUNT", last);
  const redis::Replies replies = session.call(std::move(request));
  std::vector<AuditEntry> entries;
  for (std::size_t i = replies[0].size(); i-- > 0;) {
    const redis::Reply reply = replies[0][i];
    const redis::Reply fields = reply[1];
    const auto text = [&](std::string_view name) { return std::string(fields.field(name).value_or("")); };
    AuditEntry entry;
    entry.id = EntryId::parse(reply[0].text()).value_or(EntryId{});
    entry.step = text("step") == "begun" ? AuditEntry::Step::begun : AuditEntry::Step::done;
    entry.who = text("who");
    entry.what = text("what");
    entry.why = text("why");
    entry.touched = text("touched");
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace continuum
