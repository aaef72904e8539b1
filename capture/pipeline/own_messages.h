#pragma once

#include <string_view>

#include "base/result.h"

namespace millrace {

/// Hears the transactional messages that capture sent to itself (kOwnMessagePrefix), each in its
/// place in commit order, once. Threads: that of the stream.
class OwnMessages {
 public:
  virtual ~OwnMessages() = default;
  /// True: something is to be appended here; append() is called next, when a transaction of the log
  /// was begun that has the message's own position.
  virtual Result<bool> heard(std::string_view content) = 0;
  virtual Result<void> append() = 0;
};

}  // namespace millrace
