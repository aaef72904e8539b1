#include "base/bytes.h"

#include <limits>
#include <random>

#include "base/utf8.h"
#include "tests/support/catch.h"

using namespace millrace;

TEST_CASE("a number survives its bytes, and the bytes are in the order that was asked for",
          "[base]") {
  std::string bytes;
  append_le<std::uint32_t>(bytes, 0x01020304u);
  append_be<std::uint32_t>(bytes, 0x01020304u);
  append_be<std::uint16_t>(bytes, 0x0506u);
  append_le<std::uint64_t>(bytes, 0x0708090a0b0c0d0eull);
  CHECK(to_hex(bytes) == "040302010102030405060e0d0c0b0a090807");
  ByteReader in(bytes);
  CHECK(in.u32_le() == 0x01020304u);
  CHECK(in.u32_be() == 0x01020304u);
  CHECK(in.u16_be() == 0x0506u);
  CHECK(in.u64_le() == 0x0708090a0b0c0d0eull);
  CHECK(in.finish("test", 1).has_value());
}

TEST_CASE("a varint survives, and has the size that varint_size says", "[base]") {
  std::mt19937_64 random(3);
  for (int round = 0; round < 10'000; ++round) {
    const std::uint64_t value = random() >> (random() % 64);
    std::string bytes;
    append_varint(bytes, value);
    REQUIRE(bytes.size() == varint_size(value));
    ByteReader in(bytes);
    REQUIRE(in.varint() == value);
    REQUIRE(in.finish("varint", 1).has_value());
  }
  for (const std::uint64_t edge : {std::uint64_t{0}, std::uint64_t{127}, std::uint64_t{128},
                                   std::numeric_limits<std::uint64_t>::max()}) {
    std::string bytes;
    append_varint(bytes, edge);
    CHECK(ByteReader(bytes).varint() == edge);
    CHECK(bytes.size() == varint_size(edge));
  }
}

TEST_CASE("a varint that is too long, too large or cut short fails", "[base]") {
  for (const std::string& bytes :
       {std::string(11, '\x80') + "\x01", std::string(9, '\xff') + "\x02", std::string(3, '\x80'),
        std::string()}) {
    ByteReader in(bytes);
    CHECK(in.varint() == 0);
    CHECK(in.failed());
  }
}

TEST_CASE("zigzag keeps small numbers of either sign small", "[base]") {
  CHECK(zigzag(0) == 0);
  CHECK(zigzag(-1) == 1);
  CHECK(zigzag(1) == 2);
  for (const std::int64_t value :
       {std::numeric_limits<std::int64_t>::min(), std::int64_t{-300}, std::int64_t{0},
        std::int64_t{77}, std::numeric_limits<std::int64_t>::max()})
    CHECK(unzigzag(zigzag(value)) == value);
}

TEST_CASE("the first failure of a reader sticks and nothing beyond the end is read", "[base]") {
  ByteReader in("abc");
  CHECK(in.u32_be() == 0);
  CHECK(in.failed());
  CHECK(in.u8() == 0);  // though there were bytes for it
  CHECK(in.bytes(1).empty());
  CHECK(in.cstring().empty());
  const Error error = in.finish("header", 1).error();
  CHECK(error.code() == ErrorCode::kCorruption);
  CHECK(error.message().find("header") == 0);
}

TEST_CASE("bytes left over are an error that counts them", "[base]") {
  ByteReader in("abcdef");
  CHECK(in.bytes(4) == "abcd");
  CHECK(in.finish("thing", 1).error().message() == "thing: 2 bytes too many");
}

TEST_CASE("a length larger than what is there fails, also at the largest", "[base]") {
  ByteReader in("abc");
  CHECK(in.bytes(std::numeric_limits<std::uint64_t>::max()).empty());
  CHECK(in.failed());
}

TEST_CASE("a string ends at its NUL, and without one there is none", "[base]") {
  ByteReader in(std::string_view("ab\0cd", 5));
  CHECK(in.cstring() == "ab");
  CHECK(in.cstring().empty());
  CHECK(in.failed());
}

TEST_CASE("hexadecimal goes both ways", "[base]") {
  std::string every;
  for (int byte = 0; byte < 256; ++byte) every += static_cast<char>(byte);
  CHECK(from_hex(to_hex(every)) == every);
  CHECK(from_hex("AbCd") == std::string("\xab\xcd"));
  CHECK(from_hex("") == std::string());
  for (const char* wrong : {"a", "0g", "0x10", " 1", "-1"})
    CHECK(from_hex(wrong).error().code() == ErrorCode::kInvalidArgument);
}

TEST_CASE("B68: printable text holds nothing that could break a log line", "[base]") {
  CHECK(printable("plain") == "plain");
  CHECK(printable("a\nb\x1b[31m\"\\") == "a\\x0ab\\x1b[31m\\\"\\\\");
  CHECK(printable("Gr\xc3\xbc\xc3\x9f"
                  "e") ==
        "Gr\xc3\xbc\xc3\x9f"
        "e");
  CHECK(printable("\xff\xc3(\xed\xa0\x80\xc0\xaf") == "\\xff\\xc3(\\xed\\xa0\\x80\\xc0\\xaf");
  CHECK(printable("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");  // beyond Unicode
  CHECK(printable(std::string(300, 'a'), 10) == "aaaaaaaaaa...");
  CHECK(printable("\xc3\xbc", 1) == "\\xc3...");  // cut within a character
}

TEST_CASE("UTF-8 is recognised as RFC 3629 has it", "[base]") {
  for (const std::string_view good :
       {"a", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf",
        "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
    CHECK(utf8_length(good) == good.size());
  for (const std::string_view bad :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x41", "\xe0\x9f\xbf", "\xe0\xa0",
        "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf0\x90\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xff"}) {
    CAPTURE(bad);
    CHECK(utf8_length(bad) == 0);
  }
}
