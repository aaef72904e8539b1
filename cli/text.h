#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millrace {

/// Rows of text in columns, for a terminal. Columns that hold numbers are aligned right.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> header) { add(std::move(header)); }
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  void append_to(std::string& out) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

/// Decimal digits only. Errors: kInvalidArgument, naming `option`.
Result<std::uint64_t> parse_number(std::string_view option, std::string_view text);

/// The candidate that `word` was probably meant to be; nothing if none is near.
std::optional<std::string> closest(std::string_view word,
                                   const std::vector<std::string>& candidates);

}  // namespace millrace
