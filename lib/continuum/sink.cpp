#include "continuum/sink.hpp"

#include "continuum/error.hpp"

#include <time.h>

#include <cstring>

namespace continuum {

BootClock::time_point BootClock::now() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return time_point(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
}

char* LocatedLine::write(char* out, Offset offset, std::string_view line) const {
  std::memcpy(out, begin_.data(), begin_.size());
  out += begin_.size();
  const fmt::format_int digits(offset.value);
  std::memcpy(out, digits.data(), digits.size());
  out += digits.size();
  *out++ = ',';
  // Without the brace, and without what may stand before it in an event that was published as it is.
  const std::size_t brace = line.find('{');
  const std::size_t from = brace == std::string_view::npos ? 0 : brace + 1;
  std::memcpy(out, line.data() + from, line.size() - from);
  out += line.size() - from;
  *out++ = '\n';
  return out;
}

void LocatedLine::append(std::string& out, Offset offset, std::string_view line) const {
  const std::size_t at = out.size();
  out.resize(at + line.size() + added_max());
  char* const end = write(out.data() + at, offset, line);
  out.resize(static_cast<std::size_t>(end - out.data()));
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
