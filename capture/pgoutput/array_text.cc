#include "capture/pgoutput/array_text.h"

#include <cstddef>

namespace millrace::pgoutput {
namespace {

/// Takes a number that may be negative.
bool take_bound(std::string_view& text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  const std::size_t digits = text.find_first_not_of("0123456789");
  if (digits == 0 || digits == std::string_view::npos) return false;
  text.remove_prefix(digits);
  return true;
}

bool take(std::string_view& text, char c) {
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

/// Takes "[0:2][-1:1]=" where there is such a thing.
bool take_bounds(std::string_view& text) {
  if (!text.starts_with('[')) return true;
  while (take(text, '['))
    if (!take_bound(text) || !take(text, ':') || !take_bound(text) || !take(text, ']'))
      return false;
  return take(text, '=');
}

}  // namespace

bool is_array_text(std::string_view text) {
  if (!take_bounds(text) || !text.starts_with('{')) return false;
  std::size_t depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\') {
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && c == '{') {
      ++depth;
    } else if (!quoted && c == '}') {
      if (--depth == 0) return i + 1 == text.size();
    }
  }
  return false;
}

ArrayReader::Item ArrayReader::next() {
  if (!started_) return first();
  if (rest_ == "}") return Item::kEnd;
  return take(rest_, ',') ? after_separator() : Item::kInvalid;
}

ArrayReader::Item ArrayReader::first() {
  started_ = true;
  const std::string_view whole = rest_;
  if (whole.starts_with('[') || whole.starts_with("{{"))
    return is_array_text(whole) ? Item::kOtherShape : Item::kInvalid;
  if (!take(rest_, '{')) return Item::kInvalid;
  return rest_ == "}" ? Item::kEnd : after_separator();
}

ArrayReader::Item ArrayReader::after_separator() {
  if (rest_.starts_with('"')) return read_quoted() ? Item::kElement : Item::kInvalid;
  const std::size_t end = rest_.find_first_of(",}");
  if (end == 0 || end == std::string_view::npos) return Item::kInvalid;
  element_ = rest_.substr(0, end);
  rest_.remove_prefix(end);
  if (element_.find_first_of("{\"\\") != std::string_view::npos) return Item::kInvalid;
  return element_ == "NULL" ? Item::kNull : Item::kElement;
}

bool ArrayReader::read_quoted() {
  rest_.remove_prefix(1);
  std::size_t end = rest_.find_first_of("\"\\");
  if (end == std::string_view::npos) return false;
  if (rest_[end] == '"') {
    element_ = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return true;
  }
  buffer_.clear();
  while (end != std::string_view::npos) {
    buffer_ += rest_.substr(0, end);
    const bool escape = rest_[end] == '\\';
    rest_.remove_prefix(end + 1);
    if (!escape) {
      element_ = buffer_;
      return true;
    }
    if (rest_.empty()) return false;
    buffer_ += rest_[0];
    rest_.remove_prefix(1);
    end = rest_.find_first_of("\"\\");
  }
  return false;
}

}  // namespace millrace::pgoutput
