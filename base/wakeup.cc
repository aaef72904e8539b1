#include "base/wakeup.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

#include "base/check.h"

namespace millrace {

Wakeup::Wakeup() : descriptor_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  MILLRACE_CHECK(descriptor_ >= 0);
}

Wakeup::~Wakeup() { ::close(descriptor_); }

void Wakeup::notify() noexcept {
  const std::uint64_t one = 1;
  // EAGAIN means that the counter is at its end, which is as notified as can be.
  [[maybe_unused]] const auto count = ::write(descriptor_, &one, sizeof one);
}

void Wakeup::clear() noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto size = ::read(descriptor_, &count, sizeof count);
}

}  // namespace millrace
