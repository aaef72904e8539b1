#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/types.h"

namespace millrace {

struct SegmentSummary {
  std::string file;  ///< Name within log/.
  Offset first;
  Offset end;
  std::uint64_t bytes = 0;       ///< Of the file.
  std::uint64_t used_bytes = 0;  ///< Header and durable batches.
};

/// What a store is, told without reading its events.
struct StoreSummary {
  StoreId id;
  std::uint32_t format_version = 0;
  UnixMicros created;
  Offset first;
  Offset durable_end;
  std::optional<SourcePosition> source;  ///< Of the last durable captured transaction.
  UnixMicros last_commit_time;
  /// What the last writer called durable; nothing if none has said so since HEAD was made.
  std::optional<Durability> durability;
  std::vector<SegmentSummary> segments;
  std::string writer;  ///< Who holds the lock ("pid 812, millrace"); empty if nobody.
};

/// Errors: kNotFound, kFailedPrecondition (no store), kUnsupported, kCorruption, kIo.
Result<StoreId> read_store_id(const Path& directory, FileSystem& files = FileSystem::real());

/// Read-only, beside a running writer or without one. Errors: as LogReader::open.
Result<StoreSummary> summarize_store(const Path& directory, FileSystem& files = FileSystem::real());

/// One thing that verify found.
struct Fault {
  std::string file;            ///< Within the store.
  std::uint64_t position = 0;  ///< Byte in it.
  std::string kind;            ///< "batch payload checksum", "missing segment", ...
  std::string detail;
};

struct VerifyReport {
  std::uint64_t bytes = 0;
  std::uint64_t batches = 0;
  std::uint64_t events = 0;
  /// After the last whole transaction, left by a crash: no fault, the next writer cuts it off.
  std::uint64_t torn_tail_bytes = 0;
  std::vector<Fault> faults;
};

/// Reads and checks every byte that the log claims to hold: segment headers and their links, batch
/// checksums, chain, offsets, transaction bounds, records; an index that is there is compared with
/// what its segment says. Goes on behind each fault. Beside a
/// running writer it checks what is durable; without one also what the next writer would say of the
/// tail. Changes nothing. `progress(bytes done, bytes in all)` is called about every MiB. Errors:
/// what keeps it from starting: as LogReader::open, also a damaged store.json; kIo.
Result<VerifyReport> verify_store(
    const Path& directory, const std::function<void(std::uint64_t, std::uint64_t)>& progress = {},
    FileSystem& files = FileSystem::real());

}  // namespace millrace
