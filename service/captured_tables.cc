#include "service/captured_tables.h"

#include "base/bytes.h"

namespace millrace::service {

Result<void> CapturedTables::refuse(const AppendRequest& request) {
  const MutexLock lock(mutex_);
  if (!schemas_) {
    MILLRACE_ASSIGN_OR_RETURN(schemas_, SchemaRegistry::open_read_only(directory_, files_));
  }
  std::string_view last;  // streams of one request are mostly of one category
  for (const StreamAppend& part : request.streams) {
    if (part.stream.category == last) continue;
    last = part.stream.category;
    const auto table = schemas_->latest(part.stream.category);
    if (table)
      return Error(ErrorCode::kFailedPrecondition,
                   "category " + printable(part.stream.category) +
                       " is a captured table's: an event there would look like a change of it")
          .hint("Give your own events another category, such as cart in cart/9f3a.");
    if (table.error().code() != ErrorCode::kNotFound) return table.error();
  }
  return {};
}

}  // namespace millrace::service
