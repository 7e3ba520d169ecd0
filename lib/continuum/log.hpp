// The log of a partition: the names of its keys and the form of its entries (docs/formats.md, version 1).
//
//   entry   = "n" events "o" first-offset "g" generation [ "p" producer "l" position "d" digest ] ( "e" / "z"
//   ) frame barrier = "barrier" generation "o" next-offset
#pragma once

#include "continuum/frame.hpp"
#include "continuum/redis.hpp"
#include "continuum/types.hpp"

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace continuum {

// --- names of keys; the hash tag keeps a partition's keys on one Cluster slot

[[nodiscard]] std::string topic_key(std::string_view topic);
[[nodiscard]] std::string audit_key(std::string_view topic);
[[nodiscard]] std::string members_key(std::string_view topic, std::string_view group);
[[nodiscard]] std::string replay_cursor_key(std::string_view topic, std::string_view cursor);
[[nodiscard]] std::string log_key(std::string_view topic, Partition partition);
[[nodiscard]] std::string meta_key(std::string_view topic, Partition partition);
// While it is being restored from an archive.
[[nodiscard]] std::string restoring_key(std::string_view topic, Partition partition);
[[nodiscard]] std::string producer_key(std::string_view topic, Partition partition,
                                       std::string_view producer);
[[nodiscard]] std::string group_key(std::string_view topic, Partition partition, std::string_view group);
[[nodiscard]] std::string dead_key(std::string_view topic, Partition partition, std::string_view group);
[[nodiscard]] std::string held_key(std::string_view topic, Partition partition, std::string_view group);
[[nodiscard]] std::string outbox_key(std::string_view topic, Partition partition, std::string_view group);

// 32 hex digits, at random: what a log, or an archive, is known by.
[[nodiscard]] std::string random_id();

// --- entries

struct EntryId {
  std::uint64_t milliseconds = 0;
  std::uint64_t sequence = 0;

  // nullopt when the text is not MS-SEQ.
  static std::optional<EntryId> parse(std::string_view text);
  [[nodiscard]] std::string text() const;
  // The one before it in the order of ids; 0-0 has none, and is its own.
  [[nodiscard]] EntryId before() const;
  friend auto operator<=>(const EntryId&, const EntryId&) = default;
};

// A view into a reply.
struct Entry {
  EntryId id;
  Offset first;              // of its first event; of a barrier: the offset of the next event
  std::uint32_t events = 0;  // 0 for a barrier
  std::optional<Generation> barrier;
  Generation generation;
  Encoding encoding = Encoding::plain;
  std::string_view frame;
  // Of named producers only: whose it is, the position of its last event, the digest up to there.
  std::string_view producer;
  Position position;
  std::string_view digest;

  [[nodiscard]] Offset next() const { return first + events; }
  [[nodiscard]] SystemTime time() const {
    return SystemTime(Milliseconds(static_cast<std::int64_t>(id.milliseconds)));
  }
};

// Reads one element of an XRANGE or XREAD answer: [id, [field, value, …]]. Throws Error{loss} naming
// topic, partition and entry id when it is neither an entry nor a barrier.
[[nodiscard]] Entry parse_entry(redis::Reply reply, std::string_view topic, Partition partition);

// Replaces `lines` by the entry's events. Throws Error{loss} naming topic, partition, offsets and entry id.
void decode_entry(FrameDecoder& decoder, const Entry& entry, std::string_view topic, Partition partition,
                  std::string& lines);

// "topic T, partition P": for messages.
[[nodiscard]] std::string place(std::string_view topic, Partition partition);

// --- state of one partition (`meta`, and what XINFO knows)

struct LogState {
  std::string log_id;
  Generation generation;
  Generation born;
  Offset next;
  Generation trimmed;
  // Where the last trim left the log's beginning, and the newest entry that it removed. Nothing: no trim yet.
  std::optional<Offset> trimmed_offset = {};
  EntryId trimmed_entry = {};
};
// From HGETALL of the meta key. nullopt when the partition does not exist.
[[nodiscard]] std::optional<LogState> parse_meta(redis::Reply reply);

// Both ends of a log and its state, for readers. What they show of loss is told, not thrown: inspect goes on.
struct LogEnds {
  LogState state;
  std::optional<Entry> oldest;  // without frame and producer
  std::optional<Entry> newest;
  EntryId last_id;  // of the last entry that was ever appended
  // Why this cannot be the log that was written (gone, another one, cut at its end), or empty.
  std::string loss;
  // Why the events before first() are not there although no trim removed them, or empty.
  std::string head_loss;

  // Of the oldest event that is kept; the end of the log when there is none.
  [[nodiscard]] Offset first() const { return oldest ? oldest->first : state.next; }
  // No entry that is gone from before first() was stored later than this one: exactly the newest of them when
  // a trim removed it.
  [[nodiscard]] EntryId newest_removed() const {
    if (state.trimmed_offset && head_loss.empty()) {
      return state.trimmed_entry;
    }
    return oldest ? oldest->id : last_id;
  }
};
// Two commands; between MULTI and EXEC, so that meta and log are of one moment.
void request_ends(redis::Request& request, std::string_view topic, Partition partition);
// `log_id`: of the topic.
[[nodiscard]] LogEnds parse_ends(redis::Reply meta, redis::Reply stream, std::string_view topic,
                                 Partition partition, std::string_view log_id);

}  // namespace continuum
