// A handler that waits for something: `sleep-handler MS` takes MS milliseconds for an event and is content;
// `sleep-handler MS stream` does so for each line, one after the other.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void sleep_ms(long ms) {
  struct timespec left = {ms / 1000, ms % 1000 * 1000000};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

int main(int argc, char** argv) {
  static char input[1 << 20];
  const long ms = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
  if (argc > 3 || ms < 1 || (argc == 3 && strcmp(argv[2], "stream") != 0)) {
    fprintf(stderr, "Usage: sleep-handler MS [stream]\n");
    return 2;
  }
  if (argc == 2) {
    sleep_ms(ms);
    return 0;
  }
  for (;;) {
    const ssize_t got = read(STDIN_FILENO, input, sizeof input);
    if (got <= 0) {
      return got == 0 ? 0 : 1;
    }
    for (const char *at = input, *end = input + got; (at = memchr(at, '\n', (size_t)(end - at))) != NULL;
         ++at) {
      sleep_ms(ms);
      if (write(STDOUT_FILENO, "ok\n", 3) != 3) {
        return 1;
      }
    }
  }
}
