#include "continuum/dead_letter_requests.hpp"

#include "continuum/error.hpp"

#include <algorithm>
#include <set>
#include <utility>

namespace continuum {

namespace {

constexpr std::size_t keys_at_once = 1000;

void request_key(redis::Request& request, const Topic& topic, std::string_view group, Partition partition,
                 const HandlerKey& whose) {
  const std::string text = whose.text();
  request.command("HMGET", held_key(topic.name, partition, group), "r/" + text, "h/" + text, "n/" + text,
                  "x/" + text);
}

// From the answer to that.
HeldKey parse_key(redis::Reply fields) {
  HeldKey key;
  if (!fields[0].is_nil()) {
    key.request.emplace();
  }
  key.held = fields[1].is_nil() ? HeldKey::Held::no : HeldKey::Held::yes;
  key.letters = fields[2].is_nil() ? 0 : fields[2].number();
  if (!fields[3].is_nil()) {
    key.failure = HeldKey::Failure::parse(fields[3].text());
  }
  return key;
}

bool is_new(const std::optional<HeldKey::Failure>& failure, const std::optional<HeldKey::Failure>& before) {
  return failure && (!before || before->time != failure->time || before->attempts != failure->attempts ||
                     before->reason != failure->reason);
}

}  // namespace

LetterRequests::LetterRequests(redis::Session& session, const Topic& topic, std::string group)
    : session_(session), topic_(topic), group_(std::move(group)), places_(session, topic, group_) {}

void LetterRequests::ask(const std::map<KeyPlace, LetterRequest>& wanted) {
  std::vector<std::pair<KeyPlace, LetterRequest>> all;
  places_.look();
  for (const auto& [place, what] : wanted) {
    const auto now = places_.of(place.partition, place.whose.key);
    if (now.counts == LetterPlaces::Counts::here) {
      all.emplace_back(place, what);
    } else {
      redis::Request request;
      request_key(request, topic_, group_, place.partition, place.whose);
      const redis::Replies replies = session_.call(std::move(request));
      Standing& standing = standings_[place];
      standing = {};
      standing.state = State::moved;
      standing.moved_to = now.other;
      standing.letters = parse_key(replies[0]).letters;
    }
  }
  for (std::size_t begin = 0; begin < all.size(); begin += keys_at_once) {
    const auto some = std::span(all).subspan(begin, std::min(keys_at_once, all.size() - begin));
    redis::Request request;
    for (const auto& [place, what] : some) {
      const std::string held = held_key(topic_.name, place.partition, group_);
      request.command("HGET", held, "x/" + place.whose.text());
      request_release(request, group_key(topic_.name, place.partition, group_), held, place.whose, what);
    }
    const redis::Replies replies = session_.call(std::move(request));
    for (std::size_t i = 0; i < some.size(); ++i) {
      const auto& [place, what] = some[i];
      Standing& standing = standings_[place];
      standing = {};
      switch (parse_release(replies[2 * i + 1])) {
        case continuum::Asked::not_registered:
          fail(ErrorKind::usage, "{}: group {} is not registered here (any more)",
               continuum::place(topic_.name, place.partition), group_);
        case continuum::Asked::no_such_letters:
          standing.state = State::answered;
          break;
        case continuum::Asked::yes:
          const redis::Reply before = replies[2 * i];
          waiting_.push_back({place, what.what,
                              before.is_nil() ? std::nullopt : HeldKey::Failure::parse(before.text()),
                              place.partition, places_.passed(place.partition)});
          break;
      }
    }
  }
}

bool LetterRequests::look() {
  std::vector<Asked> rest;
  for (std::size_t begin = 0; begin < waiting_.size(); begin += keys_at_once) {
    look_at_keys(std::span(waiting_).subspan(begin, std::min(keys_at_once, waiting_.size() - begin)), rest);
  }
  waiting_ = std::move(rest);
  look_at_holders();
  if (std::exchange(somebody_came_on_, false)) {
    give_up_moved();
  }
  bool attended = false;
  for (const Asked& asked : waiting_) {
    const Attendance attendance = holders_.at(asked.at).attendance;
    standings_.at(asked.place).attendance = attendance;
    attended = attended || attendance == Attendance::worker;
  }
  return attended;
}

void LetterRequests::look_at_keys(std::span<const Asked> keys, std::vector<Asked>& rest) {
  redis::Request request;
  for (const Asked& asked : keys) {
    request_key(request, topic_, group_, asked.at, asked.place.whose);
  }
  const redis::Replies replies = session_.call(std::move(request));
  std::vector<Asked> gone;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const HeldKey key = parse_key(replies[i]);
    Standing& standing = standings_.at(keys[i].place);
    standing.letters = key.letters;
    if (key.request) {
      rest.push_back(keys[i]);
    } else if (key.letters == 0) {
      gone.push_back(keys[i]);
    } else if (keys[i].what == LetterRequest::What::discard) {
      standing.state = State::answered;
    } else if (is_new(key.failure, keys[i].before) ||
               (key.held == HeldKey::Held::yes && keys[i].at == keys[i].place.partition)) {
      standing.state = State::failed_again;
      standing.failure = key.failure.value_or(HeldKey::Failure{});
    } else if (key.held == HeldKey::Held::yes) {
      // It came here after its letters had been copied, and was left behind.
      set_moved(keys[i], keys[i].at, key.letters);
    } else {
      standing.state = State::answered;
    }
  }
  if (!gone.empty()) {
    follow(gone, rest);
  }
}

// No letters are left where they were: they are dealt with, or another partition has them.
void LetterRequests::follow(std::vector<Asked>& gone, std::vector<Asked>& rest) {
  places_.look();
  redis::Request request;
  std::vector<std::pair<std::size_t, Partition>> places;
  for (std::size_t i = 0; i < gone.size(); ++i) {
    standings_.at(gone[i].place).state = State::answered;
    for (const Partition other : places_.others_since(gone[i].since, gone[i].at, gone[i].place.whose.key)) {
      places.emplace_back(i, other);
      request_key(request, topic_, group_, other, gone[i].place.whose);
    }
  }
  if (request.empty()) {
    return;
  }
  const redis::Replies replies = session_.call(std::move(request));
  for (std::size_t n = 0; n < places.size(); ++n) {
    Asked& asked = gone[places[n].first];
    Standing& standing = standings_.at(asked.place);
    const HeldKey key = parse_key(replies[n]);
    if (key.letters == 0 || standing.state != State::answered) {
      continue;
    }
    if (asked.what == LetterRequest::What::discard) {
      set_moved(asked, places[n].second, key.letters);
    } else {
      // Asked for there, too, or answered there: the next look says.
      standing.state = State::waiting;
      asked.at = places[n].second;
      rest.push_back(asked);
    }
  }
}

// What is to be discarded was named by its place there: the request does not go along.
void LetterRequests::give_up_moved() {
  places_.look();
  std::erase_if(waiting_, [&](const Asked& asked) {
    const auto now = places_.of(asked.at, asked.place.whose.key);
    if (asked.what != LetterRequest::What::discard || now.counts == LetterPlaces::Counts::here) {
      return false;
    }
    set_moved(asked, now.other, standings_.at(asked.place).letters);
    return true;
  });
}

void LetterRequests::set_moved(const Asked& asked, Partition to, std::uint64_t letters) {
  Standing& standing = standings_.at(asked.place);
  standing.state = State::moved;
  standing.moved_to = to;
  standing.letters = letters;
}

// A holder whose beat stands still for as long as its lease lasts is none.
void LetterRequests::look_at_holders() {
  std::set<Partition> partitions;
  for (const Asked& asked : waiting_) {
    partitions.insert(asked.at);
  }
  if (partitions.empty()) {
    return;
  }
  redis::Request request;
  for (const Partition partition : partitions) {
    request.command("HMGET", group_key(topic_.name, partition, group_), "owner", "fence", "beat", "ttl",
                    "paused", "state", "passed", "import");
  }
  const redis::Replies replies = session_.call(std::move(request));
  std::size_t i = 0;
  for (const Partition partition : partitions) {
    const redis::Reply fields = replies[i++];
    const auto text = [&](std::size_t at) {
      return fields[at].is_nil() ? std::string() : std::string(fields[at].text());
    };
    Holder& holder = holders_[partition];
    const std::string beat = text(1) + " " + text(2);
    if (holder.beat != beat) {
      holder.beat = beat;
      holder.since = Clock::now();
    }
    if (const std::string come = text(6) + " " + text(7); holder.come != come) {
      holder.come = come;
      somebody_came_on_ = true;
    }
    const Milliseconds ttl(fields[3].is_nil() ? 0 : fields[3].integer());
    if (!text(4).empty()) {
      holder.attendance = Attendance::paused;
    } else if (text(5) == "halted") {
      holder.attendance = Attendance::halted;
    } else if (text(0).empty() || Clock::now() - holder.since > ttl) {
      holder.attendance = Attendance::nobody;
    } else {
      holder.attendance = Attendance::worker;
    }
  }
}

}  // namespace continuum
