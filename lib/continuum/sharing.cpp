#include "continuum/sharing.hpp"

#include <algorithm>
#include <map>

namespace continuum {

namespace {

struct Share {
  std::size_t has = 0;
  std::size_t quota = 0;

  [[nodiscard]] std::size_t missing() const { return quota > has ? quota - has : 0; }
  [[nodiscard]] std::size_t surplus() const { return has > quota ? has - quota : 0; }
};
using Shares = std::map<std::string, Share>;

void set_quotas(Shares& shares, std::size_t partitions) {
  const std::size_t least = partitions / shares.size();
  std::size_t larger = partitions % shares.size();
  for (auto& [member, share] : shares) {
    share.quota = least;
  }
  for (const bool has_more : {true, false}) {
    for (auto& [member, share] : shares) {
      if (larger > 0 && (share.has > least) == has_more) {
        ++share.quota;
        --larger;
      }
    }
  }
}

std::vector<Partition> surplus_of(std::vector<ShareView::Standing> mine, std::size_t surplus,
                                  ShareView::Membership membership) {
  using Bond = ShareView::Standing::Bond;
  std::stable_sort(mine.begin(), mine.end(), [](const auto& a, const auto& b) {
    return a.bond != b.bond ? a.bond < b.bond : a.partition > b.partition;
  });
  std::vector<Partition> given;
  for (const auto& standing : mine) {
    if (given.size() == surplus ||
        (membership == ShareView::Membership::changing && standing.bond != Bond::leaving)) {
      break;
    }
    given.push_back(standing.partition);
  }
  std::sort(given.begin(), given.end());
  return given;
}

}  // namespace

SharePlan plan_share(const ShareView& view) {
  Shares shares;
  for (const std::string& member : view.members) {
    shares[member];
  }
  Share& own = shares[view.me];
  std::vector<Partition> free;
  std::vector<ShareView::Standing> mine;
  std::size_t shared = 0;
  for (const auto& standing : view.partitions) {
    if (standing.owner.empty()) {
      free.push_back(standing.partition);
      ++shared;
      continue;
    }
    const auto owner = shares.find(standing.owner);
    if (owner != shares.end()) {
      ++owner->second.has;
      ++shared;
    }
    if (standing.owner == view.me) {
      mine.push_back(standing);
    }
  }
  set_quotas(shares, shared);

  SharePlan plan;
  plan.quota = own.quota;
  plan.give_up = surplus_of(std::move(mine), own.surplus(), view.membership);
  // Each takes a part of its own, so that they do not all run for the same ones.
  std::size_t before_mine = 0;
  for (auto share = shares.begin(); share->first != view.me; ++share) {
    before_mine += share->second.missing();
  }
  const std::size_t begin = std::min(before_mine, free.size());
  const std::size_t end = std::min(begin + own.missing(), free.size());
  plan.take.assign(free.begin() + static_cast<std::ptrdiff_t>(begin),
                   free.begin() + static_cast<std::ptrdiff_t>(end));
  plan.settled = free.empty() && std::all_of(shares.begin(), shares.end(), [](const auto& member) {
                   return member.second.has == member.second.quota;
                 });
  return plan;
}

std::string partition_list(std::span<const Partition> partitions) {
  std::string list;
  for (std::size_t i = 0; i < partitions.size();) {
    std::size_t last = i;
    while (last + 1 < partitions.size() && partitions[last + 1] == partitions[last] + 1) {
      ++last;
    }
    if (last - i < 2) {
      last = i;  // two neighbours are as short as they are
    }
    list += fmt::format("{}{}", list.empty() ? "" : ",", partitions[i]);
    if (last > i) {
      list += fmt::format("-{}", partitions[last]);
    }
    i = last + 1;
  }
  return list;
}

}  // namespace continuum
