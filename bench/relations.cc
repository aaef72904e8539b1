#include "bench/view_bench.h"
#include "projections/engine/build.h"

namespace millrace::bench {
namespace {

using Row = TableRow<Orders>;

/// Each order with what is known of the order whose id its customer_id is: a join of two tables, of
/// which the second is the orders under another name.
RelationalView joined() {
  const auto orders = table<Orders>("public.orders");
  const auto customers = table<Orders>("public.customers");
  return view("joined", Version{1})
      .from(orders)
      .join(customers, &Orders::customer_id,
            [](const Row& order, const Row* customer) {
              return Record{{"status", order[&Orders::status]},
                            {"total", order[&Orders::total]},
                            {"name", (*customer)[&Orders::note]}};
            })
      .into(cache_table{.key = integer("id"),
                        .columns = {text("status"), text("total"), text("name")}},
            [](const Record& row) { return row; });
}

RelationalView summed() {
  return view("summed", Version{1})
      .from(table<Orders>("public.orders"))
      .group_by(&Orders::customer_id)
      .aggregate(count("orders"), sum("created", &Orders::created_at))
      .into(cache_table{});
}

RelationalView extremes() {
  return view("extremes", Version{1})
      .from(table<Orders>("public.orders"))
      .group_by(&Orders::customer_id)
      .aggregate(min("oldest", &Orders::created_at), max("newest", &Orders::created_at))
      .into(cache_table{});
}

RelationalView copied(const std::string& name = "copied") {
  return view(name, Version{1})
      .from(table<Orders>("public.orders"))
      .into(cache_table{.key = integer("id"),
                        .columns = {integer("customer_id"), text("status"), text("total"),
                                    text("note"), integer("created_at"), integer("paid")}});
}

pgoutput::Relation customers_relation() {
  pgoutput::Relation relation = orders_relation();
  relation.table_name = "customers";
  return relation;
}

/// The seconds that a worker needs for what came after its views were made.
double tail_seconds(const Settings& settings, RelationalView view, const Path& store,
                    const std::function<void()>& changes) {
  const Path views = settings.directory / "tail.views";
  App app("bench");
  app.add(std::move(view));
  run_program(app, {"run", "--until-caught-up"}, store, views);
  changes();
  const double seconds = run_program(app, {"run", "--until-caught-up"}, store, views);
  std::filesystem::remove_all(views);
  return seconds;
}

}  // namespace

std::vector<Figure> run_join_update(const Settings& settings) {
  const int rows = settings.tiny ? 2'000 : 1'000'000, updates = settings.tiny ? 200 : 20'000;
  Figure figure{
      .name = "join_update", .unit = "us", .limit = {}, .at_most = true, .goal_of_ours = 50};
  for (int round = 0; round < settings.rounds; ++round) {
    const Path store = settings.directory / "join.store";
    auto orders = make_orders(rows);
    for (Order& order : orders) order.customer_id = (order.id * 7919) % rows;
    {
      Filler filler(store, customers_relation());
      for (const Order& order : orders) filler.insert(fields_of(order));
    }
    {
      Filler filler(store, orders_relation());
      for (const Order& order : orders) filler.insert(fields_of(order));
    }
    const double seconds = tail_seconds(settings, joined(), store, [&] {
      Filler filler(store, orders_relation(), 1);
      for (int i = 0; i < updates; ++i) {
        Order& order = orders[static_cast<std::size_t>(i) * 7907 % orders.size()];
        order.status = "paid " + std::to_string(i);
        filler.update(fields_of(order));
      }
    });
    figure.ours.push_back(seconds / updates * 1e6);
    std::filesystem::remove_all(store);
    stop_if_asked();
  }
  return {figure};
}

/// Half of the changes take away what is the least or the greatest of its group.
std::vector<Figure> run_min_max(const Settings& settings) {
  const int rows = settings.tiny ? 2'000 : 300'000;
  Figure figure{.name = "min_max", .unit = "changes/s", .limit = "sum and count", .goal = 0.5};
  auto orders = make_orders(rows);
  for (Order& order : orders)
    order.created_at = "20" + std::to_string(10 + order.id * 7919 % 80) + "-01-02 03:04:05+00";
  const auto seconds = [&](RelationalView view) {
    const Path store = settings.directory / "extremes.store";
    {
      Filler filler(store, orders_relation());
      for (const Order& order : orders) filler.insert(fields_of(order));
    }
    const double took = tail_seconds(settings, std::move(view), store, [&] {
      Filler filler(store, orders_relation());
      for (const Order& order : orders) {
        filler.remove(std::to_string(order.id), 7);
        Order other = order;
        other.id += rows;
        filler.insert(fields_of(other));
      }
    });
    std::filesystem::remove_all(store);
    return took;
  };
  for (int round = 0; round < settings.rounds; ++round) {
    figure.ours.push_back(2 * rows / seconds(extremes()));
    figure.limits.push_back(2 * rows / seconds(summed()));
    stop_if_asked();
  }
  return {figure};
}

/// The seconds from the first event until the newest row of each key is in memory, without the
/// writing of any.
double fold_seconds(const View& view, const Path& store, const Path& folder) {
  const auto schemas = must(SchemaRegistry::open(store));
  const Context context{
      .store = store, .views = folder, .program = "bench", .schemas = schemas.get()};
  std::filesystem::create_directory(folder);
  double seconds = 0;
  {
    const auto database = must(sqlite::Database::open(folder / "fold.db", sqlite::Mode::kBulk));
    const auto fold =
        must(Fold::make(view, *database, *schemas, must(begin_file(view, context, *database))));
    const auto reader = must(context.open_reader(view, Offset{0}));
    const Stopwatch watch;
    while (Batch* batch = must(reader->next())) must(fold->apply(*batch));
    seconds = watch.seconds();
  }
  std::filesystem::remove_all(folder);
  return seconds;
}

std::vector<Figure> run_rebuild_keys(const Settings& settings) {
  const int count = settings.tiny ? 10'000 : 10'000'000;
  const Path store = settings.directory / "keys.store", views = settings.directory / "keys.views",
             bare = settings.directory / "keys.bare";
  const auto orders =
      make_orders(settings.tiny ? 10'000 : 2'000'000, settings.tiny ? 1'000 : 1'000'000);
  {
    Filler filler(store, orders_relation());
    for (int done = 0; done < count; done += static_cast<int>(orders.size()))
      for (const Order& order : orders) filler.update(fields_of(order));
  }
  Figure declared{.name = "rebuild_keys",
                  .unit = "events/s",
                  .limit = "bare SQLite bulk loop of every event",
                  .goal = 3};
  Figure fold{.name = "fold_in_memory", .unit = "events/s", .limit = {}, .goal_of_ours = 3e6};
  Figure grouped{.name = "rebuild_groups", .unit = "events/s", .limit = {}};
  Figure cores{.name = "rebuild_cores",
               .unit = "events/s",
               .limit = "the same two views one after the other",
               .goal = 1.6};
  const auto rebuilt = [&](App& app, const std::string& jobs) {
    const double seconds = run_program(app, {"rebuild", "--all", "--jobs", jobs}, store, views);
    std::filesystem::remove_all(views);
    return seconds;
  };
  App rows("bench"), groups("bench"), two("bench");
  rows.add(copied());
  groups.add(summed());
  two.add(copied("one"));
  two.add(copied("two"));
  for (int round = 0; round < settings.rounds; ++round) {
    declared.ours.push_back(count / rebuilt(rows, "1"));
    fold.ours.push_back(count / fold_seconds(copied(), store, settings.directory / "keys.fold"));
    grouped.ours.push_back(count / rebuilt(groups, "1"));
    cores.ours.push_back(2 * count / rebuilt(two, "2"));
    cores.limits.push_back(2 * count / rebuilt(two, "1"));
    std::filesystem::create_directory(bare);
    double seconds = 0;
    {
      BareSqlite sqlite(bare / "bare.db", kLikeRebuild,
                        "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, status "
                        "TEXT, total TEXT, note TEXT, created_at INTEGER, paid INTEGER)",
                        "INSERT INTO orders VALUES (?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET "
                        "customer_id = excluded.customer_id, status = excluded.status,"
                        " total = excluded.total, note = excluded.note, created_at = "
                        "excluded.created_at, paid = excluded.paid");
      for (int done = 0; done < count; done += static_cast<int>(orders.size()))
        seconds += sqlite.write(orders, [](sqlite3_stmt* statement, const Order& o) {
          sqlite3_bind_int64(statement, 1, o.id);
          sqlite3_bind_int64(statement, 2, o.customer_id);
          bind_text(statement, 3, o.status), bind_text(statement, 4, o.total),
              bind_text(statement, 5, o.note);
          sqlite3_bind_int64(statement, 6, o.created_micros);
          sqlite3_bind_int64(statement, 7, o.paid);
        });
    }
    std::filesystem::remove_all(bare);
    declared.limits.push_back(count / seconds);
    stop_if_asked();
  }
  return {declared, fold, grouped, cores};
}

}  // namespace millrace::bench
