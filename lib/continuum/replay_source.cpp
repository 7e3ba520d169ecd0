#include "continuum/replay_source.hpp"

#include "continuum/error.hpp"

#include <algorithm>

namespace continuum {

namespace {

// XRANGE counts entries, not bytes: each answer may be this much longer than the one before.
constexpr std::size_t count_growth = 8;
constexpr std::size_t count_max = 16 << 10;

}  // namespace

ReplaySource::ReplaySource(LogRange range, std::string_view topic, TopicArchive* archive,
                           std::optional<std::string> key, std::size_t answer_bytes,
                           std::size_t first_entries)
    : range_(std::move(range)),
      topic_(topic),
      log_key_(log_key(topic, range_.partition)),
      archive_(archive),
      key_(std::move(key)),
      bytes_max_(answer_bytes),
      expected_(range_.expected),
      counted_(range_.from),
      after_(range_.first),
      count_(std::clamp<std::size_t>(first_entries, 1, count_growth)),
      drained_(range_.events() == 0 || range_.stop <= range_.log_first) {}

// --- the entries

ReplaySource::Look ReplaySource::look() {
  for (;;) {
    if (range_.events() == 0 || (expected_ && *expected_ >= range_.stop)) {
      drained_ = true;
      at_ = entries_.size();
      fill_.reset();
      return Look::end;
    }
    if (fill_) {
      if (look_into_archive()) {
        return Look::entry;
      }
    } else if (has_logged()) {
      const Entry& entry = entries_[at_].entry;
      if (archive_ == nullptr || entry.first <= expected()) {
        head_ = {entry.id, entry.first, entry.events, entry.generation};
        return Look::entry;
      }
      fill_until(entry.first);
    } else if (!drained_) {
      return Look::answer;
    } else if (expected() == range_.end) {
      return Look::end;
    } else if (archive_ == nullptr || expected() > range_.end) {
      report_gap(range_.end);
    } else {
      fill_until(range_.end);
    }
  }
}

void ReplaySource::fill_until(Offset to) {
  fill_to_ = to;
  try {
    fill_ = std::make_unique<TopicArchive::Reading>(
        *archive_, range_.partition,
        ArchiveChoice{.from = expected(), .to = std::min(to, range_.stop), .key = key_});
  } catch (const Error& error) {
    fail_fill(error);
  }
}

bool ReplaySource::look_into_archive() {
  if (!archived_) {
    try {
      archived_ = fill_->next();
    } catch (const Error& error) {
      fail_fill(error);
    }
  }
  if (!archived_) {
    expected_ = std::max(expected(), std::min(fill_to_, range_.stop));
    fill_.reset();
    return false;
  }
  head_ = {archived_->id, archived_->first, archived_->events, archived_->generation};
  return true;
}

void ReplaySource::fail_fill(const Error& error) const {
  // A directory that is not there is none that has the events.
  if (error.kind() != ErrorKind::loss && error.kind() != ErrorKind::usage) {
    throw error;
  }
  const std::string behind = has_logged()
                                 ? fmt::format(". The log has what is from offset {} on: --from-offset {}",
                                               entries_[at_].entry.first, entries_[at_].entry.first)
                                 : std::string();
  fail(ErrorKind::loss,
       "{}: the log does not have offsets {} to {} any more, and the archive not all of them: "
       "{}{}",
       continuum::place(topic_, range_.partition), expected(), fill_to_.value - 1, error.message(), behind);
}

void ReplaySource::require_whole() const {
  // Of what the archive has, something may have been left out for a key.
  const bool follows = archived_ && key_ ? head_.first >= expected_.value_or(head_.first)
                       : expected_       ? head_.first == *expected_
                                         : head_.first <= range_.from;
  if (!follows) {
    report_gap(head_.first);
  }
  if (seam_ && !archived_) {
    require_seam();
  }
}

// A log that was put back, or lost its end, and went on has other events at offsets that are archived, too.
void ReplaySource::require_seam() const {
  EntryId archived = *seam_;
  bool belong_together = head_.id > archived;
  if (belong_together && head_.events > 0) {
    archived = archive_->entry_of(range_.partition, head_.first).value_or(head_.id);
    belong_together = head_.id == archived;
  }
  if (!belong_together) {
    fail(ErrorKind::loss,
         "{}: offset {} is entry {} in the log, and entry {} is {} in the archive: they do not belong "
         "together. "
         "Was the server restored from a copy, or did it fail over and lose events?",
         continuum::place(topic_, range_.partition), head_.first, head_.id.text(), archived.text(),
         archived == *seam_ ? "before it" : "there");
  }
}

void ReplaySource::report_gap(Offset found) const {
  const std::string where = continuum::place(topic_, range_.partition);
  if (found > expected()) {
    fail(ErrorKind::loss,
         "{}: offsets {} to {} are not in the log any more: removed by XDEL or XTRIM, or trimmed while we "
         "read?{}",
         where, expected(), found.value - 1,
         archive_ == nullptr ? " An archive of the topic may have them: --archive DIR" : "");
  }
  fail(ErrorKind::loss, "{}: offset {} comes where {} is expected: the log holds events twice", where, found,
       expected());
}

std::string_view ReplaySource::lines(FrameDecoder& decoder, std::string& lines) const {
  if (archived_) {
    return archived_->lines;
  }
  const Stored& stored = entries_[at_];
  Entry entry = stored.entry;
  entry.frame = std::string_view(bytes_).substr(stored.at, stored.size);
  decode_entry(decoder, entry, topic_, range_.partition, lines);
  return lines;
}

std::uint64_t ReplaySource::pass() {
  const Offset reached = std::clamp(head_.next(), counted_, std::max(counted_, range_.stop));
  const std::uint64_t events = reached - counted_;
  counted_ = reached;
  time_ = std::max(time_, head_.id.milliseconds);
  expected_ = head_.next();
  entry_id_before_ = entry_id_;
  entry_id_ = head_.id;
  if (archived_) {
    seam_ = head_.id;
    archived_.reset();
  } else {
    seam_.reset();
    ++at_;
  }
  return events;
}

// --- the log

bool ReplaySource::runs_low() const {
  return !drained_ && (!has_logged() || unread_bytes() < bytes_max_ / 2);
}

void ReplaySource::ask(redis::Request& request) const {
  request.command("XRANGE", log_key_, after_, range_.last.text(), "COUNT", count_);
}

void ReplaySource::take(redis::Reply answer) {
  bytes_.erase(0, bytes_.size() - unread_bytes());
  entries_.erase(entries_.begin(), entries_.begin() + static_cast<std::ptrdiff_t>(at_));
  at_ = 0;
  const std::size_t moved = entries_.empty() ? 0 : entries_.front().at;
  for (Stored& stored : entries_) {
    stored.at -= moved;
  }
  const std::size_t kept_bytes = bytes_.size();
  const std::size_t size = answer.size();
  for (std::size_t i = 0; i < size; ++i) {
    add(parse_entry(answer[i], topic_, range_.partition));
  }
  if (size < count_) {
    drained_ = true;
    return;
  }
  after_ = "(" + std::string(answer[size - 1][0].text());
  // Half of what is kept for a partition, so that the unread rest and the next answer are the whole.
  const std::size_t entry_bytes = (bytes_.size() - kept_bytes) / size + sizeof(Stored);
  count_ =
      std::clamp<std::size_t>(bytes_max_ / 2 / entry_bytes, 1, std::min(count_max, count_ * count_growth));
}

void ReplaySource::add(const Entry& entry) {
  Stored stored{entry, bytes_.size(), entry.frame.size()};
  bytes_.append(entry.frame);
  stored.entry.frame = {};
  stored.entry.producer = {};
  entries_.push_back(stored);
}

// --- where it stands

Cursor ReplaySource::place() const {
  if (expected_ && *expected_ > range_.stop) {
    return {std::max(range_.from, range_.stop), entry_id_before_};
  }
  return {std::max(range_.from, expected()), entry_id_};
}

}  // namespace continuum
