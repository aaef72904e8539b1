#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace millrace::test {

/// Reads the include lines of every first-party C++ file below `root` and gives a sentence for each
/// that breaks the picture in docs/HACKING.md ("Who may include whom") or is not in it:
/// "cli/a.cc:3: ...". Folders that hold a build are passed over.
std::vector<std::string> layering_faults(const std::filesystem::path& root);

}  // namespace millrace::test
