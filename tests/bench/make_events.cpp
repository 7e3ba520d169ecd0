// Deterministic events for benchmarks: `make-events COUNT [KEYS] [SEED]` writes COUNT lines of JSON, each of
// exactly 211 bytes with its newline, the posts of a forum with KEYS threads (10,000). Texts are drawn from a
// vocabulary with common and rare words, so that they compress about as posts do, which constant filler
// would not.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string_view>
#include <vector>

namespace {

constexpr std::size_t line_bytes = 211;
constexpr std::string_view vocabulary =
    "the be to of and a in that have I it for not on with he as you do at this but his by from they we say "
    "her "
    "she or an will my one all would there their what so up out if about who get which go me when make can "
    "like "
    "time no just him know take people into year your good some could them see other than then now look only "
    "come its over think also back after use two how our work first well way even new want because any these "
    "give day most us thread post reply forum question answer version release update driver kernel config "
    "install package compile error warning crash memory leak socket server client request response timeout "
    "database index query table column backup restore snapshot cluster replica primary failover latency "
    "throughput benchmark profile cache buffer queue stream partition offset message event handler worker "
    "deploy rollback staging production monitor alert metric dashboard log trace debug patch review merge "
    "branch commit tag issue ticket milestone deadline meeting agenda notes summary draft final document "
    "chapter section paragraph sentence grammar spelling language translation dictionary library module "
    "function variable constant pointer reference template class object method interface abstract virtual "
    "garden tomato potato carrot onion garlic pepper basil thyme oregano recipe kitchen oven stove kettle "
    "bicycle wheel tyre chain brake saddle pedal mountain valley river forest meadow village bridge station "
    "train ticket platform journey luggage passport border island harbour sailing weather forecast thunder "
    "lightning rainbow snowfall guitar piano violin trumpet melody rhythm concert orchestra rehearsal "
    "gallery "
    "painting sculpture museum theatre camera lens aperture shutter tripod exposure contrast colour shadow "
    "thanks welcome sorry please maybe perhaps probably certainly however therefore although meanwhile "
    "anyway "
    "yesterday tomorrow morning evening weekend holiday birthday neighbour colleague friend family children "
    "strange lovely quick slow broken working cheap expensive reliable fragile simple complicated obvious "
    "42 7 3.14 2023 100% v2.1 #17 10:30 \\\"so-called\\\" \\n\\n caf\xc3\xa9 K\xc3\xb6ln na\xc3\xafve "
    "\xe2\x80\x94 :-) https://example.org/faq a/b";
// Plain words of 1 to 12 letters, to end a text at its exact length.
constexpr std::array<std::string_view, 12> last_words = {
    "I",       "it",       "yes",       "okay",       "right",       "thanks",
    "anytime", "tomorrow", "hopefully", "definitely", "appreciated", "nevertheless"};
constexpr std::array<std::string_view, 24> names = {
    "anna",  "boris", "chloe", "dmitri", "elif",  "farid", "greta", "hiro", "ines", "jonas", "kemal", "lena",
    "marco", "nadia", "oskar", "priya",  "quinn", "rosa",  "sven",  "tara", "umut", "vera",  "wei",   "zoe"};
// Most posts are new ones; the repeats are their weights.
constexpr std::array<std::string_view, 8> types = {"post.created", "post.created", "post.created",
                                                   "post.created", "post.created", "post.edited",
                                                   "post.liked",   "post.reported"};

constexpr std::array<std::string_view, 6> forums = {"general", "general", "support",
                                                    "travel",  "music",   "cooking"};
constexpr std::array<std::string_view, 4> clients = {"web/4.2", "web/4.2", "ios/12.0", "android/11.7"};

// splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // The upper half of a product instead of a division.
  std::size_t below(std::size_t limit) { return ((next() >> 32) * limit) >> 32; }

 private:
  std::uint64_t state_;
};

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> words;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    words.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

class LineWriter {
 public:
  LineWriter(std::uint64_t keys, std::uint64_t seed)
      : keys_(keys), random_(seed), words_(split(vocabulary)) {}

  // Writes line_bytes bytes.
  void write(char* line, std::uint64_t number) {
    char* const end = line + line_bytes;
    at_ = line;
    put(R"({"thread_id":"t-)");
    put(random_.below(keys_) + 1);
    put(R"(","post_id":)");
    put(1'000'000 + number);
    put(R"(,"author":")");
    put(names[random_.below(names.size())]);
    put(random_.below(200));
    put(R"(","type":")");
    put(types[random_.below(types.size())]);
    put(R"(","ts":)");
    milliseconds_ += random_.below(40);
    put(milliseconds_);
    put(R"(,"forum":")");
    put(forums[random_.below(forums.size())]);
    put(R"(","client":")");
    put(clients[random_.below(clients.size())]);
    put(R"(","lang":"en","text":")");
    put_text(end - std::string_view("\"}\n").size());
    put("\"}\n");
  }

 private:
  void put(std::string_view text) {
    std::memcpy(at_, text.data(), text.size());
    at_ += text.size();
  }
  void put(std::uint64_t number) { at_ = std::to_chars(at_, at_ + 20, number).ptr; }

  void put_text(const char* end) {
    for (;;) {
      const auto left = static_cast<std::size_t>(end - at_);
      if (left <= last_words.size()) {
        put(last_words[left - 1]);
        return;
      }
      const std::string_view word = next_word();
      // What no last word could fill must not be left over, nor nothing.
      if (word.size() + 1 < left) {
        put(word);
        *at_++ = ' ';
      }
    }
  }

  // The list begins with the words that are common in English: the cube of a random fraction prefers them.
  std::string_view next_word() {
    const std::uint64_t random = random_.next() >> 44;  // 20 bits, so that the cube fits
    return words_[(((random * random * random) >> 40) * words_.size()) >> 20];
  }

  std::uint64_t keys_;
  Random random_;
  std::vector<std::string_view> words_;
  std::uint64_t milliseconds_ = 1'714'557'600'000;
  char* at_ = nullptr;
};

bool read_number(const char* text, std::uint64_t& number) {
  const char* const end = text + std::strlen(text);
  const auto [stopped, error] = std::from_chars(text, end, number);
  return error == std::errc() && stopped == end && text != end;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t count = 0;
  std::uint64_t keys = 10'000;
  std::uint64_t seed = 1;
  if (argc < 2 || argc > 4 || !read_number(argv[1], count) || (argc > 2 && !read_number(argv[2], keys)) ||
      (argc > 3 && !read_number(argv[3], seed)) || keys == 0 || keys > 1'000'000'000) {
    std::fputs("Usage: make-events COUNT [KEYS] [SEED]\n", stderr);
    return 2;
  }
  LineWriter writer(keys, seed);
  constexpr std::size_t lines_per_write = 1024;
  std::vector<char> lines(lines_per_write * line_bytes);
  for (std::uint64_t number = 0; number < count;) {
    const std::size_t batch = std::min<std::uint64_t>(lines_per_write, count - number);
    for (std::size_t i = 0; i < batch; ++i) {
      writer.write(lines.data() + i * line_bytes, ++number);
    }
    if (std::fwrite(lines.data(), line_bytes, batch, stdout) != batch) {
      std::perror("make-events: stdout");
      return 1;
    }
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}
