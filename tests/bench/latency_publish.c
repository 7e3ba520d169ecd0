// A steady trickle to measure delays with: `latency-publish SECONDS [RATE]` writes RATE lines a second
// (1,000), each by a write of its own, and in it the time of that write in microseconds since the epoch:
// {"us":…,"thread_id":…,"type":…,"text":…}.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? strtod(argv[1], NULL) : 0;
  const long rate = argc > 2 ? strtol(argv[2], NULL, 10) : 1000;
  if (argc > 3 || !(seconds > 0) || rate < 1 || rate > 1000000) {
    fprintf(stderr, "Usage: latency-publish SECONDS [RATE]\n");
    return 2;
  }
  const long count = (long)(seconds * (double)rate);
  struct timespec next;
  clock_gettime(CLOCK_MONOTONIC, &next);
  for (long i = 0; i < count; ++i) {
    next.tv_nsec += 1000000000 / rate;
    if (next.tv_nsec >= 1000000000) {
      next.tv_nsec -= 1000000000;
      ++next.tv_sec;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL) != 0) {
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    char line[256];
    const int length =
        snprintf(line, sizeof line,
                 "{\"us\":%lld,\"thread_id\":\"t-%ld\",\"type\":\"post.created\",\"text\":\"the first reply "
                 "to this thread "
                 "came sooner than I could have hoped for, thanks, that will definitely help all of us\"}\n",
                 (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000, 1 + i * 7919 % 10000);
    if (write(STDOUT_FILENO, line, (size_t)length) != length) {
      perror("latency-publish: stdout");
      return 1;
    }
  }
  return 0;
}
