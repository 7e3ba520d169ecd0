// Peer of publish to handler: what two small programs do by hand, without envelope, ring, lease or cursor.
//
//   latency-peer add SOCKET STREAM          adds each line of stdin by an XADD of its own, and waits for it
//   latency-peer read SOCKET STREAM COUNT   writes COUNT of them to stdout as they come (XREAD BLOCK), each
//                                           as {"data":LINE} by one write, for latency-handler
#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void die(const char* what) {
  fprintf(stderr, "latency-peer: %s\n", what);
  exit(1);
}

static redisReply* checked(redisContext* redis, redisReply* reply) {
  if (reply == NULL) {
    die(redis->errstr);
  }
  if (reply->type == REDIS_REPLY_ERROR) {
    die(reply->str);
  }
  return reply;
}

static int add(redisContext* redis, const char* stream) {
  char* line = NULL;
  size_t capacity = 0;
  ssize_t length;
  while ((length = getline(&line, &capacity, stdin)) > 0) {
    length -= line[length - 1] == '\n' ? 1 : 0;
    freeReplyObject(checked(redis, redisCommand(redis, "XADD %s * e %b", stream, line, (size_t)length)));
  }
  free(line);
  return 0;
}

static void write_event(const redisReply* entry) {
  const redisReply* line = entry->element[1]->element[1];
  static char text[1 << 16];
  const int length = snprintf(text, sizeof text, "{\"data\":%s}\n", line->str);
  if (length >= (int)sizeof text || write(STDOUT_FILENO, text, (size_t)length) != length) {
    die("cannot write to stdout");
  }
}

static int read_events(redisContext* redis, const char* stream, long count) {
  char last[64] = "0";
  while (count > 0) {
    redisReply* reply = checked(redis, redisCommand(redis, "XREAD BLOCK 0 STREAMS %s %s", stream, last));
    const redisReply* entries = reply->element[0]->element[1];  // of the one stream
    for (size_t i = 0; i < entries->elements; ++i, --count) {
      write_event(entries->element[i]);
    }
    snprintf(last, sizeof last, "%s", entries->element[entries->elements - 1]->element[0]->str);
    freeReplyObject(reply);
  }
  return 0;
}

int main(int argc, char** argv) {
  const int adds = argc == 4 && strcmp(argv[1], "add") == 0;
  const int reads = argc == 5 && strcmp(argv[1], "read") == 0;
  if (!adds && !reads) {
    fprintf(stderr, "Usage: latency-peer add SOCKET STREAM | latency-peer read SOCKET STREAM COUNT\n");
    return 2;
  }
  redisContext* redis = redisConnectUnix(argv[2]);
  if (redis == NULL || redis->err != 0) {
    die(redis == NULL ? "out of memory" : redis->errstr);
  }
  const int status = adds ? add(redis, argv[3]) : read_events(redis, argv[3], strtol(argv[4], NULL, 10));
  redisFree(redis);
  return status;
}
