#include "schemas/rendering/change.h"

#include "base/bytes.h"
#include "schemas/rendering/json_string.h"
#include "schemas/rendering/wire.h"

namespace millrace::rendering {
namespace {

constexpr std::string_view kLetters = "-cudrtm";

void append_name(const ColumnSchema& column, bool json, std::string& out) {
  const std::size_t start = out.size();
  append_json_name(column.name, out);
  if (json) {
    out += ':';
    return;
  }
  out.erase(start, 1);
  out.back() = '=';
}

Result<void> append_field(const ColumnSchema& column, const WireField* field, std::string& out) {
  if (field != nullptr) return append_value(column, *field, out);
  out += "null";
  return {};
}

}  // namespace

std::string_view letter_of(Op op) { return kLetters.substr(static_cast<std::size_t>(op), 1); }

/// change.proto is the grammar. A field that was not known when this was written is passed over, as
/// Protobuf wants it.
Result<Change> read_change(std::string_view payload) {
  Change change;
  ByteReader in(payload);
  std::uint64_t op = 0;
  const auto is = [](const WireField& field, WireType type) { return field.type == type; };
  bool fine = true;
  for (WireField field; fine && next_field(in, field);) {
    switch (field.number) {
      case 1: fine = is(field, WireType::kVarint), op = field.number_value; break;
      case 2:
        fine = is(field, WireType::kVarint) && field.number_value >> 32 == 0;
        change.schema = static_cast<std::uint32_t>(field.number_value);
        break;
      case 3: fine = is(field, WireType::kFixed64), change.lsn = field.number_value; break;
      case 4:
        fine = is(field, WireType::kBytes), change.before = field.bytes, change.has_before = true;
        break;
      case 5: fine = is(field, WireType::kBytes), change.after = field.bytes; break;
      case 6:
        fine = is(field, WireType::kVarint), change.before_is_key = field.number_value != 0;
        break;
      case 7: fine = is(field, WireType::kBytes), change.unchanged = field.bytes; break;
      case 9: fine = is(field, WireType::kBytes), change.prefix = field.bytes; break;
      case 10: fine = is(field, WireType::kBytes), change.content = field.bytes; break;
      default: break;
    }
  }
  if (!fine || in.failed() || op == 0 || op >= kLetters.size())
    return Error(ErrorCode::kCorruption, "the payload is not a millrace.v1.Change");
  change.op = static_cast<Op>(op);
  return change;
}

Result<void> ChangedRows::read(const Change& change, std::string_view category,
                               SchemaRegistry& schemas) {
  change_ = &change;
  MILLRACE_ASSIGN_OR_RETURN(schema_, schemas.find(category, change.schema));
  has_after_ = change.op == Op::kCreate || change.op == Op::kUpdate || change.op == Op::kRead;
  // A row of nothing but nulls is an empty message, and a Protobuf library leaves empty bytes out.
  const bool always =
      change.op == Op::kDelete ||
      (change.op == Op::kUpdate && schema_->replica_identity == ReplicaIdentity::kFull);
  has_before_ = change.has_before || always;
  before_.clear();
  after_.clear();
  if (has_before_) MILLRACE_RETURN_IF_ERROR(before_.read(*schema_, change.before));
  if (has_after_) MILLRACE_RETURN_IF_ERROR(after_.read(*schema_, change.after));
  return check_unchanged();
}

Result<void> ChangedRows::check_unchanged() const {
  ByteReader in(change_->unchanged);
  while (in.remaining() > 0) {
    const std::uint64_t field = in.varint();
    if (in.failed() || field >> 32 != 0 ||
        schema_->column_of_field(static_cast<std::uint32_t>(field)) == nullptr)
      return Error(ErrorCode::kCorruption, "an unchanged column is not in the schema");
  }
  return {};
}

bool ChangedRows::is_unchanged(std::uint32_t field) const {
  ByteReader in(change_->unchanged);
  while (in.remaining() > 0)
    if (in.varint() == field) return true;
  return false;
}

Result<void> ChangedRows::append_key(bool json, std::string& out) const {
  if (!has_before_ && !has_after_) return {};
  bool first = true;
  for (std::size_t i = 0; i < schema_->columns.size(); ++i) {
    const ColumnSchema& column = schema_->columns[i];
    if (!column.key) continue;
    const WireField* field = after_.field(i) != nullptr ? after_.field(i) : before_.field(i);
    if (field == nullptr && is_unchanged(column.field)) continue;  // the source did not send it
    if (!first) out += ',';
    first = false;
    append_name(column, json, out);
    MILLRACE_RETURN_IF_ERROR(append_field(column, field, out));
  }
  return {};
}

template <typename Shown>
Result<void> ChangedRows::append_image(const Row& row, const Shown& shown, std::string& out) const {
  char separator = '{';
  for (std::size_t i = 0; i < schema_->columns.size(); ++i) {
    const ColumnSchema& column = schema_->columns[i];
    if (!shown(column)) continue;
    out += separator;
    separator = ',';
    append_name(column, true, out);
    MILLRACE_RETURN_IF_ERROR(append_field(column, row.field(i), out));
  }
  out += separator == '{' ? "{}" : "}";
  return {};
}

Result<void> ChangedRows::append_before(std::string& out) const {
  if (!has_before_) return out += "null", Result<void>{};
  const auto shown = [&](const ColumnSchema& column) {
    return column.key || !change_->before_is_key;
  };
  return append_image(before_, shown, out);
}

Result<void> ChangedRows::append_after(std::string& out) const {
  if (!has_after_) return out += "null", Result<void>{};
  const auto shown = [&](const ColumnSchema& column) { return !is_unchanged(column.field); };
  return append_image(after_, shown, out);
}

void ChangedRows::append_unchanged(std::string& out) const {
  out += '[';
  bool first = true;
  for (ByteReader in(change_->unchanged); in.remaining() > 0; first = false) {
    if (!first) out += ',';
    const auto field = static_cast<std::uint32_t>(in.varint());
    append_json_name(schema_->column_of_field(field)->name, out);
  }
  out += ']';
}

}  // namespace millrace::rendering
