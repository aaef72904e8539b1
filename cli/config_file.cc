#include "cli/config_file.h"

#include <algorithm>

#include "base/bytes.h"
#include "cli/text.h"

namespace millrace {
namespace {

constexpr std::uint64_t kFileBytesMax = 1 << 20;

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

Error wrong(const std::string& place, const std::string& what) {
  return Error(ErrorCode::kInvalidArgument, place + ": " + what);
}

Error unknown_key(const std::string& place, const std::string& key,
                  const std::vector<std::string>& known_keys) {
  Error error = wrong(place, printable(key) + ": there is no such option");
  if (const auto meant = closest(key, known_keys))
    return std::move(error).hint("Did you mean '" + *meant + "'?");
  return error;
}

}  // namespace

Result<std::vector<Setting>> parse_config(std::string_view name, std::string_view text,
                                          const std::vector<std::string>& known_keys) {
  std::vector<Setting> settings;
  for (std::size_t line_number = 1; !text.empty(); ++line_number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;

    const std::string place = std::string(name) + ":" + std::to_string(line_number);
    const std::size_t equals = line.find('=');
    if (equals == line.npos)
      return wrong(place, "expected 'option = value'").hint("Sections are not used.");
    const std::string key(trimmed(line.substr(0, equals)));
    const std::string value(trimmed(line.substr(equals + 1)));
    if (std::find(known_keys.begin(), known_keys.end(), key) == known_keys.end())
      return unknown_key(place, key, known_keys);
    if (value.empty()) return wrong(place, key + ": has no value");
    settings.push_back({key, value});
  }
  return settings;
}

Result<std::vector<Setting>> read_config_file(const Path& path,
                                              const std::vector<std::string>& known_keys) {
  // Not through FileSystem::open, which refuses symbolic links: this file is the user's own.
  std::error_code ignored;
  const Path resolved = std::filesystem::canonical(path, ignored);
  auto text = read_file(FileSystem::real(), resolved.empty() ? path : resolved, kFileBytesMax);
  if (!text)  // whatever the reason: the command line names a file that can't be used
    return Error(ErrorCode::kInvalidArgument, "--config: " + text.error().message())
        .hint(text.error().hint());
  return parse_config(path.string(), *text, known_keys);
}

}  // namespace millrace
