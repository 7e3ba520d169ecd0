#include "replay_targets.hpp"

#include "continuum/error.hpp"
#include "continuum/units.hpp"

namespace continuum::app {
namespace {

constexpr Milliseconds retry_for{60'000};

class StdoutTarget final : public Target {
 public:
  explicit StdoutTarget(EventForm form) : form_(form) {}

  void give(const EventRun& run) override {
    if (form_ == EventForm::stored) {
      out_.write(run.lines);
      return;
    }
    text_.clear();
    append_events(text_, run, form_);
    out_.write(text_);
  }
  void flush() override { out_.flush(); }
  void stop_by(int descriptor) override { out_.stop_by(descriptor); }

 private:
  EventForm form_;
  Output out_;
  std::string text_;
};

Context context_of_target(Context context, const TargetOptions& options) {
  if (!options.to_redis.empty()) {
    context.redis_url = options.to_redis;
    context.password_file = options.to_password_file;
  }
  return context;
}

redis::ClientOptions client_of_target() {
  redis::ClientOptions client;
  client.needs.access = redis::Needs::Access::write;
  client.retry_for = retry_for;
  return client;
}

class TopicTarget final : public Target {
 public:
  TopicTarget(const Context& context, const TargetOptions& options, const Topic& source,
              std::string_view identity, const CopiedTo& before)
      : context_(context_of_target(context, options)),
        session_(connect(context_, client_of_target())),
        copy_(*session_, topic_to_write_to(context_, *session_, *options.to, options.missing), source,
              identity) {
    warn_of_loss(context_, *session_);
    copy_.go_on(before);
  }

  void give(const EventRun& run) override { copy_.give(run); }
  void flush() override { copy_.flush(); }
  void stop_by(int descriptor) override { session_->stop_by(descriptor); }
  [[nodiscard]] const CopiedTo* copied() const override { return &copy_.copied(); }
  void describe(JsonObject& summary) const override {
    summary.add("stored", copy_.stored()).add("duplicates", copy_.duplicates());
  }
  [[nodiscard]] std::string text() const override {
    return fmt::format(": stored {}, duplicates {}", format_count(copy_.stored()),
                       format_count(copy_.duplicates()));
  }

 private:
  Context context_;  // the session refers to it
  std::unique_ptr<redis::Session> session_;
  TopicCopy copy_;
};

}  // namespace

std::unique_ptr<Target> make_target(const Context& context, const TargetOptions& options, const Topic& source,
                                    std::string_view identity, const CopiedTo& before) {
  check(!options.is_handlers(), "handlers are made before threads are");
  if (options.to) {
    return std::make_unique<TopicTarget>(context, options, source, identity, before);
  }
  return std::make_unique<StdoutTarget>(options.form);
}

}  // namespace continuum::app
