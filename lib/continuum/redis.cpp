#include "continuum/redis.hpp"

#include "continuum/scripts.hpp"

#include <hiredis/hiredis.h>

#include <charconv>
#include <cstdlib>

namespace continuum::redis {
namespace {

constexpr std::string_view url_forms =
    "Give redis://[USER[:PASSWORD]@]HOST[:PORT][/DB], unix://PATH or local:";

int hex_digit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Messages never show the URL itself: it may hold a password.
std::string percent_decoded(std::string_view text, std::string_view part) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
    if (high < 0 || low < 0) {
      fail(ErrorKind::usage,
           "the {} in the server URL has a '%' that is not followed by two hex digits: write %25", part);
    }
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

template <class Int>
Int parse_number(std::string_view text, std::string_view part, Int max) {
  Int value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > max) {
    fail(ErrorKind::usage, "the {} in the server URL must be a number up to {}. {}", part, max, url_forms);
  }
  return value;
}

void parse_credentials(Address& address, std::string_view text) {
  const auto colon = text.find(':');
  address.user = percent_decoded(text.substr(0, colon), "user");
  if (colon != std::string_view::npos) {
    address.password = percent_decoded(text.substr(colon + 1), "password");
  }
}

Address parse_tcp(std::string_view rest) {
  Address address;
  // The last '@', so that a password with an unescaped one still does not end up in the host.
  if (const auto at = rest.rfind('@'); at != std::string_view::npos) {
    parse_credentials(address, rest.substr(0, at));
    rest.remove_prefix(at + 1);
  }
  if (const auto query = rest.find('?'); query != std::string_view::npos) {
    fail(ErrorKind::usage, "options after '?' are not known for redis:// URLs. {}", url_forms);
  }
  if (const auto slash = rest.find('/'); slash != std::string_view::npos) {
    if (const auto db = rest.substr(slash + 1); !db.empty()) {
      address.database = parse_number<std::uint32_t>(db, "database", 1'000'000);
    }
    rest = rest.substr(0, slash);
  }
  std::string_view port;
  if (rest.starts_with('[')) {  // an IPv6 address
    const auto close = rest.find(']');
    if (close == std::string_view::npos) {
      fail(ErrorKind::usage, "the IPv6 address in the server URL has no ']'. {}", url_forms);
    }
    address.host = rest.substr(1, close - 1);
    if (close + 1 < rest.size() && rest[close + 1] == ':') {
      port = rest.substr(close + 2);
    }
  } else {
    const auto colon = rest.find(':');
    address.host = rest.substr(0, colon);
    if (colon != std::string_view::npos) {
      port = rest.substr(colon + 1);
    }
  }
  if (address.host.empty()) {
    address.host = "127.0.0.1";
  }
  if (!port.empty()) {
    address.port = parse_number<std::uint16_t>(port, "port", 65535);
  }
  return address;
}

Address parse_unix(std::string_view rest) {
  Address address;
  if (const auto query = rest.find('?'); query != std::string_view::npos) {
    std::string_view options = rest.substr(query + 1);
    rest = rest.substr(0, query);
    while (!options.empty()) {
      const auto end = options.find('&');
      const std::string_view option = options.substr(0, end);
      options.remove_prefix(end == std::string_view::npos ? options.size() : end + 1);
      if (option.starts_with("db=")) {
        address.database = parse_number<std::uint32_t>(option.substr(3), "database", 1'000'000);
      } else if (option.starts_with("user=")) {
        address.user = percent_decoded(option.substr(5), "user");
      } else {
        fail(ErrorKind::usage, "a unix:// URL takes only db= and user= after '?'. {}", url_forms);
      }
    }
  }
  if (const auto at = rest.find('@'); at != std::string_view::npos && !rest.starts_with('/')) {
    parse_credentials(address, rest.substr(0, at));
    rest.remove_prefix(at + 1);
  }
  address.socket_path = percent_decoded(rest, "path");
  if (address.socket_path.empty() || address.socket_path.front() != '/') {
    fail(ErrorKind::usage, "a unix:// URL needs an absolute path, such as unix:///run/redis/redis.sock");
  }
  // The kernel's limit (sun_path) would otherwise show as an unexplained failure to connect.
  if (address.socket_path.size() > 107) {
    fail(ErrorKind::usage, "the socket path {} has {} bytes; the system allows 107", address.socket_path,
         address.socket_path.size());
  }
  return address;
}

}  // namespace

Address Address::parse(std::string_view url) {
  if (url.starts_with("redis://")) {
    return parse_tcp(url.substr(8));
  }
  if (url.starts_with("unix://")) {
    return parse_unix(url.substr(7));
  }
  const auto colon = url.find(':');
  const auto scheme = colon == std::string_view::npos ? std::string_view() : url.substr(0, colon);
  if (scheme == "rediss" || scheme == "redis+cluster" || scheme == "redis+sentinel") {
    fail(ErrorKind::usage, "{}:// is not supported by this version. {}", scheme, url_forms);
  }
  fail(ErrorKind::usage, "the server URL has an unknown form. {}", url_forms);
}

std::string Address::text() const {
  if (!socket_path.empty()) {
    return fmt::format("unix://{}", socket_path);
  }
  const bool is_v6 = host.find(':') != std::string::npos;
  std::string out =
      is_v6 ? fmt::format("redis://[{}]:{}", host, port) : fmt::format("redis://{}:{}", host, port);
  if (database != 0) {
    out += fmt::format("/{}", database);
  }
  return out;
}

Request& Request::add(std::span<const std::string_view> args) {
  std::vector<const char*> pointers;
  std::vector<std::size_t> lengths;
  pointers.reserve(args.size());
  lengths.reserve(args.size());
  for (const auto arg : args) {
    pointers.push_back(arg.data() == nullptr ? "" : arg.data());
    lengths.push_back(arg.size());
  }
  char* command = nullptr;
  const auto size =
      redisFormatCommandArgv(&command, static_cast<int>(args.size()), pointers.data(), lengths.data());
  check(size > 0, "a command could not be encoded");
  bytes_.append(command, static_cast<std::size_t>(size));
  redisFreeCommand(command);
  ++replies_;
  return *this;
}

Request& Request::script(Script which, std::span<const std::string_view> keys,
                         std::span<const std::string_view> args) {
  std::vector<std::string_view> all;
  all.reserve(3 + keys.size() + args.size());
  const std::string key_count = std::to_string(keys.size());
  all.push_back("EVALSHA");
  all.push_back(scripts::texts[static_cast<std::size_t>(which)].sha1);
  all.push_back(key_count);
  all.insert(all.end(), keys.begin(), keys.end());
  all.insert(all.end(), args.begin(), args.end());
  return add(all);
}

namespace {
[[noreturn]] void not_understood(std::string_view wanted) {
  fail(ErrorKind::server,
       "the server's answer was not understood ({} expected): is something between us and Redis?", wanted);
}
}  // namespace

bool Reply::is_nil() const {
  return reply_->type == REDIS_REPLY_NIL;
}
bool Reply::is_error() const {
  return reply_->type == REDIS_REPLY_ERROR;
}
bool Reply::is_array() const {
  return reply_->type == REDIS_REPLY_ARRAY;
}

std::string_view Reply::text() const {
  if (reply_->type != REDIS_REPLY_STRING && reply_->type != REDIS_REPLY_STATUS &&
      reply_->type != REDIS_REPLY_ERROR) {
    not_understood("text");
  }
  return {reply_->str, static_cast<std::size_t>(reply_->len)};
}

std::int64_t Reply::integer() const {
  if (reply_->type == REDIS_REPLY_INTEGER) {
    return reply_->integer;
  }
  const auto digits = text();
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    not_understood("a number");
  }
  return value;
}

std::uint64_t Reply::number() const {
  const auto value = integer();
  if (value < 0) {
    not_understood("a number from 0");
  }
  return static_cast<std::uint64_t>(value);
}

std::size_t Reply::size() const {
  if (is_nil()) {
    return 0;
  }
  if (!is_array()) {
    not_understood("a list");
  }
  return static_cast<std::size_t>(reply_->elements);
}

Reply Reply::operator[](std::size_t i) const {
  if (i >= size()) {
    not_understood("a longer list");
  }
  return Reply(reply_->element[i]);
}

std::optional<std::string_view> Reply::field(std::string_view name) const {
  for (std::size_t i = 0; i + 1 < size(); i += 2) {
    if ((*this)[i].text() == name) {
      return (*this)[i + 1].text();
    }
  }
  return std::nullopt;
}

void Replies::push(redisReply* owned) {
  replies_.emplace_back(owned);
}
void Replies::Free::operator()(redisReply* r) const {
  freeReplyObject(r);
}

}  // namespace continuum::redis
