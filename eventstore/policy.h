#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/types.h"

// What may be taken out of a store. Policies are events themselves, in the category `$policy`, so
// that they are ordered, durable, copied and restored with everything else; the latest for a name
// counts. Whatever has no policy is kept for ever, as is everything in categories whose name starts
// with `$`.
namespace millrace {

inline constexpr std::string_view kPolicyCategory = "$policy";

enum class Retention : std::uint8_t {
  kKeep,     ///< Everything.
  kCompact,  ///< The latest event of each key.
  kExpire,   ///< What is young enough, and the newest so many bytes.
};
std::string_view name_of(Retention retention);

struct CategoryPolicy {
  Retention retention = Retention::kKeep;
  /// Expire: what was appended longer ago than this goes.
  std::optional<std::chrono::seconds> max_age{};
  /// Expire: the newest so many bytes of events stay, and up to a segment's worth more.
  std::optional<std::uint64_t> max_bytes{};
  /// Compact: so long a tombstone stays, for readers that come back late. Whoever comes later still
  /// is told that it can't know what was deleted.
  std::chrono::seconds tombstone_grace = std::chrono::hours(24);
  bool operator==(const CategoryPolicy&) const = default;
};

/// On top of its category's policy, whatever that is; each limit that is set takes events away.
struct StreamPolicy {
  std::optional<std::uint64_t> max_count{};        ///< The newest so many events stay; at least 1.
  std::optional<std::chrono::seconds> max_age{};   ///< Since they were appended.
  std::optional<std::uint64_t> truncate_before{};  ///< Events of a lower version go.
  bool operator==(const StreamPolicy&) const = default;
};

/// The largest max_count: so many offsets are held in memory while compaction plans.
inline constexpr std::uint64_t kMaxCountMax = 1'000'000;

/// An event of `$policy` on its way in.
struct PolicyEvent {
  std::string key, payload;
  NewEvent view() const {
    return {.category = kPolicyCategory,
            .key = key,
            .type = "PolicySet",
            .payload = payload,
            .metadata = {}};
  }
};
/// Errors: kInvalidArgument (a category that always is kept; an expiry without a limit; a limit
/// that its retention has no use for; 0 where that would remove everything).
Result<PolicyEvent> policy_event(std::string_view category, const CategoryPolicy& policy);
Result<PolicyEvent> policy_event(std::string_view category, std::string_view key,
                                 const StreamPolicy& policy);

/// The policies that hold at one moment.
class Policies {
 public:
  using StreamName = std::pair<std::string, std::string>;  ///< Category and key.
  struct ByName {
    using is_transparent = void;
    using View = std::pair<std::string_view, std::string_view>;
    bool operator()(const View& a, const View& b) const { return a < b; }
  };

  /// Takes the next event of `$policy`. One that can't be understood counts as "keep", with a
  /// warning: what is not known is never a reason to take something away.
  void apply(const EventView& event);

  CategoryPolicy of(std::string_view category) const;
  /// Nothing if the stream has none.
  const StreamPolicy* of(std::string_view category, std::string_view key) const;
  const std::map<std::string, CategoryPolicy, std::less<>>& categories() const {
    return categories_;
  }
  const std::map<StreamName, StreamPolicy, ByName>& streams() const { return streams_; }
  /// True if nothing may ever be taken away.
  bool keep_everything() const;

 private:
  std::map<std::string, CategoryPolicy, std::less<>> categories_;
  std::map<StreamName, StreamPolicy, ByName> streams_;
};

/// Those that hold at the durable end, or at `end` if that is before it. Errors: as LogReader.
Result<Policies> load_policies(const Path& directory, FileSystem& files = FileSystem::real(),
                               Offset end = Offset{~std::uint64_t{0}});

/// For people and `--json`.
std::string to_json(const CategoryPolicy& policy);
std::string to_json(const StreamPolicy& policy);

}  // namespace millrace
