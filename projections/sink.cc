#include "projections/sink.h"

#include <array>
#include <charconv>

#include "projections/decimal.h"

namespace millrace::projections {
namespace {

/// Of a number as sink_text() or a server writes it.
std::optional<Decimal> number_in(std::string_view text) {
  if (text == "inf") text = "Infinity";
  if (text == "-inf") text = "-Infinity";
  if (text == "nan" || text == "-nan") text = "NaN";
  return Decimal::parse(text);
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
