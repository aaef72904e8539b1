#include "capture/pipeline/copy_binary.h"

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "tests/support/catch.h"

namespace millrace {
namespace {

using Values = std::vector<std::optional<std::string>>;

const std::string kHeader("PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);
const std::string kTrailer("\377\377");

std::string row(const Values& values) {
  std::string out;
  append_be<std::uint16_t>(out, static_cast<std::uint16_t>(values.size()));
  for (const auto& value : values) {
    append_be<std::uint32_t>(out, value ? static_cast<std::uint32_t>(value->size()) : 0xffffffff);
    out += value.value_or("");
  }
  return out;
}

struct Parsed {
  std::vector<Values> rows;
  bool ended = false;
  std::optional<Error> error;
};

Parsed parse(const std::vector<std::string>& messages, std::size_t columns) {
  CopyBinaryParser parser;
  Parsed parsed;
  for (const std::string& message : messages) {
    parser.feed(message);
    for (;;) {
      const auto next = parser.next(columns);
      if (!next) {
        parsed.error = next.error();
        return parsed;
      }
      if (*next == nullptr) break;
      Values& values = parsed.rows.emplace_back();
      for (const pgoutput::Field& field : **next) {
        CHECK((field.state == pgoutput::FieldState::kBinary ||
               field.state == pgoutput::FieldState::kNull));
        values.push_back(field.state == pgoutput::FieldState::kNull
                             ? std::nullopt
                             : std::optional<std::string>(field.value));
      }
    }
  }
  parsed.ended = parser.ended();
  return parsed;
}

ErrorCode code_of(const std::vector<std::string>& messages, std::size_t columns) {
  const Parsed parsed = parse(messages, columns);
  REQUIRE(parsed.error.has_value());
  return parsed.error->code();
}

}  // namespace

TEST_CASE("a binary COPY is read row by row, wherever its messages end", "[capture][binary]") {
  const std::vector<Values> rows = {{"a", std::nullopt, ""}, {"", "b", std::string(300, 'x')}};
  std::string all = kHeader;
  for (const Values& values : rows) all += row(values);
  all += kTrailer;
  for (std::size_t first = 0; first <= all.size(); ++first)
    for (const std::size_t size : {std::size_t{1}, std::size_t{7}, all.size()}) {
      std::vector<std::string> messages = {all.substr(0, first)};
      for (std::size_t at = first; at < all.size(); at += size)
        messages.push_back(all.substr(at, size));
      const Parsed parsed = parse(messages, 3);
      REQUIRE_FALSE(parsed.error);
      REQUIRE(parsed.rows == rows);
      REQUIRE(parsed.ended);
    }
}

TEST_CASE("a binary COPY without rows or without columns is whole", "[capture][binary]") {
  CHECK(parse({kHeader + kTrailer}, 2).ended);
  const Parsed parsed = parse({kHeader + row({}) + row({}) + kTrailer}, 0);
  CHECK(parsed.rows.size() == 2);
  CHECK(parsed.ended);
  std::string extended("PGCOPY\n\377\r\n\0\0\0\0\1\0\0\0\3abc", 22);
  CHECK(parse({extended + kTrailer}, 2).ended);
}

TEST_CASE("B1: a binary COPY that is cut anywhere has not ended", "[capture][binary]") {
  const std::string all = kHeader + row({"a", std::nullopt}) + kTrailer;
  for (std::size_t cut = 0; cut < all.size(); ++cut) {
    const Parsed parsed = parse({all.substr(0, cut)}, 2);
    CHECK_FALSE(parsed.error);
    CHECK_FALSE(parsed.ended);
  }
}

TEST_CASE("a kept row of a binary COPY is taken apart once more", "[capture][binary]") {
  CopyBinaryParser parser, other;
  const std::string all = kHeader + row({"a", std::nullopt}) + row({"", "bc"}) + kTrailer;
  parser.feed(all);
  std::vector<std::string> kept;
  while (parser.next(2).value() != nullptr) kept.emplace_back(parser.row());
  REQUIRE(kept == std::vector<std::string>{row({"a", std::nullopt}), row({"", "bc"})});
  const auto fields = other.parse(kept[1], 2);
  REQUIRE(fields);
  CHECK((**fields)[1].value == "bc");
  CHECK(other.parse(kept[0], 2).value()->front().value == "a");
  CHECK_FALSE(other.parse(kept[0], 3));
  CHECK_FALSE(other.parse(kept[0] + "x", 2));
  CHECK_FALSE(other.parse(std::string_view(kept[1]).substr(0, 9), 2));
}

TEST_CASE("B4: what is no binary COPY of the table is refused", "[capture][binary]") {
  const auto kBad = ErrorCode::kCorruption;
  CHECK(code_of({"a\tb\n"}, 2) == kBad);
  CHECK(code_of({"PGCOPY\n\377\r\n\1"}, 2) == kBad);
  CHECK(code_of({std::string("PGCOPY\n\377\r\n\0\0\1\0\0\0\0\0\0", 19)}, 2) == kBad);
  CHECK(code_of({std::string("PGCOPY\n\377\r\n\0\0\0\0\0\377\0\0\0", 19)}, 2) == kBad);
  CHECK(code_of({kHeader + row({"a"})}, 2) == kBad);
  CHECK(code_of({kHeader + std::string("\377\376", 2)}, 2) == kBad);
  CHECK(code_of({kHeader + std::string("\0\1\377\377\377\376", 6)}, 1) == kBad);  // length -2
  CHECK(code_of({kHeader + std::string("\0\1\177\377\377\377", 6)}, 1) == kBad);  // 2 GiB
  CHECK(code_of({kHeader + kTrailer + "x"}, 1) == kBad);
  CHECK(code_of({kHeader + kTrailer, "x"}, 1) == kBad);
}

}  // namespace millrace
