// A text as json::Parser wants it: on the heap, with exactly the padding that it may read, so that
// AddressSanitizer sees a byte read too far; and the padding would complete texts that end too early.
#pragma once

#include "continuum/json.hpp"

#include <cstring>
#include <memory>
#include <string_view>

namespace continuum {

class Padded {
 public:
  explicit Padded(std::string_view text)
      : size_(text.size()), bytes_(std::make_unique<char[]>(text.size() + json::padding_bytes)) {
    std::memcpy(bytes_.get(), text.data(), text.size());
    std::memset(bytes_.get() + text.size(), ']', json::padding_bytes);
    bytes_[text.size()] = '"';
    bytes_[text.size() + 1] = '}';
    bytes_[text.size() + 2] = '1';
  }

  [[nodiscard]] std::string_view text() const { return {bytes_.get(), size_}; }

 private:
  std::size_t size_;
  std::unique_ptr<char[]> bytes_;
};

}  // namespace continuum
