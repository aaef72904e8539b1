#pragma once

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "eventstore/event_store.h"
#include "millrace/v1/change.pb.h"
#include "schemas/registry.h"
#include "tests/support/catch.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace millrace::test {

/// Runs the program that is tested.
inline CommandResult millrace(std::vector<std::string> arguments,
                              const ProcessOptions& options = {}) {
  arguments.insert(arguments.begin(), MILLRACE_PROGRAM);
  return run_command(arguments, options);
}

template <typename T>
T value_of(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().to_string());
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

/// Changes the first letter of `word` where the log file first holds it; nobody may write it.
inline void damage(const std::filesystem::path& segment, const std::string& word) {
  std::fstream file(segment, std::ios::in | std::ios::out | std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  const std::size_t at = bytes.find(word);
  if (at == bytes.npos) throw std::runtime_error("'" + word + "' is not in " + segment.string());
  file.clear();
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(word[0] ^ 0x20));
}

/// A store as a capture of public.orders(id integer primary key, note text) and
/// audit.log(id integer primary key, note text) leaves it, without a PostgreSQL.
class SampleStore {
 public:
  explicit SampleStore(const std::filesystem::path& directory, const StoreOptions& options = {})
      : directory_(directory) {
    store_ = value_of(EventStore::open(directory, options));
    registry_ = value_of(SchemaRegistry::open(directory));
    orders_ = value_of(registry_->record(table("public", "orders")));
    log_ = value_of(registry_->record(table("audit", "log")));
    value_of(registry_->flush());
  }

  /// One transaction with one event; `note` only where the operation has a new row.
  void change(v1::Change::Op op, int id, const std::string& note = "", bool audit = false) {
    value_of(store_->begin(next_transaction()));
    const TableSchema& schema = audit ? *log_ : *orders_;
    const std::string key = std::to_string(id), payload = change_bytes(op, schema, id, note);
    NewEvent event;
    event.category = schema.category;
    event.key = key;
    event.payload = payload;
    if (op == v1::Change::DELETE) event.flags = EventFlags::kTombstone;
    value_of(store_->add(event));
    value_of(store_->commit(transaction_ * 256 + 8));
  }

  /// An event that the registry knows no schema of.
  void unreadable_event() {
    v1::Change change;
    change.set_op(v1::Change::CREATE);
    change.set_schema(99);
    const std::string payload = change.SerializeAsString();
    value_of(store_->begin(next_transaction()));
    NewEvent event;
    event.category = "public.orders";
    event.key = "1";
    event.payload = payload;
    value_of(store_->add(event));
    value_of(store_->commit(transaction_ * 256 + 8));
  }

  /// Waits until everything is what readers may see.
  void sync() {
    store_->request_flush();
    const Offset end = store_->appended_end();
    if (!value_of(store_->wait_durable(end, 0, std::chrono::seconds(30))))
      throw std::runtime_error("the store did not become durable");
  }
  /// As a later version of millrace would have written it; closed.
  void make_newer() {
    close();
    const auto description = directory_ / "store.json";
    nlohmann::json store = nlohmann::json::parse(std::ifstream(description));
    store.at("version") = 999;
    std::ofstream(description, std::ios::trunc) << store.dump();
  }
  /// The writer goes, the directory stays.
  void close() {
    sync();
    store_.reset();
    registry_.reset();
  }

  EventStore& event_store() { return *store_; }
  std::string path() const { return directory_.string(); }
  std::filesystem::path segment() const { return directory_ / "log" / "00000000000000000000.log"; }

 private:
  TransactionInfo next_transaction() {
    ++transaction_;
    TransactionInfo info;
    info.source = {.epoch = 1, .commit = transaction_ * 256, .end = 0};
    info.source_xid = static_cast<std::uint32_t>(700 + transaction_);
    info.commit_time = {1'767'225'600'000'000 + static_cast<std::int64_t>(transaction_)};
    return info;
  }

  static TableSchema table(const std::string& schema, const std::string& name) {
    TableSchema table;
    table.category = category_of(schema, name);
    table.schema_name = schema;
    table.table_name = name;
    table.relation_oid = schema == "public" ? 16385 : 16386;
    table.columns = {
        {.name = "id",
         .kind = ValueKind::kInt32,
         .key = true,
         .type_oid = 23,
         .type_name = "integer"},
        {.name = "note", .kind = ValueKind::kText, .type_oid = 25, .type_name = "text"}};
    return table;
  }

  static std::string row(const TableSchema& schema, int id, const std::string* note) {
    std::string bytes;
    append_varint(bytes, schema.columns[0].field << 3);
    append_varint(bytes, zigzag(id));
    if (note == nullptr) return bytes;
    append_varint(bytes, schema.columns[1].field << 3 | 2);
    append_varint(bytes, note->size());
    return bytes + *note;
  }

  static std::string change_bytes(v1::Change::Op op, const TableSchema& schema, int id,
                                  const std::string& note) {
    v1::Change change;
    change.set_op(op);
    change.set_schema(schema.version);
    change.set_lsn(4096);
    if (op == v1::Change::DELETE) {
      change.set_before(row(schema, id, nullptr));
      change.set_before_is_key(true);
    } else {
      change.set_after(row(schema, id, &note));
    }
    return change.SerializeAsString();
  }

  std::filesystem::path directory_;
  std::unique_ptr<EventStore> store_;
  std::unique_ptr<SchemaRegistry> registry_;
  SchemaRegistry::Schema orders_, log_;
  std::uint64_t transaction_ = 0;
};

}  // namespace millrace::test
