// Verdicts, and processes that must end.
#include "continuum/handler.hpp"
#include "continuum/error.hpp"

#include <doctest/doctest.h>

#include <poll.h>
#include <unistd.h>

#include <array>
#include <string>

using namespace continuum;

namespace {

HandlerSpec running(std::vector<std::string> command) {
  HandlerSpec spec;
  spec.command = std::move(command);
  return spec;
}

const std::vector<std::string> environment{"PATH=/usr/bin:/bin", "REDISCLI_AUTH=secret", "KEPT=yes"};

struct Finished {
  ExitStatus status;
  std::string out;
};

Finished run(ProcessGuard& guard, std::vector<std::string> command, const Variables& variables,
             std::string_view input) {
  const HandlerCommand handler(running(std::move(command)), environment);
  std::array<int, 2> out{};
  REQUIRE(::pipe(out.data()) == 0);
  const InputFile file(input);
  std::string why;
  const auto process = Process::start(guard, handler, variables, {.input = file.fd(), .output = out[1]}, why);
  ::close(out[1]);
  REQUIRE_MESSAGE(process, why);
  Finished finished;
  std::array<char, 4096> buffer{};
  for (ssize_t n = 0; (n = ::read(out[0], buffer.data(), buffer.size())) > 0;) {
    finished.out.append(buffer.data(), static_cast<std::size_t>(n));
  }
  ::close(out[0]);
  finished.status = process->reap();
  return finished;
}

}  // namespace

TEST_CASE("a verdict line has a word, perhaps an offset, and a reason") {
  const auto ok = parse_verdict("ok");
  REQUIRE(ok);
  CHECK(ok->verdict == Verdict::done);
  CHECK_FALSE(ok->offset);
  CHECK(parse_verdict("ok 17")->offset == Offset(17));
  CHECK(parse_verdict("ok\r")->verdict == Verdict::done);
  const auto retry = parse_verdict("retry 3 the disk is full");
  REQUIRE(retry);
  CHECK(retry->verdict == Verdict::retry);
  CHECK(retry->offset == Offset(3));
  CHECK(retry->why == "the disk is full");
  CHECK(parse_verdict("fail no such account")->why == "no such account");
  CHECK_FALSE(parse_verdict("fail no such account")->offset);
}

TEST_CASE("what only begins like a verdict is none") {
  for (const char* line :
       {"", " ok", "okay", "OK", "ok then", "ok 1 done", "failed", "retrying", "{\"ok\":1}"}) {
    CAPTURE(line);
    CHECK_FALSE(parse_verdict(line));
  }
}

TEST_CASE("exit statuses are verdicts") {
  CHECK(verdict_of({false, 0}) == Verdict::done);
  CHECK(verdict_of({false, 65}) == Verdict::fail);
  CHECK(verdict_of({false, 75}) == Verdict::later);
  CHECK(verdict_of({false, 126}) == Verdict::down);
  CHECK(verdict_of({false, 127}) == Verdict::down);
  CHECK(verdict_of({false, 1}) == Verdict::retry);
  CHECK(verdict_of({true, 11}) == Verdict::retry);
}

TEST_CASE("a handler gets its event, its variables, and no secret") {
  ProcessGuard guard(4);
  Variables variables;
  variables.set("CONTINUUM_KEY", "a b");
  variables.set("CONTINUUM_ID", std::string_view("nul\0", 4));
  variables.set("CONTINUUM_TYPE", std::string(40'000, 'x'));
  const auto finished = run(guard, {"sh", "-c", "cat; env"}, variables, "the event\n");
  CHECK(finished.status.success());
  CHECK(finished.out.starts_with("the event\n"));
  CHECK(finished.out.find("CONTINUUM_KEY=a b\n") != std::string::npos);
  CHECK(finished.out.find("KEPT=yes\n") != std::string::npos);
  CHECK(finished.out.find("secret") == std::string::npos);
  CHECK(finished.out.find("CONTINUUM_ID") == std::string::npos);
  CHECK(finished.out.find("CONTINUUM_TYPE") == std::string::npos);
}

TEST_CASE("a handler has no descriptors but its three") {
  ProcessGuard guard(4);
  std::array<int, 2> leak{};
  REQUIRE(::pipe(leak.data()) == 0);
  const auto finished = run(guard, {"sh", "-c", "ls /proc/$$/fd"}, {}, "");
  ::close(leak[0]);
  ::close(leak[1]);
  CHECK(finished.out == "0\n1\n2\n");
}

TEST_CASE("an exit and a signal are told apart") {
  ProcessGuard guard(4);
  CHECK(run(guard, {"sh", "-c", "exit 3"}, {}, "").status.text() == "exit status 3");
  CHECK(run(guard, {"sh", "-c", "kill -KILL $$"}, {}, "").status.text() == "killed by signal 9 (Killed)");
}

TEST_CASE("what a handler leaves running in its group ends with it") {
  ProcessGuard guard(4);
  // The sleeping process holds the pipe: run() would wait for it.
  const HandlerCommand handler(running({"sh", "-c", "sleep 1000 & exit 0"}), environment);
  std::array<int, 2> out{};
  REQUIRE(::pipe(out.data()) == 0);
  std::string why;
  const auto process = Process::start(guard, handler, {}, {.input = -1, .output = out[1]}, why);
  ::close(out[1]);
  REQUIRE(process);
  CHECK(process->reap().success());
  char byte = 0;
  CHECK(::read(out[0], &byte, 1) == 0);  // nobody has the other end any more
  ::close(out[0]);
}

TEST_CASE("a program that is not there is a usage error that names it") {
  try {
    HandlerCommand(running({"no-such-program"}), environment).require_runnable();
    FAIL("it was accepted");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    CHECK(error.message().find("no-such-program") != std::string::npos);
  }
}
