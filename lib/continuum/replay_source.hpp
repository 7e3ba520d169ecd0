// One partition of a replay, entry by entry, from two origins: the log, and for what the log does not have
// any more the archive. Where the one ends and the other begins is not decided beforehand: whatever is
// missing before the log's next entry, because it was trimmed long ago or just now, is looked for in the
// archive, which has it as long as nothing is trimmed that is not archived. Private to the library.
#pragma once

#include "continuum/frame.hpp"
#include "continuum/lease.hpp"
#include "continuum/log.hpp"
#include "continuum/log_range.hpp"
#include "continuum/redis.hpp"
#include "continuum/topic_archive.hpp"
#include "continuum/types.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace continuum {

class ReplaySource {
 public:
  // `archive` may be null. `key`: of the only events that are wanted; what cannot have it may be left out.
  // `answer_bytes`: of the log's entries that are kept here at once, about.
  ReplaySource(LogRange range, std::string_view topic, TopicArchive* archive, std::optional<std::string> key,
               std::size_t answer_bytes, std::size_t first_entries);

  [[nodiscard]] const LogRange& range() const { return range_; }
  // Before the first look: somebody who was here before had come as far as that entry.
  void begin_behind(const EntryId& entry) { entry_id_ = entry; }

  // --- the entries

  struct Head {
    EntryId id;
    Offset first;
    std::uint32_t events = 0;  // 0: a barrier
    Generation generation;

    [[nodiscard]] Offset next() const { return first + events; }
  };
  enum class Look : std::uint8_t {
    entry,   // head() is the next one
    answer,  // the log has to be asked first
    end,
  };
  // Throws Error{loss} when what is missing in the log is not in the archive either. Without an archive a gap
  // before an entry is told only by require_whole().
  [[nodiscard]] Look look();
  [[nodiscard]] const Head& head() const { return head_; }
  // Of entries that are next in several partitions, the lesser one comes first. Its time never steps back.
  [[nodiscard]] auto order() const {
    return std::tuple(head_.generation, std::max(time_, head_.id.milliseconds), range_.partition);
  }
  // Throws Error{loss} when head() does not follow what came before.
  void require_whole() const;
  // Of head(); valid until the next look(), and the next call with these `lines`. Throws Error{loss}.
  [[nodiscard]] std::string_view lines(FrameDecoder& decoder, std::string& lines) const;
  // That was passed.
  [[nodiscard]] const EntryId& last_entry() const { return entry_id_; }
  // Beyond head(). Returns how many events of the range are behind us with it.
  std::uint64_t pass();

  // --- the log

  [[nodiscard]] bool runs_low() const;
  void ask(redis::Request& request) const;
  void take(redis::Reply answer);

  // --- where it stands

  // Behind everything that was passed.
  [[nodiscard]] Cursor place() const;
  // At an event of the entry that was passed last.
  [[nodiscard]] Cursor place_at(Offset offset) const { return {offset, entry_id_before_}; }

 private:
  // An entry whose frame was copied out of the answer, so that answers are not kept alive by their slowest
  // reader.
  struct Stored {
    Entry entry;  // without its views
    std::size_t at;
    std::size_t size;
  };

  [[nodiscard]] Offset expected() const { return expected_.value_or(range_.from); }
  [[nodiscard]] bool has_logged() const { return at_ < entries_.size(); }
  [[nodiscard]] std::size_t unread_bytes() const {
    return has_logged() ? bytes_.size() - entries_[at_].at : 0;
  }
  void fill_until(Offset to);
  [[nodiscard]] bool look_into_archive();
  [[noreturn]] void fail_fill(const Error& error) const;
  [[noreturn]] void report_gap(Offset found) const;
  void require_seam() const;
  void add(const Entry& entry);

  LogRange range_;
  std::string topic_;
  std::string log_key_;
  TopicArchive* archive_;
  std::optional<std::string> key_;
  std::size_t bytes_max_;

  Head head_;
  std::optional<Offset> expected_;  // of the next entry
  Offset counted_;                  // by pass(), up to there
  EntryId entry_id_;                // of the entry that was passed last, and of the one before it
  EntryId entry_id_before_;
  std::uint64_t time_ = 0;  // of the latest entry: an order by time must never step back within a partition

  // From the log.
  std::string after_;  // XRANGE's lower bound
  std::string bytes_;
  std::vector<Stored> entries_;
  std::size_t at_ = 0;  // in entries_
  std::size_t count_ = 1;
  bool drained_ = false;

  // From the archive.
  std::unique_ptr<TopicArchive::Reading> fill_;  // while there is a gap
  Offset fill_to_;
  std::optional<ArchivedEntry> archived_;  // head() is this one
  std::optional<EntryId> seam_;            // of the entry that was passed last, when it was an archived one
};

}  // namespace continuum
