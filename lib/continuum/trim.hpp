// Removes from the logs what is older than a time, or too much, and what every registered group has passed,
// the archive among them (PROTOCOLS: Groups; G2 in docs/guarantees.md). The head of a log goes in steps that
// are short for the server; each is whole by itself, so that a trim may end, or die, between any two of them.
#pragma once

#include "continuum/log.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace continuum {

// Nodes of a stream that MEMORY USAGE looks at, of the oldest ones: of a log that has no more it knows the
// bytes, of others it takes the rest to be like these. All of them would block the server for long: these
// take 70 microseconds (10,000 take 0.6 ms; redis-server 7.0.15). Whoever shows, plans or trims takes the
// same number.
inline constexpr int memory_samples = 1'000;

// Entries go that were stored before the time, or until the log has no more than so many bytes (as MEMORY
// USAGE estimates them); what either wants.
struct TrimGoal {
  std::optional<SystemTime> before;
  std::optional<std::uint64_t> bytes_max;
  // When the topic's settings were read of which this is, by the server's clock: nothing goes by what they
  // were more than two seconds ago, for who trims may have been stopped for days. Nothing: it was said for
  // this trim.
  std::optional<SystemTime> read = {};

  [[nodiscard]] bool wants_nothing() const { return !before && !bytes_max; }
};
// What the topic's retention asks for. `now`: by the server's clock.
[[nodiscard]] TrimGoal goal_of(const TopicSettings& settings, SystemTime now);

// --- one step

// How a group stood on a partition. One that was moved, or was forgotten and registered again, stands
// otherwise, also where its cursor is the same.
struct TrimStand {
  EntryId entry;  // of its cursor
  std::uint64_t run = 0;
  SystemTime moved{};

  friend bool operator==(const TrimStand&, const TrimStand&) = default;
};
struct TrimGroup {
  std::string name;
  // The group may be passed over while it stands so.
  std::optional<TrimStand> pass_at;
};
// Whether the log may begin elsewhere than where the last trim left it. What somebody removed by hand is then
// forgotten: it cannot be told from what was trimmed any more.
enum class TrimHead : std::uint8_t { recorded, any };

struct TrimHolder {  // the group that is farthest behind, and since when it has not moved though it could
  std::string group;
  SystemTime since{};
  // The partition has it, and the topic had it no more when that was asked after it: a forget was killed.
  bool orphan = false;
};
struct Trimmed {
  std::uint64_t entries = 0;
  Offset first;  // that is kept
  enum class State : std::uint8_t { done, more, held } state = State::done;
  TrimHolder holder;  // when held
};
struct TrimGroups {  // are other ones than those that were named: nothing was done
  std::vector<std::string> registered;
};
struct TrimHeadMoved {  // somebody else removed what was before it: nothing was done
  Offset first;
};
struct TrimNoLog {};
struct TrimGoalIsOld {};  // nothing was done
using TrimAnswer = std::variant<Trimmed, TrimGroups, TrimHeadMoved, TrimNoLog, TrimGoalIsOld>;

void request_trim(redis::Request& request, const Topic& topic, Partition partition,
                  const std::vector<TrimGroup>& groups, const TrimGoal& goal, TrimHead head);
[[nodiscard]] TrimAnswer parse_trim(redis::Reply reply);

// --- a whole trim

struct TrimResult {
  std::uint64_t entries = 0;
  Offset first;                      // that is kept
  std::optional<TrimHolder> holder;  // that did not let all go which should
  bool goal_is_old = false;          // it ended there: read the settings again and go on
};
// `passed_over`: groups, and where. Registers the topic's groups where they are missing. `between`: called
// before each further step; false ends it. Throws Error{loss} when the log is gone, or does not begin where
// the last trim left it.
[[nodiscard]] TrimResult trim_log(redis::Session& session, const Topic& topic, Partition partition,
                                  const TrimGoal& goal, const std::vector<TrimGroup>& passed_over,
                                  TrimHead head, const std::function<bool()>& between);

}  // namespace continuum
