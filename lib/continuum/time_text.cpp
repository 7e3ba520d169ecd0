// Times as RFC 3339 text: https://www.rfc-editor.org/rfc/rfc3339#section-5.6
#include "continuum/event.hpp"

#include <algorithm>

namespace continuum {

namespace {

using std::chrono::days;
using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

// The years that four digits can write.
constexpr SystemTime earliest{std::chrono::sys_days{std::chrono::year{0} / 1 / 1}};
constexpr SystemTime latest{std::chrono::sys_days{std::chrono::year{10000} / 1 / 1} - Milliseconds{1}};

void put_digits(char* last, int count, std::int64_t value) {
  for (; count > 0; --count, value /= 10) {
    *last-- = static_cast<char>('0' + value % 10);
  }
}

// Reads a time from its first byte on; each step is false at the first byte that does not fit.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

  bool number(std::size_t digits, int& value) {
    if (rest_.size() < digits) {
      return false;
    }
    value = 0;
    for (std::size_t i = 0; i < digits; ++i) {
      if (rest_[i] < '0' || rest_[i] > '9') {
        return false;
      }
      value = value * 10 + (rest_[i] - '0');
    }
    rest_.remove_prefix(digits);
    return true;
  }

  bool one_of(std::string_view bytes) {
    if (rest_.empty() || bytes.find(rest_.front()) == std::string_view::npos) {
      return false;
    }
    rest_.remove_prefix(1);
    return true;
  }

  // Digits behind the point: those after the third are dropped.
  bool fraction(Milliseconds& value) {
    int scale = 100;
    int digit = 0;
    if (!number(1, digit)) {
      return false;
    }
    do {
      value += Milliseconds{digit * scale};
      scale /= 10;
    } while (number(1, digit));
    return true;
  }

  bool offset(minutes& value) {
    if (one_of("Zz")) {
      return true;
    }
    const bool west = !rest_.empty() && rest_.front() == '-';
    int hour = 0;
    int minute = 0;
    if (!one_of("+-") || !number(2, hour) || !one_of(":") || !number(2, minute) || hour > 23 || minute > 59) {
      return false;
    }
    value = hours{hour} + minutes{minute};
    value = west ? -value : value;
    return true;
  }

  [[nodiscard]] bool at_end() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

}  // namespace

// A time that four digits of year cannot write becomes the nearest that they can.
std::string format_time(SystemTime time) {
  time = std::clamp(time, earliest, latest);
  const auto day = std::chrono::floor<days>(time);
  const std::chrono::year_month_day date{day};
  const std::chrono::hh_mm_ss clock{time - day};
  std::string text = "0000-00-00T00:00:00.000Z";
  put_digits(&text[3], 4, static_cast<int>(date.year()));
  put_digits(&text[6], 2, static_cast<unsigned>(date.month()));
  put_digits(&text[9], 2, static_cast<unsigned>(date.day()));
  put_digits(&text[12], 2, clock.hours().count());
  put_digits(&text[15], 2, clock.minutes().count());
  put_digits(&text[18], 2, clock.seconds().count());
  put_digits(&text[22], 3, clock.subseconds().count());
  return text;
}

std::optional<SystemTime> parse_time(std::string_view text) {
  Reader reader(text);
  int year = 0;
  int month = 0;
  int day = 0;
  int hour = 0;
  int minute = 0;
  int second = 0;
  Milliseconds fraction{0};
  minutes offset{0};
  if (!reader.number(4, year) || !reader.one_of("-") || !reader.number(2, month) || !reader.one_of("-") ||
      !reader.number(2, day) || !reader.one_of("Tt") || !reader.number(2, hour) || !reader.one_of(":") ||
      !reader.number(2, minute) || !reader.one_of(":") || !reader.number(2, second) ||
      (reader.one_of(".") && !reader.fraction(fraction)) || !reader.offset(offset) || !reader.at_end()) {
    return std::nullopt;
  }
  const std::chrono::year_month_day date{std::chrono::year{year},
                                         std::chrono::month{static_cast<unsigned>(month)},
                                         std::chrono::day{static_cast<unsigned>(day)}};
  if (!date.ok() || hour > 23 || minute > 59 || second > 60) {
    return std::nullopt;
  }
  const SystemTime time =
      SystemTime{std::chrono::sys_days{date}} + hours{hour} + minutes{minute} + seconds{second} + fraction;
  if (second == 60) {
    // A leap second ends a day in UTC. It counts as the second after it.
    const auto of_day = time - offset - fraction;
    if (std::chrono::floor<days>(of_day) != of_day) {
      return std::nullopt;
    }
  }
  return time - offset;
}

}  // namespace continuum
