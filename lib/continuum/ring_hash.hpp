// Private to the ring: the hash functions of the programs that it agrees with. Pure, for any bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace continuum {

// MD5: RFC 1321. Not for anything that must be safe.
using Md5 = std::array<std::uint8_t, 16>;
[[nodiscard]] Md5 md5(std::string_view bytes);
// Of several short texts, in hardly more time than of one.
inline constexpr std::size_t md5_lanes = 8;
inline constexpr std::size_t md5_one_block_bytes_max = 55;
[[nodiscard]] std::array<Md5, md5_lanes> md5_of_many(const std::array<std::string_view, md5_lanes>& texts);

// MurmurHash3_x86_32 with seed 0, which is what mmh3.hash() of Python returns (there as a signed number).
// Austin Appleby, https://github.com/aappleby/smhasher
[[nodiscard]] std::uint32_t murmur3(std::string_view bytes);

// MurmurHash2 with seed 0x9747b28c, as org.apache.kafka.common.utils.Utils.murmur2 of Apache Kafka has it;
// librdkafka's rd_murmur2 is the same.
[[nodiscard]] std::uint32_t kafka_murmur2(std::string_view bytes);

// CRC-32 of ISO 3309, as in zlib: librdkafka's rd_crc32.
[[nodiscard]] std::uint32_t crc32(std::string_view bytes);

}  // namespace continuum
