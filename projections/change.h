#pragma once

#include <google/protobuf/message.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <deque>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/clock.h"
#include "eventstore/types.h"
#include "projections/value.h"
#include "schemas/lsn.h"

namespace millrace::projections {

/// What happened to a row. A change of its key comes as two: kDelete of the old key, then kInsert
/// of the new one.
enum class Op : std::uint8_t {
  kInsert = 'c',
  kUpdate = 'u',
  kDelete = 'd',
  kRead = 'r',      ///< The row as an initial snapshot read it.
  kTruncate = 't',  ///< Every row of the table is gone; there is no row in this change.
};

namespace internal {

/// A captured change with its row images still encoded: views into the reader's buffer.
struct RawChange {
  Op op = Op::kInsert;
  std::uint32_t schema = 0;
  bool before_is_key = false;
  Lsn lsn;
  /// A row image of no bytes is a row too: all of its columns are null.
  std::optional<std::string_view> before;
  std::string_view after;
  std::optional<std::string_view> moved_from;  ///< The key that the row had; it may be empty.
  std::vector<std::uint32_t> unchanged;        ///< Fields of `after` that were not sent.
  Offset offset;
  std::string_view category, key;
  const TransactionInfo* transaction = nullptr;
  // Of an event that is no change of a row, whose payload is `after`; kDelete of one that stands
  // for a stream that was erased.
  std::string_view type, metadata;
  std::optional<std::uint64_t> version;

  bool is_unchanged(std::uint32_t field) const {
    for (const std::uint32_t number : unchanged)
      if (number == field) return true;
    return false;
  }
};

using FieldDescriptor = google::protobuf::FieldDescriptor;

/// A row image that is no message of its table's type.
class BadRow : public std::runtime_error {
 public:
  explicit BadRow(const google::protobuf::Descriptor& row);
};

/// The fields of an encoded row, found without copying or converting any of them: most functions of
/// views want a few columns to hand on, and the generated parser would copy every text first.
class WireRow {
 public:
  struct Field {
    std::uint64_t number = 0;  ///< Of a varint or a fixed one, as it stands there.
    std::string_view bytes;    ///< Of one with a length.
    std::uint32_t row = 0;     ///< It is of the row at hand if this is its number.
    std::uint8_t wire = 0;     ///< Its wire type.
  };

  explicit WireRow(const google::protobuf::Descriptor& row);
  /// False if `bytes`, which must live as long as the fields are asked for, are no message at all.
  bool assign(std::string_view bytes);
  /// Nothing if it is absent: then the column is null. Of several the last, as Protobuf has it.
  const Field* find(const FieldDescriptor& field) const {
    const Field& found = fields_[static_cast<std::size_t>(field.number())];
    return found.row == row_ && found.wire == wire_type_of(field) ? &found : nullptr;
  }

 private:
  static std::uint8_t wire_type_of(const FieldDescriptor& field) {
    switch (field.type()) {
      case FieldDescriptor::TYPE_DOUBLE:
      case FieldDescriptor::TYPE_FIXED64:
      case FieldDescriptor::TYPE_SFIXED64: return 1;
      case FieldDescriptor::TYPE_STRING:
      case FieldDescriptor::TYPE_BYTES:
      case FieldDescriptor::TYPE_MESSAGE: return 2;
      case FieldDescriptor::TYPE_FLOAT:
      case FieldDescriptor::TYPE_FIXED32:
      case FieldDescriptor::TYPE_SFIXED32: return 5;
      default: return 0;
    }
  }

  std::vector<Field> fields_;  // by number
  std::uint32_t row_ = 0;      // counts, so that nothing need be cleared for the next one
};

/// The value of a field as its getter would give it.
template <typename T>
T scalar_of(const WireRow::Field& wire, const FieldDescriptor& field) {
  if constexpr (std::is_same_v<T, double>) {
    return std::bit_cast<double>(wire.number);
  } else if constexpr (std::is_same_v<T, float>) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(wire.number));
  } else if constexpr (std::is_same_v<T, bool>) {
    return wire.number != 0;
  } else {
    const bool zigzag = field.type() == FieldDescriptor::TYPE_SINT32 ||
                        field.type() == FieldDescriptor::TYPE_SINT64;
    if (!zigzag) return static_cast<T>(wire.number);
    // https://protobuf.dev/programming-guides/encoding/#signed-ints
    const auto number = static_cast<std::make_unsigned_t<T>>(wire.number);
    return static_cast<T>((number >> 1) ^ (~(number & 1) + 1));
  }
}

/// Makes `field` present in `probe`: with its default value, or with another one.
void set_field(google::protobuf::Message& probe, const FieldDescriptor& field, bool to_default);
/// The field of that name; throws std::invalid_argument if the message has none.
const FieldDescriptor& field_named(const google::protobuf::Descriptor& row, std::string_view name);
inline bool is_bytes(const FieldDescriptor& field) {
  return field.type() == FieldDescriptor::TYPE_BYTES;
}
[[noreturn]] void throw_no_row(Op op);
[[noreturn]] void throw_no_field(const google::protobuf::Descriptor& row);

/// Which field a generated getter reads: found out by setting one field after the other in an empty
/// row, once, and remembered. A getter sees a field that is set, but not that it is set to its
/// default: that would be a has_...().
template <typename Row>
class GetterTable {
 public:
  template <typename T>
  const FieldDescriptor& field_of(T (Row::*getter)() const) {
    Words words{};
    static_assert(sizeof getter <= sizeof words);
    std::memcpy(words.data(), &getter, sizeof getter);
    // A function mostly asks for the same columns in the same order as for the row before: so it is
    // the entry after the last one that was asked for.
    for (std::size_t looked_at = 0; looked_at < entries_.size(); ++looked_at) {
      if (next_ == entries_.size()) next_ = 0;
      const Entry& entry = entries_[next_++];
      if (entry.getter[0] == words[0] && entry.getter[1] == words[1]) return *entry.field;
    }
    const FieldDescriptor& field = probe(getter);
    entries_.push_back({words, &field});
    next_ = 0;
    return field;
  }

 private:
  using Words = std::array<std::uintptr_t, 2>;
  struct Entry {
    Words getter;
    const FieldDescriptor* field;
  };

  template <typename T>
  static const FieldDescriptor& probe(T (Row::*getter)() const) {
    for (int i = 0; i < Row::descriptor()->field_count(); ++i) {
      const FieldDescriptor& field = *Row::descriptor()->field(i);
      Row with_default, with_other;
      set_field(with_default, field, true);
      set_field(with_other, field, false);
      const Row& empty = Row::default_instance();
      if (differs((with_other.*getter)(), (empty.*getter)()) &&
          !differs((with_default.*getter)(), (empty.*getter)()))
        return field;
    }
    throw_no_field(*Row::descriptor());
  }

  template <typename T>
  static bool differs(const T& left, const T& right) {
    if constexpr (std::is_base_of_v<google::protobuf::Message, T>)
      return &left != &right;
    else
      return left != right;
  }

  std::vector<Entry> entries_;
  std::size_t next_ = 0;
};

}  // namespace internal

/// One change of one row of a captured table, typed by the message that protoc made of `millrace
/// schema export`.
///
///     const Product* row = change.after();    // as it is now; nullptr after a delete or truncate
///     const Product* old = change.before();   // as it was, as far as the source sends it
///     Value name = change[&Product::name];    // null, unchanged if it was not sent, or its value
///
/// Prefer the last form for what goes into a view: reading `after()->name()` of a column that is
/// null or that was not sent gives an empty string. Everything here is valid during the call that
/// got the change only.
template <typename Row>
class Change {
 public:
  Op op() const { return raw_->op; }
  bool is_delete() const { return raw_->op == Op::kDelete; }
  bool is_truncate() const { return raw_->op == Op::kTruncate; }

  /// The key as text, as docs/events.md has it: "42"; of several columns "42,de". Empty in a
  /// truncate.
  std::string_view key() const { return raw_->key; }
  /// The key that the row had before this change, where it changed: the kDelete before this one
  /// removed it.
  std::optional<std::string_view> moved_from() const { return raw_->moved_from; }

  const Row* after() const { return has_after_ ? &parsed(after_, raw_->after) : nullptr; }
  /// All columns under REPLICA IDENTITY FULL (ask for it with kNeedsOldRows), else of a delete the
  /// key columns.
  const Row* before() const { return raw_->before ? &parsed(before_, *raw_->before) : nullptr; }
  bool before_is_key() const { return raw_->before_is_key; }
  /// The row after the change; of a delete, what is known of the row that is gone.
  /// Throws std::logic_error in a truncate: ask is_truncate() first.
  const Row& row() const {
    if (const Row* row = has_after_ ? after() : before()) return *row;
    internal::throw_no_row(raw_->op);
  }

  /// A column of row(): null, unchanged, or its value. Arrays and other messages go through map().
  template <typename T>
  Value operator[](T (Row::*getter)() const) const {
    using Plain = std::remove_cvref_t<T>;
    static_assert(std::is_arithmetic_v<Plain> || std::is_same_v<Plain, std::string>,
                  "this column is a message: use change.map(&Row::column, [](const auto& value) { "
                  "return ...; })");
    const auto& field = getters_.field_of(getter);
    const auto* wire = find(field);
    if (wire == nullptr) return absent(field);
    if constexpr (std::is_same_v<Plain, std::string>)
      return internal::is_bytes(field) ? Value::blob(wire->bytes) : Value(wire->bytes);
    else
      return internal::scalar_of<Plain>(*wire, field);
  }

  /// A column of row() turned into something else by `make`, which is called only where there is a
  /// value: change.map(&Order::created_at, iso_timestamptz). A std::string that it returns lives as
  /// long as the change.
  template <typename T, typename Make>
  Value map(T (Row::*getter)() const, Make make) const {
    const auto& field = getters_.field_of(getter);
    const auto* wire = find(field);
    if (wire == nullptr) return absent(field);
    const auto make_value = [&]() -> decltype(auto) {
      if constexpr (std::is_arithmetic_v<T>)
        return make(internal::scalar_of<T>(*wire, field));
      else
        return make((row().*getter)());
    };
    if constexpr (std::is_same_v<std::invoke_result_t<Make, T>, std::string>)
      return made_.emplace_back(make_value());
    else
      return make_value();
  }

  /// True for a column of after() that the source did not send since it did not change (TOAST).
  template <typename T>
  bool is_unchanged(T (Row::*getter)() const) const {
    return raw_->is_unchanged(getters_.field_of(getter).number());
  }
  bool is_unchanged(std::string_view column) const {
    return raw_->is_unchanged(internal::field_named(*Row::descriptor(), column).number());
  }
  /// True where any column is unchanged.
  bool is_partial() const { return !raw_->unchanged.empty(); }

  Offset offset() const { return raw_->offset; }
  Lsn lsn() const { return raw_->lsn; }  ///< Of this very change.
  Lsn commit_lsn() const { return Lsn{raw_->transaction->source.commit}; }  ///< Of its transaction.
  UnixMicros commit_time() const { return raw_->transaction->commit_time; }
  std::uint32_t transaction_id() const { return raw_->transaction->source_xid; }

  /// For the engine, and for tests of a function of yours: takes `raw`, which must outlive the
  /// change. False if the row image is no message.
  bool assign(const internal::RawChange& raw) {
    raw_ = &raw;
    if (!made_.empty()) made_.clear();
    has_after_ = raw.op != Op::kDelete && raw.op != Op::kTruncate;
    after_.is_parsed = before_.is_parsed = false;
    return wire_.assign(has_after_ ? raw.after : raw.before.value_or(std::string_view()));
  }

 private:
  struct Image {
    Row row;  // reused: parsing into it allocates nothing once it is large enough
    bool is_parsed = false;
  };

  const Row& parsed(Image& image, std::string_view bytes) const {
    if (image.is_parsed) return image.row;
    if (!image.row.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
      throw internal::BadRow(*Row::descriptor());
    image.is_parsed = true;
    return image.row;
  }

  /// A field of row().
  const internal::WireRow::Field* find(const internal::FieldDescriptor& field) const {
    if (!has_after_ && !raw_->before) internal::throw_no_row(raw_->op);
    return wire_.find(field);
  }
  Value absent(const internal::FieldDescriptor& field) const {
    const bool unchanged =
        has_after_ && raw_->is_unchanged(static_cast<std::uint32_t>(field.number()));
    return unchanged ? Value::unchanged() : Value();
  }

  const internal::RawChange* raw_ = nullptr;
  internal::WireRow wire_{*Row::descriptor()};  // of row()
  mutable Image before_, after_;
  bool has_after_ = false;
  mutable internal::GetterTable<Row> getters_;
  mutable std::deque<std::string> made_;
};

}  // namespace millrace::projections
