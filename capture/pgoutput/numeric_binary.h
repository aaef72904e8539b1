#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace millrace::pgoutput {

/// What numeric_send wrote, and its text: every digit and the same scale as PostgreSQL's own
/// output.
class BinaryNumeric {
 public:
  /// False where `bytes`, which must live as long as this, are none.
  bool read(std::string_view bytes);
  std::size_t size() const { return size_; }  ///< Of the text; 147,457 at most.
  /// Writes the text, gives its end.
  char* write(char* to) const;

 private:
  unsigned group(std::int32_t i) const;
  void measure();

  std::string_view groups_;  // as on the wire
  std::string_view word_;    // "NaN", "Infinity" or "-Infinity" instead of digits
  std::int32_t weight_ = 0;
  std::uint16_t scale_ = 0;
  bool negative_ = false;
  std::size_t size_ = 0;
};

}  // namespace millrace::pgoutput
