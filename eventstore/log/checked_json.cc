#include "eventstore/log/checked_json.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/checksum.h"

namespace millrace::log {
namespace {

constexpr std::string_view kObjectEnd = "\n}", kBefore = ",\n  \"checksum\": \"",
                           kBehind = "\"\n}\n";
constexpr std::size_t kDigits = 16;

std::string digits_of(std::string_view bytes) {
  std::string sum;
  append_be<std::uint64_t>(sum, checksum(bytes));
  return to_hex(sum);
}

}  // namespace

std::string with_checksum(std::string object) {
  MILLRACE_CHECK(object.ends_with(kObjectEnd));
  object.resize(object.size() - kObjectEnd.size());
  object += kBefore;
  object += digits_of(object);
  object += kBehind;
  return object;
}

bool has_right_checksum(std::string_view file) {
  if (!file.ends_with(kBehind) || file.size() < kDigits + kBehind.size()) return false;
  file.remove_suffix(kBehind.size());
  const std::string_view digits = file.substr(file.size() - kDigits);
  file.remove_suffix(kDigits);
  return file.ends_with(kBefore) && digits == digits_of(file);
}

}  // namespace millrace::log
