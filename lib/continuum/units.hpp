// Durations, sizes and counts as people write and read them.
#pragma once

#include "continuum/types.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace continuum {

// 0, or digits and a unit: 500ms, 10s, 5m, 2h, 7d; at most 36,500 days. Throws Error{usage}.
[[nodiscard]] Milliseconds parse_duration(std::string_view text);
// As parse_duration reads it, nothing rounded: 7d, 36h, 1500ms.
[[nodiscard]] std::string exact_duration(Milliseconds duration);
// 350ms, 12.3s, 5m03s, 2h05m, 3d04h.
[[nodiscard]] std::string format_duration(Milliseconds duration);

// Pauses between attempts: the first one, doubled up to the longest.
struct Backoff {
  Milliseconds min;
  Milliseconds max;
};
// 100ms..30s; from 1ms, the first not longer than the longest. Throws Error{usage}.
[[nodiscard]] Backoff parse_backoff(std::string_view text);

// Digits, with B, KiB, MiB or GiB behind them or nothing. Throws Error{usage}.
[[nodiscard]] std::uint64_t parse_bytes(std::string_view text);
// 999 B, 1.2 KiB, 66.0 MiB.
[[nodiscard]] std::string format_bytes(std::uint64_t bytes);

// Digits only, within [min, max]. Throws Error{usage} saying the range.
[[nodiscard]] std::uint64_t parse_number(std::string_view text, std::uint64_t min, std::uint64_t max);
// 100/s, 10/m or 5000/h, in units per second. Throws Error{usage}.
[[nodiscard]] double parse_rate(std::string_view text);
// 1,234,567
[[nodiscard]] std::string format_count(std::uint64_t count);
// 950, 45.1 k, 1.2 M: for rates.
[[nodiscard]] std::string format_rate(double per_second);

}  // namespace continuum
