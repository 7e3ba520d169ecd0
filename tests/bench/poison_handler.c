// A stream handler that fails for some keys: `poison-handler DIVISOR` answers "retry" to events of the keys
// "t-N" whose N DIVISOR divides, and "ok" to all others. One read takes all that has come, and its answers go
// out before the next read may wait.
#define _GNU_SOURCE  // memmem
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int write_all(const char* bytes, size_t count) {
  while (count > 0) {
    const ssize_t written = write(STDOUT_FILENO, bytes, count);
    if (written < 0 && errno != EINTR) {
      return -1;
    }
    if (written > 0) {
      bytes += written;
      count -= (size_t)written;
    }
  }
  return 0;
}

static int is_poison(const char* line, size_t length, long divisor) {
  static const char name[] = "\"partitionkey\":\"t-";
  const char* key = memmem(line, length, name, sizeof name - 1);
  return key != NULL && strtol(key + sizeof name - 1, NULL, 10) % divisor == 0;
}

int main(int argc, char** argv) {
  static char input[1 << 20];
  static char answers[sizeof input];  // shorter than the events that they are about
  const long divisor = argc == 2 ? strtol(argv[1], NULL, 10) : 0;
  if (divisor < 1) {
    fprintf(stderr, "Usage: poison-handler DIVISOR\n");
    return 2;
  }
  size_t held = 0;  // of a line whose end has not come
  for (;;) {
    const ssize_t got = read(STDIN_FILENO, input + held, sizeof input - held);
    if (got <= 0) {
      return got == 0 ? 0 : 1;
    }
    size_t answered = 0;
    const char* line = input;
    const char* const end = input + held + (size_t)got;
    for (const char* newline; (newline = memchr(line, '\n', (size_t)(end - line))) != NULL;
         line = newline + 1) {
      const int poison = is_poison(line, (size_t)(newline - line), divisor);
      const char* const answer = poison ? "retry\n" : "ok\n";
      const size_t length = strlen(answer);
      memcpy(answers + answered, answer, length);
      answered += length;
    }
    if (write_all(answers, answered) != 0) {
      return 1;
    }
    held = (size_t)(end - line);
    memmove(input, line, held);
    if (held == sizeof input) {
      fprintf(stderr, "poison-handler: a line of more than %zu bytes\n", held);
      return 1;
    }
  }
}
