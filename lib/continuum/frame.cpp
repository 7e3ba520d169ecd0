#include "continuum/frame.hpp"

#include "continuum/error.hpp"

#include <zstd.h>

#include <algorithm>
#include <array>
#include <numeric>

namespace continuum {

namespace {

// Below this a frame's header and checksum eat what compression saves, and plain lines can be read by eye.
constexpr std::size_t compress_from_bytes = 1024;

// RFC 8878 section 3.1.1: the magic number, then the frame header descriptor with its flags.
constexpr std::size_t descriptor_at = 4;
constexpr unsigned checksum_flag = 1U << 2U;

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

void set(ZSTD_CCtx* context, ZSTD_cParameter parameter, int value) {
  check(ZSTD_isError(ZSTD_CCtx_setParameter(context, parameter, value)) == 0, "zstd takes its settings");
}

// The size of the lines that a zstd frame says it holds.
std::size_t content_bytes_of(std::string_view frame) {
  const unsigned long long size = ZSTD_getFrameContentSize(frame.data(), frame.size());
  if (size == ZSTD_CONTENTSIZE_ERROR) {
    fail(ErrorKind::loss, "the frame is damaged: its {} bytes do not begin a zstd frame", frame.size());
  }
  if (size == ZSTD_CONTENTSIZE_UNKNOWN) {
    fail(ErrorKind::loss, "the frame is damaged: its zstd header has no content size");
  }
  if (size > frame_bytes_max) {
    fail(ErrorKind::loss, "the frame is damaged: it says that it holds {} bytes, over the limit of {}", size,
         frame_bytes_max);
  }
  if ((static_cast<unsigned char>(frame[descriptor_at]) & checksum_flag) == 0) {
    fail(ErrorKind::loss, "the frame is damaged: its zstd header has no checksum flag");
  }
  const std::size_t end = ZSTD_findFrameCompressedSize(frame.data(), frame.size());
  if (ZSTD_isError(end) != 0) {
    fail(ErrorKind::loss, "the frame is damaged or truncated after {} bytes: {}", frame.size(),
         ZSTD_getErrorName(end));
  }
  if (end != frame.size()) {
    fail(ErrorKind::loss, "the frame is damaged: {} bytes follow the end of its zstd frame",
         frame.size() - end);
  }
  return static_cast<std::size_t>(size);
}

// std::count widens each byte to 64 bits; counters of one byte are added four times as fast.
std::size_t count_newlines(std::string_view lines) {
  constexpr std::size_t lanes = 32;
  constexpr std::size_t rounds_max = 255;  // what a counter of one byte can hold
  std::size_t found = 0;
  const char* at = lines.data();
  const char* const end = at + lines.size();
  while (static_cast<std::size_t>(end - at) >= lanes) {
    const std::size_t rounds = std::min(rounds_max, static_cast<std::size_t>(end - at) / lanes);
    std::array<std::uint8_t, lanes> counters{};
    for (std::size_t round = 0; round < rounds; ++round, at += lanes) {
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        counters[lane] = static_cast<std::uint8_t>(counters[lane] + (at[lane] == '\n' ? 1 : 0));
      }
    }
    found += std::accumulate(counters.begin(), counters.end(), std::size_t{0});
  }
  return found + static_cast<std::size_t>(std::count(at, end, '\n'));
}

void check_lines(std::string_view lines, std::uint32_t events) {
  if (lines.empty()) {
    fail(ErrorKind::loss, "the frame is damaged: it is empty, {} events expected", events);
  }
  if (lines.back() != '\n') {
    fail(ErrorKind::loss, "the frame is damaged or truncated: no newline at the end of its {} bytes",
         lines.size());
  }
  const std::size_t found = count_newlines(lines);
  if (found != events) {
    fail(ErrorKind::loss, "the frame is damaged: it holds {} lines, {} events expected", found, events);
  }
}

}  // namespace

struct FrameEncoder::Impl {
  std::unique_ptr<ZSTD_CCtx, FreeContext> context{ZSTD_createCCtx()};
  std::string bytes;
};

FrameEncoder::FrameEncoder() : impl_(std::make_unique<Impl>()) {
  ZSTD_CCtx* context = impl_->context.get();
  check(context != nullptr, "zstd has memory for a context");
  set(context, ZSTD_c_compressionLevel, 1);
  // Level 1 for what events are: the names of members repeat, so that longer matches and a larger table cost
  // nothing in size and save an eighth of the time (measured with tests/bench/make_events).
  set(context, ZSTD_c_minMatch, 7);
  set(context, ZSTD_c_hashLog, 16);
  set(context, ZSTD_c_contentSizeFlag, 1);
  set(context, ZSTD_c_checksumFlag, 1);
}

FrameEncoder::~FrameEncoder() = default;

FrameEncoder::Encoded FrameEncoder::encode(std::string_view lines, std::uint32_t events, Frames frames) {
  check(lines.size() <= frame_bytes_max && events <= frame_events_max, "a frame is within its limits");
  check(events > 0 && !lines.empty() && lines.back() == '\n', "a frame holds whole lines");
  check(frames != Frames::single || events == 1, "a frame of a topic of single frames holds one event");
  const Encoded plain{Encoding::plain, lines};
  if (frames != Frames::automatic || events == 1 || lines.size() < compress_from_bytes) {
    return plain;
  }
  std::string& bytes = impl_->bytes;
  const std::size_t bound = ZSTD_compressBound(lines.size());
  if (bytes.size() < bound) {
    bytes.resize(bound);
  }
  const std::size_t size =
      ZSTD_compress2(impl_->context.get(), bytes.data(), bytes.size(), lines.data(), lines.size());
  if (ZSTD_isError(size) != 0 || size >= lines.size()) {
    return plain;
  }
  return {Encoding::zstd, std::string_view(bytes).substr(0, size)};
}

struct FrameDecoder::Impl {
  std::unique_ptr<ZSTD_DCtx, FreeContext> context{ZSTD_createDCtx()};
};

FrameDecoder::FrameDecoder() : impl_(std::make_unique<Impl>()) {
  check(impl_->context != nullptr, "zstd has memory for a context");
}

FrameDecoder::~FrameDecoder() = default;

void FrameDecoder::decode(Encoding encoding, std::string_view bytes, std::uint32_t events,
                          std::string& lines) {
  if (events == 0 || events > frame_events_max) {
    fail(ErrorKind::loss, "the frame is damaged: it says that it holds {} events, expected 1 to {}", events,
         frame_events_max);
  }
  if (encoding == Encoding::plain) {
    if (bytes.size() > frame_bytes_max) {
      fail(ErrorKind::loss, "the frame is damaged: it has {} bytes, over the limit of {}", bytes.size(),
           frame_bytes_max);
    }
    check_lines(bytes, events);
    lines.assign(bytes);
    return;
  }
  const std::size_t size = content_bytes_of(bytes);
  // Only bytes beyond the size that `lines` already has are set to zero for nothing.
  lines.resize(size);
  const std::size_t written =
      ZSTD_decompressDCtx(impl_->context.get(), lines.data(), size, bytes.data(), bytes.size());
  if (ZSTD_isError(written) != 0) {
    fail(ErrorKind::loss, "the frame is damaged: {}", ZSTD_getErrorName(written));
  }
  if (written != size) {
    fail(ErrorKind::loss, "the frame is damaged: {} bytes came out of it, {} expected", written, size);
  }
  check_lines(lines, events);
}

}  // namespace continuum
