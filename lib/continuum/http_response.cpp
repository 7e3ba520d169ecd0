#include "continuum/http_response.hpp"

#include "continuum/names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <system_error>
#include <utility>

namespace continuum {
namespace {

constexpr Milliseconds retry_after_max{std::chrono::hours(24)};

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, lower, lower);
}

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// Calls `use` for each element of a comma-separated list.
template <class Use>
void for_each_element(std::string_view list, Use use) {
  while (!list.empty()) {
    const auto comma = std::min(list.find(','), list.size());
    use(trimmed(list.substr(0, comma)));
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
}

// The whole text as a number.
template <class Number>
bool read_number(std::string_view text, Number& number, int base = 10) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  // No sign: from_chars takes a '-'.
  return !text.empty() && text[0] != '-' && error == std::errc() && end == text.data() + text.size();
}

}  // namespace

HttpResponse::State HttpResponse::state() const {
  switch (part_) {
    case Part::status_line:
    case Part::headers:
      return State::head;
    case Part::complete:
      return State::complete;
    case Part::broken:
      return State::broken;
    default:
      return State::body;
  }
}

void HttpResponse::take(std::string_view bytes) {
  begun_ = begun_ || !bytes.empty();
  while (!bytes.empty()) {
    switch (part_) {
      case Part::complete:
        keep_alive_ = false;  // whatever this is, the next response does not begin with it
        return;
      case Part::broken:
        return;
      case Part::body:
      case Part::body_rest:
      case Part::chunk:
        take_body(bytes);
        break;
      default: {
        const auto newline = bytes.find('\n');
        const std::string_view piece = bytes.substr(0, std::min(newline, bytes.size()));
        head_bytes_ += piece.size() + 1;
        if (head_bytes_ > head_bytes_max) {
          fail_with(fmt::format("its head has more than {} bytes", head_bytes_max));
          return;
        }
        line_.append(piece);
        if (newline == std::string_view::npos) {
          return;
        }
        bytes.remove_prefix(newline + 1);
        if (line_.ends_with('\r')) {
          line_.pop_back();
        }
        take_line(std::exchange(line_, {}));
      }
    }
  }
}

void HttpResponse::end() {
  keep_alive_ = false;
  switch (part_) {
    case Part::body_rest:
      complete();
      break;
    case Part::complete:
    case Part::broken:
      break;
    default:
      fail_with("it ends in the middle");
  }
}

void HttpResponse::take_line(std::string_view line) {
  switch (part_) {
    case Part::status_line:
      take_status(line);
      break;
    case Part::headers:
      if (line.empty()) {
        end_head();
      } else {
        take_header(line);
      }
      break;
    case Part::chunk_size:
      take_chunk_size(line);
      break;
    case Part::chunk_end:
      if (!line.empty()) {
        fail_with("a chunk of its body is longer than it says");
        return;
      }
      part_ = Part::chunk_size;
      break;
    default:  // trailers
      if (line.empty()) {
        complete();
      }
  }
}

// HTTP-version SP 3DIGIT SP [ reason ]
void HttpResponse::take_status(std::string_view line) {
  const bool version = line.size() >= 12 && line.starts_with("HTTP/1.") && line[7] >= '0' && line[7] <= '9' &&
                       line[8] == ' ' && (line.size() == 12 || line[12] == ' ');
  if (!version || !read_number(line.substr(9, 3), status_) || status_ < 100) {
    fail_with(fmt::format("it begins with \"{}\"", printable(line.substr(0, 80))));
    return;
  }
  minor_version_ = line[7] - '0';
  keep_alive_ = minor_version_ > 0;
  part_ = Part::headers;
}

void HttpResponse::take_header(std::string_view line) {
  const auto colon = line.find(':');
  // A folded line (obsolete, and nothing that matters to us is long) belongs to the header before it.
  if (line[0] == ' ' || line[0] == '\t') {
    return;
  }
  if (colon == std::string_view::npos || colon == 0) {
    fail_with(fmt::format("it has a header \"{}\"", printable(line.substr(0, 80))));
    return;
  }
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = trimmed(line.substr(colon + 1));
  if (equal_ignoring_case(name, "content-length")) {
    take_length(value);
  } else if (equal_ignoring_case(name, "transfer-encoding")) {
    for_each_element(value, [&](std::string_view coding) {
      chunked_ = equal_ignoring_case(coding, "chunked");
      unknown_coding_ = unknown_coding_ || !chunked_;
    });
  } else if (equal_ignoring_case(name, "connection")) {
    for_each_element(value, [&](std::string_view option) {
      if (equal_ignoring_case(option, "close")) {
        keep_alive_ = false;
      } else if (equal_ignoring_case(option, "keep-alive") && minor_version_ == 0) {
        keep_alive_ = true;
      }
    });
  } else if (equal_ignoring_case(name, "retry-after")) {
    retry_after_ = value;
  } else if (equal_ignoring_case(name, "location")) {
    location_ = value;
  }
}

void HttpResponse::take_length(std::string_view value) {
  std::uint64_t length = 0;
  if (!read_number(value, length) || (length_ && *length_ != length)) {
    fail_with(fmt::format("it has a Content-Length \"{}\"", printable(value.substr(0, 80))));
    return;
  }
  length_ = length;
}

void HttpResponse::end_head() {
  if (status_ < 200) {
    if (status_ == 101) {
      fail_with("it changes to a protocol that was not asked for");
      return;
    }
    // Interim: the real one follows. head_bytes_ goes on, so that there is an end to it.
    part_ = Part::status_line;
    length_.reset();
    chunked_ = unknown_coding_ = false;
    return;
  }
  has_status_ = true;
  if (status_ == 204 || status_ == 304) {
    complete();
  } else if (chunked_ && !unknown_coding_) {
    keep_alive_ = keep_alive_ && !length_;  // both is how requests are smuggled
    part_ = Part::chunk_size;
  } else if (unknown_coding_ || !length_) {
    keep_alive_ = false;
    part_ = Part::body_rest;
  } else if (*length_ == 0) {
    complete();
  } else {
    body_left_ = *length_;
    part_ = Part::body;
  }
}

// HEXDIG… [ ";" extensions ]
void HttpResponse::take_chunk_size(std::string_view line) {
  const std::string_view digits = trimmed(line.substr(0, line.find(';')));
  if (!read_number(digits, body_left_, 16)) {
    fail_with(fmt::format("a chunk of its body has the size \"{}\"", printable(line.substr(0, 80))));
    return;
  }
  part_ = body_left_ == 0 ? Part::trailers : Part::chunk;
}

void HttpResponse::take_body(std::string_view& bytes) {
  const std::uint64_t wanted = part_ == Part::body_rest ? bytes.size() : body_left_;
  const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(wanted, bytes.size()));
  excerpt_.append(bytes.substr(0, std::min(n, excerpt_bytes_max - excerpt_.size())));
  bytes.remove_prefix(n);
  body_bytes_ += n;
  body_left_ -= part_ == Part::body_rest ? 0 : n;
  if (body_bytes_ > body_bytes_max) {
    keep_alive_ = false;  // the rest would have to be read first
    complete();
  } else if (part_ == Part::body && body_left_ == 0) {
    complete();
  } else if (part_ == Part::chunk && body_left_ == 0) {
    part_ = Part::chunk_end;
  }
}

void HttpResponse::complete() {
  part_ = Part::complete;
}

void HttpResponse::fail_with(std::string why) {
  keep_alive_ = false;
  problem_ = std::move(why);
  part_ = Part::broken;
}

std::optional<Milliseconds> parse_retry_after(std::string_view value, SystemTime now) {
  std::uint64_t number = 0;
  if (const bool digits = value.find_first_not_of("0123456789") == std::string_view::npos;
      digits && !value.empty()) {
    // Digits that fit no number are more than a day, too.
    const bool fits = read_number(value, number) && number < 24 * 3600;
    return fits ? Milliseconds(number * 1000) : retry_after_max;
  }
  // Sun, 06 Nov 1994 08:49:37 GMT
  static constexpr std::array<std::string_view, 12> months{"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                           "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  if (value.size() != 29 || !value.ends_with(" GMT") || value[3] != ',' || value[19] != ':' ||
      value[22] != ':') {
    return std::nullopt;
  }
  const auto month = std::ranges::find(months, value.substr(8, 3));
  unsigned day = 0;
  int year = 0;
  int hour = 0;
  int minute = 0;
  int second = 0;
  if (month == months.end() || !read_number(value.substr(5, 2), day) ||
      !read_number(value.substr(12, 4), year) || !read_number(value.substr(17, 2), hour) ||
      !read_number(value.substr(20, 2), minute) || !read_number(value.substr(23, 2), second)) {
    return std::nullopt;
  }
  using namespace std::chrono;
  const year_month_day date(std::chrono::year(year),
                            std::chrono::month(static_cast<unsigned>(month - months.begin()) + 1),
                            std::chrono::day(day));
  if (!date.ok() || hour > 23 || minute > 59 || second > 60) {
    return std::nullopt;
  }
  const SystemTime then = sys_days(date) + hours(hour) + minutes(minute) + seconds(second);
  return std::clamp(then - now, Milliseconds(0), retry_after_max);
}

}  // namespace continuum
