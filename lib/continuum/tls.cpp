#include "continuum/tls.hpp"

#include "continuum/error.hpp"

#include <dlfcn.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <algorithm>
#include <limits>

namespace continuum {
namespace {

// What we call of libssl and, through it, of libcrypto.
struct OpenSsl {
  void* library;
  template <class Function>
  Function* find(const char* name) const {
    // A name that is not there leaves a null pointer, which loaded() looks for.
    return reinterpret_cast<Function*>(::dlsym(library, name));
  }
#define CONTINUUM_OPENSSL(name) decltype(::name)* name = find<decltype(::name)>(#name)
  CONTINUUM_OPENSSL(TLS_client_method);
  CONTINUUM_OPENSSL(SSL_CTX_new);
  CONTINUUM_OPENSSL(SSL_CTX_ctrl);
  CONTINUUM_OPENSSL(SSL_CTX_set_verify);
  CONTINUUM_OPENSSL(SSL_CTX_set_default_verify_paths);
  CONTINUUM_OPENSSL(SSL_new);
  CONTINUUM_OPENSSL(SSL_free);
  CONTINUUM_OPENSSL(SSL_ctrl);
  CONTINUUM_OPENSSL(SSL_set_bio);
  CONTINUUM_OPENSSL(SSL_set1_host);
  CONTINUUM_OPENSSL(SSL_get0_param);
  CONTINUUM_OPENSSL(SSL_set_connect_state);
  CONTINUUM_OPENSSL(SSL_do_handshake);
  CONTINUUM_OPENSSL(SSL_read);
  CONTINUUM_OPENSSL(SSL_write);
  CONTINUUM_OPENSSL(SSL_get_error);
  CONTINUUM_OPENSSL(SSL_get_verify_result);
  CONTINUUM_OPENSSL(X509_VERIFY_PARAM_set1_ip_asc);
  CONTINUUM_OPENSSL(X509_verify_cert_error_string);
  CONTINUUM_OPENSSL(BIO_s_mem);
  CONTINUUM_OPENSSL(BIO_new);
  CONTINUUM_OPENSSL(BIO_read);
  CONTINUUM_OPENSSL(BIO_write);
  CONTINUUM_OPENSSL(BIO_ctrl_pending);
  CONTINUUM_OPENSSL(ERR_get_error);
  CONTINUUM_OPENSSL(ERR_clear_error);
  CONTINUUM_OPENSSL(ERR_reason_error_string);
#undef CONTINUUM_OPENSSL
  SSL_CTX* context = nullptr;

  explicit OpenSsl(void* handle) : library(handle) {}
  [[nodiscard]] bool loaded() const {
    return TLS_client_method && SSL_CTX_new && SSL_CTX_ctrl && SSL_CTX_set_verify &&
           SSL_CTX_set_default_verify_paths && SSL_new && SSL_free && SSL_ctrl && SSL_set_bio &&
           SSL_set1_host && SSL_get0_param && SSL_set_connect_state && SSL_do_handshake && SSL_read &&
           SSL_write && SSL_get_error && SSL_get_verify_result && X509_VERIFY_PARAM_set1_ip_asc &&
           X509_verify_cert_error_string && BIO_s_mem && BIO_new && BIO_read && BIO_write &&
           BIO_ctrl_pending && ERR_get_error && ERR_clear_error && ERR_reason_error_string;
  }
};

// Stays for the life of the process: sessions need it, and unloading OpenSSL is not supported.
const OpenSsl& open_ssl() {
  static const OpenSsl* const library = [] {
    void* const handle = ::dlopen("libssl.so.3", RTLD_NOW | RTLD_LOCAL);
    auto* const found = handle == nullptr ? nullptr : new OpenSsl(handle);
    if (found == nullptr || !found->loaded()) {
      fail(ErrorKind::usage,
           "https needs OpenSSL 3, which is not on this machine: install the package libssl3");
    }
    found->context = found->SSL_CTX_new(found->TLS_client_method());
    if (found->context == nullptr ||
        found->SSL_CTX_ctrl(found->context, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, nullptr) != 1) {
      fail(ErrorKind::usage, "https does not work: OpenSSL cannot be set up for TLS 1.2 and later");
    }
    found->SSL_CTX_set_verify(found->context, SSL_VERIFY_PEER, nullptr);
    // Without any file of trusted certificates no peer is trusted, and the handshake says so.
    found->SSL_CTX_set_default_verify_paths(found->context);
    return found;
  }();
  return *library;
}

SSL* ssl_of(void* session) {
  return static_cast<SSL*>(session);
}

}  // namespace

void require_tls() {
  static_cast<void>(open_ssl());
}

void TlsSession::Free::operator()(void* session) const {
  open_ssl().SSL_free(ssl_of(session));
}

TlsSession::TlsSession(const std::string& host) {
  const OpenSsl& lib = open_ssl();
  session_.reset(lib.SSL_new(lib.context));
  SSL* const ssl = ssl_of(session_.get());
  BIO* const in = lib.BIO_new(lib.BIO_s_mem());
  BIO* const out = lib.BIO_new(lib.BIO_s_mem());
  check(ssl != nullptr && in != nullptr && out != nullptr, "OpenSSL has memory for a session");
  lib.SSL_set_bio(ssl, in, out);
  input_ = in;
  output_ = out;
  // Against the addresses of the certificate when it is an address, else against its names.
  const bool is_address = lib.X509_VERIFY_PARAM_set1_ip_asc(lib.SSL_get0_param(ssl), host.c_str()) == 1;
  if (!is_address) {
    std::string name = host;
    const bool set =
        lib.SSL_set1_host(ssl, name.c_str()) == 1 &&
        lib.SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name.data()) == 1;
    // Otherwise any certificate would do.
    check(set, "OpenSSL knows which name to verify");
  }
  lib.SSL_set_connect_state(ssl);
}

TlsSession::~TlsSession() = default;

TlsSession::Step TlsSession::handshake() {
  open_ssl().ERR_clear_error();
  return step_of(open_ssl().SSL_do_handshake(ssl_of(session_.get())));
}

TlsSession::Step TlsSession::write(std::string_view bytes) {
  check(!bytes.empty() && bytes.size() <= std::numeric_limits<int>::max(), "OpenSSL takes sizes as int");
  open_ssl().ERR_clear_error();
  // Into memory: there is always room.
  return step_of(open_ssl().SSL_write(ssl_of(session_.get()), bytes.data(), static_cast<int>(bytes.size())));
}

TlsSession::Step TlsSession::read(std::span<char> buffer, std::size_t& size) {
  open_ssl().ERR_clear_error();
  const auto most = std::min<std::size_t>(buffer.size(), std::numeric_limits<int>::max());
  const int n = open_ssl().SSL_read(ssl_of(session_.get()), buffer.data(), static_cast<int>(most));
  size = n > 0 ? static_cast<std::size_t>(n) : 0;
  return step_of(n);
}

TlsSession::Step TlsSession::step_of(int result) {
  if (result > 0) {
    return Step::done;
  }
  const OpenSsl& lib = open_ssl();
  SSL* const ssl = ssl_of(session_.get());
  switch (lib.SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
      return Step::wants_input;
    case SSL_ERROR_ZERO_RETURN:
      return Step::ended;
    default:
      break;
  }
  if (const long verdict = lib.SSL_get_verify_result(ssl); verdict != X509_V_OK) {
    problem_ = fmt::format("its certificate is not accepted: {}", lib.X509_verify_cert_error_string(verdict));
  } else {
    const char* const reason = lib.ERR_reason_error_string(lib.ERR_get_error());
    problem_ = fmt::format("TLS failed: {}", reason == nullptr ? "unknown reason" : reason);
  }
  return Step::failed;
}

void TlsSession::give(std::string_view bytes) {
  const int n = open_ssl().BIO_write(static_cast<BIO*>(input_), bytes.data(), static_cast<int>(bytes.size()));
  check(n == static_cast<int>(bytes.size()), "OpenSSL has memory for what arrived");
}

std::string TlsSession::take_output() {
  const OpenSsl& lib = open_ssl();
  auto* const out = static_cast<BIO*>(output_);
  std::string bytes(lib.BIO_ctrl_pending(out), '\0');
  if (!bytes.empty()) {
    const int n = lib.BIO_read(out, bytes.data(), static_cast<int>(bytes.size()));
    bytes.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  }
  return bytes;
}

}  // namespace continuum
