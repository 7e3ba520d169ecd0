#include "continuum/ring_change.hpp"

#include "continuum/error.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

namespace continuum {
namespace {

void check_comparable(const Ring& before, const Ring& after) {
  check(before.description().algorithm == after.description().algorithm,
        "rings of different algorithms have no common space of hashes");
}

// Calls visit(owner before, owner after, length) for each stretch of the ring that has one owner in both.
template <class Visit>
void for_stretches(const Ring& before, const Ring& after, Visit visit) {
  const std::vector<RingPoint> old_points = before.points();
  const std::vector<RingPoint> new_points = after.points();
  constexpr std::uint64_t last = std::numeric_limits<std::uint64_t>::max();
  std::size_t i = 0;
  std::size_t j = 0;
  std::uint64_t from = 0;  // the first hash of the stretch
  for (;;) {
    // What lies behind the last point belongs to the first one.
    const RingPoint& old_point = old_points[i < old_points.size() ? i : 0];
    const RingPoint& new_point = new_points[j < new_points.size() ? j : 0];
    const std::uint64_t old_end = i < old_points.size() ? old_point.hash : last;
    const std::uint64_t new_end = j < new_points.size() ? new_point.hash : last;
    const std::uint64_t end = std::min(old_end, new_end);
    if (end >= from) {
      visit(old_point.partition, new_point.partition, static_cast<double>(end - from) + 1);
    }
    if (end == last) {
      return;
    }
    from = end + 1;
    while (i < old_points.size() && old_points[i].hash <= end) {
      ++i;
    }
    while (j < new_points.size() && new_points[j].hash <= end) {
      ++j;
    }
  }
}

double largest(const std::vector<double>& shares) {
  return *std::ranges::max_element(shares);
}

// Calls visit(from, to) for each pair of different partitions between which `hash mod partitions` moves keys.
// A hash with the remainders r and s has one place among the least common multiple of both numbers, and there
// is one wherever r and s agree about their greatest common divisor.
template <class Visit>
void for_remainders(std::size_t before, std::size_t after, Visit visit) {
  const std::size_t common = std::gcd(before, after);
  for (std::size_t r = 0; r < before; ++r) {
    for (std::size_t s = r % common; s < after; s += common) {
      if (r != s) {
        visit(Partition{static_cast<std::uint32_t>(r)}, Partition{static_cast<std::uint32_t>(s)});
      }
    }
  }
}

}  // namespace

std::vector<RingMove> moves(const Ring& before, const Ring& after) {
  check_comparable(before, after);
  std::vector<RingMove> moves;
  if (has_points(before.description().algorithm)) {
    std::map<std::pair<Partition, Partition>, double> lengths;
    for_stretches(before, after, [&](Partition from, Partition to, double length) {
      if (from != to) {
        lengths[{from, to}] += length;
      }
    });
    for (const auto& [pair, length] : lengths) {
      moves.push_back({pair.first, pair.second, std::ldexp(length, -64)});
    }
  } else {
    const std::size_t n = before.description().members.size();
    const std::size_t m = after.description().members.size();
    const double share = 1 / static_cast<double>(std::lcm(n, m));
    for_remainders(n, m, [&](Partition from, Partition to) { moves.push_back({from, to, share}); });
  }
  std::ranges::stable_sort(moves, [](const RingMove& a, const RingMove& b) { return a.share > b.share; });
  return moves;
}

Donors donors(const Ring& before, const Ring& after) {
  check_comparable(before, after);
  Donors donors;
  if (has_points(before.description().algorithm)) {
    for_stretches(before, after, [&](Partition from, Partition to, double) {
      if (from != to) {
        donors[to].push_back(from);
      }
    });
  } else {
    for_remainders(before.description().members.size(), after.description().members.size(),
                   [&](Partition from, Partition to) { donors[to].push_back(from); });
  }
  for (auto& [to, givers] : donors) {
    std::ranges::sort(givers);
    givers.erase(std::unique(givers.begin(), givers.end()), givers.end());
  }
  return donors;
}

double moved_by_modulo(std::uint64_t before, std::uint64_t after) {
  return 1 - static_cast<double>(std::min(before, after)) / static_cast<double>(std::lcm(before, after));
}

double moved_if_fair(const RingDescription& before, const RingDescription& after) {
  const auto fair_shares = [](const RingDescription& description) {
    double sum = 0;
    for (const RingMember& member : description.members) {
      sum += member.weight_thousandths;
    }
    std::map<Partition, double> shares;
    for (const RingMember& member : description.members) {
      shares[member.partition] = member.weight_thousandths / sum;
    }
    return shares;
  };
  const auto had = fair_shares(before);
  double gained = 0;
  for (const auto& [partition, share] : fair_shares(after)) {
    const auto found = had.find(partition);
    gained += std::max(0.0, share - (found == had.end() ? 0 : found->second));
  }
  return gained;
}

PartitionNeed partitions_needed(const RingDescription& like, double events_per_second, double handler_seconds,
                                double busy_max) {
  check(events_per_second >= 0 && handler_seconds >= 0 && busy_max > 0, "a rate and a time are not negative");
  PartitionNeed need{events_per_second * handler_seconds, 0, 0};
  double wanted = std::max(1.0, std::ceil(need.handlers_busy / busy_max));
  while (wanted <= partitions_max) {
    RingDescription description =
        RingDescription::uniform(static_cast<std::uint32_t>(wanted), like.algorithm);
    description.virtual_nodes = like.virtual_nodes;
    need.busiest = need.handlers_busy * largest(Ring(std::move(description)).shares());
    if (need.busiest <= busy_max) {
      need.partitions = static_cast<std::uint32_t>(wanted);
      return need;
    }
    // As many more as the busiest one has too much, so that few rings have to be built.
    wanted = std::max(wanted + 1, std::ceil(wanted * need.busiest / busy_max * 0.98));
  }
  return need;
}

}  // namespace continuum
