#include "continuum/tail.hpp"

#include "continuum/error.hpp"

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <span>

namespace continuum {

namespace {

// What is asked for at once over all partitions, backwards or forwards.
constexpr std::size_t answer_bytes = std::size_t{4} << 20;
constexpr std::size_t count_growth = 4;
constexpr std::size_t count_max = 1000;
constexpr std::size_t partitions_at_once = 32;
constexpr std::chrono::seconds look_around_every{1};

// Calls `each` for every line that matches, with its offset, the last line first. It returns false to stop.
template <class Each>
void for_matching_backwards(EventFilter& filter, const Entry& entry, std::string_view lines, Each each) {
  std::size_t end = lines.size() - 1;
  for (std::uint64_t i = entry.events; i-- > 0;) {
    const std::size_t newline = end == 0 ? std::string_view::npos : lines.rfind('\n', end - 1);
    const std::size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
    const std::string_view line = lines.substr(begin, end - begin);
    if (filter.matches(line) && !each(entry.first + i, line)) {
      return;
    }
    end = begin == 0 ? 0 : begin - 1;
  }
}

class BackwardReader {
 public:
  BackwardReader(redis::Session& session, const Topic& topic, TailOptions options)
      : session_(session), topic_(topic), options_(std::move(options)), filter_(topic, options_.filter) {
    if (options_.last > last_events_max) {
      fail(ErrorKind::usage, "at most the last {} events can be shown: replay has no such limit",
           last_events_max);
    }
  }

  Tail read() {
    Tail tail;
    const auto partitions = filter_.partitions(topic_, options_.partitions);
    for (std::size_t i = 0; i < partitions.size(); i += partitions_at_once) {
      find_ends(std::span(partitions).subspan(i, std::min(partitions_at_once, partitions.size() - i)),
                tail.ends);
    }
    while (read_round()) {
    }
    std::sort_heap(newest_.begin(), newest_.end(), std::greater<>());
    std::reverse(newest_.begin(), newest_.end());
    tail.events = std::move(newest_);
    return tail;
  }

 private:
  struct Source {
    Partition partition;
    std::string key;
    std::string before;  // XREVRANGE's upper bound
    Offset next;         // what the next entry (an older one) must end at
    Offset first;        // where the log begins
    std::size_t count;
    std::uint64_t found = 0;
    bool done = false;
  };

  void find_ends(std::span<const Partition> partitions, std::vector<LogPlace>& out) {
    redis::Request request;
    for (const Partition partition : partitions) {
      request.command("MULTI");
      request_ends(request, topic_.name, partition);
      request.command("EXEC");
    }
    const redis::Replies replies = session_.call(std::move(request));
    for (std::size_t i = 0; i < partitions.size(); ++i) {
      const redis::Reply answers = replies[4 * i + 3];
      const LogEnds ends = parse_ends(answers[0], answers[1], topic_.name, partitions[i], topic_.log_id);
      if (!ends.loss.empty()) {
        throw Error(ErrorKind::loss, ends.loss);
      }
      out.push_back({partitions[i], ends.last_id, ends.state.next});
      const bool is_empty = ends.first() == ends.state.next;
      sources_.push_back({partitions[i], log_key(topic_.name, partitions[i]), ends.last_id.text(),
                          ends.state.next, ends.first(), count_growth, 0, is_empty || options_.last == 0});
    }
  }

  // False when there was nothing left to ask for.
  bool read_round() {
    redis::Request request;
    std::vector<Source*> asked;
    const auto min_id =
        options_.since ? std::to_string(options_.since->time_since_epoch().count()) : std::string("-");
    for (Source& source : sources_) {
      if (!source.done && asked.size() < partitions_at_once) {
        request.command("XREVRANGE", source.key, source.before, min_id, "COUNT", source.count);
        asked.push_back(&source);
      }
    }
    if (asked.empty()) {
      return false;
    }
    const redis::Replies replies = session_.call(std::move(request));
    for (std::size_t i = 0; i < asked.size(); ++i) {
      take(*asked[i], replies[i], asked.size());
    }
    return true;
  }

  void take(Source& source, redis::Reply answer, std::size_t sources) {
    const std::size_t size = answer.size();
    std::size_t bytes = 1;
    for (std::size_t i = 0; i < size && !source.done; ++i) {
      const Entry entry = parse_entry(answer[i], topic_.name, source.partition);
      if (entry.next() != source.next) {
        fail(ErrorKind::loss, "{}: offsets {} to {} are not in the log any more: removed by XDEL or XTRIM?",
             place(topic_.name, source.partition), entry.next(), source.next.value - 1);
      }
      source.next = entry.first;
      bytes += entry.frame.size();
      look_into(source, entry);
    }
    if (size < source.count) {
      if (!source.done && !options_.since && source.next != source.first) {
        fail(ErrorKind::loss, "{}: offsets {} to {} are not in the log any more: removed by XDEL or XTRIM?",
             place(topic_.name, source.partition), source.first, source.next.value - 1);
      }
      source.done = true;
      return;
    }
    source.before = "(" + std::string(answer[size - 1][0].text());
    const std::size_t entry_bytes = bytes / size + 1;
    source.count = std::clamp<std::size_t>(answer_bytes / sources / entry_bytes, 1,
                                           std::min(count_max, source.count * count_growth));
  }

  void look_into(Source& source, const Entry& entry) {
    if (entry.barrier || !filter_.wants(source.partition, entry.generation)) {
      return;
    }
    if (newest_.size() == options_.last && is_older(source, entry)) {
      source.done = true;
      return;
    }
    decode_entry(decoder_, entry, topic_.name, source.partition, lines_);
    for_matching_backwards(filter_, entry, lines_, [&](Offset offset, std::string_view line) {
      keep({source.partition, entry.generation, entry.id, offset, std::string(line)});
      return ++source.found < options_.last;
    });
    source.done = source.found >= options_.last;
  }

  // Whether the whole entry comes before all that is kept.
  bool is_older(const Source& source, const Entry& entry) const {
    return SeenEvent{source.partition, entry.generation, entry.id, entry.next(), {}} <= newest_.front();
  }

  void keep(SeenEvent event) {
    if (newest_.size() == options_.last) {
      if (event < newest_.front()) {
        return;
      }
      std::pop_heap(newest_.begin(), newest_.end(), std::greater<>());
      newest_.pop_back();
    }
    newest_.push_back(std::move(event));
    std::push_heap(newest_.begin(), newest_.end(), std::greater<>());
  }

  redis::Session& session_;
  const Topic& topic_;
  TailOptions options_;
  EventFilter filter_;
  FrameDecoder decoder_;
  std::vector<Source> sources_;
  std::vector<SeenEvent> newest_;  // a heap: the oldest first
  std::string lines_;
};

}  // namespace

Tail last_events(redis::Session& session, const Topic& topic, TailOptions options) {
  return BackwardReader(session, topic, std::move(options)).read();
}

struct Follower::Impl {
  Impl(redis::Session& s, Topic t, std::vector<Partition> c, EventFilter::Options f,
       const std::vector<LogPlace>& ends)
      : session(s),
        topic(std::move(t)),
        chosen(std::move(c)),
        filter_options(std::move(f)),
        filter(topic, filter_options) {
    if (ends.empty()) {
      fail(ErrorKind::usage, "nothing to follow: the partitions that were given cannot hold that key");
    }
    for (const LogPlace& end : ends) {
      places.emplace(log_key(topic.name, end.partition), end);
    }
  }

  std::vector<SeenEvent> next(Milliseconds wait) {
    const auto now = std::chrono::steady_clock::now();
    if (now >= look_around_at) {
      look_around();
      look_around_at = now + look_around_every;
    }
    std::vector<SeenEvent> out;
    const redis::Replies replies = session.call(read_request(wait));
    for (std::size_t i = 0; i < replies[0].size(); ++i) {
      const redis::Reply stream = replies[0][i];
      take(places.at(std::string(stream[0].text())), stream[1], out);
    }
    std::sort(out.begin(), out.end());
    return out;
  }

  redis::Request read_request(Milliseconds wait) const {
    std::vector<std::string> words{"XREAD",
                                   "COUNT",
                                   std::to_string(std::max<std::size_t>(1, 64 / places.size())),
                                   "BLOCK",
                                   std::to_string(std::max<std::int64_t>(1, wait.count())),
                                   "STREAMS"};
    for (const auto& [key, at] : places) {
      words.push_back(key);
    }
    for (const auto& [key, at] : places) {
      words.push_back(at.entry.text());
    }
    const std::vector<std::string_view> views(words.begin(), words.end());
    redis::Request request;
    request.add(views).may_block(wait);
    return request;
  }

  void take(LogPlace& at, redis::Reply entries, std::vector<SeenEvent>& out) {
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const Entry entry = parse_entry(entries[i], topic.name, at.partition);
      if (entry.first != at.next) {
        fail(ErrorKind::loss,
             "{}: offset {} comes where {} is expected: events were removed, or the log was replaced",
             place(topic.name, at.partition), entry.first, at.next);
      }
      at.entry = entry.id;
      at.next = entry.next();
      if (entry.barrier || !filter.wants(at.partition, entry.generation)) {
        continue;
      }
      decode_entry(decoder, entry, topic.name, at.partition, lines);
      for_matching_backwards(filter, entry, lines, [&](Offset offset, std::string_view line) {
        out.push_back({at.partition, entry.generation, entry.id, offset, std::string(line)});
        return true;
      });
    }
  }

  // A blocked XREAD does not tell that its log was deleted, or that a resize added partitions.
  void look_around() {
    if (auto found = find_topic(session, topic.name); !found || found->log_id != topic.log_id) {
      fail(ErrorKind::loss, "topic {} was dropped while it was followed", topic.name);
    } else if (found->active != topic.active) {
      topic = std::move(*found);
      filter = EventFilter(topic, filter_options);
      for (const Partition partition : filter.partitions(topic, chosen)) {
        places.try_emplace(log_key(topic.name, partition), LogPlace{partition, EntryId{}, Offset(0)});
      }
    }
    redis::Request request;
    for (const auto& [key, at] : places) {
      request.command("EXISTS", key);
      request.command("HMGET", meta_key(topic.name, at.partition), "id", "next");
    }
    const redis::Replies replies = session.call(std::move(request));
    std::size_t i = 0;
    for (const auto& [key, at] : places) {
      const bool exists = replies[i].integer() == 1;
      const redis::Reply meta = replies[i + 1];
      i += 2;
      if (!exists || meta[0].is_nil() || meta[0].text() != topic.log_id ||
          Offset(meta[1].number()) < at.next) {
        fail(ErrorKind::loss, "{}: its log is gone or was replaced while it was followed, after offset {}",
             place(topic.name, at.partition), at.next);
      }
    }
  }

  redis::Session& session;
  Topic topic;
  std::vector<Partition> chosen;
  EventFilter::Options filter_options;
  EventFilter filter;
  FrameDecoder decoder;
  std::map<std::string, LogPlace> places;  // by log key
  std::chrono::steady_clock::time_point look_around_at{};
  std::string lines;
};

Follower::Follower(redis::Session& session, Topic topic, std::vector<Partition> chosen,
                   EventFilter::Options filter, const std::vector<LogPlace>& ends)
    : impl_(std::make_unique<Impl>(session, std::move(topic), std::move(chosen), std::move(filter), ends)) {}

Follower::~Follower() = default;

std::vector<SeenEvent> Follower::next(Milliseconds wait) {
  return impl_->next(wait);
}

}  // namespace continuum
