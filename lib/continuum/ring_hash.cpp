#include "continuum/ring_hash.hpp"

#include "continuum/error.hpp"

#include <bit>
#include <cstddef>
#include <cstring>
#include <utility>

namespace continuum {
namespace {

// All four read their input as little-endian, whatever the machine is. Compilers make one load of it.
std::uint32_t load32(const std::uint8_t* at) {
  return std::uint32_t{at[0]} | std::uint32_t{at[1]} << 8 | std::uint32_t{at[2]} << 16 |
         std::uint32_t{at[3]} << 24;
}

void store32(std::uint8_t* at, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) {
    at[i] = static_cast<std::uint8_t>(value >> (8 * i));
  }
}

const std::uint8_t* bytes_of(std::string_view text) {
  return reinterpret_cast<const std::uint8_t*>(text.data());
}

// --- MD5

// RFC 1321, 3.4: the integer part of 2^32 * abs(sin(i)), i from 1.
constexpr std::array<std::uint32_t, 64> md5_sines{
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};

constexpr std::array<std::array<int, 4>, 4> md5_shifts{
    {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}}};

// A word of MD5, or of several MD5s at once: every step waits for the one before it, so that eight together
// take little longer than one.
using ManyWords [[gnu::vector_size(4 * md5_lanes)]] = std::uint32_t;

template <class Word>
using Md5State = std::array<Word, 4>;

template <class Word>
constexpr Md5State<Word> md5_start{Word{} + 0x67452301, Word{} + 0xefcdab89, Word{} + 0x98badcfe,
                                   Word{} + 0x10325476};

// A template, so that the steps are unrolled without a table lookup, and the registers are registers.
template <std::size_t Step, class Word>
[[gnu::always_inline]] inline void md5_step(Md5State<Word>& s, const std::array<Word, 16>& words) {
  constexpr std::size_t round = Step / 16;
  constexpr std::size_t word = (round == 0   ? Step
                                : round == 1 ? 5 * Step + 1
                                : round == 2 ? 3 * Step + 5
                                             : 7 * Step) %
                               16;
  constexpr int shift = md5_shifts[round][Step % 4];
  // The four registers change places with every step.
  Word& a = s[(64 - Step) % 4];
  const Word b = s[(65 - Step) % 4];
  const Word c = s[(66 - Step) % 4];
  const Word d = s[(67 - Step) % 4];
  // b is what the step before has made: as little as can be is done after it is there.
  Word sum = a + words[word] + md5_sines[Step];
  if constexpr (round == 0) {
    sum += d ^ (b & (c ^ d));
  } else if constexpr (round == 1) {
    sum += ~d & c;  // no bit is in this and in d & b, so that their sum is their union
    sum += d & b;
  } else if constexpr (round == 2) {
    sum += b ^ (c ^ d);
  } else {
    sum += c ^ (b | ~d);
  }
  a = b + (sum << shift | sum >> (32 - shift));
}

template <class Word, std::size_t... Steps>
[[gnu::always_inline]] inline void md5_steps(Md5State<Word>& s, const std::array<Word, 16>& words,
                                             std::index_sequence<Steps...>) {
  (md5_step<Steps>(s, words), ...);
}

template <class Word>
void md5_block(Md5State<Word>& state, const std::array<Word, 16>& words) {
  Md5State<Word> s = state;
  md5_steps(s, words, std::make_index_sequence<64>());
  for (std::size_t i = 0; i < s.size(); ++i) {
    state[i] += s[i];
  }
}

constexpr std::size_t md5_block_bytes = 64;

std::array<std::uint32_t, 16> md5_words(const std::uint8_t* block) {
  std::array<std::uint32_t, 16> words;
  for (std::size_t i = 0; i < words.size(); ++i) {
    words[i] = load32(block + 4 * i);
  }
  return words;
}

// What is left of the input, a one bit, zeros, and the length in bits: one block, or two.
struct Md5Tail {
  std::array<std::uint8_t, 2 * md5_block_bytes> bytes{};
  std::size_t size;

  Md5Tail(const std::uint8_t* left, std::size_t left_bytes, std::uint64_t all_bytes)
      : size(left_bytes <= md5_one_block_bytes_max ? md5_block_bytes : 2 * md5_block_bytes) {
    if (left_bytes > 0) {
      std::memcpy(bytes.data(), left, left_bytes);
    }
    bytes[left_bytes] = 0x80;
    store32(&bytes[size - 8], static_cast<std::uint32_t>(all_bytes << 3));
    store32(&bytes[size - 4], static_cast<std::uint32_t>(all_bytes >> 29));
  }
};

// --- CRC-32

constexpr std::array<std::array<std::uint32_t, 256>, 8> crc32_tables = [] {
  constexpr std::uint32_t polynomial = 0xEDB88320;  // of ISO 3309, bits reversed
  std::array<std::array<std::uint32_t, 256>, 8> tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? polynomial : 0);
    }
    tables[0][byte] = crc;
  }
  // Table i: what a byte does i bytes later.
  for (std::size_t i = 1; i < tables.size(); ++i) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t crc = tables[i - 1][byte];
      tables[i][byte] = (crc >> 8) ^ tables[0][crc & 0xFF];
    }
  }
  return tables;
}();

}  // namespace

Md5 md5(std::string_view bytes) {
  Md5State<std::uint32_t> state = md5_start<std::uint32_t>;
  const std::uint8_t* at = bytes_of(bytes);
  std::size_t left = bytes.size();
  for (; left >= md5_block_bytes; left -= md5_block_bytes, at += md5_block_bytes) {
    md5_block(state, md5_words(at));
  }
  const Md5Tail tail(at, left, bytes.size());
  for (std::size_t done = 0; done < tail.size; done += md5_block_bytes) {
    md5_block(state, md5_words(&tail.bytes[done]));
  }
  Md5 digest;
  for (std::size_t i = 0; i < state.size(); ++i) {
    store32(&digest[4 * i], state[i]);
  }
  return digest;
}

std::array<Md5, md5_lanes> md5_of_many(const std::array<std::string_view, md5_lanes>& texts) {
  std::array<std::array<std::uint32_t, md5_lanes>, 16> lanes{};
  for (std::size_t lane = 0; lane < texts.size(); ++lane) {
    const std::string_view text = texts[lane];
    check(text.size() <= md5_one_block_bytes_max, "a text of many has one block");
    // Word by word: texts are short, and a copy of a block would cost more than what is hashed.
    const std::uint8_t* const at = bytes_of(text);
    const std::size_t whole = text.size() / 4;
    for (std::size_t i = 0; i < whole; ++i) {
      lanes[i][lane] = load32(at + 4 * i);
    }
    std::uint32_t last = 0x80;
    for (std::size_t i = text.size(); i > 4 * whole; --i) {
      last = last << 8 | at[i - 1];
    }
    lanes[whole][lane] = last;
    lanes[14][lane] = static_cast<std::uint32_t>(text.size() * 8);
  }
  std::array<ManyWords, 16> words;
  std::memcpy(words.data(), lanes.data(), sizeof words);
  Md5State<ManyWords> state = md5_start<ManyWords>;
  md5_block(state, words);
  std::array<Md5, md5_lanes> digests;
  for (std::size_t lane = 0; lane < texts.size(); ++lane) {
    for (std::size_t i = 0; i < state.size(); ++i) {
      store32(&digests[lane][4 * i], state[i][lane]);
    }
  }
  return digests;
}

std::uint32_t murmur3(std::string_view bytes) {
  constexpr std::uint32_t c1 = 0xcc9e2d51;
  constexpr std::uint32_t c2 = 0x1b873593;
  const std::uint8_t* at = bytes_of(bytes);
  std::uint32_t hash = 0;
  std::size_t left = bytes.size();
  for (; left >= 4; left -= 4, at += 4) {
    hash = std::rotl(hash ^ (std::rotl(load32(at) * c1, 15) * c2), 13) * 5 + 0xe6546b64;
  }
  std::uint32_t last = 0;
  for (std::size_t i = 0; i < left; ++i) {
    last |= std::uint32_t{at[i]} << (8 * i);
  }
  hash ^= std::rotl(last * c1, 15) * c2;
  hash ^= static_cast<std::uint32_t>(bytes.size());
  hash = (hash ^ hash >> 16) * 0x85ebca6b;
  hash = (hash ^ hash >> 13) * 0xc2b2ae35;
  return hash ^ hash >> 16;
}

std::uint32_t kafka_murmur2(std::string_view bytes) {
  constexpr std::uint32_t seed = 0x9747b28c;
  constexpr std::uint32_t m = 0x5bd1e995;
  const std::uint8_t* at = bytes_of(bytes);
  std::size_t left = bytes.size();
  std::uint32_t hash = seed ^ static_cast<std::uint32_t>(left);
  for (; left >= 4; left -= 4, at += 4) {
    std::uint32_t word = load32(at) * m;
    word = (word ^ word >> 24) * m;
    hash = hash * m ^ word;
  }
  if (left > 0) {
    for (std::size_t i = 0; i < left; ++i) {
      hash ^= std::uint32_t{at[i]} << (8 * i);
    }
    hash *= m;
  }
  hash = (hash ^ hash >> 13) * m;
  return hash ^ hash >> 15;
}

std::uint32_t crc32(std::string_view bytes) {
  const std::uint8_t* at = bytes_of(bytes);
  std::size_t left = bytes.size();
  std::uint32_t crc = 0xFFFFFFFF;
  const auto& t = crc32_tables;
  for (; left >= 8; left -= 8, at += 8) {
    const std::uint32_t low = load32(at) ^ crc;
    const std::uint32_t high = load32(at + 4);
    crc = t[7][low & 0xFF] ^ t[6][low >> 8 & 0xFF] ^ t[5][low >> 16 & 0xFF] ^ t[4][low >> 24] ^
          t[3][high & 0xFF] ^ t[2][high >> 8 & 0xFF] ^ t[1][high >> 16 & 0xFF] ^ t[0][high >> 24];
  }
  for (; left > 0; --left, ++at) {
    crc = (crc >> 8) ^ t[0][(crc ^ *at) & 0xFF];
  }
  return crc ^ 0xFFFFFFFF;
}

}  // namespace continuum
