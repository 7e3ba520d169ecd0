#include "continuum/ring.hpp"

#include "continuum/error.hpp"
#include "continuum/ring_hash.hpp"

// Labels and keys are short: a call into the shared library would cost more than the hash.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace continuum {
namespace {

// Inlined into the lookup, whoever else calls it.
[[gnu::always_inline]] inline std::uint64_t xxh3(std::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

// Not inlined: g++ 12 would take the branches for long inputs as reads beyond the label, and warn.
[[gnu::noinline]] std::uint64_t xxh3_of_label(std::string_view label) {
  return xxh3(label);
}

// The first eight bytes as a number, the first byte first.
std::uint64_t upper_half(const Md5& digest) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    value = value << 8 | digest[i];
  }
  return value;
}

std::uint32_t little_endian(const Md5& digest, std::size_t at) {
  return std::uint32_t{digest[at]} | std::uint32_t{digest[at + 1]} << 8 |
         std::uint32_t{digest[at + 2]} << 16 | std::uint32_t{digest[at + 3]} << 24;
}

// --- hashes of each algorithm <-> places in our space of 64 bits, in the same order

// What makes signed numbers ascend as unsigned ones.
constexpr std::uint32_t sign_bit = 0x80000000;

bool is_md5(RingAlgorithm algorithm) {
  return algorithm == RingAlgorithm::uhashring || algorithm == RingAlgorithm::ketama;
}

std::uint64_t hash_of(RingAlgorithm algorithm, const Md5& digest) {
  return algorithm == RingAlgorithm::uhashring ? upper_half(digest) : little_endian(digest, 0);
}

std::uint64_t hash_of(RingAlgorithm algorithm, std::string_view key) {
  switch (algorithm) {
    case RingAlgorithm::xxh3:
      return xxh3(key);
    case RingAlgorithm::murmur3:
      return murmur3(key);
    case RingAlgorithm::uhashring:
    case RingAlgorithm::ketama:
      return hash_of(algorithm, md5(key));
    case RingAlgorithm::kafka:
      return kafka_murmur2(key) & ~sign_bit;
    case RingAlgorithm::crc32:
      return crc32(key);
  }
  return 0;
}

std::uint64_t place_of(RingAlgorithm algorithm, std::uint64_t hash) {
  switch (algorithm) {
    case RingAlgorithm::murmur3:
      return (hash ^ sign_bit) << 32;
    case RingAlgorithm::ketama:
      return hash << 32;
    default:
      return hash;
  }
}

// "Strictly after the key" is "at or after it" when the points lie one lower. What lies at 0 comes to lie at
// the end of the ring, where it has the same keys.
std::uint64_t place_of_point(RingAlgorithm algorithm, std::uint64_t hash) {
  return place_of(algorithm, hash) - (algorithm == RingAlgorithm::xxh3 ? 0 : 1);
}

std::uint64_t hash_of_point(RingAlgorithm algorithm, std::uint64_t place) {
  const std::uint64_t after = place + 1;
  switch (algorithm) {
    case RingAlgorithm::murmur3:
      return after >> 32 ^ sign_bit;
    case RingAlgorithm::ketama:
      return after >> 32;
    case RingAlgorithm::uhashring:
      return after;
    default:
      return place;
  }
}

int bits_of(RingAlgorithm algorithm) {
  switch (algorithm) {
    case RingAlgorithm::xxh3:
    case RingAlgorithm::uhashring:
      return 64;
    case RingAlgorithm::kafka:
      return 31;
    default:
      return 32;
  }
}

// --- points

// Collects the labels of virtual nodes, and makes their points several at a time: what takes the time is MD5.
class PointMaker {
 public:
  PointMaker(RingAlgorithm algorithm, std::size_t points) : algorithm_(algorithm) { points_.reserve(points); }

  void add(std::string_view label, Partition partition) {
    if (!is_md5(algorithm_) || label.size() > md5_one_block_bytes_max) {
      append(label, partition);
      return;
    }
    Waiting& waiting = waiting_[waiting_count_++];
    waiting.label_bytes = label.copy(waiting.label.data(), waiting.label.size());
    waiting.partition = partition;
    if (waiting_count_ == waiting_.size()) {
      std::array<std::string_view, md5_lanes> labels;
      std::ranges::transform(waiting_, labels.begin(), &Waiting::text);
      const std::array<Md5, md5_lanes> digests = md5_of_many(labels);
      for (std::size_t i = 0; i < md5_lanes; ++i) {
        append(digests[i], waiting_[i].partition);
      }
      waiting_count_ = 0;
    }
  }

  std::vector<RingPoint> points() {
    for (std::size_t i = 0; i < waiting_count_; ++i) {
      append(waiting_[i].text(), waiting_[i].partition);
    }
    waiting_count_ = 0;
    return std::move(points_);
  }

 private:
  struct Waiting {
    std::array<char, md5_one_block_bytes_max> label;
    std::size_t label_bytes;
    Partition partition;
    [[nodiscard]] std::string_view text() const { return {label.data(), label_bytes}; }
  };

  void append(std::string_view label, Partition partition) {
    if (algorithm_ == RingAlgorithm::xxh3) {
      points_.push_back({xxh3_of_label(label), partition});
    } else if (is_md5(algorithm_)) {
      append(md5(label), partition);
    } else {
      points_.push_back({place_of_point(algorithm_, hash_of(algorithm_, label)), partition});
    }
  }

  void append(const Md5& digest, Partition partition) {
    if (algorithm_ == RingAlgorithm::uhashring) {
      points_.push_back({place_of_point(algorithm_, upper_half(digest)), partition});
      return;
    }
    for (std::size_t at = 0; at < digest.size(); at += 4) {
      points_.push_back({place_of_point(algorithm_, little_endian(digest, at)), partition});
    }
  }

  RingAlgorithm algorithm_;
  std::vector<RingPoint> points_;
  std::array<Waiting, md5_lanes> waiting_;
  std::size_t waiting_count_ = 0;
};

std::optional<RingPoints> points_of(const RingDescription& description) {
  require_sound(description);
  const RingAlgorithm algorithm = description.algorithm;
  if (!has_points(algorithm)) {
    return std::nullopt;
  }
  const std::vector<std::uint64_t> counts = points_of_members(description);
  const std::uint64_t points_per_label = algorithm == RingAlgorithm::ketama ? 4 : 1;
  PointMaker maker(algorithm, std::accumulate(counts.begin(), counts.end(), std::uint64_t{0}));
  for (std::size_t m = 0; m < counts.size(); ++m) {
    std::string label = description.members[m].node_name() + '-';
    const std::size_t number_at = label.size();
    constexpr std::size_t number_bytes_max = 20;
    label.resize(number_at + number_bytes_max);
    for (std::uint64_t i = 0; i < counts[m] / points_per_label; ++i) {
      const char* const end = std::to_chars(&label[number_at], label.data() + label.size(), i).ptr;
      maker.add({label.data(), static_cast<std::size_t>(end - label.data())},
                description.members[m].partition);
    }
  }
  return RingPoints(maker.points(), algorithm == RingAlgorithm::xxh3 ? EqualPoints::lowest_has_them
                                                                     : EqualPoints::highest_has_them);
}

}  // namespace

RingPoints::RingPoints(const std::vector<RingPoint>& unsorted, EqualPoints equal) {
  check(!unsorted.empty() && unsorted.size() <= ring_points_max, "a ring has 1 to ring_points_max points");
  // Two to four buckets a point: measured as the best of what comparisons and table cost together.
  const unsigned bits = static_cast<unsigned>(std::bit_width(unsorted.size() - 1)) + 1;
  shift_ = 64 - bits;

  // A bucket sort. The buckets are in order already, so only the few points within one are compared.
  first_at_.assign((std::size_t{1} << bits) + 1, 0);
  for (const RingPoint& point : unsorted) {
    ++first_at_[(point.hash >> shift_) + 1];
  }
  std::partial_sum(first_at_.begin(), first_at_.end(), first_at_.begin());
  std::vector<std::uint32_t> next_at(first_at_.begin(), first_at_.end() - 1);
  std::vector<RingPoint> points(unsorted.size());
  for (const RingPoint& point : unsorted) {
    points[next_at[point.hash >> shift_]++] = point;
  }
  const auto before = [equal](const RingPoint& a, const RingPoint& b) {
    if (a.hash != b.hash) {
      return a.hash < b.hash;
    }
    return equal == EqualPoints::lowest_has_them ? a.partition < b.partition : b.partition < a.partition;
  };
  for (std::size_t bucket = 0; bucket + 1 < first_at_.size(); ++bucket) {
    if (first_at_[bucket + 1] - first_at_[bucket] > 1) {
      std::sort(points.begin() + first_at_[bucket], points.begin() + first_at_[bucket + 1], before);
    }
  }

  points.push_back({std::numeric_limits<std::uint64_t>::max(), points.front().partition});
  hashes_.reserve(points.size());
  owners_.reserve(points.size());
  for (const RingPoint& point : points) {
    hashes_.push_back(point.hash);
    owners_.push_back(point.partition);
  }
}

RingPoint RingPoints::at_or_after(std::uint64_t hash) const {
  std::size_t at = first_at_[hash >> shift_];
  while (hashes_[at] < hash) {
    ++at;
  }
  return {at + 1 != hashes_.size() ? hashes_[at] : hashes_.front(), owners_[at]};
}

std::vector<RingPoint> RingPoints::sorted() const {
  std::vector<RingPoint> points;
  points.reserve(hashes_.size() - 1);
  for (std::size_t at = 0; at + 1 < hashes_.size(); ++at) {
    points.push_back({hashes_[at], owners_[at]});
  }
  return points;
}

Ring::Ring(RingDescription description)
    : description_(std::move(description)), points_(points_of(description_)) {}

Partition Ring::owner(std::string_view key) const {
  // Known to be the likely one, so that every key of every publisher pays for no other.
  if (description_.algorithm == RingAlgorithm::xxh3) [[likely]] {
    return points_->at_or_after(xxh3(key)).partition;
  }
  return owner_otherwise(key);
}

Partition Ring::owner_otherwise(std::string_view key) const {
  const RingAlgorithm algorithm = description_.algorithm;
  const std::uint64_t hash = hash_of(algorithm, key);
  if (!points_) {
    return Partition{static_cast<std::uint32_t>(hash % description_.members.size())};
  }
  return points_->at_or_after(place_of(algorithm, hash)).partition;
}

void Ring::owners(std::span<const std::string_view> keys, std::span<Partition> out) const {
  check(keys.size() == out.size(), "each key has an owner");
  std::size_t at = 0;
  if (is_md5(description_.algorithm)) {
    std::array<std::string_view, md5_lanes> some;
    for (; at + md5_lanes <= keys.size(); at += md5_lanes) {
      std::copy_n(&keys[at], md5_lanes, some.begin());
      if (std::ranges::any_of(some,
                              [](std::string_view key) { return key.size() > md5_one_block_bytes_max; })) {
        std::ranges::transform(some, &out[at], [this](std::string_view key) { return owner(key); });
        continue;
      }
      const std::array<Md5, md5_lanes> digests = md5_of_many(some);
      for (std::size_t i = 0; i < md5_lanes; ++i) {
        const std::uint64_t hash = hash_of(description_.algorithm, digests[i]);
        out[at + i] = points_->at_or_after(place_of(description_.algorithm, hash)).partition;
      }
    }
  }
  for (; at < keys.size(); ++at) {
    out[at] = owner(keys[at]);
  }
}

Ring::Located Ring::locate(std::string_view key) const {
  const RingAlgorithm algorithm = description_.algorithm;
  const std::uint64_t hash = hash_of(algorithm, key);
  if (!points_) {
    return {owner(key), hash, std::nullopt};
  }
  const RingPoint point = points_->at_or_after(place_of(algorithm, hash));
  return {point.partition, hash, hash_of_point(algorithm, point.hash)};
}

int Ring::hash_digits() const {
  return (bits_of(description_.algorithm) + 3) / 4;
}

std::vector<RingPoint> Ring::points() const {
  return points_ ? points_->sorted() : std::vector<RingPoint>{};
}

std::vector<double> Ring::shares() const {
  std::vector<double> shares(description_.members.size());
  if (!points_) {
    const std::uint64_t hashes = std::uint64_t{1} << bits_of(description_.algorithm);
    for (std::size_t i = 0; i < shares.size(); ++i) {
      const std::uint64_t owned = (hashes - 1 - i) / shares.size() + 1;
      shares[i] = static_cast<double>(owned) / static_cast<double>(hashes);
    }
    return shares;
  }
  std::vector<std::size_t> member_at(partitions_max);
  for (std::size_t i = 0; i < description_.members.size(); ++i) {
    member_at[description_.members[i].partition.value] = i;
  }
  const std::vector<RingPoint> points = points_->sorted();
  if (points.front().hash == points.back().hash) {
    // All points are one: the distance all around is 2^64, which 64 bits cannot say.
    shares[member_at[points.front().partition.value]] = 1;
    return shares;
  }
  std::uint64_t before = points.back().hash;
  for (const RingPoint& point : points) {
    shares[member_at[point.partition.value]] += std::ldexp(static_cast<double>(point.hash - before), -64);
    before = point.hash;
  }
  return shares;
}

}  // namespace continuum
