#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

namespace millrace {

/// What an application says of a domain event beside the event itself. Every part is optional and
/// may hold any bytes.
struct EventMetadata {
  std::string_view event_id = {};        ///< Identity that the application gave it.
  std::string_view correlation_id = {};  ///< Shared by all that one request led to.
  std::string_view causation_id = {};    ///< Of the command or event that led to this one.
  std::optional<UnixMicros> time = {};  ///< Event time: when it happened, not when it was appended.
  std::string_view extra = {};          ///< The application's own.

  bool operator==(const EventMetadata&) const = default;
};

/// The bytes of a metadata field in the log: the Protobuf message millrace.v1.EventMetadata. Empty
/// if nothing is set.
std::string encode_metadata(const EventMetadata& metadata);
/// Views into `bytes`. Errors: kCorruption (not such a message).
Result<EventMetadata> decode_metadata(std::string_view bytes);

}  // namespace millrace
