#include "continuum/error.hpp"

#include <cstdio>
#include <cstdlib>

namespace continuum::detail {

void check_failed(const char* what, const std::source_location& where) noexcept {
  std::fprintf(stderr, "continuum: internal error: %s (%s:%u). Please report this.\n", what,
               where.file_name(), where.line());
  std::abort();
}

}  // namespace continuum::detail
