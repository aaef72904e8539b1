#include "capture/daemon/initial_copy.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/counted.h"
#include "base/progress.h"
#include "capture/daemon/store_out.h"
#include "capture/pipeline/encoded_rows.h"
#include "capture/postgres/binary_choice.h"

namespace millrace {
namespace {

/// Of the server's file and the large values beside it. Larger: fewer transactions of the log;
/// smaller: less is read again after a crash, and connections wait less for each other.
constexpr std::uint64_t kChunkBytes = 4 << 20;

}  // namespace

Result<void> InitialCopy::plan(PostgresConnection& reader, const std::vector<SourceTable>& tables,
                               const std::vector<SourceTable>& outboxes,
                               const std::string& publication, bool resumable) {
  for (const SourceTable& table : outboxes) {
    MILLRACE_ASSIGN_OR_RETURN(Catalog::TableShape shape, read_shape(reader, table, publication));
    Outbox& outbox = outboxes_.emplace_back();
    MILLRACE_ASSIGN_OR_RETURN(outbox.parts, read_parts(reader, table));
    MILLRACE_ASSIGN_OR_RETURN(const bool binary, binary_is_exact(catalog_, shape.columns));
    outbox.reader = std::make_unique<TableReader>(table, std::move(shape), binary);
  }
  for (const SourceTable& table : tables) {
    MILLRACE_ASSIGN_OR_RETURN(Catalog::TableShape shape, read_shape(reader, table, publication));
    Table planned;
    planned.whole = !resumable || !table.has_identity;
    planned.snapshot = {
        .id = "initial", .table = table.name(), .oid = table.oid, .where = {}, .parts = {}};
    MILLRACE_ASSIGN_OR_RETURN(planned.parts, read_parts(reader, table));
    for (const TablePart& part : planned.parts) {
      planned.snapshot.parts.push_back(
          {.oid = part.oid, .file = part.file, .pages = part.pages, .next = {}});
      planned.rows_expected += part.rows;
    }
    MILLRACE_ASSIGN_OR_RETURN(const bool binary, binary_is_exact(catalog_, shape.columns));
    planned.reader = std::make_unique<TableReader>(table, std::move(shape), binary);
    tables_.push_back(std::move(planned));
  }
  std::stable_partition(tables_.begin(), tables_.end(),
                        [](const Table& table) { return table.whole; });
  // Each transaction needs a position below the slot's start.
  for (std::uint64_t chunk = kChunkBytes;; chunk *= 2) {
    divide(chunk);
    if (transactions_ < start_.value / 2) return {};
  }
}

void InitialCopy::divide(std::uint64_t chunk_bytes) {
  jobs_.clear();
  transactions_ = 1;
  for (Table& table : tables_) {
    table.jobs = 0;
    for (const TablePart& part : table.parts) {
      const std::uint64_t pages =
          table.whole ? std::max(part.pages, 1u)
                      : std::max<std::uint64_t>(
                            chunk_bytes / std::max<std::uint64_t>(part.page_bytes, 1), 1);
      for (std::uint64_t page = 0; page < part.pages; page += pages, ++table.jobs) {
        const bool last = page + pages >= part.pages;
        jobs_.push_back({.table = table.reader.get(),
                         .part = part,
                         .rows = {.from = RowPlace::page(page),
                                  .to = RowPlace::page(last ? part.pages : page + pages),
                                  .condition = {}}});
      }
    }
    if (!table.whole) transactions_ += table.jobs;
  }
}

Result<void> InitialCopy::check(PostgresConnection& reader) const {
  for (const Outbox& outbox : outboxes_)
    for (const TablePart& part : outbox.parts)
      MILLRACE_RETURN_IF_ERROR(outbox.reader->check(reader, part));
  for (const Table& table : tables_)
    for (const TablePart& part : table.parts)
      if (auto checked = table.reader->check(reader, part); !checked)
        return std::move(checked).error().context("read the present rows of " +
                                                  printable(table.snapshot.table));
  return {};
}

Result<bool> InitialCopy::run(std::vector<std::unique_ptr<PostgresConnection>> readers,
                              const std::stop_token& stop) {
  MILLRACE_RETURN_IF_ERROR(learn_tables());
  MILLRACE_RETURN_IF_ERROR(begin(0));
  Result<void> copied = append_outboxes(*readers.front());
  if (!copied) {
    MILLRACE_RETURN_IF_ERROR(store_.rollback());
  } else {
    ParallelCopy copy(jobs_, start_, schemas_, catalog_, std::move(readers));
    std::size_t job = 0;
    copied = append_first(copy, job);
    if (copied) copied = append_chunks(copy, job);
    if (!copied) MILLRACE_RETURN_IF_ERROR(store_.rollback());
  }
  if (!has_begun_) return std::move(copied).error();
  if (auto durable = wait_until_durable(store_, end_, start_.value, stop); !durable)
    return std::move(durable).error();
  if (copied) {
    spdlog::info("initial snapshot: {} of {} as of {}", counted(rows_, "row"),
                 counted(tables_.size(), "table"), to_string(start_));
    return true;
  }
  if (copied.error().code() != ErrorCode::kUnavailable) return std::move(copied).error();
  spdlog::warn("the initial snapshot was interrupted, the rest is read beside the stream: {}",
               printable(copied.error().message(), 1000));
  return false;
}

/// A table without rows has a schema, too.
Result<void> InitialCopy::learn_tables() {
  EncodedRows none;
  ChangeEncoder encoder(schemas_, catalog_, none);
  for (const Table& table : tables_)
    MILLRACE_RETURN_IF_ERROR(encoder.relation(table.reader->relation(), start_));
  return {};
}

/// The last one's is right below the slot's start.
Result<void> InitialCopy::begin(std::uint64_t number) {
  MILLRACE_CHECK(number < transactions_);
  return store_.begin(
      {.source = {.epoch = epoch_, .commit = start_.value - transactions_ + number, .end = 0},
       .source_xid = 0,
       .commit_time = Clock::system().wall(),
       .snapshot = true});
}

Result<void> InitialCopy::commit() {
  MILLRACE_ASSIGN_OR_RETURN(end_, store_.commit(start_.value));
  has_begun_ = true;
  return {};
}

Result<void> InitialCopy::add(const Table& table, const SnapshotEvent& event) {
  return store_.add({.category = kCaptureCategory,
                     .key = table.snapshot.table,
                     .type = event.type,
                     .payload = event.payload,
                     .metadata = {}});
}

Result<std::uint64_t> InitialCopy::append_rows(ParallelCopy& copy, std::size_t job,
                                               const Table& table) {
  std::uint64_t rows = 0;
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const auto piece, copy.next(job));
    if (!piece) return rows;
    rows += piece->count();
    MILLRACE_RETURN_IF_ERROR(
        piece->for_each([&](std::string_view key, std::string_view payload) -> Result<void> {
          return store_.add({.category = table.snapshot.table,
                             .key = key,
                             .type = {},
                             .payload = payload,
                             .metadata = {}});
        }));
  }
}

/// In the order in which the rows lie in the table, into the transaction that is open.
Result<void> InitialCopy::append_outboxes(PostgresConnection& reader) {
  StoreOut out(store_, start_);
  ChangeEncoder encoder(schemas_, catalog_, out);
  std::vector<std::string> names;
  for (const Outbox& outbox : outboxes_) names.push_back(outbox.reader->table().name());
  encoder.use_outbox(names);
  for (const Outbox& outbox : outboxes_) {
    TableReader& table = *outbox.reader;
    std::uint64_t rows = 0;
    MILLRACE_RETURN_IF_ERROR(encoder.relation(table.relation(), start_));
    for (const TablePart& part : outbox.parts) {
      const RowSelection all{
          .from = RowPlace::page(0), .to = RowPlace::page(part.pages), .condition = {}};
      auto copied = table.copy(reader, part, all,
                               [&](std::string_view, const pgoutput::Tuple& row) -> Result<void> {
                                 ++rows;
                                 return encoder.read(table.table().oid, row, Lsn{});
                               });
      if (!copied)
        return std::move(copied).error().context("read the present rows of " +
                                                 printable(table.table().name()));
    }
    spdlog::info("outbox {}: {} read", printable(table.table().name()), counted(rows, "row"));
  }
  return {};
}

Result<void> InitialCopy::append_first(ParallelCopy& copy, std::size_t& job) {
  for (const Table& table : tables_)
    MILLRACE_RETURN_IF_ERROR(add(table, snapshot_began(table.snapshot)));
  for (Table& table : tables_) {
    if (!table.whole && table.jobs != 0) continue;
    Progress progress("snapshot of " + table.snapshot.table, table.rows_expected,
                      ProgressUnit::kEvents);
    for (std::size_t n = 0; n < table.jobs; ++n, ++job) {
      MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t rows, append_rows(copy, job, table));
      progress.update(table.snapshot.rows += rows);
    }
    rows_ += table.snapshot.rows;
    MILLRACE_RETURN_IF_ERROR(add(table, snapshot_completed(table.snapshot)));
    progress.finish();
    spdlog::info("snapshot of {}: {}", printable(table.snapshot.table),
                 counted(table.snapshot.rows, "row"));
  }
  return commit();
}

Result<void> InitialCopy::append_chunks(ParallelCopy& copy, std::size_t& job) {
  std::uint64_t number = 0;
  for (Table& table : tables_) {
    if (table.whole || table.jobs == 0) continue;
    Progress progress("snapshot of " + table.snapshot.table, table.rows_expected,
                      ProgressUnit::kEvents);
    for (std::size_t n = 1; n <= table.jobs; ++n, ++job) {
      MILLRACE_RETURN_IF_ERROR(begin(++number));
      MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t rows, append_rows(copy, job, table));
      const CopyJob& done = jobs_[job];
      table.snapshot.rows += rows;
      MILLRACE_RETURN_IF_ERROR(add(table, snapshot_chunk(table.snapshot,
                                                         {.oid = done.part.oid,
                                                          .file = done.part.file,
                                                          .pages = done.part.pages,
                                                          .next = done.rows.to},
                                                         rows)));
      if (n == table.jobs) MILLRACE_RETURN_IF_ERROR(add(table, snapshot_completed(table.snapshot)));
      MILLRACE_RETURN_IF_ERROR(commit());
      progress.update(table.snapshot.rows);
    }
    rows_ += table.snapshot.rows;
    progress.finish();
    spdlog::info("snapshot of {}: {}", printable(table.snapshot.table),
                 counted(table.snapshot.rows, "row"));
  }
  return {};
}

}  // namespace millrace
