#include "cli/secrets.h"

#include <algorithm>
#include <cctype>
#include <vector>

namespace millrace {
namespace {

struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
};

// scheme://user:PASSWORD@host: from the first ':' to the last '@' before the next blank. A password
// may hold any of the characters that ought to be percent-encoded.
void find_in_authorities(std::string_view text, std::vector<Span>& spans) {
  for (std::size_t at = text.find("://"); at != text.npos; at = text.find("://", at + 3)) {
    const std::size_t authority = at + 3;
    const std::size_t end = std::min(text.find_first_of(" \t\n", authority), text.size());
    const std::size_t at_sign = text.substr(0, end).rfind('@');
    const std::size_t colon = text.substr(0, end).find(':', authority);
    if (at_sign != text.npos && colon < at_sign) spans.push_back({colon + 1, at_sign});
  }
}

std::size_t skip_blanks(std::string_view text, std::size_t from) {
  while (from < text.size() && std::isspace(static_cast<unsigned char>(text[from]))) ++from;
  return from;
}

/// Whether `text[at]` is in the query of a URI, where '&' ends a value: its word, as far as it was
/// read, has a "://" and a '?'. In the keyword form a '&' is a character like any other.
bool in_uri_query(std::string_view text, std::size_t at) {
  std::string_view word = text.substr(0, at);
  word.remove_prefix(word.find_last_of(" \t\n") + 1);  // npos + 1 == 0
  const std::size_t scheme = word.find("://");
  return scheme != word.npos && word.find('?', scheme) != word.npos;
}

std::size_t end_of_value(std::string_view text, std::size_t begin, bool in_uri) {
  const bool quoted = !in_uri && begin < text.size() && text[begin] == '\'';
  for (std::size_t at = begin + (quoted ? 1 : 0); at < text.size(); ++at) {
    if (text[at] == '\\')
      ++at;
    else if (quoted ? text[at] == '\''
                    : text[at] == ' ' || text[at] == '\n' || (in_uri && text[at] == '&'))
      return at + (quoted ? 1 : 0);
  }
  return text.size();
}

// password=VALUE, also sslpassword=; the value may be in single quotes.
void find_keywords(std::string_view text, std::vector<Span>& spans) {
  static constexpr std::string_view kKeyword = "password";
  for (std::size_t at = text.find(kKeyword); at != text.npos; at = text.find(kKeyword, at + 1)) {
    const std::size_t equals = skip_blanks(text, at + kKeyword.size());
    if (equals >= text.size() || text[equals] != '=') continue;
    const std::size_t begin = skip_blanks(text, equals + 1);
    spans.push_back({begin, end_of_value(text, begin, in_uri_query(text, at))});
  }
}

std::vector<Span> password_spans(std::string_view text) {
  std::vector<Span> spans;
  find_in_authorities(text, spans);
  find_keywords(text, spans);
  return spans;
}

}  // namespace

std::string without_passwords(std::string_view text) {
  std::string secret(text.size(), '\0');
  for (const Span& span : password_spans(text))
    std::fill(secret.begin() + static_cast<std::ptrdiff_t>(span.begin),
              secret.begin() + static_cast<std::ptrdiff_t>(span.end), '\1');
  std::string result;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (!secret[at])
      result += text[at];
    else if (at == 0 || !secret[at - 1])
      result += "***";
  }
  return result;
}

void hide_passwords(int argc, char** argv) {
  for (int i = 1; i < argc; ++i)
    for (const Span& span : password_spans(argv[i]))
      std::fill(argv[i] + span.begin, argv[i] + span.end, '*');
}

}  // namespace millrace
