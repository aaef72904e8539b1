#include "eventstore/policy.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "base/bytes.h"
#include "eventstore/log_reader.h"

namespace millrace {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kCategoryPrefix = "category:", kStreamPrefix = "stream:";
constexpr std::array kRetentions{Retention::kKeep, Retention::kCompact, Retention::kExpire};
/// Longer than any store lives, short enough to be subtracted from any time.
constexpr std::chrono::seconds kAgeMax = std::chrono::hours(24 * 366 * 1000);

Error invalid(std::string what) { return Error(ErrorCode::kInvalidArgument, std::move(what)); }

Error unreadable() {
  return Error(ErrorCode::kUnsupported, "it is not one that this millrace understands");
}

bool is_kept_always(std::string_view category) { return category.starts_with('$'); }

Result<void> check(const std::optional<std::chrono::seconds>& age) {
  if (!age || (age->count() > 0 && *age <= kAgeMax)) return {};
  return invalid("an age is above 0 and below 1000 years");
}

Result<void> check(std::string_view category, const CategoryPolicy& policy) {
  if (category.empty() || category.size() > kCategoryBytesMax)
    return invalid("a category has 1 to " + std::to_string(kCategoryBytesMax) + " bytes");
  if (is_kept_always(category) && policy.retention != Retention::kKeep)
    return invalid("the store's own category " + printable(category) + " is always kept");
  const bool limited = policy.max_age || policy.max_bytes;
  if (policy.retention == Retention::kExpire && !limited)
    return invalid("to expire, a category needs a maximum of age or of bytes");
  if (policy.retention != Retention::kExpire && limited)
    return invalid("a maximum of age or of bytes is for the retention `expire`");
  if (policy.tombstone_grace.count() < 0 || policy.tombstone_grace > kAgeMax)
    return invalid("a tombstone's grace is from 0 to 1000 years");
  return check(policy.max_age);
}

Result<void> check(std::string_view category, const StreamPolicy& policy) {
  if (is_kept_always(category))
    return invalid("the store's own category " + printable(category) + " is always kept");
  if (policy.max_count && (*policy.max_count == 0 || *policy.max_count > kMaxCountMax))
    return invalid("a stream's maximum count is from 1 to " + std::to_string(kMaxCountMax));
  return check(policy.max_age);
}

template <typename T>
void put(Json& json, const char* name, const std::optional<T>& value) {
  if (!value) return;
  if constexpr (std::is_same_v<T, std::chrono::seconds>)
    json[name] = value->count();
  else
    json[name] = *value;
}

/// False if the field is there and is no such number.
template <typename T>
bool get(const Json& json, const char* name, std::optional<T>& into) {
  const auto found = json.find(name);
  if (found == json.end()) return true;
  if (!found->is_number_integer() ||
      (!found->is_number_unsigned() && found->get<std::int64_t>() < 0))
    return false;
  if constexpr (std::is_same_v<T, std::chrono::seconds>) {
    if (found->get<std::uint64_t>() > static_cast<std::uint64_t>(kAgeMax.count())) return false;
    into = T(found->get<std::int64_t>());
  } else {
    into = found->get<T>();
  }
  return true;
}

Json json_of(const CategoryPolicy& policy) {
  Json json{{"retention", name_of(policy.retention)}};
  put(json, "max_age_seconds", policy.max_age);
  put(json, "max_bytes", policy.max_bytes);
  if (policy.retention == Retention::kCompact)
    json["tombstone_grace_seconds"] = policy.tombstone_grace.count();
  return json;
}

Json json_of(const StreamPolicy& policy) {
  Json json = Json::object();
  put(json, "max_count", policy.max_count);
  put(json, "max_age_seconds", policy.max_age);
  put(json, "truncate_before", policy.truncate_before);
  return json;
}

bool knows_all(const Json& json, const std::set<std::string>& names) {
  if (!json.is_object()) return false;
  for (const auto& item : json.items())
    if (!names.contains(item.key())) return false;
  return true;
}

Result<CategoryPolicy> parse_category(std::string_view category, std::string_view payload) {
  const Json json = Json::parse(payload, nullptr, false);
  CategoryPolicy policy;
  std::optional<std::chrono::seconds> grace;
  if (!knows_all(json, {"retention", "max_age_seconds", "max_bytes", "tombstone_grace_seconds"}) ||
      !json.contains("retention") || !get(json, "max_age_seconds", policy.max_age) ||
      !get(json, "max_bytes", policy.max_bytes) || !get(json, "tombstone_grace_seconds", grace))
    return unreadable();
  const auto retention = std::find_if(kRetentions.begin(), kRetentions.end(), [&](Retention one) {
    return json["retention"] == std::string(name_of(one));
  });
  if (retention == kRetentions.end()) return unreadable();
  policy.retention = *retention;
  policy.tombstone_grace = grace.value_or(policy.tombstone_grace);
  MILLRACE_RETURN_IF_ERROR(check(category, policy));
  return policy;
}

Result<StreamPolicy> parse_stream(std::string_view name, std::string_view payload,
                                  Policies::StreamName& stream) {
  const Json json = Json::parse(payload, nullptr, false);
  std::optional<std::uint64_t> category_bytes;
  if (!json.is_object() || !get(json, "category_bytes", category_bytes) || !category_bytes ||
      *category_bytes >= name.size() || name[*category_bytes] != '/')
    return unreadable();
  stream = {std::string(name.substr(0, *category_bytes)),
            std::string(name.substr(*category_bytes + 1))};
  StreamPolicy policy;
  if (!knows_all(json, {"category_bytes", "max_count", "max_age_seconds", "truncate_before"}) ||
      !get(json, "max_count", policy.max_count) || !get(json, "max_age_seconds", policy.max_age) ||
      !get(json, "truncate_before", policy.truncate_before))
    return unreadable();
  MILLRACE_RETURN_IF_ERROR(check(stream.first, policy));
  return policy;
}

}  // namespace

std::string_view name_of(Retention retention) {
  switch (retention) {
    case Retention::kKeep: return "keep";
    case Retention::kCompact: return "compact";
    case Retention::kExpire: return "expire";
  }
  return "unknown";
}

Result<PolicyEvent> policy_event(std::string_view category, const CategoryPolicy& policy) {
  MILLRACE_RETURN_IF_ERROR(check(category, policy));
  return PolicyEvent{std::string(kCategoryPrefix) + std::string(category), to_json(policy)};
}

Result<PolicyEvent> policy_event(std::string_view category, std::string_view key,
                                 const StreamPolicy& policy) {
  MILLRACE_RETURN_IF_ERROR(check(category, policy));
  Json json = json_of(policy);
  json["category_bytes"] = category.size();  // both parts may hold any byte, also a slash
  return PolicyEvent{std::string(kStreamPrefix) + std::string(category) + "/" + std::string(key),
                     json.dump()};
}

void Policies::apply(const EventView& event) {
  const auto warn = [&](const Error& error) {
    spdlog::warn("policy at offset {} for {}: {}; nothing is taken away by it", event.offset.value,
                 printable(event.key), error.message());
  };
  const bool removed = has(event.flags, EventFlags::kTombstone);
  if (event.key.starts_with(kCategoryPrefix)) {
    const std::string category(event.key.substr(kCategoryPrefix.size()));
    categories_.erase(category);
    if (removed) return;
    if (auto policy = parse_category(category, event.payload))
      categories_[category] = *policy;
    else
      warn(policy.error());
  } else if (event.key.starts_with(kStreamPrefix)) {
    StreamName stream;
    auto policy = parse_stream(event.key.substr(kStreamPrefix.size()), event.payload, stream);
    streams_.erase(stream);
    if (policy && !removed && *policy != StreamPolicy{}) streams_[stream] = *policy;
    if (!policy) warn(policy.error());
  } else {
    warn(unreadable());
  }
}

CategoryPolicy Policies::of(std::string_view category) const {
  const auto found = categories_.find(category);
  return found == categories_.end() || is_kept_always(category) ? CategoryPolicy{} : found->second;
}

const StreamPolicy* Policies::of(std::string_view category, std::string_view key) const {
  if (streams_.empty()) return nullptr;
  const auto found = streams_.find(ByName::View(category, key));
  return found == streams_.end() ? nullptr : &found->second;
}

bool Policies::keep_everything() const {
  return streams_.empty() &&
         std::all_of(categories_.begin(), categories_.end(),
                     [](const auto& entry) { return entry.second.retention == Retention::kKeep; });
}

Result<Policies> load_policies(const Path& directory, FileSystem& files, Offset end) {
  MILLRACE_ASSIGN_OR_RETURN(
      const auto reader,
      LogReader::open(directory,
                      {.from = {}, .categories = {std::string(kPolicyCategory)}, .files = &files}));
  Policies policies;
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(Batch* const batch, reader->next());
    if (batch == nullptr) return policies;
    while (const EventView* event = batch->next())
      if (event->category == kPolicyCategory && event->offset < end) policies.apply(*event);
    MILLRACE_RETURN_IF_ERROR(batch->status());
  }
}

std::string to_json(const CategoryPolicy& policy) { return json_of(policy).dump(); }
std::string to_json(const StreamPolicy& policy) { return json_of(policy).dump(); }

}  // namespace millrace
