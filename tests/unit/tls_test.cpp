// Webhooks over TLS: a server with a certificate of a kind, and whether it is believed.
#include "continuum/http_client.hpp"

#include <doctest/doctest.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <asio/io_context.hpp>

#include "support/http_server.hpp"
#include "support/process.hpp"

#include <array>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using namespace continuum;
using Outcome = HttpAnswer::Outcome;

namespace {

struct Freed {
  void operator()(EVP_PKEY* key) const { ::EVP_PKEY_free(key); }
  void operator()(X509* certificate) const { ::X509_free(certificate); }
  void operator()(SSL_CTX* context) const { ::SSL_CTX_free(context); }
  void operator()(SSL* session) const { ::SSL_free(session); }
};

// Not REQUIRE: also called before main.
void need(bool holds) {
  if (!holds) {
    throw std::runtime_error("OpenSSL cannot make a certificate");
  }
}

struct Identity {
  std::unique_ptr<EVP_PKEY, Freed> key{EVP_EC_gen("P-256")};
  std::unique_ptr<X509, Freed> certificate{::X509_new()};
};

// `names` as in subjectAltName. Without an issuer: signs itself, as an authority does.
Identity make_identity(const std::string& names, const Identity* issuer, long valid_seconds = 3600) {
  Identity identity;
  X509* const c = identity.certificate.get();
  ::X509_set_version(c, 2);
  static long serial = 0;
  ::ASN1_INTEGER_set(::X509_get_serialNumber(c), ++serial);
  ::X509_gmtime_adj(::X509_getm_notBefore(c), -7200);
  ::X509_gmtime_adj(::X509_getm_notAfter(c), valid_seconds);
  ::X509_set_pubkey(c, identity.key.get());
  const std::string common = "test " + std::to_string(serial);
  ::X509_NAME_add_entry_by_txt(::X509_get_subject_name(c), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(common.c_str()), -1, -1, 0);
  ::X509_set_issuer_name(c, ::X509_get_subject_name(issuer != nullptr ? issuer->certificate.get() : c));
  const auto extend = [&](int what, const std::string& value) {
    X509_EXTENSION* const extension = ::X509V3_EXT_conf_nid(nullptr, nullptr, what, value.c_str());
    need(extension != nullptr);
    ::X509_add_ext(c, extension, -1);
    ::X509_EXTENSION_free(extension);
  };
  extend(NID_basic_constraints, issuer == nullptr ? "critical,CA:TRUE" : "CA:FALSE");
  if (!names.empty()) {
    extend(NID_subject_alt_name, names);
  }
  need(::X509_sign(c, issuer != nullptr ? issuer->key.get() : identity.key.get(), ::EVP_sha256()) > 0);
  return identity;
}

// The authority that this machine trusts as long as these tests run.
const Identity& authority() {
  static const test::TemporaryDirectory directory;
  static const Identity identity = [] {
    Identity made = make_identity("", nullptr);
    const std::string path = directory.file("trusted.pem");
    FILE* const file = std::fopen(path.c_str(), "w");
    ::PEM_write_X509(file, made.certificate.get());
    std::fclose(file);
    ::setenv("SSL_CERT_FILE", path.c_str(), 1);
    ::setenv("SSL_CERT_DIR", directory.file("none").c_str(), 1);
    return made;
  }();
  return identity;
}

// Before main: OpenSSL reads it once, with the first URL that is https in whatever test.
[[maybe_unused]] const Identity& trusted_from_the_start = authority();

// Answers every request on every connection with 200, one connection after the other.
class TlsServer {
 public:
  explicit TlsServer(const Identity& identity, int version_max = TLS1_3_VERSION)
      : context_(::SSL_CTX_new(::TLS_server_method())),
        listener_(test::HttpServer::listen_on_loopback(port_)) {
    ::SSL_CTX_use_certificate(context_.get(), identity.certificate.get());
    ::SSL_CTX_use_PrivateKey(context_.get(), identity.key.get());
    ::SSL_CTX_set_max_proto_version(context_.get(), version_max);
    ::SSL_CTX_set_security_level(context_.get(), 0);
    serving_ = std::thread([this] { serve(); });
  }
  ~TlsServer() {
    ::shutdown(listener_, SHUT_RDWR);
    serving_.join();
    ::close(listener_);
  }
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;

  [[nodiscard]] std::string url(const std::string& host) const {
    return "https://" + host + ":" + std::to_string(port_) + "/hook";
  }
  [[nodiscard]] int connections() const { return connections_; }
  [[nodiscard]] std::string asked_for() const { return asked_for_; }

 private:
  void serve() {
    for (;;) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) {
        return;
      }
      const std::unique_ptr<SSL, Freed> session(::SSL_new(context_.get()));
      ::SSL_set_fd(session.get(), fd);
      if (::SSL_accept(session.get()) == 1) {
        ++connections_;
        const char* const name = ::SSL_get_servername(session.get(), TLSEXT_NAMETYPE_host_name);
        asked_for_ = name == nullptr ? "" : name;
        while (answer(session.get())) {
        }
      }
      ::close(fd);
    }
  }
  static bool answer(SSL* session) {
    std::string text;
    std::array<char, 4096> buffer{};
    // The tests' events end with a '!'.
    while (!text.ends_with('!')) {
      const int n = ::SSL_read(session, buffer.data(), static_cast<int>(buffer.size()));
      if (n <= 0) {
        return false;
      }
      text.append(buffer.data(), static_cast<std::size_t>(n));
    }
    const std::string reply = "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + std::string(20'000, 'x');
    return ::SSL_write(session, reply.data(), static_cast<int>(reply.size())) > 0;
  }

  std::unique_ptr<SSL_CTX, Freed> context_;
  std::uint16_t port_ = 0;
  int listener_;
  std::atomic<int> connections_ = 0;
  std::string asked_for_;
  std::thread serving_;
};

std::vector<HttpAnswer> post(const std::string& url, const std::vector<std::string>& events) {
  asio::io_context io;
  HttpClient client(io.get_executor(), parse_http_url(url));
  std::vector<HttpAnswer> answers;
  for (const std::string& event : events) {
    client.post({.topic = "t", .group = "g"}, event, Milliseconds(20'000),
                [&](const HttpAnswer& answer) { answers.push_back(answer); });
    for (const std::size_t before = answers.size(); answers.size() == before;) {
      REQUIRE(io.run_one_for(std::chrono::seconds(30)) == 1);
    }
  }
  return answers;
}

void check_refused(const std::string& url, const std::string& why) {
  const HttpAnswer answer = post(url, {"!"}).at(0);
  CHECK(answer.outcome == Outcome::no_connection);
  CHECK(verdict_of(answer) == Verdict::down);
  CHECK_MESSAGE(answer.why.find(why) != std::string::npos, answer.why);
}

}  // namespace

TEST_CASE("events go over TLS to a server with a certificate for its name or its address") {
  const Identity identity = make_identity("DNS:localhost,IP:127.0.0.1", &authority());
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    for (const std::string host : {"localhost", "127.0.0.1"}) {
      CAPTURE(host);
      const TlsServer server(identity, version);
      const auto answers = post(server.url(host), {"!", std::string(300'000, 'x') + "!", "!"});
      for (const HttpAnswer& answer : answers) {
        CHECK_MESSAGE(answer.outcome == Outcome::answered, answer.why);
        CHECK(answer.status == 200);
      }
      CHECK(server.connections() == 1);  // kept
      CHECK(server.asked_for() == (host == "localhost" ? "localhost" : ""));
    }
  }
}

TEST_CASE("a certificate for another name or address is not accepted") {
  const Identity other = make_identity("DNS:example.org,IP:127.0.0.2", &authority());
  const TlsServer server(other);
  check_refused(server.url("localhost"), "hostname mismatch");
  check_refused(server.url("127.0.0.1"), "IP address mismatch");
}

TEST_CASE("a certificate that nobody trusted has signed is not accepted") {
  const TlsServer server(make_identity("DNS:localhost", nullptr));
  check_refused(server.url("localhost"), "self-signed certificate");
}

TEST_CASE("a certificate that has run out is not accepted") {
  const TlsServer server(make_identity("DNS:localhost", &authority(), -60));
  check_refused(server.url("localhost"), "certificate has expired");
}

TEST_CASE("versions of TLS before 1.2 are not spoken") {
  const TlsServer server(make_identity("DNS:localhost", &authority()), TLS1_1_VERSION);
  check_refused(server.url("localhost"), "protocol version");
}

TEST_CASE("a server that speaks no TLS, or stops in the handshake, is down") {
  test::HttpServer plain([](test::HttpServer::Connection& c) { c.answer(400, "this is no TLS"); });
  check_refused("https" + plain.url().substr(4), "TLS failed");
  test::HttpServer silent([](test::HttpServer::Connection&) {});
  check_refused("https" + silent.url().substr(4), "cannot connect to 127.0.0.1");
}
