// What the logs of a restored topic say of its generations: which rings there were, and which logs were not
// archived to their end. Of what was restored alone; no server is asked.
#pragma once

#include "continuum/log.hpp"
#include "continuum/topic.hpp"
#include "continuum/types.hpp"

#include <map>
#include <set>
#include <string>
#include <vector>

namespace continuum {

struct LogEdge {
  EntryId id;
  Offset first;
  Offset next;
  Generation generation;
  bool barrier = false;
};

struct RestoredEnds {
  LogEdge first;
  LogEdge last;
  Generation events;  // of the newest event; 0: there is none
};
using RestoredLogs = std::map<Partition, RestoredEnds>;

[[nodiscard]] bool is_in(const RingDescription& ring, Partition partition);
// Of a ring and of the one before it, if there is one: their logs have the barrier between them.
[[nodiscard]] std::set<Partition> members_of(const RingDescription* before, const RingDescription& ring);
// The first generation whose ring has the partition; 0: none has.
[[nodiscard]] Generation born_in(const Topic& topic, Partition partition);

// Gives the topic a ring for each generation that the logs know. The last of them is then in force, and
// returned. One that nobody had described was never in force: as when a resize is called off, it has the ring
// of the one before.
Generation complete_rings(Topic& topic, const RestoredLogs& logs);

// Logs that end before a barrier behind which others have events: they were not archived to their end.
struct CutLogs {
  std::size_t logs = 0;
  std::vector<std::string> said;  // of each of them, for a person; of many the first ones
  Generation whole;               // the newest of which every log has all
  Generation newest;              // that an event is of
};
[[nodiscard]] CutLogs find_cut_logs(const Topic& topic, const RestoredLogs& logs);

}  // namespace continuum
