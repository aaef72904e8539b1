#pragma once

#include <string>

#include "base/output.h"
#include "base/result.h"

namespace millrace::projections {

/// Lines on standard output. That nobody reads them any more (`| head`) is no error, and changes
/// nothing of the exit code.
class Lines {
 public:
  Result<void> add(const std::string& line) {
    output_.text() += line;
    return read_or_not(output_.end_of_line());
  }
  Result<void> flush() { return read_or_not(output_.flush()); }

 private:
  static Result<void> read_or_not(Result<void> written) {
    if (!written && written.error().code() == ErrorCode::kCancelled) return {};
    return written;
  }
  Output output_;
};

}  // namespace millrace::projections
