#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "capture/pgoutput/binary_value.h"
#include "schemas/table_schema.h"

/// The short way from a value to its field of a row message, for the types and shapes that most
/// values have: millions of rows a second leave no room for more. Whatever it does not take, it
/// leaves to append_text_value and append_binary_value, which alone know all and say what is wrong;
/// what it takes, it writes as they do.
namespace millrace::pgoutput {

/// A row message that is being written, with room for a whole row made at once. Threads: one.
class RowBuffer {
 public:
  void clear() { size_ = 0; }
  /// Where to write up to `bytes`; end_at() then tells how far it went.
  char* room(std::size_t bytes) {
    if (capacity_ - size_ < bytes) [[unlikely]]
      grow(bytes);
    return bytes_.get() + size_;
  }
  void end_at(const char* end) { size_ = static_cast<std::size_t>(end - bytes_.get()); }
  void append(std::string_view bytes) {
    end_at(std::copy(bytes.begin(), bytes.end(), room(bytes.size())));
  }
  std::string_view view() const { return {bytes_.get(), size_}; }
  /// Empties it; room beyond `bytes_max` is given back.
  void give_back(std::size_t bytes_max);

 private:
  void grow(std::size_t bytes);

  std::unique_ptr<char[]> bytes_;
  std::size_t size_ = 0, capacity_ = 0;
};

/// What there is to know of a column for its values to be written.
struct ColumnPlan {
  ColumnPlan(const ColumnSchema& column, BinaryType binary);

  ValueKind kind;
  BinaryType binary;
  bool array = false;
  std::uint8_t tag_size = 0;
  char tag[5] = {};
};

/// So much longer than the value itself a field can be that these write.
inline constexpr std::size_t kFieldExtraBytes = 48;

/// Both write the field to `to`, where there must be room for `value` and kFieldExtraBytes, and
/// give its end; nullptr if they leave it to append_text_value or append_binary_value.
char* write_text_value(const ColumnPlan& column, std::string_view value, char* to);
char* write_binary_value(const ColumnPlan& column, std::string_view value, char* to);

/// PostgreSQL's text of a value that is sent in binary, for integers and whatever is text anyway;
/// nothing for the rest. `room` holds a number's digits.
inline constexpr std::size_t kIntegerTextBytes = 20;
std::optional<std::string_view> text_of_binary(const ColumnPlan& column, std::string_view value,
                                               std::span<char, kIntegerTextBytes> room);

}  // namespace millrace::pgoutput
