// The payload of an event, of a table with a column of every kind. What is accepted must be one
// line of JSON.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/check.h"
#include "schemas/json.h"
#include "schemas/rendering/json_string.h"

namespace {

std::unique_ptr<millrace::SchemaRegistry> registry_with_all_kinds() {
  using namespace millrace;
  TableSchema schema{.category = "public.t", .schema_name = "public", .table_name = "t"};
  for (int kind = 1; kind <= static_cast<int>(ValueKind::kExactText); ++kind)
    for (const bool array : {false, true})
      schema.columns.push_back({.name = "c" + std::to_string(schema.columns.size()),
                                .kind = static_cast<ValueKind>(kind),
                                .array = array,
                                .key = schema.columns.empty()});
  auto registry = SchemaRegistry::in_memory();
  MILLRACE_CHECK(registry->record(schema).has_value());
  return registry;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace millrace;
  static const std::unique_ptr<SchemaRegistry> registry = registry_with_all_kinds();
  const EventRecord event{.category = "public.t",
                          .key = "1",
                          .payload = {reinterpret_cast<const char*>(data), size},
                          .captured = true};
  std::string json, text;
  const bool accepted = append_event_json(event, *registry, json).has_value();
  const bool shown = append_event_text(event, *registry, text).has_value();
  MILLRACE_CHECK(shown || !accepted);  // the text shows less
  MILLRACE_CHECK(accepted ? rendering::is_json(json) : json.empty());
  MILLRACE_CHECK(shown || text.empty());
  MILLRACE_CHECK(json.find('\n') == std::string::npos && text.find('\n') == std::string::npos);
  return 0;
}
