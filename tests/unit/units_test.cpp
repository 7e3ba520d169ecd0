#include "continuum/units.hpp"

#include "continuum/error.hpp"

#include <doctest/doctest.h>

using namespace continuum;

TEST_CASE("a duration is digits and a unit") {
  CHECK(parse_duration("0") == Milliseconds(0));
  CHECK(parse_duration("500ms") == Milliseconds(500));
  CHECK(parse_duration("10s") == Milliseconds(10'000));
  CHECK(parse_duration("5m") == Milliseconds(300'000));
  CHECK(parse_duration("2h") == Milliseconds(7'200'000));
  CHECK(parse_duration("7d") == Milliseconds(604'800'000));
  CHECK(parse_duration("36500d") == Milliseconds(3'153'600'000'000));
}

TEST_CASE("what is not a duration is refused") {
  for (const auto* text :
       {"", "5", "5x", "s", "-5s", "1.5h", "5 s", "5S", "99999999999999999999s", "36501d", "1h30m"}) {
    CAPTURE(text);
    CHECK_THROWS_AS((void)parse_duration(text), Error);
  }
}

TEST_CASE("a duration shows its two largest units") {
  CHECK(format_duration(Milliseconds(0)) == "0s");
  CHECK(format_duration(Milliseconds(350)) == "350ms");
  CHECK(format_duration(Milliseconds(12'340)) == "12.3s");
  CHECK(format_duration(Milliseconds(303'000)) == "5m03s");
  CHECK(format_duration(Milliseconds(7'500'000)) == "2h05m");
  CHECK(format_duration(Milliseconds(273'600'000)) == "3d04h");
  CHECK(format_duration(Milliseconds(-1'500)) == "-1.5s");
}

TEST_CASE("a backoff is the first pause and the longest") {
  const Backoff backoff = parse_backoff("100ms..30s");
  CHECK(backoff.min == Milliseconds(100));
  CHECK(backoff.max == Milliseconds(30'000));
  CHECK(parse_backoff("1s..1s").max == Milliseconds(1'000));
  for (const auto* text : {"", "1s", "..", "1s..", "..1s", "0..1s", "2s..1s", "1s...2s"}) {
    CAPTURE(text);
    CHECK_THROWS_AS((void)parse_backoff(text), Error);
  }
}

TEST_CASE("a rate is digits and a time") {
  CHECK(parse_rate("100/s") == 100);
  CHECK(parse_rate("30/m") == 0.5);
  CHECK(parse_rate("7200/h") == 2);
  for (const auto* text : {"", "100", "0/s", "-1/s", "1/d", "1 /s", "1.5/s", "/s"}) {
    CAPTURE(text);
    CHECK_THROWS_AS((void)parse_rate(text), Error);
  }
}

TEST_CASE("a size is digits and a binary unit") {
  CHECK(parse_bytes("4096") == 4096);
  CHECK(parse_bytes("64KiB") == 65536);
  CHECK(parse_bytes("1MiB") == 1048576);
  CHECK(parse_bytes("2GiB") == 2147483648);
  for (const auto* text : {"", "1MB", "1 MiB", "-1", "9007199254740992", "8388608GiB"}) {
    CAPTURE(text);
    CHECK_THROWS_AS((void)parse_bytes(text), Error);
  }
}

TEST_CASE("sizes, counts and rates are shown for people") {
  CHECK(format_bytes(999) == "999 B");
  CHECK(format_bytes(1536) == "1.5 KiB");
  CHECK(format_bytes(1048575) == "1.0 MiB");
  CHECK(format_bytes(UINT64_MAX) == "16.0 EiB");
  CHECK(format_count(0) == "0");
  CHECK(format_count(999) == "999");
  CHECK(format_count(1000) == "1,000");
  CHECK(format_count(1234567) == "1,234,567");
  CHECK(format_rate(950) == "950");
  CHECK(format_rate(45'120) == "45.1 k");
  CHECK(format_rate(999'970) == "1.0 M");
}

TEST_CASE("a number outside of its range is refused with the range") {
  CHECK(parse_number("8", 1, 4096) == 8);
  for (const auto* text : {"", "0", "4097", "8x", "+8", " 8", "99999999999999999999"}) {
    CAPTURE(text);
    CHECK_THROWS_WITH_AS((void)parse_number(text, 1, 4096), doctest::Contains("not a number from 1 to 4096"),
                         Error);
  }
}
