#include "replay_handlers.hpp"

#include "selectors.hpp"

#include "continuum/error.hpp"
#include "continuum/handler_directory.hpp"
#include "continuum/handler_replay.hpp"
#include "continuum/units.hpp"

#include <csignal>
#include <utility>

namespace continuum::app {
namespace {

// A range whose @ was forgotten is no program.
bool is_time(const std::string& word) {
  try {
    (void)(word.find(':') == std::string::npos ? (void)parse_moment(word)
                                               : (void)parse_time_range("@" + word));
    return true;
  } catch (const Error&) {
    return false;
  }
}

HandlerReplayOptions options_of(const HandlerArguments& handlers, std::optional<Milliseconds> time_max) {
  HandlerReplayOptions options;
  if (handlers.directory) {
    options.handlers = HandlerDirectory(*handlers.directory).present();
  } else {
    options.handlers = {handlers.handler};
    options.handlers.front().name = command_line_handler;
  }
  options.dispatch = handlers.dispatch;
  options.environment = environment_of_process();
  options.time_max = time_max;
  return options;
}

class HandlersTarget final : public Target {
 public:
  HandlersTarget(const Context& context, const HandlerArguments& handlers,
                 std::optional<Milliseconds> time_max, const Topic& topic)
      : replay_(topic, options_with(context, options_of(handlers, time_max))), topic_(topic) {}

  void give(const EventRun& run) override { replay_.give(run); }
  void flush() override { replay_.finish(); }
  void stop_by(int descriptor) override { replay_.stop_by(descriptor); }
  void tell(const std::function<void()>& look, const std::function<void()>& clear) override {
    replay_.look_by(look);
    clear_ = clear;
  }
  [[nodiscard]] std::uint64_t settled(std::uint64_t given) const override {
    return given - replay_.unsettled();
  }
  void limit(ResumeAt& at) const override { replay_.limit(at); }

  [[nodiscard]] Player::Hooks hooks() override {
    Player::Hooks hooks = Target::hooks();
    hooks.wait = [this](Pace::Clock::time_point until) { replay_.go_on_until(until); };
    hooks.over = [this] { return over(); };
    return hooks;
  }

  [[nodiscard]] int result() const override {
    if (replay_.over() == HandlerReplay::Over::down) {
      fail(ErrorKind::server, "topic {}: {}. The replay ended there: run it again when the handler works",
           topic_.name, replay_.down());
    }
    const bool all = replay_.failed() == 0 && replay_.over() != HandlerReplay::Over::halted;
    return all ? 0 : static_cast<int>(ErrorKind::partial);
  }

  void describe(JsonObject& summary) const override {
    summary.add("handled", replay_.handled())
        .add("failed", replay_.failed())
        .add("left_out", replay_.left_out());
  }
  [[nodiscard]] std::string text() const override {
    return fmt::format(": handled {}, failed {}, left out {}", format_count(replay_.handled()),
                       format_count(replay_.failed()), format_count(replay_.left_out()));
  }

 private:
  HandlerReplayOptions options_with(const Context& context, HandlerReplayOptions options) {
    options.say = [this, &context](const std::string& text) {
      if (clear_) {
        clear_();
      }
      say(context, text);
    };
    return options;
  }

  [[nodiscard]] std::optional<Played> over() const {
    const auto why = replay_.over();
    if (!why) {
      return std::nullopt;
    }
    switch (*why) {
      case HandlerReplay::Over::stopped:
        return Played::stopped;
      case HandlerReplay::Over::time_max:
        return Played::time_max;
      case HandlerReplay::Over::halted:
      case HandlerReplay::Over::down:
        break;
    }
    return Played::halted;
  }

  std::function<void()> clear_;
  HandlerReplay replay_;
  const Topic& topic_;
};

}  // namespace

void take_command(std::optional<std::string>& range, const std::optional<std::string>& program,
                  HandlerArguments& handlers) {
  std::vector<std::string>& words = handlers.handler.command;
  if (range && !range->starts_with('@')) {
    words.insert(words.begin(), *std::exchange(range, std::nullopt));
  }
  if (!words.empty() && !program && is_time(words.front())) {
    fail(ErrorKind::usage, "{}: a range of time begins with @, such as @2h:1h", words.front());
  }
  if (program) {
    words.insert(words.begin(), *program);
  }
  if (!words.empty() && handlers.directory) {
    fail(ErrorKind::usage, "give --handlers or a command after --, not both");
  }
  if (words.empty() && handlers.about_it) {
    fail(ErrorKind::usage,
         "--mode, --attempts, --backoff, --timeout, --on-failure and --concurrency are about a handler: give "
         "its command after --{}",
         handlers.directory ? ", or write them into its file" : "");
  }
}

std::unique_ptr<Target> make_handlers_target(const Context& context, const HandlerArguments& handlers,
                                             std::optional<Milliseconds> time_max, const Topic& topic) {
  // Inherited from who started us, it would hide how handlers end.
  std::signal(SIGCHLD, SIG_DFL);
  return std::make_unique<HandlersTarget>(context, handlers, time_max, topic);
}

}  // namespace continuum::app
