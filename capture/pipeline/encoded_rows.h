#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "capture/pipeline/change_encoder.h"

namespace millrace {

/// Rows of one table as ChangeEncoder::read() made events of them, one behind the other in one
/// buffer: keys and payloads, in the order in which they came. Rows are encoded where there is time
/// for it, and appended where the log is at hand. Threads: one at a time.
class EncodedRows final : public EventOut {
 public:
  EncodedRows() = default;
  /// With room for so many bytes: growing by doubling, a buffer takes up to twice what is in it.
  explicit EncodedRows(std::size_t room) { bytes_.reserve(room); }

  Result<void> begin(const TransactionInfo&) override { return {}; }
  Result<void> add(const NewEvent& event) override;
  Result<void> commit(std::uint64_t) override { return {}; }
  Result<void> rollback() override { return {}; }

  std::uint64_t count() const { return count_; }
  std::size_t bytes() const { return bytes_.size(); }

  /// `visit(key, payload)` for each row until one gives an error. Views into this object.
  template <typename Visit>
  Result<void> for_each(Visit&& visit) const {
    for (std::string_view rest = bytes_; !rest.empty();) {
      const std::string_view key = take(rest), payload = take(rest);
      MILLRACE_RETURN_IF_ERROR(visit(key, payload));
    }
    return {};
  }

 private:
  static std::string_view take(std::string_view& rest);

  std::string bytes_;
  std::uint64_t count_ = 0;
};

}  // namespace millrace
