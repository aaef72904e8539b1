#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "schemas/rendering/wire.h"
#include "schemas/table_schema.h"

/// How docs/rows.md says that values are kept, read back; the renderers of JSON and of PostgreSQL's
/// text share it.
namespace millrace::rendering {

/// timetz and interval stand in an array as text.
constexpr ValueKind element_kind(ValueKind kind) {
  return kind == ValueKind::kTimeTz || kind == ValueKind::kInterval ? ValueKind::kExactText : kind;
}

constexpr std::int64_t kMicrosPerDay = 86'400'000'000;

/// A millrace.v1.TimeTz; nothing where the bytes are none.
struct StoredTimeTz {
  std::int64_t micros = 0;
  std::int32_t offset_seconds = 0;
};
std::optional<StoredTimeTz> read_time_tz(std::string_view bytes);

/// A millrace.v1.Interval; nothing where the bytes are none.
struct StoredInterval {
  std::int32_t months = 0, days = 0;
  std::int64_t micros = 0;
  int infinity = 0;  ///< 1 or -1.
};
std::optional<StoredInterval> read_interval(std::string_view bytes);

/// The text of an array that is kept whole; nothing for any other.
std::optional<std::string_view> whole_array(std::string_view bytes);

/// Walks the elements of a millrace.v1.*Array message beside its list of nulls.
class ArrayWalker {
 public:
  ArrayWalker(ValueKind kind, std::string_view bytes);

  enum class Item : std::uint8_t { kElement, kNull, kEnd, kInvalid };
  Item next();
  const WireField& element() const { return element_; }

 private:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};

  bool next_packed();
  bool next_field_of_array();
  void next_null() { null_ = nulls_.remaining() > 0 ? nulls_.varint() : kNone; }

  ValueKind kind_;
  ByteReader message_, packed_, nulls_;
  WireField element_;
  std::uint64_t count_ = 0, null_ = kNone;
  bool invalid_ = false;
};

}  // namespace millrace::rendering
