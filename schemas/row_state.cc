#include "schemas/row_state.h"

#include <algorithm>

#include "base/bytes.h"
#include "schemas/rendering/wire.h"

namespace millrace {
namespace {

using rendering::next_field;
using rendering::WireField;

// Of millrace.v1.Change.
constexpr std::uint32_t kOp = 1, kSchema = 2, kBefore = 4, kAfter = 5, kBeforeIsKey = 6,
                        kUnchanged = 7, kMovedFrom = 8;
constexpr std::string_view kOps = "?cudrtm";

Error no_change() { return Error(ErrorCode::kCorruption, "a payload that is no change of a row"); }
Error no_row() { return Error(ErrorCode::kCorruption, "a row image that is no row message"); }

/// A field with its tag, as it stands in its row.
struct RawField {
  std::uint32_t number = 0;
  std::string_view bytes;
};

Result<void> split(std::string_view row, std::vector<RawField>& into) {
  into.clear();
  ByteReader in(row);
  const char* start = in.position();
  for (WireField field; next_field(in, field); start = in.position())
    into.push_back({field.number, {start, static_cast<std::size_t>(in.position() - start)}});
  if (in.failed()) return no_row();
  return {};
}

std::string_view find(const std::vector<RawField>& fields, std::uint32_t number) {
  for (const RawField& field : fields)
    if (field.number == number) return field.bytes;
  return {};
}

std::string joined(std::vector<RawField>& fields) {
  std::stable_sort(fields.begin(), fields.end(),
                   [](const RawField& a, const RawField& b) { return a.number < b.number; });
  std::string row;
  for (const RawField& field : fields) row += field.bytes;
  return row;
}

}  // namespace

Result<RowChange> read_row_change(std::string_view payload) {
  RowChange change;
  ByteReader in(payload);
  for (WireField field; next_field(in, field);) {
    const bool is_number = field.type == WireType::kVarint;
    const bool is_sized = field.type == WireType::kBytes;
    switch (field.number) {
      case kOp:
        if (!is_number || field.number_value == 0 || field.number_value >= kOps.size())
          return no_change();
        change.op = kOps[field.number_value];
        break;
      case kSchema: change.schema = static_cast<std::uint32_t>(field.number_value); break;
      case kBeforeIsKey: change.before_is_key = field.number_value != 0; break;
      case kBefore:
      case kAfter:
      case kMovedFrom:
        if (!is_sized) return no_change();
        (field.number == kBefore  ? change.before
         : field.number == kAfter ? change.after
                                  : change.moved_from) = field.bytes;
        break;
      case kUnchanged: {
        if (!is_sized) return no_change();
        ByteReader packed(field.bytes);
        while (packed.remaining() != 0)
          change.unchanged.push_back(static_cast<std::uint32_t>(packed.varint()));
        if (packed.failed()) return no_change();
        break;
      }
      default: break;
    }
  }
  if (in.failed() || change.op == 0) return no_change();
  return change;
}

Result<void> RowState::apply(const RowChange& change, const RowState* moved) {
  if (change.op == 'm') return {};
  if (change.op == 'd' || change.op == 't') {
    *this = {};
    return {};
  }
  if (!change.after) return no_change();
  std::vector<std::uint32_t> still_unknown;
  std::string next(*change.after);
  if (!change.unchanged.empty()) {
    // A change of key leaves nothing of what stood under the new one.
    const RowState* older = change.moved_from ? moved : this;
    std::vector<RawField> fields, old_fields;
    MILLRACE_RETURN_IF_ERROR(split(*change.after, fields));
    if (older != nullptr && older->exists) MILLRACE_RETURN_IF_ERROR(split(older->row, old_fields));
    for (const std::uint32_t number : change.unchanged) {
      // What is unchanged in TOAST is no null, so a row without it does not know it.
      const std::string_view value = find(old_fields, number);
      if (value.empty())
        still_unknown.push_back(number);
      else if (find(fields, number).empty())
        fields.push_back({number, value});
    }
    next = joined(fields);
  }
  exists = true;
  schema = change.schema;
  row = std::move(next);
  unknown = std::move(still_unknown);
  return {};
}

Result<std::string_view> field_in_row(std::string_view row, std::uint32_t field) {
  ByteReader in(row);
  const char* start = in.position();
  for (WireField found; next_field(in, found); start = in.position())
    if (found.number == field)
      return std::string_view(start, static_cast<std::size_t>(in.position() - start));
  if (in.failed()) return no_row();
  return std::string_view();
}

Result<std::string> row_of_columns(std::string_view row, const TableSchema& schema,
                                   bool keys_only) {
  std::vector<RawField> fields;
  MILLRACE_RETURN_IF_ERROR(split(row, fields));
  std::erase_if(fields, [&](const RawField& field) {
    const ColumnSchema* column = schema.column_of_field(field.number);
    return column == nullptr || (keys_only && !column->key);
  });
  return joined(fields);
}

Result<void> compare_rows(const RowState& told, const TableSchema& its_schema,
                          std::string_view live, const TableSchema& schema, RowDifference& into) {
  into.different.clear();
  into.untold.clear();
  if (told.unknown.empty() && its_schema.version == schema.version && told.row == live) return {};
  std::vector<RawField> told_fields, live_fields;
  MILLRACE_RETURN_IF_ERROR(split(told.row, told_fields));
  MILLRACE_RETURN_IF_ERROR(split(live, live_fields));
  for (const ColumnSchema& column : schema.columns) {
    const std::string_view was = find(told_fields, column.field);
    const std::string_view is = find(live_fields, column.field);
    const bool was_told = its_schema.column_of_field(column.field) != nullptr &&
                          std::ranges::find(told.unknown, column.field) == told.unknown.end();
    if (!was_told) {
      if (!is.empty()) into.untold.push_back(&column);
    } else if (was != is) {
      into.different.push_back(&column);
    }
  }
  return {};
}

}  // namespace millrace
