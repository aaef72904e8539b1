#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "capture/pipeline/change_encoder.h"
#include "millrace/v1/change.pb.h"
#include "schemas/table_schema.h"

namespace millrace::test {

/// Knows the built-in types that tests use and what a test tells it; everything else is exact text.
class FakeCatalog final : public CatalogLookup {
 public:
  Result<ColumnType> type(std::uint32_t oid, std::int32_t modifier) override;
  Result<std::optional<std::vector<std::string>>> primary_key(std::uint32_t relation_oid) override;

  std::map<std::uint32_t, std::vector<std::string>> primary_keys;
  std::set<std::uint32_t> gone;  ///< Tables that were dropped since.
  std::optional<Error> failure;  ///< Given instead of any answer.
  int questions = 0;
};

/// Owned copy of an event.
struct RecordedEvent {
  std::string category, key, type, payload;
  EventFlags flags = EventFlags::kNone;

  v1::Change change() const;  ///< `payload` by Protobuf's own parser.
};

struct RecordedTransaction {
  TransactionInfo info;  ///< With `source.end`.
  std::vector<RecordedEvent> events;
};

/// Keeps whole transactions in memory; checks that the calls come in order.
class MemoryOut final : public EventOut {
 public:
  Result<void> begin(const TransactionInfo& info) override;
  Result<void> add(const NewEvent& event) override;
  Result<void> commit(std::uint64_t source_end) override;
  Result<void> rollback() override;

  /// Events that were added outside a transaction (encoder tests) or in the open one.
  const std::vector<RecordedEvent>& open_events() const { return open_.events; }
  std::vector<RecordedEvent> take();

  std::vector<RecordedTransaction> transactions;
  std::optional<Error> failure;  ///< Given by add() instead of taking the event.
  int rollbacks = 0;
  bool in_transaction = false;

 private:
  RecordedTransaction open_;
};

/// The columns that a row image holds, as text: sized fields as their bytes, integers as decimals.
std::map<std::string, std::string> row_of(const TableSchema& schema, const std::string& image);

}  // namespace millrace::test
