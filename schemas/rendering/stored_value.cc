#include "schemas/rendering/stored_value.h"

namespace millrace::rendering {
namespace {

constexpr std::int32_t kZoneSecondsMax = 16 * 3600;

bool is_int32(std::int64_t value) { return value == static_cast<std::int32_t>(value); }

}  // namespace

std::optional<StoredTimeTz> read_time_tz(std::string_view bytes) {
  std::int64_t micros = 0, offset = 0;
  ByteReader in(bytes);
  for (WireField field; next_field(in, field);) {
    if (field.type != WireType::kVarint || field.number > 2) return std::nullopt;
    (field.number == 1 ? micros : offset) = unzigzag(field.number_value);
  }
  if (in.failed() || micros < 0 || micros > kMicrosPerDay || offset <= -kZoneSecondsMax ||
      offset >= kZoneSecondsMax)
    return std::nullopt;
  return StoredTimeTz{micros, static_cast<std::int32_t>(offset)};
}

std::optional<StoredInterval> read_interval(std::string_view bytes) {
  std::int64_t parts[5] = {};  // by field number
  ByteReader in(bytes);
  for (WireField field; next_field(in, field);) {
    if (field.type != WireType::kVarint || field.number > 4) return std::nullopt;
    parts[field.number] = unzigzag(field.number_value);
  }
  const auto [unused, months, days, micros, infinity] = parts;
  if (in.failed() || !is_int32(months) || !is_int32(days) || infinity > 1 || infinity < -1)
    return std::nullopt;
  return StoredInterval{.months = static_cast<std::int32_t>(months),
                        .days = static_cast<std::int32_t>(days),
                        .micros = micros,
                        .infinity = static_cast<int>(infinity)};
}

std::optional<std::string_view> whole_array(std::string_view bytes) {
  ByteReader in(bytes);
  WireField field;
  if (!next_field(in, field) || field.number != 3 || field.type != WireType::kBytes ||
      in.remaining() != 0)
    return std::nullopt;
  return field.bytes;
}

ArrayWalker::ArrayWalker(ValueKind kind, std::string_view bytes)
    : kind_(element_kind(kind)), message_(bytes), packed_({}), nulls_({}) {
  ByteReader in(bytes);  // the nulls come behind the values, so they are looked up first
  for (WireField field; next_field(in, field);)
    if (field.number == 2 && field.type == WireType::kBytes) nulls_ = ByteReader(field.bytes);
  invalid_ = in.failed();
  next_null();
}

ArrayWalker::Item ArrayWalker::next() {
  if (invalid_) return Item::kInvalid;
  if (packed_.remaining() > 0 ? !next_packed() : !next_field_of_array()) {
    // A null may not be left over that no element stands for.
    const bool fine = !invalid_ && !nulls_.failed() && null_ == kNone;
    return fine ? Item::kEnd : Item::kInvalid;
  }
  if (count_++ != null_) return Item::kElement;
  next_null();
  return Item::kNull;
}

bool ArrayWalker::next_packed() {
  element_.type = wire_type_of(kind_);
  element_.number_value = element_.type == WireType::kVarint    ? packed_.varint()
                          : element_.type == WireType::kFixed32 ? packed_.u32_le()
                                                                : packed_.u64_le();
  invalid_ = packed_.failed();
  return !invalid_;
}

bool ArrayWalker::next_field_of_array() {
  for (WireField field; next_field(message_, field);) {
    if (field.number == 2) continue;
    if (field.number != 1 || field.type != WireType::kBytes) return invalid_ = true, false;
    element_ = field;
    if (wire_type_of(kind_) == WireType::kBytes) return true;
    packed_ = ByteReader(field.bytes);
    if (packed_.remaining() > 0) return next_packed();
  }
  return false;
}

}  // namespace millrace::rendering
