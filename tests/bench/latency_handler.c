// A stream handler that measures: `latency-handler FILE` notes the time when each line has come, takes the
// time of publishing (microseconds since the epoch) out of the event's data, "us", and answers "ok". Events
// without "us" only get their answer. At the end of its input it writes p50, p99 and the maximum in
// milliseconds, and all delays in microseconds, to FILE.PID as JSON: a worker may run several of it, and
// percentiles of several do not add up.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static long long* samples_us;
static size_t samples_count;
static size_t samples_capacity;

static void die(const char* what) {
  perror(what);
  exit(1);
}

static void note(const char* line, long long now_us) {
  const char* data = strstr(line, "\"data\":");
  const char* member = data == NULL ? NULL : strstr(data, "\"us\":");
  if (member == NULL) {
    return;
  }
  if (samples_count == samples_capacity) {
    samples_capacity = samples_capacity == 0 ? 65536 : 2 * samples_capacity;
    samples_us = realloc(samples_us, samples_capacity * sizeof *samples_us);
    if (samples_us == NULL) {
      die("latency-handler");
    }
  }
  samples_us[samples_count++] = now_us - strtoll(member + strlen("\"us\":"), NULL, 10);
}

static int ascending(const void* a, const void* b) {
  const long long left = *(const long long*)a;
  const long long right = *(const long long*)b;
  return (left > right) - (left < right);
}

// Of the sorted samples: the first that this share of them comes before.
static double percentile_ms(double share) {
  if (samples_count == 0) {
    return 0;
  }
  size_t at = (size_t)(share * (double)samples_count);
  at = at < samples_count ? at : samples_count - 1;
  return (double)samples_us[at] / 1000;
}

static void report(const char* name) {
  char path[4096];
  snprintf(path, sizeof path, "%s.%ld", name, (long)getpid());
  FILE* file = fopen(path, "w");
  if (file == NULL) {
    die(path);
  }
  qsort(samples_us, samples_count, sizeof *samples_us, ascending);
  fprintf(file, "{\"events\":%zu,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,\"us\":[", samples_count,
          percentile_ms(0.50), percentile_ms(0.99), percentile_ms(1));
  for (size_t i = 0; i < samples_count; ++i) {
    fprintf(file, "%s%lld", i == 0 ? "" : ",", samples_us[i]);
  }
  fprintf(file, "]}\n");
  if (fclose(file) != 0) {
    die(path);
  }
}

int main(int argc, char** argv) {
  static char input[1 << 20];
  size_t held = 0;  // of a line whose end has not come
  if (argc != 2) {
    fprintf(stderr, "Usage: latency-handler FILE\n");
    return 2;
  }
  for (;;) {
    const ssize_t got = read(STDIN_FILENO, input + held, sizeof input - 1 - held);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      die("latency-handler: stdin");
    }
    if (got == 0) {
      break;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const long long now_us = (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    char* line = input;
    char* const end = input + held + (size_t)got;
    for (char* newline; (newline = memchr(line, '\n', (size_t)(end - line))) != NULL; line = newline + 1) {
      *newline = '\0';
      note(line, now_us);
      if (write(STDOUT_FILENO, "ok\n", 3) != 3) {
        die("latency-handler: stdout");
      }
    }
    held = (size_t)(end - line);
    memmove(input, line, held);
    if (held == sizeof input - 1) {
      fprintf(stderr, "latency-handler: a line of more than %zu bytes\n", held);
      return 1;
    }
  }
  report(argv[1]);
  return 0;
}
