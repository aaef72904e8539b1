#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace millrace {

void check_failed(const char* fact, const char* file, int line) {
  std::fprintf(stderr, "millrace: internal error: %s does not hold (%s:%d)\n", fact, file, line);
  std::abort();
}

}  // namespace millrace
