#include "bench/view_bench.h"

namespace millrace::bench {
namespace {

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
    Filler filler(store_, orders_relation());
    if (!with_rows) return;
    for (const Order& order : orders_) filler.insert(fields_of(order));
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
      .name = "project_table", .unit = "rows/s", .limit = "bare SQLite loop", .goal = 0.85};
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
    Filler filler(store,
                  {.schema_name = "public",
                   .table_name = "documents",
                   .columns = {{true, "id", 20}, {false, "title", 25}, {false, "body", 25}}});
    for (const Document& d : rows) filler.insert({std::to_string(d.id), d.title, d.body});
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
      .name = "project_search", .unit = "documents/s", .limit = "bare SQLite loop", .goal = 0.9};
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
