// PostgreSQL's text of a value, with the kind in the first byte and array-ness in the second. What
// is accepted must render as one line of JSON.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
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
  std::string bytes = "#";
  if (!pgoutput::append_text_value(schema.columns[0], text, bytes)) {
    MILLRACE_CHECK(bytes == "#");
    return 0;
  }
  rendering::Row row;
  MILLRACE_CHECK(row.read(schema, std::string_view(bytes).substr(1)).has_value());
  MILLRACE_CHECK(row.field(0) != nullptr);
  std::string json;
  MILLRACE_CHECK(rendering::append_value(schema.columns[0], *row.field(0), json).has_value());
  MILLRACE_CHECK(rendering::is_json(json));
  MILLRACE_CHECK(json.find('\n') == std::string::npos);
  return 0;
}
