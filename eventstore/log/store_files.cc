#include "eventstore/log/store_files.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "base/bytes.h"

namespace millrace::log {
namespace {

constexpr std::size_t kDigits = 20;
constexpr std::string_view kSegmentSuffix = ".log", kIndexSuffix = ".index";
constexpr std::uint64_t kDescriptionBytesMax = 64 << 10;

Error no_store(const StorePaths& paths, std::string_view why) {
  return Error(ErrorCode::kFailedPrecondition,
               paths.directory.string() + " is no millrace store: " + std::string(why))
      .hint("Name the folder of a store, or for a new one a folder that is empty or not there.");
}

Error damaged(const StorePaths& paths, std::string_view what) {
  return Error(ErrorCode::kCorruption, paths.description().string() + ": " + std::string(what))
      .hint("Put the file back from a backup; the log beside it is untouched.");
}

/// Why there is no store.json. A folder that can't be looked into is no empty one.
Error absent(FileSystem& files, const StorePaths& paths) {
  auto names = files.list(paths.directory);
  if (!names && names.error().code() != ErrorCode::kNotFound) return std::move(names).error();
  if (!names || names->empty())
    return Error(ErrorCode::kNotFound, "there is no store in " + paths.directory.string())
        .hint("Check the folder's name; `millrace capture run` makes a store.");
  return no_store(paths, "it holds other files and no store.json");
}

Result<StoreDescription> parse(const StorePaths& paths, const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return damaged(paths, "is not JSON");
  const auto version = json.find("version"), id = json.find("id"), created = json.find("created");
  if (version == json.end() || !version->is_number_unsigned())
    return damaged(paths, "has no \"version\"");
  if (version->get<std::uint64_t>() != kFormatVersion)
    return Error(ErrorCode::kUnsupported, paths.description().string() + ": the store has format " +
                                              version->dump() + ", this millrace reads format " +
                                              std::to_string(kFormatVersion))
        .hint("Use the version of millrace that wrote it, or a newer one.");
  if (id == json.end() || !id->is_string() || created == json.end() ||
      !created->is_number_integer())
    return damaged(paths, "has no \"id\" or no \"created\"");
  const auto bytes = from_hex(id->get<std::string>());
  StoreDescription description{.version = kFormatVersion,
                               .created = {created->get<std::int64_t>()}};
  if (!bytes || bytes->size() != description.id.bytes.size())
    return damaged(paths, "has a bad \"id\"");
  std::copy(bytes->begin(), bytes->end(), description.id.bytes.begin());
  return description;
}

std::string numbered_name(std::uint64_t first, std::string_view suffix) {
  std::string name;
  append_padded(first, kDigits, name);
  name += suffix;
  return name;
}

std::optional<std::uint64_t> parse_numbered_name(std::string_view name, std::string_view suffix) {
  if (name.size() != kDigits + suffix.size() || !name.ends_with(suffix)) return std::nullopt;
  std::uint64_t first = 0;
  for (const char digit : name.substr(0, kDigits)) {
    if (digit < '0' || digit > '9') return std::nullopt;
    const auto value = static_cast<std::uint64_t>(digit - '0');
    if (first > (std::numeric_limits<std::uint64_t>::max() - value) / 10) return std::nullopt;
    first = first * 10 + value;
  }
  return first;
}

}  // namespace

std::string StorePaths::segment_name(std::uint64_t first) {
  return numbered_name(first, kSegmentSuffix);
}

std::optional<std::uint64_t> StorePaths::parse_segment_name(std::string_view name) {
  return parse_numbered_name(name, kSegmentSuffix);
}

std::string StorePaths::index_name(std::uint64_t first) {
  return numbered_name(first, kIndexSuffix);
}

std::optional<std::uint64_t> StorePaths::parse_index_name(std::string_view name) {
  return parse_numbered_name(name, kIndexSuffix);
}

Result<StoreDescription> read_description(FileSystem& files, const StorePaths& paths) {
  const auto text = read_file(files, paths.description(), kDescriptionBytesMax);
  if (text) return parse(paths, *text);
  if (text.error().code() == ErrorCode::kNotFound) return absent(files, paths);
  return text.error();
}

Result<void> write_description(FileSystem& files, const StorePaths& paths,
                               const StoreDescription& description) {
  const nlohmann::ordered_json json = {
      {"version", description.version},
      {"id", to_string(description.id)},
      {"created", description.created.value},
  };
  return write_file_atomically(files, paths.description(), json.dump(2) + "\n");
}

Result<std::vector<std::uint64_t>> list_segments(FileSystem& files, const StorePaths& paths) {
  MILLRACE_ASSIGN_OR_RETURN(const auto names, files.list(paths.log()));
  std::vector<std::uint64_t> segments;
  for (const std::string& name : names)
    if (const auto first = StorePaths::parse_segment_name(name)) segments.push_back(*first);
  std::sort(segments.begin(), segments.end());
  return segments;
}

StoreId random_store_id() {
  std::random_device random;
  StoreId id;
  for (std::size_t i = 0; i < id.bytes.size(); i += 4)
    store_le<std::uint32_t>(id.bytes.data() + i, random());
  return id;
}

}  // namespace millrace::log
