#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "capture/pipeline/change_encoder.h"

namespace millrace {

/// Where a row lies in its file: page and line, PostgreSQL's ctid, in one number that sorts as it
/// does.
struct RowPlace {
  std::uint64_t value = 0;
  static constexpr RowPlace page(std::uint64_t number) { return {number << 16}; }
  auto operator<=>(const RowPlace&) const = default;
};

enum class SnapshotReason : std::uint8_t {
  kInitial,    ///< The store began with it.
  kAdded,      ///< The table joined the publication later.
  kRequested,  ///< Somebody asked for it; what the log has of the table is whole without it.
};

/// How far one part of a table (itself, or a partition) was read.
struct SnapshotPart {
  std::uint32_t oid = 0;
  std::uint32_t file = 0;   ///< What `next` is a place in. Another one: the part is read anew.
  std::uint32_t pages = 0;  ///< As many as there were when its reading began.
  RowPlace next;            ///< Everything before it is in the log.
};

/// The reading of one table's rows.
struct TableSnapshot {
  std::string id;  ///< Of all that was asked for together.
  SnapshotReason reason = SnapshotReason::kInitial;
  std::string table;  ///< Its category.
  std::uint32_t oid = 0;
  std::string where;  ///< SQL; empty for every row.
  std::vector<SnapshotPart> parts;
  std::uint64_t rows = 0;
};

/// What capture tells the log of its snapshots: events of kCaptureCategory, keyed by the table's
/// category (docs/events.md). Each lies in the same transaction as the rows that it tells of, so
/// the log itself says what is left to be read.
struct SnapshotEvent {
  std::string type, payload;
};
SnapshotEvent snapshot_began(const TableSnapshot& snapshot);
/// `rows` more were read of `part`, up to its `next`.
SnapshotEvent snapshot_chunk(const TableSnapshot& snapshot, const SnapshotPart& part,
                             std::uint64_t rows);
SnapshotEvent snapshot_completed(const TableSnapshot& snapshot);
/// From now on it is as if nothing of it had been read.
SnapshotEvent snapshot_restarted(const TableSnapshot& snapshot, std::string_view why);
SnapshotEvent snapshot_abandoned(const TableSnapshot& snapshot, std::string_view why);

/// The fold of those events: what was begun and is not complete. Threads: one.
class SnapshotProgress {
 public:
  /// Events of other types are passed over. Errors: kCorruption.
  Result<void> apply(std::string_view type, std::string_view key, std::string_view payload);
  const std::vector<TableSnapshot>& unfinished() const { return unfinished_; }
  /// Whether a snapshot of this id was begun, finished or not.
  bool knows(std::string_view id) const;

 private:
  std::vector<TableSnapshot> unfinished_;
  std::vector<std::string> ids_;
};

/// Puts `part` where the part of its OID stands in `snapshot`, or adds it.
void set_part(TableSnapshot& snapshot, const SnapshotPart& part);

}  // namespace millrace
