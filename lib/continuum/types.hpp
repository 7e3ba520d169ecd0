// The numbers of the protocol as types that do not convert into each other.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <compare>
#include <cstdint>
#include <functional>

namespace continuum {

template <class Tag, class Rep = std::uint64_t>
struct Strong {
  using rep = Rep;

  Rep value{};

  constexpr Strong() = default;
  constexpr explicit Strong(Rep v) : value(v) {}

  friend constexpr auto operator<=>(const Strong&, const Strong&) = default;
  constexpr Strong& operator++() {
    ++value;
    return *this;
  }
  // The distance moved is a count, so it stays a plain number.
  friend constexpr Strong operator+(Strong a, Rep n) { return Strong{static_cast<Rep>(a.value + n)}; }
  friend constexpr Rep operator-(Strong a, Strong b) { return static_cast<Rep>(a.value - b.value); }
};

using Offset = Strong<struct OffsetTag>;                         // of an event in its partition, from 0
using Partition = Strong<struct PartitionTag, std::uint32_t>;    // index of a partition, from 0
using Generation = Strong<struct GenerationTag, std::uint32_t>;  // version of a topic's ring, from 1
using Fence = Strong<struct FenceTag>;                           // token of a lease, only ever rises
using Position = Strong<struct PositionTag>;                     // a producer's own counter, from 1

// Every number that crosses a Lua script stays below 2^53, where a double is exact.
inline constexpr std::uint64_t number_max = (std::uint64_t{1} << 53) - 1;
// Partitions of one topic, over all of its generations.
inline constexpr std::uint32_t partitions_max = 4096;

using SystemTime = std::chrono::time_point<std::chrono::system_clock, std::chrono::milliseconds>;
using Milliseconds = std::chrono::milliseconds;

}  // namespace continuum

template <class Tag, class Rep>
struct fmt::formatter<continuum::Strong<Tag, Rep>> : fmt::formatter<Rep> {
  template <class Context>
  auto format(const continuum::Strong<Tag, Rep>& v, Context& context) const {
    return fmt::formatter<Rep>::format(v.value, context);
  }
};

template <class Tag, class Rep>
struct std::hash<continuum::Strong<Tag, Rep>> {
  std::size_t operator()(const continuum::Strong<Tag, Rep>& v) const noexcept {
    return std::hash<Rep>{}(v.value);
  }
};
