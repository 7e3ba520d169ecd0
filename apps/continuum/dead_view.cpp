#include "dead_view.hpp"

#include "continuum/event.hpp"
#include "continuum/json.hpp"
#include "continuum/names.hpp"
#include "continuum/units.hpp"

#include <algorithm>

namespace continuum::app {
namespace {

constexpr auto right = Table::Align::right;

std::string failure_json(const std::optional<HeldKey::Failure>& failure) {
  if (!failure) {
    return "null";
  }
  return JsonObject()
      .add("attempts", failure->attempts)
      .add("time", format_time(failure->time))
      .add("reason", failure->reason)
      .text();
}

std::string request_json(const HeldKey& key) {
  return key.request ? json::quoted(request_text(key)) : std::string("null");
}

// The reason that holds now: of the last release in vain, else of the first failure.
const std::string& reason_now(const LetterSummary::Key& key) {
  return key.held.failure ? key.held.failure->reason : key.reason;
}

std::string_view held_text(const HeldKey& key) {
  return key.request ? "releasing" : key.held == HeldKey::Held::yes ? "held" : "skipped";
}

class SummaryPrinter {
 public:
  SummaryPrinter(const Context& context, std::string topic, std::uint64_t keys_max)
      : context_(context), topic_(std::move(topic)), keys_max_(keys_max) {}

  void add(const std::string& group, const LetterSummary& summary) {
    for (const auto& reason : summary.reasons) {
      add_reason(group, reason);
    }
    const std::size_t shown = std::min<std::size_t>(summary.keys.size(), keys_max_);
    for (std::size_t i = 0; i < shown; ++i) {
      add_key(group, summary.keys[i]);
    }
    more_keys_ += summary.keys.size() - shown;
  }

  void finish() {
    Output out;
    if (context_.json) {
      out.write(reason_lines_).write(key_lines_).flush();
      return;
    }
    if (reasons_.empty()) {
      say(context_, fmt::format("topic {} has no such dead letters", topic_));
    } else {
      reasons_.print(out);
      out.line("");
      keys_.print(out);
      if (more_keys_ > 0) {
        out.line("");
        out.line(fmt::format("and {} more key{}: see --last", format_count(more_keys_),
                             more_keys_ == 1 ? "" : "s"));
      }
    }
    out.flush();
  }

 private:
  void add_reason(const std::string& group, const LetterSummary::Reason& reason) {
    if (context_.json) {
      reason_lines_ += JsonObject()
                           .add("topic", topic_)
                           .add("group", group)
                           .add("handler", reason.handler)
                           .add("reason", reason.reason)
                           .add("failed", reason.failed)
                           .add("behind", reason.behind)
                           .add("skipped", reason.skipped)
                           .add("keys", reason.keys)
                           .add("oldest", format_time(reason.oldest))
                           .text() +
                       "\n";
      return;
    }
    reasons_.row({group, reason.handler, reason.failed, reason.behind, reason.skipped, reason.keys,
                  format_time(reason.oldest), reason.reason});
  }

  void add_key(const std::string& group, const LetterSummary::Key& key) {
    const KeyPlace& place = key.place;
    if (context_.json) {
      key_lines_ += JsonObject()
                        .add("topic", topic_)
                        .add("group", group)
                        .add("partition", place.partition)
                        .add("handler", place.whose.handler)
                        .add("key", place.whose.key)
                        .add("letters", key.letters)
                        .add("first_offset", key.first)
                        .add("attempts", key.attempts)
                        .add("since", format_time(key.since))
                        .add("reason", key.reason)
                        .add("held", key.held.held == HeldKey::Held::yes)
                        .add_raw("request", request_json(key.held))
                        .add_raw("release", failure_json(key.held.failure))
                        .text() +
                    "\n";
      return;
    }
    keys_.row({group, place.whose.key, place.partition.value, place.whose.handler, held_text(key.held),
               key.letters, key.first.value, format_time(key.since), reason_now(key)});
  }

  const Context& context_;
  std::string topic_;
  std::uint64_t keys_max_;
  std::uint64_t more_keys_ = 0;
  std::string reason_lines_;
  std::string key_lines_;
  Table reasons_{{{"GROUP"},
                  {"HANDLER"},
                  {"FAILED", right},
                  {"BEHIND", right},
                  {"SKIPPED", right},
                  {"KEYS", right},
                  {"OLDEST"},
                  {"REASON"}}};
  Table keys_{{{"GROUP"},
               {"KEY"},
               {"PARTITION", right},
               {"HANDLER"},
               {"STATE"},
               {"EVENTS", right},
               {"OFFSET", right},
               {"SINCE"},
               {"REASON"}}};
};

std::string text_of(std::string_view raw) {
  std::string scratch;
  return std::string(json::unescape(raw, scratch).value_or(raw));
}

}  // namespace

std::string request_text(const HeldKey& key) {
  if (!key.request) {
    return {};
  }
  return key.request->what == LetterRequest::What::retry ? "retry" : "discard";
}

void show_summary(const Context& context, redis::Session& session, const Topic& topic,
                  const std::vector<std::string>& groups, const LetterSelection& selection,
                  std::uint64_t keys_max) {
  SummaryPrinter printer(context, topic.name, keys_max);
  for (const std::string& group : groups) {
    printer.add(group, summarize_letters(session, topic, group, selection));
  }
  printer.finish();
}

std::string letter_json(std::string_view topic, std::string_view group, Partition partition,
                        const DeadLetter& letter, const HeldKey& key) {
  return JsonObject()
      .add("topic", topic)
      .add("group", group)
      .add("partition", partition)
      .add("offset", letter.offset)
      .add("offset_partition", letter.from.value_or(partition))
      .add("handler", letter.whose.handler)
      .add("key", letter.whose.key)
      .add("state", name_of(letter.state))
      .add("attempts", letter.attempts)
      .add("time", format_time(letter.time))
      .add("reason", letter.reason)
      .add("held", key.held == HeldKey::Held::yes)
      .add_raw("request", request_json(key))
      .add_raw("release", failure_json(key.failure))
      .add_raw("event", letter.event)
      .text();
}

void print_letter(Output& out, Partition partition, const DeadLetter& letter, const HeldKey& key) {
  const Attributes attributes = attributes_of(letter.event);
  const std::string of = letter.from ? fmt::format(" of partition {}", *letter.from) : std::string();
  out.line(fmt::format("partition {}, offset {}{}, key {}, id {}, type {}", partition, letter.offset, of,
                       printable(letter.whose.key), printable(text_of(attributes.id)),
                       printable(text_of(attributes.type))));
  std::string line = fmt::format("  {} for handler {}, {}", name_of(letter.state),
                                 printable(letter.whose.handler), format_time(letter.time));
  if (letter.attempts > 0) {
    line += fmt::format(", {} attempt{}", letter.attempts, letter.attempts == 1 ? "" : "s");
  }
  if (!letter.reason.empty()) {
    line += ": " + printable(letter.reason);
  }
  out.line(line);
  if (key.failure) {
    out.line(fmt::format("  last release failed {}, {} attempt{}: {}", format_time(key.failure->time),
                         key.failure->attempts, key.failure->attempts == 1 ? "" : "s",
                         printable(key.failure->reason)));
  }
  if (key.request) {
    out.line(fmt::format("  {} is asked for", request_text(key)));
  }
  out.line("  " + printable(letter.event));
}

}  // namespace continuum::app
