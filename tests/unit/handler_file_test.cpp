// A handler's file: what it says, and what is wrong with it, where.
#include "continuum/handler_file.hpp"

#include "continuum/error.hpp"

#include "support/process.hpp"

#include <doctest/doctest.h>

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

using namespace continuum;
using namespace std::chrono_literals;

namespace {

HandlerSpec parse(const std::string& text) {
  return parse_handler("/etc/handlers/mail.toml", text);
}

// What is wrong, without the path.
std::string problems(const std::string& text, const std::string& path = "/etc/handlers/mail.toml") {
  std::string message;
  try {
    static_cast<void>(parse_handler(path, text));
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    message = error.message();
  }
  for (std::size_t at = message.find(path + ":"); at != std::string::npos; at = message.find(path + ":")) {
    message.erase(at, path.size() + 1);
  }
  return message;
}

const std::string command = "command = [\"true\"]\n";

std::string problem_with(const std::string& line) {
  return problems(command + line);
}

}  // namespace

TEST_CASE("a handler is its command; all else has a default") {
  const HandlerSpec spec = parse("command = [\"./mail\", \"--fast\", \"\"]");
  HandlerSpec expected;
  expected.name = "mail";
  expected.command = {"./mail", "--fast", ""};
  CHECK(spec == expected);
}

TEST_CASE("every key of a handler's file is taken") {
  const HandlerSpec spec = parse(R"(
types = ["post.*", "user.created"]
command = ["python3", "-u", "mail.py"]
mode = "stream"
timeout = "10s"
attempts = 7
backoff = "1s..5m"
on_failure = "halt"
concurrency = 4
verdicts = "fd"
pass = ["DATABASE_URL"]
working_directory = "."
enabled = false
rate = "30/m"

[environment]
LEVEL = "debug"
EMPTY = ""
)");
  HandlerSpec expected;
  expected.name = "mail";
  expected.types = {"post.*", "user.created"};
  expected.command = {"python3", "-u", "mail.py"};
  expected.mode = HandlerMode::stream;
  expected.timeout = 10s;
  expected.attempts_max = 7;
  expected.backoff_min = 1s;
  expected.backoff_max = 5min;
  expected.on_failure = OnFailure::halt;
  expected.concurrency = 4;
  expected.verdicts = VerdictsOn::descriptor_3;
  expected.pass = {"DATABASE_URL"};
  expected.environment = {{"EMPTY", ""}, {"LEVEL", "debug"}};
  expected.working_directory = "/etc/handlers";
  expected.enabled = false;
  expected.rate_per_second = 0.5;
  CHECK(spec == expected);
}

TEST_CASE("a webhook has a url instead of a command") {
  const HandlerSpec spec = parse("mode = \"http\"\nurl = \"http://127.0.0.1:8080/events\"\nrate = 2.5\n");
  CHECK(spec.mode == HandlerMode::http);
  CHECK(spec.url == "http://127.0.0.1:8080/events");
  CHECK(spec.rate_per_second == 2.5);
}

TEST_CASE("a handler's working directory begins where its file is") {
  CHECK(parse(command + "working_directory = \"../app/\"").working_directory == "/etc/app");
  CHECK(parse(command + "working_directory = \"/srv\"").working_directory == "/srv");
  CHECK(parse(command + "working_directory = \"/\"").working_directory == "/");
  const auto relative = parse_handler("handlers/mail.toml", command + "working_directory = \".\"");
  CHECK(relative.working_directory == (std::filesystem::current_path() / "handlers").string());
}

TEST_CASE("an empty list of variables to pass is not the same as none") {
  CHECK(parse(command).pass == std::nullopt);
  CHECK(parse(command + "pass = []").pass == std::vector<std::string>());
}

TEST_CASE("an unknown key is refused with its place and the nearest one") {
  CHECK(problem_with("on_failur = \"skip\"\n") == "2:1: unknown key on_failur; did you mean on_failure?");
  CHECK(problem_with("\n  retries = 3\n") ==
        "3:3: unknown key retries; there are: types, command, mode, url, timeout, attempts, backoff, "
        "on_failure, "
        "concurrency, verdicts, pass, environment, working_directory, enabled, rate");
  CHECK(problem_with("[enviroment]\nA = \"1\"\n") ==
        "2:2: unknown key enviroment; did you mean environment?");
}

TEST_CASE("a value of a wrong type is refused with its place") {
  CHECK(problems("command = \"mail --fast\"") ==
        "1:11: command: is a string, not an array of strings; give the program and its arguments, such as "
        "[\"python3\", \"-u\", \"mail.py\"]");
  CHECK(problems("command = [\"mail\", 3]") ==
        "1:20: command: is a number, not a string; give the program and its arguments, such as [\"python3\", "
        "\"-u\", \"mail.py\"]");
  CHECK(problem_with("types = \"post.*\"") ==
        "2:9: types: is a string, not an array of strings; give types = [\"post.*\"]");
  CHECK(problem_with("timeout = 10") ==
        "2:11: timeout: is a number, not a string; give a duration such as \"10s\"");
  CHECK(problem_with("attempts = \"3\"") ==
        "2:12: attempts: is a string, not a whole number; give one from 1 to 1000000");
  CHECK(problem_with("attempts = 3.0") ==
        "2:12: attempts: is a number, not a whole number; give one from 1 to 1000000");
  CHECK(problem_with("enabled = \"no\"") == "2:11: enabled: is a string; give true or false, without quotes");
  CHECK(problem_with("environment = [\"A=1\"]") ==
        "2:15: environment: is an array, not a table; give environment = { NAME = \"value\" }");
  CHECK(problem_with("environment = { PORT = 80 }") ==
        "2:24: environment: is a number, not a string; give PORT = \"value\"");
  CHECK(problem_with("rate = true") ==
        "2:8: rate: is true or false, not a string; give \"100/s\", \"10/m\" or a number a second");
  CHECK(problem_with("timeout = 2024-05-01") ==
        "2:11: timeout: is a date or time, not a string; give a duration such as \"10s\"");
  CHECK(problem_with("[mode]\nx = 1\n") ==
        "2:1: mode: is a table, not a string; give \"exec\" or \"stream\" or \"http\"");
}

TEST_CASE("a value out of its range is refused with its place") {
  CHECK(problem_with("attempts = 0") == "2:12: attempts: is 0; give a number from 1 to 1000000");
  CHECK(problem_with("concurrency = 1025") == "2:15: concurrency: is 1025; give a number from 1 to 1024");
  CHECK(problem_with("concurrency = -1") == "2:15: concurrency: is -1; give a number from 1 to 1024");
  CHECK(problem_with("timeout = \"0\"") == "2:11: timeout: must be at least 1ms; leave it out for no limit");
  CHECK(problem_with("timeout = \"10\"") == "2:11: timeout: not a duration; give 500ms, 10s, 5m, 2h or 7d");
  CHECK(problem_with("backoff = \"1s\"") ==
        "2:11: backoff: give the first and the longest pause, such as 100ms..30s");
  CHECK(problem_with("backoff = \"1m..1s\"") ==
        "2:11: backoff: the first pause must be at least 1ms and not longer than the longest");
  const std::string rate_range = "rate: give more than 0 and at most 1000000 events a second";
  CHECK(problem_with("rate = 0") == "2:8: " + rate_range);
  CHECK(problem_with("rate = nan") == "2:8: " + rate_range);
  CHECK(problem_with("rate = \"2000000/s\"") == "2:8: " + rate_range);
  CHECK(problem_with("rate = \"10/d\"") == "2:8: rate: not a rate; give 100/s, 10/m or 5000/h");
  CHECK(problem_with("types = []") ==
        "2:9: types: is empty: leave it out for all types; enabled = false is for none");
  CHECK(problem_with("types = [\"a\", \"\"]") == "2:15: types: \"\" matches no event: every one has a type");
  CHECK(problems("command = []") == "1:11: command: names no program");
  CHECK(problems("command = [\"a\\u0000b\"]") == "1:12: command: has a NUL character in it");
  CHECK(problem_with("working_directory = \"\"") ==
        "2:21: working_directory: is empty; \".\" is the directory of the file");
  CHECK(problems("command = [\"" + std::string(4097, 'x') + "\"]") ==
        "1:12: command: has 4097 bytes; at most 4096 are taken");
}

TEST_CASE("a word that is not one of the choices is refused with the nearest") {
  CHECK(problem_with("on_failure = \"holdkey\"") ==
        "2:14: on_failure: there is no \"holdkey\"; did you mean \"hold-key\"?");
  CHECK(problem_with("on_failure = \"ignore\"") ==
        "2:14: on_failure: there is no \"ignore\"; give \"hold-key\" or \"skip\" or \"halt\"");
  CHECK(problem_with("mode = \"steam\"") == "2:8: mode: there is no \"steam\"; did you mean \"stream\"?");
  CHECK(problem_with("mode = \"stream\"\nverdicts = \"stderr\"") ==
        "3:12: verdicts: there is no \"stderr\"; give \"stdout\" or \"fd\"");
}

TEST_CASE("keys that do not go together are refused") {
  CHECK(problems("") == "1:1: mode = \"exec\" needs a command, such as command = [\"./handler\"]");
  CHECK(problems("mode = \"http\"") ==
        "1:8: mode = \"http\" needs a url, such as url = \"http://127.0.0.1:8080/events\"");
  CHECK(problems("url = \"http://h/\"") == "1:7: url: needs mode = \"http\"");
  CHECK(problem_with("url = \"http://h/\"") == "2:7: url: is for mode = \"http\", and this is exec");
  CHECK(problem_with("verdicts = \"stdout\"") ==
        "2:12: verdicts: is for mode = \"stream\": in mode exec the exit status is the verdict");
  const std::string no_process = "is about a process, and mode = \"http\" starts none";
  CHECK(
      problems("mode = \"http\"\nurl = \"http://h/\"\ncommand = [\"x\"]\npass = []\nverdicts = \"fd\"\n") ==
      "3:11: command: " + no_process + "\n4:8: pass: " + no_process +
          "\n5:12: verdicts: is for mode = \"stream\": in mode http the status of the answer is the verdict");
}

TEST_CASE("a url that no webhook can have is refused") {
  const std::string no_address = "2:7: url: is no address; give \"http://HOST:PORT/PATH\"";
  for (const std::string url :
       {"", "h/events", "http://", "http:///x", "http://:80/", "http://a b/", "ftp://h/"}) {
    CAPTURE(url);
    CHECK(problems("mode = \"http\"\nurl = \"" + url + "\"") == no_address);
  }
  CHECK(problems("mode = \"http\"\nurl = \"http://u:secret@h/\"") ==
        "2:7: url: holds a user or password, which logs would show; leave it out");
  CHECK(problems("mode = \"http\"\nurl = \"http://h:0/\"").starts_with("2:7: url: has no port"));
  CHECK(problems("mode = \"http\"\nurl = \"http://h/a b\"").starts_with("2:7: url: has bytes in its path"));
  CHECK(problems("mode = \"http\"\nurl = \"https://h/\"").empty());
}

TEST_CASE("the worker's secrets and variables are not for handlers' files") {
  CHECK(problem_with("pass = [\"HOME\", \"REDISCLI_AUTH\"]") ==
        "2:17: pass: REDISCLI_AUTH is the worker's own, and never passed on");
  CHECK(problem_with("pass = [\"A B\"]") == "2:9: pass: \"A B\" is no name of a variable");
  CHECK(problem_with("environment = { CONTINUUM_KEY = \"x\" }") ==
        "2:33: environment: CONTINUUM_KEY begins with CONTINUUM_: such variables are the worker's");
  CHECK(problem_with("environment = { \"A=B\" = \"x\" }") ==
        "2:25: environment: \"A=B\" is no name of a variable");
}

TEST_CASE("everything that is wrong is told at once, by line") {
  CHECK(problems("types = 1\ncomand = [\"x\"]\nattempts = 0\n") ==
        "1:1: mode = \"exec\" needs a command, such as command = [\"./handler\"]\n"
        "1:9: types: is a number, not an array of strings; give types = [\"post.*\"]\n"
        "2:1: unknown key comand; did you mean command?\n"
        "3:12: attempts: is 0; give a number from 1 to 1000000");
}

TEST_CASE("what is no TOML is refused with its place") {
  CHECK(problems("command = [\"true\"]\ntypes = [").starts_with("2:"));
  CHECK(problems("command = [\"true\"]\ncommand = [\"false\"]\n").starts_with("2:"));
  CHECK(problems("types = [\"\xff\"]").starts_with("1:"));
  CHECK(problems("<<<<<<< HEAD").starts_with("1:1: "));
}

TEST_CASE("the name of the file is a name") {
  CHECK(parse_handler("a.b-1.toml", command).name == "a.b-1");
  CHECK(problems(command, "/x/ma il.toml") ==
        "1:1: the handler name \"ma il\" has ' ' in it: letters, digits, '.', '_' and '-' are allowed, up to "
        "64, not "
        "'-' first; the file's name without .toml is the handler's name");
  CHECK(problems(command, "/x/-rf.toml").starts_with("1:1: the handler name \"-rf\" begins with '-'"));
}

TEST_CASE("a message cannot write to the terminal") {
  const std::string message = problem_with("\"\\u001b[2J\" = 1\nmode = \"\\u001b[2J\"\n");
  CHECK(message.find('\x1b') == std::string::npos);
  CHECK(message.find("\\x1B[2J") != std::string::npos);
}

// --- reading

TEST_CASE("a handler's file is read, also through a symbolic link, and only if it is a file") {
  const test::TemporaryDirectory directory;
  const auto why = [&](const std::string& name) -> std::string {
    try {
      return read_handler_text(directory.file(name)) ? "read" : "not there";
    } catch (const Error& error) {
      return error.message().substr(directory.path().size() + 1);
    }
  };
  test::write_file(directory.file("a"), "x");
  std::filesystem::create_symlink("a", directory.file("link"));
  std::filesystem::create_symlink("nowhere", directory.file("dangling"));
  std::filesystem::create_directory(directory.file("directory"));
  REQUIRE(::mkfifo(directory.file("fifo").c_str(), 0600) == 0);
  test::write_file(directory.file("largest"), std::string(handler_file_bytes_max, '#'));
  test::write_file(directory.file("larger"), std::string(handler_file_bytes_max + 1, '#'));
  CHECK(read_handler_text(directory.file("link")) == "x");
  CHECK(why("missing") == "not there");
  CHECK(why("dangling") == "dangling: cannot be read: the symbolic link leads nowhere");
  CHECK(why("directory") == "directory: is not a file");
  CHECK(why("fifo") == "fifo: is not a file");
  CHECK(why("largest") == "read");
  CHECK(why("larger") == "larger: has more than 64.0 KiB: it is no handler");
}
