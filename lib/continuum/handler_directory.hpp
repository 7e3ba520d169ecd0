// A directory of handlers, taken up while it changes.
//
// A deploy replaces files, one after the other or all at once by a symbolic link, and is never seen half done
// by chance: a file that is broken, or gone, leaves the handler as it was. Only who says so removes one, by
// `enabled = false` or by asking for removals.
#pragma once

#include "continuum/handler_spec.hpp"
#include "continuum/types.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace continuum {

inline constexpr std::size_t handlers_max = 256;  // files in a directory

// One *.toml file as it is now.
struct HandlerFile {
  std::string name;  // without .toml
  std::string path;
  std::string text;
  std::optional<HandlerSpec> spec;
  std::string problem;  // why there is no spec; may have several lines
};
// Every *.toml without a leading dot, sorted by name. Throws Error{usage} when the directory cannot be read
// or has more than handlers_max of them.
[[nodiscard]] std::vector<HandlerFile> read_handler_files(const std::string& directory);

// Throws Error{usage} unless the files can be worked with: none broken, at least one, at least one enabled.
// The message lists everything that is wrong.
void require_working(const std::string& directory, const std::vector<HandlerFile>& files);

// What a person should know of a reading.
struct HandlerNotice {
  enum class What : std::uint8_t {
    added,
    changed,
    removed,   // by enabled = false, or because removals were asked for
    broken,    // a file, or the directory; what was there goes on
    vanished,  // a file; its handler goes on
    mended,    // broken or vanished before, and now as it was
  };
  What what;
  std::string name;  // of the handler; empty when it is about the directory
  std::string text;  // a whole sentence, without a newline at its end; broken ones may have several lines
};

struct HandlerChanges {
  bool is_other_set = false;         // than at the reading before
  std::vector<HandlerSpec> present;  // enabled ones, sorted by name; none when all were disabled
  std::vector<HandlerNotice> notices;
};

enum class Removals : std::uint8_t { keep, apply };

class HandlerDirectory {
 public:
  // The first reading: throws as read_handler_files and require_working. notify_fd() becomes readable
  // `poll_every` so often, whatever else happens.
  explicit HandlerDirectory(std::string path, Milliseconds poll_every = Milliseconds(5'000));
  ~HandlerDirectory();
  HandlerDirectory(const HandlerDirectory&) = delete;
  HandlerDirectory& operator=(const HandlerDirectory&) = delete;

  // The last good version of each enabled handler, sorted by name.
  [[nodiscard]] std::vector<HandlerSpec> present() const;
  // Reads again. A change is one of content, not of a file's time. Something broken or vanished is told once,
  // and again when removals are applied. Removals never leave nothing: only enabled = false does.
  [[nodiscard]] HandlerChanges refresh(Removals removals);

  // Of the names and contents that present() comes from, in hex: equal on hosts that run the same.
  [[nodiscard]] std::string fingerprint() const;

  // Readable when it is time to drain() and refresh(): something in the directory changed, the path leads
  // elsewhere, or the time to look anyway has come (changes behind symbolic links and on network file
  // systems make no noise). Never blocks. Ours: do not close it.
  [[nodiscard]] int notify_fd() const;
  void drain();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace continuum
