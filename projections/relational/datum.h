#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "projections/decimal.h"
#include "projections/value.h"

namespace millrace::projections {

/// A value that is its own: null, an integer, a real, an exact decimal, text or bytes. What a Value
/// is on its way, a Datum is at rest: in a Record, a group's key, a minimum. Threads: as a
/// std::string.
class Datum {
 public:
  Datum() = default;
  Datum(std::nullptr_t) {}  // NOLINT: implicit on purpose, as all below
  Datum(std::nullopt_t) {}  // NOLINT
  template <std::integral T>
  requires(std::signed_integral<T> || sizeof(T) < sizeof(std::int64_t)) Datum(T value)
      : held_(static_cast<std::int64_t>(value)) {}  // NOLINT
  template <std::floating_point T>
  Datum(T value) : held_(static_cast<double>(value)) {}       // NOLINT
  Datum(Decimal value) : held_(std::move(value)) {}           // NOLINT
  Datum(std::string text) : held_(std::move(text)) {}         // NOLINT
  Datum(std::string_view text) : held_(std::string(text)) {}  // NOLINT
  Datum(const char* text) : held_(std::string(text)) {}       // NOLINT
  /// An unchanged Value is null here: who needs to know asks before.
  Datum(const Value& value);  // NOLINT
  template <typename T>
  requires std::constructible_from<Datum, const T&> Datum(const std::optional<T>& value)  // NOLINT
      : Datum(value ? Datum(*value) : Datum()) {}
  static Datum blob(std::string bytes);

  bool is_null() const { return std::holds_alternative<std::monostate>(held_); }
  /// The number; 0 if it is none. Of a decimal and a real without what is behind the point.
  std::int64_t integer() const;
  double real() const;
  /// Nothing if it is no number, nor a text that is one.
  std::optional<Decimal> decimal() const;
  /// Of text and bytes; else empty.
  std::string_view text() const;
  bool is_text() const { return std::holds_alternative<std::string>(held_); }
  bool is_blob() const { return std::holds_alternative<Bytes>(held_); }
  bool is_real() const { return std::holds_alternative<double>(held_); }
  bool is_integer() const { return std::holds_alternative<std::int64_t>(held_); }
  bool is_decimal() const { return std::holds_alternative<Decimal>(held_); }

  /// Equal numbers as one: a decimal without zeros at its end, a whole one as an integer, -0 as 0.
  Datum normalized() const;

  /// As a writer of views takes it; of a decimal its text, for which `buffer` is used.
  Value value(std::string& buffer) const;
  /// As a key has it: "42", "19.90", text as it is; of null nothing.
  std::string key_text() const;
  /// As a part of a key that is made of several: commas and backslashes behind a backslash, null as
  /// "\\N".
  std::string key_part() const;

  /// Appends bytes that sort as the values do: null, numbers of one kind by size, text and bytes by
  /// byte; and of which none is the beginning of another, so that several in a row sort as a list.
  /// take() makes it again.
  void encode(std::string& out) const;
  static std::optional<Datum> take(std::string_view& in);

  friend bool operator==(const Datum& left, const Datum& right) = default;

 private:
  struct Bytes {
    std::string bytes;
    friend bool operator==(const Bytes&, const Bytes&) = default;
  };
  std::variant<std::monostate, std::int64_t, double, Decimal, std::string, Bytes> held_;
};

/// A row of named values: what a view's row is made of.
///
///     Record{{"name", p.name()}, {"price", p.price()}}
class Record {
 public:
  using Field = std::pair<std::string, Datum>;

  Record() = default;
  Record(std::initializer_list<Field> fields) : fields_(fields) {}

  void add(std::string name, Datum value) {
    fields_.emplace_back(std::move(name), std::move(value));
  }
  /// Throws std::invalid_argument if there is no such field.
  const Datum& operator[](std::string_view name) const;
  const std::vector<Field>& fields() const { return fields_; }

  friend bool operator==(const Record& left, const Record& right) = default;

 private:
  std::vector<Field> fields_;
};

}  // namespace millrace::projections
