#include "tests/support/capture_fakes.h"

#include <stdexcept>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace millrace::test {

Result<ColumnType> FakeCatalog::type(std::uint32_t oid, std::int32_t) {
  ++questions;
  if (failure) return *failure;
  static const std::map<std::uint32_t, ColumnType> kTypes = {
      {16, {ValueKind::kBool, false, "boolean"}},   {17, {ValueKind::kBytes, false, "bytea"}},
      {20, {ValueKind::kInt64, false, "bigint"}},   {23, {ValueKind::kInt32, false, "integer"}},
      {25, {ValueKind::kText, false, "text"}},      {1009, {ValueKind::kText, true, "text[]"}},
      {1043, {ValueKind::kText, false, "varchar"}}, {1700, {ValueKind::kNumeric, false, "numeric"}},
      {3802, {ValueKind::kJson, false, "jsonb"}},
  };
  const auto found = kTypes.find(oid);
  ColumnType type = found != kTypes.end()
                        ? found->second
                        : ColumnType{ValueKind::kExactText, false, "oid " + std::to_string(oid)};
  type.base_oid = oid;
  return type;
}

Result<std::optional<std::vector<std::string>>> FakeCatalog::primary_key(
    std::uint32_t relation_oid) {
  ++questions;
  if (failure) return *failure;
  if (gone.contains(relation_oid)) return std::optional<std::vector<std::string>>();
  const auto found = primary_keys.find(relation_oid);
  return std::optional(found == primary_keys.end() ? std::vector<std::string>{} : found->second);
}

v1::Change RecordedEvent::change() const {
  v1::Change change;
  if (!change.ParseFromString(payload)) throw std::runtime_error("the payload is no Change");
  return change;
}

Result<void> MemoryOut::begin(const TransactionInfo& info) {
  MILLRACE_CHECK(!in_transaction);
  in_transaction = true;
  open_ = {info, {}};
  return {};
}

Result<void> MemoryOut::add(const NewEvent& event) {
  if (failure) return *failure;
  open_.events.push_back({std::string(event.category), std::string(event.key),
                          std::string(event.type), std::string(event.payload), event.flags});
  return {};
}

Result<void> MemoryOut::commit(std::uint64_t source_end) {
  MILLRACE_CHECK(in_transaction);
  in_transaction = false;
  open_.info.source.end = source_end;
  transactions.push_back(std::exchange(open_, {}));
  return {};
}

Result<void> MemoryOut::rollback() {
  MILLRACE_CHECK(in_transaction);
  in_transaction = false;
  open_ = {};
  ++rollbacks;
  return {};
}

std::vector<RecordedEvent> MemoryOut::take() { return std::exchange(open_.events, {}); }

std::map<std::string, std::string> row_of(const TableSchema& schema, const std::string& image) {
  std::map<std::string, std::string> row;
  ByteReader in(image);
  while (in.remaining() != 0 && !in.failed()) {
    const std::uint64_t tag = in.varint();
    const ColumnSchema* column = schema.column_of_field(static_cast<std::uint32_t>(tag >> 3));
    if (column == nullptr) throw std::runtime_error("a field of no column");
    if (row.contains(column->name)) throw std::runtime_error("a column twice");
    std::string& value = row[column->name];
    switch (tag & 7) {
      case 0: {
        const std::uint64_t number = in.varint();
        const bool is_signed =
            column->kind == ValueKind::kInt32 || column->kind == ValueKind::kInt64;
        value = is_signed ? std::to_string(unzigzag(number)) : std::to_string(number);
        break;
      }
      case 1: value = std::to_string(in.u64_le()); break;
      case 2: value = in.bytes(in.varint()); break;
      case 5: value = std::to_string(in.u32_le()); break;
      default: throw std::runtime_error("a wire type that rows do not use");
    }
  }
  if (in.failed()) throw std::runtime_error("the row image ends too early");
  return row;
}

}  // namespace millrace::test
