#pragma once

#include <string>
#include <string_view>

namespace millrace::rendering {

/// Appends `text` as a JSON string; bytes that are no UTF-8 (a database in SQL_ASCII has such) as
/// {"base64":"..."}, so that nothing is lost and every parser reads it. Escaped beyond what JSON
/// asks: DEL, C1 controls and the line separators U+0085, U+2028 and U+2029, so that the result is
/// one line everywhere and harmless on a terminal.
void append_json_text(std::string_view text, std::string& out);

/// The same for a member's name, which must be a string: a byte that is no UTF-8 is written as
/// \xNN, visibly.
void append_json_name(std::string_view name, std::string& out);

/// Between quotes, with padding (RFC 4648).
void append_json_base64(std::string_view bytes, std::string& out);

/// Whether `text` is one JSON value in valid UTF-8, of any depth; what PostgreSQL's type json
/// accepts.
bool is_json(std::string_view text);

/// Appends `json`, which is_json(), on one line: a newline can stand between tokens only and
/// becomes a space. What append_json_text escapes can stand in strings only and is escaped here
/// too.
void append_json_verbatim(std::string_view json, std::string& out);

}  // namespace millrace::rendering
