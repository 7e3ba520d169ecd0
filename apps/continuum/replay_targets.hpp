// Where the events of a replay go.
#pragma once

#include "output.hpp"
#include "server.hpp"

#include "continuum/replay.hpp"
#include "continuum/topic.hpp"
#include "continuum/topic_copy.hpp"

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace continuum::app {

struct TargetOptions {
  EventForm form = EventForm::stored;  // on stdout
  std::optional<std::string> to;       // a topic instead
  std::string to_redis;                // of another server
  std::string to_password_file;
  MissingTopic missing = MissingTopic::refuse;

  [[nodiscard]] bool is_stdout() const { return !to; }
};

class Target {
 public:
  Target() = default;
  virtual ~Target() = default;
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  virtual void give(const EventRun& run) = 0;
  // Everything that was given is accepted.
  virtual void flush() = 0;
  // As Output::stop_by(), where nobody but the reader bounds the waiting.
  virtual void stop_by(int descriptor) { (void)descriptor; }
  // What was accepted, where that can be looked at again; null where it cannot.
  [[nodiscard]] virtual const CopiedTo* copied() const { return nullptr; }
  // What became of the events, for the summary.
  virtual void describe(JsonObject& summary) const { (void)summary; }
  [[nodiscard]] virtual std::string text() const { return {}; }
};

// `source`: what is replayed; `identity`: which of its events (TopicCopy); `before`: what earlier runs stored
// that this one goes on from.
[[nodiscard]] std::unique_ptr<Target> make_target(const Context& context, const TargetOptions& options,
                                                  const Topic& source, std::string_view identity,
                                                  const CopiedTo& before = {});

}  // namespace continuum::app
