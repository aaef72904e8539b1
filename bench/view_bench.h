#pragma once

#include <sqlite3.h>

#include <optional>

#include "bench/bench.h"
#include "capture/daemon/stream_session.h"
#include "capture/pgoutput/builtin_types.h"
#include "capture/pipeline/change_encoder.h"
#include "eventstore/event_store.h"
#include "projections/projections.h"
#include "public.documents.pb.h"
#include "public.orders.pb.h"

// What the workloads of views have in common: a store as capture writes it, a program over it, and
// the bare loop that it is held against.

namespace millrace::bench {

using namespace millrace::projections;
using ::bench::Documents;
using ::bench::Orders;

struct Order {
  std::int64_t id, customer_id;
  std::string status, total, note;
  std::string created_at;
  std::int64_t created_micros;
  bool paid;
};

/// As many as `count`; their keys repeat after `keys`.
inline std::vector<Order> make_orders(int count, int keys = 0) {
  std::vector<Order> orders;
  for (int i = 0; i < count; ++i)
    orders.push_back({keys == 0 ? i : (static_cast<std::int64_t>(i) * 7919) % keys, i % 997,
                      "shipped", std::to_string(i) + ".25",
                      "note number " + std::to_string(i % 1000), "2026-01-02 03:04:05.000006+00",
                      820'638'245'000'006, i % 2 == 0});
  return orders;
}

inline pgoutput::Relation orders_relation() {
  return {.schema_name = "public",
          .table_name = "orders",
          .columns = {{true, "id", 20},
                      {false, "customer_id", 23},
                      {false, "status", 25},
                      {false, "total", 1700},
                      {false, "note", 25},
                      {false, "created_at", 1184},
                      {false, "paid", 16}}};
}
inline std::vector<std::string> fields_of(const Order& o) {
  return {
      std::to_string(o.id), std::to_string(o.customer_id), o.status, o.total, o.note, o.created_at,
      o.paid ? "t" : "f"};
}

class BuiltinCatalog final : public CatalogLookup {
 public:
  Result<millrace::ColumnType> type(std::uint32_t oid, std::int32_t) override {
    const auto builtin = pgoutput::builtin_type(oid);
    if (!builtin) return Error(ErrorCode::kNotFound, "no built-in type");
    return millrace::ColumnType{.kind = builtin->kind, .array = builtin->array, .name = "type"};
  }
  Result<std::optional<std::vector<std::string>>> primary_key(std::uint32_t) override {
    return std::optional(std::vector<std::string>());
  }
};

/// Writes changes of one table to a store as capture does, some of them a transaction; makes the
/// store, with the table's schema, where it is missing.
class Filler {
 public:
  Filler(const Path& directory, pgoutput::Relation relation, int per_transaction = 1000)
      : per_transaction_(per_transaction) {
    StoreOptions options;
    options.before_flush = [this] { return schemas_->flush(); };
    store_ = must(EventStore::open(directory, options));
    schemas_ = must(SchemaRegistry::open(directory));
    out_.emplace(*store_, Lsn{});
    encoder_.emplace(*schemas_, catalog_, *out_);
    position_ = store_->durable_end().value * 100;
    relation.oid = 1;
    must(encoder_->relation(relation, {}));
    must(schemas_->flush());
  }
  ~Filler() {
    if (in_transaction_ > 0) commit();
    must(store_->wait_durable(store_->appended_end(), 0, std::chrono::minutes(1)));
  }

  void insert(const std::vector<std::string>& values) {
    insert_.after = tuple(values);
    begin();
    must(encoder_->insert(insert_, Lsn{position_}));
    end();
  }
  void update(const std::vector<std::string>& values) {
    update_.after = tuple(values);
    begin();
    must(encoder_->update(update_, Lsn{position_}));
    end();
  }
  /// The first of `columns` is the key.
  void remove(const std::string& key, std::size_t columns) {
    remove_.before.assign(columns, {pgoutput::FieldState::kNull, {}});
    remove_.before.front() = {pgoutput::FieldState::kText, key};
    begin();
    must(encoder_->remove(remove_, Lsn{position_}));
    end();
  }

 private:
  static pgoutput::Tuple tuple(const std::vector<std::string>& values) {
    pgoutput::Tuple tuple;
    for (const std::string& value : values) tuple.push_back({pgoutput::FieldState::kText, value});
    return tuple;
  }
  void begin() {
    if (in_transaction_++ > 0) return;
    position_ += 100;
    must(out_->begin({.source = {.epoch = 1, .commit = position_, .end = 0},
                      .source_xid = 1,
                      .commit_time = {}}));
  }
  void end() {
    if (in_transaction_ >= per_transaction_) commit();
  }
  void commit() {
    must(out_->commit(position_ + 50));
    in_transaction_ = 0;
  }

  const int per_transaction_;
  std::unique_ptr<EventStore> store_;
  std::unique_ptr<SchemaRegistry> schemas_;
  BuiltinCatalog catalog_;
  std::optional<StoreOut> out_;
  std::optional<ChangeEncoder> encoder_;
  pgoutput::Insert insert_{.xid = 0, .relation_oid = 1, .after = {}};
  pgoutput::Update update_{.xid = 0,
                           .relation_oid = 1,
                           .old_kind = pgoutput::OldTuple::kNone,
                           .before = {},
                           .after = {}};
  pgoutput::Delete remove_{
      .xid = 0, .relation_oid = 1, .old_kind = pgoutput::OldTuple::kKey, .before = {}};
  std::uint64_t position_ = 0;
  int in_transaction_ = 0;
};

/// Runs `app` with these words; gives the seconds that it took.
inline double run_program(App& app, std::vector<std::string> words, const Path& store,
                          const Path& views) {
  words.insert(words.begin(), "bench");
  words.insert(words.end(),
               {"--store", store.string(), "--views", views.string(), "--log-level", "error"});
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  const Stopwatch watch;
  if (app.main(static_cast<int>(argv.size()), argv.data()) != 0)
    give_up("the projection program failed");
  return watch.seconds();
}

/// How a bare loop writes: as a worker does (projections/sqlite/database.cc, Mode::kLive, and
/// WorkerOptions), or as a rebuild does (Mode::kBulk, and BuildHooks).
struct BareMode {
  const char* pragmas;
  int rows_per_transaction;
};
constexpr BareMode kLikeWorker{
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-32768; PRAGMA "
    "temp_store=MEMORY",
    20'000};
constexpr BareMode kLikeRebuild{
    "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE; PRAGMA "
    "cache_size=-262144;"
    " PRAGMA temp_store=MEMORY",
    200'000};

/// A bare prepared-statement loop, the limit.
class BareSqlite {
 public:
  BareSqlite(const Path& path, const BareMode& mode, const char* schema, const char* upsert)
      : mode_(mode) {
    if (sqlite3_open(path.c_str(), &database_) != SQLITE_OK) give_up("can't open " + path.string());
    exec(mode.pragmas);
    exec(schema);
    if (sqlite3_prepare_v2(database_, upsert, -1, &statement_, nullptr) != SQLITE_OK)
      give_up(sqlite3_errmsg(database_));
  }
  ~BareSqlite() {
    sqlite3_finalize(statement_);
    sqlite3_close(database_);
  }
  template <typename Rows, typename Bind>
  double write(const Rows& rows, Bind bind) {
    const Stopwatch watch;
    int in_transaction = 0;
    for (const auto& row : rows) {
      if (in_transaction == 0) exec("BEGIN");
      bind(statement_, row);
      if (sqlite3_step(statement_) != SQLITE_DONE) give_up(sqlite3_errmsg(database_));
      sqlite3_reset(statement_);
      if (++in_transaction == mode_.rows_per_transaction) exec("COMMIT"), in_transaction = 0;
    }
    if (in_transaction != 0) exec("COMMIT");
    return watch.seconds();
  }

 private:
  void exec(const char* sql) {
    if (sqlite3_exec(database_, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
      give_up(sqlite3_errmsg(database_));
  }
  const BareMode mode_;
  sqlite3* database_ = nullptr;
  sqlite3_stmt* statement_ = nullptr;
};

inline void bind_text(sqlite3_stmt* statement, int index, const std::string& text) {
  sqlite3_bind_text(statement, index, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
}

inline void copy_order(const Change<Orders>& change, CacheTable::Writer& table) {
  table.put(change.key(), {{"customer_id", change[&Orders::customer_id]},
                           {"status", change[&Orders::status]},
                           {"total", change[&Orders::total]},
                           {"note", change[&Orders::note]},
                           {"created_at", change[&Orders::created_at]},
                           {"paid", change[&Orders::paid]}});
}

/// The seconds of a worker that folds a whole store into a view that was empty before: what it does
/// all its life, and not the bulk build that a program begins with where it has no view yet.
class LivePath {
 public:
  /// Before anything is in `store`.
  LivePath(App& app, Path store, Path folder)
      : app_(app), store_(std::move(store)), folder_(std::move(folder)) {
    std::filesystem::create_directory(folder_);
    run_program(app_, {"run", "--until-caught-up"}, store_, empty_views());
  }
  double run() {
    const Path views = folder_ / "views";
    std::filesystem::copy(
        empty_views(), views,
        std::filesystem::copy_options::recursive | std::filesystem::copy_options::copy_symlinks);
    const double seconds = run_program(app_, {"run", "--until-caught-up"}, store_, views);
    std::filesystem::remove_all(views);
    return seconds;
  }

 private:
  Path empty_views() const { return folder_ / "empty"; }
  App& app_;
  Path store_, folder_;
};

}  // namespace millrace::bench
