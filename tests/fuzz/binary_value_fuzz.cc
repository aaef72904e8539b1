// What PostgreSQL's send functions write, with the form in the first byte and array-ness in the
// second. What is accepted must be a field that reads back as text, and that text must be kept as
// the very same bytes: two ways in, one row. The short way of each writes the same, or nothing.

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

#include "base/check.h"
#include "capture/pgoutput/binary_value.h"
#include "capture/pgoutput/builtin_types.h"
#include "capture/pgoutput/row_writer.h"
#include "capture/pgoutput/text_value.h"
#include "schemas/row_text.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace millrace;
  if (size < 2) return 0;
  struct Type {
    std::uint32_t oid, array_oid;
  };
  constexpr Type kTypes[] = {{16, 1000},   {17, 1001},   {19, 1003},   {20, 1016},   {21, 1005},
                             {23, 1007},   {25, 1009},   {26, 1028},   {114, 199},   {700, 1021},
                             {701, 1022},  {1042, 1014}, {1082, 1182}, {1083, 1183}, {1114, 1115},
                             {1184, 1185}, {1266, 1270}, {1700, 1231}, {2950, 2951}, {3802, 3807}};
  const Type& chosen = kTypes[data[0] % std::size(kTypes)];
  const std::uint32_t oid = (data[1] & 1) != 0 ? chosen.array_oid : chosen.oid;
  const auto known = pgoutput::builtin_type(oid);
  MILLRACE_CHECK(known.has_value());
  const ColumnSchema column{
      .name = "v", .field = 1, .kind = known->kind, .array = known->array, .type_oid = oid};
  const auto type = pgoutput::binary_type(oid, known->kind, known->array);
  MILLRACE_CHECK(type.exact());
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  const pgoutput::ColumnPlan plan(column, type);
  std::string quick(bytes.size() + pgoutput::kFieldExtraBytes, '\0');
  const char* const end = pgoutput::write_binary_value(plan, bytes, quick.data());
  if (end != nullptr) quick.resize(static_cast<std::size_t>(end - quick.data()));
  char number[pgoutput::kIntegerTextBytes];
  const auto key = pgoutput::text_of_binary(plan, bytes, number);
  std::string row = "#";
  if (!pgoutput::append_binary_value(column, type, bytes, row)) {
    MILLRACE_CHECK(row == "#" && end == nullptr && !key);
    return 0;
  }
  std::string text;
  MILLRACE_CHECK(append_value_text(column, std::string_view(row).substr(1), text).has_value());
  MILLRACE_CHECK(end == nullptr || row.substr(1) == quick);
  MILLRACE_CHECK(!key || *key == text);
  std::string again = "#";
  MILLRACE_CHECK(pgoutput::append_text_value(column, text, again).has_value());
  MILLRACE_CHECK(again == row);
  return 0;
}
