#include "eventstore/log/segment_check.h"

#include "eventstore/log/removal.h"

namespace millrace::log {

Result<std::optional<std::string>> check_next_batch(SegmentReader& reader, Batch& scratch) {
  MILLRACE_ASSIGN_OR_RETURN(auto found, reader.peek());
  if (found.fault == BatchFault::kNone) MILLRACE_RETURN_IF_ERROR(reader.load(found));
  if (found.fault == BatchFault::kUnsupported)
    return Error(ErrorCode::kUnsupported,
                 "log/" + StorePaths::segment_name(reader.header().segment) + " at byte " +
                     std::to_string(found.position) + ": written by a newer millrace")
        .hint("Install that version, or a newer one.");
  if (found.fault != BatchFault::kNone) return std::string(describe(found.fault));
  scratch.load(found.header, found.payload, Offset{0});
  while (scratch.next() != nullptr) {
  }
  bool good = scratch.status().has_value();
  if (good && found.header.has(kControl)) good = decode_removals(found.payload).has_value();
  if (!good) return std::string("batch records");
  reader.advance(found);
  return std::optional<std::string>();
}

}  // namespace millrace::log
