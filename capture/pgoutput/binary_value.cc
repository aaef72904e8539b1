#include "capture/pgoutput/binary_value.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/bytes.h"
#include "capture/pgoutput/builtin_types.h"
#include "capture/pgoutput/numeric_binary.h"
#include "capture/pgoutput/row_field.h"
#include "schemas/row_text.h"

// clang-format off
// The grammar, in network byte order:
//
//   bool       u8(0 | 1)                 date       i32(days since 2000-01-01)
//   int2/4/8   i16 / i32 / i64           time       i64(microseconds)
//   oid        u32                       timetz     i64(microseconds) i32(seconds west of UTC)
//   float4/8   IEEE 754, 4 / 8 bytes     timestamp, timestamptz
//   uuid       16 bytes                             i64(microseconds since 2000-01-01)
//   bytea      bytes                     numeric    see numeric_binary.cc
//   jsonb      u8(1) text                text, varchar, bpchar, name, json, enum: bytes
//
//   array      u32(dimensions, 0 to 6) u32(flags: 1 = has nulls) u32(element's type)
//              dimensions * ( u32(length) i32(lower bound) )
//              product of the lengths * ( i32(-1: null) | u32(length) element )
// clang-format on
namespace millrace::pgoutput {
namespace {

using Form = BinaryType::Form;

constexpr std::uint32_t kDimensionsMax = 6;           // PostgreSQL's MAXDIM
constexpr std::size_t kArrayTextBytesMax = 1u << 30;  // PostgreSQL's MaxAllocSize
constexpr std::uint32_t kNullLength = 0xffffffff;
constexpr std::uint8_t kJsonbVersion = 1;
constexpr std::size_t kUuidBytes = 16;

constexpr std::int64_t kMicrosPerDay = 86'400'000'000;
constexpr std::int32_t kZoneSecondsEnd = 16 * 3600;
// What PostgreSQL can hold (src/include/datatype/timestamp.h).
constexpr std::int64_t kFirstDay = -2'451'545, kLastDay = 2'145'031'948;
constexpr std::int64_t kFirstMicros = kFirstDay * kMicrosPerDay;
constexpr std::int64_t kEndMicros = 106'751'983 * kMicrosPerDay;

bool append_signed(std::int64_t value, std::string& out) {
  append_varint(out, zigzag(value));
  return true;
}

/// Every NaN is the one that the text makes.
template <typename Float, typename Bits>
bool append_float(Bits bits, std::string& out) {
  const auto value = std::bit_cast<Float>(bits);
  if (std::isnan(value)) bits = std::bit_cast<Bits>(std::numeric_limits<Float>::quiet_NaN());
  append_le<Bits>(out, bits);
  return true;
}

bool append_uuid(std::string_view bytes, std::string& out) {
  if (bytes.size() != kUuidBytes) return false;
  constexpr char kDigits[] = "0123456789abcdef";
  char text[36];
  char* to = text;
  for (std::size_t i = 0; i < kUuidBytes; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *to++ = '-';
    *to++ = kDigits[static_cast<std::uint8_t>(bytes[i]) >> 4];
    *to++ = kDigits[static_cast<std::uint8_t>(bytes[i]) & 15];
  }
  append_bytes({text, sizeof text}, out);
  return true;
}

bool append_date(std::int32_t days, std::string& out) {
  using Limits = std::numeric_limits<std::int32_t>;
  const bool infinite = days == Limits::min() || days == Limits::max();
  return (infinite || (days >= kFirstDay && days <= kLastDay)) && append_signed(days, out);
}

bool append_time(std::int64_t micros, std::string& out) {
  return micros >= 0 && micros <= kMicrosPerDay && append_signed(micros, out);
}

bool append_timestamp(std::int64_t micros, std::string& out) {
  using Limits = std::numeric_limits<std::int64_t>;
  const bool infinite = micros == Limits::min() || micros == Limits::max();
  return (infinite || (micros >= kFirstMicros && micros < kEndMicros)) &&
         append_signed(micros, out);
}

/// millrace.v1.TimeTz
bool append_time_tz(std::int64_t micros, std::int32_t west, std::string& out) {
  if (micros < 0 || micros > kMicrosPerDay || west <= -kZoneSecondsEnd || west >= kZoneSecondsEnd)
    return false;
  append_varint(out, part_size(micros) + part_size(-west));
  append_part(1, micros, out);
  append_part(2, -west, out);
  return true;
}

bool append_numeric(std::string_view bytes, std::string& out) {
  BinaryNumeric number;
  if (!number.read(bytes)) return false;
  append_varint(out, number.size());
  const std::size_t start = out.size();
  out.resize(start + number.size());
  number.write(out.data() + start);
  return true;
}

bool append_jsonb(std::string_view bytes, std::string& out) {
  if (bytes.empty() || bytes[0] != kJsonbVersion) return false;
  append_bytes(bytes.substr(1), out);
  return true;
}

template <typename Int>
Int load(std::string_view bytes) {
  return static_cast<Int>(load_be<std::make_unsigned_t<Int>>(bytes.data()));
}

/// Bytes of a value of `form`; 0 where they differ.
constexpr std::size_t size_of(Form form) {
  switch (form) {
    case Form::kBool: return 1;
    case Form::kInt2: return 2;
    case Form::kInt4:
    case Form::kOid:
    case Form::kFloat4:
    case Form::kDate: return 4;
    case Form::kInt8:
    case Form::kFloat8:
    case Form::kTime:
    case Form::kTimestamp: return 8;
    case Form::kTimeTz: return 12;
    default: return 0;
  }
}

/// Appends a value without its tag, or gives false where the bytes are none. What a failed one
/// leaves in `out` is taken back by append_binary_value.
bool append_value(Form form, std::string_view bytes, std::string& out) {
  if (const std::size_t size = size_of(form); size != 0 && bytes.size() != size) [[unlikely]]
    return false;
  switch (form) {
    case Form::kBool: out += bytes[0]; return static_cast<std::uint8_t>(bytes[0]) <= 1;
    case Form::kInt2: return append_signed(load<std::int16_t>(bytes), out);
    case Form::kInt4: return append_signed(load<std::int32_t>(bytes), out);
    case Form::kInt8: return append_signed(load<std::int64_t>(bytes), out);
    case Form::kOid: append_varint(out, load<std::uint32_t>(bytes)); return true;
    case Form::kFloat4: return append_float<float>(load<std::uint32_t>(bytes), out);
    case Form::kFloat8: return append_float<double>(load<std::uint64_t>(bytes), out);
    case Form::kNumeric: return append_numeric(bytes, out);
    case Form::kText:
    case Form::kBytea: append_bytes(bytes, out); return true;
    case Form::kJsonb: return append_jsonb(bytes, out);
    case Form::kUuid: return append_uuid(bytes, out);
    case Form::kDate: return append_date(load<std::int32_t>(bytes), out);
    case Form::kTime: return append_time(load<std::int64_t>(bytes), out);
    case Form::kTimestamp: return append_timestamp(load<std::int64_t>(bytes), out);
    case Form::kTimeTz:
      return append_time_tz(load<std::int64_t>(bytes), load<std::int32_t>(bytes.substr(8)), out);
    case Form::kNone: return false;
  }
  return false;
}

enum class Outcome : std::uint8_t { kDone, kInvalid, kTooLarge };

/// Its buffers are reused: one per thread.
class ArrayDecoder {
 public:
  Outcome append(const ColumnSchema& column, BinaryType type, std::string_view bytes,
                 std::string& out) {
    in_ = ByteReader(bytes);
    form_ = type.form;
    kind_ = column.kind;
    if (!read_header(type.element_oid)) return Outcome::kInvalid;
    // One dimension from 1 on, or none at all: every other shape is kept as its text.
    const bool plain = count_ == 0 || (dimensions_ == 1 && lower_[0] == 1);
    const Outcome outcome = plain ? read_elements() : read_shaped();
    if (outcome != Outcome::kDone) return outcome;
    if (in_.failed() || in_.remaining() != 0) return Outcome::kInvalid;
    if (plain)
      parts_.append_message(wire_type_of(kind_) != kBytes, out);
    else
      append_whole_array(text_, out);
    return Outcome::kDone;
  }

 private:
  bool read_header(std::uint32_t element_oid) {
    dimensions_ = in_.u32_be();
    const std::uint32_t flags = in_.u32_be();
    const std::uint32_t element = in_.u32_be();
    if (in_.failed() || dimensions_ > kDimensionsMax || flags > 1 ||
        (element_oid != 0 && element != element_oid))
      return false;
    count_ = dimensions_ == 0 ? 0 : 1;
    bool empty = false;
    for (std::uint32_t i = 0; i < dimensions_; ++i) {
      length_[i] = in_.u32_be();
      lower_[i] = static_cast<std::int32_t>(in_.u32_be());
      empty = empty || length_[i] == 0;
      if (__builtin_mul_overflow(count_, std::uint64_t{length_[i]}, &count_)) return false;
    }
    if (empty) count_ = 0;
    return !in_.failed() && count_ <= in_.remaining() / 4;  // an element has four bytes at least
  }

  /// The next element's bytes; false for a null.
  bool next(std::string_view& element) {
    const std::uint32_t length = in_.u32_be();
    if (length == kNullLength) return false;
    element = in_.bytes(length);
    return true;
  }

  Outcome read_elements() {
    parts_.clear();
    const bool packed = wire_type_of(kind_) != kBytes;
    const bool as_text = form_ == Form::kTimeTz;  // so it stands in arrays
    std::string_view element;
    for (std::uint64_t i = 0; i < count_; ++i) {
      if (!packed) append_tag(1, kBytes, parts_.values);
      if (!next(element)) {
        parts_.add_null(kind_, i);
        continue;
      }
      if (in_.failed()) return Outcome::kInvalid;
      if (as_text) {
        text_.clear();
        if (!append_element_text(element)) return Outcome::kInvalid;
        append_bytes(text_, parts_.values);
      } else if (!append_value(form_, element, parts_.values)) {
        return Outcome::kInvalid;
      }
      if (parts_.values.size() > kArrayTextBytesMax) return Outcome::kTooLarge;
    }
    return Outcome::kDone;
  }

  /// As array_out writes it: "[0:1][1:2]={{1,2},{3,NULL}}".
  Outcome read_shaped() {
    text_.clear();
    bool bounds = false;
    for (std::uint32_t i = 0; i < dimensions_; ++i) bounds = bounds || lower_[i] != 1;
    for (std::uint32_t i = 0; bounds && i < dimensions_; ++i) {
      const std::int64_t upper = std::int64_t{lower_[i]} + length_[i] - 1;
      if (upper > std::numeric_limits<std::int32_t>::max()) return Outcome::kInvalid;
      text_ += '[' + std::to_string(lower_[i]) + ':' + std::to_string(upper) + ']';
    }
    if (bounds) text_ += '=';
    return read_dimension(0);
  }

  Outcome read_dimension(std::uint32_t dimension) {  // at most kDimensionsMax deep
    text_ += '{';
    for (std::uint32_t i = 0; i < length_[dimension]; ++i) {
      if (i != 0) text_ += ',';
      if (dimension + 1 < dimensions_) {
        const Outcome outcome = read_dimension(dimension + 1);
        if (outcome != Outcome::kDone) return outcome;
        continue;
      }
      std::string_view element;
      if (!next(element)) {
        text_ += "NULL";
        continue;
      }
      if (in_.failed()) return Outcome::kInvalid;
      const std::size_t start = text_.size();
      if (!append_element_text(element)) return Outcome::kInvalid;
      element_.assign(text_, start);
      text_.resize(start);
      append_array_element(element_, text_);
      if (text_.size() > kArrayTextBytesMax) return Outcome::kTooLarge;
    }
    text_ += '}';
    return Outcome::kDone;
  }

  /// Through the row message's form, so that there is one writer of each type's text.
  bool append_element_text(std::string_view bytes) {
    const ColumnSchema scalar{.name = {}, .field = 1, .kind = kind_};
    field_.clear();
    append_tag(1, wire_type_of(kind_), field_);
    return append_value(form_, bytes, field_) &&
           append_value_text(scalar, field_, text_).has_value();
  }

  ByteReader in_{std::string_view{}};
  Form form_ = Form::kNone;
  ValueKind kind_{};
  std::uint32_t dimensions_ = 0;
  std::uint32_t length_[kDimensionsMax] = {};
  std::int32_t lower_[kDimensionsMax] = {};
  std::uint64_t count_ = 0;
  ArrayParts parts_;
  std::string text_, element_, field_;
};

Outcome append_array(const ColumnSchema& column, BinaryType type, std::string_view bytes,
                     std::string& out) {
  thread_local ArrayDecoder decoder;
  return decoder.append(column, type, bytes, out);
}

[[gnu::cold]] Error refusal(const ColumnSchema& column, Outcome outcome, std::string_view bytes) {
  const std::string what = "column \"" + printable(column.name) + "\": ";
  if (outcome == Outcome::kTooLarge)
    return Error(ErrorCode::kUnsupported, what + "an array of type " + printable(column.type_name) +
                                              " that is larger than a gibibyte as text");
  return Error(ErrorCode::kCorruption,
               what + std::to_string(bytes.size()) + " bytes (" + to_hex(bytes.substr(0, 20)) +
                   (bytes.size() > 20 ? "..." : "") + ") are no " + printable(column.type_name) +
                   " in PostgreSQL's binary form");
}

Form form_of(std::uint32_t oid) {
  switch (oid) {
    case 16: return Form::kBool;
    case 17: return Form::kBytea;
    case 19:                        // name
    case 25:                        // text
    case 114:                       // json
    case 1042:                      // bpchar
    case 1043: return Form::kText;  // varchar
    case 20: return Form::kInt8;
    case 21: return Form::kInt2;
    case 23: return Form::kInt4;
    case 26: return Form::kOid;
    case 700: return Form::kFloat4;
    case 701: return Form::kFloat8;
    case 1082: return Form::kDate;
    case 1083: return Form::kTime;
    case 1114:                           // timestamp
    case 1184: return Form::kTimestamp;  // timestamptz
    case 1266: return Form::kTimeTz;
    case 1700: return Form::kNumeric;
    case 2950: return Form::kUuid;
    case 3802: return Form::kJsonb;
    default: return Form::kNone;
  }
}

}  // namespace

BinaryType binary_type(std::uint32_t base_oid, ValueKind kind, bool array) {
  if (kind == ValueKind::kEnum) return {.form = Form::kText, .array = array};
  const std::uint32_t element = array ? element_of_array(base_oid) : base_oid;
  const Form form = form_of(element);
  if (form == Form::kNone) return {};
  return {.form = form, .array = array, .element_oid = array ? element : 0};
}

Result<void> append_binary_value(const ColumnSchema& column, BinaryType type,
                                 std::string_view bytes, std::string& row) {
  const std::size_t start = row.size();
  append_tag(column.field, column.array ? kBytes : wire_type_of(column.kind), row);
  Outcome outcome = Outcome::kInvalid;
  if (type.array == column.array) [[likely]]
    outcome = column.array                          ? append_array(column, type, bytes, row)
              : append_value(type.form, bytes, row) ? Outcome::kDone
                                                    : Outcome::kInvalid;
  if (outcome == Outcome::kDone) [[likely]]
    return {};
  row.resize(start);
  return refusal(column, outcome, bytes);
}

}  // namespace millrace::pgoutput
