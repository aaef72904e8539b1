#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "schemas/registry.h"

namespace millrace {

/// An event as the renderer needs it; the caller fills it from where it read it.
struct EventRecord {
  std::uint64_t offset = 0;
  std::string_view category = {};
  std::string_view key = {};
  std::string_view type = {};  ///< Empty: `payload` is a millrace.v1.Change. Else a domain event.
  std::optional<std::uint64_t> version = {};  ///< Of a domain event in its stream, if known.
  std::string_view payload = {};
  bool captured = false;  ///< The two below are set.
  std::uint64_t commit_lsn = 0;
  std::uint32_t xid = 0;
  UnixMicros commit_time = {};  ///< At the source, or when it was appended.

  /// What an application said of a domain event beside it, each if not empty.
  struct Metadata {
    std::string_view event_id = {}, correlation_id = {}, causation_id = {};
    std::optional<UnixMicros> time = {};
    std::string_view extra = {};
    bool operator==(const Metadata&) const = default;
  } metadata = {};
};

/// Appends `event` as one JSON object, without a newline, in the words of docs/events.md:
/// {"offset":17,"op":"c","category":"public.orders","key":{"id":42},"before":null,"after":{...},"unchanged":[],"source":{...},"schema":1}
/// `offset` is left out where `with_offset` is false (a live change that is in no store).
///
/// Values are written as PostgreSQL's own to_json does in UTC, except: numeric, integers beyond
/// +-2^53 and NaN or infinite floats are strings with PostgreSQL's exact text, bytea is base64;
/// docs/rows.md has all of it. The result is valid JSON in UTF-8 on one line, whatever the event
/// holds. Allocates nothing but what `out` needs. Errors: kNotFound (no such schema version),
/// kCorruption (payload is no such message); `out` is then as before. Threads: any.
Result<void> append_event_json(const EventRecord& event, SchemaRegistry& schemas, std::string& out,
                               bool with_offset = true);

/// The same event as one line for a person: "17  c  public.orders  id=42  {...}".
Result<void> append_event_text(const EventRecord& event, SchemaRegistry& schemas, std::string& out,
                               bool with_offset = true);

}  // namespace millrace
