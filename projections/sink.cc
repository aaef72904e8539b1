#include "projections/sink.h"

#include <array>
#include <charconv>

#include "projections/decimal.h"

namespace millrace::projections {
namespace {

constexpr int kExponentMax = 400;  // no double has one that is larger

/// Of a number as sink_text() or a server writes it, which may have an exponent.
std::optional<Decimal> number_in(std::string_view text) {
  if (text == "inf") return Decimal::parse("Infinity");
  if (text == "-inf") return Decimal::parse("-Infinity");
  if (text == "nan" || text == "-nan") return Decimal::parse("NaN");
  const std::size_t e = text.find_first_of("eE");
  const auto number = Decimal::parse(text.substr(0, e));
  if (!number || e == text.npos) return number;
  text.remove_prefix(e + 1);
  if (text.starts_with('+')) text.remove_prefix(1);
  int exponent = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), exponent);
  if (failure != std::errc() || end != text.data() + text.size() || exponent > kExponentMax ||
      exponent < -kExponentMax)
    return std::nullopt;
  if (exponent < 0) return *number * Decimal::scaled(1, static_cast<std::uint32_t>(-exponent));
  return *number * *Decimal::parse("1" + std::string(static_cast<std::size_t>(exponent), '0'));
}

}  // namespace

std::optional<std::string> sink_text(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kInteger: return std::to_string(value.integer());
    case Value::Kind::kReal: {
      std::array<char, 32> text;
      const auto end = std::to_chars(text.data(), text.data() + text.size(), value.real()).ptr;
      return std::string(text.data(), end);
    }
    case Value::Kind::kText:
    case Value::Kind::kBlob: return std::string(value.text());
    default: return std::nullopt;
  }
}

bool same_in_sink(const Column& column, const std::optional<std::string>& here,
                  const std::optional<std::string>& there) {
  if (here == there) return true;
  if (column.type != ColumnType::kNumeric || !here || !there) return false;
  const auto number = number_in(*here), other = number_in(*there);
  return number && other && *number == *other;
}

Error of_another_store(const std::string& where, const std::string& theirs,
                       const std::string& ours) {
  return Error(ErrorCode::kFailedPrecondition,
               where + " was written from another store (" + theirs + ", this one is " + ours + ")")
      .hint(
          "Nothing there was changed. Remove the view there, or give it another place; it is "
          "written anew then.");
}

Error fenced_off(const std::string& where) {
  return Error(ErrorCode::kFailedPrecondition,
               "FENCED: another process has taken over to write " + where)
      .hint(
          "One program may write a view there. Find the other one and stop it, or give one of "
          "the two another place.");
}

}  // namespace millrace::projections
