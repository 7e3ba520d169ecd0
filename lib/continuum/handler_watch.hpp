// The handlers of a worker while it runs: those it was started with, or a directory's as they change.
// Private to the library: includes Asio.
#pragma once

#include "continuum/handler_directory.hpp"
#include "continuum/handler_set.hpp"
#include "continuum/worker.hpp"

#include <asio/any_io_executor.hpp>

#include <optional>
#include <string>

namespace continuum {

class HandlerWatch {
 public:
  // Throws Error{usage} when a handler cannot be run, or the directory not be worked with.
  HandlerWatch(const asio::any_io_executor& executor, const WorkOptions& options);

  [[nodiscard]] const HandlerSet& handlers() const { return handlers_; }
  // Equal on workers that run the same handlers; empty when they are no directory's.
  [[nodiscard]] std::string fingerprint() const;

  enum class Changed : std::uint8_t { no, yes };
  // Reads the directory again, and says what a person should know. A handler whose description is as it was
  // stays the same object.
  Changed refresh(Removals removals);
  // Readable when it is time to drain() and refresh(); nullopt: never.
  [[nodiscard]] std::optional<int> notify_fd() const;
  void drain() { directory_->drain(); }

 private:
  void take(const std::vector<HandlerSpec>& specs);
  std::shared_ptr<Handler> make(const HandlerSpec& spec);

  const asio::any_io_executor executor_;
  const WorkOptions& options_;
  std::optional<HandlerDirectory> directory_;
  HandlerSet handlers_;
};

}  // namespace continuum
