// Two names are too near where protoc or its C++ output would take them for one: JSON names are
// compared without underscores and case, and a field `has_image` is in the way of the accessor
// has_image() of a field `image`.

#include "schemas/rendering/field_names.h"

#include <algorithm>
#include <map>
#include <set>

namespace millrace::rendering {
namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Lower case without underscores.
std::string folded(std::string_view name) {
  std::string result;
  for (const char c : name)
    if (c != '_') result += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return result;
}

/// `name` with every other byte than a letter or digit as '_'; a field's name unless something is
/// in its way.
std::string sanitized(std::string_view name) {
  std::string result(name);
  for (char& c : result)
    if (!is_letter(c) && !is_digit(c)) c = '_';
  if (folded(result).empty()) result = "column";
  if (is_digit(result[0])) result.insert(0, "c_");
  return result;
}

/// Methods that protoc gives every message.
bool is_method(std::string_view name) {
  static const std::set<std::string_view> kMethods = {"default_instance",
                                                      "descriptor",
                                                      "internal_default_instance",
                                                      "New",
                                                      "Clear",
                                                      "Swap",
                                                      "CopyFrom",
                                                      "MergeFrom",
                                                      "IsInitialized",
                                                      "ByteSizeLong",
                                                      "GetCachedSize",
                                                      "GetDescriptor",
                                                      "GetReflection",
                                                      "GetMetadata",
                                                      "GetTypeName",
                                                      "GetArena",
                                                      "UnsafeArenaSwap",
                                                      "InternalSwap",
                                                      "DebugString",
                                                      "SerializeAsString"};
  return kMethods.contains(name);
}

/// Whether `name` is an accessor of a field called `other`.
bool is_accessor(std::string_view name, std::string_view other) {
  static constexpr std::string_view kPrefixes[] = {"has_",
                                                   "set_",
                                                   "clear_",
                                                   "mutable_",
                                                   "release_",
                                                   "set_allocated_",
                                                   "_internal_has_",
                                                   "_internal_set_",
                                                   "_internal_",
                                                   "_has_",
                                                   "unsafe_arena_release_",
                                                   "unsafe_arena_set_allocated_",
                                                   "_internal_mutable_",
                                                   "_internal_release_"};
  if (!name.ends_with(other)) return false;
  name.remove_suffix(other.size());
  return std::ranges::find(kPrefixes, name) != std::end(kPrefixes);
}

class NameGiver {
 public:
  /// Gives `name` if nothing is in its way.
  bool take(const std::string& name) {
    if (!is_identifier(name) || is_method(name) || folded(name).empty() ||
        used_.contains(folded(name)))
      return false;
    used_.emplace(folded(name), name);
    return true;
  }

 private:
  std::map<std::string, std::string> used_;
};

bool is_accessor_of_any(const std::string& name, const TableSchema& schema) {
  return std::ranges::any_of(schema.columns, [&](const ColumnSchema& column) {
    return is_accessor(name, sanitized(column.name));
  });
}

}  // namespace

bool is_identifier(std::string_view name) {
  return !name.empty() && !is_digit(name[0]) &&
         std::ranges::all_of(name, [](char c) { return is_letter(c) || is_digit(c) || c == '_'; });
}

std::vector<std::string> field_names(const TableSchema& schema) {
  std::vector<std::size_t> order(
      schema.columns.size());  // by field number: the oldest chooses first
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, {}, [&](std::size_t i) { return schema.columns[i].field; });

  std::vector<std::string> names(order.size());
  NameGiver giver;
  for (const std::size_t i :
       order) {  // names that can stay as they are, before any that is made up
    const std::string& name = schema.columns[i].name;
    if (!is_accessor_of_any(name, schema) && giver.take(name)) names[i] = name;
  }
  for (const std::size_t i : order) {
    if (!names[i].empty()) continue;
    const ColumnSchema& column = schema.columns[i];
    std::string name = sanitized(column.name);
    if (!is_accessor_of_any(name, schema) && giver.take(name)) {
      names[i] = name;
      continue;
    }
    name += '_' + std::to_string(column.field);
    while (is_accessor_of_any(name, schema) || !giver.take(name)) name += 'x';
    names[i] = name;
  }
  return names;
}

}  // namespace millrace::rendering
