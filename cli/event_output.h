#pragma once

#include <chrono>
#include <stop_token>

#include "base/output.h"
#include "cli/event_record.h"

namespace millrace {

/// Prints events on standard output, one a line, for the commands that can also wait for more.
class EventOutput {
 public:
  /// Errors: as Output, and those of the schema.
  Result<void> print(const EventView& event, const TransactionInfo& transaction,
                     SchemaRegistry& schemas, bool as_json) {
    const EventRecord record = to_record(event, transaction);
    MILLRACE_RETURN_IF_ERROR(as_json ? append_event_json(record, schemas, output_.text())
                                     : append_event_text(record, schemas, output_.text()));
    return output_.end_of_line();
  }

  /// Waits at the end of what `reader` (a LogReader or StreamReader) has; false when `stop` was
  /// asked.
  template <typename Reader>
  Result<bool> wait_for_more(Reader& reader, const std::stop_token& stop) {
    for (;;) {
      MILLRACE_RETURN_IF_ERROR(output_.flush());
      MILLRACE_RETURN_IF_ERROR(output_.check_reader());
      MILLRACE_ASSIGN_OR_RETURN(const bool more, reader.wait(kWait, stop));
      if (more || stop.stop_requested()) return more;
    }
  }

  Result<void> flush() { return output_.flush(); }

 private:
  /// A signal ends the wait earlier. How soon a reader that went away is noticed.
  static constexpr std::chrono::milliseconds kWait{1'000};
  Output output_;
};

}  // namespace millrace
