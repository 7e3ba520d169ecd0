#include "continuum/commit.hpp"

#include <algorithm>
#include <array>

namespace continuum {

namespace {

constexpr std::array<std::string_view, 6> step_names{"done", "discard",  "failed",
                                                     "free", "answered", "asked"};

}  // namespace

GroupKeys::GroupKeys(std::string_view topic, Partition partition, std::string_view group_name)
    : log(log_key(topic, partition)),
      meta(meta_key(topic, partition)),
      group(group_key(topic, partition, group_name)),
      dead(dead_key(topic, partition, group_name)),
      held(held_key(topic, partition, group_name)),
      outbox(outbox_key(topic, partition, group_name)) {}

void request_commit(redis::Request& request, const GroupKeys& keys, Fence fence, std::uint64_t number,
                    const Commit& commit, std::string_view group) {
  check(commit.outputs.empty() || !commit.emit_topic.empty(), "what is emitted has a topic to go to");
  std::vector<std::string> texts{fmt::to_string(fence.value),
                                 fmt::to_string(number),
                                 fmt::to_string(commit.cursor.offset.value),
                                 commit.cursor.entry.text(),
                                 fmt::to_string(commit.passed.value),
                                 std::string(group),
                                 fmt::to_string(commit.letters.size()),
                                 fmt::to_string(commit.steps.size()),
                                 fmt::to_string(commit.outputs.size()),
                                 commit.emit_topic,
                                 commit.import ? commit.import->text() : "="};
  // Events are not copied: there may be megabytes of them.
  std::vector<std::string_view> arguments;
  texts.reserve(texts.size() + 6 * commit.letters.size() + 4 * commit.steps.size() + commit.outputs.size());
  const auto text = [&](std::string value) { arguments.emplace_back(texts.emplace_back(std::move(value))); };
  for (const std::string& fixed : texts) {
    arguments.emplace_back(fixed);
  }
  for (const DeadLetter& letter : commit.letters) {
    text(letter.whose.text());
    text(letter.from ? fmt::format("{} {}", letter.offset, *letter.from)
                     : fmt::to_string(letter.offset.value));
    arguments.emplace_back(name_of(letter.state));
    text(fmt::to_string(letter.attempts));
    text(fmt::to_string(letter.time.time_since_epoch().count()));
    arguments.emplace_back(letter.reason);
    arguments.emplace_back(letter.event);
  }
  for (const LetterStep& step : commit.steps) {
    arguments.emplace_back(step_names.at(static_cast<std::size_t>(step.what)));
    text(step.id.text());
    text(step.whose.text());
    text(step.what == LetterStep::What::failed  ? step.failure.text()
         : step.what == LetterStep::What::asked ? step.request.text()
         : step.what == LetterStep::What::free  ? fmt::to_string(step.left)
                                                : std::string());
  }
  for (const std::string& output : commit.outputs) {
    text(fmt::to_string(std::count(output.begin(), output.end(), '\n')));
    arguments.emplace_back(output);
  }
  const auto script = commit.grows() ? redis::Script::commit_grow : redis::Script::commit;
  request.script(script, {keys.group, keys.log, keys.dead, keys.held, keys.outbox}, arguments);
}

}  // namespace continuum
