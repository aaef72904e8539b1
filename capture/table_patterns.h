#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millrace {

/// Which tables are meant: `schema.table` patterns with '*' (any characters) and '?' (one); '!' in
/// front excludes. Without any pattern that includes, every table of the public schema is meant.
class TablePatterns {
 public:
  /// Each text may hold several patterns with commas between. Errors: kInvalidArgument (empty, no
  /// dot).
  static Result<TablePatterns> parse(const std::vector<std::string>& texts);
  bool match(std::string_view schema_name, std::string_view table_name) const;
  bool given() const { return given_; }
  /// All of them in one text that parse() takes, also those that are meant without being given.
  std::string text() const;
  /// Those that include and name one table: without '*' and '?'.
  std::vector<std::string> plain_names() const;

 private:
  friend Result<std::vector<std::string>> parse_table_names(const std::vector<std::string>& texts);

  std::vector<std::string> include_, exclude_;
  bool given_ = false;
};

/// Names of single tables, "schema.table", from texts that may hold several with ',' between;
/// sorted, each once. Errors: kInvalidArgument (no such name, or a pattern).
Result<std::vector<std::string>> parse_table_names(const std::vector<std::string>& texts);
/// Whether `table` ("schema.table") is one of `names`, which are as parse_table_names() gives them.
bool is_named(const std::vector<std::string>& names, std::string_view table);

}  // namespace millrace
