// The client's side of TLS as bytes in and bytes out: whoever has the socket carries them. Pure: no I/O.
//
// OpenSSL 3 is loaded when the first session is made, because linking it would add a millisecond to the start
// of every command.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace continuum {

// Loads OpenSSL and the certificates that this machine trusts (SSL_CERT_FILE and SSL_CERT_DIR as OpenSSL
// knows them). Throws Error{usage} when there is no OpenSSL 3.
void require_tls();

// TLS 1.2 or later. The peer must have a certificate for `host`, a name or a numeric address, from somebody
// whom this machine trusts.
class TlsSession {
 public:
  explicit TlsSession(const std::string& host);  // Throws Error{usage} as require_tls()
  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  enum class Step : std::uint8_t {
    done,
    wants_input,  // give() more, then again
    ended,        // the peer said goodbye
    failed,       // see problem()
  };
  // After each of these, send what take_output() has.
  [[nodiscard]] Step handshake();
  [[nodiscard]] Step write(std::string_view bytes);                    // all or nothing, after the handshake
  [[nodiscard]] Step read(std::span<char> buffer, std::size_t& size);  // done: at least one byte

  void give(std::string_view bytes);  // from the peer
  [[nodiscard]] std::string take_output();
  [[nodiscard]] const std::string& problem() const { return problem_; }

 private:
  struct Free {
    void operator()(void* session) const;
  };
  Step step_of(int result);

  std::unique_ptr<void, Free> session_;
  void* input_ = nullptr;   // owned by the session
  void* output_ = nullptr;  // likewise
  std::string problem_;
};

}  // namespace continuum
