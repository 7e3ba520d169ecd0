// What the holder of a lease knows of held keys: against a model of what the server keeps of it.
#include "continuum/held_events.hpp"
#include "continuum/event.hpp"
#include "continuum/window.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;

namespace {

using Clock = HeldEvents::Clock;
using Way = HeldEvents::Way;
using Then = HeldEvents::Then;
using What = LetterStep::What;

const Clock::time_point now = Clock::now();
constexpr std::uint64_t plenty = 1'000'000;

// What commit.lua does, and what a reader gets.
class Stored {
 public:
  void apply(const Commit& commit) {
    for (DeadLetter letter : commit.letters) {
      letter.id = EntryId{++last_id_, 0};
      counts_[letter.whose] += 1;
      if (letter.state != LetterState::skipped) {
        held_.insert(letter.whose);
      }
      letters_.push_back(std::move(letter));
    }
    for (const LetterStep& step : commit.steps) {
      switch (step.what) {
        case What::done:
        case What::discard:
          if (remove(step.id) && --counts_[step.whose] == 0) {
            counts_.erase(step.whose);
          }
          if (step.what == What::discard) {
            failures_.erase(step.whose);
          }
          break;
        case What::failed:
          failures_[step.whose] = step.failure;
          break;
        case What::free:
          held_.erase(step.whose);
          requests_.erase(step.whose);
          counts_[step.whose] = step.left;
          if (step.left == 0) {
            counts_.erase(step.whose);
            failures_.erase(step.whose);
          }
          break;
        case What::answered:
          requests_.erase(step.whose);
          break;
        case What::asked:
          requests_[step.whose] = step.request;
          break;
      }
    }
  }

  bool remove(EntryId id) {
    return std::erase_if(letters_, [&](const auto& one) { return one.id == id; }) > 0;
  }
  void ask(const HandlerKey& whose, const LetterRequest& request = {}) { requests_[whose] = request; }

  [[nodiscard]] HeldKeys keys() const {
    HeldKeys keys;
    std::set<HandlerKey> all(held_);
    for (const auto& [whose, count] : counts_) {
      all.insert(whose);
      keys.letters += count;
    }
    for (const HandlerKey& whose : all) {
      HeldKey key;
      key.whose = whose;
      key.letters = counts_.contains(whose) ? counts_.at(whose) : 0;
      key.held = held_.contains(whose) ? HeldKey::Held::yes : HeldKey::Held::no;
      if (const auto asked = requests_.find(whose); asked != requests_.end()) {
        key.request = asked->second;
      }
      keys.keys.push_back(key);
    }
    return keys;
  }

  struct Read {
    std::vector<DeadLetter> letters;
    EntryId up_to;
    HeldEvents::More more;
  };
  [[nodiscard]] Read read_after(EntryId after, std::size_t at_once) const {
    Read read{{}, after, HeldEvents::More::no};
    for (const DeadLetter& letter : letters_) {
      if (letter.id > after && read.letters.size() < at_once) {
        read.letters.push_back(letter);
        read.up_to = letter.id;
      }
    }
    read.more = read.letters.size() < at_once ? HeldEvents::More::no : HeldEvents::More::yes;
    return read;
  }
  // True when something was to be read.
  bool read(HeldEvents& held, std::size_t at_once = 100) const {
    const auto after = held.wants_letters_after();
    if (after) {
      Read read = read_after(*after, at_once);
      held.give(std::move(read.letters), read.up_to, read.more);
    }
    return after.has_value();
  }

  [[nodiscard]] const std::vector<DeadLetter>& letters() const { return letters_; }
  [[nodiscard]] bool holds(const HandlerKey& whose) const { return held_.contains(whose); }
  [[nodiscard]] bool is_asked(const HandlerKey& whose) const { return requests_.contains(whose); }
  [[nodiscard]] bool has_failure(const HandlerKey& whose) const { return failures_.contains(whose); }
  [[nodiscard]] bool empty() const { return letters_.empty() && held_.empty() && counts_.empty(); }

 private:
  std::uint64_t last_id_ = 0;
  std::vector<DeadLetter> letters_;
  std::map<HandlerKey, std::uint64_t> counts_;
  std::set<HandlerKey> held_;
  std::map<HandlerKey, LetterRequest> requests_;
  std::map<HandlerKey, HeldKey::Failure> failures_;
};

DeadLetter letter(std::uint64_t offset, const std::string& key, LetterState state = LetterState::failed,
                  const std::string& handler = "h") {
  DeadLetter out;
  out.whose = {handler, key};
  out.offset = Offset(offset);
  out.state = state;
  out.event = "event " + std::to_string(offset);
  return out;
}

const HandlerKey a{"h", "a"};
const HandlerKey b{"h", "b"};

// A partition's held events and the server behind them.
struct Partition1 {
  HeldEvents held{plenty};
  Stored stored;

  void commit(std::uint64_t cursor) {
    Commit commit;
    commit.cursor.offset = Offset(cursor);
    held.collect(commit);
    stored.apply(commit);
    held.committed();
  }
  void park(std::uint64_t offset, const std::string& key) { held.park(letter(offset, key)); }
  void learn() { held.learn(stored.keys()); }
  void read() {
    while (stored.read(held)) {
    }
  }
  // Asks, and gets what is to be handled ready.
  void release(const HandlerKey& whose) {
    stored.ask(whose);
    learn();
    read();
  }
  // Handles what may be handled, in order.
  std::vector<std::uint64_t> handle_all(std::string_view handler = "h") {
    std::vector<std::uint64_t> offsets;
    while (const DeadLetter* one = held.take(handler, now)) {
      offsets.push_back(one->offset.value);
      held.handled(HandlerKey(one->whose));
      read();
    }
    return offsets;
  }
};

using Offsets = std::vector<std::uint64_t>;

}  // namespace

TEST_CASE("a failed event holds its key for its handler alone, and what comes later is counted behind it") {
  Partition1 p;
  CHECK_FALSE(p.held.may_hold(hash_of_key("a")));
  CHECK(p.held.way_of("h", "a") == Way::free);
  p.park(3, "a");
  CHECK(p.held.may_hold(hash_of_key("a")));
  CHECK_FALSE(p.held.may_hold(hash_of_key("b")));
  CHECK(p.held.way_of("h", "a") == Way::park);
  CHECK(p.held.way_of("h", "b") == Way::free);
  CHECK(p.held.way_of("other", "a") == Way::free);
  p.held.park(letter(5, "a", LetterState::behind));
  CHECK(p.held.letters() == 2);
  CHECK(p.held.parked_bytes() > 0);
  p.commit(6);
  CHECK(p.held.letters() == 2);
  CHECK(p.held.parked_bytes() == 0);
  CHECK(p.held.way_of("h", "a") == Way::park);
  CHECK(p.stored.holds(a));
}

TEST_CASE(
    "letters go with the commit that passes their events, in the order of their offsets, and only once") {
  Partition1 p;
  p.park(7, "a");
  p.park(2, "b");
  p.park(4, "c");
  p.commit(5);
  REQUIRE(p.stored.letters().size() == 2);
  CHECK(p.stored.letters()[0].offset == Offset(2));
  CHECK(p.stored.letters()[1].offset == Offset(4));
  CHECK_FALSE(p.held.waits_for_commit());  // 7 goes when the cursor does
  p.commit(7);
  CHECK(p.stored.letters().size() == 2);
  p.commit(8);
  REQUIRE(p.stored.letters().size() == 3);
  CHECK(p.stored.letters()[2].offset == Offset(7));
  p.commit(9);
  CHECK(p.stored.letters().size() == 3);
}

TEST_CASE("a skipped event is kept and counted, and its key goes on") {
  Partition1 p;
  p.held.park(letter(0, "a", LetterState::skipped));
  CHECK(p.held.way_of("h", "a") == Way::free);
  CHECK(p.held.letters() == 1);
  p.commit(1);
  CHECK(p.held.letters() == 1);
  CHECK_FALSE(p.stored.holds(a));
  HeldEvents next(plenty);
  next.learn(p.stored.keys());
  CHECK(next.letters() == 1);
  CHECK(next.way_of("h", "a") == Way::free);
}

TEST_CASE("at the limit what had to be parked waits, until letters are taken away") {
  HeldEvents held(2);
  Stored stored;
  held.park(letter(0, "a"));
  CHECK_FALSE(held.full());
  held.park(letter(1, "a", LetterState::behind));
  CHECK(held.full());
  CHECK(held.way_of("h", "a") == Way::wait);
  CHECK(held.way_of("h", "b") == Way::free);
  Commit commit;
  commit.cursor.offset = Offset(2);
  held.collect(commit);
  stored.apply(commit);
  held.committed();
  CHECK(held.full());
  stored.ask(a, {LetterRequest::What::discard, {1, 0}, {1, 0}});
  held.learn(stored.keys());
  stored.read(held);
  CHECK_FALSE(held.full());
  CHECK(held.way_of("h", "a") == Way::park);
}

TEST_CASE("a new holder knows what the server has") {
  Partition1 p;
  p.park(0, "a");
  p.held.park(letter(1, "a", LetterState::behind));
  p.commit(2);
  HeldEvents next(plenty);
  next.learn(p.stored.keys());
  CHECK(next.letters() == 2);
  CHECK(next.way_of("h", "a") == Way::park);
  CHECK_FALSE(next.wants_letters_after());
}

TEST_CASE("a release handles the letters of its key in order, one at a time, and sets the key free") {
  Partition1 p;
  for (const std::uint64_t offset : Offsets{0, 2, 4}) {
    p.park(offset, "a");
  }
  p.park(1, "b");
  p.commit(5);
  CHECK(p.held.take("h", now) == nullptr);  // nobody has asked
  p.release(a);
  CHECK(p.held.releasing("h"));
  const DeadLetter* const first = p.held.take("h", now);
  REQUIRE(first != nullptr);
  CHECK(first->offset == Offset(0));
  CHECK(p.held.running() == 1);
  CHECK(p.held.take("h", now) == nullptr);
  CHECK(p.held.take("other", now) == nullptr);
  p.held.handled(a);
  CHECK(p.held.waits_for_commit());
  CHECK(p.handle_all() == Offsets{2, 4});
  CHECK(p.held.way_of("h", "a") == Way::park);  // until it is known to be free
  p.commit(5);
  CHECK(p.held.way_of("h", "a") == Way::free);
  CHECK_FALSE(p.stored.holds(a));
  CHECK_FALSE(p.stored.is_asked(a));
  CHECK_FALSE(p.held.releasing("h"));
  CHECK(p.held.way_of("h", "b") == Way::park);
  CHECK(p.held.letters() == 1);
  CHECK(p.stored.letters().size() == 1);
}

TEST_CASE("while the commit that sets a key free is on its way its events wait") {
  Partition1 p;
  p.park(0, "a");
  p.commit(1);
  p.release(a);
  CHECK(p.handle_all() == Offsets{0});
  Commit commit;
  commit.cursor.offset = Offset(1);
  p.held.collect(commit);
  CHECK(p.held.way_of("h", "a") == Way::wait);
  CHECK_FALSE(p.held.waits_for_commit());
  p.stored.apply(commit);
  p.held.committed();
  CHECK(p.held.way_of("h", "a") == Way::free);
  CHECK(p.stored.empty());
}

TEST_CASE("a release goes on with events of its key that came meanwhile") {
  Partition1 p;
  p.park(0, "a");
  p.commit(1);
  p.release(a);
  REQUIRE(p.held.take("h", now) != nullptr);
  p.park(5, "a");  // comes while the first runs
  p.held.handled(a);
  p.commit(3);  // does not pass it: neither stored nor free
  CHECK(p.held.way_of("h", "a") == Way::park);
  CHECK(p.stored.holds(a));
  CHECK_FALSE(p.held.wants_letters_after());
  p.commit(6);
  CHECK(p.stored.holds(a));
  p.read();
  CHECK(p.handle_all() == Offsets{5});
  p.commit(6);
  CHECK(p.held.way_of("h", "a") == Way::free);
  CHECK(p.stored.empty());
}

TEST_CASE("a letter that fails again holds its key again, with what came behind it, and is not tried on") {
  Partition1 p;
  p.park(0, "a");
  p.park(1, "a");
  p.commit(2);
  p.release(a);
  REQUIRE(p.held.take("h", now) != nullptr);
  p.held.failed(a, {7, {}, "again"}, Then::hold);
  CHECK(p.held.take("h", now) == nullptr);
  CHECK_FALSE(p.held.releasing("h"));
  p.commit(2);
  CHECK(p.stored.has_failure(a));
  CHECK_FALSE(p.stored.is_asked(a));
  CHECK(p.stored.holds(a));
  CHECK(p.stored.letters().size() == 2);
  CHECK(p.held.letters() == 2);
  CHECK(p.held.way_of("h", "a") == Way::park);
  p.learn();
  CHECK(p.held.take("h", now) == nullptr);
  p.release(a);
  CHECK(p.handle_all() == Offsets{0, 1});
  p.commit(2);
  CHECK(p.stored.empty());
}

TEST_CASE(
    "a letter that is tried again later comes before what is behind it, and does not hold up other keys") {
  Partition1 p;
  p.park(0, "a");
  p.park(1, "a");
  p.park(2, "b");
  p.commit(3);
  p.stored.ask(a);
  p.release(b);
  std::set<std::uint64_t> first;
  while (const DeadLetter* one = p.held.take("h", now)) {
    first.insert(one->offset.value);
  }
  CHECK(first == std::set<std::uint64_t>{0, 2});
  p.held.retry(a, now + 1s);
  p.held.handled(b);
  CHECK(p.held.take("h", now) == nullptr);
  CHECK_FALSE(p.held.has_ready("h", now));
  CHECK(p.held.next_due("h", now) == now + 1s);
  CHECK(p.held.has_ready("h", now + 1s));
  CHECK_FALSE(p.held.next_due("h", now + 1s));
  REQUIRE(p.held.take("h", now + 1s) != nullptr);
  p.held.handled(a);
  CHECK(p.handle_all() == Offsets{1});
}

TEST_CASE("letters of a handler that skips are tried one after the other, and those that fail again stay") {
  Partition1 p;
  for (const std::uint64_t offset : Offsets{0, 1, 2}) {
    p.held.park(letter(offset, "a", LetterState::skipped));
  }
  p.commit(3);
  p.release(a);
  REQUIRE(p.held.take("h", now) != nullptr);
  p.held.failed(a, {7, {}, "again"}, Then::skip);
  CHECK(p.handle_all() == Offsets{1, 2});
  CHECK(p.held.way_of("h", "a") == Way::park);  // behind them
  p.commit(3);
  CHECK(p.held.way_of("h", "a") == Way::free);
  CHECK(p.stored.letters().size() == 1);
  CHECK(p.held.letters() == 1);
  CHECK(p.stored.has_failure(a));
  CHECK_FALSE(p.stored.is_asked(a));
  p.release(a);
  CHECK(p.handle_all() == Offsets{0});
  p.commit(3);
  CHECK(p.stored.empty());
}

TEST_CASE("a discard takes a range away, and the rest goes on holding its key") {
  Partition1 p;
  for (const std::uint64_t offset : Offsets{0, 1, 2, 3}) {
    p.park(offset, "a");
  }
  p.commit(4);
  p.stored.ask(a, {LetterRequest::What::discard, {2, 0}, {3, 0}});
  p.learn();
  CHECK(p.held.discarding());
  p.read();
  CHECK(p.held.take("h", now) == nullptr);
  p.commit(4);
  CHECK_FALSE(p.held.discarding());
  REQUIRE(p.stored.letters().size() == 2);
  CHECK(p.stored.letters()[0].offset == Offset(0));
  CHECK(p.stored.letters()[1].offset == Offset(3));
  CHECK(p.held.letters() == 2);
  CHECK(p.stored.holds(a));
  CHECK_FALSE(p.stored.is_asked(a));
  CHECK(p.held.way_of("h", "a") == Way::park);
  p.stored.ask(a, {LetterRequest::What::discard, {}, {99, 0}});
  p.learn();
  p.read();
  p.commit(4);
  CHECK(p.stored.empty());
  CHECK(p.held.way_of("h", "a") == Way::free);
}

TEST_CASE("a discard that comes while a letter is handled takes the verdict as it is, and then the rest") {
  for (const bool good : {true, false}) {
    CAPTURE(good);
    Partition1 p;
    for (const std::uint64_t offset : Offsets{0, 1, 2}) {
      p.park(offset, "a");
    }
    p.commit(3);
    p.release(a);
    REQUIRE(p.held.take("h", now) != nullptr);
    p.stored.ask(a, {LetterRequest::What::discard, {2, 0}, {3, 0}});
    p.learn();
    p.read();
    CHECK(p.stored.letters().size() == 3);
    if (good) {
      p.held.handled(a);
    } else {
      p.held.failed(a, {7, {}, "again"}, Then::hold);
    }
    p.read();
    CHECK(p.held.take("h", now) == nullptr);
    p.commit(3);
    CHECK(p.stored.letters().size() == (good ? 0 : 1));
    CHECK(p.stored.holds(a) == !good);
    CHECK(p.held.letters() == (good ? 0 : 1));
    CHECK_FALSE(p.stored.is_asked(a));
  }
}

TEST_CASE("letters that are handled and not committed are not handed out again by another request") {
  Partition1 p;
  for (const std::uint64_t offset : Offsets{0, 1, 2}) {
    p.park(offset, "a");
  }
  p.commit(3);
  p.release(a);
  REQUIRE(p.held.take("h", now) != nullptr);
  p.held.handled(a);
  REQUIRE(p.held.take("h", now) != nullptr);
  p.held.failed(a, {7, {}, "again"}, Then::hold);
  // Asked again before the commit that says all this.
  p.release(a);
  CHECK(p.held.letters() == 2);
  CHECK(p.handle_all() == Offsets{1, 2});
  CHECK(p.stored.is_asked(a));
  p.commit(3);
  CHECK(p.stored.empty());
  CHECK(p.held.letters() == 0);
}

TEST_CASE("a request that came before the answer to the last one was committed is not taken away by it") {
  Partition1 p;
  p.park(0, "a");
  p.commit(1);
  p.release(a);
  REQUIRE(p.held.take("h", now) != nullptr);
  p.held.failed(a, {7, {}, "again"}, Then::hold);
  p.release(a);
  p.commit(1);
  CHECK(p.stored.is_asked(a));
  CHECK(p.handle_all() == Offsets{0});
}

TEST_CASE("letters that were removed by hand are counted no longer, and do not keep a key held") {
  Partition1 p;
  for (const std::uint64_t offset : Offsets{0, 1, 2}) {
    p.park(offset, "a");
  }
  p.park(3, "b");
  p.commit(4);
  p.stored.remove({2, 0});
  p.release(a);
  CHECK(p.handle_all() == Offsets{0, 2});
  p.commit(4);
  CHECK(p.held.letters() == 1);
  CHECK(p.held.way_of("h", "a") == Way::free);
  CHECK(p.stored.keys().letters == 1);
  // All of them.
  p.stored.remove({4, 0});
  p.release(b);
  CHECK(p.handle_all().empty());
  p.commit(4);
  CHECK(p.held.letters() == 0);
  CHECK(p.held.way_of("h", "b") == Way::free);
  CHECK(p.stored.empty());
}

TEST_CASE("a release that another holder had begun goes on") {
  Partition1 p;
  for (const std::uint64_t offset : Offsets{0, 1, 2}) {
    p.park(offset, "a");
  }
  p.commit(3);
  p.release(a);
  REQUIRE(p.held.take("h", now) != nullptr);
  p.held.handled(a);
  p.commit(3);
  Partition1 next;
  next.stored = p.stored;
  next.learn();
  next.read();
  CHECK(next.handle_all() == Offsets{1, 2});
  next.commit(3);
  CHECK(next.stored.empty());
}

TEST_CASE("of a key that was only skipped nothing is held when its release fails") {
  Partition1 p;
  p.held.park(letter(0, "a", LetterState::skipped));
  p.commit(1);
  p.release(a);
  REQUIRE(p.held.take("h", now) != nullptr);
  p.held.failed(a, {7, {}, "again"}, Then::hold);
  CHECK(p.held.way_of("h", "a") == Way::free);
  p.commit(1);
  CHECK_FALSE(p.stored.is_asked(a));
  CHECK(p.held.letters() == 1);
}

TEST_CASE("no more than so many letters are loaded at a time") {
  Partition1 p;
  constexpr std::uint64_t total = 2 * HeldEvents::loaded_max + 100;
  for (std::uint64_t offset = 0; offset < total; ++offset) {
    p.park(offset, offset % 2 == 0 ? "a" : "b");
  }
  p.commit(total);
  p.stored.ask(a);
  p.stored.ask(b);
  p.learn();
  std::map<std::string, Offsets> handled;
  const auto handle_loaded = [&] {
    std::size_t count = 0;
    while (const DeadLetter* one = p.held.take("h", now)) {
      handled[one->whose.key].push_back(one->offset.value);
      p.held.handled(HandlerKey(one->whose));
      ++count;
    }
    return count;
  };
  p.stored.read(p.held, 10 * total);
  CHECK(handle_loaded() == HeldEvents::loaded_max);
  p.stored.read(p.held, 10 * total);
  CHECK(handle_loaded() == HeldEvents::loaded_max);
  p.stored.read(p.held, 10 * total);
  CHECK(handle_loaded() == 100);
  for (const auto& [key, offsets] : handled) {
    CHECK(offsets.size() == total / 2);
    CHECK(std::is_sorted(offsets.begin(), offsets.end()));
  }
  p.commit(total);
  CHECK(p.stored.empty());
}

TEST_CASE("of large letters fewer are loaded at a time") {
  Partition1 p;
  for (std::uint64_t offset = 0; offset < 10; ++offset) {
    DeadLetter large = letter(offset, "a");
    large.event.assign(HeldEvents::loaded_bytes_max / 4, 'x');
    p.held.park(std::move(large));
  }
  p.commit(10);
  p.stored.ask(a);
  p.learn();
  p.stored.read(p.held);
  for (int i = 0; i < 4; ++i) {
    REQUIRE(p.held.take("h", now) != nullptr);
    p.held.handled(a);
  }
  CHECK(p.held.take("h", now) == nullptr);
  p.read();
  CHECK(p.handle_all() == Offsets{4, 5, 6, 7, 8, 9});
}

TEST_CASE("nothing of a release is passed over, however its letters lie") {
  Partition1 p;
  std::vector<Offsets> of_key(8);
  std::mt19937 random(3);
  constexpr std::uint64_t total = 6 * HeldEvents::loaded_max;
  for (std::uint64_t offset = 0; offset < total; ++offset) {
    // One key has most of the first half, the others what is left.
    const auto key = offset < total / 2 && random() % 10 != 0 ? 0 : random() % of_key.size();
    p.park(offset, std::to_string(key));
    of_key[key].push_back(offset);
  }
  p.commit(total);
  for (std::size_t key = 0; key < of_key.size(); ++key) {
    p.stored.ask({"h", std::to_string(key)});
  }
  p.learn();
  std::vector<Offsets> handled(of_key.size());
  for (std::uint64_t n = 0; n < total;) {
    while (p.stored.read(p.held)) {
    }
    std::vector<HandlerKey> taken;
    while (const DeadLetter* one = p.held.take("h", now)) {
      handled[std::stoul(one->whose.key)].push_back(one->offset.value);
      taken.push_back(one->whose);
      ++n;
    }
    REQUIRE_FALSE(taken.empty());
    for (const HandlerKey& whose : taken) {
      p.held.handled(whose);
    }
    if (random() % 50 == 0) {
      p.commit(total);
    }
  }
  CHECK(handled == of_key);
  p.commit(total);
  CHECK(p.stored.empty());
}

TEST_CASE("a release of very many keys takes a moment and not minutes") {
  Partition1 p;
  constexpr std::uint64_t keys = 20'000;
  for (std::uint64_t offset = 0; offset < 2 * keys; ++offset) {
    p.park(offset, std::to_string(offset % keys));
  }
  p.commit(2 * keys);
  for (std::uint64_t key = 0; key < keys; ++key) {
    p.stored.ask({"h", std::to_string(key)});
  }
  const auto started = Clock::now();
  p.learn();
  std::uint64_t handled = 0;
  const std::vector<DeadLetter>& all = p.stored.letters();
  while (handled < 2 * keys) {
    // As Stored::read, which looks at all of them.
    while (const auto after = p.held.wants_letters_after()) {
      const auto first = std::upper_bound(all.begin(), all.end(), *after,
                                          [](EntryId id, const DeadLetter& one) { return id < one.id; });
      const auto last = first + std::min<std::ptrdiff_t>(100, all.end() - first);
      const EntryId read_up_to = first == last ? *after : (last - 1)->id;
      const auto more = last - first < 100 ? HeldEvents::More::no : HeldEvents::More::yes;
      p.held.give({first, last}, read_up_to, more);
    }
    while (const DeadLetter* one = p.held.take("h", now)) {
      p.held.handled(HandlerKey(one->whose));
      handled += p.held.waits_for_commit() && !p.held.next_due("h", now) ? 0 : keys;
      ++handled;
    }
  }
  CHECK(handled == 2 * keys);
  CHECK(Clock::now() - started < 60s);
}

namespace {

// One partition with two handlers whose keys fail at random, worked as a Subscription does it. Commits take
// their time, and now and then the worker is replaced.
class Simulation {
 public:
  Simulation(std::uint32_t seed, std::uint64_t letters_max, unsigned crash_one_in)
      : random_(seed), letters_max_(letters_max), crash_one_in_(crash_one_in) {
    for (std::uint64_t offset = 0; offset < total; ++offset) {
      keys_.push_back(std::to_string(random_() % 7));
      of_key_[keys_.back()].push_back(offset);
    }
    begin();
  }

  void run() {
    for (std::uint64_t step = 0; !finished(); ++step) {
      if (step == 1'000'000) {
        FAIL("it does not come to an end");
      }
      mended_ = step > 8'000;
      act();
    }
    CHECK(stored_.letters().empty());
    CHECK(stored_.keys().letters == 0);
    for (const auto& [handler, of] : seen_) {
      for (const auto& [key, offsets] : of.first_times) {
        CHECK(std::is_sorted(offsets.begin(), offsets.end()));
      }
      // Once each, or discarded; more often only when a worker was replaced.
      for (std::uint64_t offset = 0; offset < total; ++offset) {
        const auto times = of.times.contains(offset) ? of.times.at(offset) : 0;
        const bool gone = of.discarded.contains(offset);
        REQUIRE_MESSAGE((times > 0 || gone), "offset " << offset << " of handler " << handler << " is lost");
        if (crash_one_in_ == 0) {
          REQUIRE(times == (gone ? 0 : 1));
        }
      }
    }
  }

 private:
  static constexpr std::uint64_t total = 600;
  struct Lane {
    std::string handler;
    Window::Lane* lane;
    std::vector<std::uint64_t> flying;
    std::vector<HandlerKey> released;
    std::map<HandlerKey, std::uint64_t> at;
  };
  struct Seen {
    std::map<std::string, Offsets> first_times;
    std::map<std::uint64_t, int> times;
    std::set<std::uint64_t> discarded;
  };

  static std::string line(const std::string& key) {
    return R"({"specversion":"1.0","id":"i","source":"/s","type":"t","partitionkey":")" + key + R"("})";
  }
  bool chance(unsigned one_in) { return random_() % one_in == 0; }
  bool fails() { return !mended_ && chance(8); }

  void begin() {
    window_ = std::make_unique<Window>(cursor_, Dispatch::parallel);
    held_ = std::make_unique<HeldEvents>(letters_max_);
    held_->learn(stored_.keys());
    committing_.reset();
    reading_.reset();
    added_ = cursor_.offset.value;
    lanes_.clear();
    for (const std::string handler : {"h", "i"}) {
      lanes_.push_back({handler, &window_->add_lane(handler, TypeFilter()), {}, {}, {}});
    }
  }

  bool finished() { return cursor_.offset.value == total && stored_.empty() && !committing_; }

  void see(const std::string& handler, const std::string& key, std::uint64_t offset) {
    Seen& seen = seen_[handler];
    if (++seen.times[offset] == 1 && !given_up_.contains({handler, offset})) {
      seen.first_times[key].push_back(offset);
    }
    // Of one key never before an earlier one was.
    for (const std::uint64_t before : of_key_[key]) {
      if (before == offset) {
        break;
      }
      if (!given_up_.contains({handler, before}) && !seen.times.contains(before)) {
        FAIL("offset ", offset, " came before ", before);
      }
    }
  }

  void act() {
    now_ += 1ms;
    feed();
    for (Lane& lane : lanes_) {
      take(lane);
      judge(lane);
      judge_letters(lane);
    }
    commit();
    operate();
    read();
    if (crash_one_in_ > 0 && chance(crash_one_in_)) {
      begin();
    }
  }

  void feed() {
    if (added_ < total && window_->wants_entry() && chance(4)) {
      DecodedEntry entry;
      entry.id = {added_ + 1, 0};
      entry.first = Offset(added_);
      for (auto n = std::min<std::uint64_t>(1 + random_() % 20, total - added_); n > 0; --n) {
        entry.lines += line(keys_[added_++]) + "\n";
        ++entry.events;
      }
      window_->add(std::move(entry));
    }
    window_->admit(budget_);
  }

  void take(Lane& lane) {
    while (lane.flying.size() < 4) {
      const auto event = window_->take(*lane.lane, now_);
      if (!event) {
        return;
      }
      const std::uint64_t offset = event->offset.value;
      switch (held_->way_of(lane.handler, keys_[offset])) {
        case Way::free:
          lane.flying.push_back(offset);
          break;
        case Way::wait:
          window_->retry(*lane.lane, event->offset, now_ + 2ms, 0);
          break;
        case Way::park:
          held_->park(letter(offset, keys_[offset], LetterState::behind, lane.handler));
          window_->done(*lane.lane, event->offset);
          break;
      }
    }
  }

  void judge(Lane& lane) {
    if (lane.flying.empty() || chance(2)) {
      return;
    }
    std::swap(lane.flying[random_() % lane.flying.size()], lane.flying.back());
    const std::uint64_t offset = lane.flying.back();
    lane.flying.pop_back();
    if (!fails()) {
      see(lane.handler, keys_[offset], offset);
      window_->done(*lane.lane, Offset(offset));
    } else if (held_->full()) {
      window_->retry(*lane.lane, Offset(offset), now_ + 5ms, 0);
    } else {
      held_->park(letter(offset, keys_[offset], LetterState::failed, lane.handler));
      window_->done(*lane.lane, Offset(offset));
    }
  }

  void judge_letters(Lane& lane) {
    if (const DeadLetter* one = held_->take(lane.handler, now_)) {
      lane.released.push_back(one->whose);
      lane.at[one->whose] = one->offset.value;
    }
    if (lane.released.empty() || chance(2)) {
      return;
    }
    std::swap(lane.released[random_() % lane.released.size()], lane.released.back());
    const HandlerKey whose = lane.released.back();
    lane.released.pop_back();
    if (!mended_ && chance(6)) {
      held_->failed(whose, {1, {}, "why"}, Then::hold);
    } else if (chance(6)) {
      held_->retry(whose, now_ + 3ms);
    } else {
      see(lane.handler, whose.key, lane.at[whose]);
      held_->handled(whose);
    }
  }

  void commit() {
    if (committing_) {
      if (chance(5)) {
        for (const LetterStep& step : committing_->steps) {
          if (step.what == What::discard) {
            const auto found = std::find_if(stored_.letters().begin(), stored_.letters().end(),
                                            [&](const auto& one) { return one.id == step.id; });
            REQUIRE(found != stored_.letters().end());
            seen_[step.whose.handler].discarded.insert(found->offset.value);
          }
        }
        stored_.apply(*committing_);
        cursor_ = committing_->cursor;
        held_->committed();
        committing_.reset();
      }
      return;
    }
    const Cursor& finished = window_->finished();
    if (!reading_ && chance(4) && (finished.offset != cursor_.offset || held_->waits_for_commit())) {
      committing_.emplace();
      committing_->cursor = finished;
      held_->collect(*committing_);
    }
  }

  // While something is read no commit begins, but verdicts come.
  void read() {
    if (reading_) {
      if (chance(3)) {
        held_->give(std::move(reading_->letters), reading_->up_to, reading_->more);
        reading_.reset();
      }
    } else if (!committing_ && chance(3)) {
      if (const auto after = held_->wants_letters_after()) {
        reading_ = stored_.read_after(*after, 1 + random_() % 20);
      }
    }
  }

  void operate() {
    const auto& letters = stored_.letters();
    if (!letters.empty() && chance(mended_ ? 3 : 20)) {
      const DeadLetter& one = letters[random_() % letters.size()];
      LetterRequest request;
      if (!mended_ && chance(5)) {
        request = {LetterRequest::What::discard, one.id, one.id};
        // What follows it need not wait for it from now on.
        given_up_.insert({one.whose.handler, one.offset.value});
      }
      stored_.ask(one.whose, request);
      asked_ = true;
    }
    if (!committing_ && !reading_ && asked_ && chance(2)) {
      asked_ = false;
      held_->learn(stored_.keys());
    }
  }

  std::mt19937 random_;
  const std::uint64_t letters_max_;
  const unsigned crash_one_in_;
  std::vector<std::string> keys_;  // by offset
  std::map<std::string, Offsets> of_key_;
  Stored stored_;
  Cursor cursor_{Offset(0), {}};
  std::unique_ptr<Window> window_;
  std::unique_ptr<HeldEvents> held_;
  std::optional<Commit> committing_;
  std::optional<Stored::Read> reading_;
  std::uint64_t added_ = 0;
  std::vector<Lane> lanes_;
  Budget budget_{std::nullopt};
  Clock::time_point now_ = now;
  bool mended_ = false;
  bool asked_ = false;
  std::map<std::string, Seen> seen_;
  std::set<std::pair<std::string, std::uint64_t>> given_up_;
};

}  // namespace

TEST_CASE(
    "at random, every event is handled once by each handler and in the order of its key, or discarded") {
  for (std::uint32_t seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    Simulation(seed, seed % 3 == 0 ? 40 : plenty, 0).run();
  }
}

TEST_CASE("at random, and with workers that are replaced, no event is lost and no key loses its order") {
  for (std::uint32_t seed = 100; seed < 106; ++seed) {
    CAPTURE(seed);
    Simulation(seed, seed % 3 == 0 ? 40 : plenty, 400).run();
  }
}
