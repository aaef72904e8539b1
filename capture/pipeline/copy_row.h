#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "capture/pgoutput/message.h"

namespace millrace {

/// Splits lines of COPY's text format into fields
/// (https://www.postgresql.org/docs/15/sql-copy.html, "Text Format"), so that a copied row and a
/// streamed one go through the same value decoder. Threads: one.
class CopyRowParser {
 public:
  /// The fields of `line` (without its newline), valid until the next call.
  /// Errors: kCorruption when it has not `columns` fields or ends inside an escape.
  Result<const pgoutput::Tuple*> parse(std::string_view line, std::size_t columns);

 private:
  pgoutput::Tuple fields_;
  std::string unescaped_;
};

}  // namespace millrace
