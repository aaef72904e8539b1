// The bytes of a row message, with the columns' kinds in front: how many columns (1 to 8), a byte
// each (kind, array-ness in the high bit), then the length of the list of unchanged fields and the
// list. What is accepted must be text that can be written for a server, and be kept again as it is.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "schemas/row_text.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace millrace;
  constexpr auto kKinds = static_cast<std::uint8_t>(ValueKind::kExactText);
  ByteReader in({reinterpret_cast<const char*>(data), size});
  TableSchema schema;
  const std::uint32_t columns = 1 + in.u8() % 8;
  for (std::uint32_t field = 1; field <= columns; ++field) {
    const std::uint8_t kind = in.u8();
    schema.columns.push_back({.name = "v",
                              .field = field,
                              .kind = static_cast<ValueKind>(1 + (kind & 0x7f) % kKinds),
                              .array = (kind & 0x80) != 0});
  }
  const std::string_view unchanged = in.bytes(in.u8());
  if (in.failed()) return 0;
  const std::string_view row = in.bytes(in.remaining());
  RowText text;
  if (!text.read(schema, row, unchanged)) {
    MILLRACE_CHECK(text.size() == 0);
    return 0;
  }
  MILLRACE_CHECK(text.size() == columns);
  std::string line, literals;
  for (std::size_t i = 0; i < columns; ++i) {
    MILLRACE_CHECK(!text.unchanged(i) || !text.value(i).has_value());
    append_copy_field(text.value(i), line);
    static_cast<void>(append_sql_literal(text.value(i), literals));
  }
  MILLRACE_CHECK(line.find('\n') == std::string::npos && line.find('\t') == std::string::npos);
  MILLRACE_CHECK(literals.find('\0') == std::string::npos);
  return 0;
}
