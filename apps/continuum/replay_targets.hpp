// Where the events of a replay go.
#pragma once

#include "handler_options.hpp"
#include "output.hpp"
#include "replay_player.hpp"
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
  HandlerArguments handlers;  // or handlers

  [[nodiscard]] bool is_handlers() const {
    return handlers.directory.has_value() || !handlers.handler.command.empty();
  }
  [[nodiscard]] bool is_stdout() const { return !to && !is_handlers(); }
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
  // How the events are played to it.
  [[nodiscard]] virtual Player::Hooks hooks() {
    return {[this](const EventRun& run) { give(run); }, [this] { flush(); }};
  }
  // Of a target that works by itself: what it calls a few times a second, and before it says something.
  virtual void tell(const std::function<void()>& look, const std::function<void()>& clear) {
    (void)look, (void)clear;
  }
  // How many of the events that it was given are behind it, accepted or not.
  [[nodiscard]] virtual std::uint64_t settled(std::uint64_t given) const { return given; }
  // What it has not accepted of what it was given is taken out of `at`.
  virtual void limit(ResumeAt& at) const { (void)at; }
  // 0, or the exit status of events that were not accepted. Throws Error for more than that.
  [[nodiscard]] virtual int result() const { return 0; }
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
