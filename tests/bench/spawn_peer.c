// Peer of `continuum work --mode exec`: `spawn-peer COUNT CHILDREN` starts /bin/true COUNT times by
// posix_spawn and waits for each, CHILDREN of them running at any time, and prints a JSON line with spawns
// per second.
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char** environ;

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char** argv) {
  const long count = argc == 3 ? strtol(argv[1], NULL, 10) : 0;
  const long children = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
  if (count < 1 || children < 1) {
    fprintf(stderr, "Usage: spawn-peer COUNT CHILDREN\n");
    return 2;
  }
  char path[] = "/bin/true";
  char* const arguments[] = {path, NULL};
  const double start = seconds_now();
  long started = 0;
  long running = 0;
  while (started < count || running > 0) {
    if (started < count && running < children) {
      pid_t child;
      const int error = posix_spawn(&child, path, NULL, NULL, arguments, environ);
      if (error != 0) {
        fprintf(stderr, "spawn-peer: %s: %s\n", path, strerror(error));
        return 1;
      }
      ++started;
      ++running;
      continue;
    }
    int status;
    if (waitpid(-1, &status, 0) < 0) {
      if (errno == EINTR) {
        continue;
      }
      perror("spawn-peer: waitpid");
      return 1;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      fprintf(stderr, "spawn-peer: %s failed\n", path);
      return 1;
    }
    --running;
  }
  const double seconds = seconds_now() - start;
  printf("{\"spawns\":%ld,\"children\":%ld,\"seconds\":%.6f,\"spawns_per_second\":%.0f}\n", count, children,
         seconds, (double)count / seconds);
  return fflush(stdout) == 0 ? 0 : 1;
}
