// Peer of `continuum work`: `xread-peer SOCKET STREAM` reads the plain entries of one stream to its end by
// XREAD COUNT 1000, looks at every field's length, and prints a JSON line with entries, bytes and entries per
// second.
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void die(const char* what) {
  fprintf(stderr, "xread-peer: %s\n", what);
  exit(1);
}

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "Usage: xread-peer SOCKET STREAM\n");
    return 2;
  }
  redisContext* redis = redisConnectUnix(argv[1]);
  if (redis == NULL || redis->err != 0) {
    die(redis == NULL ? "out of memory" : redis->errstr);
  }
  unsigned long long entries = 0;
  unsigned long long bytes = 0;
  char last[64] = "0";
  const double start = seconds_now();
  for (;;) {
    redisReply* reply = redisCommand(redis, "XREAD COUNT 1000 STREAMS %s %s", argv[2], last);
    if (reply == NULL) {
      die(redis->errstr);
    }
    if (reply->type == REDIS_REPLY_ERROR) {
      die(reply->str);
    }
    if (reply->type == REDIS_REPLY_NIL) {
      freeReplyObject(reply);
      break;
    }
    const redisReply* read = reply->element[0]->element[1];  // of the one stream: its entries
    for (size_t i = 0; i < read->elements; ++i) {
      const redisReply* fields = read->element[i]->element[1];
      for (size_t field = 0; field < fields->elements; ++field) {
        bytes += (unsigned long long)fields->element[field]->len;
      }
    }
    entries += read->elements;
    snprintf(last, sizeof last, "%s", read->element[read->elements - 1]->element[0]->str);
    freeReplyObject(reply);
  }
  const double seconds = seconds_now() - start;
  redisFree(redis);
  printf("{\"events\":%llu,\"bytes\":%llu,\"seconds\":%.6f,\"events_per_second\":%.0f}\n", entries, bytes,
         seconds, (double)entries / seconds);
  return fflush(stdout) == 0 ? 0 : 1;
}
