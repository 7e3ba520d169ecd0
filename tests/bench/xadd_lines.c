// Plain entries to compare with: `xadd-lines SOCKET STREAM bare|envelope FILE` adds every line of FILE (of
// make-events) as one entry, in a pipeline. bare: the field `e` with the line. envelope: the attributes that
// `continuum publish` gives an event, each as a field of its own.
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { pipeline_max = 256 };

static void die(const char* what) {
  fprintf(stderr, "xadd-lines: %s\n", what);
  exit(1);
}

static void take_replies(redisContext* redis, int* waiting) {
  for (; *waiting > 0; --*waiting) {
    redisReply* reply;
    if (redisGetReply(redis, (void**)&reply) != REDIS_OK) {
      die(redis->errstr);
    }
    if (reply->type == REDIS_REPLY_ERROR) {
      die(reply->str);
    }
    freeReplyObject(reply);
  }
}

// The text of a member that is a plain string, such as "type":"post.created".
static const char* member_of(const char* line, const char* begin, size_t* length) {
  const char* found = strstr(line, begin);
  if (found == NULL) {
    die("the file is not of make-events");
  }
  found += strlen(begin);
  *length = strcspn(found, "\"");
  return found;
}

static void add_envelope(redisContext* redis, const char* stream, const char* line, size_t length,
                         unsigned long long number) {
  char id[32];
  char source[64];
  char time_text[32];
  const char* argument[18] = {"XADD",    stream,         "*",    "specversion", "1.0", "id",
                              id,        "source",       source, "type",        NULL,  "time",
                              time_text, "partitionkey", NULL,   "data",        line};
  size_t sizes[18];
  size_t type_length;
  size_t key_length;
  struct timespec now;
  struct tm utc;
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  size_t time_length = strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(time_text + time_length, sizeof time_text - time_length, ".%03dZ", (int)(now.tv_nsec / 1000000));
  snprintf(id, sizeof id, "bench:%llu", number);
  snprintf(source, sizeof source, "/bench");
  argument[10] = member_of(line, "\"type\":\"", &type_length);
  argument[14] = member_of(line, "\"thread_id\":\"", &key_length);
  for (int i = 0; i < 17; ++i) {
    sizes[i] = i == 10 ? type_length : i == 14 ? key_length : i == 16 ? length : strlen(argument[i]);
  }
  redisAppendCommandArgv(redis, 17, argument, sizes);
}

int main(int argc, char** argv) {
  if (argc != 5 || (strcmp(argv[3], "bare") != 0 && strcmp(argv[3], "envelope") != 0)) {
    fprintf(stderr, "Usage: xadd-lines SOCKET STREAM bare|envelope FILE\n");
    return 2;
  }
  const int envelope = strcmp(argv[3], "envelope") == 0;
  FILE* file = fopen(argv[4], "r");
  if (file == NULL) {
    perror(argv[4]);
    return 1;
  }
  redisContext* redis = redisConnectUnix(argv[1]);
  if (redis == NULL || redis->err != 0) {
    die(redis == NULL ? "out of memory" : redis->errstr);
  }
  char* line = NULL;
  size_t capacity = 0;
  ssize_t length;
  unsigned long long lines = 0;
  int waiting = 0;
  while ((length = getline(&line, &capacity, file)) > 0) {
    if (line[length - 1] == '\n') {
      line[--length] = '\0';
    }
    ++lines;
    if (envelope) {
      add_envelope(redis, argv[2], line, (size_t)length, lines);
    } else {
      redisAppendCommand(redis, "XADD %s * e %b", argv[2], line, (size_t)length);
    }
    if (++waiting == pipeline_max) {
      take_replies(redis, &waiting);
    }
  }
  take_replies(redis, &waiting);
  free(line);
  fclose(file);
  redisFree(redis);
  printf("{\"events\":%llu}\n", lines);
  return fflush(stdout) == 0 ? 0 : 1;
}
