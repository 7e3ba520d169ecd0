// What the ring commands know of a ring, and the pictures that they draw of it.
#pragma once

#include "continuum/key_sample.hpp"
#include "continuum/ring.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace continuum::app {

struct PartitionShare {
  Partition partition;
  std::string node;  // its name; empty when the algorithm has none
  std::uint64_t virtual_nodes = 0;
  double share = 0;  // of the key space
  double fair = 0;   // by its weight
  std::optional<std::uint64_t> events;
  std::optional<double> events_share;  // of all that is stored
};

struct HotKey {
  std::string key;
  Partition partition;
  std::uint64_t events;
  double share;  // of the sample
};

struct RingView {
  Ring ring;
  std::string topic;  // empty: no topic's
  std::optional<Generation> generation;
  std::vector<PartitionShare> partitions;  // ascending
  double largest_to_fair = 0;
  std::uint64_t sampled_events = 0;
  std::vector<HotKey> hottest;
};

// --- pictures (ring_picture.cpp, ring_svg.cpp)

struct Rgb {
  std::uint8_t red;
  std::uint8_t green;
  std::uint8_t blue;
};
// Of the same lightness for all, so that each can be seen on dark and on light.
[[nodiscard]] Rgb colour_of_partition(std::size_t index, std::size_t count);

// The owner (index into partitions) of the middle of each of `count` equal slices of the ring.
[[nodiscard]] std::vector<std::size_t> slices_of(const RingView& view, std::size_t count);

// How a terminal shows colours; none: digits and letters in their place, in ASCII.
enum class Palette : std::uint8_t { none, xterm_256, true_colour };
// Lines for a terminal, or for a text file when there are no colours. The ring must have points.
[[nodiscard]] std::string text_picture(const RingView& view, Palette palette);

[[nodiscard]] std::string svg_picture(const RingView& view);

}  // namespace continuum::app
