#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "capture/pgoutput/message.h"
#include "eventstore/types.h"
#include "schemas/registry.h"

namespace millrace {

/// Begins the prefix of a logical message that is a domain event. Capture's own messages have
/// kOwnMessagePrefix, which is this without the colon, and nothing else.
inline constexpr std::string_view kEventMessagePrefix = "millrace:";
/// Type of an event whose message names none.
inline constexpr std::string_view kUntypedMessage = "message";
/// Category of logical messages that are no domain events; no table's, since those have a dot.
inline constexpr std::string_view kMessagesCategory = "$messages";

/// Where a domain event goes. Views into what it was made of.
struct EventAddress {
  std::string_view type, category, key;
};

/// The address in a message's prefix that begins with kEventMessagePrefix:
///
///   millrace:[type@]category/key
///
/// The category ends at the first '/', so that a key may be any bytes; a type ends at the first '@'
/// before that. Errors: kInvalidArgument, a sentence that says what is wrong.
Result<EventAddress> parse_event_prefix(std::string_view prefix);

/// Domain events that applications write inside their transactions: which ones may become events of
/// the log, and what becomes of the others. Threads: one.
class ApplicationEvents {
 public:
  explicit ApplicationEvents(SchemaRegistry& schemas, Clock& clock = Clock::system())
      : schemas_(schemas), clock_(clock) {}

  /// Whether an event may go there: names within the store's limits, none of millrace's own
  /// categories, and none of a captured table, of whose rows it would seem to tell. Errors:
  /// kInvalidArgument, a sentence.
  Result<void> check(const EventAddress& address);
  /// The event that a message with kEventMessagePrefix is, a view into it; nothing where it can't
  /// be one, which is warned of.
  std::optional<NewEvent> event_of(const pgoutput::LogicalMessage& message);
  /// Warns that `what` is no domain event, which its transaction can't be told any more: the first
  /// time, then of one a minute at most, with the number of those in between.
  void refuse(std::string_view what, const Error& why);

 private:
  SchemaRegistry& schemas_;
  Clock& clock_;
  std::uint64_t refused_ = 0, told_ = 0;  ///< In all; of those, up to the last warning.
  Clock::Monotonic told_at_;
};

}  // namespace millrace
