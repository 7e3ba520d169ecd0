// A frame: the bytes of one or more events as a partition log, and later the archive, holds them.
//
//   frame  = plain / zstd
//   plain  = 1*( event LF )                 ; field `e` of a log entry
//   zstd   = one zstd frame of a plain one  ; field `z`; content size and checksum present
//
// The same bytes go from publisher to Redis to archive: compressed once, never re-encoded.
// Format version 1; RFC 8878 describes zstd.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace continuum {

enum class Encoding : std::uint8_t { plain, zstd };

// Limits on what a reader accepts, so that a hostile entry cannot take the memory of everybody.
inline constexpr std::size_t frame_bytes_max = std::size_t{64} << 20;
inline constexpr std::uint32_t frame_events_max = 1 << 20;

// What a topic's setting `frames` asks for.
enum class Frames : std::uint8_t { automatic, plain, single };

class FrameEncoder {
 public:
  FrameEncoder();
  ~FrameEncoder();
  FrameEncoder(const FrameEncoder&) = delete;
  FrameEncoder& operator=(const FrameEncoder&) = delete;

  struct Encoded {
    Encoding encoding;
    std::string_view bytes;  // into `lines` (plain) or into the encoder (zstd): valid until the next call
  };
  // `lines`: NDJSON of `events` events. Automatic compresses unless it is a single event or small, or
  // would not become smaller.
  [[nodiscard]] Encoded encode(std::string_view lines, std::uint32_t events, Frames frames);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class FrameDecoder {
 public:
  FrameDecoder();
  ~FrameDecoder();
  FrameDecoder(const FrameDecoder&) = delete;
  FrameDecoder& operator=(const FrameDecoder&) = delete;

  // Replaces `lines` by the NDJSON of the frame. Throws Error{loss} naming what is wrong (truncated,
  // checksum, size above the limit, `events` newlines expected and another number found, no newline at
  // the end). The caller adds topic, partition and offset.
  void decode(Encoding encoding, std::string_view bytes, std::uint32_t events, std::string& lines);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace continuum
