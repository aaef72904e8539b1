#include "tests/layering/layering.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string_view>

namespace millrace::test {
namespace {

namespace fs = std::filesystem;
using Names = std::set<std::string, std::less<>>;

// Folder -> what it may include beside itself. Includes point down only; capture and projections
// are siblings, so are eventstore and schemas.
const std::map<std::string, Names, std::less<>> kMayInclude = {
    {"base", {}},
    {"eventstore", {"base"}},
    {"schemas", {"base"}},
    {"service", {"base", "eventstore", "schemas"}},
    {"capture", {"base", "eventstore", "schemas", "service"}},
    {"projections", {"base", "eventstore", "schemas", "service"}},
    {"sinks", {"base", "eventstore", "schemas", "service", "projections"}},
    {"cli", {"base", "eventstore", "schemas", "service", "capture", "projections", "sinks"}},
    {"examples", {"base", "eventstore", "schemas", "service", "capture", "projections", "sinks"}},
};

// These may include anything of ours.
const Names kFree = {"tests", "bench"};

// Subfolders that are interface, not private: pgoutput decoding is a library of its own, which
// needs no database and none of capture.
const Names kPublicSubfolders = {"capture/pgoutput"};
const std::map<std::string, Names, std::less<>> kSubfolderMayInclude = {
    {"capture/pgoutput", {"base", "schemas"}},
};

// Beginning of a third-party header -> the only folders that may know the library.
const std::map<std::string, Names, std::less<>> kWrappedIn = {
    {"pqxx/", {"capture/postgres", "sinks/postgres", "tests", "bench"}},
    {"libpq-fe.h", {"capture/postgres", "sinks/postgres", "tests", "bench"}},
    {"hiredis/", {"sinks/redis"}},
    {"zstd.h", {"eventstore/log", "tests", "bench"}},
    {"prometheus/", {"capture/metrics", "tests", "bench"}},
    {"boost/asio", {"capture/metrics", "tests", "bench"}},
    {"boost/beast", {"capture/metrics", "tests", "bench"}},
    {"sqlite3.h", {"projections", "tests", "bench"}},
    {"boost/program_options", {"cli", "projections", "tests", "bench"}},
    {"google/protobuf/",
     {"schemas", "capture", "projections", "cli", "examples", "tests", "bench"}},
    {"grpcpp/", {"service", "tests", "bench"}},
    {"millrace/v1/",
     {"schemas", "service", "capture", "projections", "cli", "examples", "tests", "bench"}},
};

// Files that no check would see.
const Names kOtherEndings = {".c", ".cpp", ".cxx", ".hh", ".hpp", ".hxx"};

struct Include {
  int line = 0;
  std::string path;
  bool quoted = false;
};

std::optional<Include> parse_include(std::string_view text, int line) {
  const std::size_t hash = text.find_first_not_of(" \t");
  if (hash == text.npos || text[hash] != '#') return {};
  const std::size_t word = text.find_first_not_of(" \t", hash + 1);
  if (word == text.npos || !text.substr(word).starts_with("include")) return {};
  const std::size_t open = text.find_first_of("\"<", word);
  if (open == text.npos) return {};
  const bool quoted = text[open] == '"';
  const std::size_t close = text.find(quoted ? '"' : '>', open + 1);
  if (close == text.npos) return {};
  return Include{line, std::string(text.substr(open + 1, close - open - 1)), quoted};
}

std::string first_part(std::string_view path) {
  return std::string(path.substr(0, path.find('/')));
}

/// "capture/postgres" of "capture/postgres/catalog.h"; empty for a file at the top of its folder.
std::string subfolder(std::string_view path) {
  const std::size_t first = path.find('/');
  const std::size_t second = first == path.npos ? first : path.find('/', first + 1);
  return second == path.npos ? "" : std::string(path.substr(0, second));
}

bool is_ours(std::string_view path) {
  return path.find('/') != path.npos &&
         (kMayInclude.contains(first_part(path)) || kFree.contains(first_part(path)));
}

std::optional<std::string> fault_of_own(const std::string& file, const std::string& included) {
  const std::string from = first_part(file), to = first_part(included);
  if (kFree.contains(from)) return {};
  if (kFree.contains(to)) return "includes " + included + ": nothing includes tests or bench";
  if (const auto only = kSubfolderMayInclude.find(subfolder(file));
      only != kSubfolderMayInclude.end() && subfolder(included) != only->first &&
      !only->second.contains(to))
    return "includes " + included + ": " + only->first + " is to be usable without that";
  if (from == to) return {};
  if (!kMayInclude.at(from).contains(to))
    return "includes " + included + ": " + from + " may not know " + to;
  const std::string inner = subfolder(included);
  if (inner.empty()) return {};
  if (from == "examples")
    return "includes " + included + ": examples use headers at the top of a folder only";
  if (!kPublicSubfolders.contains(inner))
    return "includes " + included + ": " + inner + "/ is private to " + to;
  return {};
}

std::optional<std::string> fault_of_library(const std::string& file, const std::string& included) {
  for (const auto& [prefix, folders] : kWrappedIn) {
    if (!included.starts_with(prefix)) continue;
    if (!folders.contains(first_part(file)) && !folders.contains(subfolder(file)))
      return "includes " + included + ": that library is wrapped elsewhere";
  }
  return {};
}

/// One that holds what was built, not what builds.
bool is_build_folder(const fs::path& folder) {
  return folder.filename() == "build" || fs::exists(folder / "CMakeCache.txt");
}

class FileCheck {
 public:
  FileCheck(const fs::path& root, std::string file, std::vector<std::string>& faults)
      : root_(root), file_(std::move(file)), faults_(faults) {}

  void run() {
    std::ifstream in(root_ / file_);
    int number = 0;
    for (std::string line; std::getline(in, line);) {
      ++number;
      if (line.starts_with("#pragma once")) pragma_once_ = true;
      if (const auto include = parse_include(line, number)) check(*include);
    }
    if (file_.ends_with(".h") && !pragma_once_) fault(1, "is a header without #pragma once");
    if (const std::string header = own_header(); !header.empty() && first_ != header)
      fault(1, "must include " + header + " first, so that the header is known to compile alone");
  }

 private:
  void check(const Include& include) {
    if (first_.empty()) first_ = include.path;
    if (const auto what = fault_of_library(file_, include.path)) fault(include.line, *what);
    if (is_ours(include.path)) {
      if (!include.quoted)
        fault(include.line, "includes <" + include.path + ">: ours are in quotes");
      if (const auto what = fault_of_own(file_, include.path)) fault(include.line, *what);
    } else if (include.quoted && !include.path.ends_with(".pb.h") && !is_of_example(include)) {
      fault(include.line, "includes \"" + include.path + "\": name it by folder");
    }
  }

  /// An example is a project that is copied anywhere: it names its own headers by themselves.
  bool is_of_example(const Include& include) const {
    return first_part(file_) == "examples" &&
           fs::exists((root_ / file_).parent_path() / include.path);
  }

  /// The header beside a .cc, as it is to be included; empty if there is none.
  std::string own_header() const {
    if (!file_.ends_with(".cc")) return "";
    const std::string header = file_.substr(0, file_.size() - 2) + "h";
    if (!fs::exists(root_ / header)) return "";
    return first_part(file_) == "examples" ? fs::path(header).filename().string() : header;
  }

  void fault(int line, const std::string& what) {
    faults_.push_back(file_ + ":" + std::to_string(line) + ": " + what);
  }

  const fs::path& root_;
  const std::string file_;
  std::vector<std::string>& faults_;
  std::string first_;
  bool pragma_once_ = false;
};

}  // namespace

std::vector<std::string> layering_faults(const fs::path& root) {
  std::vector<std::string> files, faults;
  for (fs::recursive_directory_iterator entry(root), end; entry != end; ++entry) {
    const std::string name = entry->path().filename();
    const std::string file = entry->path().lexically_relative(root).generic_string();
    if (entry->is_directory()) {
      if (name.starts_with(".") || is_build_folder(entry->path()))
        entry.disable_recursion_pending();
    } else if (kOtherEndings.contains(entry->path().extension().string())) {
      faults.push_back(file + ": C++ files end in .h or .cc here");
    } else if (file.ends_with(".h") || file.ends_with(".cc")) {
      files.push_back(file);
    }
  }
  std::sort(files.begin(), files.end());
  for (const std::string& file : files) {
    if (is_ours(file))
      FileCheck(root, file, faults).run();
    else
      faults.push_back(file + ": its folder is not in the picture");
  }
  return faults;
}

}  // namespace millrace::test
