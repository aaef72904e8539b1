#pragma once

#include <chrono>
#include <memory>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/appender.h"
#include "eventstore/event_store.h"

namespace millrace {

struct SharedStoreOptions {
  /// For the moments in which this process holds the store.
  StoreOptions store = {};
  /// How long to look for somebody to do it: a process that holds the store may just be starting or
  /// ending.
  std::chrono::milliseconds patience{10'000};
  /// This process gives the store back when it had nothing to do for so long, so that a capture can
  /// have it. Shorter: it is opened anew more often.
  std::chrono::milliseconds hold{300};
};

/// A store to append to and to look after, whoever holds it: if nobody does, this process does
/// while it has something to do, and serves the others; else the one who holds it is asked, through
/// the socket in the store's folder. When that one ends, the next call looks again.
///
/// A compaction, an erasure or a copy that its holder ends to make room for a capture goes on with
/// that one; the report is of all of it. Of CompactionOptions the holder's own
/// StoreOptions::partials count, not those of the call, and of its progress only a compaction's is
/// told.
///
/// An append to a stream of a captured table is refused (kFailedPrecondition): it would tell of a
/// change that never was. A table counts from the first change or row of it that was captured, and
/// for ever. Whoever holds an EventStore itself is not kept from it.
///
/// Errors beside those of the calls: kLocked (the holder serves nobody), kUnavailable (it ended in
/// the middle of a call, and whether that was done is not known; an append with an idempotency key
/// is repeated instead), those of EventStore::open. Threads: any.
class SharedStore : public Appender, public StoreMaintenance {
 public:
  static Result<std::unique_ptr<SharedStore>> open(const Path& directory,
                                                   SharedStoreOptions options = {});
  virtual const StoreId& id() const = 0;
};

/// Asks whoever holds the store only as a SharedStore to make room for this process, which is going
/// to open it: for a second it does not take it back. True if it will: it ends what it does, at the
/// next step at which it can. Nothing happens if nobody is there, or one that keeps the store.
bool ask_to_yield(const Path& directory);

}  // namespace millrace
