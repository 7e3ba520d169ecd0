// SIGINT and SIGTERM as a descriptor that the library can wait for.
#pragma once

namespace continuum::app {

// From here on both signals are counted by an eventfd instead of ending the process: once means finish what
// is under way, twice means end at once. Owned by the process; call it once.
[[nodiscard]] int stop_descriptor();

}  // namespace continuum::app
