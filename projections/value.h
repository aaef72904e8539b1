#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace millrace::projections {

/// A value on its way into a view: null, a number, text, bytes, or "unchanged".
///
/// Unchanged is what PostgreSQL says of a large column that an UPDATE did not touch: its value was
/// not sent. A writer leaves such a column of the view as it is. Made implicitly from plain C++
/// values; text and bytes are views, which need to live until the call that takes the Value
/// returns.
class Value {
 public:
  enum class Kind : std::uint8_t { kNull, kInteger, kReal, kText, kBlob, kUnchanged };

  constexpr Value() = default;
  constexpr Value(std::nullptr_t) {}  // NOLINT: implicit on purpose, as all below
  constexpr Value(std::nullopt_t) {}  // NOLINT
  template <std::integral T>
  requires(std::signed_integral<T> || sizeof(T) < sizeof(std::int64_t)) constexpr Value(T value)
      : kind_(Kind::kInteger), integer_(value) {}  // NOLINT
  template <std::floating_point T>
  constexpr Value(T value) : kind_(Kind::kReal), real_(value) {}  // NOLINT
  constexpr Value(std::string_view text)
      : kind_(Kind::kText), size_(text.size()), data_(text.data()) {}   // NOLINT
  constexpr Value(const char* text) : Value(std::string_view(text)) {}  // NOLINT
  Value(const std::string& text) : Value(std::string_view(text)) {}     // NOLINT
  template <typename T>
  requires std::constructible_from<Value, const T&>
  constexpr Value(const std::optional<T>& value)  // NOLINT
      : Value(value ? Value(*value) : Value()) {}

  static constexpr Value blob(std::string_view bytes) {
    Value value(bytes);
    value.kind_ = Kind::kBlob;
    return value;
  }
  static constexpr Value unchanged() {
    Value value;
    value.kind_ = Kind::kUnchanged;
    return value;
  }

  constexpr Kind kind() const { return kind_; }
  constexpr bool is_null() const { return kind_ == Kind::kNull; }
  constexpr bool is_unchanged() const { return kind_ == Kind::kUnchanged; }

  /// The number, 0 if it is none; a text is not converted. Of a real without what is behind the
  /// point, the least or the greatest integer where it is beyond those.
  constexpr std::int64_t integer() const {
    if (kind_ == Kind::kInteger) return integer_;
    if (kind_ != Kind::kReal || real_ != real_) return 0;
    if (real_ >= 0x1p63) return INT64_MAX;
    return real_ < -0x1p63 ? INT64_MIN : static_cast<std::int64_t>(real_);
  }
  constexpr double real() const {
    return kind_ == Kind::kReal      ? real_
           : kind_ == Kind::kInteger ? static_cast<double>(integer_)
                                     : 0;
  }
  /// Of text and bytes; else empty.
  constexpr std::string_view text() const {
    return kind_ == Kind::kText || kind_ == Kind::kBlob ? std::string_view(data_, size_)
                                                        : std::string_view();
  }

 private:
  Kind kind_ = Kind::kNull;
  std::size_t size_ = 0;
  union {
    std::int64_t integer_ = 0;
    double real_;
    const char* data_;
  };
};

/// "set this column to that".
struct Assignment {
  std::string_view column;
  Value value;
};

/// Several of them, as they are written, {{"name", name}, {"price", price}}, or in a std::vector. A
/// view of them.
class AssignmentList {
 public:
  AssignmentList(std::initializer_list<Assignment> list)
      : list_(list.begin(), list.size()) {}  // NOLINT: implicit on purpose
  AssignmentList(const std::vector<Assignment>& list) : list_(list) {}  // NOLINT
  auto begin() const { return list_.begin(); }
  auto end() const { return list_.end(); }

 private:
  std::span<const Assignment> list_;
};

}  // namespace millrace::projections
