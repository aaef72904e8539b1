#include "schemas/rendering/json_string.h"

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "base/utf8.h"

namespace millrace::rendering {
namespace {

/// Bytes that stand for themselves in a JSON string.
constexpr std::array<bool, 256> kPlain = [] {
  std::array<bool, 256> plain{};
  for (int c = 0x20; c < 0x7f; ++c) plain[static_cast<std::size_t>(c)] = c != '"' && c != '\\';
  return plain;
}();

void append_escape(std::uint32_t unit, std::string& out) {
  static constexpr char kDigits[] = "0123456789abcdef";
  const char escape[] = {'\\',
                         'u',
                         kDigits[unit >> 12 & 15],
                         kDigits[unit >> 8 & 15],
                         kDigits[unit >> 4 & 15],
                         kDigits[unit & 15]};
  out.append(escape, sizeof escape);
}

void append_special(char c, std::string& out) {
  switch (c) {
    case '"': out += "\\\""; break;
    case '\\': out += "\\\\"; break;
    case '\b': out += "\\b"; break;
    case '\f': out += "\\f"; break;
    case '\n': out += "\\n"; break;
    case '\r': out += "\\r"; break;
    case '\t': out += "\\t"; break;
    default: append_escape(static_cast<std::uint8_t>(c), out);
  }
}

/// U+0080 to U+009F, U+2028 and U+2029: control characters and line ends for somebody.
bool is_unsafe(std::string_view character) {
  if (character.size() == 2)
    return character[0] == '\xc2' && static_cast<std::uint8_t>(character[1]) < 0xa0;
  return character == "\xe2\x80\xa8" || character == "\xe2\x80\xa9";
}

/// The code point of a character of up to three bytes.
std::uint32_t code_point(std::string_view character) {
  const auto low = [&](std::size_t i) { return static_cast<std::uint32_t>(character[i]) & 0x3f; };
  if (character.size() == 1) return static_cast<std::uint8_t>(character[0]);
  if (character.size() == 2) return (static_cast<std::uint32_t>(character[0]) & 0x1f) << 6 | low(1);
  return (static_cast<std::uint32_t>(character[0]) & 0x0f) << 12 | low(1) << 6 | low(2);
}

/// Length of the longest start of `text` that stands for itself.
std::size_t plain_length(std::string_view text) {
  std::size_t length = 0;
  while (length < text.size()) {
    if (kPlain[static_cast<std::uint8_t>(text[length])]) {
      ++length;
      continue;
    }
    if (static_cast<std::uint8_t>(text[length]) < 0x80) break;
    const std::size_t character = utf8_length(text.substr(length));
    if (character == 0 || is_unsafe(text.substr(length, character))) break;
    length += character;
  }
  return length;
}

/// Appends `text` escaped up to its first byte that is no UTF-8; gives the bytes that were taken.
std::size_t append_escaped(std::string_view text, std::string& out) {
  const std::size_t size = text.size();
  while (true) {
    const std::size_t plain = plain_length(text);
    out.append(text.data(), plain);
    text.remove_prefix(plain);
    const std::size_t length = text.empty() ? 0 : utf8_length(text);
    if (length == 0) return size - text.size();
    if (length == 1)
      append_special(text[0], out);
    else
      append_escape(code_point(text.substr(0, length)), out);
    text.remove_prefix(length);
  }
}

}  // namespace

void append_json_text(std::string_view text, std::string& out) {
  const std::size_t start = out.size();
  out += '"';
  if (append_escaped(text, out) == text.size()) {
    out += '"';
    return;
  }
  out.resize(start);
  out += "{\"base64\":";
  append_json_base64(text, out);
  out += '}';
}

void append_json_name(std::string_view name, std::string& out) {
  out += '"';
  name.remove_prefix(append_escaped(name, out));
  while (!name.empty()) {
    out += "\\\\x" + to_hex(name.substr(0, 1));
    name.remove_prefix(1);
    name.remove_prefix(append_escaped(name, out));
  }
  out += '"';
}

void append_json_base64(std::string_view bytes, std::string& out) {
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const std::size_t start = out.size();
  out.resize(start + (bytes.size() + 2) / 3 * 4 + 2, '=');
  char* to = out.data() + start;
  *to++ = '"';
  while (!bytes.empty()) {
    const std::size_t count = bytes.size() < 3 ? bytes.size() : 3;
    std::uint32_t group = 0;
    for (std::size_t i = 0; i < 3; ++i)
      group = group << 8 | (i < count ? static_cast<std::uint8_t>(bytes[i]) : 0u);
    for (std::size_t i = 0; i <= count; ++i) to[i] = kDigits[group >> (18 - 6 * i) & 63];
    to += 4;
    bytes.remove_prefix(count);
  }
  *to = '"';
}

void append_json_verbatim(std::string_view json, std::string& out) {
  const auto is_fine = [](char c) {
    return c != '\n' && c != '\r' && c != '\x7f' && c != '\xc2' && c != '\xe2';
  };
  while (!json.empty()) {
    std::size_t length = 0;
    while (length < json.size() && is_fine(json[length])) ++length;
    out += json.substr(0, length);
    json.remove_prefix(length);
    if (json.empty()) return;
    const std::string_view character = json.substr(0, utf8_length(json));
    if (character == "\n" || character == "\r")
      out += ' ';
    else if (character == "\x7f" || is_unsafe(character))  // inside a string: the same one, escaped
      append_escape(code_point(character), out);
    else
      out += character;
    json.remove_prefix(character.size());
  }
}

}  // namespace millrace::rendering
