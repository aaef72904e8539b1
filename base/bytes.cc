#include "base/bytes.h"

#include <charconv>

#include "base/utf8.h"

namespace millrace {

ByteReader::LongVarint ByteReader::read_long_varint(const char* next, const char* end) {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64 && next != end; shift += 7) {
    const std::uint64_t group = static_cast<std::uint8_t>(*next++);
    if (shift == 63 && group > 1) return {};
    value |= (group & 0x7f) << shift;
    if (group < 0x80) return {.value = value, .end = next};
  }
  return {};
}

std::string_view ByteReader::cstring() {
  const void* end = remaining() == 0 ? nullptr : std::memchr(next_, 0, remaining());
  if (end == nullptr) return fail(), std::string_view{};
  const std::string_view view(next_, static_cast<const char*>(end));
  next_ = static_cast<const char*>(end) + 1;
  return view;
}

Error ByteReader::mismatch(std::string_view what) const {
  std::string text(what);
  text += failed_ ? ": ends too early or holds a value that can't be"
                  : ": " + std::to_string(remaining()) + " bytes too many";
  return Error(ErrorCode::kCorruption, std::move(text));
}

std::string to_hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (const char byte : bytes) {
    hex += kDigits[static_cast<std::uint8_t>(byte) >> 4];
    hex += kDigits[static_cast<std::uint8_t>(byte) & 15];
  }
  return hex;
}

Result<std::string> from_hex(std::string_view hex) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string bytes;
  bytes.reserve(hex.size() / 2);
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    const int high = digit(hex[i]), low = digit(hex[i + 1]);
    if (high < 0 || low < 0)
      return Error(ErrorCode::kInvalidArgument, "not hexadecimal: " + printable(hex));
    bytes += static_cast<char>(high << 4 | low);
  }
  if (hex.size() % 2 != 0)
    return Error(ErrorCode::kInvalidArgument, "odd number of hexadecimal digits");
  return bytes;
}

void append_padded(std::uint64_t number, std::size_t width, std::string& out) {
  char digits[20];
  const char* end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  const auto size = static_cast<std::size_t>(end - digits);
  if (size < width) out.append(width - size, '0');
  out.append(digits, size);
}

std::string printable(std::string_view text, std::size_t bytes_max) {
  std::string out;
  const bool cut = text.size() > bytes_max;
  text = text.substr(0, bytes_max);
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const auto byte = static_cast<std::uint8_t>(text[0]);
    if (length == 0 || byte < 0x20 || byte == 0x7f) {
      out += "\\x" + to_hex(text.substr(0, 1));
      text.remove_prefix(1);
      continue;
    }
    if (byte == '"' || byte == '\\') out += '\\';
    out += text.substr(0, length);
    text.remove_prefix(length);
  }
  return cut ? out + "..." : out;
}

}  // namespace millrace
