#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "eventstore/event_store.h"
#include "eventstore/policy.h"
#include "millrace/v1/change.pb.h"
#include "projections/engine/context.h"
#include "projections/projections.h"
#include "public.customers.pb.h"
#include "public.orders.pb.h"
#include "public.products.pb.h"
#include "schemas/registry.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

// A store that is written as a capture of the shop's database would write it, and the shop's views
// over it.

namespace millrace::projections::test {

/// The value of `result`, or a failed test with its error.
template <typename T>
T must(Result<T> result) {
  // Not by Catch's macros: tests commit from threads of theirs, which those do not bear.
  if (!result) throw std::runtime_error(result.error().to_string());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

inline ColumnSchema column(std::string name, ValueKind kind, bool key = false, bool array = false) {
  ColumnSchema column;
  column.name = std::move(name);
  column.kind = kind;
  column.key = key;
  column.array = array;
  return column;
}

inline TableSchema table(std::string name, std::vector<ColumnSchema> columns,
                         ReplicaIdentity identity = ReplicaIdentity::kDefault) {
  TableSchema schema;
  schema.category = "public." + name;
  schema.schema_name = "public";
  schema.table_name = std::move(name);
  schema.replica_identity = identity;
  schema.columns = std::move(columns);
  return schema;
}

inline TableSchema products_table() {
  return table("products",
               {column("id", ValueKind::kInt64, true), column("name", ValueKind::kText),
                column("description", ValueKind::kText), column("category", ValueKind::kText),
                column("price", ValueKind::kNumeric), column("stock", ValueKind::kInt32),
                column("tags", ValueKind::kText, false, true),
                column("updated_at", ValueKind::kTimestampTz)});
}
inline TableSchema customers_table() {
  return table("customers",
               {column("id", ValueKind::kInt64, true), column("name", ValueKind::kText),
                column("email", ValueKind::kText), column("city", ValueKind::kText),
                column("created_at", ValueKind::kTimestampTz)});
}
inline TableSchema orders_table(ReplicaIdentity identity = ReplicaIdentity::kFull) {
  return table("orders",
               {column("id", ValueKind::kInt64, true), column("customer_id", ValueKind::kInt64),
                column("status", ValueKind::kText), column("total_cents", ValueKind::kInt64),
                column("created_at", ValueKind::kTimestampTz)},
               identity);
}

inline shop::Products product(std::int64_t id, const std::string& name,
                              const std::string& description = "nice") {
  shop::Products row;
  row.set_id(id);
  row.set_name(name);
  row.set_description(description);
  row.set_category("things");
  row.set_price("19.90");
  return row;
}
inline shop::Customers customer(std::int64_t id, const std::string& name) {
  shop::Customers row;
  row.set_id(id);
  row.set_name(name);
  row.set_email(name + "@example.com");
  return row;
}
inline shop::Orders order(std::int64_t id, std::int64_t customer_id, std::int64_t cents,
                          std::int64_t created_at = 0) {
  shop::Orders row;
  row.set_id(id);
  row.set_customer_id(customer_id);
  row.set_status("open");
  row.set_total_cents(cents);
  row.set_created_at(created_at);
  return row;
}

/// One change as capture encodes it.
struct EncodedChange {
  std::string category, key, payload;
  EventFlags flags = EventFlags::kNone;
};

inline std::string category_of_row(const google::protobuf::Message& row) {
  const std::string& name = row.GetDescriptor()->name();
  return "public." + std::string(1, static_cast<char>(name[0] + 'a' - 'A')) + name.substr(1);
}

template <typename Row>
EncodedChange inserted(const Row& row) {
  v1::Change change;
  change.set_op(v1::Change::CREATE);
  change.set_schema(1);
  change.set_after(row.SerializeAsString());
  return {category_of_row(row), std::to_string(row.id()), change.SerializeAsString()};
}

/// `unchanged` fields are left out of `after`, as PostgreSQL does with TOASTed values.
template <typename Row>
EncodedChange updated(Row after, const Row* before = nullptr,
                      std::vector<std::uint32_t> unchanged = {}) {
  v1::Change change;
  change.set_op(v1::Change::UPDATE);
  change.set_schema(1);
  if (before) change.set_before(before->SerializeAsString());
  for (const std::uint32_t field : unchanged) {
    change.add_unchanged(field);
    after.GetReflection()->ClearField(
        &after, Row::descriptor()->FindFieldByNumber(static_cast<int>(field)));
  }
  change.set_after(after.SerializeAsString());
  return {category_of_row(after), std::to_string(after.id()), change.SerializeAsString(),
          unchanged.empty() ? EventFlags::kNone : EventFlags::kPartial};
}

/// `before` is all of the row, or only its key where `full` is false.
template <typename Row>
EncodedChange deleted(const Row& row, bool full = false) {
  v1::Change change;
  change.set_op(v1::Change::DELETE);
  change.set_schema(1);
  Row before;
  before.set_id(row.id());
  change.set_before(full ? row.SerializeAsString() : before.SerializeAsString());
  change.set_before_is_key(!full);
  return {category_of_row(row), std::to_string(row.id()), change.SerializeAsString(),
          EventFlags::kTombstone};
}

/// The second half of a change of key; the first is deleted(old row).
template <typename Row>
EncodedChange moved(Row after, std::int64_t from, std::vector<std::uint32_t> unchanged = {}) {
  EncodedChange encoded = updated<Row>(after, nullptr, std::move(unchanged));
  v1::Change change;
  change.ParseFromString(encoded.payload);
  change.set_op(v1::Change::CREATE);
  change.set_moved_from(std::to_string(from));
  encoded.payload = change.SerializeAsString();
  return encoded;
}

inline EncodedChange truncated(const std::string& name) {
  v1::Change change;
  change.set_op(v1::Change::TRUNCATE);
  change.set_schema(1);
  return {"public." + name, "", change.SerializeAsString(), EventFlags::kCategoryTombstone};
}

/// A logical message as capture encodes it.
inline EncodedChange message(const std::string& prefix, const std::string& content) {
  v1::Change change;
  change.set_op(v1::Change::MESSAGE);
  change.set_prefix(prefix);
  change.set_content(content);
  return {"$messages", prefix, change.SerializeAsString()};
}

inline NewEvent as_event(const EncodedChange& change) {
  NewEvent event;
  event.category = change.category;
  event.key = change.key;
  event.payload = change.payload;
  event.flags = change.flags;
  return event;
}

class ShopStore {
 public:
  /// `batch_bytes` cuts transactions into batches; the least that a store takes is 1 KiB.
  explicit ShopStore(bool with_tables = true, std::size_t batch_bytes = 1 << 20,
                     std::uint64_t segment_bytes = StoreOptions{}.segment_bytes)
      : batch_bytes_(batch_bytes), segment_bytes_(segment_bytes) {
    open();
    if (!with_tables) return;
    record(products_table());
    record(customers_table());
    record(orders_table());
  }

  void open() {
    StoreOptions options;
    options.segment_bytes = segment_bytes_;
    options.pending_bytes_max = 8 * batch_bytes_;  // which the store makes its batches by
    options.before_flush = [this] { return schemas_ ? schemas_->flush() : Result<void>{}; };
    store_ = must(EventStore::open(directory(), options));
    schemas_ = must(SchemaRegistry::open(directory()));
  }
  void close() {
    store_.reset();
    schemas_.reset();
    readers_schemas_.reset();
  }

  void record(const TableSchema& schema) {
    must(schemas_->record(schema));
    must(schemas_->flush());
  }

  /// One source transaction, durable on return.
  void commit(const std::vector<EncodedChange>& changes,
              UnixMicros commit_time = {1'700'000'000'000'000}) {
    lsn_ += 100;
    TransactionInfo transaction;
    transaction.source = {.epoch = epoch_, .commit = lsn_};
    transaction.commit_time = commit_time;
    must(store_->begin(transaction));
    for (const auto& change : changes) must(store_->add(as_event(change)));
    const Offset end = must(store_->commit(lsn_ + 50));
    store_->request_flush();
    if (!must(store_->wait_durable(end, 0, std::chrono::seconds(30))))
      throw std::runtime_error("not durable within 30 s");
  }

  /// What comes from now on is of another source, which stands there.
  void accept_source(Lsn lsn) {
    ++epoch_;
    lsn_ = lsn.value;
  }

  /// An event of an application; gives its offset.
  Offset append(const std::string& category, const std::string& key, const std::string& type,
                const std::string& payload, const std::string& metadata = {}) {
    const NewStreamEvent event{.type = type, .payload = payload, .metadata = metadata};
    const StreamAppend part{.stream = {category, key}, .events = {&event, 1}};
    return must(store_->append_durably({.streams = {&part, 1}})).first;
  }
  /// As `log erase` does it.
  void erase(const std::string& category, const std::string& key) {
    const EntityToErase entity{.key = key, .tombstone_type = "Erased"};
    must(store_->maintenance().erase({.category = category, .entities = {&entity, 1}}));
  }
  /// Keeps the latest change of each row of `category` only, in what is in full segments.
  void compact(std::string_view category) { compact(category, {.retention = Retention::kCompact}); }
  /// Keeps the newest `bytes` of `category` only, of what is in full segments.
  void expire(std::string_view category, std::uint64_t bytes) {
    compact(category, {.retention = Retention::kExpire, .max_bytes = bytes});
  }

  Offset end() const { return store_->durable_end(); }
  std::filesystem::path directory() const { return temporary_ / "store"; }
  std::filesystem::path views() const { return temporary_ / "views"; }

  /// As a program of views has it.
  Context context(std::stop_token stop = {}) {
    if (!readers_schemas_) readers_schemas_ = must(SchemaRegistry::open_read_only(directory()));
    return {.store = directory(),
            .views = views(),
            .program = "shop",
            .schemas = readers_schemas_.get(),
            .stop = stop};
  }

 private:
  void compact(std::string_view category, const CategoryPolicy& wanted) {
    const PolicyEvent policy = must(policy_event(category, wanted));
    const NewEvent event = policy.view();
    must(store_->append({}, {&event, 1}));
    store_->request_flush();
    must(store_->wait_durable(store_->appended_end(), 0, std::chrono::seconds(30)));
    must(store_->maintenance().compact({.dead_share_min = 0}));
  }

  millrace::test::TemporaryDirectory temporary_{"millrace-views"};
  std::unique_ptr<SchemaRegistry> schemas_;
  std::unique_ptr<SchemaRegistry> readers_schemas_;
  std::unique_ptr<EventStore> store_;
  std::size_t batch_bytes_;
  std::uint64_t segment_bytes_;
  std::uint32_t epoch_ = 1;
  std::uint64_t lsn_ = 0;
};

inline SearchIndex product_search(Version version = {}) {
  using shop::Products;
  return SearchIndex("product_search", version,
                     {.key = integer("id"),
                      .text = {"name", "description"},
                      .stored = {"category", "price"}})
      .on<Products>("public.products",
                    [](const Change<Products>& change, SearchIndex::Writer& index) {
                      if (change.is_truncate()) return index.clear();
                      if (change.is_delete()) return index.erase(change.key());
                      index.put(change.key(), {{"name", change[&Products::name]},
                                               {"description", change[&Products::description]},
                                               {"category", change[&Products::category]},
                                               {"price", change[&Products::price]}});
                    });
}

/// The products by name, with a key that is text.
inline CacheTable product_cache(Version version = {}) {
  using shop::Products;
  return CacheTable("product_cache", version,
                    {.key = text("id"),
                     .columns = {text("name"), text("description")},
                     .indexes = {{"name"}}})
      .on<Products>("public.products",
                    [](const Change<Products>& change, CacheTable::Writer& cache) {
                      if (change.is_truncate()) return cache.clear();
                      if (change.is_delete()) return cache.erase(change.key());
                      cache.put(change.key(), {{"name", change[&Products::name]},
                                               {"description", change[&Products::description]}});
                    });
}

inline CacheTable customer_totals(Version version = {}) {
  using shop::Customers;
  using shop::Orders;
  return CacheTable("customer_totals", version,
                    {.key = integer("id"),
                     .columns = {text("name"), counter("orders"), counter("spent_cents")}})
      .on<Customers>("public.customers",
                     [](const Change<Customers>& change, CacheTable::Writer& totals) {
                       if (change.is_truncate()) return totals.clear();
                       if (change.is_delete()) return totals.erase(change.key());
                       totals.put(change.key(), {{"name", change[&Customers::name]}});
                     })
      .on<Orders>(
          "public.orders", kNeedsOldRows,
          [](const Change<Orders>& change, CacheTable::Writer& totals) {
            if (change.is_truncate()) return totals.update_all({{"orders", 0}, {"spent_cents", 0}});
            if (const Orders* old = change.before())
              totals.subtract(old->customer_id(),
                              {{"orders", 1}, {"spent_cents", old->total_cents()}});
            if (const Orders* now = change.after())
              totals.add(now->customer_id(), {{"orders", 1}, {"spent_cents", now->total_cents()}});
          });
}

/// Rows of a query as "a|b|c", from the file that readers open.
inline std::vector<std::string> query(const std::filesystem::path& file, const std::string& sql) {
  auto database = must(sqlite::Database::open(file, sqlite::Mode::kReadOnly));
  auto statement = must(database->prepare(sql));
  std::vector<std::string> rows;
  while (must(statement.step())) {
    std::string row;
    for (int i = 0; i < statement.column_count(); ++i) {
      const Value value = statement.column(i);
      row += (i == 0 ? "" : "|");
      row += value.is_null()                         ? "null"
             : value.kind() == Value::Kind::kInteger ? std::to_string(value.integer())
                                                     : std::string(value.text());
    }
    rows.push_back(row);
  }
  return rows;
}

inline Checkpoint checkpoint_of(const ShopStore& store, const std::string& view) {
  const auto database =
      must(sqlite::Database::open(store.views() / (view + ".db"), sqlite::Mode::kReadOnly));
  return must(read_checkpoint(*database));
}

/// False also while the view is not there yet.
inline bool has_folded(const ShopStore& store, const std::string& view, Offset end) {
  return std::filesystem::exists(store.views() / (view + ".db")) &&
         checkpoint_of(store, view).offset >= end;
}

inline std::vector<std::string> rows_of(const ShopStore& store, const std::string& view,
                                        const std::string& columns = "*") {
  return query(store.views() / (view + ".db"),
               "SELECT " + columns + " FROM " + view + " ORDER BY id");
}

}  // namespace millrace::projections::test
