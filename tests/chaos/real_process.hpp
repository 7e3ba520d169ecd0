// What tests of the real program have in common: where it is, how long they are, what it does in its own
// time.
#pragma once

#include "support/process.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

namespace test {

inline std::string from_environment(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

inline std::string binary() {
  return from_environment("CONTINUUM_BINARY", "./continuum");
}

inline std::string recording_handler() {
  return from_environment("RECORDING_HANDLER", "./recording-handler");
}

inline bool is_long() {
  return std::getenv("CONTINUUM_LONG") != nullptr;
}

// Another process's doing: there is no event of ours to wait for.
inline void await(const std::string& what, const std::function<bool()>& holds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!holds()) {
    REQUIRE_MESSAGE(std::chrono::steady_clock::now() < deadline, what);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// From then on a signal finds the program and not the copy of this test that becomes it.
inline void await_started(const Process& process) {
  await("it is the program",
        [&] { return read_file("/proc/" + std::to_string(process.pid()) + "/comm") == "continuum\n"; });
}

inline int end_of(Process& process) {
  REQUIRE(process.ended_within(std::chrono::seconds(120)));
  return process.wait();
}

}  // namespace test
