#include "continuum/names.hpp"

#include "continuum/error.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

namespace continuum {
namespace {

constexpr std::size_t name_bytes_max = 64;
// More candidates than a person can look through are no help.
constexpr std::size_t listed_max = 8;

bool is_name_byte(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
         c == '-';
}

// Edit distance where two neighbours that changed places count once (optimal string alignment).
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> now(b.size() + 1);
  std::iota(last.begin(), last.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    now[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      now[j] = std::min({last[j] + 1, now[j - 1] + 1, substituted});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        now[j] = std::min(now[j], before[j - 2] + 1);
      }
    }
    before.swap(last);
    last.swap(now);
  }
  return last[b.size()];
}

// Bytes of the UTF-8 sequence at the start of `text`; 0 when it is none (RFC 3629: no overlong forms, no
// surrogates, nothing past U+10FFFF).
std::size_t utf8_length(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = at(0);
  if (first < 0x80) {
    return 1;
  }
  const std::size_t length = first >= 0xC2 && first <= 0xDF   ? 2
                             : first >= 0xE0 && first <= 0xEF ? 3
                             : first >= 0xF0 && first <= 0xF4 ? 4
                                                              : 0;
  if (length == 0 || text.size() < length) {
    return 0;
  }
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) {
      return 0;
    }
  }
  const unsigned char second = at(1);
  const bool refused = (first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
                       (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F);
  return refused ? 0 : length;
}

// Characters that change what a terminal does or the order in which it shows the others.
bool is_control(std::string_view character) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(character[i]); };
  if (character.size() == 1) {
    return at(0) < 0x20 || at(0) == 0x7F;
  }
  if (character.size() == 2) {
    return at(0) == 0xC2 && at(1) < 0xA0;  // U+0080 to U+009F
  }
  if (character.size() == 3 && at(0) == 0xE2) {
    const bool separators_and_embeddings =
        at(1) == 0x80 && at(2) >= 0xA8 && at(2) <= 0xAE;                    // U+2028 to U+202E
    const bool isolates = at(1) == 0x81 && at(2) >= 0xA6 && at(2) <= 0xA9;  // U+2066 to U+2069
    return separators_and_embeddings || isolates;
  }
  return false;
}

}  // namespace

void require_name(std::string_view what, std::string_view name) {
  constexpr std::string_view rule = "letters, digits, '.', '_' and '-' are allowed, up to 64, not '-' first";
  if (name.empty()) {
    fail(ErrorKind::usage, "the {} name is empty: {}", what, rule);
  }
  if (name.size() > name_bytes_max) {
    fail(ErrorKind::usage, "the {} name {}… has {} bytes: {}", what, printable(name.substr(0, 20)),
         name.size(), rule);
  }
  const auto bad = std::ranges::find_if_not(name, is_name_byte);
  if (bad != name.end()) {
    const auto at = static_cast<std::size_t>(bad - name.begin());
    const auto length = std::max<std::size_t>(1, utf8_length(name.substr(at)));
    fail(ErrorKind::usage, "the {} name \"{}\" has '{}' in it: {}", what, printable(name),
         printable(name.substr(at, length)), rule);
  }
  if (name.front() == '-') {
    fail(ErrorKind::usage, "the {} name \"{}\" begins with '-': {}", what, name, rule);
  }
}

std::string_view nearest(std::string_view name, std::span<const std::string> candidates) {
  // A third of the letters may be wrong, and at least one.
  const std::size_t allowed = std::max<std::size_t>(1, name.size() / 3);
  std::string_view best;
  std::size_t best_distance = allowed + 1;
  for (const auto& candidate : candidates) {
    const auto longer = std::max(candidate.size(), name.size());
    const auto shorter = std::min(candidate.size(), name.size());
    if (longer - shorter >= best_distance || longer > 256) {
      continue;
    }
    if (const auto d = distance(name, candidate); d < best_distance) {
      best = candidate;
      best_distance = d;
    }
  }
  return best;
}

std::string hint_of(std::string_view name, std::span<const std::string> candidates) {
  if (const auto near = nearest(name, candidates); !near.empty()) {
    return fmt::format("; did you mean {}?", printable(near));
  }
  if (candidates.empty()) {
    return {};
  }
  std::string text = "; there are: ";
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (i == listed_max) {
      text += fmt::format(" and {} more", candidates.size() - listed_max);
      break;
    }
    text += i == 0 ? "" : ", ";
    text += printable(candidates[i]);
  }
  return text;
}

std::string printable(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const auto length = utf8_length(bytes);
    const auto character = bytes.substr(0, std::max<std::size_t>(1, length));
    if (length == 0 || is_control(character)) {
      for (const char c : character) {
        out += fmt::format("\\x{:02X}", static_cast<unsigned char>(c));
      }
    } else {
      out += character;
    }
    bytes.remove_prefix(character.size());
  }
  return out;
}

}  // namespace continuum
