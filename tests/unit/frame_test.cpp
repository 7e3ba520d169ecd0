#include "continuum/frame.hpp"

#include "continuum/error.hpp"

#include <doctest/doctest.h>

#include <fmt/format.h>

#include <string>

using namespace continuum;
using namespace std::string_literals;

namespace {

std::string lines_of(std::uint32_t events) {
  std::string lines;
  for (std::uint32_t i = 0; i < events; ++i) {
    lines += fmt::format(R"({{"specversion":"1.0","id":"p:{}","data":{{"n":{},"text":"lorem ipsum"}}}})", i,
                         i * 7);
    lines += '\n';
  }
  return lines;
}

std::string zstd_frame(std::uint32_t events) {
  FrameEncoder encoder;
  const auto encoded = encoder.encode(lines_of(events), events, Frames::automatic);
  REQUIRE(encoded.encoding == Encoding::zstd);
  return std::string(encoded.bytes);
}

// Why the decoder refuses, or "accepted".
std::string refusal(Encoding encoding, std::string_view bytes, std::uint32_t events) {
  FrameDecoder decoder;
  std::string lines = "of the frame before";
  try {
    decoder.decode(encoding, bytes, events, lines);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::loss);
    return error.message();
  }
  return "accepted";
}

// The header of a zstd frame of one segment with a checksum and eight bytes of content size.
std::string header_with_content_size(std::uint64_t size) {
  std::string bytes = "\x28\xB5\x2F\xFD\xE4"s;
  for (int i = 0; i < 8; ++i) {
    bytes += static_cast<char>(size >> (8 * i) & 0xFFU);
  }
  return bytes;
}

}  // namespace

TEST_SUITE("frame") {
  TEST_CASE("a frame comes back as the lines that went in") {
    FrameEncoder encoder;
    FrameDecoder decoder;
    std::string out;
    for (std::uint32_t events : {1U, 2U, 13U, 500U, 3U, 40'000U, 14U}) {
      const std::string lines = lines_of(events);
      const auto encoded = encoder.encode(lines, events, Frames::automatic);
      CHECK(encoded.bytes.size() <= lines.size());
      decoder.decode(encoded.encoding, encoded.bytes, events, out);
      CHECK(out == lines);
    }
  }

  TEST_CASE("one event, a small batch and lines that do not shrink stay readable") {
    FrameEncoder encoder;
    const std::string big_event = "\"" + std::string(100'000, 'x') + "\"\n";
    CHECK(encoder.encode(big_event, 1, Frames::automatic).encoding == Encoding::plain);
    const std::string small = lines_of(2);
    const auto plain = encoder.encode(small, 2, Frames::automatic);
    CHECK(plain.encoding == Encoding::plain);
    CHECK(plain.bytes.data() == small.data());

    std::string noise;
    std::uint64_t state = 1;
    for (int i = 0; i < 4000; ++i) {
      state ^= state << 13U;
      state ^= state >> 7U;
      state ^= state << 17U;
      const char byte = static_cast<char>(state >> 24U);
      noise += byte == '\n' ? 'x' : byte;
    }
    noise += "\n\n";
    CHECK(encoder.encode(noise, 2, Frames::automatic).encoding == Encoding::plain);
  }

  TEST_CASE("a topic of plain or single frames gets plain lines") {
    FrameEncoder encoder;
    const std::string lines = lines_of(500);
    CHECK(encoder.encode(lines, 500, Frames::automatic).encoding == Encoding::zstd);
    CHECK(encoder.encode(lines, 500, Frames::plain).encoding == Encoding::plain);
    CHECK(encoder.encode(lines_of(1), 1, Frames::single).encoding == Encoding::plain);
  }

  TEST_CASE("a compressed frame has its content size and a checksum") {
    const std::string frame = zstd_frame(100);
    CHECK(frame.starts_with("\x28\xB5\x2F\xFD"));
    CHECK((static_cast<unsigned char>(frame[4]) & 4U) != 0);
    CHECK(refusal(Encoding::zstd, frame, 100) == "accepted");
  }

  TEST_CASE("a compressed frame that is cut anywhere is refused") {
    const std::string frame = zstd_frame(100);
    for (std::size_t size = 0; size < frame.size(); ++size) {
      CAPTURE(size);
      CHECK(refusal(Encoding::zstd, std::string(frame, 0, size), 100) != "accepted");
    }
    CHECK(refusal(Encoding::zstd, std::string(frame, 0, frame.size() - 1), 100).find("truncated") !=
          std::string::npos);
  }

  TEST_CASE("a compressed frame with a flipped bit never gives other lines") {
    const std::string frame = zstd_frame(100);
    const std::string lines = lines_of(100);
    FrameDecoder decoder;
    std::string out;
    std::size_t refused = 0;
    std::size_t by_checksum = 0;
    for (std::size_t bit = 0; bit < frame.size() * 8; ++bit) {
      std::string damaged = frame;
      damaged[bit / 8] = static_cast<char>(static_cast<unsigned char>(damaged[bit / 8]) ^ 1U << bit % 8);
      CAPTURE(bit);
      try {
        decoder.decode(Encoding::zstd, damaged, 100, out);
        // A few bits mean nothing.
        CHECK(out == lines);
      } catch (const Error& error) {
        ++refused;
        by_checksum += error.message().find("checksum") != std::string::npos ? 1U : 0U;
      }
    }
    CHECK(refused > frame.size() * 8 * 9 / 10);
    CHECK(by_checksum > 0);
  }

  TEST_CASE("a frame with another number of lines than it says is refused") {
    for (std::uint32_t told : {99U, 101U, 1U, frame_events_max}) {
      CHECK(refusal(Encoding::zstd, zstd_frame(100), told) ==
            fmt::format("the frame is damaged: it holds 100 lines, {} events expected", told));
      CHECK(refusal(Encoding::plain, lines_of(100), told) ==
            fmt::format("the frame is damaged: it holds 100 lines, {} events expected", told));
    }
    CHECK(refusal(Encoding::plain, lines_of(100), 0).find("expected 1 to") != std::string::npos);
    CHECK(refusal(Encoding::plain, lines_of(100), frame_events_max + 1).find("expected 1 to") !=
          std::string::npos);
  }

  TEST_CASE("newlines are counted right in frames of every length") {
    for (std::size_t size = 1; size < 200; ++size) {
      CHECK(refusal(Encoding::plain, std::string(size, '\n'), static_cast<std::uint32_t>(size)) ==
            "accepted");
      CHECK(refusal(Encoding::plain, std::string(size, 'x') + "\n", 1) == "accepted");
    }
    // More than a counter of one byte holds.
    for (std::size_t size : {std::size_t{255 * 32}, std::size_t{256 * 32}, std::size_t{100'003}}) {
      CHECK(refusal(Encoding::plain, std::string(size, '\n'), static_cast<std::uint32_t>(size)) ==
            "accepted");
    }
  }

  TEST_CASE("a frame without lines or without its last newline is refused") {
    CHECK(refusal(Encoding::plain, "", 1).find("empty") != std::string::npos);
    CHECK(refusal(Encoding::zstd, "", 1) != "accepted");
    CHECK(refusal(Encoding::plain, "{}\n{}", 2).find("no newline at the end") != std::string::npos);
    CHECK(refusal(Encoding::plain, "{}", 1).find("no newline at the end") != std::string::npos);
  }

  TEST_CASE("a frame that says that it is huge takes no memory") {
    for (std::uint64_t size :
         {std::uint64_t{frame_bytes_max} + 1, std::uint64_t{1} << 40U, ~std::uint64_t{0} - 2}) {
      CHECK(refusal(Encoding::zstd, header_with_content_size(size) + "\x01\x00\x00"s, 1)
                .find("over the limit of 67108864") != std::string::npos);
    }
    // Within the limit, but more than what follows gives.
    CHECK(refusal(Encoding::zstd, header_with_content_size(1000) + "\x01\x00\x00"s, 1) != "accepted");
    CHECK(refusal(Encoding::plain, std::string(frame_bytes_max, 'x') + "\n", 1).find("over the limit") !=
          std::string::npos);
  }

  TEST_CASE("a zstd frame of another make is refused by what it lacks") {
    // "{}\n" in one raw block, without a content size; then with it, but without a checksum.
    CHECK(
        refusal(Encoding::zstd, "\x28\xB5\x2F\xFD\x04\x58\x19\x00\x00{}\n1234"s, 1).find("no content size") !=
        std::string::npos);
    CHECK(refusal(Encoding::zstd, "\x28\xB5\x2F\xFD\x20\x03\x19\x00\x00{}\n"s, 1).find("no checksum flag") !=
          std::string::npos);
    // A skippable frame holds nothing.
    CHECK(refusal(Encoding::zstd, "\x5C\x2A\x4D\x18\x04\x00\x00\x00\xFF\xFF\xFF\xFF"s, 1) != "accepted");
    CHECK(refusal(Encoding::zstd, lines_of(100), 100).find("do not begin a zstd frame") != std::string::npos);
  }

  TEST_CASE("bytes behind a compressed frame are refused") {
    const std::string frame = zstd_frame(100);
    CHECK(refusal(Encoding::zstd, frame + "x", 100).find("1 bytes follow") != std::string::npos);
    CHECK(refusal(Encoding::zstd, frame + frame, 200).find("follow the end") != std::string::npos);
    CHECK(refusal(Encoding::zstd, frame + "\x5C\x2A\x4D\x18\x00\x00\x00\x00"s, 100).find("follow the end") !=
          std::string::npos);
  }

  TEST_CASE("a decoder goes on after a damaged frame") {
    FrameDecoder decoder;
    std::string lines;
    const std::string frame = zstd_frame(100);
    std::string damaged = frame;
    damaged[frame.size() / 2] = static_cast<char>(~static_cast<unsigned char>(damaged[frame.size() / 2]));
    for (int i = 0; i < 3; ++i) {
      CHECK_THROWS_AS(decoder.decode(Encoding::zstd, damaged, 100, lines), Error);
      decoder.decode(Encoding::zstd, frame, 100, lines);
      CHECK(lines == lines_of(100));
    }
  }
}
