#include "continuum/sink.hpp"

#include "continuum/error.hpp"
#include "continuum/replay.hpp"

#include <time.h>

#include <cstring>

namespace continuum {

BootClock::time_point BootClock::now() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return time_point(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
}

namespace {

// Without the brace, and without what may stand before it in an event that was published as it is.
std::string_view members_of(std::string_view line) {
  const std::size_t brace = line.find('{');
  line.remove_prefix(brace == std::string_view::npos ? 0 : brace + 1);
  return line;
}

char* put(char* out, std::string_view bytes) {
  std::memcpy(out, bytes.data(), bytes.size());
  return out + bytes.size();
}

}  // namespace

char* LocatedLine::write(char* out, Offset offset, std::string_view line) const {
  const fmt::format_int digits(offset.value);
  out = put(out, begin_);
  out = put(out, {digits.data(), digits.size()});
  *out++ = ',';
  out = put(out, members_of(line));
  *out++ = '\n';
  return out;
}

void LocatedLine::append(std::string& out, Offset offset, std::string_view line) const {
  const fmt::format_int digits(offset.value);
  out.append(begin_).append(digits.data(), digits.size()) += ',';
  out.append(members_of(line)) += '\n';
}

FetchedEntry entry_of(const EventRun& run) {
  FetchedEntry fetched;
  auto lines = std::make_shared<const std::string>(run.lines);
  fetched.entry.id = run.entry;
  fetched.entry.first = run.first;
  fetched.entry.events = run.events;
  fetched.entry.generation = run.generation;
  fetched.entry.frame = *lines;
  fetched.storage = std::move(lines);
  return fetched;
}

void decode_entry(const FetchedEntry& fetched, std::string_view topic, Partition partition,
                  std::string& lines) {
  thread_local FrameDecoder decoder;
  const Entry& entry = fetched.entry;
  try {
    decoder.decode(entry.encoding, entry.frame, entry.events, lines);
  } catch (const Error& error) {
    throw Error(error.kind(),
                fmt::format("{}, offsets {} to {} (entry {}): {}", place(topic, partition), entry.first,
                            entry.next().value - 1, entry.id.text(), error.message()));
  }
}

}  // namespace continuum
