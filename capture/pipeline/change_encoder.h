#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "capture/pgoutput/message.h"
#include "capture/pgoutput/row_writer.h"
#include "capture/pipeline/application_events.h"
#include "capture/pipeline/catalog_lookup.h"
#include "capture/pipeline/outbox.h"
#include "capture/pipeline/row_history.h"
#include "eventstore/types.h"
#include "schemas/registry.h"

namespace millrace {

/// Category of what capture itself has to say to the log's readers.
inline constexpr std::string_view kCaptureCategory = "$capture";
/// Prefix of the messages that capture sends itself, to have something committed; they are no
/// events.
inline constexpr std::string_view kOwnMessagePrefix = "millrace";
/// What one of them says so that the position behind it becomes durable soon.
inline constexpr std::string_view kConfirmMessage = "confirm";

/// Where encoded transactions go: a store, or a terminal.
class EventOut {
 public:
  virtual ~EventOut() = default;
  virtual Result<void> begin(const TransactionInfo& info) = 0;
  /// The views in `event` live until the call returns.
  virtual Result<void> add(const NewEvent& event) = 0;
  virtual Result<void> commit(std::uint64_t source_end) = 0;
  virtual Result<void> rollback() = 0;
};

/// Turns decoded changes into events: rows to Protobuf, key to text, an update of the key to `d`
/// and `c`.
///
/// The key is the primary key where the replica identity is FULL and there is one, else the replica
/// identity's columns; without any it is empty. Its text: the one column's PostgreSQL text; of
/// several, joined by ',' with '\' before ',' and '\'; a null as "\N". A key whose text is beyond
/// kKeyBytesMax (only a table without primary key can have one) is "\#" and 32 hexadecimal digits
/// of its hash.
///
/// A large value that an update left alone (TOAST) is taken from the old row where the source sent
/// it; else the column is listed in `unchanged` and the event flagged kPartial.
///
/// A value in binary gives the same event as its text, where its type has an exact decoder
/// (pgoutput/binary_value.h). Where it has none it is refused: the same changes must be asked for
/// again as text.
///
/// What an application writes as a domain event, in a message or an outbox, is one: see
/// application_events.h and outbox.h. One that can't be is kept as an event of kMessagesCategory.
///
/// Pure but for the catalog lookups. Threads: one. Errors of all: kCorruption (a table that was
/// never told of, a row that is not the table's, binary that is no value), kUnsupported (a value in
/// binary that must be text), kInvalidArgument (a text that is none of its column's type), and
/// those of the catalog, the registry and `out`. What was added to `out` before stays there: roll
/// it back.
class ChangeEncoder {
 public:
  ChangeEncoder(SchemaRegistry& schemas, CatalogLookup& catalog, EventOut& out);

  /// From now on the rows of tables that `history` wants are made whole with what it knows:
  /// unchanged values of updates, and the old rows of updates and deletes. What it does not know
  /// stays as the source sent it. `history` must see all that goes to `out`, and outlive this.
  void use_history(RowHistory& history) { history_ = &history; }

  /// From now on a row that is inserted into one of these tables ("schema.table") is a domain
  /// event, and nothing else of them is any.
  void use_outbox(const std::vector<std::string>& tables) {
    outbox_names_ = {tables.begin(), tables.end()};
  }
  /// The source has told of a table, in a transaction that is there already perhaps: passes_over()
  /// knows by it which are outboxes. relation() does that, too.
  void announce(const pgoutput::Relation& relation);
  /// Whether an update, delete or truncate of these tables is no event: they are outboxes.
  bool passes_over(std::span<const std::uint32_t> relation_oids) const {
    return !outbox_oids_.empty() && are_outboxes(relation_oids);
  }

  /// Learns a table's shape as of `lsn`; a changed one becomes a new schema version.
  /// kFailedPrecondition where other columns than before make its key: the events so far would
  /// stand under keys that no change will ever name again.
  Result<void> relation(const pgoutput::Relation& relation, Lsn lsn);
  /// Forgets all shapes: they are sent again on a new connection.
  void reset();

  Result<void> insert(const pgoutput::Insert& change, Lsn lsn);
  Result<void> update(const pgoutput::Update& change, Lsn lsn);
  Result<void> remove(const pgoutput::Delete& change, Lsn lsn);
  Result<void> truncate(const pgoutput::Truncate& change, Lsn lsn);
  /// A domain event, or one of kMessagesCategory, whose key is the message's prefix.
  Result<void> message(const pgoutput::LogicalMessage& message, Lsn lsn);
  /// A row that a snapshot read, as `r`; of an outbox, the domain event that it is.
  Result<void> read(std::uint32_t relation_oid, const pgoutput::Tuple& row, Lsn lsn);

  /// The shape in force; nullptr if none was seen.
  const TableSchema* schema_of(std::uint32_t relation_oid) const;

 private:
  struct Table {
    SchemaRegistry::Schema schema;
    std::vector<std::size_t> key_columns;     // positions in the row, in the table's order
    std::vector<pgoutput::ColumnPlan> plans;  // of each column
    bool from_history = false;                // what the source leaves out
  };

  bool are_outboxes(std::span<const std::uint32_t> relation_oids) const;
  OutboxTable* outbox_of(std::uint32_t relation_oid);
  Result<void> outbox_row(OutboxTable& outbox, const pgoutput::Tuple& row, Lsn lsn);
  Result<void> plain_message(std::string_view prefix, std::string_view content, Lsn lsn);
  Result<std::vector<bool>> key_of(const pgoutput::Relation& relation, const std::string& category);
  Result<const Table*> find(std::uint32_t relation_oid, std::size_t columns);
  Result<void> encode_row(const Table& table, const pgoutput::Tuple& tuple,
                          const pgoutput::Tuple* older, const RowState* known = nullptr);
  Result<void> append_slowly(const Table& table, std::size_t column, const pgoutput::Field& field);
  Result<void> append_binary(const Table& table, std::size_t column, std::string_view bytes,
                             std::string& row);
  Result<void> write_key(const Table& table, const pgoutput::Tuple& tuple,
                         const pgoutput::Tuple* older, std::string& key);
  Result<void> append_key_text(const Table& table, std::size_t column, const pgoutput::Field& field,
                               std::string& key);
  Result<void> add_row(int op, const Table& table, Lsn lsn, const pgoutput::Tuple& row);
  Result<void> add_change(int op, const Table& table, Lsn lsn, const pgoutput::Update& change,
                          bool with_before, std::optional<std::string_view> moved_from,
                          const RowState& known);
  Result<void> add_delete(const Table& table, Lsn lsn, pgoutput::OldTuple kind,
                          const pgoutput::Tuple& before, std::string_view key,
                          const RowState& known);
  Result<RowState> look_up(const Table& table, std::string_view key);
  Result<bool> append_known_row(const Table& table, const RowState& known);
  Result<void> hand_on(std::string_view category, std::string_view key, EventFlags flags);

  SchemaRegistry& schemas_;
  CatalogLookup& catalog_;
  EventOut& out_;
  RowHistory* history_ = nullptr;
  ApplicationEvents application_;
  std::set<std::string> outbox_names_;
  std::set<std::uint32_t> outbox_oids_;  // of tables that were announced under these names
  std::map<std::uint32_t, OutboxTable> outboxes_;
  std::map<std::uint32_t, Table> tables_;
  // Of the last change: most changes are of the table that the one before was of.
  std::uint32_t last_oid_ = 0;
  const Table* last_table_ = nullptr;
  // Reused: no allocation per change.
  pgoutput::RowBuffer row_;
  std::string payload_, key_, old_key_;
  std::string unchanged_;  // packed field numbers
  std::string field_;      // that the short way did not take
  std::string key_field_;  // of a key's column that came in binary
  std::string key_text_;
};

}  // namespace millrace
