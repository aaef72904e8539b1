#include "schemas/merge_change.h"

#include <algorithm>
#include <vector>

#include "base/bytes.h"
#include "schemas/rendering/wire.h"

namespace millrace {
namespace {

using rendering::next_field;
using rendering::WireField;

// Of millrace.v1.Change.
constexpr std::uint32_t kOp = 1, kSchema = 2, kBefore = 4, kAfter = 5, kBeforeIsKey = 6,
                        kUnchanged = 7, kMovedFrom = 8;
constexpr std::uint64_t kDelete = 3;

/// A field with its tag, as it stands in its message.
struct RawField {
  std::uint32_t number = 0;
  WireType type = WireType::kVarint;
  std::string_view bytes;    // with the tag
  std::string_view content;  // of a sized one
};

Error no_change() { return Error(ErrorCode::kCorruption, "a payload that is no change of a row"); }

Result<std::vector<RawField>> fields_of(std::string_view message) {
  std::vector<RawField> fields;
  ByteReader in(message);
  const char* start = in.position();
  for (WireField field; next_field(in, field); start = in.position())
    fields.push_back({.number = field.number,
                      .type = field.type,
                      .bytes = {start, static_cast<std::size_t>(in.position() - start)},
                      .content = field.bytes});
  if (in.failed()) return no_change();
  return fields;
}

const RawField* find(const std::vector<RawField>& fields, std::uint32_t number) {
  const auto found = std::find_if(fields.begin(), fields.end(),
                                  [&](const RawField& field) { return field.number == number; });
  return found == fields.end() ? nullptr : &*found;
}

bool is_sized(const RawField* field) { return field != nullptr && field->type == WireType::kBytes; }

Result<std::vector<std::uint32_t>> unchanged_of(const RawField* field) {
  std::vector<std::uint32_t> numbers;
  if (field == nullptr) return numbers;
  if (!is_sized(field)) return no_change();
  ByteReader in(field->content);
  while (in.remaining() != 0) numbers.push_back(static_cast<std::uint32_t>(in.varint()));
  if (in.failed()) return no_change();
  return numbers;
}

void append_sized(std::uint32_t number, std::string_view bytes, std::string& out) {
  append_varint(out, std::uint64_t{number} << 3 | static_cast<std::uint64_t>(WireType::kBytes));
  append_varint(out, bytes.size());
  out += bytes;
}

void append_number(std::uint32_t number, std::uint64_t value, std::string& out) {
  append_varint(out, std::uint64_t{number} << 3 | static_cast<std::uint64_t>(WireType::kVarint));
  append_varint(out, value);
}

/// The row `after` with the fields `missing` of the row `before`; nothing if one is not there.
Result<std::optional<std::string>> merge_rows(std::string_view before, std::string_view after,
                                              const std::vector<std::uint32_t>& missing) {
  MILLRACE_ASSIGN_OR_RETURN(const auto old_fields, fields_of(before));
  MILLRACE_ASSIGN_OR_RETURN(auto fields, fields_of(after));
  for (const std::uint32_t number : missing) {
    const RawField* old_field = find(old_fields, number);
    // What is unchanged in TOAST is no null, so a row without it does not know it.
    if (old_field == nullptr || find(fields, number) != nullptr)
      return std::optional<std::string>();
    fields.push_back(*old_field);
  }
  std::stable_sort(fields.begin(), fields.end(),
                   [](const RawField& a, const RawField& b) { return a.number < b.number; });
  std::string row;
  for (const RawField& field : fields) row += field.bytes;
  return std::optional(std::move(row));
}

}  // namespace

Result<std::optional<std::string>> merge_change(std::string_view older, std::string_view newer) {
  MILLRACE_ASSIGN_OR_RETURN(const auto old_fields, fields_of(older));
  MILLRACE_ASSIGN_OR_RETURN(const auto fields, fields_of(newer));
  const RawField *before = find(old_fields, kAfter), *after = find(fields, kAfter);
  if (!is_sized(before) || !is_sized(after)) return std::optional<std::string>();
  MILLRACE_ASSIGN_OR_RETURN(const auto missing, unchanged_of(find(fields, kUnchanged)));
  MILLRACE_ASSIGN_OR_RETURN(auto row, merge_rows(before->content, after->content, missing));
  if (!row) return row;
  std::string payload;
  for (const RawField& field : fields) {
    if (field.number == kAfter)
      append_sized(kAfter, *row, payload);
    else if (field.number != kUnchanged)
      payload += field.bytes;
  }
  return std::optional(std::move(payload));
}

Result<std::optional<std::string>> forgetting_change(std::string_view payload,
                                                     const TableSchema& schema) {
  MILLRACE_ASSIGN_OR_RETURN(const auto fields, fields_of(payload));
  const RawField* row = find(fields, kAfter);
  if (row == nullptr) row = find(fields, kBefore);
  if (!is_sized(row)) return std::optional<std::string>();
  MILLRACE_ASSIGN_OR_RETURN(const auto columns, fields_of(row->content));
  std::string key;
  for (const RawField& field : columns) {
    const ColumnSchema* column = schema.column_of_field(field.number);
    if (column != nullptr && column->key) key += field.bytes;
  }
  if (key.empty()) return std::optional<std::string>();
  std::string change;
  append_number(kOp, kDelete, change);
  append_number(kSchema, schema.version, change);
  append_sized(kBefore, key, change);
  append_number(kBeforeIsKey, 1, change);
  return std::optional(std::move(change));
}

Result<std::uint32_t> schema_of_change(std::string_view payload) {
  MILLRACE_ASSIGN_OR_RETURN(const auto fields, fields_of(payload));
  const RawField* schema = find(fields, kSchema);
  if (schema == nullptr || schema->type != WireType::kVarint) return no_change();
  ByteReader in(schema->bytes);
  in.varint();
  return static_cast<std::uint32_t>(in.varint());
}

bool is_moved_change(std::string_view payload) {
  const auto fields = fields_of(payload);
  return !fields || find(*fields, kMovedFrom) != nullptr;
}

}  // namespace millrace
