// Signals as descriptors that the library can wait for.
#pragma once

#include <cstdint>

namespace continuum::app {

// What a second signal does.
enum class Again : std::uint8_t {
  counts,  // for those who look at the descriptor whatever they wait for
  ends,    // the process, there and then
};
// From here on SIGINT and SIGTERM are counted by an eventfd instead of ending the process: once means finish
// what is under way, twice means end at once. Owned by the process; call it once.
[[nodiscard]] int stop_descriptor(Again again);

enum class HangUp : std::uint8_t {
  stops,    // as SIGTERM
  rereads,  // the handlers; but stops when it comes because our terminal was closed
};

// Before request_descriptor(): a SIGHUP that asks to reread, and a SIGUSR1, end nothing, and ask for nothing.
void let_requests_pass(HangUp hang_up);

// From here on signals become bytes of a pipe, one for each, in their order, of which the reading end is
// returned. Owned by the process; call this or stop_descriptor(), once.
//
//   't'  SIGTERM, SIGINT: stop. The first finishes what is under way, the second ends at once
//   'h'  SIGHUP: reread the handlers. Ignored as before in a process that nohup started
//   'u'  SIGUSR1: print the state
[[nodiscard]] int request_descriptor(HangUp hang_up);

}  // namespace continuum::app
