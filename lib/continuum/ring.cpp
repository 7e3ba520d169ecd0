#include "continuum/ring.hpp"

#include "continuum/error.hpp"

// Labels and keys are short: a call into the shared library would cost more than the hash.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace continuum {
namespace {

constexpr std::string_view algorithm_xxh3 = "xxh3";
constexpr std::uint32_t weight_one = 1000;
constexpr std::uint32_t weight_min = 1;
constexpr std::uint32_t weight_max = 1000 * weight_one;
constexpr std::uint64_t points_max = 4'194'304;

std::uint64_t hash_of(std::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

// Not inlined: g++ 12 would take the branches for long inputs as reads beyond the label, and warn.
[[gnu::noinline]] std::uint64_t hash_of_label(std::string_view label) {
  return hash_of(label);
}

std::uint64_t points_of(const RingMember& member, std::uint32_t virtual_nodes) {
  const std::uint64_t thousandths = std::uint64_t{virtual_nodes} * member.weight_thousandths;
  return std::max<std::uint64_t>(1, (thousandths + weight_one / 2) / weight_one);
}

std::string weight_text(std::uint32_t thousandths) {
  std::string text = fmt::format("{}", thousandths / weight_one);
  if (const std::uint32_t rest = thousandths % weight_one; rest != 0) {
    text += fmt::format(".{:03}", rest);
    text.erase(text.find_last_not_of('0') + 1);
  }
  return text;
}

// The limits that a description has however it was made. Returns what is wrong, empty when nothing is.
std::string broken_limit(const RingDescription& description) {
  if (description.algorithm != algorithm_xxh3) {
    return "the algorithm is not known: use xxh3";
  }
  if (description.virtual_nodes == 0) {
    return "virtual nodes per unit of weight must be at least 1 (256 is the default)";
  }
  if (description.members.empty()) {
    return "a ring needs at least one partition";
  }
  std::uint64_t points = 0;
  const RingMember* before = nullptr;
  for (const RingMember& member : description.members) {
    if (member.partition.value >= partitions_max) {
      return fmt::format("partition {} is above the highest, {}", member.partition, partitions_max - 1);
    }
    if (before != nullptr && member.partition <= before->partition) {
      return fmt::format("partition {} does not come after partition {}: each is given once, in rising order",
                         member.partition, before->partition);
    }
    if (member.weight_thousandths < weight_min || member.weight_thousandths > weight_max) {
      return fmt::format("weight {} of partition {} is outside of 0.001 to 1000",
                         weight_text(member.weight_thousandths), member.partition);
    }
    points += points_of(member, description.virtual_nodes);
    before = &member;
  }
  if (points > points_max) {
    return fmt::format("{} virtual nodes in all are more than {}: give fewer, or lower weights", points,
                       points_max);
  }
  return {};
}

// Reads the grammar of the header. The first thing that does not fit ends it with an Error.
class DescriptionReader {
 public:
  explicit DescriptionReader(std::string_view text) : text_(text) {}

  RingDescription read() {
    RingDescription description;
    const std::size_t colon = std::min(text_.find(':'), text_.size());
    description.algorithm = std::string(text_.substr(0, colon));
    if (description.algorithm != algorithm_xxh3) {
      wrong(0, "the algorithm is not known: use xxh3");
    }
    at_ = colon;
    expect(':', "behind the algorithm");
    const std::size_t virtual_nodes_at = at_;
    description.virtual_nodes = number("the number of virtual nodes");
    if (description.virtual_nodes == 0) {
      wrong(virtual_nodes_at, "the number of virtual nodes is 0: at least 1 is needed (256 is the default)");
    }
    expect(':', "behind the number of virtual nodes");
    do {
      read_member(description);
    } while (accept(','));
    if (at_ != text_.size()) {
      wrong(at_, fmt::format("expected ',' or the end, found {}", found()));
    }
    return description;
  }

 private:
  void read_member(RingDescription& description) {
    const std::size_t member_at = at_;
    const std::uint32_t first = partition();
    std::uint32_t last = first;
    if (accept('-')) {
      const std::size_t last_at = at_;
      last = partition();
      if (last < first) {
        wrong(last_at, fmt::format("the range ends at {}, before its begin {}", last, first));
      }
    }
    if (!description.members.empty() && first <= description.members.back().partition.value) {
      wrong(member_at,
            fmt::format("partition {} does not come after partition {}: each is given once, in rising order",
                        first, description.members.back().partition));
    }
    const std::uint32_t weight = accept('*') ? read_weight() : weight_one;
    for (std::uint32_t partition = first; partition <= last; ++partition) {
      const RingMember member{Partition{partition}, weight};
      points_ += points_of(member, description.virtual_nodes);
      description.members.push_back(member);
    }
    if (points_ > points_max) {
      wrong(member_at,
            fmt::format("{} virtual nodes up to here are more than {}: give fewer, or lower weights", points_,
                        points_max));
    }
  }

  std::uint32_t partition() {
    const std::size_t number_at = at_;
    const std::uint32_t partition = number("a partition");
    if (partition >= partitions_max) {
      wrong(number_at, fmt::format("partition {} is above the highest, {}", partition, partitions_max - 1));
    }
    return partition;
  }

  std::uint32_t read_weight() {
    const std::size_t weight_at = at_;
    const std::uint32_t whole = number("a weight");
    std::uint32_t thousandths = 0;
    if (accept('.')) {
      if (!at_digit()) {
        wrong(at_, fmt::format("expected a digit behind the point of the weight, found {}", found()));
      }
      for (std::uint32_t unit = weight_one / 10; at_digit(); unit /= 10) {
        if (unit == 0) {
          wrong(at_, "a weight has at most 3 decimals");
        }
        thousandths += unit * digit();
      }
    }
    if (whole > weight_max / weight_one) {
      wrong(weight_at, "the weight is outside of 0.001 to 1000");
    }
    thousandths += whole * weight_one;
    if (thousandths < weight_min || thousandths > weight_max) {
      wrong(weight_at, "the weight is outside of 0.001 to 1000");
    }
    return thousandths;
  }

  std::uint32_t number(std::string_view what) {
    if (!at_digit()) {
      wrong(at_, fmt::format("expected {}, found {}", what, found()));
    }
    const std::size_t number_at = at_;
    if (text_[at_] == '0') {
      ++at_;
      if (at_digit()) {
        wrong(number_at, fmt::format("{} has a leading zero", what));
      }
      return 0;
    }
    std::uint64_t value = 0;
    while (at_digit()) {
      value = 10 * value + digit();
      if (value > std::numeric_limits<std::uint32_t>::max()) {
        wrong(number_at, fmt::format("{} is too large", what));
      }
    }
    return static_cast<std::uint32_t>(value);
  }

  [[nodiscard]] bool at_digit() const { return at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; }
  std::uint32_t digit() { return static_cast<std::uint32_t>(text_[at_++] - '0'); }

  bool accept(char c) {
    const bool accepted = at_ < text_.size() && text_[at_] == c;
    at_ += accepted ? 1 : 0;
    return accepted;
  }

  void expect(char c, std::string_view where) {
    if (!accept(c)) {
      wrong(at_, fmt::format("expected '{}' {}, found {}", c, where, found()));
    }
  }

  // Never the byte itself unless it is harmless: descriptions come from a server too.
  [[nodiscard]] std::string found() const {
    if (at_ >= text_.size()) {
      return "the end";
    }
    const char c = text_[at_];
    return c >= ' ' && c <= '~' ? fmt::format("'{}'", c)
                                : fmt::format("byte 0x{:02x}", static_cast<unsigned char>(c));
  }

  [[noreturn]] static void wrong(std::size_t byte, std::string_view what) {
    fail(ErrorKind::usage, "ring description, byte {}: {} (the form is xxh3:256:0-7 or xxh3:256:0-6,7*0.5)",
         byte, what);
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::uint64_t points_ = 0;
};

std::vector<RingPoint> points_of(const RingDescription& description) {
  if (const std::string broken = broken_limit(description); !broken.empty()) {
    fail(ErrorKind::usage, "ring description: {}", broken);
  }
  std::uint64_t count = 0;
  for (const RingMember& member : description.members) {
    count += points_of(member, description.virtual_nodes);
  }
  std::vector<RingPoint> points;
  points.reserve(count);
  char label[32];
  for (const RingMember& member : description.members) {
    char* const number_at = std::to_chars(label, std::end(label), member.partition.value).ptr + 1;
    number_at[-1] = '-';
    const std::uint64_t member_points = points_of(member, description.virtual_nodes);
    for (std::uint64_t i = 0; i < member_points; ++i) {
      const char* const end = std::to_chars(number_at, std::end(label), i).ptr;
      const std::uint64_t hash = hash_of_label({label, static_cast<std::size_t>(end - label)});
      points.push_back({hash, member.partition});
    }
  }
  return points;
}

}  // namespace

RingDescription RingDescription::uniform(std::uint32_t partitions) {
  if (partitions == 0 || partitions > partitions_max) {
    fail(ErrorKind::usage, "{} partitions: a ring has 1 to {}", partitions, partitions_max);
  }
  RingDescription description;
  description.members.reserve(partitions);
  for (std::uint32_t partition = 0; partition < partitions; ++partition) {
    description.members.push_back({.partition = Partition{partition}});
  }
  return description;
}

RingDescription RingDescription::parse(std::string_view text) {
  return DescriptionReader(text).read();
}

std::string RingDescription::text() const {
  std::string text = fmt::format("{}:{}:", algorithm, virtual_nodes);
  for (auto first = members.begin(); first != members.end();) {
    auto last = first;
    while (last + 1 != members.end() && (last + 1)->partition == last->partition + 1 &&
           (last + 1)->weight_thousandths == first->weight_thousandths) {
      ++last;
    }
    text += fmt::format("{}{}", first == members.begin() ? "" : ",", first->partition);
    if (last != first) {
      text += fmt::format("-{}", last->partition);
    }
    if (first->weight_thousandths != weight_one) {
      text += fmt::format("*{}", weight_text(first->weight_thousandths));
    }
    first = last + 1;
  }
  return text;
}

RingPoints::RingPoints(const std::vector<RingPoint>& unsorted) {
  check(!unsorted.empty() && unsorted.size() <= points_max, "a ring has 1 to points_max points");
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
  const auto before = [](const RingPoint& a, const RingPoint& b) {
    return a.hash != b.hash ? a.hash < b.hash : a.partition < b.partition;
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
  return points_.at_or_after(hash_of(key)).partition;
}

Ring::Located Ring::locate(std::string_view key) const {
  const std::uint64_t hash = hash_of(key);
  const RingPoint point = points_.at_or_after(hash);
  return {point.partition, hash, point.hash};
}

std::vector<double> Ring::shares() const {
  std::vector<std::size_t> member_at(partitions_max);
  for (std::size_t i = 0; i < description_.members.size(); ++i) {
    member_at[description_.members[i].partition.value] = i;
  }
  std::vector<double> shares(description_.members.size());
  const std::vector<RingPoint> points = points_.sorted();
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
