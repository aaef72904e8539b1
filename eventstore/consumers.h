#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/log_reader.h"
#include "eventstore/maintenance_api.h"
#include "eventstore/types.h"

// Consumers are readers that the store knows by name: how far each has got, and what retention does
// when it has not got far enough. A consumer is a small JSON file, `consumers/<name>` in the store.
namespace millrace {

std::string_view name_of(ConsumerPolicy policy);

struct Consumer {
  std::string name;
  Offset offset;  ///< The first event that it has not read.
  ConsumerPolicy policy = ConsumerPolicy::kHold;
  UnixMicros updated;
  std::vector<RemovedEvents> lost;  ///< What went before it had read it.
};

/// 1 to 100 letters, digits, `.`, `_` and `-`, the first a letter or digit; not ending in ".tmp".
Result<void> check_consumer_name(std::string_view name);

/// Of the files that are there, sorted. Errors: kIo.
Result<std::vector<std::string>> consumer_names(const Path& store,
                                                FileSystem& files = FileSystem::real());
/// By name. A consumer that registers itself in the directory's file while this reads is there or
/// not. Errors: kCorruption (a damaged file; it is named), kIo.
Result<std::vector<Consumer>> list_consumers(const Path& store,
                                             FileSystem& files = FileSystem::real());
/// Errors also: kNotFound.
Result<Consumer> find_consumer(const Path& store, std::string_view name,
                               FileSystem& files = FileSystem::real());

/// Errors: kGone ("OFFSET_GONE": it has lost events; what was made from them must be built anew).
Result<void> check_has_all(const Consumer& consumer);

/// A reader that goes on where the consumer is. Errors: as check_has_all,
/// find_consumer and LogReader::open.
Result<std::unique_ptr<LogReader>> open_consumer(const Path& store, std::string_view name,
                                                 FileSystem& files = FileSystem::real());

/// For the store's writer only: one at a time.
class ConsumerFiles {
 public:
  ConsumerFiles(FileSystem& files, Path store) : files_(files), store_(std::move(store)) {}

  /// Durable on return.
  Result<void> write(const Consumer& consumer);
  Result<void> remove(std::string_view name);

 private:
  FileSystem& files_;
  Path store_;
};

}  // namespace millrace
