// Rings as SVG 1.1 pictures, for documents. Small: a ring of a thousand virtual nodes takes 12 KB.
#include "ring_view.hpp"

#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace continuum::app {
namespace {

constexpr int width = 880;
constexpr int height = 440;
// The circle along which the arcs of the ring lie is as long as this many units, in a space of its own that
// is scaled to the picture, so that arcs have whole lengths.
constexpr std::uint64_t turn = 100'000;
constexpr double ring_radius = 160;
constexpr double ring_width = 46;
// Thinner arcs than those of so many points run into grey: then slices stand for them.
constexpr std::size_t exact_points_max = 1024;
constexpr std::size_t slices = 480;
constexpr int chart_left = 470;
constexpr int chart_width = 380;
constexpr int chart_top = 84;
constexpr int chart_height = 300;
// So many partitions have a row with their name.
constexpr std::size_t rows_max = 16;
// So many have a column.
constexpr std::size_t columns_max = 128;
constexpr std::size_t bins = 24;
constexpr std::size_t name_letters_max = 18;

std::string hex(Rgb colour) {
  return fmt::format("#{:02x}{:02x}{:02x}", colour.red, colour.green, colour.blue);
}

// Text of others, such as names of nodes: nothing in it ends an element, and no control character is left.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : printable(text)) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// Cut between characters of UTF-8.
std::string shortened(const std::string& name) {
  std::size_t letters = 0;
  for (std::size_t at = 0; at < name.size(); ++at) {
    const bool begins = (static_cast<unsigned char>(name[at]) & 0xC0) != 0x80;
    if (begins && ++letters > name_letters_max) {
      return name.substr(0, at) + "…";
    }
  }
  return name;
}

struct Arc {
  std::uint64_t from;
  std::uint64_t to;  // of `turn`
  std::size_t owner;
};

std::vector<Arc> arcs_of(const RingView& view) {
  std::vector<Arc> arcs;
  const auto add = [&](std::uint64_t from, std::uint64_t to, std::size_t owner) {
    if (!arcs.empty() && arcs.back().owner == owner) {
      arcs.back().to = to;
    } else if (to > from) {
      arcs.push_back({from, to, owner});
    }
  };
  const std::vector<RingPoint> points = view.ring.points();
  if (points.size() > exact_points_max) {
    const std::vector<std::size_t> owners = slices_of(view, slices);
    for (std::size_t i = 0; i < owners.size(); ++i) {
      add(i * turn / slices, (i + 1) * turn / slices, owners[i]);
    }
    return arcs;
  }
  std::vector<std::size_t> index_of(partitions_max);
  for (std::size_t i = 0; i < view.partitions.size(); ++i) {
    index_of[view.partitions[i].partition.value] = i;
  }
  std::uint64_t from = 0;
  for (const RingPoint& point : points) {
    const auto to = static_cast<std::uint64_t>(
        std::llround(std::ldexp(static_cast<double>(point.hash), -64) * static_cast<double>(turn)));
    add(from, to, index_of[point.partition.value]);
    from = std::max(from, to);
  }
  add(from, turn, index_of[points.front().partition.value]);
  return arcs;
}

// One circle a partition: its arcs are the dashes of the line.
std::string ring_circles(const RingView& view) {
  std::vector<std::string> dashes(view.partitions.size());
  std::vector<std::uint64_t> drawn_to(view.partitions.size());
  for (const Arc& arc : arcs_of(view)) {
    std::string& list = dashes[arc.owner];
    // Dash and gap take turns. One that begins at once needs no gap before it.
    list += list.empty() ? fmt::format("0 {}", arc.from) : fmt::format(" {}", arc.from - drawn_to[arc.owner]);
    list += fmt::format(" {}", arc.to - arc.from);
    drawn_to[arc.owner] = arc.to;
  }
  constexpr double radius = static_cast<double>(turn) / (2 * std::numbers::pi);
  const double scale = ring_radius / radius;
  // A circle begins at the right: turned back, so that 0 is at the top.
  std::string out = fmt::format(
      "<g fill='none' stroke-width='{:.1f}' transform='translate(230 232) rotate(-90) scale({:.8f})'>\n",
      ring_width / scale, scale);
  for (std::size_t i = 0; i < dashes.size(); ++i) {
    if (!dashes[i].empty()) {
      out += fmt::format("<circle r='{:.3f}' stroke='{}' stroke-dasharray='{} {}'/>\n", radius,
                         hex(colour_of_partition(i, dashes.size())), dashes[i], turn);
    }
  }
  return out + "</g>\n";
}

std::string centre(const RingView& view) {
  std::uint64_t points = 0;
  for (const PartitionShare& partition : view.partitions) {
    points += partition.virtual_nodes;
  }
  return fmt::format(
      "<g text-anchor='middle'><text x='230' y='222' class='big'>{}</text>\n"
      "<text x='230' y='246'>partition{}</text>\n"
      "<text x='230' y='270' class='dim'>{} virtual nodes</text></g>\n"
      "<path class='mark' d='M230 34v20'/><text x='230' y='28' text-anchor='middle' class='dim'>0</text>\n",
      format_count(view.partitions.size()), view.partitions.size() == 1 ? "" : "s", format_count(points));
}

// A row a partition: colour, name, bar, share; and where the fair share ends.
std::string rows(const RingView& view, double largest) {
  const std::size_t count = view.partitions.size();
  const double step = std::min(34.0, static_cast<double>(chart_height) / static_cast<double>(count));
  const double bar_height = step * 0.62;
  const bool has_names = has_node_names(view.ring.description().algorithm);
  const int bar_left = chart_left + (has_names ? 150 : 44);
  const double bar_width = chart_left + chart_width - 64 - bar_left;
  std::string out;
  for (std::size_t i = 0; i < count; ++i) {
    const PartitionShare& partition = view.partitions[i];
    const double top = chart_top + step * static_cast<double>(i);
    const double base = top + bar_height * 0.5 + 4.5;
    const double fair_at = bar_left + bar_width * partition.fair / largest;
    const std::string label =
        has_names ? escaped(shortened(partition.node)) : std::to_string(partition.partition.value);
    out += fmt::format("<text x='{}' y='{:.1f}' text-anchor='end'>{}</text>", bar_left - 10, base, label);
    out += fmt::format("<rect x='{}' y='{:.1f}' width='{:.1f}' height='{:.1f}' rx='2' fill='{}'/>", bar_left,
                       top, bar_width * partition.share / largest, bar_height,
                       hex(colour_of_partition(i, count)));
    out += fmt::format("<path class='mark' d='M{:.1f} {:.1f}v{:.1f}'/>", fair_at, top - 2, bar_height + 4);
    out += fmt::format("<text x='{}' y='{:.1f}' text-anchor='end'>{:.2f}%</text>\n", chart_left + chart_width,
                       base, partition.share * 100);
  }
  return out;
}

// A thin column a partition, with the fair share as a line across.
std::string many_columns(const RingView& view, double largest) {
  const std::size_t count = view.partitions.size();
  const double step = static_cast<double>(chart_width) / static_cast<double>(count);
  std::string out;
  std::string fair = "M";
  for (std::size_t i = 0; i < count; ++i) {
    const PartitionShare& partition = view.partitions[i];
    const double column_height = chart_height * partition.share / largest;
    const double left = chart_left + step * static_cast<double>(i);
    out += fmt::format("<rect x='{:.2f}' y='{:.1f}' width='{:.2f}' height='{:.1f}' fill='{}'/>\n", left,
                       chart_top + chart_height - column_height, step * 0.8, column_height,
                       hex(colour_of_partition(i, count)));
    const double fair_top = chart_top + chart_height - chart_height * partition.fair / largest;
    if (i == 0 || partition.fair != view.partitions[i - 1].fair) {
      fair += fmt::format("{:.2f} {:.1f}", left, fair_top) + "H";
    }
    if (i + 1 == count || partition.fair != view.partitions[i + 1].fair) {
      fair += fmt::format("{:.2f}", left + step) + (i + 1 == count ? "" : "M");
    }
  }
  out += fmt::format("<path class='mark' d='{}'/>", fair);
  out += fmt::format("<text x='{}' y='{}' class='dim'>{}</text>", chart_left, chart_top + chart_height + 20,
                     view.partitions.front().partition);
  out +=
      fmt::format("<text x='{}' y='{}' class='dim' text-anchor='end'>{}</text>\n", chart_left + chart_width,
                  chart_top + chart_height + 20, view.partitions.back().partition);
  return out;
}

// How many partitions have how much of their fair share.
std::string distribution(const RingView& view) {
  double least = 1;
  double most = 1;
  for (const PartitionShare& partition : view.partitions) {
    least = std::min(least, partition.share / partition.fair);
    most = std::max(most, partition.share / partition.fair);
  }
  const double range = most > least ? most - least : 1;
  std::array<std::size_t, bins> counts{};
  for (const PartitionShare& partition : view.partitions) {
    const double part = (partition.share / partition.fair - least) / range;
    ++counts[std::min(bins - 1, static_cast<std::size_t>(part * bins))];
  }
  const std::size_t highest = *std::ranges::max_element(counts);
  constexpr double step = static_cast<double>(chart_width) / bins;
  std::string out;
  for (std::size_t bin = 0; bin < bins; ++bin) {
    const double column_height =
        chart_height * static_cast<double>(counts[bin]) / static_cast<double>(highest);
    out += fmt::format("<rect x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}' rx='1.5' fill='{}'/>\n",
                       chart_left + step * static_cast<double>(bin) + 1,
                       chart_top + chart_height - column_height, step - 2, column_height,
                       hex(colour_of_partition(5, 8)));
  }
  const double fair_at = chart_left + chart_width * (1 - least) / range;
  out += fmt::format("<path class='mark' d='M{:.1f} {}v{}'/>", fair_at, chart_top - 6, chart_height + 6);
  const int base = chart_top + chart_height + 20;
  const auto label = [&](double x, std::string_view anchor, std::string_view text) {
    out +=
        fmt::format("<text x='{:.1f}' y='{}' class='dim' text-anchor='{}'>{}</text>", x, base, anchor, text);
  };
  label(chart_left, "start", fmt::format("{:.3f}", least));
  label(fair_at, "middle", "fair");
  label(chart_left + chart_width, "end", fmt::format("{:.3f}", most));
  return out + "\n";
}

std::string chart(const RingView& view, double largest) {
  if (view.partitions.size() > columns_max) {
    return distribution(view);
  }
  return view.partitions.size() <= rows_max ? rows(view, largest) : many_columns(view, largest);
}

}  // namespace

std::string svg_picture(const RingView& view) {
  double largest = 0;
  for (const PartitionShare& partition : view.partitions) {
    largest = std::max({largest, partition.share, partition.fair});
  }
  const RingDescription& description = view.ring.description();
  std::string out = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' width='{0}' height='{1}' "
      "font-family='system-ui,-apple-system,Segoe UI,DejaVu Sans,sans-serif' font-size='13'>\n",
      width, height);
  out += fmt::format("<title>{}{} ring of {} partitions</title>\n", escaped(view.topic),
                     view.topic.empty() ? "A" : ":", view.partitions.size());
  // Dark where the reader's system is.
  out +=
      "<style>text{fill:#24292f}.dim{fill:#6e7781}.big{font-size:34px;font-weight:600}.title{font-size:16px;"
      "font-weight:600}.back{fill:#fff}.mark{fill:none;stroke:#24292f;stroke-width:1.5}"
      "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.dim{fill:#8d96a0}.back{fill:#0d1117}"
      ".mark{stroke:#e6edf3}}</style>\n";
  out += fmt::format("<rect class='back' width='{}' height='{}' rx='10'/>\n", width, height);
  out += ring_circles(view) + centre(view);
  const std::string what = view.topic.empty()
                               ? std::string("Shares of the key space")
                               : fmt::format("{}: shares of the key space", escaped(view.topic));
  out += fmt::format("<text x='{}' y='36' class='title'>{}</text>\n", chart_left, what);
  out +=
      fmt::format("<text x='{}' y='58' class='dim'>{}, the largest is {:.3f} times its fair one{}</text>\n",
                  chart_left, name_of(description.algorithm), view.largest_to_fair,
                  view.partitions.size() > columns_max ? "" : " (line)");
  out += chart(view, largest);
  if (view.ring.points().size() > exact_points_max) {
    out += fmt::format("<text x='{}' y='{}' class='dim'>{}The ring shows who owns {} places of it.</text>\n",
                       chart_left, height - 12,
                       view.partitions.size() > columns_max ? "Partitions by their share. " : "", slices);
  }
  return out + "</svg>\n";
}

}  // namespace continuum::app
