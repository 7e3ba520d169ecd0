#include "continuum/redis_client.hpp"

#include "continuum/names.hpp"
#include "continuum/redis_server.hpp"
#include "continuum/scripts.hpp"

#include <hiredis/hiredis.h>
#include <asio/buffer.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/generic/stream_protocol.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/write.hpp>

#include <algorithm>
#include <deque>
#include <random>

namespace continuum::redis {
namespace {

using Socket = asio::generic::stream_protocol::socket;

constexpr Milliseconds backoff_min{20};
constexpr Milliseconds backoff_max{2'000};
constexpr std::size_t read_bytes = 256 << 10;
constexpr std::size_t write_buffers_max = 64;

}  // namespace

struct Client::Impl : std::enable_shared_from_this<Client::Impl> {
  // A request on its way, and who waits for it.
  struct Pending {
    Pending(const asio::any_io_executor& ex, Request r) : request(std::move(r)), done(ex) {}
    Request request;
    Replies replies;
    Signal done;
    bool finished = false;
    std::optional<Error> error;
    Clock::time_point asked = Clock::now();
  };
  using Ticket = std::shared_ptr<Pending>;

  struct ReaderFree {
    void operator()(redisReader* r) const { redisReaderFree(r); }
  };
  // One connection. Shared by the coroutines that read, write and watch it, each of which may end last.
  struct Connection {
    explicit Connection(const asio::any_io_executor& ex)
        : socket(ex), watchdog(ex), wake_writer(ex), reader(redisReaderCreate()) {
      check(reader != nullptr, "out of memory");
      // The reader otherwise frees and reallocates its buffer whenever it is idle and large.
      reader->maxbuf = 0;
    }
    Socket socket;
    asio::steady_timer watchdog;
    Signal wake_writer;
    std::unique_ptr<redisReader, ReaderFree> reader;
    Clock::time_point deadline = Clock::time_point::max();
    bool timed_out = false;
    bool dead = false;
    void kill() {
      dead = true;
      asio::error_code ignored;
      socket.close(ignored);
      watchdog.cancel();
      wake_writer.notify();
    }
  };

  Impl(asio::any_io_executor ex, Address a, ClientOptions o)
      : executor(std::move(ex)),
        address(std::move(a)),
        options(std::move(o)),
        arrived(executor),
        stood(executor) {}

  asio::any_io_executor executor;
  Address address;
  ClientOptions options;
  ServerFacts facts;
  std::deque<Ticket> queue;  // not answered yet, in order
  std::size_t sent = 0;      // how many of them are on the present connection
  std::shared_ptr<Connection> connection;
  Signal arrived;             // a request came while there was no connection
  Signal stood;               // connected, or never will be
  std::optional<Error> dead;  // no request can succeed any more
  std::uint64_t connections = 0;
  std::uint64_t client_id = 0;
  bool started = false;
  bool closed = false;
  bool noticed = false;
  std::minstd_rand jitter{std::random_device{}()};

  void start() {
    if (!started) {
      started = true;
      asio::co_spawn(executor, run(shared_from_this()), asio::detached);
    }
  }

  Ticket submit(Request request) {
    if (dead) {
      throw Error(*dead);
    }
    if (closed) {  // nobody would ever answer
      throw Error(ErrorKind::interrupted, "interrupted");
    }
    auto ticket = std::make_shared<Pending>(executor, std::move(request));
    const auto bound = ticket->request.connection();
    if (bound && (!connection || *bound != connections)) {
      finish(ticket, std::nullopt);
      return ticket;
    }
    queue.push_back(ticket);
    start();
    if (connection) {
      connection->wake_writer.notify();
    } else {
      arrived.notify();
    }
    return ticket;
  }

  static void finish(const Ticket& ticket, std::optional<Error> error) {
    ticket->finished = true;
    ticket->error = std::move(error);
    ticket->done.notify();
  }

  void fail_all(const Error& error) {
    for (const auto& ticket : std::exchange(queue, {})) {
      finish(ticket, error);
    }
    sent = 0;
  }

  void die(const Error& error) {
    dead = error;
    fail_all(error);
    stood.notify();
  }

  void say(const std::string& text) {
    if (options.notice) {
      options.notice(text);
    }
  }

  static asio::awaitable<void> run(std::shared_ptr<Impl> self) { co_await self->keep_connected(); }

  // Connects, serves, and connects again, until closed or until trying again cannot help.
  asio::awaitable<void> keep_connected() {
    Milliseconds backoff = backoff_min;
    while (!closed) {
      std::optional<Lost> lost;
      auto c = std::make_shared<Connection>(executor);
      const auto before = connections;
      try {
        co_await connect(c);
        co_await serve(c);
      } catch (const Lost& l) {
        lost = l;
      } catch (const Error& e) {
        lost = Lost{Trouble::fatal, e};
      } catch (const std::exception& e) {
        lost = Lost{Trouble::lost, Error(ErrorKind::server, fmt::format("{}: {}", address.text(), e.what()))};
      }
      c->kill();
      connection.reset();
      sent = 0;
      for (const auto& ticket : queue) {
        ticket->replies = Replies();
      }
      if (closed) {
        break;
      }
      if (lost->trouble == Trouble::fatal) {
        die(lost->error);
        co_return;
      }
      if (connections != before && lost->trouble == Trouble::lost) {
        backoff = backoff_min;
      }
      const bool waited_for = !queue.empty();
      finish_bound();
      give_up(*lost);
      if (dead) {
        co_return;
      }
      if (waited_for && !noticed) {
        noticed = true;
        say(fmt::format("{}; trying again", lost->error.message()));
      }
      if (queue.empty()) {
        co_await arrived.wait();
        continue;
      }
      std::uniform_real_distribution<double> spread(0.5, 1.0);
      asio::steady_timer pause(
          executor, Clock::now() + std::chrono::duration_cast<Clock::duration>(backoff * spread(jitter)));
      co_await pause.async_wait(as_result);
      backoff = std::min(backoff * 2, backoff_max);
    }
    fail_all(Error(ErrorKind::interrupted, "interrupted"));
    stood.notify();
  }

  // Requests that belong to the connection that was lost.
  void finish_bound() {
    std::erase_if(queue, [](const Ticket& ticket) {
      const bool bound = ticket->request.connection().has_value();
      if (bound) {
        finish(ticket, std::nullopt);
      }
      return bound;
    });
  }

  // Fails the requests whose time is over; a first connection that was refused is not tried again.
  void give_up(const Lost& lost) {
    if (connections == 0 && lost.trouble == Trouble::lost) {
      die(lost.error);
      return;
    }
    const auto now = Clock::now();
    const auto limit =
        lost.trouble == Trouble::waiting ? std::max(options.patience, options.retry_for) : options.retry_for;
    while (!queue.empty() && now - queue.front()->asked >= limit) {
      finish(queue.front(), lost.error);
      queue.pop_front();
    }
  }

  // --- connecting

  Lost lost_by(const asio::error_code& error, const std::shared_ptr<Connection>& c,
               std::string_view doing) const {
    const std::string why = c->timed_out ? fmt::format("no answer for {} ms", options.timeout.count())
                            : error == asio::error::eof ? std::string("the server closed the connection")
                                                        : error.message();
    return {Trouble::lost, Error(ErrorKind::server, fmt::format("{} {}: {}. Is redis-server running there?",
                                                                doing, address.text(), why))};
  }

  // Closes the connection when an answer is overdue. Also bounds connecting.
  static asio::awaitable<void> watch(std::shared_ptr<Connection> c) {
    while (!c->dead) {
      c->watchdog.expires_at(c->deadline);
      co_await c->watchdog.async_wait(as_result);
      if (!c->dead && Clock::now() >= c->deadline) {
        c->timed_out = true;
        asio::error_code ignored;
        c->socket.close(ignored);
        co_return;
      }
    }
  }

  static void set_deadline(Connection& c, Clock::time_point deadline) {
    // Only an earlier deadline must wake the watchdog; it looks again by itself when the old one passes.
    const bool earlier = deadline < c.watchdog.expiry();
    c.deadline = deadline;
    if (earlier) {
      c.watchdog.cancel();
    }
  }

  asio::awaitable<void> connect(std::shared_ptr<Connection> c) {
    c->deadline = Clock::now() + options.timeout;
    asio::co_spawn(executor, watch(c), asio::detached);
    if (!address.socket_path.empty()) {
      const asio::local::stream_protocol::endpoint endpoint(address.socket_path);
      const auto [error] = co_await c->socket.async_connect(endpoint, as_result);
      if (error) {
        throw lost_by(error, c, "cannot connect to");
      }
    } else {
      co_await connect_tcp(c);
    }
    co_await handshake(c);
  }

  asio::awaitable<void> connect_tcp(const std::shared_ptr<Connection>& c) {
    asio::ip::tcp::resolver resolver(executor);
    const auto [error, found] =
        co_await resolver.async_resolve(address.host, std::to_string(address.port), as_result);
    if (error) {
      throw lost_by(error, c, "cannot find the host of");
    }
    asio::error_code last = asio::error::host_not_found;
    for (const auto& entry : found) {
      asio::error_code ignored;
      c->socket.close(ignored);
      const auto [failed] = co_await c->socket.async_connect(entry.endpoint(), as_result);
      last = failed;
      if (!failed) {
        c->socket.set_option(asio::ip::tcp::no_delay(true));
        c->socket.set_option(asio::socket_base::keep_alive(true));
        co_return;
      }
    }
    throw lost_by(last, c, "cannot connect to");
  }

  // Sends `request` on a connection that serves nobody yet, and reads its answers.
  asio::awaitable<Replies> ask(const std::shared_ptr<Connection>& c, const Request& request) {
    const auto [error, n] = co_await asio::async_write(c->socket, asio::buffer(request.bytes()), as_result);
    if (error) {
      throw lost_by(error, c, "lost the connection to");
    }
    Replies replies;
    while (replies.size() < request.replies()) {
      if (redisReply* r = next_reply(*c)) {
        replies.push(r);
        continue;
      }
      co_await read_more(c);
    }
    co_return replies;
  }

  asio::awaitable<void> read_more(const std::shared_ptr<Connection>& c) {
    buffer.resize(read_bytes);
    const auto [error, n] = co_await c->socket.async_read_some(asio::buffer(buffer), as_result);
    if (error) {
      throw lost_by(error, c, "lost the connection to");
    }
    last_read = n;
    redisReaderFeed(c->reader.get(), buffer.data(), n);
  }

  redisReply* next_reply(Connection& c) const {
    void* reply = nullptr;
    if (redisReaderGetReply(c.reader.get(), &reply) != REDIS_OK) {
      // The reader has given its own buffer up by now.
      const std::string_view start(buffer.data(), std::min<std::size_t>(40, last_read));
      throw Lost{Trouble::fatal, Error(ErrorKind::usage,
                                       fmt::format("{} is not a Redis server: its answer begins with \"{}\"",
                                                   address.text(), printable(start)))};
    }
    return static_cast<redisReply*>(reply);
  }

  asio::awaitable<void> handshake(const std::shared_ptr<Connection>& c) {
    Request request;
    if (!address.password.empty()) {
      if (address.user.empty()) {
        request.command("AUTH", address.password);
      } else {
        request.command("AUTH", address.user, address.password);
      }
    }
    if (address.database != 0) {
      request.command("SELECT", address.database);
    }
    const std::size_t must = request.replies();
    for (const auto* section : {"server", "memory", "persistence", "replication"}) {
      request.command("INFO", section);
    }
    request.command("CLIENT", "ID");
    const bool writes = options.needs.access == Needs::Access::write;
    if (writes) {
      std::vector<std::string_view> exists{"SCRIPT", "EXISTS"};
      for (const auto& text : scripts::texts) {
        exists.push_back(text.sha1);
      }
      request.add(exists);
    }
    const Replies replies = co_await ask(c, request);
    for (std::size_t i = 0; i < replies.size(); ++i) {
      if (replies[i].is_error() && (i < must + 4 || writes)) {
        const auto error = replies[i].text();
        throw Lost{trouble_of(error).value_or(Trouble::fatal), refused(error, i < must)};
      }
    }
    facts = learn_facts(replies, must, address);
    require_fit(facts, options.needs, address, connections == 0 ? Meeting::first : Meeting::again);
    client_id = replies[must + 4].is_error() ? 0 : replies[must + 4].number();
    if (writes) {
      co_await load_scripts(c, replies[must + 5]);
    }
    ++connections;
  }

  [[nodiscard]] Error refused(std::string_view error, bool logging_in) const {
    if (logging_in && !trouble_of(error)) {
      return Error(ErrorKind::usage, fmt::format("{} refused the password or the database (it answered: {})",
                                                 address.text(), error.substr(0, 300)));
    }
    return explain(error, address);
  }

  asio::awaitable<void> load_scripts(const std::shared_ptr<Connection>& c, Reply exists) {
    Request load;
    for (std::size_t i = 0; i < scripts::texts.size(); ++i) {
      if (exists[i].integer() == 0) {
        load.command("SCRIPT", "LOAD", scripts::texts[i].source);
      }
    }
    if (load.empty()) {
      co_return;
    }
    const Replies loaded = co_await ask(c, load);
    for (std::size_t i = 0; i < loaded.size(); ++i) {
      if (loaded[i].is_error()) {
        throw Lost{trouble_of(loaded[i].text()).value_or(Trouble::fatal), explain(loaded[i].text(), address)};
      }
    }
  }

  // --- serving

  asio::awaitable<void> serve(std::shared_ptr<Connection> c) {
    connection = c;
    sent = 0;
    if (std::exchange(noticed, false)) {
      say(fmt::format("connected to {} again", address.text()));
    }
    stood.notify();
    set_deadline(*c, Clock::time_point::max());
    asio::co_spawn(executor, write_queue(shared_from_this(), c), asio::detached);
    for (;;) {
      while (redisReply* r = next_reply(*c)) {
        take(r);
      }
      update_deadline(*c);
      co_await read_more(c);
    }
  }

  void update_deadline(Connection& c) const {
    set_deadline(c, sent == 0 ? Clock::time_point::max()
                              : Clock::now() + options.timeout + queue.front()->request.block());
  }

  void take(redisReply* raw) {
    Replies holder;
    if (sent == 0) {
      holder.push(raw);
      throw Lost{Trouble::fatal,
                 Error(ErrorKind::server, fmt::format("{} answered what nobody asked", address.text()))};
    }
    const auto ticket = queue.front();
    ticket->replies.push(raw);
    const Reply reply = ticket->replies[ticket->replies.size() - 1];
    const bool kept = reply.is_error() && ticket->request.keeps_full() && is_full(reply.text());
    if (reply.is_error() && !kept) {
      if (const auto trouble = trouble_of(reply.text())) {
        throw Lost{*trouble, explain(reply.text(), address)};
      }
      if (!ticket->request.keeps_errors()) {
        ticket->error = explain(reply.text(), address);
      }
    }
    if (ticket->replies.size() == ticket->request.replies()) {
      queue.pop_front();
      --sent;
      finish(ticket, std::move(ticket->error));
    }
  }

  static asio::awaitable<void> write_queue(std::shared_ptr<Impl> self, std::shared_ptr<Connection> c) {
    std::vector<Ticket> batch;
    std::vector<asio::const_buffer> buffers;
    while (!c->dead) {
      batch.clear();
      buffers.clear();
      const bool idle = self->sent == 0;
      while (self->sent < self->queue.size() && batch.size() < write_buffers_max) {
        batch.push_back(self->queue[self->sent++]);
        buffers.push_back(asio::buffer(batch.back()->request.bytes()));
      }
      if (batch.empty()) {
        co_await c->wake_writer.wait();
        continue;
      }
      if (idle) {
        self->update_deadline(*c);
      }
      const auto [error, n] = co_await asio::async_write(c->socket, buffers, as_result);
      if (error) {
        // The reader sees the same end and tells why.
        asio::error_code ignored;
        c->socket.shutdown(Socket::shutdown_both, ignored);
        co_return;
      }
    }
  }

  std::vector<char> buffer;
  std::size_t last_read = 0;
};

Client::Client(asio::any_io_executor executor, Address address, ClientOptions options)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(address), std::move(options))) {}

Client::~Client() {
  close();
}

asio::awaitable<void> Client::ready() {
  const auto impl = impl_;
  impl->start();
  while (impl->connections == 0) {
    if (impl->dead) {
      throw Error(*impl->dead);
    }
    if (impl->closed) {
      throw Error(ErrorKind::interrupted, "interrupted");
    }
    co_await impl->stood.wait();
  }
}

namespace {
template <class Ticket>
asio::awaitable<Replies> wait_for(Ticket ticket) {
  while (!ticket->finished) {
    co_await ticket->done.wait();
  }
  if (ticket->error) {
    throw Error(*ticket->error);
  }
  co_return std::move(ticket->replies);
}
}  // namespace

asio::awaitable<Replies> Client::call(Request request) {
  return wait_for(impl_->submit(std::move(request)));
}

void Client::close() {
  impl_->closed = true;
  if (impl_->connection) {
    impl_->connection->kill();
  }
  impl_->arrived.notify();
}

const ServerFacts& Client::facts() const {
  return impl_->facts;
}
const Address& Client::address() const {
  return impl_->address;
}
Milliseconds Client::retry_for() const {
  return impl_->options.retry_for;
}
std::uint64_t Client::connections() const {
  return impl_->connections;
}
std::uint64_t Client::client_id() const {
  return impl_->client_id;
}

}  // namespace continuum::redis
