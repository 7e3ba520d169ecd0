#include "commands.hpp"
#include "output.hpp"

#include "continuum/error.hpp"
#include "continuum/names.hpp"

#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <new>
#include <string>
#include <vector>

namespace {

using namespace continuum;

// What a shell reports for a process that SIGPIPE ended.
constexpr int exit_by_sigpipe = 128 + SIGPIPE;

// A descriptor that the caller closed would be given to the next socket, and a message meant for people would
// go to the server. Opened the wrong way round, so that using it fails as it should.
void open_missing_descriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) == -1) {
      (void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : fd == STDOUT_FILENO ? O_RDONLY : O_WRONLY);
    }
  }
}

// Lines after the first are indented, so that no part of a message can pass for another message.
void report(std::string_view message) {
  std::string text = "continuum: ";
  for (std::size_t at = 0; at <= message.size();) {
    const auto end = std::min(message.find('\n', at), message.size());
    text += at == 0 ? "" : "  ";
    text += printable(message.substr(at, end - at));
    text += '\n';
    at = end + 1;
  }
  std::fwrite(text.data(), 1, text.size(), stderr);
}

// Batches are larger than what malloc gives back to the system at once by default: every one of them would be
// mapped, cleared and unmapped again.
void keep_batches_mapped() {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 128 << 20);
}

}  // namespace

int main(int argc, char** argv) {
  keep_batches_mapped();
  open_missing_descriptors();
  std::signal(SIGPIPE, SIG_IGN);  // a write then fails with EPIPE, which says who closed what
  try {
    return app::run(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
  } catch (const app::OutputClosed&) {
    return exit_by_sigpipe;
  } catch (const Error& error) {
    report(error.message());
    return static_cast<int>(error.kind());
  } catch (const std::bad_alloc&) {
    report("out of memory");
    return static_cast<int>(ErrorKind::server);  // a retry makes sense
  } catch (const std::exception& error) {
    // A mistake of ours, which no retry will mend: the code that supervisors do not restart on.
    report(fmt::format("internal error: {}. Please report this.", error.what()));
    return static_cast<int>(ErrorKind::usage);
  }
}
