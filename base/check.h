#pragma once

namespace millrace {

/// Prints the broken fact and aborts. A store that was being written recovers on its next open.
[[noreturn]] void check_failed(const char* fact, const char* file, int line);

}  // namespace millrace

/// A fact that only a bug of our own can break; stays on in release builds. Bad input is a Result.
#define MILLRACE_CHECK(fact) \
  ((fact) ? static_cast<void>(0) : ::millrace::check_failed(#fact, __FILE__, __LINE__))
