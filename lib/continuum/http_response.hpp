// One HTTP/1.1 response as it arrives: RFC 9112, as much of it as the client of a webhook needs. Pure: no
// I/O.
#pragma once

#include "continuum/types.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace continuum {

// Bytes may come in any pieces. Memory is bounded whatever comes: a head of more than head_bytes_max is
// broken, of a body only its first excerpt_bytes_max are kept, and after body_bytes_max it counts as over.
class HttpResponse {
 public:
  static constexpr std::size_t head_bytes_max = 16 << 10;
  static constexpr std::size_t body_bytes_max = 64 << 10;
  static constexpr std::size_t excerpt_bytes_max = 300;

  enum class State : std::uint8_t {
    head,      // the status is not known yet
    body,      // status and headers are
    complete,  // nothing more belongs to it
    broken,    // this is no HTTP
  };

  void take(std::string_view bytes);
  void end();  // of the connection

  [[nodiscard]] State state() const;
  [[nodiscard]] bool begun() const { return begun_; }             // anything has come at all
  [[nodiscard]] bool has_status() const { return has_status_; }   // and all headers, whatever follows
  [[nodiscard]] int status() const { return status_; }            // 200 to 999, then
  [[nodiscard]] bool keeps_alive() const { return keep_alive_; }  // the connection can be used again
  [[nodiscard]] const std::string& retry_after() const { return retry_after_; }
  [[nodiscard]] const std::string& location() const { return location_; }
  [[nodiscard]] const std::string& excerpt() const { return excerpt_; }  // of the body; any bytes
  [[nodiscard]] const std::string& problem() const { return problem_; }  // when it is broken

 private:
  enum class Part : std::uint8_t {
    status_line,
    headers,
    body,        // of body_left_ bytes
    body_rest,   // up to the end of the connection
    chunk_size,  // a line
    chunk,       // of body_left_ bytes
    chunk_end,   // an empty line
    trailers,
    complete,
    broken,
  };
  void take_line(std::string_view line);
  void take_status(std::string_view line);
  void take_header(std::string_view line);
  void take_length(std::string_view value);
  void take_chunk_size(std::string_view line);
  void end_head();
  void take_body(std::string_view& bytes);
  void complete();
  void fail_with(std::string why);

  Part part_ = Part::status_line;
  bool begun_ = false;
  bool has_status_ = false;
  int status_ = 0;
  int minor_version_ = 1;
  bool keep_alive_ = true;
  bool chunked_ = false;
  bool unknown_coding_ = false;
  std::optional<std::uint64_t> length_;
  std::uint64_t body_left_ = 0;
  std::size_t head_bytes_ = 0;  // lines outside of the body, all together
  std::size_t body_bytes_ = 0;
  std::string line_;
  std::string retry_after_;
  std::string location_;
  std::string excerpt_;
  std::string problem_;
};

// A Retry-After header's value (RFC 9110, 10.2.3): seconds, or an IMF-fixdate in GMT, which becomes the time
// from `now`, 0 when it has passed. At most a day. nullopt when it is neither.
[[nodiscard]] std::optional<Milliseconds> parse_retry_after(std::string_view value, SystemTime now);

}  // namespace continuum
