// A stream handler that writes down what it handled: `recording-handler RECORD DIVISOR MENDED` reads events
// whose data are {"k":"kNUMBER","n":NUMBER}, appends both numbers to RECORD, and then answers "ok". Those of
// the keys that DIVISOR divides it answers with "retry", until there is a file MENDED (DIVISOR 0: none; 1:
// all). It ends with its input, with exit status 1 if an event failed: so it is an exec handler, too.
//
// A record is 8 bytes, so that a process that is killed while it writes, which the system may cut at the end
// of a page, leaves whole ones.
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void die(const char* what) {
  perror(what);
  exit(1);
}

static void write_all(int fd, const void* bytes, size_t count) {
  const char* at = bytes;
  while (count > 0) {
    const ssize_t written = write(fd, at, count);
    if (written < 0 && errno != EINTR) {
      die("recording-handler: write");
    }
    if (written > 0) {
      at += written;
      count -= (size_t)written;
    }
  }
}

static uint32_t number_behind(const char* line, const char* name) {
  const char* found = strstr(line, name);
  if (found == NULL) {
    fprintf(stderr, "recording-handler: no %s in %s\n", name, line);
    exit(1);
  }
  return (uint32_t)strtoul(found + strlen(name), NULL, 10);
}

int main(int argc, char** argv) {
  static char input[1 << 20];
  static char answers[sizeof input];
  static uint32_t records[sizeof input / 16];
  if (argc != 4) {
    fprintf(stderr, "Usage: recording-handler RECORD DIVISOR MENDED\n");
    return 2;
  }
  const int record = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (record < 0) {
    die(argv[1]);
  }
  const uint32_t divisor = (uint32_t)strtoul(argv[2], NULL, 10);
  int failed = 0;
  size_t held = 0;  // of a line whose end has not come
  for (;;) {
    const ssize_t got = read(STDIN_FILENO, input + held, sizeof input - held);
    if (got <= 0) {
      return got == 0 ? failed : 1;
    }
    const int mended = access(argv[3], F_OK) == 0;
    size_t answered = 0;
    size_t recorded = 0;
    char* line = input;
    char* const end = input + held + (size_t)got;
    for (char* newline; (newline = memchr(line, '\n', (size_t)(end - line))) != NULL; line = newline + 1) {
      *newline = '\0';
      const char* data = strstr(line, "\"data\":");
      const uint32_t key = number_behind(data == NULL ? line : data, "\"k\":\"k");
      if (divisor != 0 && key % divisor == 0 && !mended) {
        memcpy(answers + answered, "retry broken\n", 13);
        answered += 13;
        failed = 1;
        continue;
      }
      records[recorded++] = key;
      records[recorded++] = number_behind(data, "\"n\":");
      memcpy(answers + answered, "ok\n", 3);
      answered += 3;
    }
    // First done, then said.
    write_all(record, records, recorded * sizeof records[0]);
    write_all(STDOUT_FILENO, answers, answered);
    held = (size_t)(end - line);
    memmove(input, line, held);
    if (held == sizeof input) {
      fprintf(stderr, "recording-handler: a line of more than %zu bytes\n", held);
      return 1;
    }
  }
}
