#pragma once

#include <memory>

#include "base/file.h"
#include "base/mutex.h"
#include "base/result.h"
#include "eventstore/appender.h"
#include "schemas/registry.h"

namespace millrace::service {

/// Keeps applications from appending to the categories of captured tables, where an event would
/// tell of a change that never was. What was captured once counts, too: its rows are still there.
/// Threads: any.
class CapturedTables {
 public:
  /// Of the store in `directory`, which may come later.
  CapturedTables(Path directory, FileSystem& files)
      : directory_(std::move(directory)), files_(files) {}

  /// Errors: kFailedPrecondition (a stream of a captured table), and those of the registry.
  Result<void> refuse(const AppendRequest& request);

 private:
  const Path directory_;
  FileSystem& files_;
  Mutex mutex_;
  std::unique_ptr<SchemaRegistry> schemas_ MILLRACE_GUARDED_BY(mutex_);
};

}  // namespace millrace::service
