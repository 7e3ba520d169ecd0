// What handlers print on stderr, through a real pipe.
#include "continuum/output_relay.hpp"

#include <doctest/doctest.h>
#include <asio/io_context.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

using namespace continuum;

namespace {

using Clock = std::chrono::steady_clock;

// As a process would: blocks until everything is written.
void write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    REQUIRE(n > 0);
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

struct Relayed {
  asio::io_context io;
  std::vector<std::string> said;
  OutputRelay relay{io.get_executor(), "mail", [this](const std::string& line) { said.push_back(line); }};

  void write(std::string_view bytes) const { write_all(relay.fd(), bytes); }
  void run_until_said(std::size_t lines) {
    while (said.size() < lines) {
      REQUIRE(io.run_one_for(std::chrono::seconds(10)) == 1);
    }
  }
};

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("lines on stderr are told with the name of their handler") {
  Relayed r;
  r.write("one\ntwo\r\n\nthr");
  r.write("ee\n");
  r.run_until_said(3);
  CHECK(r.said == Lines{"handler mail: one", "handler mail: two", "handler mail: three"});
}

TEST_CASE("bytes that are no text reach no terminal") {
  Relayed r;
  r.write(std::string_view("\x1b[2J\xff\0z\tp\xc3\xa4\n", 12));
  r.run_until_said(1);
  CHECK(r.said == Lines{"handler mail: \\x1B[2J\\xFF\\x00z\\x09p\xc3\xa4"});
}

TEST_CASE("half a line is told when nothing follows for a moment") {
  Relayed r;
  r.write("Password: ");
  const auto begun = Clock::now();
  r.run_until_said(1);
  CHECK(r.said == Lines{"handler mail: Password: "});
  CHECK(Clock::now() - begun >= std::chrono::milliseconds(150));
}

TEST_CASE("half a line is told at the end, with what the pipe still held") {
  Relayed r;
  r.write("whole\nhalf");
  r.relay.finish();
  CHECK(r.said == Lines{"handler mail: whole", "handler mail: half"});
  CHECK(r.relay.fd() == -1);
  r.relay.finish();
  CHECK(r.io.run_for(std::chrono::seconds(10)) > 0);
  CHECK(r.io.stopped());  // nothing goes on
  CHECK(r.said.size() == 2);
}

TEST_CASE("a long line is cut at 4 KiB and says so, and the next one is whole again") {
  Relayed r;
  std::thread writer([&] {
    r.write(std::string(4096, 'a') + "\n" + std::string(4097, 'b') + "\n");
    r.write(std::string(1'000'000, 'c') + "\nnext\n");
  });
  r.run_until_said(4);
  writer.join();
  CHECK(r.said[0] == "handler mail: " + std::string(4096, 'a'));
  CHECK(r.said[1] == "handler mail: " + std::string(4096, 'b') + " [cut at 4 KiB]");
  CHECK(r.said[2] == "handler mail: " + std::string(4096, 'c') + " [cut at 4 KiB]");
  CHECK(r.said[3] == "handler mail: next");
}

TEST_CASE("a flood of 100 MB is counted, not shown, and does not hold its writer up") {
  Relayed r;
  constexpr std::size_t lines = 2'500'000;
  const auto begun = Clock::now();
  std::thread flood([&] {
    std::string block;
    while (block.size() < 400'000) {
      block += "something went wrong again, and it will.\n";  // 41 bytes
    }
    const std::size_t each = block.size() / 41;
    for (std::size_t left = lines; left > 0; left -= std::min(left, each)) {
      r.write(std::string_view(block).substr(0, 41 * std::min(left, each)));
    }
  });
  // Shown and counted add up to what was written.
  std::size_t shown = 0;
  std::size_t counted = 0;
  std::size_t seen = 0;
  std::size_t reports = 0;
  while (shown + counted < lines) {
    REQUIRE(r.io.run_one_for(std::chrono::seconds(10)) == 1);
    for (; seen < r.said.size(); ++seen) {
      std::string text = r.said[seen];
      if (text == "handler mail: something went wrong again, and it will.") {
        ++shown;
        continue;
      }
      REQUIRE(text.starts_with("handler mail: "));
      REQUIRE(text.ends_with(" further lines on stderr not shown"));
      text = text.substr(14, text.find(" further") - 14);
      std::erase(text, ',');
      counted += std::stoull(text);
      ++reports;
    }
  }
  flood.join();
  CHECK(shown + counted == lines);
  const auto seconds = static_cast<std::size_t>((Clock::now() - begun) / std::chrono::seconds(1));
  CHECK(shown <= 200 * (seconds + 1));
  CHECK(reports <= seconds + 1);
}

TEST_CASE("lines that were not shown are told of although nothing follows, once") {
  Relayed r;
  std::string flood;
  for (int i = 0; i < 201; ++i) {
    flood += "x\n";
  }
  r.write(flood);
  r.run_until_said(201);
  CHECK(r.said.back() == "handler mail: 1 further line on stderr not shown");
  // A new second, a new allowance.
  r.write("y\n");
  r.run_until_said(202);
  CHECK(r.said.back() == "handler mail: y");
}

TEST_CASE("a process that outlives the relay does not keep it") {
  Relayed r;
  const int left = ::dup(r.relay.fd());
  r.write("end");
  r.relay.finish();
  CHECK(r.said == Lines{"handler mail: end"});
  CHECK(::fcntl(left, F_GETFD) >= 0);
  ::close(left);
  CHECK(::fcntl(r.relay.fd(), F_GETFD) == -1);
}

TEST_CASE("the pipe of a handler is passed on only on purpose") {
  Relayed r;
  CHECK((::fcntl(r.relay.fd(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((::fcntl(r.relay.fd(), F_GETFL) & O_NONBLOCK) == 0);
}
