// PostgreSQL's text of a value, with the kind in the first byte and array-ness in the second. What
// is accepted must render as one line of JSON.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "capture/pgoutput/row_writer.h"
#include "capture/pgoutput/text_value.h"
#include "schemas/rendering/json_string.h"
#include "schemas/rendering/row.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace millrace;
  if (size < 2) return 0;
  constexpr auto kKinds = static_cast<std::uint8_t>(ValueKind::kExactText);
  constexpr std::uint32_t kBuiltIn = 1009, kOfAnExtension = 16'384;
  TableSchema schema;
  schema.columns = {{.name = "v",
                     .field = 1,
                     .kind = static_cast<ValueKind>(1 + data[0] % kKinds),
                     .array = (data[1] & 1) != 0,
                     .type_oid = (data[1] & 2) != 0 ? kOfAnExtension : kBuiltIn}};
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  // The short way writes the same, or nothing.
  const pgoutput::ColumnPlan plan(schema.columns[0], {});
  std::string quick(text.size() + pgoutput::kFieldExtraBytes, '\0');
  const char* const end = pgoutput::write_text_value(plan, text, quick.data());
  if (end != nullptr) quick.resize(static_cast<std::size_t>(end - quick.data()));
  std::string bytes = "#";
  if (!pgoutput::append_text_value(schema.columns[0], text, bytes)) {
    MILLRACE_CHECK(bytes == "#" && end == nullptr);
    return 0;
  }
  MILLRACE_CHECK(end == nullptr || bytes.substr(1) == quick);
  rendering::Row row;
  MILLRACE_CHECK(row.read(schema, std::string_view(bytes).substr(1)).has_value());
  MILLRACE_CHECK(row.field(0) != nullptr);
  std::string json;
  MILLRACE_CHECK(rendering::append_value(schema.columns[0], *row.field(0), json).has_value());
  MILLRACE_CHECK(rendering::is_json(json));
  MILLRACE_CHECK(json.find('\n') == std::string::npos);
  return 0;
}
