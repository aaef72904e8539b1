#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace millrace {

/// Global position of an event: dense from 0, never changes; compaction leaves holes.
struct Offset {
  std::uint64_t value = 0;
  auto operator<=>(const Offset&) const = default;
};

/// Random 128-bit identity of a store, in hexadecimal in store.json, mixed into every checksum.
struct StoreId {
  std::array<char, 16> bytes{};
  auto operator<=>(const StoreId&) const = default;
};
std::string to_string(const StoreId& id);

/// When the store calls what was appended durable, and what can then take it back.
enum class Durability : std::uint8_t {
  /// Synced; while one sync runs, what is appended gathers for the next. Nothing takes it back.
  kGroup = 0,
  /// Synced, each commit as soon as the disk is free, without waiting for others to join it.
  kAlways = 1,
  /// Written to the operating system. The end of the process takes nothing back; a power loss or a
  /// crash of the machine takes back up to the last StoreOptions::os_sync_interval, in whole
  /// transactions from the end.
  kOs = 2,
};
std::string_view name_of(Durability durability);  ///< "group", "always", "os".
std::optional<Durability> durability_named(std::string_view name);

/// Where a transaction stood in the ordered log that it was captured from (for PostgreSQL: LSNs).
/// Unique and increasing within an epoch; an epoch is one unbroken reading of one source.
struct SourcePosition {
  std::uint32_t epoch = 0;  ///< 0: not captured, appended by an application.
  std::uint64_t commit =
      0;                  ///< Position of the commit: with the ordinal of an event, its identity.
  std::uint64_t end = 0;  ///< Where reading resumes after it. 0 until the transaction is whole.
  auto operator<=>(const SourcePosition&) const = default;
};

/// Names a stream, the ordered events of one thing: `category/key`. Written as text, the category
/// ends at the first '/'.
struct StreamName {
  std::string_view category;  ///< As NewEvent::category.
  std::string_view key;       ///< As NewEvent::key.
  auto operator<=>(const StreamName&) const = default;
};

/// What the store itself must know of an event; everything else is payload.
enum class EventFlags : std::uint8_t {
  kNone = 0,
  kTombstone = 1,          ///< Latest state of its key is "gone".
  kCategoryTombstone = 2,  ///< Everything before it in its category is gone (TRUNCATE).
  kPartial = 4,            ///< The payload lacks values that only an older event of its key holds.
};
constexpr EventFlags operator|(EventFlags a, EventFlags b) {
  return static_cast<EventFlags>(static_cast<std::uint8_t>(a) | static_cast<std::uint8_t>(b));
}
constexpr EventFlags without(EventFlags flags, EventFlags flag) {
  return static_cast<EventFlags>(static_cast<std::uint8_t>(flags) &
                                 ~static_cast<std::uint8_t>(flag));
}
constexpr bool has(EventFlags flags, EventFlags flag) {
  return (static_cast<std::uint8_t>(flags) & static_cast<std::uint8_t>(flag)) != 0;
}

/// An event on its way in. The views need to live only until the call that takes them returns.
struct NewEvent {
  std::string_view category;  ///< "public.orders": 1 to kCategoryBytesMax bytes, any but NUL.
  std::string_view key;      ///< Any bytes, up to kKeyBytesMax; with the category names the stream.
  std::string_view type;     ///< "ItemAdded", up to kCategoryBytesMax; empty for captured changes.
  std::string_view payload;  ///< Opaque.
  std::string_view metadata;  ///< Opaque.
  EventFlags flags = EventFlags::kNone;
  /// It gets the next version of its stream, like one that an AppendRequest brings: a domain event.
  bool versioned = false;
};

/// What holds for a whole transaction, known before its first event.
struct TransactionInfo {
  SourcePosition source;         ///< `end` may still be 0 here.
  std::uint32_t source_xid = 0;  ///< The source's own number of it; 0 if none.
  UnixMicros commit_time;        ///< When it was committed at the source, or appended.
  bool snapshot = false;         ///< Rows read by a snapshot: not a transaction of the source.
};

/// An event as a reader sees it: views into the reader's buffer, valid until its next call.
struct EventView {
  Offset offset;
  std::string_view category;
  std::string_view key;
  std::string_view type;
  std::string_view payload;
  std::string_view metadata;
  EventFlags flags = EventFlags::kNone;
  /// Its place in its stream, from 0; nothing where the log does not say it.
  std::optional<std::uint64_t> version;
};

inline constexpr std::size_t kCategoryBytesMax = 1024;
inline constexpr std::size_t kKeyBytesMax = 1 << 20;
/// One event, all of it. PostgreSQL sends a change in one message of less than 1 GiB, both rows of
/// an update together; here a value may need more bytes than as text. Beyond 2 GiB no Protobuf
/// library reads a payload, and 4 GiB is what a batch can hold.
inline constexpr std::size_t kEventBytesMax = (std::size_t{2} << 30) + (std::size_t{2} << 20);

}  // namespace millrace
