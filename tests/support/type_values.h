#pragma once

#include <map>
#include <string>
#include <vector>

namespace millrace::test {

/// Values of one type for the tests that put every type through capture.
struct TypeValues {
  /// What the type's input function takes, each for one row.
  std::vector<std::string> literals;
  /// SQL of one random value, may use `i` (1, 2, ...); empty for none.
  std::string random;
  int randoms = 60;
};

/// By the type's name in pg_type. Every type that a column can have and that is neither an array
/// nor made by the test is here: one that a newer PostgreSQL or another extension brings makes the
/// test fail until it is.
const std::map<std::string, TypeValues>& type_values();

/// SQL that makes types of every other sort: enums, domains, rows, ranges, base types.
const std::string& own_types_sql();

/// SQL of a random text of hard characters.
const std::string& random_text_sql();

}  // namespace millrace::test
