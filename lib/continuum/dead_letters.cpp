#include "continuum/dead_letters.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>

namespace continuum {

namespace {

constexpr std::array<std::string_view, 3> state_names{"failed", "behind", "skipped"};

std::optional<std::uint64_t> number_of(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > number_max) {
    return std::nullopt;
  }
  return value;
}

// Takes the first word off.
std::string_view next_word(std::string_view& text) {
  const std::size_t end = std::min(text.find(' '), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

SystemTime time_of(std::uint64_t milliseconds) {
  return SystemTime(Milliseconds(static_cast<Milliseconds::rep>(milliseconds)));
}

}  // namespace

std::string_view name_of(LetterState state) {
  return state_names.at(static_cast<std::size_t>(state));
}

DeadLetter parse_dead_letter(redis::Reply reply) {
  const std::string_view id = reply[0].text();
  const redis::Reply fields = reply[1];
  const auto damaged = [&] {
    fail(ErrorKind::loss, "the entry {} of the dead letters is none: something else wrote to their stream",
         printable(id));
  };
  const auto text = [&](std::string_view name) {
    const auto value = fields.field(name);
    if (!value) {
      damaged();
    }
    return *value;
  };
  DeadLetter letter;
  const auto parsed = EntryId::parse(id);
  const auto offset = number_of(text("o"));
  const auto attempts = number_of(text("a"));
  const auto time = number_of(text("t"));
  const auto state = std::find(state_names.begin(), state_names.end(), text("s"));
  if (!parsed || !offset || !attempts || *attempts > UINT32_MAX || !time || state == state_names.end()) {
    damaged();
  }
  letter.id = *parsed;
  letter.whose = {std::string(text("h")), std::string(text("k"))};
  letter.offset = Offset(*offset);
  if (const auto from = fields.field("p")) {
    const auto partition = number_of(*from);
    if (!partition || *partition >= partitions_max) {
      damaged();
    }
    letter.from = Partition(static_cast<std::uint32_t>(*partition));
  }
  letter.state = static_cast<LetterState>(state - state_names.begin());
  letter.attempts = static_cast<std::uint32_t>(*attempts);
  letter.time = time_of(*time);
  letter.reason = text("r");
  letter.event = text("e");
  return letter;
}

std::optional<LetterRequest> LetterRequest::parse(std::string_view text) {
  if (text == "retry") {
    return LetterRequest{};
  }
  if (next_word(text) != "discard") {
    return std::nullopt;
  }
  const auto first = EntryId::parse(next_word(text));
  const auto last = EntryId::parse(text);
  if (!first || !last) {
    return std::nullopt;
  }
  return LetterRequest{What::discard, *first, *last};
}

std::string LetterRequest::text() const {
  return what == What::retry ? "retry" : fmt::format("discard {} {}", first.text(), last.text());
}

std::optional<HeldKey::Failure> HeldKey::Failure::parse(std::string_view text) {
  const auto attempts = number_of(next_word(text));
  const auto time = number_of(next_word(text));
  if (!attempts || *attempts > UINT32_MAX || !time) {
    return std::nullopt;
  }
  return Failure{static_cast<std::uint32_t>(*attempts), time_of(*time), std::string(text)};
}

std::string HeldKey::Failure::text() const {
  return fmt::format("{} {} {}", attempts, time.time_since_epoch().count(), reason);
}

HeldKeys parse_held(redis::Reply reply) {
  HeldKeys held;
  std::map<HandlerKey, HeldKey> keys;
  for (std::size_t i = 0; i + 1 < reply.size(); i += 2) {
    std::string_view field = reply[i].text();
    const std::string_view value = reply[i + 1].text();
    if (field == "total") {
      held.letters = number_of(value).value_or(0);
      continue;
    }
    const std::size_t slash = field.find('/', 2);
    if (field.size() < 2 || field[1] != '/' || slash == std::string_view::npos) {
      fail(ErrorKind::loss, "the held keys have a field \"{}\" that this version does not know",
           printable(field.substr(0, 80)));
    }
    HandlerKey whose{std::string(field.substr(2, slash - 2)), std::string(field.substr(slash + 1))};
    HeldKey& key = keys[whose];
    key.whose = std::move(whose);
    switch (field.front()) {
      case 'n':
        key.letters = number_of(value).value_or(0);
        break;
      case 'h':
        key.held = HeldKey::Held::yes;
        break;
      case 'r':
        key.request = LetterRequest::parse(value);
        break;
      case 'x':
        key.failure = HeldKey::Failure::parse(value);
        break;
      default:
        break;
    }
  }
  for (auto& [whose, key] : keys) {
    held.keys.push_back(std::move(key));
  }
  return held;
}

void request_release(redis::Request& request, std::string_view group_key, std::string_view held_key,
                     const HandlerKey& whose, const LetterRequest& what) {
  request.run(redis::Script::request_release, {group_key, held_key}, whose.text(), what.text());
}

Asked parse_release(redis::Reply reply) {
  const std::string_view code = reply[0].text();
  if (code == "NOGROUP") {
    return Asked::not_registered;
  }
  return code == "OK" ? Asked::yes : Asked::no_such_letters;
}

}  // namespace continuum
