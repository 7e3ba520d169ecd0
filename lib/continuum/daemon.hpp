// Starting a program that outlives us, and watching one that is not our child. Private to local.
#pragma once

#include "continuum/descriptor.hpp"
#include "continuum/types.hpp"

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

namespace continuum {

// Throws Error{server}: "cannot DOING WHAT: …" by errno.
[[noreturn]] void fail_by_errno(std::string_view doing, std::string_view path);

struct Spawned {
  pid_t pid = 0;
  int error = 0;  // errno, when the program could not be run
};

// Runs `words` (a program found by PATH and its arguments) in `directory`, with its stdout and stderr at the
// end of the file `log`: twice forked and in its own session, so that it is not our child, not in our process
// group and not on our terminal. Inherits nothing else. Returns when it runs or could not.
[[nodiscard]] Spawned spawn_daemon(const std::vector<std::string>& words,
                                   const std::vector<std::string>& environment, const std::string& directory,
                                   const std::string& log);

// A process that is not our child, held so that its number cannot come to mean another.
class ForeignProcess {
 public:
  explicit ForeignProcess(pid_t pid);
  // False when it still lives after that long.
  [[nodiscard]] bool ended_within(Milliseconds limit) const;
  void terminate() const;

 private:
  Descriptor fd_;
};

}  // namespace continuum
