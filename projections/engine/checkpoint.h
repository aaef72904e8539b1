#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "eventstore/types.h"
#include "projections/sqlite/database.h"
#include "projections/view.h"

namespace millrace::projections {

/// How far a view has come, kept in the table millrace_checkpoint of its own file and written in
/// the same transaction as the view: both move, or neither.
struct Checkpoint {
  std::string view;
  Version version;
  std::string shape;         ///< View::shape() when it was made.
  std::string store_id;      ///< In hexadecimal.
  Offset offset;             ///< Everything below is folded.
  std::uint64_t events = 0;  ///< That the view's functions were called with.
  std::uint32_t source_epoch = 0;
  std::uint64_t source_lsn =
      0;                   ///< Commit position of the last captured transaction that is folded.
  UnixMicros commit_time;  ///< Of the last transaction that is folded.
  /// The last event of it that is; unknown in a file that was made before it was kept.
  std::optional<Offset> last_event{};
  std::string failure;  ///< Why the worker stopped, if it had to; empty while all is well.
};

/// Makes the table with its one row.
Result<void> create_checkpoint(sqlite::Database& database, const Checkpoint& checkpoint);

/// kFailedPrecondition if the file has no checkpoint: it is no view.
Result<Checkpoint> read_checkpoint(sqlite::Database& database);

/// Remembers, or with an empty text forgets, why the view stopped.
Result<void> write_failure(sqlite::Database& database, const std::string& failure);

/// Writes what moves in a checkpoint, as part of the transaction that is open.
class CheckpointWriter {
 public:
  static Result<CheckpointWriter> make(sqlite::Database& database);
  Result<void> write(const Checkpoint& checkpoint);
  /// Whether the file still has folded what this one says, no less and no more.
  Result<bool> stands_at(const Checkpoint& checkpoint);

 private:
  sqlite::Statement update_, look_;
  bool keeps_last_event_ = false;
};

/// Whether a view as declared can go on from `checkpoint` on a store with this id that ends at
/// `durable_end`. kFailedPrecondition names the difference, and the rebuild that mends it.
Result<void> check_continuation(const View& view, const Checkpoint& checkpoint,
                                const StoreId& store, Offset durable_end,
                                const std::string& program);

}  // namespace millrace::projections
