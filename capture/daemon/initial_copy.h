#pragma once

#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "capture/daemon/parallel_copy.h"
#include "capture/pipeline/snapshot_progress.h"
#include "capture/postgres/catalog.h"
#include "capture/postgres/connection.h"
#include "eventstore/event_store.h"

namespace millrace {

/// The rows that are there when a store begins, read under the snapshot of its slot's start.
///
/// First comes one transaction of the log with the beginnings of all tables' snapshots and whatever
/// could not be gone on with later: the rows of outboxes, which are events and come once; tables
/// without a replica identity, whose rows nothing tells from those that the stream brings;
/// everything, where the publication leaves updates out, which then move rows about unseen, and on
/// servers before 14, whose stream has no watermarks. Then each chunk is a transaction of its own.
/// Their commit positions lie right below the slot's start, which is where reading resumes after
/// each of them: a copy that ends early is gone on with beside the stream. Threads: one.
class InitialCopy {
 public:
  InitialCopy(EventStore& store, SchemaRegistry& schemas, Catalog& catalog, std::uint32_t epoch,
              Lsn start)
      : store_(store), schemas_(schemas), catalog_(catalog), epoch_(epoch), start_(start) {}

  /// Looks at `tables`, which are locked against changes of their shape, and divides them.
  /// `resumable`: what is not read now can be read beside the stream. The rows of `outboxes` are
  /// events that nobody has had yet.
  Result<void> plan(PostgresConnection& reader, const std::vector<SourceTable>& tables,
                    const std::vector<SourceTable>& outboxes, const std::string& publication,
                    bool resumable);
  /// Whether each table can be read, before anything is made.
  Result<void> check(PostgresConnection& reader) const;

  /// Reads on all of `readers`, which see the slot's snapshot. On return everything is durable.
  /// False if the connection was lost after the first transaction: the rest is to be read beside
  /// the stream. Other errors: what there is in the log stays.
  Result<bool> run(std::vector<std::unique_ptr<PostgresConnection>> readers,
                   const std::stop_token& stop);
  /// Whether anything was committed: then the slot must stay.
  bool has_begun() const { return has_begun_; }

 private:
  struct Table {
    std::unique_ptr<TableReader> reader;  // jobs point to it
    TableSnapshot snapshot;
    std::vector<TablePart> parts;
    bool whole = false;  // in the first transaction
    std::size_t jobs = 0;
    std::uint64_t rows_expected = 0;
  };

  struct Outbox {
    std::unique_ptr<TableReader> reader;
    std::vector<TablePart> parts;
  };

  void divide(std::uint64_t chunk_bytes);
  Result<void> learn_tables();
  Result<void> begin(std::uint64_t number);
  Result<void> commit();
  Result<void> add(const Table& table, const SnapshotEvent& event);
  Result<std::uint64_t> append_rows(ParallelCopy& copy, std::size_t job, const Table& table);
  Result<void> append_outboxes(PostgresConnection& reader);
  Result<void> append_first(ParallelCopy& copy, std::size_t& job);
  Result<void> append_chunks(ParallelCopy& copy, std::size_t& job);

  EventStore& store_;
  SchemaRegistry& schemas_;
  Catalog& catalog_;
  const std::uint32_t epoch_;
  const Lsn start_;
  std::vector<Table> tables_;  // those that are whole first
  std::vector<Outbox> outboxes_;
  std::vector<CopyJob> jobs_;
  std::uint64_t transactions_ = 1;
  std::uint64_t rows_ = 0;
  Offset end_;
  bool has_begun_ = false;
};

}  // namespace millrace
