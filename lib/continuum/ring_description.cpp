#include "continuum/ring_description.hpp"

#include "continuum/error.hpp"
#include "continuum/json_text.hpp"
#include "continuum/names.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <set>

namespace continuum {
namespace {

constexpr std::uint32_t weight_one = 1000;
constexpr std::uint32_t weight_min = 1;
constexpr std::uint32_t weight_max = 1000 * weight_one;
constexpr std::uint64_t ketama_points_per_node = 4;
constexpr std::string_view continuum_form = "xxh3:256:0-7 or xxh3:256:0-6,7*0.5";
constexpr std::string_view named_form = "uhashring:160:0-7 or ketama:40:0=a,1=b*2";
constexpr std::string_view modulo_form = "kafka:0-7";

struct Traits {
  std::string_view name;
  std::uint32_t virtual_nodes;  // 0: modulo
  bool has_node_names;
};
// In the order of the enum. The defaults of others are uHashRing's.
constexpr std::array<Traits, 6> all_traits{{{"xxh3", 256, false},
                                            {"murmur3", 160, true},
                                            {"uhashring", 160, true},
                                            {"ketama", 40, true},
                                            {"kafka", 0, false},
                                            {"crc32", 0, false}}};

const Traits& traits_of(RingAlgorithm algorithm) {
  return all_traits.at(static_cast<std::size_t>(algorithm));
}

// uHashRing takes integers only.
bool has_whole_weights(RingAlgorithm algorithm) {
  return has_points(algorithm) && algorithm != RingAlgorithm::xxh3;
}

bool is_name_byte(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
         std::string_view("._-:/@").find(c) != std::string_view::npos;
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
}

std::string out_of_order(std::uint32_t partition, Partition before) {
  return fmt::format("partition {} does not come after partition {}: each is given once, in rising order",
                     partition, before);
}

// What is wrong with the weight, empty when nothing is.
std::string broken_weight(std::uint32_t thousandths, RingAlgorithm algorithm) {
  if (thousandths < weight_min || thousandths > weight_max) {
    return "is outside of 0.001 to 1000";
  }
  if (!has_points(algorithm) && thousandths != weight_one) {
    return fmt::format("cannot be: {} divides by the number of partitions and knows no weights",
                       name_of(algorithm));
  }
  if (has_whole_weights(algorithm) && thousandths % weight_one != 0) {
    return fmt::format("is not whole: {} has whole weights only", name_of(algorithm));
  }
  return {};
}

std::string broken_name(std::string_view name) {
  if (name.size() > node_name_bytes_max) {
    return fmt::format("the node name {}… has {} bytes: at most {} are allowed",
                       printable(name.substr(0, 20)), name.size(), node_name_bytes_max);
  }
  if (std::ranges::any_of(name, is_control)) {
    return fmt::format("the node name {} has a control character in it", printable(name));
  }
  return {};
}

std::string broken_names(const RingDescription& description) {
  if (std::ranges::all_of(description.members, &std::string::empty, &RingMember::node)) {
    return {};
  }
  std::set<std::string> names;
  for (const RingMember& member : description.members) {
    if (!member.node.empty() && !has_node_names(description.algorithm)) {
      return fmt::format("partition {} has a node name: {} places by numbers alone", member.partition,
                         name_of(description.algorithm));
    }
    if (auto broken = broken_name(member.node); !broken.empty()) {
      return broken;
    }
    if (const auto name = member.node_name(); !names.insert(name).second) {
      return fmt::format("two nodes have the name {}: each needs one of its own", printable(name));
    }
  }
  return {};
}

std::string broken_points(const RingDescription& description) {
  const std::vector<std::uint64_t> points = points_of_members(description);
  const auto none = std::ranges::find(points, std::uint64_t{0});
  if (none != points.end()) {
    const RingMember& member = description.members[static_cast<std::size_t>(none - points.begin())];
    return fmt::format(
        "partition {} would have no virtual node at all beside weights that are so much higher: raise its "
        "weight, or the number of virtual nodes",
        member.partition);
  }
  if (const auto sum = std::accumulate(points.begin(), points.end(), std::uint64_t{0});
      sum > ring_points_max) {
    return fmt::format("{} virtual nodes in all are more than {}: give fewer, or lower weights", sum,
                       ring_points_max);
  }
  return {};
}

// The limits that a description has however it was made. Returns what is wrong, empty when nothing is.
std::string broken_limit(const RingDescription& description) {
  const bool points = has_points(description.algorithm);
  if (points && description.virtual_nodes == 0) {
    return fmt::format("virtual nodes per unit of weight must be at least 1 ({} is the default)",
                       default_virtual_nodes(description.algorithm));
  }
  if (!points && description.virtual_nodes != 0) {
    return fmt::format("{} has no virtual nodes", name_of(description.algorithm));
  }
  if (description.members.empty()) {
    return "a ring needs at least one partition";
  }
  const RingMember* before = nullptr;
  std::uint32_t expected = 0;
  for (const RingMember& member : description.members) {
    if (member.partition.value >= partitions_max) {
      return fmt::format("partition {} is above the highest, {}", member.partition, partitions_max - 1);
    }
    if (before != nullptr && member.partition <= before->partition) {
      return out_of_order(member.partition.value, before->partition);
    }
    if (!points && member.partition.value != expected) {
      return fmt::format("partition {} is missing: {} has all from 0 on", expected,
                         name_of(description.algorithm));
    }
    if (const auto broken = broken_weight(member.weight_thousandths, description.algorithm);
        !broken.empty()) {
      return fmt::format("weight {} of partition {} {}", weight_text(member.weight_thousandths),
                         member.partition, broken);
    }
    before = &member;
    ++expected;
  }
  std::string broken = broken_names(description);
  return broken.empty() ? broken_points(description) : broken;
}

// Reads the grammar of the header. The first thing that does not fit ends it with an Error.
class DescriptionReader {
 public:
  DescriptionReader(std::string_view what, std::string_view text, std::string_view form)
      : what_(what), text_(text), form_(form) {}

  RingDescription read() {
    RingDescription description;
    at_ = std::min(text_.find(':'), text_.size());
    try {
      description.algorithm = parse_ring_algorithm(text_.substr(0, at_));
    } catch (const Error& error) {
      wrong(0, error.message());
    }
    form_ = has_node_names(description.algorithm) ? named_form
            : has_points(description.algorithm)   ? continuum_form
                                                  : modulo_form;
    description.virtual_nodes = 0;
    expect(':', "behind the algorithm");
    if (has_points(description.algorithm)) {
      const std::size_t virtual_nodes_at = at_;
      description.virtual_nodes = number("the number of virtual nodes");
      if (description.virtual_nodes == 0) {
        wrong(virtual_nodes_at,
              fmt::format("the number of virtual nodes is 0: at least 1 is needed ({} is the default)",
                          default_virtual_nodes(description.algorithm)));
      }
      expect(':', "behind the number of virtual nodes");
    }
    do {
      read_member(description);
    } while (accept(','));
    if (at_ != text_.size()) {
      wrong(at_, fmt::format("expected ',' or the end, found {}", found()));
    }
    if (const std::string broken = broken_limit(description); !broken.empty()) {
      fail(ErrorKind::usage, "{}: {} (the form is {})", what_, broken, form_);
    }
    return description;
  }

  PartitionWeight read_partition_weight() {
    const Partition of{partition()};
    expect('=', "behind the partition");
    const std::uint32_t weight = read_weight();
    if (at_ != text_.size()) {
      wrong(at_, fmt::format("expected the end, found {}", found()));
    }
    return {of, weight};
  }

 private:
  void read_member(RingDescription& description) {
    const std::size_t member_at = at_;
    const std::uint32_t first = partition();
    std::uint32_t last = first;
    std::string name;
    if (accept('-')) {
      const std::size_t last_at = at_;
      last = partition();
      if (last < first) {
        wrong(last_at, fmt::format("the range ends at {}, before its begin {}", last, first));
      }
    } else if (has_node_names(description.algorithm) && accept('=')) {
      name = read_name();
    }
    if (!description.members.empty() && first <= description.members.back().partition.value) {
      wrong(member_at, out_of_order(first, description.members.back().partition));
    }
    const std::size_t weight_at = at_ + 1;
    const std::uint32_t weight = accept('*') ? read_weight() : weight_one;
    if (const std::string broken = broken_weight(weight, description.algorithm); !broken.empty()) {
      wrong(weight_at, "the weight " + broken);
    }
    for (std::uint32_t partition = first; partition <= last; ++partition) {
      RingMember member{.partition = Partition{partition}, .weight_thousandths = weight, .node = name};
      // What says nothing new is left out, so that equal rings have equal descriptions.
      if (member.node == RingMember{.partition = member.partition}.node_name()) {
        member.node.clear();
      }
      description.members.push_back(std::move(member));
    }
  }

  std::string read_name() {
    const std::size_t name_at = at_;
    std::string name;
    while (at_ < text_.size() && (is_name_byte(text_[at_]) || text_[at_] == '%')) {
      name += text_[at_] == '%' ? escaped_byte() : text_[at_++];
      if (name.size() > node_name_bytes_max) {
        wrong(name_at, fmt::format("the node name is longer than {} bytes", node_name_bytes_max));
      }
    }
    if (name.empty()) {
      wrong(at_, fmt::format("expected a node name, found {}", found()));
    }
    return name;
  }

  char escaped_byte() {
    const std::size_t percent_at = at_++;
    int byte = 0;
    for (int i = 0; i < 2; ++i) {
      const bool is_digit = at_ < text_.size() && (text_[at_] < 'a' || text_[at_] > 'f');
      const int digit = is_digit ? json::hex_digit(text_[at_]) : -1;
      if (digit < 0) {
        wrong(at_, fmt::format("expected two digits of 0-9A-F behind '%', found {}", found()));
      }
      byte = 16 * byte + digit;
      ++at_;
    }
    const char c = static_cast<char>(byte);
    if (is_name_byte(c) || is_control(c)) {
      wrong(percent_at, is_control(c) ? "a node name has no control characters"
                                      : fmt::format("write '{}' as it is, not by '%'", c));
    }
    return c;
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
    if (whole > weight_max / weight_one || whole * weight_one + thousandths < weight_min ||
        whole * weight_one + thousandths > weight_max) {
      wrong(weight_at, "the weight is outside of 0.001 to 1000");
    }
    return whole * weight_one + thousandths;
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

  [[noreturn]] void wrong(std::size_t byte, std::string_view what) const {
    fail(ErrorKind::usage, "{}, byte {}: {} (the form is {})", what_, byte, what, form_);
  }

  std::string_view what_;
  std::string_view text_;
  std::string_view form_;
  std::size_t at_ = 0;
};

void append_escaped(std::string& text, std::string_view name) {
  for (const char c : name) {
    if (is_name_byte(c)) {
      text += c;
    } else {
      text += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
}

}  // namespace

std::string_view name_of(RingAlgorithm algorithm) {
  return traits_of(algorithm).name;
}

RingAlgorithm parse_ring_algorithm(std::string_view text) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < all_traits.size(); ++i) {
    if (all_traits[i].name == text) {
      return static_cast<RingAlgorithm>(i);
    }
    names.emplace_back(all_traits[i].name);
  }
  constexpr std::size_t shown_max = 64;
  const bool is_cut = text.size() > shown_max;
  fail(ErrorKind::usage, "there is no algorithm \"{}{}\"{}", printable(text.substr(0, shown_max)),
       is_cut ? "…" : "", hint_of(text, names));
}

bool has_points(RingAlgorithm algorithm) {
  return traits_of(algorithm).virtual_nodes != 0;
}

bool has_node_names(RingAlgorithm algorithm) {
  return traits_of(algorithm).has_node_names;
}

std::uint32_t default_virtual_nodes(RingAlgorithm algorithm) {
  return traits_of(algorithm).virtual_nodes;
}

std::string RingMember::node_name() const {
  return node.empty() ? std::to_string(partition.value) : node;
}

PartitionWeight parse_partition_weight(std::string_view text) {
  return DescriptionReader("weight", text, "3=1.5").read_partition_weight();
}

std::string weight_text(std::uint32_t thousandths) {
  std::string text = fmt::format("{}", thousandths / weight_one);
  if (const std::uint32_t rest = thousandths % weight_one; rest != 0) {
    text += fmt::format(".{:03}", rest);
    text.erase(text.find_last_not_of('0') + 1);
  }
  return text;
}

void require_sound(const RingDescription& description) {
  if (const std::string broken = broken_limit(description); !broken.empty()) {
    fail(ErrorKind::usage, "ring description: {}", broken);
  }
}

std::vector<std::uint64_t> points_of_members(const RingDescription& description) {
  std::vector<std::uint64_t> points;
  if (!has_points(description.algorithm)) {
    return points;
  }
  std::uint64_t weights = 0;
  for (const RingMember& member : description.members) {
    weights += member.weight_thousandths;
  }
  points.reserve(description.members.size());
  for (const RingMember& member : description.members) {
    const std::uint64_t thousandths = std::uint64_t{description.virtual_nodes} * member.weight_thousandths;
    if (description.algorithm == RingAlgorithm::ketama) {
      points.push_back(thousandths * description.members.size() / weights * ketama_points_per_node);
    } else {
      points.push_back(std::max<std::uint64_t>(1, (thousandths + weight_one / 2) / weight_one));
    }
  }
  return points;
}

RingDescription RingDescription::uniform(std::uint32_t partitions, RingAlgorithm algorithm) {
  RingDescription empty;
  empty.algorithm = algorithm;
  empty.virtual_nodes = default_virtual_nodes(algorithm);
  return empty.with_partitions(partitions);
}

RingDescription RingDescription::parse(std::string_view text) {
  return DescriptionReader("ring description", text, continuum_form).read();
}

std::string RingDescription::text() const {
  std::string text = fmt::format("{}:", name_of(algorithm));
  if (has_points(algorithm)) {
    text += fmt::format("{}:", virtual_nodes);
  }
  for (auto first = members.begin(); first != members.end();) {
    auto last = first;
    while (last + 1 != members.end() && (last + 1)->partition == last->partition + 1 &&
           (last + 1)->weight_thousandths == first->weight_thousandths && first->node.empty() &&
           (last + 1)->node.empty()) {
      ++last;
    }
    text += fmt::format("{}{}", first == members.begin() ? "" : ",", first->partition);
    if (last != first) {
      text += fmt::format("-{}", last->partition);
    }
    if (!first->node.empty()) {
      text += '=';
      append_escaped(text, first->node);
    }
    if (first->weight_thousandths != weight_one) {
      text += fmt::format("*{}", weight_text(first->weight_thousandths));
    }
    first = last + 1;
  }
  return text;
}

namespace {

// Not looked at yet: names of old members may be numbers of new ones.
RingDescription resized(const RingDescription& ring, std::size_t partitions) {
  if (partitions == 0 || partitions > partitions_max) {
    fail(ErrorKind::usage, "{} partitions: a ring has 1 to {}", partitions, partitions_max);
  }
  RingDescription changed = ring;
  changed.members.clear();
  changed.members.reserve(partitions);
  auto old = ring.members.begin();
  for (std::uint32_t partition = 0; partition < partitions; ++partition) {
    while (old != ring.members.end() && old->partition.value < partition) {
      ++old;
    }
    const bool stays = old != ring.members.end() && old->partition.value == partition;
    changed.members.push_back(stays ? *old : RingMember{.partition = Partition{partition}});
  }
  return changed;
}

}  // namespace

RingDescription RingDescription::with_partitions(std::uint32_t partitions) const {
  RingDescription changed = resized(*this, partitions);
  require_sound(changed);
  return changed;
}

RingDescription RingDescription::with_nodes(std::span<const std::string> names) const {
  RingDescription changed = resized(*this, names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    changed.members[i].node = names[i];
  }
  require_sound(changed);
  return RingDescription::parse(changed.text());  // a name that is the number of its partition is none
}

RingDescription RingDescription::with_weights(std::span<const PartitionWeight> weights) const {
  RingDescription changed = *this;
  for (const PartitionWeight& weight : weights) {
    const auto member = std::ranges::find(changed.members, weight.partition, &RingMember::partition);
    if (member == changed.members.end()) {
      fail(ErrorKind::usage, "weight {} for partition {}: the ring {} has no such partition",
           weight_text(weight.thousandths), weight.partition, text());
    }
    member->weight_thousandths = weight.thousandths;
  }
  require_sound(changed);
  return changed;
}

}  // namespace continuum
