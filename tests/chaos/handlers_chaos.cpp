// A directory of handlers that changes while events come: no handler misses an event that was reached while
// it was subscribed, none gets one twice, and each keeps the order of every key. The seed of a failing run is
// printed.
#include "chaos/forum.hpp"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <random>
#include <set>
#include <vector>

using namespace continuum;
using namespace std::chrono_literals;

using test::await;
using test::await_started;
using test::end_of;
using test::Forum;

namespace {

int rounds() {
  return test::is_long() ? 100 : 10;
}

// A handler that writes down what it gets, and the version of its file whenever a process starts.
std::string recording(const std::string& file, int version, const std::string& more = {}) {
  return "mode = \"stream\"\n" + more +
         "command = [\"sh\", \"-c\", '''echo $VERSION >>\"$0.versions\"; while IFS= read -r line; do printf "
         "'%s %s\\n' \"$CONTINUUM_FENCE\" \"$line\" >>\"$0\"; echo ok; done''', \"" +
         file + "\"]\n[environment]\nVERSION = \"" + std::to_string(version) + "\"\n";
}

void replace(const std::string& path, const std::string& text) {
  const auto slash = path.rfind('/');
  const std::string beside = path.substr(0, slash + 1) + ".new";
  test::write_file(beside, text);
  std::filesystem::rename(beside, path);
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t found = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
    ++found;
  }
  return found;
}

// A worker that follows a directory, under load from beginning to end.
class Followed {
 public:
  explicit Followed(const std::string& directory)
      : session_(forum.server().session(redis::Needs::Access::read)), directory_(forum.file(directory)) {}

  void start() {
    worker_.emplace(forum.share({"--partition", "all", "--handlers", directory_}),
                    test::Process::Redirect{"/dev/null", "/dev/null", forum.file("err")});
    await_started(*worker_);
    load();
    await("it works", [&] { return !test::read_file(forum.file("always")).empty(); });
  }
  // Keeps events coming.
  void load() {
    if (finishing_) {
      return;
    }
    if (publisher_ && !publisher_->ended_within(0ms)) {
      return;
    }
    if (publisher_) {
      CHECK(publisher_->wait() == 0);
      publisher_.reset();
    }
    publisher_.emplace(forum.start_publishing(1'000, 2'000));
  }
  void request(int signal) { worker_->signal(signal); }
  // What the worker says is said once more.
  void await_said(const std::string& what, const std::function<void()>& after) {
    const auto said = [&] { return count(test::read_file(forum.file("err")), what); };
    const std::size_t before = said();
    after();
    await(what.c_str(), [&] {
      load();
      return said() > before;
    });
  }
  [[nodiscard]] std::vector<std::uint64_t> ends() const {
    std::vector<std::uint64_t> ends;
    for (std::uint32_t p = 0; p < Forum::partitions; ++p) {
      redis::Request request;
      request.command("HGET", meta_key("forum", Partition(p)), "next");
      ends.push_back(session_->call(std::move(request))[0].number());
    }
    return ends;
  }
  void await_passed(const std::vector<std::uint64_t>& offsets) {
    await("the worker has passed them", [&] {
      load();
      for (std::uint32_t p = 0; p < Forum::partitions; ++p) {
        if (forum.state(p).cursor.offset < Offset(offsets[p])) {
          return false;
        }
      }
      return true;
    });
  }
  void await_progress(std::uint64_t events) {
    const auto sum = [&] {
      std::uint64_t all = 0;
      for (const auto end : ends()) {
        all += end;
      }
      return all;
    };
    const auto before = sum();
    await("events come", [&] {
      load();
      return sum() >= before + events;
    });
  }
  void finish() {
    finishing_ = true;
    CHECK(end_of(*publisher_) == 0);
    await_passed(ends());
    worker_->signal(SIGTERM);
    CHECK_MESSAGE(end_of(*worker_) == 0, test::read_file(forum.file("err")));
  }

  // What a handler wrote down: offsets of each partition, in the order of handling.
  [[nodiscard]] std::vector<std::vector<std::uint64_t>> seen(const std::string& name) const {
    std::vector<std::vector<std::uint64_t>> seen(Forum::partitions);
    const std::string text = test::read_file(forum.file(name));
    for (std::size_t at = text.find("{\"partition\":"); at != std::string::npos;
         at = text.find("{\"partition\":", at + 1)) {
      const auto partition = std::strtoul(text.c_str() + at + 13, nullptr, 10);
      seen.at(partition).push_back(std::strtoull(text.c_str() + text.find("offset\":", at) + 8, nullptr, 10));
    }
    return seen;
  }
  void check_saw_all(const std::string& name) const {
    const auto found = forum.handled(name);
    CHECK(found.events == forum.published());
    CHECK(found.repeats == 0);
    CHECK(found.out_of_order == 0);
  }
  [[nodiscard]] std::string last_version(const std::string& name) const {
    std::string text = test::read_file(forum.file(name + ".versions"));
    text.pop_back();
    return text.substr(text.rfind('\n') + 1);
  }
  [[nodiscard]] const std::string& directory() const { return directory_; }

  Forum forum;

 private:
  std::unique_ptr<redis::Session> session_;
  const std::string directory_;
  std::optional<test::Process> worker_;
  std::optional<test::Process> publisher_;
  bool finishing_ = false;
};

}  // namespace

TEST_CASE(
    "handlers that are added, changed, broken and removed under load miss nothing and get nothing twice") {
  const auto seed = static_cast<std::mt19937::result_type>(std::time(nullptr));
  CAPTURE(seed);
  std::mt19937 random(seed);
  Followed followed("handlers");
  const std::string always = followed.directory() + "/always.toml";
  const std::string coming = followed.directory() + "/coming.toml";
  std::filesystem::create_directory(followed.directory());
  int version = 0;
  const auto change = [&] {
    followed.await_said("handler always: changed",
                        [&] { replace(always, recording(followed.forum.file("always"), ++version)); });
  };
  replace(always, recording(followed.forum.file("always"), version));
  followed.start();

  // Between these offsets it was subscribed.
  std::vector<std::pair<std::vector<std::uint64_t>, std::vector<std::uint64_t>>> subscribed;
  for (int round = 0; round < rounds(); ++round) {
    followed.await_said("handler coming: added",
                        [&] { replace(coming, recording(followed.forum.file("coming"), round)); });
    const auto from = followed.ends();
    followed.await_progress(20 + random() % 50);
    change();
    if (random() % 3 == 0) {
      followed.await_said("handler always cannot be used", [&] { replace(always, "mode = \"strea"); });
      followed.await_progress(20);
      change();
    }
    const auto until = followed.ends();
    followed.await_passed(until);
    subscribed.emplace_back(from, until);
    if (random() % 2 == 0) {
      followed.await_said("handler coming: removed, as enabled = false says", [&] {
        replace(coming, recording(followed.forum.file("coming"), round, "enabled = false\n"));
      });
    } else {
      followed.await_said("its file is gone from", [&] { std::filesystem::remove(coming); });
      followed.await_said("handler coming: removed, its file is gone", [&] { followed.request(SIGHUP); });
    }
    followed.await_progress(20 + random() % 50);
  }
  followed.finish();
  followed.check_saw_all("always");
  CHECK(followed.last_version("always") == std::to_string(version));

  std::uint64_t others = 0;
  const auto seen = followed.seen("coming");
  for (std::uint32_t p = 0; p < Forum::partitions; ++p) {
    CAPTURE(p);
    const std::set<std::uint64_t> once(seen[p].begin(), seen[p].end());
    CHECK(once.size() == seen[p].size());
    others += once.size();
    for (const auto& [from, until] : subscribed) {
      for (std::uint64_t offset = from[p]; offset < until[p]; ++offset) {
        others -= once.contains(offset) ? 1U : 0U;
        if (!once.contains(offset)) {
          FAIL_CHECK("offset ", offset, " was missed");
        }
      }
    }
  }
  const auto found = followed.forum.handled("coming");
  CHECK(found.repeats == 0);
  // It was out of service now and then.
  CHECK(found.events < followed.forum.published());
  MESSAGE("events: ", followed.forum.published(), ", at the edges: ", others);
}

TEST_CASE("handlers whose whole directory is switched by a symbolic link under load miss nothing") {
  Followed followed("current");
  const auto release = [&](int version) {
    const std::string directory = followed.forum.file("release-" + std::to_string(version));
    std::filesystem::create_directory(directory);
    for (const std::string name : {"always", "too"}) {
      test::write_file(directory + "/" + name + ".toml", recording(followed.forum.file(name), version));
    }
    std::filesystem::create_directory_symlink(directory, followed.directory() + ".new");
    std::filesystem::rename(followed.directory() + ".new", followed.directory());
  };
  release(0);
  followed.start();
  for (int round = 1; round <= rounds(); ++round) {
    followed.await_said("handler too: changed", [&] { release(round); });
    followed.await_progress(20);
  }
  followed.finish();
  for (const std::string name : {"always", "too"}) {
    CAPTURE(name);
    followed.check_saw_all(name);
    CHECK(followed.last_version(name) == std::to_string(rounds()));
  }
}
