#pragma once

#include <google/protobuf/message.h>

#include <array>
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

  bool is_unchanged(std::uint32_t field) const {
    for (const std::uint32_t number : unchanged)
      if (number == field) return true;
    return false;
  }
};

using FieldDescriptor = google::protobuf::FieldDescriptor;

/// Makes `field` present in `probe`: with its default value, or with another one.
void set_field(google::protobuf::Message& probe, const FieldDescriptor& field, bool to_default);
/// The field of that name; throws std::invalid_argument if the message has none.
const FieldDescriptor& field_named(const google::protobuf::Descriptor& row, std::string_view name);
bool has_field(const google::protobuf::Message& row, const FieldDescriptor& field);
bool is_bytes(const FieldDescriptor& field);
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
    Bytes bytes{};
    static_assert(sizeof getter <= sizeof bytes);
    std::memcpy(bytes.data(), &getter, sizeof getter);
    for (const Entry& entry : entries_)
      if (entry.getter == bytes) return *entry.field;
    const FieldDescriptor& field = probe(getter);
    entries_.push_back({bytes, &field});
    return field;
  }

 private:
  using Bytes = std::array<char, 2 * sizeof(void*)>;
  struct Entry {
    Bytes getter;
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

  const Row* after() const { return has_after_ ? &after_ : nullptr; }
  /// All columns under REPLICA IDENTITY FULL (ask for it with kNeedsOldRows), else of a delete the
  /// key columns.
  const Row* before() const { return has_before_ ? &before_ : nullptr; }
  bool before_is_key() const { return raw_->before_is_key; }
  /// The row after the change; of a delete, what is known of the row that is gone.
  /// Throws std::logic_error in a truncate: ask is_truncate() first.
  const Row& row() const {
    if (has_after_) return after_;
    if (has_before_) return before_;
    internal::throw_no_row(raw_->op);
  }

  /// A column of row(): null, unchanged, or its value. Arrays and other messages go through map().
  template <typename T>
  Value operator[](T (Row::*getter)() const) const {
    using Plain = std::remove_cvref_t<T>;
    static_assert(std::is_arithmetic_v<Plain> || std::is_same_v<Plain, std::string>,
                  "this column is a message: use change.map(&Row::column, [](const auto& value) { "
                  "return ...; })");
    const auto& field = fields_.field_of(getter);
    const Row& row = this->row();
    if (has_after_ && raw_->is_unchanged(field.number())) return Value::unchanged();
    if (!internal::has_field(row, field)) return {};
    if constexpr (std::is_same_v<Plain, std::string>) {
      const std::string& text = (row.*getter)();
      return internal::is_bytes(field) ? Value::blob(text) : Value(text);
    } else {
      return (row.*getter)();
    }
  }

  /// A column of row() turned into something else by `make`, which is called only where there is a
  /// value: change.map(&Order::created_at, iso_timestamptz). A std::string that it returns lives as
  /// long as the change.
  template <typename T, typename Make>
  Value map(T (Row::*getter)() const, Make make) const {
    const auto& field = fields_.field_of(getter);
    const Row& row = this->row();
    if (has_after_ && raw_->is_unchanged(field.number())) return Value::unchanged();
    if (!internal::has_field(row, field)) return {};
    if constexpr (std::is_same_v<std::invoke_result_t<Make, T>, std::string>)
      return made_.emplace_back(make((row.*getter)()));
    else
      return make((row.*getter)());
  }

  /// True for a column of after() that the source did not send since it did not change (TOAST).
  template <typename T>
  bool is_unchanged(T (Row::*getter)() const) const {
    return raw_->is_unchanged(fields_.field_of(getter).number());
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
  /// change. False if a row image is no such message.
  bool assign(const internal::RawChange& raw) {
    raw_ = &raw;
    made_.clear();
    has_after_ = raw.op != Op::kDelete && raw.op != Op::kTruncate;
    has_before_ = raw.before.has_value();
    return (!has_after_ || parse(after_, raw.after)) &&
           (!has_before_ || parse(before_, *raw.before));
  }

 private:
  static bool parse(Row& row, std::string_view bytes) {
    return row.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  }

  const internal::RawChange* raw_ = nullptr;
  Row before_, after_;  // reused: parsing into them allocates nothing once they are large enough
  bool has_before_ = false, has_after_ = false;
  mutable internal::GetterTable<Row> fields_;
  mutable std::deque<std::string> made_;
};

}  // namespace millrace::projections
