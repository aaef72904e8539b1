#include "capture/pgoutput/row_writer.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <string>

#include "base/bytes.h"
#include "capture/pgoutput/numeric_binary.h"
#include "capture/pgoutput/row_field.h"

namespace millrace::pgoutput {
namespace {

using Form = BinaryType::Form;

constexpr std::size_t kRoomMin = 4096;
constexpr std::int64_t kMicrosPerSecond = 1'000'000;

bool is_digit(char c) { return static_cast<unsigned char>(c - '0') < 10; }

char* write_tag(const ColumnPlan& column, char* to) {
  std::memcpy(to, column.tag, sizeof column.tag);  // always five: one store; what is too much is
  return to + column.tag_size;                     // overwritten by the value
}

char* write_varint(std::uint64_t value, char* to) {
  for (; value >= 0x80; value >>= 7) *to++ = static_cast<char>(value | 0x80);
  *to++ = static_cast<char>(value);
  return to;
}

char* write_sized(std::string_view bytes, char* to) {
  return std::copy(bytes.begin(), bytes.end(), write_varint(bytes.size(), to));
}

/// Up to 18 digits: they can't overflow. int4 has fewer, and is looked at again.
char* write_integer(const ColumnPlan& column, std::string_view text, char* to) {
  const bool negative = !text.empty() && text[0] == '-';
  const std::size_t digits = text.size() - (negative ? 1 : 0);
  if (digits == 0 || digits > 18) return nullptr;
  std::int64_t value = 0;
  for (std::size_t i = negative ? 1 : 0; i < text.size(); ++i) {
    if (!is_digit(text[i])) return nullptr;
    value = value * 10 + (text[i] - '0');
  }
  if (negative) value = -value;
  if (column.kind == ValueKind::kInt32 && value != static_cast<std::int32_t>(value)) return nullptr;
  return write_varint(zigzag(value), write_tag(column, to));
}

/// Digits with at most one point between them.
bool is_plain_number(std::string_view text) {
  std::size_t i = !text.empty() && text[0] == '-' ? 1 : 0;
  const std::size_t whole = i;
  while (i < text.size() && is_digit(text[i])) ++i;
  if (i == whole) return false;
  if (i == text.size()) return true;
  if (text[i++] != '.') return false;
  const std::size_t fraction = i;
  while (i < text.size() && is_digit(text[i])) ++i;
  return i > fraction && i == text.size();
}

/// Digits at fixed places; anything else sets `bad`.
class FixedDigits {
 public:
  explicit FixedDigits(std::string_view text) : text_(text) {}
  unsigned two(std::size_t at) {
    const unsigned tens = digit(at), ones = digit(at + 1);
    return tens * 10 + ones;
  }
  void expect(std::size_t at, char c) { bad_ = bad_ || text_.data()[at] != c; }
  bool bad() const { return bad_; }

 private:
  unsigned digit(std::size_t at) {
    const auto value = static_cast<unsigned char>(text_.data()[at] - '0');
    bad_ = bad_ || value > 9;
    return value;
  }
  std::string_view text_;
  bool bad_ = false;
};

/// Days since 2000-01-01 of "2026-01-31" at the beginning of `in`, of the years 1 to 9999.
std::int64_t fixed_date(FixedDigits& in, bool& good) {
  const unsigned year = in.two(0) * 100 + in.two(2), month = in.two(5), day = in.two(8);
  in.expect(4, '-');
  in.expect(7, '-');
  constexpr std::uint8_t kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
  good = !in.bad() && year >= 1 && month >= 1 && month <= 12 && day >= 1 &&
         day <= kDays[month - 1] + (month == 2 && leap ? 1u : 0u);
  if (!good) return 0;
  // Counted from 1 March of the year 0, so that the day that not every year has comes last.
  const unsigned years = month <= 2 ? year - 1 : year;
  const unsigned month_from_march = month <= 2 ? month + 9 : month - 3;
  const std::int64_t days = years * 365u + years / 4 - years / 100 + years / 400 +
                            (153 * month_from_march + 2) / 5 + day - 1;
  return days - 730'425;
}

char* write_date(const ColumnPlan& column, std::string_view text, char* to) {
  if (text.size() != 10) return nullptr;
  FixedDigits in(text);
  bool good = false;
  const std::int64_t days = fixed_date(in, good);
  return good ? write_varint(zigzag(days), write_tag(column, to)) : nullptr;
}

/// "2026-01-31 12:34:56", up to six digits of a second behind a point, "+00" for timestamptz.
char* write_timestamp(const ColumnPlan& column, std::string_view text, char* to) {
  constexpr std::size_t kWhole = 19;
  if (column.kind == ValueKind::kTimestampTz) {
    if (!text.ends_with("+00")) return nullptr;
    text.remove_suffix(3);
  }
  if (text.size() < kWhole || text.size() == kWhole + 1 || text.size() > kWhole + 7) return nullptr;
  FixedDigits in(text);
  bool good = false;
  const std::int64_t days = fixed_date(in, good);
  const unsigned hours = in.two(11), minutes = in.two(14), seconds = in.two(17);
  in.expect(10, ' ');
  in.expect(13, ':');
  in.expect(16, ':');
  std::int64_t micros = 0;
  if (text.size() > kWhole) {
    in.expect(kWhole, '.');
    for (std::size_t i = kWhole + 1; i < kWhole + 7; ++i) {
      const bool there = i < text.size();
      if (there && !is_digit(text[i])) return nullptr;
      micros = micros * 10 + (there ? text[i] - '0' : 0);
    }
  }
  if (!good || in.bad() || hours > 23 || minutes > 59 || seconds > 59) return nullptr;
  micros += (days * 86'400 + hours * 3600 + minutes * 60 + seconds) * kMicrosPerSecond;
  return write_varint(zigzag(micros), write_tag(column, to));
}

std::int64_t load_signed(std::string_view bytes) {
  switch (bytes.size()) {
    case 2: return static_cast<std::int16_t>(load_be<std::uint16_t>(bytes.data()));
    case 4: return static_cast<std::int32_t>(load_be<std::uint32_t>(bytes.data()));
    default: return static_cast<std::int64_t>(load_be<std::uint64_t>(bytes.data()));
  }
}

char* write_signed(const ColumnPlan& column, std::string_view bytes, std::size_t size, char* to) {
  if (bytes.size() != size) return nullptr;
  return write_varint(zigzag(load_signed(bytes)), write_tag(column, to));
}

/// Of the years 1 to 9999, far from what PostgreSQL can't hold.
char* write_near_timestamp(const ColumnPlan& column, std::string_view bytes, char* to) {
  constexpr std::int64_t kNear = 7'000 * std::int64_t{366} * 86'400 * kMicrosPerSecond;
  if (bytes.size() != 8) return nullptr;
  const std::int64_t micros = load_signed(bytes);
  if (micros < -kNear / 4 || micros > kNear) return nullptr;
  return write_varint(zigzag(micros), write_tag(column, to));
}

char* write_number(const ColumnPlan& column, std::string_view bytes, char* to) {
  constexpr std::size_t kSmall = 40;  // with the tag and a length of one byte below what there is
  BinaryNumeric number;
  if (!number.read(bytes) || number.size() > kSmall) return nullptr;
  to = write_tag(column, to);
  *to++ = static_cast<char>(number.size());
  return number.write(to);
}

}  // namespace

void RowBuffer::give_back(std::size_t bytes_max) {
  size_ = 0;
  if (capacity_ <= bytes_max) return;
  bytes_.reset();
  capacity_ = 0;
}

void RowBuffer::grow(std::size_t bytes) {
  const std::size_t capacity = std::max({kRoomMin, size_ + bytes, capacity_ + capacity_ / 2});
  std::unique_ptr<char[]> larger(new char[capacity]);
  if (size_ != 0) std::memcpy(larger.get(), bytes_.get(), size_);
  bytes_ = std::move(larger);
  capacity_ = capacity;
}

ColumnPlan::ColumnPlan(const ColumnSchema& column, BinaryType binary_form)
    : kind(column.kind), binary(binary_form), array(column.array) {
  std::string encoded;
  append_tag(column.field, array ? kBytes : wire_type_of(kind), encoded);
  tag_size = static_cast<std::uint8_t>(encoded.copy(tag, sizeof tag));
}

char* write_text_value(const ColumnPlan& column, std::string_view value, char* to) {
  if (column.array) return nullptr;
  switch (column.kind) {
    case ValueKind::kText:
    case ValueKind::kJson:
    case ValueKind::kEnum:
    case ValueKind::kExactText: return write_sized(value, write_tag(column, to));
    case ValueKind::kInt32:
    case ValueKind::kInt64: return write_integer(column, value, to);
    case ValueKind::kNumeric:
      return is_plain_number(value) ? write_sized(value, write_tag(column, to)) : nullptr;
    case ValueKind::kTimestamp:
    case ValueKind::kTimestampTz: return write_timestamp(column, value, to);
    case ValueKind::kDate: return write_date(column, value, to);
    case ValueKind::kBool:
      if (value != "t" && value != "f") return nullptr;
      to = write_tag(column, to);
      *to = value[0] == 't' ? '\1' : '\0';
      return to + 1;
    default: return nullptr;
  }
}

char* write_binary_value(const ColumnPlan& column, std::string_view value, char* to) {
  if (column.array) return nullptr;
  switch (column.binary.form) {
    case Form::kText:
    case Form::kBytea: return write_sized(value, write_tag(column, to));
    case Form::kInt2: return write_signed(column, value, 2, to);
    case Form::kInt4: return write_signed(column, value, 4, to);
    case Form::kInt8: return write_signed(column, value, 8, to);
    case Form::kTimestamp: return write_near_timestamp(column, value, to);
    case Form::kNumeric: return write_number(column, value, to);
    case Form::kBool:
      if (value.size() != 1 || static_cast<unsigned char>(value[0]) > 1) return nullptr;
      to = write_tag(column, to);
      *to = value[0];
      return to + 1;
    default: return nullptr;
  }
}

std::optional<std::string_view> text_of_binary(const ColumnPlan& column, std::string_view value,
                                               std::span<char, kIntegerTextBytes> room) {
  if (column.array) return std::nullopt;
  const Form form = column.binary.form;
  if (form == Form::kText) return value;
  const std::size_t size = form == Form::kInt2   ? 2
                           : form == Form::kInt4 ? 4
                           : form == Form::kInt8 ? 8
                                                 : 0;
  if (size == 0 || value.size() != size) return std::nullopt;
  const auto end = std::to_chars(room.data(), room.data() + room.size(), load_signed(value)).ptr;
  return std::string_view(room.data(), static_cast<std::size_t>(end - room.data()));
}

}  // namespace millrace::pgoutput
