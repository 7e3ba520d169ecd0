#include "continuum/handler_watch.hpp"

#include "continuum/output_relay.hpp"

#include <algorithm>

namespace continuum {

namespace {

// People know a handler of the command line by its program.
std::string name_for_people(const HandlerSpec& spec) {
  return spec.name != command_line_handler || spec.command.empty()
             ? spec.name
             : spec.command.front().substr(spec.command.front().rfind('/') + 1);
}

}  // namespace

HandlerWatch::HandlerWatch(const asio::any_io_executor& executor, const WorkOptions& options)
    : executor_(executor), options_(options) {
  if (options.handlers_directory.empty()) {
    take(options.handlers);
  } else {
    directory_.emplace(options.handlers_directory);
    take(directory_->present());
  }
  // At the start somebody is there to hear of it; later a program may be missing for a moment of a deploy.
  for (const auto& handler : handlers_) {
    if (handler->command) {
      handler->command->require_runnable();
    }
  }
}

std::string HandlerWatch::fingerprint() const {
  return directory_ ? directory_->fingerprint() : std::string();
}

std::optional<int> HandlerWatch::notify_fd() const {
  return directory_ ? std::optional(directory_->notify_fd()) : std::nullopt;
}

HandlerWatch::Changed HandlerWatch::refresh(Removals removals) {
  if (!directory_) {
    return Changed::no;
  }
  const HandlerChanges changes = directory_->refresh(removals);
  for (const HandlerNotice& notice : changes.notices) {
    for (std::size_t at = 0; at < notice.text.size();) {
      const std::size_t end = std::min(notice.text.find('\n', at), notice.text.size());
      options_.say(notice.text.substr(at, end - at));
      at = end + 1;
    }
  }
  if (!changes.is_other_set) {
    return Changed::no;
  }
  take(changes.present);
  return Changed::yes;
}

void HandlerWatch::take(const std::vector<HandlerSpec>& specs) {
  HandlerSet handlers;
  for (const HandlerSpec& spec : specs) {
    const auto same = std::find_if(handlers_.begin(), handlers_.end(),
                                   [&](const auto& handler) { return handler->spec == spec; });
    handlers.push_back(same != handlers_.end() ? *same : make(spec));
  }
  handlers_ = std::move(handlers);
}

std::shared_ptr<Handler> HandlerWatch::make(const HandlerSpec& spec) {
  auto handler = std::make_shared<Handler>(spec, options_.environment);
  if (!handler->command) {
    return handler;
  }
  // One pipe for all versions of a handler: what an old process still says is told, too.
  const auto before = std::find_if(handlers_.begin(), handlers_.end(), [&](const auto& one) {
    return one->spec.name == spec.name && one->log != nullptr;
  });
  if (before != handlers_.end()) {
    handler->log = (*before)->log;
  } else {
    handler->log = std::shared_ptr<OutputRelay>(
        std::make_unique<OutputRelay>(executor_, name_for_people(spec), options_.say).release(),
        [](OutputRelay* relay) {
          relay->finish();
          delete relay;
        });
  }
  return handler;
}

}  // namespace continuum
