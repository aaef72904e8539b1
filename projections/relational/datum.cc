#include "projections/relational/datum.h"

#include <bit>
#include <charconv>
#include <cmath>
#include <iterator>
#include <stdexcept>

#include "base/bytes.h"

// clang-format off
// An encoded datum, which sorts as bytes:
//
//   datum  0                           null
//        | 1 u64_be                    an integer, its highest bit inverted
//        | 2 u64_be                    a real: below zero all bits inverted, else the highest one; NaN above all
//        | 3 decimal                   see decimal.cc
//        | 4 text | 5 text             text; bytes
//   text   each zero byte as 00 ff, then 00 00
// clang-format on
namespace millrace::projections {
namespace {

enum Tag : char { kNull = 0, kInteger = 1, kReal = 2, kDecimal = 3, kText = 4, kBlob = 5 };

constexpr std::uint64_t kHighest = 1ull << 63;

void append_escaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    out += c;
    if (c == '\0') out += '\xff';
  }
  out.append(2, '\0');
}

std::optional<std::string> take_escaped(std::string_view& in) {
  std::string text;
  for (std::size_t i = 0; i + 1 < in.size(); ++i) {
    if (in[i] != '\0') {
      text += in[i];
    } else if (in[i + 1] == '\xff') {
      text += in[i++];
    } else if (in[i + 1] == '\0') {
      in.remove_prefix(i + 2);
      return text;
    } else {
      return std::nullopt;
    }
  }
  return std::nullopt;
}

std::uint64_t ordered(double number) {
  if (std::isnan(number)) return UINT64_MAX;
  if (number == 0) number = 0;  // -0 is 0 to PostgreSQL
  const auto bits = std::bit_cast<std::uint64_t>(number);
  return (bits & kHighest) != 0 ? ~bits : bits | kHighest;
}

double real_of(std::uint64_t ordered) {
  return std::bit_cast<double>((ordered & kHighest) != 0 ? ordered & ~kHighest : ~ordered);
}

}  // namespace

Datum::Datum(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kNull:
    case Value::Kind::kUnchanged: break;
    case Value::Kind::kInteger: held_ = value.integer(); break;
    case Value::Kind::kReal: held_ = value.real(); break;
    case Value::Kind::kText: held_ = std::string(value.text()); break;
    case Value::Kind::kBlob: held_ = Bytes{std::string(value.text())}; break;
  }
}

Datum Datum::blob(std::string bytes) {
  Datum datum;
  datum.held_ = Bytes{std::move(bytes)};
  return datum;
}

std::int64_t Datum::integer() const {
  if (const auto* number = std::get_if<std::int64_t>(&held_)) return *number;
  return Value(real()).integer();
}

double Datum::real() const {
  if (const auto* number = std::get_if<double>(&held_)) return *number;
  if (const auto* number = std::get_if<std::int64_t>(&held_)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<Decimal>(&held_)) return number->real();
  return 0;
}

std::optional<Decimal> Datum::decimal() const {
  if (const auto* number = std::get_if<Decimal>(&held_)) return *number;
  if (const auto* number = std::get_if<std::int64_t>(&held_)) return Decimal(*number);
  if (const auto* text = std::get_if<std::string>(&held_)) return Decimal::parse(*text);
  return std::nullopt;
}

std::string_view Datum::text() const {
  if (const auto* text = std::get_if<std::string>(&held_)) return *text;
  if (const auto* bytes = std::get_if<Bytes>(&held_)) return bytes->bytes;
  return {};
}

Value Datum::value(std::string& buffer) const {
  if (const auto* number = std::get_if<std::int64_t>(&held_)) return *number;
  if (const auto* number = std::get_if<double>(&held_)) return *number;
  if (const auto* text = std::get_if<std::string>(&held_)) return *text;
  if (const auto* bytes = std::get_if<Bytes>(&held_)) return Value::blob(bytes->bytes);
  if (const auto* number = std::get_if<Decimal>(&held_)) return buffer = number->text();
  return {};
}

std::string Datum::key_text() const {
  if (const auto* number = std::get_if<std::int64_t>(&held_)) return std::to_string(*number);
  if (const auto* number = std::get_if<Decimal>(&held_)) return number->text();
  if (const auto* number = std::get_if<double>(&held_)) {
    char text[32];
    // "%.17g" in any locale
    const auto written =
        std::to_chars(text, std::end(text), *number, std::chars_format::general, 17);
    return {text, written.ptr};
  }
  return std::string(text());
}

Datum Datum::normalized() const {
  if (const auto* number = std::get_if<double>(&held_)) return *number == 0 ? Datum(0.0) : *this;
  const auto* number = std::get_if<Decimal>(&held_);
  if (number == nullptr || !number->is_finite()) return *this;
  const Decimal reduced = number->reduced();
  const auto integer = reduced.integer();
  return integer ? Datum(*integer) : Datum(reduced);
}

std::string Datum::key_part() const {
  if (is_null()) return "\\N";
  std::string part;
  for (const char c : key_text()) {
    if (c == ',' || c == '\\') part += '\\';
    part += c;
  }
  return part;
}

void Datum::encode(std::string& out) const {
  const struct {
    std::string& out;
    void operator()(std::monostate) const { out += kNull; }
    void operator()(std::int64_t number) const {
      out += kInteger;
      append_be<std::uint64_t>(out, static_cast<std::uint64_t>(number) ^ kHighest);
    }
    void operator()(double number) const {
      out += kReal;
      append_be<std::uint64_t>(out, ordered(number));
    }
    void operator()(const Decimal& number) const {
      out += kDecimal;
      number.encode(out);
    }
    void operator()(const std::string& text) const {
      out += kText;
      append_escaped(out, text);
    }
    void operator()(const Bytes& blob) const {
      out += kBlob;
      append_escaped(out, blob.bytes);
    }
  } encoder{out};
  std::visit(encoder, held_);
}

std::optional<Datum> Datum::take(std::string_view& in) {
  if (in.empty()) return std::nullopt;
  const char tag = in.front();
  in.remove_prefix(1);
  switch (tag) {
    case kNull: return Datum();
    case kInteger:
    case kReal: {
      if (in.size() < sizeof(std::uint64_t)) return std::nullopt;
      const auto number = load_be<std::uint64_t>(in.data());
      in.remove_prefix(sizeof number);
      if (tag == kReal) return Datum(real_of(number));
      return Datum(static_cast<std::int64_t>(number ^ kHighest));
    }
    case kDecimal: {
      auto number = Decimal::take(in);
      return number ? std::optional<Datum>(*std::move(number)) : std::nullopt;
    }
    case kText:
    case kBlob: {
      auto text = take_escaped(in);
      if (!text) return std::nullopt;
      return tag == kText ? Datum(*std::move(text)) : blob(*std::move(text));
    }
    default: return std::nullopt;
  }
}

const Datum& Record::operator[](std::string_view name) const {
  for (const auto& [field, value] : fields_)
    if (field == name) return value;
  std::string there;
  for (const auto& [field, value] : fields_) there += (there.empty() ? "" : ", ") + field;
  throw std::invalid_argument("the row has no field '" + std::string(name) + "'; it has: " + there);
}

}  // namespace millrace::projections
