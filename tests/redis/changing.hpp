// A group whose topic gets other rings while it is worked.
#pragma once

#include "redis/work.hpp"

#include "continuum/group_seek.hpp"
#include "continuum/resize.hpp"
#include "continuum/ring.hpp"

#include <algorithm>
#include <string>
#include <vector>

namespace test {

// Appends the id of each event to $OUT.
inline const std::string record = R"x(sed 's/.*"id":"\([^"]*\)".*/\1/' >>"$OUT")x";
// Likewise, but fails until $DIR/mended is there.
inline const std::string record_when_mended = R"x(test -e "$DIR/mended" || exit 65; )x" + record;

class Changing : public Work {
 public:
  explicit Changing(std::uint32_t partitions) : Work(partitions) {
    options().coverage = continuum::Coverage::all;
  }

  void resize(const continuum::RingDescription& ring) {
    const auto own = session();
    (void)continuum::resize_topic(*own, "t", ring);
    data().topic() = continuum::load_topic(*own, "t");
  }
  // A run of all partitions that there are now.
  continuum::WorkSummary run_all() {
    options().coverage = continuum::Coverage::all;
    options().partitions = data().topic().partitions();
    return run();
  }
  // Where the ring of now has the key.
  continuum::Partition append(const std::string& id, const std::string& key) {
    const continuum::Topic& topic = data().topic();
    const continuum::Partition owner = continuum::Ring(topic.ring()).owner(key);
    data().append(owner.value, {event_line(id, key)}, continuum::Frames::plain, topic.active.value);
    return owner;
  }
  // A key that is in partition `from` now, and in `to` then.
  [[nodiscard]] std::string moving_key(const continuum::RingDescription& then, std::uint32_t from,
                                       std::uint32_t to) {
    const continuum::Ring now(data().topic().ring());
    const continuum::Ring later(then);
    for (int i = 0;; ++i) {
      const std::string key = "k" + std::to_string(i);
      if (now.owner(key) == continuum::Partition(from) && later.owner(key) == continuum::Partition(to)) {
        return key;
      }
    }
  }
  void seek(const std::vector<std::uint32_t>& partitions, continuum::SeekTarget::To to) {
    std::vector<continuum::Partition> moved;
    for (const std::uint32_t partition : partitions) {
      moved.emplace_back(partition);
    }
    const auto own = session();
    last_plan_ = continuum::seek(*own, data().topic(), "g", moved, {to, {}, {}}, "ann");
  }
  // Of the last seek: those that passed their barriers again where they stood.
  [[nodiscard]] std::string stayed() const {
    std::string partitions;
    for (const continuum::Move& move : last_plan_.staying) {
      CHECK(move.from == move.to.offset);
      partitions += std::to_string(move.partition.value);
    }
    return partitions;
  }
  void mend() { write_file(file("mended"), ""); }
  void release(std::uint32_t partition, const std::string& key) {
    continuum::redis::Request request;
    continuum::request_release(request, group(partition), held_key(partition),
                               {std::string(continuum::command_line_handler), key}, {});
    const auto own = session();
    REQUIRE(continuum::parse_release(own->call(std::move(request))[0]) == continuum::Asked::yes);
  }
  [[nodiscard]] std::string letters_in(std::uint32_t partition) {
    std::string ids;
    for (const continuum::DeadLetter& letter : letters(partition)) {
      const auto at = letter.event.find("\"id\":\"") + 6;
      ids += letter.event.substr(at, letter.event.find('"', at) - at) + "\n";
    }
    return ids;
  }
  [[nodiscard]] bool all_passed(std::uint32_t generation) {
    const auto partitions = data().topic().partitions();
    return std::all_of(partitions.begin(), partitions.end(), [&](continuum::Partition p) {
      return state(p.value).passed == continuum::Generation(generation);
    });
  }

 private:
  continuum::SeekPlan last_plan_;
};

inline std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

inline continuum::RingDescription ring_of(std::uint32_t partitions) {
  return continuum::RingDescription::uniform(partitions);
}

}  // namespace test
