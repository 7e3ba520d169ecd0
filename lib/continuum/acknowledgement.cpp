#include "continuum/acknowledgement.hpp"

#include <algorithm>
#include <cstdio>

namespace continuum {
namespace {
constexpr Milliseconds wait_for_copies{10'000};
}

asio::awaitable<void> Acknowledgement::verify() {
  if (std::exchange(verified_connection_, client_.connections()) == client_.connections() ||
      level_.level != Acknowledge::Level::fsync) {
    co_return;
  }
  const auto& facts = client_.facts();
  if (!facts.append_only_file) {
    fail(ErrorKind::usage, "--ack fsync: {} has no append-only file: set appendonly yes",
         client_.address().text());
  }
  redis::Request request;
  request.command("CONFIG", "GET", "appendfsync").keep_errors();
  const auto replies = co_await client_.call(std::move(request));
  const auto policy = replies[0].is_error() ? std::nullopt : replies[0].field("appendfsync");
  wait_for_file_ = policy != "always";
  if (!wait_for_file_) {
    co_return;
  }
  // WAITAOF came with Redis 7.2.
  int major = 0;
  int minor = 0;
  std::sscanf(facts.version.c_str(), "%d.%d", &major, &minor);
  if (major * 100 + minor < 702) {
    fail(ErrorKind::usage,
         "--ack fsync: {} is {} {}, which can promise it only with appendfsync always: set that, or use 7.2 "
         "or later",
         client_.address().text(), facts.name, facts.version);
  }
}

void Acknowledgement::ask(redis::Request& request) const {
  if (level_.level == Acknowledge::Level::replicas) {
    request.command("WAIT", level_.replicas, wait_for_copies.count()).may_block(wait_for_copies);
  } else if (wait_for_file_) {
    request.command("WAITAOF", 1, 0, wait_for_copies.count()).may_block(wait_for_copies);
  }
}

bool Acknowledgement::confirmed(const redis::Replies& replies, std::size_t writes) const {
  if (replies.size() <= writes) {
    return true;
  }
  const auto answer = replies[replies.size() - 1];
  const auto copies = answer.is_array() ? answer[0].number() : answer.number();  // WAITAOF: local, replicas
  return copies >= std::max(1U, level_.replicas);
}

}  // namespace continuum
