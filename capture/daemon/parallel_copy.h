#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "capture/pipeline/encoded_rows.h"
#include "capture/postgres/connection.h"
#include "capture/postgres/table_reader.h"
#include "schemas/registry.h"

namespace millrace {

/// Rows that are read by one COPY.
struct CopyJob {
  const TableReader* table = nullptr;  ///< Only copied from.
  TablePart part;
  RowSelection rows;
};

/// Reads and encodes rows on several connections at once, and hands them out in the order of the
/// jobs: who appends to the log is one thread, and the log's order does not depend on who was
/// faster. Bounded: who is ahead waits once 16 MiB are there.
///
/// The connections are in a transaction that sees what is to be read; it is committed at the end.
/// Threads: one, and one for each connection within.
class ParallelCopy {
 public:
  /// The position that the tables' shapes are recorded with is `lsn`. All that is given must
  /// outlive this.
  ParallelCopy(std::vector<CopyJob> jobs, Lsn lsn, SchemaRegistry& schemas, CatalogLookup& catalog,
               std::vector<std::unique_ptr<PostgresConnection>> connections);
  ~ParallelCopy();
  ParallelCopy(const ParallelCopy&) = delete;
  ParallelCopy& operator=(const ParallelCopy&) = delete;

  /// The next piece of job `job`'s rows, nothing at its end. Jobs are asked for in their order,
  /// each to its end. Errors: the first that any connection met.
  Result<std::optional<EncodedRows>> next(std::size_t job);

 private:
  /// The catalog is of one thread at a time.
  class LockedLookup final : public CatalogLookup {
   public:
    explicit LockedLookup(CatalogLookup& catalog) : catalog_(catalog) {}
    Result<ColumnType> type(std::uint32_t oid, std::int32_t modifier) override;
    Result<std::optional<std::vector<std::string>>> primary_key(
        std::uint32_t relation_oid) override;

   private:
    std::mutex mutex_;
    CatalogLookup& catalog_;
  };
  struct Output {
    std::deque<EncodedRows> pieces;
    bool whole = false;
  };

  void work(PostgresConnection& connection);
  Result<void> read(PostgresConnection& connection, std::size_t job);
  std::optional<std::size_t> take();
  Result<void> put(std::size_t job, EncodedRows piece, bool last);

  const std::vector<CopyJob> jobs_;
  const Lsn lsn_;
  SchemaRegistry& schemas_;
  LockedLookup catalog_;
  const std::vector<std::unique_ptr<PostgresConnection>> connections_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable room_, rows_;
  std::vector<Output> outputs_;
  std::size_t taken_ = 0;   // jobs that somebody has begun
  std::size_t wanted_ = 0;  // the job that is handed out
  std::size_t buffered_ = 0;
  std::optional<Error> failure_;

  std::vector<std::jthread> threads_;
};

}  // namespace millrace
