#include "commands.hpp"
#include "options.hpp"
#include "output.hpp"
#include "signals.hpp"

#include "continuum/error.hpp"
#include "continuum/event.hpp"
#include "continuum/names.hpp"
#include "continuum/publisher.hpp"
#include "continuum/topic.hpp"

#include <CLI/CLI.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>

namespace continuum::app {
namespace {

constexpr std::uint64_t complaints_max = 10;

struct Arguments {
  std::string topic;
  PublishOptions publish;
  std::vector<std::string> attributes;
  std::optional<std::string> rejects_path;
  std::optional<std::string> data;
  std::vector<std::string> files;
  bool strict = false;
  bool receipts = false;
  bool tee = false;
  bool create = false;
  Milliseconds retry_for{std::chrono::hours(1)};
};

Acknowledge parse_acknowledge(const std::string& text) {
  if (text == "memory") {
    return {};
  }
  if (text == "fsync") {
    return {Acknowledge::Level::fsync, 0};
  }
  if (text.starts_with("replicas=")) {
    const auto digits = text.substr(9);
    if (!digits.empty() && digits.size() <= 3 &&
        digits.find_first_not_of("0123456789") == std::string::npos && digits != "0") {
      return {Acknowledge::Level::replicas, static_cast<std::uint32_t>(std::stoul(digits))};
    }
  }
  fail(ErrorKind::usage, "not a level of acknowledgement; give memory, fsync or replicas=N");
}

InputFormat parse_input_format(const std::string& text) {
  if (text == "auto") {
    return InputFormat::automatic;
  }
  if (text == "json") {
    return InputFormat::json;
  }
  if (text == "cloudevents") {
    return InputFormat::cloudevents;
  }
  if (text == "kcat") {
    return InputFormat::kcat;
  }
  fail(ErrorKind::usage, "not an input format; give auto, json, cloudevents or kcat");
}

// NAME=value, or NAME=/pointer
std::pair<std::string, Selector> parse_attribute(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    fail(ErrorKind::usage, "--attr {}: not an attribute; give NAME=value, or NAME=/pointer into the event",
         text);
  }
  const auto value = text.substr(equals + 1);
  return {text.substr(0, equals),
          value.starts_with('/') ? Selector::parse(value) : Selector::parse("=" + value)};
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto byte = [&](std::size_t i) -> std::uint32_t {
    return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0U;
  };
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::uint32_t group = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
    for (std::size_t k = 0; k < 4; ++k) {
      const bool padding = i + k > bytes.size();
      out += padding ? '=' : letters[group >> (18 - 6 * k) & 63];
    }
  }
  return out;
}

// Descriptors that are closed at the end.
class Files {
 public:
  Files() = default;
  ~Files() {
    for (const int fd : descriptors_) {
      ::close(fd);
    }
  }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;

  int open(const std::string& path, int flags) {
    const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
    if (fd < 0) {
      fail(ErrorKind::usage, "cannot open {}: {}", path, std::strerror(errno));
    }
    descriptors_.push_back(fd);
    return fd;
  }

 private:
  std::vector<int> descriptors_;
};

// The lines that could not be stored, one JSON object each.
class Rejects {
 public:
  Rejects(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}

  void add(const RejectedLine& rejected) {
    JsonObject object;
    object.add("line", rejected.line).add("source", rejected.source).add("reason", rejected.reason);
    // Bytes that are not UTF-8 have no JSON string: nothing of a line may be lost.
    const bool is_text = json::quoted(rejected.text).find("\xEF\xBF\xBD") == std::string::npos;
    is_text ? object.add("text", rejected.text) : object.add("base64", base64(rejected.text));
    if (rejected.cut_bytes > 0) {
      object.add("cut_bytes", rejected.cut_bytes);
    }
    const std::string line = object.text() + "\n";
    for (std::size_t done = 0; done < line.size();) {
      const auto n = ::write(descriptor_, line.data() + done, line.size() - done);
      if (n < 0 && errno != EINTR) {
        fail(ErrorKind::server, "cannot write line {} to {}: {}", rejected.line, path_, std::strerror(errno));
      }
      done += n > 0 ? static_cast<std::size_t>(n) : 0;
    }
  }

 private:
  int descriptor_;
  std::string path_;
};

std::vector<LineSource> open_sources(const Arguments& args, Files& files, const Context& context) {
  if (args.data) {
    return {{"--data", -1, *args.data}};
  }
  std::vector<LineSource> sources;
  for (const auto& path : args.files) {
    sources.push_back(path == "-" ? LineSource{"stdin", STDIN_FILENO, {}}
                                  : LineSource{path, files.open(path, O_RDONLY), {}});
  }
  if (sources.empty()) {
    sources.push_back({"stdin", STDIN_FILENO, {}});
  }
  for (const auto& source : sources) {
    struct stat status{};
    if (::fstat(source.descriptor, &status) != 0) {
      fail(ErrorKind::usage, "cannot read {}: {}", source.name, std::strerror(errno));
    }
    if (S_ISDIR(status.st_mode)) {
      fail(ErrorKind::usage, "cannot read {}: it is a directory", source.name);
    }
    if (::isatty(source.descriptor) == 1) {
      say(context, "reading events from the terminal, one JSON value per line; Ctrl-D ends");
    }
  }
  return sources;
}

// Bytes of all sources, or 0 when one is not a regular file.
std::uint64_t total_bytes(const std::vector<LineSource>& sources) {
  std::uint64_t total = 0;
  for (const auto& source : sources) {
    struct stat status{};
    if (source.descriptor < 0 || ::fstat(source.descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
      return 0;
    }
    total += static_cast<std::uint64_t>(status.st_size);
  }
  return total;
}

// What a publish shows while it runs.
class Reporter {
 public:
  Reporter(const Context& context, const Arguments& args, Rejects* rejects, std::uint64_t bytes_total)
      : context_(context),
        args_(args),
        rejects_(rejects),
        progress_("publish", bytes_total, context.quiet ? Progress::Show::never : Progress::Show::automatic) {
  }

  [[nodiscard]] PublishHooks hooks() {
    PublishHooks hooks;
    if (args_.receipts || args_.tee) {
      hooks.stored = [this](const StoredBatch& batch) { guarded([&] { stored(batch); }); };
    }
    if (args_.receipts) {
      hooks.duplicate = [this](const DuplicateEvent& event) {
        guarded([&] {
          out_.line(JsonObject()
                        .add(number_name(), event.position)
                        .add("status", "duplicate")
                        .add("partition", event.partition)
                        .add("id", event.id)
                        .text());
          out_.flush();
        });
      };
    }
    hooks.rejected = [this](const RejectedLine& rejected) { guarded([&] { reject(rejected); }); };
    if (is_terminal(Stream::err) && !context_.quiet) {
      hooks.progress = [this](const PublishProgress& p) {
        progress_.update(p.bytes_read, p.stored + p.duplicates);
      };
    }
    return hooks;
  }

  // Ends the output. Returns the exit code; throws what ended the publish.
  int finish(const PublishSummary& summary, double seconds) {
    progress_.clear();
    if (closed_) {
      throw OutputClosed{};
    }
    if (complaints_ > complaints_max) {
      say(context_, fmt::format("{} more lines were rejected{}", complaints_ - complaints_max,
                                rejects_ == nullptr ? "; --rejects FILE keeps them" : ""));
    }
    const bool notable = summary.duplicates + summary.rejected + summary.unconfirmed > 0;
    const bool watched = context_.verbose || is_terminal(Stream::err);
    if (notable || watched) {
      auto text = fmt::format("stored {}, duplicates {}, rejected {}, unconfirmed {}", summary.stored,
                              summary.duplicates, summary.rejected, summary.unconfirmed);
      if (watched) {
        text += fmt::format(" in {:.1f} s", seconds);
      }
      say(context_, text);
    }
    if (context_.json) {
      out_.line(JsonObject()
                    .add_raw("summary", JsonObject()
                                            .add("stored", summary.stored)
                                            .add("duplicates", summary.duplicates)
                                            .add("rejected", summary.rejected)
                                            .add("unconfirmed", summary.unconfirmed)
                                            .text())
                    .text());
    }
    out_.flush();
    if (summary.error) {
      throw Error(*summary.error);
    }
    return summary.unconfirmed > 0 ? static_cast<int>(ErrorKind::server)
           : summary.rejected > 0  ? static_cast<int>(ErrorKind::partial)
                                   : 0;
  }

 private:
  // The library knows no closed stdout: told as an error, it ends the publish; finish() then ends quietly.
  template <class Body>
  void guarded(Body body) {
    try {
      body();
    } catch (const OutputClosed&) {
      closed_ = true;
      fail(ErrorKind::server, "stdout was closed");
    }
  }

  [[nodiscard]] std::string_view number_name() const {
    return args_.publish.wrap.position ? "position" : "line";
  }

  void stored(const StoredBatch& batch) {
    const bool confirmed = batch.status == StoredBatch::Status::stored;
    std::size_t at = 0;
    for (std::size_t i = 0; i < batch.positions.size(); ++i) {
      const auto end = batch.lines.find('\n', at);
      const auto line = batch.lines.substr(at, end - at);
      at = end + 1;
      if (args_.tee) {
        if (confirmed) {
          out_.line(line);
        }
        continue;
      }
      JsonObject receipt;
      receipt.add(number_name(), batch.positions[i])
          .add("status", confirmed ? "stored" : "unconfirmed")
          .add("partition", batch.partition);
      if (batch.first) {
        receipt.add("offset", *batch.first + i);
      }
      out_.line(receipt.add_raw("id", attributes_of(line).id).text());
    }
    // A program that publishes and waits for the receipt must get it now.
    out_.flush();
  }

  void reject(const RejectedLine& rejected) {
    if (rejects_ != nullptr) {
      rejects_->add(rejected);
    }
    if (args_.receipts) {
      out_.line(JsonObject()
                    .add("line", rejected.line)
                    .add("status", "rejected")
                    .add("reason", rejected.reason)
                    .text());
      out_.flush();
    }
    if (complaints_++ < complaints_max) {
      progress_.clear();
      const auto at = rejected.source == "--data"
                          ? std::string("--data")
                          : fmt::format("{}, line {}", rejected.source, rejected.line);
      say(context_, fmt::format("{}: rejected: {}", at, rejected.reason));
    }
  }

  const Context& context_;
  const Arguments& args_;
  Rejects* rejects_;
  Output out_;
  Progress progress_;
  std::uint64_t complaints_ = 0;
  bool closed_ = false;
};

int run_publish(const Context& context, Arguments args) {
  if (args.data && !args.files.empty()) {
    fail(ErrorKind::usage, "--data is the event itself: give either it or files");
  }
  if (args.receipts && args.tee) {
    fail(ErrorKind::usage, "--receipts and --tee both print a line per event: give one of them");
  }
  if (!args.publish.producer.empty() && args.files.size() > 1) {
    fail(ErrorKind::usage,
         "--producer counts the lines of one input: give one file, or `cat` them into stdin");
  }
  Files files;
  std::optional<Rejects> rejects;
  if (args.rejects_path) {
    rejects.emplace(files.open(*args.rejects_path, O_WRONLY | O_CREAT | O_APPEND), *args.rejects_path);
  }
  auto sources = open_sources(args, files, context);
  args.publish.bad_line = args.strict ? PublishOptions::BadLine::stop : PublishOptions::BadLine::go_on;
  for (const auto& text : args.attributes) {
    args.publish.wrap.attributes.push_back(parse_attribute(text));
  }
  require_valid(args.publish.wrap);  // mistakes should not wait for a server

  redis::ClientOptions client;
  client.needs.access = redis::Needs::Access::write;
  client.retry_for = args.retry_for;
  const auto session = connect(context, client);
  const Topic topic = topic_to_write_to(context, *session, args.topic,
                                        args.create ? MissingTopic::create : MissingTopic::refuse);
  warn_of_loss(context, *session);

  args.publish.stop = stop_descriptor(Again::counts);
  Reporter reporter(context, args, rejects ? &*rejects : nullptr, total_bytes(sources));
  const auto started = std::chrono::steady_clock::now();
  const auto summary = publish(*session, topic, args.publish, std::move(sources), reporter.hooks());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  return reporter.finish(summary, took.count());
}

}  // namespace

void add_publish(CLI::App& command, Context& context) {
  auto args = std::make_shared<Arguments>();
  auto& wrap = args->publish.wrap;
  const auto selector = [&](const std::string& names, std::optional<Selector>& target,
                            const std::string& help) {
    add_parsed(command, names, "FIELD", help,
               [&target](const std::string& text) { target = Selector::parse(text); });
  };
  add_topic_option(command, args->topic);
  selector("-k,--key", wrap.key, "where the key is: a field, a JSON Pointer (/a/b), or =LITERAL");
  selector("--type", wrap.type, "where the event type is");
  selector("--id", wrap.id, "where the event id is (default: PRODUCER:LINE)");
  selector("--time", wrap.time,
           "where the event's own time is: RFC 3339, or milliseconds since 1970 (default: now)");
  add_texts(command, "--attr", "NAME=VALUE", args->attributes,
            "a context attribute: a literal, or /pointer; may be repeated");
  add_text(command, "--key-missing", "LITERAL", wrap.key_missing,
           "the key of events that have none (default: they are rejected)");
  add_parsed(command, "--input", "FORMAT",
             "auto, json (wrapped), cloudevents (kept as they are) or kcat (what kcat -J prints)",
             [&wrap](const std::string& text) { wrap.input = parse_input_format(text); });
  add_parsed(command, "--producer", "NAME",
             "publish each line exactly once under this name, however often this is run again",
             [args](const std::string& text) {
               require_name("producer", text);
               args->publish.producer = text;
             });
  selector("--position", wrap.position,
           "with --producer: where each event has a rising number, instead of counting lines");
  add_text(command, "--rejects", "FILE", args->rejects_path,
           "append rejected lines, with line number and reason");
  add_flag(command, "--strict", args->strict, "stop at the first rejected line");
  add_flag(command, "--receipts", args->receipts,
           "print one JSON line per event: where it is stored, or why not");
  add_flag(command, "--tee", args->tee, "print each event once it is stored");
  add_parsed(command, "--ack", "LEVEL", "when an event counts as stored: memory, fsync or replicas=N",
             [args](const std::string& text) { args->publish.acknowledge = parse_acknowledge(text); });
  add_duration(command, "--linger", args->publish.linger,
               "let events wait this long for company: fuller batches, more delay");
  add_number(command, "--rate", args->publish.rate_per_second, {1, 100'000'000},
             "at most this many events per second");
  add_flag(command, "--create", args->create, "create the topic if it does not exist");
  add_duration(command, "--retry-for", args->retry_for,
               "how long to wait for a server that went away (default 1h)");
  add_text(command, "--data", "JSON", args->data, "publish this one event");
  command.add_option("FILE", args->files, "files of JSON lines; - is stdin (default: stdin)");
  run_with(command, context, [args, &context] { return run_publish(context, *args); });
}

}  // namespace continuum::app
