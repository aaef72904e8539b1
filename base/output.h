#pragma once

#include <string>

#include "base/result.h"

namespace millrace {

/// Standard output in large blocks: append to text(), then call end_of_line() after each line and
/// flush() at the end and before waiting.
///
/// Errors of both calls: kCancelled when nobody reads any more (`| head`), kNoSpace, kIo.
class Output {
 public:
  std::string& text() { return text_; }
  /// Writes once enough has gathered.
  Result<void> end_of_line() {
    text_ += '\n';
    return text_.size() < kBlockBytes ? Result<void>() : flush();
  }
  Result<void> flush();
  /// kCancelled once nobody reads any more; for those who wait with nothing to write.
  Result<void> check_reader() const;

 private:
  static constexpr std::size_t kBlockBytes = 64 << 10;
  std::string text_;
};

}  // namespace millrace
