// The grammar of RFC 8259, without recursion: a value may nest as deeply as it likes. What is open
// is kept as one character a level.

#include <string>

#include "base/utf8.h"
#include "schemas/rendering/json_string.h"

namespace millrace::rendering {
namespace {

class JsonCheck {
 public:
  explicit JsonCheck(std::string_view text) : text_(text) {}

  bool run() {
    if (!value()) return false;
    while (!open_.empty())
      if (!after_value()) return false;
    skip_space();
    return text_.empty();
  }

 private:
  /// A scalar, an empty container, or the way down to the first scalar in containers, which are
  /// then open.
  bool value() {
    while (true) {
      skip_space();
      if (take('{')) {
        skip_space();
        if (take('}')) return true;
        open_ += '{';
        if (!member_name()) return false;
      } else if (take('[')) {
        skip_space();
        if (take(']')) return true;
        open_ += '[';
      } else {
        return scalar();
      }
    }
  }

  /// What follows a value inside a container: its end, or a comma and the next value.
  bool after_value() {
    skip_space();
    const bool object = open_.back() == '{';
    if (take(object ? '}' : ']')) {
      open_.pop_back();
      return true;
    }
    return take(',') && (!object || member_name()) && value();
  }

  bool member_name() {
    skip_space();
    if (!string()) return false;
    skip_space();
    return take(':');
  }

  bool scalar() {
    if (text_.empty()) return false;
    switch (text_[0]) {
      case '"': return string();
      case 't': return word("true");
      case 'f': return word("false");
      case 'n': return word("null");
      default: return number();
    }
  }

  bool string() {
    if (!take('"')) return false;
    while (!text_.empty()) {
      if (take('"')) return true;
      if (static_cast<unsigned char>(text_[0]) < 0x20) return false;
      if (text_[0] == '\\') {
        if (!escape()) return false;
        continue;
      }
      const std::size_t length = utf8_length(text_);
      if (length == 0) return false;
      text_.remove_prefix(length);
    }
    return false;
  }

  bool escape() {
    text_.remove_prefix(1);
    if (text_.empty() || std::string_view("\"\\/bfnrtu").find(text_[0]) == std::string_view::npos)
      return false;
    const bool unicode = text_[0] == 'u';
    text_.remove_prefix(1);
    if (!unicode) return true;
    constexpr std::string_view kHex = "0123456789abcdefABCDEF";
    if (text_.size() < 4 || text_.substr(0, 4).find_first_not_of(kHex) != std::string_view::npos)
      return false;
    text_.remove_prefix(4);
    return true;
  }

  bool number() {
    take('-');
    if (!take('0') && digits() == 0) return false;
    if (take('.') && digits() == 0) return false;
    if (!take('e') && !take('E')) return true;
    if (!take('+')) take('-');
    return digits() > 0;
  }

  std::size_t digits() {
    std::size_t count = 0;
    while (count < text_.size() && text_[count] >= '0' && text_[count] <= '9') ++count;
    text_.remove_prefix(count);
    return count;
  }

  bool word(std::string_view word) {
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }

  bool take(char c) {
    if (text_.empty() || text_[0] != c) return false;
    text_.remove_prefix(1);
    return true;
  }

  void skip_space() {
    while (!text_.empty() &&
           (text_[0] == ' ' || text_[0] == '\t' || text_[0] == '\n' || text_[0] == '\r'))
      text_.remove_prefix(1);
  }

  std::string_view text_;
  std::string open_;
};

}  // namespace

bool is_json(std::string_view text) { return JsonCheck(text).run(); }

}  // namespace millrace::rendering
