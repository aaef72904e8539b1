#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace millrace::test {

/// Reads the include lines of every first-party C++ file below `root` and gives a sentence for each
/// that breaks the picture in docs/HACKING.md ("Who may include whom"): "cli/a.cc:3: ...".
std::vector<std::string> layering_faults(const std::filesystem::path& root);

}  // namespace millrace::test
