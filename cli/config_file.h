#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace millrace {

struct Setting {
  std::string key;
  std::string value;
};

/// The settings of a configuration file: lines `key = value`, blank lines, and comment lines that
/// start with '#' or ';'. A value reaches to the end of its line, so a '#' in a password is part of
/// it.
///
/// Errors: kInvalidArgument with `name`, line and key, for a line of any other form, a key that is
/// not in `known_keys`, a key without value.
Result<std::vector<Setting>> parse_config(std::string_view name, std::string_view text,
                                          const std::vector<std::string>& known_keys);

/// The same of the file. Errors: kInvalidArgument also for a file that can't be read.
Result<std::vector<Setting>> read_config_file(const Path& path,
                                              const std::vector<std::string>& known_keys);

}  // namespace millrace
