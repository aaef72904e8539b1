#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace millrace::test {

/// Where a run of the tests has its files: MILLRACE_TEST_ROOT, which scripts/test makes and
/// removes, with what killed tests left there; else /tmp. Short: the path of a Unix socket below it
/// has 107 bytes at most.
inline std::filesystem::path temporary_root() {
  const char* const root = std::getenv("MILLRACE_TEST_ROOT");
  return root == nullptr || *root == '\0' ? "/tmp" : root;
}

/// Makes a fresh, empty directory `name`-XXXXXX in `where`. Throws std::runtime_error.
inline std::filesystem::path make_temporary_directory(
    const std::string& name, const std::filesystem::path& where = temporary_root()) {
  std::string pattern = (where / (name + "-XXXXXX")).string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp " + pattern);
  return pattern;
}

/// A fresh, empty directory below temporary_root() that goes with its object, also when a test
/// fails.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const std::string& name = "millrace-test")
      : path_(make_temporary_directory(name)) {}
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace millrace::test
