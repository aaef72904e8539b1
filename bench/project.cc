#include <sqlite3.h>

#include "bench/bench.h"
#include "capture/daemon/stream_session.h"
#include "capture/pgoutput/builtin_types.h"
#include "capture/pipeline/change_encoder.h"
#include "eventstore/event_store.h"
#include "projections/projections.h"
#include "public.documents.pb.h"
#include "public.orders.pb.h"

namespace millrace::bench {
namespace {

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

std::vector<Order> make_orders(int count) {
  std::vector<Order> orders;
  for (int i = 0; i < count; ++i)
    orders.push_back({i, i % 997, "shipped", std::to_string(i) + ".25",
                      "note number " + std::to_string(i % 1000), "2026-01-02 03:04:05.000006+00",
                      820'638'245'000'006, i % 2 == 0});
  return orders;
}

struct Document {
  std::int64_t id;
  std::string title, body;
};

std::vector<Document> make_documents(int count) {
  static const char* const kWords[] = {"river",   "stone",  "copper", "lamp",   "paper",
                                       "winter",  "garden", "engine", "silver", "bridge",
                                       "window",  "forest", "letter", "market", "morning",
                                       "harbour", "music",  "bottle", "ladder", "signal"};
  std::vector<Document> documents;
  unsigned state = 1;
  const auto word = [&] {
    state = state * 1664525 + 1013904223;
    return std::string(kWords[(state >> 16) % std::size(kWords)]) +
           std::to_string((state >> 24) % 50);
  };
  for (int i = 0; i < count; ++i) {
    Document& document = documents.emplace_back(Document{i, word() + " " + word(), word()});
    for (int k = 0; k < 9; ++k) document.body += " " + word();
  }
  return documents;
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

/// Adds `rows` as captured inserts, 1,000 a transaction, to a store; makes it, with the table's
/// schema, where it is missing.
template <typename Row, typename Fields>
void fill(const Path& directory, const std::vector<Row>& rows, pgoutput::Relation relation,
          Fields fields) {
  std::unique_ptr<SchemaRegistry> schemas;
  StoreOptions options;
  options.before_flush = [&] { return schemas->flush(); };
  const auto store = must(EventStore::open(directory, options));
  schemas = must(SchemaRegistry::open(directory));
  BuiltinCatalog catalog;
  StoreOut out(*store, {});
  ChangeEncoder encoder(*schemas, catalog, out);
  relation.oid = 1;
  must(encoder.relation(relation, {}));
  must(schemas->flush());
  pgoutput::Insert insert{.xid = 0, .relation_oid = 1, .after = {}};
  std::uint64_t position = 0;
  for (std::size_t i = 0; i < rows.size();) {
    position += 100;
    must(out.begin({.source = {.epoch = 1, .commit = position, .end = 0},
                    .source_xid = 1,
                    .commit_time = {}}));
    for (int k = 0; k < 1000 && i < rows.size(); ++k, ++i) {
      insert.after.clear();
      const std::vector<std::string> values = fields(rows[i]);
      for (const std::string& value : values)
        insert.after.push_back({pgoutput::FieldState::kText, value});
      must(encoder.insert(insert, Lsn{position}));
    }
    must(out.commit(position + 50));
  }
  must(store->wait_durable(store->appended_end(), 0, std::chrono::minutes(1)));
}

/// Runs `app` with these words; gives the seconds that it took.
double run_program(App& app, std::vector<std::string> words, const Path& store, const Path& views) {
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

void bind_text(sqlite3_stmt* statement, int index, const std::string& text) {
  sqlite3_bind_text(statement, index, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
}

void copy_order(const Change<Orders>& change, CacheTable::Writer& table) {
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

/// 1,000,000 rows of a table as a store, as a view and as a bare table.
class TableWorkload {
 public:
  explicit TableWorkload(const Settings& settings, const std::string& name)
      : store_(settings.directory / (name + ".store")),
        bare_(settings.directory / (name + ".bare")),
        orders_(make_orders(settings.tiny ? 5'000 : 1'000'000)) {
    app_.add(CacheTable("orders", Version{1},
                        {.key = integer("id"),
                         .columns = {integer("customer_id"), text("status"), text("total"),
                                     text("note"), integer("created_at"), integer("paid")}})
                 .on<Orders>("public.orders", copy_order));
  }
  void make_store(bool with_rows) {
    fill(store_, with_rows ? orders_ : std::vector<Order>(),
         {.schema_name = "public",
          .table_name = "orders",
          .columns = {{true, "id", 20},
                      {false, "customer_id", 23},
                      {false, "status", 25},
                      {false, "total", 1700},
                      {false, "note", 25},
                      {false, "created_at", 1184},
                      {false, "paid", 16}}},
         [](const Order& o) {
           return std::vector<std::string>{std::to_string(o.id),
                                           std::to_string(o.customer_id),
                                           o.status,
                                           o.total,
                                           o.note,
                                           o.created_at,
                                           o.paid ? "t" : "f"};
         });
  }
  App& app() { return app_; }
  const Path& store() const { return store_; }
  double count() const { return static_cast<double>(orders_.size()); }
  double bare_seconds(const BareMode& mode) const {
    std::filesystem::create_directory(bare_);
    double seconds = 0;
    {
      BareSqlite sqlite(bare_ / "bare.db", mode,
                        "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, status "
                        "TEXT, total TEXT, note TEXT, created_at INTEGER, paid INTEGER)",
                        "INSERT INTO orders VALUES (?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET "
                        "customer_id = excluded.customer_id, status = excluded.status,"
                        " total = excluded.total, note = excluded.note, created_at = "
                        "excluded.created_at, paid = excluded.paid");
      seconds = sqlite.write(orders_, [](sqlite3_stmt* statement, const Order& o) {
        sqlite3_bind_int64(statement, 1, o.id);
        sqlite3_bind_int64(statement, 2, o.customer_id);
        bind_text(statement, 3, o.status), bind_text(statement, 4, o.total),
            bind_text(statement, 5, o.note);
        sqlite3_bind_int64(statement, 6, o.created_micros);
        sqlite3_bind_int64(statement, 7, o.paid);
      });
    }
    std::filesystem::remove_all(bare_);
    return seconds;
  }

 private:
  const Path store_, bare_;
  const std::vector<Order> orders_;
  App app_{"bench"};
};

}  // namespace

std::vector<Figure> run_project_table(const Settings& settings) {
  TableWorkload table(settings, "table");
  table.make_store(false);
  LivePath live(table.app(), table.store(), settings.directory / "table.live");
  table.make_store(true);
  Figure figure{
      .name = "project_table", .unit = "rows/s", .limit = "bare SQLite loop", .goal = 0.7};
  for (int round = 0; round < settings.rounds; ++round) {
    figure.ours.push_back(table.count() / live.run());
    figure.limits.push_back(table.count() / table.bare_seconds(kLikeWorker));
  }
  return {figure};
}

std::vector<Figure> run_rebuild_table(const Settings& settings) {
  TableWorkload table(settings, "rebuild");
  table.make_store(true);
  Figure figure{.name = "rebuild_table", .unit = "rows/s", .limit = "bare SQLite bulk loop"};
  for (int round = 0; round < settings.rounds; ++round) {
    const Path views = settings.directory / "rebuild.views";
    figure.ours.push_back(table.count() /
                          run_program(table.app(), {"rebuild", "--all"}, table.store(), views));
    std::filesystem::remove_all(views);
    figure.limits.push_back(table.count() / table.bare_seconds(kLikeRebuild));
  }
  return {figure};
}

std::vector<Figure> run_project_search(const Settings& settings) {
  const auto documents = make_documents(settings.tiny ? 2'000 : 300'000);
  const Path store = settings.directory / "search.store", bare = settings.directory / "search.bare";
  const auto make_store = [&](const std::vector<Document>& rows) {
    fill(store, rows,
         {.schema_name = "public",
          .table_name = "documents",
          .columns = {{true, "id", 20}, {false, "title", 25}, {false, "body", 25}}},
         [](const Document& d) {
           return std::vector<std::string>{std::to_string(d.id), d.title, d.body};
         });
  };
  App app("bench");
  app.add(SearchIndex("documents", Version{1}, {.key = integer("id"), .text = {"title", "body"}})
              .on<Documents>("public.documents",
                             [](const Change<Documents>& change, SearchIndex::Writer& index) {
                               index.put(change.key(), {{"title", change[&Documents::title]},
                                                        {"body", change[&Documents::body]}});
                             }));
  make_store({});
  LivePath live(app, store, settings.directory / "search.live");
  make_store(documents);
  const auto count = static_cast<double>(documents.size());
  Figure figure{
      .name = "project_search", .unit = "documents/s", .limit = "bare SQLite loop", .goal = 0.8};
  for (int round = 0; round < settings.rounds; ++round) {
    figure.ours.push_back(count / live.run());
    std::filesystem::create_directory(bare);
    {
      // The tokenizer is the view's own, which it would be unfair to leave out.
      BareSqlite sqlite(bare / "bare.db", kLikeWorker,
                        "CREATE VIRTUAL TABLE documents USING fts5(title, body, tokenize = "
                        "'unicode61 remove_diacritics 2')",
                        "INSERT OR REPLACE INTO documents (rowid, title, body) VALUES (?,?,?)");
      figure.limits.push_back(
          count / sqlite.write(documents, [](sqlite3_stmt* statement, const Document& d) {
            sqlite3_bind_int64(statement, 1, d.id);
            bind_text(statement, 2, d.title), bind_text(statement, 3, d.body);
          }));
    }
    std::filesystem::remove_all(bare);
  }
  return {figure};
}

}  // namespace millrace::bench
