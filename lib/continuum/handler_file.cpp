#include "continuum/handler_file.hpp"

#include "continuum/error.hpp"
#include "continuum/http_client.hpp"
#include "continuum/names.hpp"
#include "continuum/tls.hpp"
#include "continuum/units.hpp"

// Nothing is written as TOML: the same in every source that includes it.
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

namespace continuum {

std::string_view name_of(HandlerMode mode) {
  switch (mode) {
    case HandlerMode::exec:
      return "exec";
    case HandlerMode::stream:
      return "stream";
    case HandlerMode::http:
      break;
  }
  return "http";
}

std::string_view name_of(OnFailure on_failure) {
  switch (on_failure) {
    case OnFailure::hold_key:
      return "hold-key";
    case OnFailure::skip:
      return "skip";
    case OnFailure::halt:
      break;
  }
  return "halt";
}

std::string_view name_of(VerdictsOn verdicts) {
  return verdicts == VerdictsOn::standard_output ? "stdout" : "fd";
}

// --- reading

std::optional<std::string> read_handler_text(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) {
    if (fs::is_symlink(fs::symlink_status(path, error))) {
      fail(ErrorKind::usage, "{}: cannot be read: the symbolic link leads nowhere", printable(path));
    }
    return std::nullopt;
  }
  // Opening a FIFO would wait for whoever writes to it.
  if (!error && !fs::is_regular_file(status)) {
    fail(ErrorKind::usage, "{}: is not a file", printable(path));
  }
  std::string text(handler_file_bytes_max + 1, '\0');
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in || (in.read(text.data(), static_cast<std::streamsize>(text.size())), in.bad())) {
    fail(ErrorKind::usage, "{}: cannot be read: {}", printable(path), std::strerror(errno));
  }
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (text.size() > handler_file_bytes_max) {
    fail(ErrorKind::usage, "{}: has more than {}: it is no handler", printable(path),
         format_bytes(handler_file_bytes_max));
  }
  return text;
}

// --- parsing

namespace {

constexpr std::size_t list_max = 256;
constexpr std::size_t text_bytes_max = 4096;
constexpr std::uint32_t attempts_most = 1'000'000;
constexpr std::uint32_t concurrency_most = 1024;
constexpr double rate_most = 1e6;

// What a worker keeps from every handler.
constexpr std::array secrets{"CONTINUUM_REDIS", "REDIS_URL", "REDISCLI_AUTH"};

bool is_variable_name(std::string_view name) {
  const auto is_letter = [](char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_'; };
  return !name.empty() && is_letter(name.front()) && std::all_of(name.begin(), name.end(), [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9');
  });
}

template <std::size_t N>
std::vector<std::string> strings_of(const std::array<std::string_view, N>& words) {
  return {words.begin(), words.end()};
}

std::string_view type_text(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
    case toml::node_type::floating_point:
      return "a number";
    case toml::node_type::boolean:
      return "true or false";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::table:
      return "a table";
    default:
      return "a date or time";
  }
}

class FileReader {
 public:
  explicit FileReader(const std::string& path) : path_(path) {}

  // Throws everything that is wrong.
  HandlerSpec read(std::string_view text) {
    read_name();
    try {
      const toml::table table = toml::parse(text, std::string_view(path_));
      for (const auto& [key, node] : table) {
        read_key(key, node);
      }
      require_complete(table);
    } catch (const toml::parse_error& error) {
      problem(error.source().begin, error.description());
    }
    if (problems_.empty()) {
      return std::move(spec_);
    }
    // Tables are sorted by key, people read by line.
    std::stable_sort(problems_.begin(), problems_.end(),
                     [](const Problem& a, const Problem& b) { return a.place < b.place; });
    std::string all;
    for (const Problem& found : problems_) {
      all += (all.empty() ? "" : "\n") + found.text;
    }
    throw Error(ErrorKind::usage, all);
  }

 private:
  using Place = std::pair<std::uint32_t, std::uint32_t>;  // line and column, from 1
  struct Problem {
    Place place;
    std::string text;
  };
  struct Key {
    std::string_view name;
    void (FileReader::*read)(const toml::node& node);
  };
  static const std::array<Key, 15> keys;

  void problem(const toml::source_position& at, std::string_view what) {
    const Place place{std::max(at.line, 1U), std::max(at.column, 1U)};
    problems_.push_back(
        {place, fmt::format("{}:{}:{}: {}", printable(path_), place.first, place.second, printable(what))});
  }

  void read_name() {
    const std::filesystem::path file(path_);
    spec_.name = file.extension() == ".toml" ? file.stem().string() : file.filename().string();
    try {
      require_name("handler", spec_.name);
    } catch (const Error& error) {
      problem({}, error.message() + "; the file's name without .toml is the handler's name");
    }
  }

  void read_key(const toml::key& key, const toml::node& node) {
    const auto known =
        std::find_if(keys.begin(), keys.end(), [&](const Key& k) { return k.name == key.str(); });
    if (known == keys.end()) {
      std::vector<std::string> names;
      names.reserve(keys.size());
      for (const Key& k : keys) {
        names.emplace_back(k.name);
      }
      const std::string_view near = nearest(key.str(), names);
      problem(key.source().begin,
              fmt::format("unknown key {}; {}", key.str(),
                          near.empty() ? fmt::format("there are: {}", fmt::join(names, ", "))
                                       : fmt::format("did you mean {}?", near)));
      return;
    }
    at_ = &node;
    try {
      (this->*known->read)(node);
    } catch (const Error& error) {
      problem(at_->source().begin, fmt::format("{}: {}", known->name, error.message()));
    }
  }

  // --- values. at_ is what an Error is about.

  static std::string text_of(const toml::node& node, std::string_view example) {
    const auto text = node.value_exact<std::string>();
    if (!text) {
      fail(ErrorKind::usage, "is {}, not a string; give {}", type_text(node), example);
    }
    if (text->size() > text_bytes_max) {
      fail(ErrorKind::usage, "has {} bytes; at most {} are taken", text->size(), text_bytes_max);
    }
    if (text->find('\0') != std::string::npos) {
      fail(ErrorKind::usage, "has a NUL character in it");
    }
    return *text;
  }

  std::vector<std::string> texts_of(const toml::node& node, std::string_view example) {
    const toml::array* const array = node.as_array();
    if (array == nullptr) {
      fail(ErrorKind::usage, "is {}, not an array of strings; give {}", type_text(node), example);
    }
    if (array->size() > list_max) {
      fail(ErrorKind::usage, "has {} elements; at most {} are taken", array->size(), list_max);
    }
    std::vector<std::string> texts;
    for (const toml::node& element : *array) {
      at_ = &element;
      texts.push_back(text_of(element, example));
    }
    at_ = &node;
    return texts;
  }

  static std::uint32_t number_of(const toml::node& node, std::uint32_t max) {
    const auto number = node.value_exact<std::int64_t>();
    if (!number) {
      fail(ErrorKind::usage, "is {}, not a whole number; give one from 1 to {}", type_text(node), max);
    }
    if (*number < 1 || *number > max) {
      fail(ErrorKind::usage, "is {}; give a number from 1 to {}", *number, max);
    }
    return static_cast<std::uint32_t>(*number);
  }

  // The place of a word in the list.
  template <std::size_t N>
  static std::size_t choice_of(const toml::node& node, const std::array<std::string_view, N>& words) {
    const auto example = fmt::format("\"{}\"", fmt::join(words, "\" or \""));
    const std::string text = text_of(node, example);
    const auto found = std::find(words.begin(), words.end(), text);
    if (found == words.end()) {
      const auto candidates = strings_of(words);
      const auto near = nearest(text, candidates);
      fail(ErrorKind::usage, "there is no \"{}\"; {}", text,
           near.empty() ? "give " + example : fmt::format("did you mean \"{}\"?", near));
    }
    return static_cast<std::size_t>(found - words.begin());
  }

  // --- keys

  void read_types(const toml::node& node) {
    spec_.types = texts_of(node, "types = [\"post.*\"]");
    if (spec_.types.empty()) {
      fail(ErrorKind::usage, "is empty: leave it out for all types; enabled = false is for none");
    }
    const auto empty = std::find(spec_.types.begin(), spec_.types.end(), "");
    if (empty != spec_.types.end()) {
      at_ = node.as_array()->get(static_cast<std::size_t>(empty - spec_.types.begin()));
      fail(ErrorKind::usage, "\"\" matches no event: every one has a type");
    }
  }

  void read_command(const toml::node& node) {
    spec_.command = texts_of(node, R"(the program and its arguments, such as ["python3", "-u", "mail.py"])");
    if (spec_.command.empty() || spec_.command.front().empty()) {
      fail(ErrorKind::usage, "names no program");
    }
  }

  void read_mode(const toml::node& node) {
    constexpr std::array<std::string_view, 3> words{"exec", "stream", "http"};
    constexpr std::array modes{HandlerMode::exec, HandlerMode::stream, HandlerMode::http};
    spec_.mode = modes[choice_of(node, words)];
  }

  void read_url(const toml::node& node) {
    spec_.url = text_of(node, "\"http://HOST:PORT/PATH\"");
    if (parse_http_url(spec_.url).is_secure) {
      require_tls();
    }
  }

  void read_timeout(const toml::node& node) {
    spec_.timeout = parse_duration(text_of(node, "a duration such as \"10s\""));
    if (*spec_.timeout < Milliseconds(1)) {
      fail(ErrorKind::usage, "must be at least 1ms; leave it out for no limit");
    }
  }

  void read_attempts(const toml::node& node) { spec_.attempts_max = number_of(node, attempts_most); }

  void read_backoff(const toml::node& node) {
    const Backoff backoff =
        parse_backoff(text_of(node, "the first and the longest pause, such as \"100ms..30s\""));
    spec_.backoff_min = backoff.min;
    spec_.backoff_max = backoff.max;
  }

  void read_on_failure(const toml::node& node) {
    constexpr std::array<std::string_view, 3> words{"hold-key", "skip", "halt"};
    constexpr std::array all{OnFailure::hold_key, OnFailure::skip, OnFailure::halt};
    spec_.on_failure = all[choice_of(node, words)];
  }

  void read_concurrency(const toml::node& node) { spec_.concurrency = number_of(node, concurrency_most); }

  void read_verdicts(const toml::node& node) {
    constexpr std::array<std::string_view, 2> words{"stdout", "fd"};
    constexpr std::array all{VerdictsOn::standard_output, VerdictsOn::descriptor_3};
    spec_.verdicts = all[choice_of(node, words)];
  }

  void read_pass(const toml::node& node) {
    auto names = texts_of(node, "names of variables, such as [\"DATABASE_URL\"]");
    for (std::size_t i = 0; i < names.size(); ++i) {
      at_ = node.as_array()->get(i);
      if (!is_variable_name(names[i])) {
        fail(ErrorKind::usage, "\"{}\" is no name of a variable", names[i]);
      }
      if (std::find(secrets.begin(), secrets.end(), names[i]) != secrets.end()) {
        fail(ErrorKind::usage, "{} is the worker's own, and never passed on", names[i]);
      }
    }
    spec_.pass = std::move(names);
  }

  void read_environment(const toml::node& node) {
    const toml::table* const table = node.as_table();
    if (table == nullptr) {
      fail(ErrorKind::usage, "is {}, not a table; give environment = {{ NAME = \"value\" }}",
           type_text(node));
    }
    if (table->size() > list_max) {
      fail(ErrorKind::usage, "has {} variables; at most {} are taken", table->size(), list_max);
    }
    for (const auto& [key, value] : *table) {
      at_ = &value;
      const std::string_view name = key.str();
      if (!is_variable_name(name)) {
        fail(ErrorKind::usage, "\"{}\" is no name of a variable", name);
      }
      if (name.starts_with("CONTINUUM_")) {
        fail(ErrorKind::usage, "{} begins with CONTINUUM_: such variables are the worker's", name);
      }
      spec_.environment.emplace_back(name, text_of(value, fmt::format("{} = \"value\"", name)));
    }
  }

  void read_working_directory(const toml::node& node) {
    const std::string text = text_of(node, "a directory, such as \".\" for the file's own");
    if (text.empty()) {
      fail(ErrorKind::usage, "is empty; \".\" is the directory of the file");
    }
    // Not resolved any further: a deploy may switch a link on the way.
    const auto base = std::filesystem::absolute(path_).parent_path();
    auto directory = (base / text).lexically_normal().string();
    if (directory.size() > 1 && directory.ends_with('/')) {
      directory.pop_back();
    }
    spec_.working_directory = std::move(directory);
  }

  void read_enabled(const toml::node& node) {
    const auto enabled = node.value_exact<bool>();
    if (!enabled) {
      fail(ErrorKind::usage, "is {}; give true or false, without quotes", type_text(node));
    }
    spec_.enabled = *enabled;
  }

  void read_rate(const toml::node& node) {
    const bool is_number = node.is_integer() || node.is_floating_point();
    const double rate = is_number ? node.value<double>().value_or(0)
                                  : parse_rate(text_of(node, R"("100/s", "10/m" or a number a second)"));
    if (!std::isfinite(rate) || rate <= 0 || rate > rate_most) {
      fail(ErrorKind::usage, "give more than 0 and at most 1000000 events a second");
    }
    spec_.rate_per_second = rate;
  }

  // --- what goes together

  void require_complete(const toml::table& table) {
    const auto place = [&](std::string_view key) {
      const toml::node* const node = table.get(key);
      return node == nullptr ? toml::source_position{} : node->source().begin;
    };
    const auto refuse = [&](std::string_view key, std::string_view why) {
      if (table.contains(key)) {
        problem(place(key), fmt::format("{}: {}", key, why));
      }
    };
    const bool is_mode_known = std::none_of(problems_.begin(), problems_.end(), [&](const Problem& p) {
      const auto at = place("mode");
      return table.contains("mode") && p.place == Place{at.line, at.column};
    });
    if (!is_mode_known) {
      return;  // all else would be guessing
    }
    if (spec_.mode == HandlerMode::http) {
      if (!table.contains("url")) {
        problem(place("mode"), R"(mode = "http" needs a url, such as url = "http://127.0.0.1:8080/events")");
      }
      for (const std::string_view key : {"command", "pass", "environment", "working_directory"}) {
        refuse(key, "is about a process, and mode = \"http\" starts none");
      }
    } else {
      if (table.contains("url") && !table.contains("mode") && !table.contains("command")) {
        problem(place("url"), "url: needs mode = \"http\"");
        return;
      }
      if (!table.contains("command")) {
        problem(place("mode"), fmt::format(R"(mode = "{}" needs a command, such as command = ["./handler"])",
                                           name_of(spec_.mode)));
      }
      refuse("url", fmt::format("is for mode = \"http\", and this is {}", name_of(spec_.mode)));
    }
    if (spec_.mode != HandlerMode::stream) {
      refuse("verdicts",
             fmt::format("is for mode = \"stream\": in mode {} the {} is the verdict", name_of(spec_.mode),
                         spec_.mode == HandlerMode::exec ? "exit status" : "status of the answer"));
    }
  }

  const std::string& path_;
  HandlerSpec spec_;
  const toml::node* at_ = nullptr;
  std::vector<Problem> problems_;
};

const std::array<FileReader::Key, 15> FileReader::keys{{
    {"types", &FileReader::read_types},
    {"command", &FileReader::read_command},
    {"mode", &FileReader::read_mode},
    {"url", &FileReader::read_url},
    {"timeout", &FileReader::read_timeout},
    {"attempts", &FileReader::read_attempts},
    {"backoff", &FileReader::read_backoff},
    {"on_failure", &FileReader::read_on_failure},
    {"concurrency", &FileReader::read_concurrency},
    {"verdicts", &FileReader::read_verdicts},
    {"pass", &FileReader::read_pass},
    {"environment", &FileReader::read_environment},
    {"working_directory", &FileReader::read_working_directory},
    {"enabled", &FileReader::read_enabled},
    {"rate", &FileReader::read_rate},
}};

}  // namespace

HandlerSpec parse_handler(const std::string& path, std::string_view text) {
  return FileReader(path).read(text);
}

}  // namespace continuum
