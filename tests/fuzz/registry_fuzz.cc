// Items of the file `schemas`. Most inputs fail the checksum at once, so the first byte may ask for
// the rest to be taken as one record whose checksum is right.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "base/checksum.h"
#include "schemas/storage/registry_file.h"

namespace {

constexpr std::uint64_t kPosition = millrace::registry_file::kHeaderBytes;

/// `content` as the item at kPosition, as the grammar in registry_file.h has it.
std::string item_of(std::string_view content) {
  std::string place;
  millrace::append_le<std::uint64_t>(place, kPosition);
  millrace::append_le<std::uint32_t>(place, static_cast<std::uint32_t>(content.size()));
  std::string item = place.substr(8);
  millrace::append_le<std::uint64_t>(item, millrace::checksum(content, millrace::checksum(place)));
  item += content;
  return item;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace millrace;
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string bytes = (data[0] & 1) != 0 ? item_of(rest) : std::string(rest);
  const auto scanned = registry_file::scan(bytes, kPosition);
  if (!scanned) return 0;
  MILLRACE_CHECK(scanned->end <= kPosition + bytes.size());
  // What was read can be written and read again.
  for (const registry_file::Record& record : scanned->records) {
    MILLRACE_CHECK(registry_file::check_schema(record.schema).has_value());
    std::string again;
    MILLRACE_CHECK(registry_file::append_record(record.schema, kPosition, again).has_value());
    const auto back = registry_file::scan(again, kPosition);
    MILLRACE_CHECK(back.has_value() && back->records.size() == 1);
    MILLRACE_CHECK(back->records[0].schema.columns == record.schema.columns);
  }
  return 0;
}
