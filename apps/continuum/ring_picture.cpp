// Rings drawn in a terminal.
#include "ring_view.hpp"

#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace continuum::app {
namespace {

// One row of the terminal is two pixels high, and a pixel about as wide as high.
constexpr int radius_pixels = 20;
constexpr int hole_pixels = 13;
constexpr std::size_t rows = radius_pixels;
constexpr std::size_t columns = 2 * radius_pixels;
constexpr std::size_t slices = 720;
constexpr std::string_view gap = "   ";
// So many partitions have a line each beside the ring.
constexpr std::size_t legend_max = 16;
// All together fit into the 80 columns of a terminal.
constexpr std::size_t bar_columns = 12;
constexpr std::size_t bins = 12;

constexpr std::string_view letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

std::uint8_t channel(double linear) {
  const double clamped = std::clamp(linear, 0.0, 1.0);
  const double encoded = clamped <= 0.0031308 ? 12.92 * clamped : 1.055 * std::pow(clamped, 1 / 2.4) - 0.055;
  return static_cast<std::uint8_t>(std::lround(255 * encoded));
}

// Oklab (Björn Ottosson, https://bottosson.github.io/posts/oklab/) in polar form, to sRGB.
Rgb oklch(double lightness, double chroma, double degrees) {
  const double a = chroma * std::cos(degrees * std::numbers::pi / 180);
  const double b = chroma * std::sin(degrees * std::numbers::pi / 180);
  const double l = std::pow(lightness + 0.3963377774 * a + 0.2158037573 * b, 3);
  const double m = std::pow(lightness - 0.1055613458 * a - 0.0638541728 * b, 3);
  const double s = std::pow(lightness - 0.0894841775 * a - 1.2914855480 * b, 3);
  return {channel(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
          channel(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
          channel(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s)};
}

// The number of a colour in the cube of 6 * 6 * 6 that terminals with 256 colours have.
int xterm_number(Rgb colour) {
  constexpr std::array<int, 6> levels{0, 95, 135, 175, 215, 255};
  const auto nearest_level = [&](int value) {
    const auto nearer = [&](int a, int b) { return std::abs(a - value) < std::abs(b - value); };
    return static_cast<int>(std::min_element(levels.begin(), levels.end(), nearer) - levels.begin());
  };
  return 16 + 36 * nearest_level(colour.red) + 6 * nearest_level(colour.green) + nearest_level(colour.blue);
}

class Picture {
 public:
  Picture(const RingView& view, Palette palette)
      : view_(view), palette_(palette), owners_(slices_of(view, slices)) {}

  std::string text() {
    const std::vector<std::string> right = view_.partitions.size() <= legend_max ? legend() : distribution();
    const std::size_t right_from = right.size() < rows ? (rows - right.size()) / 2 : 0;
    std::string text;
    for (std::size_t row = 0; row < rows; ++row) {
      append_ring_row(text, row);
      if (row >= right_from && row - right_from < right.size()) {
        text += gap;
        text += right[row - right_from];
      }
      // Rows without anything at their right end in blanks.
      text.erase(text.find_last_not_of(' ') + 1);
      text += '\n';
    }
    return text;
  }

 private:
  static constexpr std::size_t nobody = SIZE_MAX;

  // Who owns the ring there; nobody outside of it. 0 is at the top, and hashes rise clockwise.
  [[nodiscard]] std::size_t owner_at(double x, double y) const {
    const double dx = x - radius_pixels;
    const double dy = y - radius_pixels;
    const double distance = std::hypot(dx, dy);
    if (distance > radius_pixels || distance < hole_pixels) {
      return nobody;
    }
    double turn = std::atan2(dx, -dy) / (2 * std::numbers::pi);
    turn = turn < 0 ? turn + 1 : turn;
    return owners_[std::min(slices - 1, static_cast<std::size_t>(turn * slices))];
  }

  void append_ring_row(std::string& out, std::size_t row) const {
    const std::vector<std::string> centre = centre_lines();
    const std::size_t centre_from = (rows - centre.size()) / 2;
    std::string_view words;
    if (row >= centre_from && row - centre_from < centre.size()) {
      words = centre[row - centre_from];
    }
    const std::size_t words_from = (columns - words.size()) / 2;
    for (std::size_t column = 0; column < columns; ++column) {
      if (column >= words_from && column < words_from + words.size()) {
        out += words[column - words_from];
      } else if (palette_ == Palette::none) {
        const std::size_t owner =
            owner_at(static_cast<double>(column) + 0.5, 2 * static_cast<double>(row) + 1);
        out += owner == nobody ? ' ' : letters[owner % letters.size()];
      } else {
        append_cell(out, owner_at(static_cast<double>(column) + 0.5, 2 * static_cast<double>(row) + 0.5),
                    owner_at(static_cast<double>(column) + 0.5, 2 * static_cast<double>(row) + 1.5));
      }
    }
  }

  void append_cell(std::string& out, std::size_t upper, std::size_t lower) const {
    if (upper == nobody && lower == nobody) {
      out += ' ';
    } else if (upper == nobody) {
      out += painted(lower, "▄");
    } else if (lower == nobody || lower == upper) {
      out += painted(upper, lower == upper ? "█" : "▀");
    } else {
      out += fmt::format("\x1b[{};{}m▀\x1b[0m", colour(38, upper), colour(48, lower));
    }
  }

  // `plane`: 38 for what is written, 48 for what is behind it.
  [[nodiscard]] std::string colour(int plane, std::size_t owner) const {
    const Rgb rgb = colour_of_partition(owner, view_.partitions.size());
    return palette_ == Palette::true_colour
               ? fmt::format("{};2;{};{};{}", plane, rgb.red, rgb.green, rgb.blue)
               : fmt::format("{};5;{}", plane, xterm_number(rgb));
  }

  [[nodiscard]] std::string painted(std::size_t owner, std::string_view text) const {
    return palette_ == Palette::none ? std::string(text)
                                     : fmt::format("\x1b[{}m{}\x1b[0m", colour(38, owner), text);
  }

  [[nodiscard]] std::vector<std::string> centre_lines() const {
    std::uint64_t points = 0;
    for (const PartitionShare& partition : view_.partitions) {
      points += partition.virtual_nodes;
    }
    const std::size_t count = view_.partitions.size();
    return {fmt::format("{} partition{}", format_count(count), count == 1 ? "" : "s"),
            fmt::format("{} virtual nodes", format_count(points)),
            fmt::format("largest {:.3f} of fair", view_.largest_to_fair)};
  }

  // A bar of `part` (0 to 1) of bar_columns.
  [[nodiscard]] std::string bar(double part) const {
    const double exact = part * bar_columns;
    if (palette_ == Palette::none) {
      return std::string(static_cast<std::size_t>(std::lround(exact)), '#');
    }
    constexpr std::array<std::string_view, 8> eighths{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    const auto in_eighths = static_cast<std::size_t>(std::lround(exact * 8));
    std::string text;
    for (std::size_t i = 0; i < in_eighths / 8; ++i) {
      text += "█";
    }
    return text + std::string(eighths[in_eighths % 8]);
  }

  // A line for each partition: its sign in the ring, its share, and whose it is.
  [[nodiscard]] std::vector<std::string> legend() const {
    double largest = 0;
    for (const PartitionShare& partition : view_.partitions) {
      largest = std::max(largest, partition.share);
    }
    std::vector<std::string> lines;
    for (std::size_t i = 0; i < view_.partitions.size(); ++i) {
      const PartitionShare& partition = view_.partitions[i];
      const std::string sign = palette_ == Palette::none ? std::string(1, letters[i]) : painted(i, "██");
      lines.push_back(fmt::format("{} {:>4}  {:5.2f}%  {}", sign, partition.partition.value,
                                  partition.share * 100, painted(i, bar(partition.share / largest))));
    }
    return lines;
  }

  // How many partitions have how much of what would be fair.
  [[nodiscard]] std::vector<std::string> distribution() const {
    std::vector<double> ratios;
    for (const PartitionShare& partition : view_.partitions) {
      ratios.push_back(partition.share / partition.fair);
    }
    const auto [least, most] = std::ranges::minmax(ratios);
    std::array<std::size_t, bins> counts{};
    for (const double ratio : ratios) {
      const double part = most > least ? (ratio - least) / (most - least) : 0;
      ++counts[std::min(bins - 1, static_cast<std::size_t>(part * bins))];
    }
    const std::size_t highest = *std::ranges::max_element(counts);
    std::vector<std::string> lines{"share / fair share    partitions"};
    for (std::size_t bin = 0; bin < bins; ++bin) {
      const double from = least + (most - least) * static_cast<double>(bin) / bins;
      const double to = least + (most - least) * static_cast<double>(bin + 1) / bins;
      lines.push_back(fmt::format("{:.3f} to {:.3f}  {:>5}  {}", from, to, counts[bin],
                                  bar(static_cast<double>(counts[bin]) / static_cast<double>(highest))));
    }
    if (palette_ == Palette::none && view_.partitions.size() > letters.size()) {
      lines.emplace_back("");
      lines.emplace_back("The letters in the ring begin again");
      lines.push_back(fmt::format("after {} partitions.", letters.size()));
    }
    return lines;
  }

  const RingView& view_;
  Palette palette_;
  std::vector<std::size_t> owners_;
};

}  // namespace

Rgb colour_of_partition(std::size_t index, std::size_t count) {
  constexpr double golden_angle = 137.50776405;
  constexpr std::size_t hues = 12;
  constexpr std::size_t step = 5;  // neighbours differ much, and all twelve come up
  constexpr double chroma = 0.15;
  constexpr double first = 25;
  // A few have hues that lie evenly, the same however many there are. Many would lie too near to their
  // neighbours, and vary in lightness too.
  return count <= hues ? oklch(0.68, chroma, first + 360.0 / hues * static_cast<double>(index * step % hues))
                       : oklch(0.60 + 0.08 * static_cast<double>(index % 3), chroma,
                               first + golden_angle * static_cast<double>(index));
}

std::vector<std::size_t> slices_of(const RingView& view, std::size_t count) {
  std::vector<std::size_t> index_of(partitions_max);
  for (std::size_t i = 0; i < view.partitions.size(); ++i) {
    index_of[view.partitions[i].partition.value] = i;
  }
  const std::vector<RingPoint> points = view.ring.points();
  std::vector<std::size_t> owners;
  owners.reserve(count);
  std::size_t at = 0;
  for (std::size_t slice = 0; slice < count; ++slice) {
    const double middle = (static_cast<double>(slice) + 0.5) / static_cast<double>(count);
    const auto hash = static_cast<std::uint64_t>(std::ldexp(middle, 64));
    while (at < points.size() && points[at].hash < hash) {
      ++at;
    }
    owners.push_back(index_of[points[at < points.size() ? at : 0].partition.value]);
  }
  return owners;
}

std::string text_picture(const RingView& view, Palette palette) {
  return Picture(view, palette).text();
}

}  // namespace continuum::app
