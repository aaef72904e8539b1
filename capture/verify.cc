#include "capture/verify.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>

#include "base/bytes.h"
#include "capture/keyed_state.h"
#include "capture/postgres/preflight.h"
#include "capture/postgres/replication.h"
#include "capture/source_state.h"
#include "capture/state/live_rows.h"
#include "capture/state/store_catch_up.h"
#include "capture/state/table_comparison.h"
#include "capture/state/transaction_snapshot.h"
#include "capture/table_patterns.h"
#include "schemas/registry.h"

namespace millrace {
namespace {

class Verification {
 public:
  using OnDifference = std::function<Result<void>(const TableDifference&)>;

  Verification(const VerifyOptions& options, const std::stop_token& stop, SourceAddress address,
               TablePatterns patterns, const OnDifference& on_difference)
      : options_(options),
        stop_(stop),
        address_(std::move(address)),
        patterns_(std::move(patterns)),
        on_difference_(on_difference),
        catalog_(address_) {}

  Result<std::vector<TableReport>> run() {
    MILLRACE_RETURN_IF_ERROR(look_at_source());
    MILLRACE_RETURN_IF_ERROR(take_snapshot());
    MILLRACE_RETURN_IF_ERROR(
        wait_for_store(catalog_, options_.store, state_, options_.wait, stop_));
    MILLRACE_RETURN_IF_ERROR(learn_schemas());
    return compare();
  }

 private:
  Result<void> look_at_source();
  Result<void> take_snapshot();
  Result<void> learn_schemas();
  Result<std::vector<TableReport>> compare();
  Path spill() const { return options_.spill.empty() ? options_.store : options_.spill; }

  const VerifyOptions& options_;
  const std::stop_token& stop_;
  SourceAddress address_;
  TablePatterns patterns_;
  const OnDifference& on_difference_;
  Catalog catalog_;
  SourceState state_;
  std::vector<SourceTable> tables_;
  std::unique_ptr<PostgresConnection> reader_;  // the snapshot is open on it
  std::optional<TransactionSnapshot> snapshot_;
  std::unique_ptr<SchemaRegistry> schemas_;
};

/// The tables to compare, and that it is the source that the store knows.
Result<void> Verification::look_at_source() {
  MILLRACE_ASSIGN_OR_RETURN(const auto state, load_source_state(options_.store));
  if (!state)
    return Error(ErrorCode::kFailedPrecondition,
                 "store " + options_.store.string() + " was never captured into")
        .hint("Is --store the right one?");
  state_ = *state;
  MILLRACE_ASSIGN_OR_RETURN(const auto connection, PostgresConnection::open(address_, true, stop_));
  MILLRACE_ASSIGN_OR_RETURN(const SystemIdentity system, identify_system(*connection));
  if (system.system_id != state_.system_id || system.database != state_.database)
    return Error(ErrorCode::kFailedPrecondition,
                 "database " + system.database + " of the server with system identifier " +
                     system.system_id + " is not the one that the store was fed by (" +
                     state_.database + " of " + state_.system_id + ")")
        .hint("Name that one in --source.");
  MILLRACE_ASSIGN_OR_RETURN(const Preflight preflight,
                            run_preflight(catalog_, {.patterns = patterns_,
                                                     .slot = state_.slot,
                                                     .publication = state_.publication,
                                                     .outbox = state_.outbox}));
  if (!preflight.publication)
    return Error(ErrorCode::kFailedPrecondition,
                 "publication " + state_.publication + " is gone from the server")
        .hint("`millrace capture run` says what to do.");
  for (const SourceTable& table : preflight.tables)
    if (!patterns_.given() || patterns_.match(table.schema_name, table.table_name))
      tables_.push_back(table);
  for (const std::string& name : patterns_.plain_names())
    if (std::ranges::find(tables_, name, &SourceTable::name) == tables_.end())
      return Error(ErrorCode::kFailedPrecondition, name + " is no captured table")
          .hint("Correct the name in --tables; `millrace capture check` lists what is captured.");
  if (tables_.empty())
    return Error(ErrorCode::kFailedPrecondition, "no captured table matches")
        .hint("A pattern is schema.table, as in 'public.*'.");
  std::ranges::sort(tables_, {}, &SourceTable::name);
  return {};
}

/// The locks come first: who truncates or rewrites a table afterwards waits for us, and whoever did
/// it before is seen by the snapshot. Both are not transactional to those who look with an older
/// one.
Result<void> Verification::take_snapshot() {
  MILLRACE_ASSIGN_OR_RETURN(reader_, PostgresConnection::open(address_, false, stop_));
  MILLRACE_RETURN_IF_ERROR(reader_->query("SET lock_timeout = '15s'"));
  MILLRACE_RETURN_IF_ERROR(reader_->query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"));
  for (const SourceTable& table : tables_)
    if (auto locked = reader_->query("LOCK TABLE " + table.quoted() + " IN ACCESS SHARE MODE");
        !locked)
      return std::move(locked).error().context("lock table " + table.name() + " against TRUNCATE");
  MILLRACE_ASSIGN_OR_RETURN(
      const auto rows, reader_->query("SELECT txid_current_snapshot()::text, "
                                      "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"));
  if (rows.size() != 1 || rows[0].size() != 2 || !rows[0][0] || !rows[0][1])
    return Error(ErrorCode::kUnsupported, "the server tells no snapshot");
  MILLRACE_ASSIGN_OR_RETURN(
      snapshot_, TransactionSnapshot::parse(
                     *rows[0][0], UnixMicros{std::strtoll(rows[0][1]->c_str(), nullptr, 10)}));
  return {};
}

/// The store's own versions, in memory: what the tables are now may be a version that no change has
/// brought into the store yet.
Result<void> Verification::learn_schemas() {
  MILLRACE_ASSIGN_OR_RETURN(const auto stored, SchemaRegistry::open_read_only(options_.store));
  MILLRACE_ASSIGN_OR_RETURN(const auto all, stored->all());
  schemas_ = SchemaRegistry::in_memory();
  for (const SchemaRegistry::Schema& schema : all) {
    MILLRACE_ASSIGN_OR_RETURN(const auto recorded, schemas_->record(*schema));
    if (recorded->version != schema->version || recorded->columns != schema->columns)
      return Error(ErrorCode::kCorruption, "version " + std::to_string(schema->version) +
                                               " of table " + printable(schema->category) +
                                               " does not follow from the one before it");
  }
  return {};
}

TableDifference described(const std::string& category, const FoundDifference& found) {
  TableDifference difference{.category = category,
                             .kind = found.kind,
                             .key = std::string(found.key),
                             .columns = {},
                             .times = found.times};
  if (found.columns == nullptr) return difference;
  const bool differs = found.kind == RowDifferenceKind::kDifferent;
  for (const ColumnSchema* column : differs ? found.columns->different : found.columns->untold)
    difference.columns.push_back(column->name);
  return difference;
}

Result<std::vector<TableReport>> Verification::compare() {
  LiveRows live(*reader_, catalog_, *schemas_, spill(), options_.memory_bytes / 2);
  std::vector<LiveRows::Table> tables;
  KeyedState::Options wanted{.store = options_.store,
                             .tables = {},
                             .includes =
                                 [this](const TransactionInfo& info) {
                                   return info.source.epoch != state_.epoch ||
                                          info.source_xid == 0 || info.snapshot ||
                                          snapshot_->sees(info.source_xid, info.commit_time);
                                 },
                             .spill_folder = spill(),
                             .memory_bytes = options_.memory_bytes / 2,
                             .stop = stop_};
  for (const SourceTable& table : tables_) {
    MILLRACE_ASSIGN_OR_RETURN(auto known, live.learn(table, state_.publication, Lsn{}));
    wanted.tables.push_back({.category = known.schema->category,
                             .rows_are_keys = known.rows_are_keys ? known.schema : nullptr});
    tables.push_back(std::move(known));
  }
  MILLRACE_ASSIGN_OR_RETURN(const auto state, KeyedState::read(std::move(wanted)));
  std::vector<TableReport> reports;
  for (std::size_t i = 0; i < tables.size(); ++i) {
    const std::string& category = tables[i].schema->category;
    MILLRACE_RETURN_IF_ERROR(live.read(tables[i]));
    const auto report = [&](const FoundDifference& found) {
      return on_difference_(described(category, found));
    };
    auto counts = compare_table(*state, i, live, tables[i], *schemas_, report, stop_);
    if (!counts) return std::move(counts).error().context("compare " + printable(category));
    reports.push_back(
        {.category = category, .counts_equal_rows = tables[i].rows_are_keys, .counts = *counts});
  }
  return reports;
}

}  // namespace

Result<std::vector<TableReport>> verify_source(
    const VerifyOptions& options, const std::stop_token& stop,
    const std::function<Result<void>(const TableDifference&)>& on_difference) {
  MILLRACE_ASSIGN_OR_RETURN(SourceAddress address, SourceAddress::parse(options.source));
  MILLRACE_ASSIGN_OR_RETURN(TablePatterns patterns, TablePatterns::parse(options.tables));
  return Verification(options, stop, std::move(address), std::move(patterns), on_difference).run();
}

}  // namespace millrace
