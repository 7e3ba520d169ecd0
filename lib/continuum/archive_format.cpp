#define XXH_INLINE_ALL  // the header's own switch: a call by name costs more than hashing a key
#include "continuum/archive_format.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/little_endian.hpp"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace continuum {

namespace {

constexpr std::uint8_t format_version = 1;
constexpr std::uint8_t kind_events = 1;
constexpr std::uint8_t kind_barrier = 2;
constexpr std::size_t id_bytes = 16;
constexpr std::size_t preamble_bytes = 8;  // magic number and size
constexpr std::size_t hash_bytes = 8;
constexpr std::size_t producer_name_bytes_max = 1024;
constexpr std::size_t digest_bytes_max = 64;

// LEB128: seven bits a byte, the lowest first.
void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7U) {
    out += static_cast<char>((value & 0x7FU) | 0x80U);
  }
  out += static_cast<char>(value);
}

void put_text(std::string& out, std::string_view text) {
  put_varint(out, text.size());
  out += text;
}

int digit_of(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void put_id(std::string& out, std::string_view hex) {
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    out += static_cast<char>(digit_of(hex[i]) * 16 + digit_of(hex[i + 1]));
  }
}

// Takes values from the front; what does not fit leaves `damaged` behind.
class Take {
 public:
  explicit Take(std::string_view rest) : rest_(rest) {}

  template <class T>
  T number() {
    const std::string_view raw = bytes(sizeof(T));
    return raw.empty() ? T{} : number_at<T>(raw);
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = number<std::uint8_t>();
      value |= std::uint64_t{byte & 0x7FU} << shift;
      if ((byte & 0x80U) == 0) {
        return value;
      }
    }
    damaged_ = true;
    return 0;
  }

  std::string_view bytes(std::size_t count) {
    if (count > rest_.size()) {
      damaged_ = true;
      return {};
    }
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  std::string id() {
    std::string hex;
    for (const char c : bytes(id_bytes)) {
      hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
    }
    return hex;
  }

  [[nodiscard]] bool damaged() const { return damaged_; }
  [[nodiscard]] bool empty() const { return rest_.empty(); }

 private:
  std::string_view rest_;
  bool damaged_ = false;
};

// An entry is one number when it follows the one before as entries of a trickle do: the milliseconds since
// that one, and two bits that say whether its number of events is other than one, and its sequence other than
// the next.
constexpr std::uint64_t other_events = 1;
constexpr std::uint64_t other_sequence = 2;

std::uint64_t usual_sequence(const EntryId& before, std::uint64_t later_milliseconds) {
  return later_milliseconds == 0 ? before.sequence + 1 : 0;
}

void put_entries(std::string& out, const std::vector<FrameHeader::Entry>& entries) {
  put_varint(out, entries.size());
  EntryId before;
  for (const auto& entry : entries) {
    check(entry.id > before && entry.id.milliseconds <= number_max, "ids of archived entries rise");
    const std::uint64_t later = entry.id.milliseconds - before.milliseconds;
    const bool sequence = entry.id.sequence != usual_sequence(before, later);
    put_varint(out, later << 2U | (sequence ? other_sequence : 0) | (entry.events != 1 ? other_events : 0));
    if (sequence) {
      put_varint(out, entry.id.sequence);
    }
    if (entry.events != 1) {
      put_varint(out, entry.events);
    }
    before = entry.id;
  }
}

bool take_entries(Take& take, FrameHeader& header) {
  const std::uint64_t count = take.varint();
  if (count == 0 || count > archived_entries_max) {
    return false;
  }
  header.entries.clear();
  EntryId before;
  std::uint64_t events = 0;
  for (std::uint64_t i = 0; i < count && !take.damaged(); ++i) {
    const std::uint64_t bits = take.varint();
    FrameHeader::Entry entry;
    entry.id.milliseconds = before.milliseconds + (bits >> 2U);
    entry.id.sequence = (bits & other_sequence) != 0 ? take.varint() : usual_sequence(before, bits >> 2U);
    const std::uint64_t held = (bits & other_events) != 0 ? take.varint() : 1;
    events += held;
    if (entry.id <= before || entry.id.milliseconds > number_max || held > frame_events_max ||
        events > header.events) {
      return false;
    }
    entry.events = static_cast<std::uint32_t>(held);
    before = entry.id;
    header.entries.push_back(entry);
  }
  return events == header.events;
}

bool take_producers(Take& take, FrameHeader& header) {
  header.producers.clear();
  const std::uint64_t count = take.varint();
  if (count > header.entries.size()) {
    return false;
  }
  for (std::uint64_t i = 0; i < count && !take.damaged(); ++i) {
    FrameHeader::Producer producer;
    producer.name = take.bytes(take.varint());
    producer.position = Position(take.varint());
    producer.digest = take.bytes(take.varint());
    const std::uint64_t entry = take.varint();
    if (entry >= header.entries.size() || producer.position.value > number_max) {
      return false;
    }
    producer.entry = static_cast<std::uint32_t>(entry);
    header.producers.push_back(std::move(producer));
  }
  return true;
}

}  // namespace

bool is_archive_id(std::string_view text) {
  return text.size() == 2 * id_bytes && std::ranges::all_of(text, [](char c) { return digit_of(c) >= 0; });
}

std::uint64_t archive_hash(std::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

void append_header(std::string& out, const ArchiveIdentity& identity, FrameHeader& header) {
  check(!header.entries.empty() && header.barrier() == (header.frame_bytes == 0), "a frame has entries");
  const std::size_t start = out.size();
  out += archive_magic;
  put_number(out, std::uint32_t{0});
  put_number(out, format_version);
  put_number(out, header.barrier() ? kind_barrier : kind_events);
  put_number(out, identity.partition.value);
  put_id(out, identity.log_id);
  put_id(out, identity.archive_id);
  put_number(out, header.generation.value);
  put_number(out, header.first.value);
  put_number(out, header.events);
  put_number(out, header.frame_bytes);
  put_number(out, header.frame_hash);
  put_entries(out, header.entries);
  put_varint(out, header.producers.size());
  for (const auto& producer : header.producers) {
    check(producer.name.size() <= producer_name_bytes_max && producer.digest.size() <= digest_bytes_max,
          "an archived producer is within its limits");
    put_text(out, producer.name);
    put_varint(out, producer.position.value);
    put_text(out, producer.digest);
    put_varint(out, producer.entry);
  }
  const std::size_t size = out.size() - start - preamble_bytes + hash_bytes;
  check(size + preamble_bytes <= header_bytes_max, "a header is within its limit");
  std::string size_text;
  put_number(size_text, static_cast<std::uint32_t>(size));
  out.replace(start + archive_magic.size(), size_text.size(), size_text);
  header.hash = archive_hash(std::string_view(out).substr(start));
  put_number(out, header.hash);
}

std::optional<std::size_t> header_size(std::string_view bytes) {
  if (bytes.size() < preamble_bytes || !bytes.starts_with(archive_magic)) {
    return std::nullopt;
  }
  const std::size_t size = preamble_bytes + Take(bytes.substr(archive_magic.size())).number<std::uint32_t>();
  return size >= header_bytes_least && size <= header_bytes_max ? std::optional(size) : std::nullopt;
}

bool begins_header(std::string_view bytes, const ArchiveIdentity& identity, Offset least) {
  if (bytes.size() < header_begin_bytes || !header_size(bytes)) {
    return false;
  }
  Take take(bytes.substr(preamble_bytes));
  const auto version = take.number<std::uint8_t>();
  const auto kind = take.number<std::uint8_t>();
  if (version != format_version || (kind != kind_events && kind != kind_barrier)) {
    return false;
  }
  std::string ids;
  put_number(ids, identity.partition.value);
  put_id(ids, identity.log_id);
  put_id(ids, identity.archive_id);
  const bool ours = take.bytes(ids.size()) == ids;
  (void)take.number<std::uint32_t>();  // the generation
  const auto first = take.number<std::uint64_t>();
  return ours && first >= least.value && first <= number_max;
}

HeaderRead read_header(std::string_view bytes, ArchiveIdentity& identity, FrameHeader& header) {
  if (header_size(bytes) != bytes.size()) {
    return HeaderRead::damaged;
  }
  const std::string_view hashed = bytes.substr(0, bytes.size() - hash_bytes);
  header.hash = Take(bytes.substr(hashed.size())).number<std::uint64_t>();
  if (archive_hash(hashed) != header.hash) {
    return HeaderRead::damaged;
  }
  Take take(hashed.substr(preamble_bytes));
  if (take.number<std::uint8_t>() != format_version) {
    return HeaderRead::newer;
  }
  const auto kind = take.number<std::uint8_t>();
  identity.partition = Partition(take.number<std::uint32_t>());
  identity.log_id = take.id();
  identity.archive_id = take.id();
  header.generation = Generation(take.number<std::uint32_t>());
  header.first = Offset(take.number<std::uint64_t>());
  header.events = take.number<std::uint32_t>();
  header.frame_bytes = take.number<std::uint32_t>();
  header.frame_hash = take.number<std::uint64_t>();
  const bool sound = kind == (header.barrier() ? kind_barrier : kind_events) &&
                     header.barrier() == (header.frame_bytes == 0) && header.first.value <= number_max &&
                     header.events <= frame_events_max && header.frame_bytes <= archived_frame_bytes_max &&
                     take_entries(take, header) && take_producers(take, header) && !take.damaged() &&
                     take.empty();
  return sound ? HeaderRead::sound : HeaderRead::damaged;
}

// --- keys

namespace {

constexpr std::size_t block_words = 8;
constexpr std::size_t block_bytes = block_words * sizeof(std::uint32_t);
// About ten bits a key: one of a hundred other keys finds all of its eight bits set.
constexpr std::size_t block_keys = 24;
// Odd numbers that pick a bit in each word of a block; any would do, these are those of Apache Parquet.
constexpr std::array<std::uint32_t, block_words> salts{0x47b6137bU, 0x44974d91U, 0x8824ad5bU, 0xa2b7289dU,
                                                       0x705495c7U, 0x2df1424bU, 0x9efc4947U, 0x5c6bfb31U};

std::size_t block_of(std::uint64_t hash, std::size_t blocks) {
  return static_cast<std::size_t>((hash >> 32U) * blocks >> 32U);
}

std::uint32_t bit_of(std::uint64_t hash, std::size_t word) {
  return 1U << (static_cast<std::uint32_t>(hash) * salts[word] >> 27U);
}

}  // namespace

std::uint64_t archive_key_hash(std::string_view key) {
  return archive_hash(key);
}

std::string make_key_filter(std::vector<std::uint64_t>& hashes) {
  std::ranges::sort(hashes);
  hashes.erase(std::unique(hashes.begin(), hashes.end()), hashes.end());
  const std::size_t blocks = (hashes.size() + block_keys - 1) / block_keys;
  std::string filter;
  std::vector<std::uint32_t> words(blocks * block_words);
  for (const std::uint64_t hash : hashes) {
    const std::size_t block = block_of(hash, blocks) * block_words;
    for (std::size_t word = 0; word < block_words; ++word) {
      words[block + word] |= bit_of(hash, word);
    }
  }
  for (const std::uint32_t word : words) {
    put_number(filter, word);
  }
  return filter;
}

bool may_hold(std::string_view filter, std::uint64_t key_hash) {
  const std::size_t blocks = filter.size() / block_bytes;
  if (blocks == 0) {
    return true;
  }
  Take take(filter.substr(block_of(key_hash, blocks) * block_bytes));
  for (std::size_t word = 0; word < block_words; ++word) {
    if ((take.number<std::uint32_t>() & bit_of(key_hash, word)) == 0) {
      return false;
    }
  }
  return true;
}

std::string key_filter_of(std::string_view lines) {
  std::vector<std::uint64_t> hashes;
  std::string scratch;
  try {
    while (!lines.empty()) {
      const std::size_t end = std::min(lines.find('\n'), lines.size() - 1);
      hashes.push_back(archive_key_hash(key_of(attributes_of(lines.substr(0, end)), scratch)));
      lines.remove_prefix(end + 1);
    }
  } catch (const Error&) {
    return {};  // no event, so that nothing is known of its key: whoever reads it says so
  }
  return make_key_filter(hashes);
}

}  // namespace continuum
