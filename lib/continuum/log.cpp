#include "continuum/log.hpp"

#include "continuum/error.hpp"

#include <charconv>
#include <limits>
#include <random>

namespace continuum {

namespace {

std::string partition_key(std::string_view topic, Partition partition, std::string_view suffix) {
  return fmt::format("continuum:{{{}:{}}}:{}", topic, partition, suffix);
}

std::optional<std::uint64_t> parse_number(std::string_view text, std::uint64_t max) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value > max) {
    return std::nullopt;
  }
  return value;
}

// The fields of one entry while they are read, each at most once.
struct Fields {
  std::optional<std::uint64_t> events;
  std::optional<std::uint64_t> offset;
  std::optional<std::uint64_t> generation;
  std::optional<std::uint64_t> barrier;
  std::optional<std::string_view> plain;
  std::optional<std::string_view> zstd;
  std::optional<std::uint64_t> position;
  std::string_view producer;
  std::string_view digest;
};

// What is wrong with the field, or nullptr. Fields that are not known are left to versions that know them:
// one that must not be ignored would come with another format version of the topic.
const char* read_field(Fields& fields, std::string_view name, std::string_view value) {
  constexpr std::uint64_t generation_max = std::numeric_limits<Generation::rep>::max();
  const auto number = [&](std::optional<std::uint64_t>& field, std::uint64_t min, std::uint64_t max,
                          const char* wrong) -> const char* {
    if (field) {
      return "a field comes twice";
    }
    field = parse_number(value, max);
    return field && *field >= min ? nullptr : wrong;
  };
  const auto bytes = [&](std::optional<std::string_view>& field) -> const char* {
    if (field) {
      return "a field comes twice";
    }
    field = value;
    return nullptr;
  };
  if (name == "n") {
    return number(fields.events, 1, frame_events_max, "its number of events (n) is out of bounds");
  }
  if (name == "o") {
    return number(fields.offset, 0, number_max, "its offset (o) is out of bounds");
  }
  if (name == "g") {
    return number(fields.generation, 1, generation_max, "its generation (g) is out of bounds");
  }
  if (name == "barrier") {
    return number(fields.barrier, 1, generation_max, "its generation (barrier) is out of bounds");
  }
  if (name == "e") {
    return bytes(fields.plain);
  }
  if (name == "z") {
    return bytes(fields.zstd);
  }
  if (name == "l") {
    return number(fields.position, 0, number_max, "its position (l) is out of bounds");
  }
  if (name == "p") {
    fields.producer = value;
  }
  if (name == "d") {
    fields.digest = value;
  }
  return nullptr;
}

// What is missing or too much, or nullptr.
const char* check_fields(const Fields& fields) {
  if (!fields.offset) {
    return "it has no offset (o)";
  }
  if (fields.barrier) {
    return fields.events || fields.plain || fields.zstd ? "it is a barrier and has events" : nullptr;
  }
  if (!fields.events || !fields.generation) {
    return "it has no number of events (n) or no generation (g)";
  }
  if (fields.plain.has_value() == fields.zstd.has_value()) {
    return "it needs one frame, as e or as z";
  }
  return *fields.offset + *fields.events > number_max ? "its offset (o) is out of bounds" : nullptr;
}

}  // namespace

std::string topic_key(std::string_view topic) {
  return fmt::format("continuum:{{{}}}:topic", topic);
}

std::string audit_key(std::string_view topic) {
  return fmt::format("continuum:{{{}}}:audit", topic);
}

std::string members_key(std::string_view topic, std::string_view group) {
  return fmt::format("continuum:{{{}}}:members:{}", topic, group);
}

std::string replay_cursor_key(std::string_view topic, std::string_view cursor) {
  return fmt::format("continuum:{{{}}}:cursor:{}", topic, cursor);
}

std::string log_key(std::string_view topic, Partition partition) {
  return partition_key(topic, partition, "log");
}

std::string meta_key(std::string_view topic, Partition partition) {
  return partition_key(topic, partition, "meta");
}

std::string restoring_key(std::string_view topic, Partition partition) {
  return partition_key(topic, partition, "restoring");
}

std::string producer_key(std::string_view topic, Partition partition, std::string_view producer) {
  return partition_key(topic, partition, fmt::format("producer:{}", producer));
}

std::string group_key(std::string_view topic, Partition partition, std::string_view group) {
  return partition_key(topic, partition, fmt::format("group:{}", group));
}

std::string dead_key(std::string_view topic, Partition partition, std::string_view group) {
  return partition_key(topic, partition, fmt::format("dead:{}", group));
}

std::string held_key(std::string_view topic, Partition partition, std::string_view group) {
  return partition_key(topic, partition, fmt::format("held:{}", group));
}

std::string outbox_key(std::string_view topic, Partition partition, std::string_view group) {
  return partition_key(topic, partition, fmt::format("outbox:{}", group));
}

std::string random_id() {
  std::random_device random;
  std::string id;
  for (int i = 0; i < 4; ++i) {
    id += fmt::format("{:08x}", static_cast<std::uint32_t>(random()));
  }
  return id;
}

std::optional<EntryId> EntryId::parse(std::string_view text) {
  constexpr std::uint64_t any = std::numeric_limits<std::uint64_t>::max();
  const std::size_t dash = text.find('-');
  if (dash == std::string_view::npos) {
    return std::nullopt;
  }
  const auto milliseconds = parse_number(text.substr(0, dash), any);
  const auto sequence = parse_number(text.substr(dash + 1), any);
  if (!milliseconds || !sequence) {
    return std::nullopt;
  }
  return EntryId{*milliseconds, *sequence};
}

std::string EntryId::text() const {
  return fmt::format("{}-{}", milliseconds, sequence);
}

EntryId EntryId::before() const {
  if (sequence > 0) {
    return {milliseconds, sequence - 1};
  }
  return milliseconds > 0 ? EntryId{milliseconds - 1, std::numeric_limits<std::uint64_t>::max()} : EntryId{};
}

std::string place(std::string_view topic, Partition partition) {
  return fmt::format("topic {}, partition {}", topic, partition);
}

Entry parse_entry(redis::Reply reply, std::string_view topic, Partition partition) {
  const std::string_view id_text = reply[0].text();
  const auto damaged = [&](const char* why) {
    fail(ErrorKind::loss,
         "{}: entry {} is not one that Continuum wrote: {}. Something else writes to {}; look at the entry "
         "with "
         "XRANGE",
         place(topic, partition), id_text, why, log_key(topic, partition));
  };
  const auto id = EntryId::parse(id_text);
  if (!id) {
    damaged("its id is not MS-SEQ");
  }
  const redis::Reply values = reply[1];
  const std::size_t size = values.size();
  Fields fields;
  for (std::size_t i = 0; i + 1 < size; i += 2) {
    if (const char* wrong = read_field(fields, values[i].text(), values[i + 1].text())) {
      damaged(wrong);
    }
  }
  if (const char* wrong = check_fields(fields)) {
    damaged(wrong);
  }

  Entry entry;
  entry.id = *id;
  entry.first = Offset(*fields.offset);
  if (fields.barrier) {
    entry.barrier = Generation(static_cast<Generation::rep>(*fields.barrier));
    entry.generation = *entry.barrier;
    return entry;
  }
  entry.events = static_cast<std::uint32_t>(*fields.events);
  entry.generation = Generation(static_cast<Generation::rep>(*fields.generation));
  entry.encoding = fields.zstd ? Encoding::zstd : Encoding::plain;
  entry.frame = fields.zstd ? *fields.zstd : *fields.plain;
  entry.producer = fields.producer;
  entry.position = Position(fields.position.value_or(0));
  entry.digest = fields.digest;
  return entry;
}

void decode_entry(FrameDecoder& decoder, const Entry& entry, std::string_view topic, Partition partition,
                  std::string& lines) {
  try {
    decoder.decode(entry.encoding, entry.frame, entry.events, lines);
  } catch (const Error& error) {
    fail(ErrorKind::loss, "{}, offsets {} to {} (entry {}): {}", place(topic, partition), entry.first,
         entry.next().value - 1, entry.id.text(), error.message());
  }
}

std::optional<LogState> parse_meta(redis::Reply reply) {
  if (reply.size() == 0) {
    return std::nullopt;
  }
  const auto field = [&](std::string_view name) {
    const auto value = reply.field(name);
    if (!value) {
      fail(ErrorKind::loss,
           "the state of a partition has no field \"{}\": something else wrote to its meta key", name);
    }
    return *value;
  };
  const auto number = [&](std::string_view name, std::uint64_t max) {
    const auto value = parse_number(field(name), max);
    if (!value) {
      fail(ErrorKind::loss,
           "the state of a partition has a field \"{}\" that is out of bounds: something else wrote to its "
           "meta key",
           name);
    }
    return *value;
  };
  const auto generation = [&](std::string_view name) {
    return Generation(
        static_cast<Generation::rep>(number(name, std::numeric_limits<Generation::rep>::max())));
  };
  LogState state;
  state.log_id = field("id");
  state.generation = generation("gen");
  state.born = generation("born");
  state.next = Offset(number("next", number_max));
  state.trimmed = generation("trimmed");
  if (reply.field("trimmed_offset")) {
    state.trimmed_offset = Offset(number("trimmed_offset", number_max));
    const auto entry = EntryId::parse(field("trimmed_entry"));
    if (!entry) {
      fail(
          ErrorKind::loss,
          "the state of a partition has a field \"trimmed_entry\" that is no id: something else wrote to its "
          "meta key");
    }
    state.trimmed_entry = *entry;
  }
  return state;
}

namespace {

std::string loss_of_log(redis::Reply stream, std::string_view at, const std::string& log) {
  const std::string_view error = stream.text();
  if (error.find("no such key") != std::string_view::npos) {
    return fmt::format("{}: the log {} is gone, but its meta key is there: was it deleted or evicted?", at,
                       log);
  }
  return fmt::format("{}: the log {} cannot be read ({})", at, log, error);
}

// The value of a field of XINFO, whose values are of any type.
redis::Reply value_of(redis::Reply fields, std::string_view name) {
  for (std::size_t i = 0; i + 1 < fields.size(); i += 2) {
    if (fields[i].text() == name) {
      return fields[i + 1];
    }
  }
  fail(ErrorKind::server, "XINFO STREAM says no \"{}\": is the server Redis 7.0 or later, or Valkey?", name);
}

// Every log begins with the barrier of the generation in which its partition was born, and trim records where
// it left the beginning, and the last barrier that it removes.
bool head_is_explained(const LogState& state, const std::optional<Entry>& oldest) {
  if (state.trimmed_offset && (oldest ? oldest->first : state.next) > *state.trimmed_offset) {
    return false;
  }
  if (!oldest) {
    return state.trimmed >= state.generation;
  }
  if (!oldest->barrier) {
    return oldest->generation <= state.trimmed;
  }
  return state.trimmed > Generation(0) || *oldest->barrier == state.born;
}

}  // namespace

void request_ends(redis::Request& request, std::string_view topic, Partition partition) {
  request.command("HGETALL", meta_key(topic, partition));
  request.command("XINFO", "STREAM", log_key(topic, partition));
}

LogEnds parse_ends(redis::Reply meta, redis::Reply stream, std::string_view topic, Partition partition,
                   std::string_view log_id) {
  const std::string at = place(topic, partition);
  LogEnds ends;
  std::optional<LogState> state;
  try {
    state = parse_meta(meta);
  } catch (const Error& error) {
    ends.loss = fmt::format("{}: {}", at, error.message());
    return ends;
  }
  if (!state) {
    ends.loss = fmt::format("{}: the state {} is gone: was it deleted, evicted or flushed?", at,
                            meta_key(topic, partition));
    return ends;
  }
  ends.state = *state;
  if (state->log_id != log_id) {
    ends.loss = fmt::format("{}: its log is of another creation of the topic (log id {}, the topic has {})",
                            at, state->log_id, log_id);
    return ends;
  }
  if (stream.is_error()) {
    ends.loss = loss_of_log(stream, at, log_key(topic, partition));
    return ends;
  }
  const auto edge = [&](std::string_view name) -> std::optional<Entry> {
    const redis::Reply reply = value_of(stream, name);
    if (reply.is_nil()) {
      return std::nullopt;
    }
    Entry entry = parse_entry(reply, topic, partition);
    entry.frame = {};
    entry.producer = {};
    return entry;
  };
  ends.last_id = EntryId::parse(value_of(stream, "last-generated-id").text()).value_or(EntryId{});
  try {
    ends.oldest = edge("first-entry");
    ends.newest = edge("last-entry");
  } catch (const Error& error) {
    ends.loss = error.message();
    return ends;
  }
  if (ends.newest && ends.newest->next() != state->next) {
    ends.loss = ends.newest->next() < state->next
                    ? fmt::format("{}: offsets {} to {} are missing at the end of the log", at,
                                  ends.newest->next(), state->next.value - 1)
                    : fmt::format("{}: the log ends at offset {}, but its meta key says {}", at,
                                  ends.newest->next(), state->next);
  } else if (!head_is_explained(*state, ends.oldest)) {
    ends.head_loss = ends.first() == Offset(0)
                         ? fmt::format("{}: the beginning of the log was removed by hand (XTRIM, XDEL)", at)
                         : fmt::format(
                               "{}: offsets {} to {} are gone, and no trim by Continuum removed them (XTRIM "
                               "or XDEL by hand?)",
                               at, state->trimmed_offset.value_or(Offset(0)), ends.first().value - 1);
  }
  return ends;
}

}  // namespace continuum
