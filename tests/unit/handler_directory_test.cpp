// A directory of handlers: what is taken up, when, and what a person is told.
#include "continuum/handler_directory.hpp"

#include "continuum/error.hpp"

#include "support/process.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

// So seldom that a test would notice if only the clock told.
constexpr Milliseconds never = 24h;

std::string runs(const std::string& program) {
  return "command = [\"" + program + "\"]\n";
}

class Deployed {
 public:
  explicit Deployed(const std::vector<std::string>& names = {"mail"}) {
    for (const std::string& name : names) {
      put(name, runs(name));
    }
  }
  void put(const std::string& name, const std::string& text) const { test::write_file(file(name), text); }
  void remove(const std::string& name) const { fs::remove(file(name)); }
  [[nodiscard]] std::string file(const std::string& name) const { return directory_.file(name + ".toml"); }
  [[nodiscard]] const std::string& path() const { return directory_.path(); }

 private:
  test::TemporaryDirectory directory_;
};

// name=program of each, in order
std::string text_of(const std::vector<HandlerSpec>& specs) {
  std::string text;
  for (const HandlerSpec& spec : specs) {
    text += (text.empty() ? "" : " ") + spec.name + "=" + spec.command.front();
  }
  return text;
}

std::string text_of(const std::vector<HandlerNotice>& notices) {
  constexpr std::array names{"added", "changed", "removed", "broken", "vanished", "mended"};
  std::string text;
  for (const HandlerNotice& notice : notices) {
    text += (text.empty() ? "" : " ") + notice.name + ":" + names[static_cast<std::size_t>(notice.what)];
  }
  return text;
}

// The first thing that is told.
std::string sentence(const HandlerChanges& changes) {
  return changes.notices.empty() ? std::string() : changes.notices.front().text;
}

std::string refusal(const std::string& path, const std::string& below = {}) {
  try {
    const HandlerDirectory directory(path + below);
    return {};
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    std::string message = error.message();
    for (auto at = message.find(path); at != std::string::npos; at = message.find(path)) {
      message.replace(at, path.size(), "DIR");
    }
    return message;
  }
}

bool is_readable(int fd, std::chrono::milliseconds within = 0ms) {
  pollfd one{fd, POLLIN, 0};
  return ::poll(&one, 1, static_cast<int>(within.count())) == 1;
}

// Told within a time that only a broken watch exceeds.
bool is_told(HandlerDirectory& directory) {
  const bool told = is_readable(directory.notify_fd(), 5s);
  directory.drain();
  return told;
}

}  // namespace

TEST_CASE("handlers are the *.toml files without a leading dot, by name") {
  const Deployed deployed({"b", "a", "a.b", "a-b"});
  for (const std::string name : {".hidden.toml", "notes.txt", "b.toml~", "b.toml.bak", ".toml", "b.TOML"}) {
    test::write_file(deployed.path() + "/" + name, "not TOML");
  }
  const HandlerDirectory directory(deployed.path());
  CHECK(text_of(directory.present()) == "a=a a-b=a-b a.b=a.b b=b");
}

TEST_CASE("the first reading refuses what is broken, all of it at once") {
  const Deployed deployed({"good"});
  deployed.put("bad", "comand = [\"x\"]\n");
  deployed.put("worse", "attempts = 0\nenabled = 1\n" + runs("x"));
  CHECK(refusal(deployed.path()) ==
        "DIR: 2 of 3 handlers cannot be used:\n"
        "DIR/bad.toml:1:1: unknown key comand; did you mean command?\n"
        "DIR/bad.toml:1:1: mode = \"exec\" needs a command, such as command = [\"./handler\"]\n"
        "DIR/worse.toml:1:12: attempts: is 0; give a number from 1 to 1000000\n"
        "DIR/worse.toml:2:11: enabled: is a number; give true or false, without quotes");
}

TEST_CASE("the first reading refuses a directory with nothing to run") {
  const Deployed deployed(std::vector<std::string>{});
  CHECK(refusal(deployed.path()) == "DIR: has no handlers: there is no file that ends in .toml");
  deployed.put("off", "enabled = false\n" + runs("x"));
  CHECK(refusal(deployed.path()) == "DIR: no handler is enabled: all events would be passed over");
  CHECK(refusal(deployed.path(), "/no") ==
        "DIR/no: the directory of handlers cannot be read: No such file or directory");
  CHECK(refusal(deployed.path(), "/off.toml") ==
        "DIR/off.toml: the directory of handlers cannot be read: Not a directory");
}

TEST_CASE("a directory has a limited number of handlers") {
  const Deployed deployed;
  for (std::size_t i = 1; i < handlers_max; ++i) {
    deployed.put("h" + std::to_string(i), runs("x"));
  }
  HandlerDirectory directory(deployed.path());
  CHECK(directory.present().size() == handlers_max);
  deployed.put("z", runs("x"));
  CHECK(refusal(deployed.path()) == "DIR: has more than 256 handlers");
  const auto changes = directory.refresh(Removals::apply);
  CHECK(text_of(changes.notices) == ":broken");
  CHECK(changes.present.size() == handlers_max);
}

TEST_CASE("handlers that are added and changed are taken up and told") {
  const Deployed deployed;
  HandlerDirectory directory(deployed.path());
  auto changes = directory.refresh(Removals::keep);
  CHECK(!changes.is_other_set);
  CHECK(changes.notices.empty());
  CHECK(text_of(changes.present) == "mail=mail");

  deployed.put("index", runs("index"));
  deployed.put("mail", runs("mail2"));
  changes = directory.refresh(Removals::keep);
  CHECK(changes.is_other_set);
  CHECK(text_of(changes.present) == "index=index mail=mail2");
  CHECK(text_of(changes.notices) == "index:added mail:changed");
  CHECK(sentence(changes) == "handler index: added");
  CHECK(directory.present() == changes.present);
  CHECK(directory.refresh(Removals::keep).notices.empty());
}

TEST_CASE("a change is noticed although the file's size and time stay as they were") {
  const Deployed deployed;
  HandlerDirectory directory(deployed.path());
  const auto time = fs::last_write_time(deployed.file("mail"));
  deployed.put("mail", runs("liam"));
  fs::last_write_time(deployed.file("mail"), time);
  CHECK(text_of(directory.refresh(Removals::keep).present) == "mail=liam");
}

TEST_CASE("a file that is only touched or commented is no change") {
  const Deployed deployed;
  HandlerDirectory directory(deployed.path());
  fs::last_write_time(deployed.file("mail"), fs::file_time_type::clock::now() + 1h);
  CHECK(!directory.refresh(Removals::keep).is_other_set);
  deployed.put("mail", "# sends mail\n" + runs("mail"));
  const auto changes = directory.refresh(Removals::keep);
  CHECK(!changes.is_other_set);
  CHECK(changes.notices.empty());
}

TEST_CASE("the last good version of a broken file goes on, and it is told once") {
  const Deployed deployed({"index", "mail"});
  HandlerDirectory directory(deployed.path());
  deployed.put("mail", "command = \"mail\"\n");
  auto changes = directory.refresh(Removals::keep);
  CHECK(!changes.is_other_set);
  CHECK(text_of(changes.present) == "index=index mail=mail");
  CHECK(text_of(changes.notices) == "mail:broken");
  CHECK(
      sentence(changes) ==
      "handler mail cannot be used; it goes on as it was before:\n" + deployed.file("mail") +
          ":1:11: command: is a string, not an array of strings; give the program and its arguments, such as "
          "[\"python3\", \"-u\", \"mail.py\"]");
  CHECK(directory.refresh(Removals::keep).notices.empty());

  // Another mistake is told, and so is the old one to who asks for a new reading.
  deployed.put("mail", "command = 1\n");
  CHECK(text_of(directory.refresh(Removals::keep).notices) == "mail:broken");
  CHECK(text_of(directory.refresh(Removals::apply).notices) == "mail:broken");
  CHECK(text_of(directory.present()) == "index=index mail=mail");

  deployed.put("mail", runs("mail"));
  changes = directory.refresh(Removals::keep);
  CHECK(text_of(changes.notices) == "mail:mended");
  CHECK(!changes.is_other_set);
  deployed.put("mail", "command = 1\n");
  CHECK(text_of(directory.refresh(Removals::keep).notices) == "mail:broken");
  deployed.put("mail", runs("mail2"));
  CHECK(text_of(directory.refresh(Removals::keep).notices) == "mail:changed");
}

TEST_CASE("a new file that is broken is not taken up until it is mended") {
  const Deployed deployed;
  HandlerDirectory directory(deployed.path());
  deployed.put("index", "");
  auto changes = directory.refresh(Removals::keep);
  CHECK(text_of(changes.notices) == "index:broken");
  CHECK(sentence(changes).starts_with("handler index cannot be used; it is not taken up:\n"));
  CHECK(directory.refresh(Removals::keep).notices.empty());
  deployed.put("index", runs("index"));
  changes = directory.refresh(Removals::keep);
  CHECK(text_of(changes.notices) == "index:added");
  CHECK(text_of(changes.present) == "index=index mail=mail");
}

TEST_CASE("a handler whose file vanished goes on until removals are asked for") {
  const Deployed deployed({"index", "mail"});
  HandlerDirectory directory(deployed.path());
  deployed.remove("mail");
  auto changes = directory.refresh(Removals::keep);
  CHECK(!changes.is_other_set);
  CHECK(text_of(changes.notices) == "mail:vanished");
  CHECK(sentence(changes) == "handler mail: its file is gone from " + deployed.path() +
                                 "; it goes on until the worker gets SIGHUP");
  CHECK(directory.refresh(Removals::keep).notices.empty());

  // The second half of a deploy.
  deployed.put("mail", runs("mail"));
  changes = directory.refresh(Removals::keep);
  CHECK(text_of(changes.notices) == "mail:mended");
  CHECK(!changes.is_other_set);

  deployed.remove("mail");
  changes = directory.refresh(Removals::apply);
  CHECK(changes.is_other_set);
  CHECK(text_of(changes.notices) == "mail:removed");
  CHECK(text_of(changes.present) == "index=index");
  deployed.put("mail", runs("mail"));
  CHECK(text_of(directory.refresh(Removals::keep).notices) == "mail:added");
}

TEST_CASE("enabled = false removes a handler at once, and enabled = true brings it back") {
  const Deployed deployed({"index", "mail"});
  HandlerDirectory directory(deployed.path());
  deployed.put("mail", "enabled = false\n" + runs("mail"));
  auto changes = directory.refresh(Removals::keep);
  CHECK(changes.is_other_set);
  CHECK(text_of(changes.notices) == "mail:removed");
  CHECK(text_of(changes.present) == "index=index");
  // Broken, it stays what it was: off.
  deployed.put("mail", "enabled = flase\n" + runs("mail"));
  changes = directory.refresh(Removals::keep);
  CHECK(text_of(changes.notices) == "mail:broken");
  CHECK(text_of(changes.present) == "index=index");
  deployed.put("mail", "enabled = true\n" + runs("mail"));
  CHECK(text_of(directory.refresh(Removals::keep).notices) == "mail:added");
  // A disabled one may vanish without a word.
  deployed.put("mail", "enabled = false\n" + runs("mail"));
  static_cast<void>(directory.refresh(Removals::keep));
  deployed.remove("mail");
  CHECK(directory.refresh(Removals::keep).notices.empty());
  // All of them may be disabled, by who says so.
  deployed.put("index", "enabled = false\n" + runs("index"));
  CHECK(directory.refresh(Removals::keep).present.empty());
}

TEST_CASE("a directory that is gone, or empty, removes nothing, whatever is asked for") {
  const Deployed deployed;
  const std::string link = deployed.path() + "/current";
  const std::string release = deployed.path() + "/1";
  fs::create_directory(release);
  test::write_file(release + "/mail.toml", runs("mail"));
  fs::create_directory_symlink("1", link);
  HandlerDirectory directory(link);
  fs::remove(link);
  for (const Removals removals : {Removals::keep, Removals::apply}) {
    const auto changes = directory.refresh(removals);
    CHECK(text_of(changes.notices) == ":broken");
    CHECK(text_of(changes.present) == "mail=mail");
  }
  CHECK(directory.refresh(Removals::keep).notices.empty());
  fs::create_directory_symlink("1", link);
  CHECK(directory.refresh(Removals::keep).notices.empty());

  fs::remove(release + "/mail.toml");
  const auto changes = directory.refresh(Removals::apply);
  CHECK(text_of(changes.notices) == ":broken");
  CHECK(sentence(changes) == link + ": has no handlers any more; the handlers go on as they were");
  CHECK(text_of(changes.present) == "mail=mail");
}

TEST_CASE("the last handler is not removed for one that cannot be used") {
  const Deployed deployed;
  HandlerDirectory directory(deployed.path());
  deployed.remove("mail");
  deployed.put("post", "");
  CHECK(text_of(directory.refresh(Removals::apply).notices) == "post:broken mail:vanished");
  CHECK(text_of(directory.present()) == "mail=mail");
  deployed.put("post", runs("post"));
  CHECK(text_of(directory.refresh(Removals::apply).notices) == "post:added mail:removed");
}

TEST_CASE("the fingerprint is of what runs: names and contents, not places and times") {
  const Deployed one({"index", "mail"});
  const Deployed other({"index", "mail"});
  HandlerDirectory here(one.path());
  HandlerDirectory there(other.path());
  CHECK(here.fingerprint().size() == 16);
  CHECK(here.fingerprint() == there.fingerprint());
  const std::string before = here.fingerprint();

  one.put("mail", runs("mail2"));
  static_cast<void>(here.refresh(Removals::keep));
  CHECK(here.fingerprint() != before);
  one.put("mail", "broken");
  static_cast<void>(here.refresh(Removals::keep));
  CHECK(here.fingerprint() != before);
  one.put("mail", runs("mail"));
  static_cast<void>(here.refresh(Removals::keep));
  CHECK(here.fingerprint() == before);
  one.put("off", "enabled = false\n" + runs("off"));
  static_cast<void>(here.refresh(Removals::keep));
  CHECK(here.fingerprint() == before);
  fs::rename(one.file("mail"), one.file("post"));
  static_cast<void>(here.refresh(Removals::apply));
  CHECK(here.fingerprint() != before);
}

TEST_CASE("every change in the directory is told at once") {
  const Deployed deployed;
  HandlerDirectory directory(deployed.path(), never);
  CHECK(!is_readable(directory.notify_fd()));

  deployed.put("index", runs("index"));  // written in place
  CHECK(is_told(directory));
  CHECK(text_of(directory.refresh(Removals::keep).notices) == "index:added");
  CHECK(!is_readable(directory.notify_fd()));

  test::write_file(deployed.path() + "/.new", runs("index2"));  // renamed into place
  directory.drain();
  fs::rename(deployed.path() + "/.new", deployed.file("index"));
  CHECK(is_told(directory));
  CHECK(text_of(directory.refresh(Removals::keep).notices) == "index:changed");

  fs::permissions(deployed.file("index"), fs::perms::owner_all);
  CHECK(is_told(directory));
  deployed.remove("index");
  CHECK(is_told(directory));
  CHECK(text_of(directory.refresh(Removals::apply).notices) == "index:removed");
  CHECK(!is_readable(directory.notify_fd()));
}

TEST_CASE("a symbolic link on the way to the directory that is switched is told at once") {
  const test::TemporaryDirectory root;
  for (const std::string release : {"1", "2"}) {
    fs::create_directories(root.file(release) + "/handlers");
    test::write_file(root.file(release) + "/handlers/mail.toml", runs("mail" + release));
  }
  fs::create_directory_symlink("1", root.file("current"));
  HandlerDirectory directory(root.file("current") + "/handlers", never);
  CHECK(text_of(directory.present()) == "mail=mail1");

  fs::create_directory_symlink("2", root.file("next"));
  directory.drain();
  fs::rename(root.file("next"), root.file("current"));
  CHECK(is_told(directory));
  const auto changes = directory.refresh(Removals::keep);
  CHECK(text_of(changes.notices) == "mail:changed");
  CHECK(text_of(changes.present) == "mail=mail2");
  directory.drain();  // of the old directory, that it is not watched any more

  // The new one is watched now, and the old one is not.
  test::write_file(root.file("1") + "/handlers/mail.toml", runs("old"));
  CHECK(!is_readable(directory.notify_fd()));
  test::write_file(root.file("2") + "/handlers/mail.toml", runs("new"));
  CHECK(is_told(directory));
  CHECK(text_of(directory.refresh(Removals::keep).present) == "mail=new");
}

TEST_CASE("files that are symbolic links are followed, and looked at from time to time") {
  const test::TemporaryDirectory root;
  const Deployed deployed(std::vector<std::string>{});
  test::write_file(root.file("mail"), runs("mail"));
  fs::create_symlink(root.file("mail"), deployed.file("mail"));
  HandlerDirectory directory(deployed.path(), 5ms);
  CHECK(text_of(directory.present()) == "mail=mail");
  test::write_file(root.file("mail"), runs("mail2"));
  CHECK(is_told(directory));
  CHECK(text_of(directory.refresh(Removals::keep).notices) == "mail:changed");
  CHECK(is_told(directory));  // again and again
  fs::remove(root.file("mail"));
  const auto changes = directory.refresh(Removals::keep);
  CHECK(text_of(changes.notices) == "mail:broken");
  CHECK(text_of(changes.present) == "mail=mail2");
}

TEST_CASE("a name that is no file is told, and disturbs nobody") {
  const Deployed deployed;
  HandlerDirectory directory(deployed.path());
  REQUIRE(::mkfifo(deployed.file("pipe").c_str(), 0600) == 0);
  fs::create_directory(deployed.file("folder"));
  deployed.put("big", std::string(100'000, '#'));
  const auto changes = directory.refresh(Removals::keep);
  CHECK(text_of(changes.notices) == "big:broken folder:broken pipe:broken");
  CHECK(text_of(changes.present) == "mail=mail");
}
