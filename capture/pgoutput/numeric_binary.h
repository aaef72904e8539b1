#pragma once

#include <string>
#include <string_view>

namespace millrace::pgoutput {

/// Appends the text of a numeric, with its length in front, of what numeric_send wrote: every digit
/// and the same scale as PostgreSQL's own output. False where `bytes` are none.
bool append_numeric_text(std::string_view bytes, std::string& out);

}  // namespace millrace::pgoutput
