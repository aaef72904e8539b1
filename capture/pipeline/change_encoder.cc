#include "capture/pipeline/change_encoder.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/checksum.h"
#include "capture/pgoutput/text_value.h"
#include "millrace/v1/change.pb.h"
#include "schemas/row_text.h"

// The payload is a millrace.v1.Change, written as wire bytes into a reused buffer, fields in
// ascending order as Protobuf's own serializer does: millions of changes a second leave no room for
// message objects. A row image is built first, since its length stands in front of it. The tests
// parse every payload with Protobuf's parser.
namespace millrace {
namespace {

using pgoutput::Field;
using pgoutput::FieldState;
using pgoutput::OldTuple;
using pgoutput::Tuple;
using v1::Change;

constexpr std::size_t kKeptBytesMax =
    1 << 20;  // a buffer that one huge value made larger is given back

constexpr std::uint8_t tag(int field, int wire_type) {
  return static_cast<std::uint8_t>(field << 3 | wire_type);
}
constexpr int kVarint = 0, kFixed64 = 1, kSized = 2;

/// Also where it is empty: a row, or a key, that is there and empty is not an absent one.
void append_sized(std::string& out, int field, std::string_view bytes) {
  out += static_cast<char>(tag(field, kSized));
  append_varint(out, bytes.size());
  out += bytes;
}

void start_payload(std::string& out, int op, std::uint32_t schema, Lsn lsn) {
  char head[2 + 1 + 5 + 1 + 8];
  char* next = head;
  *next++ = static_cast<char>(tag(Change::kOpFieldNumber, kVarint));
  *next++ = static_cast<char>(op);
  if (schema != 0) {
    *next++ = static_cast<char>(tag(Change::kSchemaFieldNumber, kVarint));
    for (; schema >= 0x80; schema >>= 7) *next++ = static_cast<char>(schema | 0x80);
    *next++ = static_cast<char>(schema);
  }
  if (lsn.value != 0) {
    *next++ = static_cast<char>(tag(Change::kLsnFieldNumber, kFixed64));
    store_le<std::uint64_t>(next, lsn.value);
    next += sizeof lsn.value;
  }
  out.assign(head, static_cast<std::size_t>(next - head));
}

void give_back(std::string& buffer) {
  if (buffer.capacity() > kKeptBytesMax) std::string().swap(buffer);
}

/// The value of column `i`: the row's own or, where that is unchanged, the older row's; nullptr if
/// neither has it.
const Field* value_of(const Tuple& tuple, const Tuple* older, std::size_t i) {
  if (tuple[i].state != FieldState::kUnchanged) return &tuple[i];
  // A null in an old key means "not sent", and what is unchanged in TOAST is no null either.
  if (older == nullptr || older->empty()) return nullptr;
  const FieldState state = (*older)[i].state;
  return state == FieldState::kText || state == FieldState::kBinary ? &(*older)[i] : nullptr;
}

void append_escaped(std::string& key, std::string_view text) {
  for (const char byte : text) {
    if (byte == ',' || byte == '\\') key += '\\';
    key += byte;
  }
}

/// A key that no store would take becomes its hash: equal keys stay equal, and capture goes on.
void fold_long_key(std::string& key) {
  if (key.size() <= kKeyBytesMax) [[likely]]
    return;
  std::string hashes;
  append_be<std::uint64_t>(hashes, checksum(key));
  append_be<std::uint64_t>(hashes, checksum(key, 1));
  key = "\\#" + to_hex(hashes);
}

std::vector<std::string_view> key_names(const TableSchema& schema) {
  std::vector<std::string_view> names;
  for (const ColumnSchema& column : schema.columns)
    if (column.key) names.push_back(column.name);
  return names;
}

/// Which of a table's columns have these names; nothing if one of those is not there.
std::optional<std::vector<bool>> columns_named(const pgoutput::Relation& relation,
                                               const std::vector<std::string_view>& names) {
  std::vector<bool> named;
  std::size_t found = 0;
  for (const pgoutput::RelationColumn& column : relation.columns) {
    named.push_back(std::ranges::find(names, column.name) != names.end());
    found += named.back();
  }
  if (found != names.size()) return std::nullopt;
  return named;
}

std::string key_text(const TableSchema& schema) {
  std::string text;
  for (const std::string_view name : key_names(schema))
    text += (text.empty() ? "(" : ", ") + printable(name);
  return text.empty() ? "none" : text + ")";
}

Error wrong_width(const TableSchema& schema, std::size_t columns) {
  return Error(ErrorCode::kCorruption, "a row of " + std::to_string(columns) +
                                           " columns for table " + schema.category +
                                           ", which has " + std::to_string(schema.columns.size()));
}

}  // namespace

ChangeEncoder::ChangeEncoder(SchemaRegistry& schemas, CatalogLookup& catalog, EventOut& out)
    : schemas_(schemas), catalog_(catalog), out_(out), application_(schemas) {}

void ChangeEncoder::reset() {
  tables_.clear();
  outboxes_.clear();
  outbox_oids_.clear();
  last_table_ = nullptr;
}

OutboxTable* ChangeEncoder::outbox_of(std::uint32_t relation_oid) {
  if (outboxes_.empty()) [[likely]]
    return nullptr;
  const auto found = outboxes_.find(relation_oid);
  return found == outboxes_.end() ? nullptr : &found->second;
}

bool ChangeEncoder::are_outboxes(std::span<const std::uint32_t> relation_oids) const {
  return std::ranges::all_of(relation_oids,
                             [this](std::uint32_t oid) { return outbox_oids_.contains(oid); });
}

void ChangeEncoder::announce(const pgoutput::Relation& relation) {
  if (outbox_names_.empty()) return;
  if (outbox_names_.contains(category_of(relation.schema_name, relation.table_name)))
    outbox_oids_.insert(relation.oid);
  else
    outbox_oids_.erase(relation.oid);
}

const TableSchema* ChangeEncoder::schema_of(std::uint32_t relation_oid) const {
  const auto found = tables_.find(relation_oid);
  return found == tables_.end() ? nullptr : found->second.schema.get();
}

/// Which columns make the event's key. With REPLICA IDENTITY FULL every column is flagged, which
/// tells no row from its twin and changes with every update: the primary key is better where there
/// is one. What the catalog has may be newer than the change: a table that is gone since, or whose
/// key's columns have other names, keeps the key that its rows were told under before.
Result<std::vector<bool>> ChangeEncoder::key_of(const pgoutput::Relation& relation,
                                                const std::string& category) {
  std::vector<bool> all;
  for (const pgoutput::RelationColumn& column : relation.columns) all.push_back(column.key);
  if (relation.replica_identity != 'f') return all;
  MILLRACE_ASSIGN_OR_RETURN(const auto primary, catalog_.primary_key(relation.oid));
  if (primary && primary->empty()) return all;
  if (primary)
    if (auto key = columns_named(relation, {primary->begin(), primary->end()})) return *key;
  const auto known = schemas_.latest(category);
  if (!known || (*known)->relation_oid != relation.oid) return all;
  const std::vector<std::string_view> before = key_names(**known);
  const bool tells = primary ? before.size() == primary->size()
                             : !before.empty() && before.size() != (*known)->columns.size();
  if (tells)
    if (auto key = columns_named(relation, before)) return *key;
  return all;  // of a part of it that the publication's column list leaves out, too
}

Result<void> ChangeEncoder::relation(const pgoutput::Relation& relation, Lsn lsn) {
  announce(relation);
  TableSchema seen;
  seen.category = category_of(relation.schema_name, relation.table_name);
  seen.schema_name = relation.schema_name;
  seen.table_name = relation.table_name;
  seen.relation_oid = relation.oid;
  seen.replica_identity = static_cast<ReplicaIdentity>(relation.replica_identity);
  seen.source_lsn = lsn.value;

  const auto failed = [&](Error error) {
    return std::move(error).context("learn the columns of table " + printable(seen.category));
  };
  auto key = key_of(relation, seen.category);
  if (!key) return failed(std::move(key).error());
  Table table;
  std::vector<pgoutput::BinaryType> forms;
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < relation.columns.size(); ++i) {
    const pgoutput::RelationColumn& column = relation.columns[i];
    if (!names.insert(column.name).second)
      return failed(Error(ErrorCode::kCorruption, "two columns named " + printable(column.name)));
    auto type = catalog_.type(column.type_oid, column.type_modifier);
    if (!type) return failed(std::move(type).error());
    seen.columns.push_back({.name = std::string(column.name),
                            .kind = type->kind,
                            .array = type->array,
                            .key = (*key)[i],
                            .type_oid = column.type_oid,
                            .type_modifier = column.type_modifier,
                            .type_name = std::move(type->name)});
    forms.push_back(pgoutput::binary_type(type->base_oid, type->kind, type->array));
    if ((*key)[i]) table.key_columns.push_back(i);
  }
  outboxes_.erase(relation.oid);
  if (outbox_names_.contains(seen.category)) {
    tables_.erase(relation.oid);
    last_table_ = nullptr;
    outboxes_.emplace(relation.oid, OutboxTable(std::move(seen), std::move(forms)));
    return {};
  }
  if (const auto known = schemas_.latest(seen.category);
      known && key_names(**known) != key_names(seen))
    spdlog::warn(
        "the key of table {} was {} and is now {}: events before this stand under the old key, and "
        "no change will name "
        "them again unless the columns were only renamed. Fill a new --store if they must go",
        printable(seen.category), key_text(**known), key_text(seen));
  auto schema = schemas_.record(seen);
  if (!schema) return failed(std::move(schema).error());
  table.schema = *std::move(schema);
  // With REPLICA IDENTITY FULL the source sends all of it.
  table.from_history = history_ != nullptr && relation.replica_identity != 'f' &&
                       !table.key_columns.empty() && history_->wants(*table.schema);
  MILLRACE_CHECK(table.schema->columns.size() == relation.columns.size());
  for (std::size_t i = 0; i < forms.size(); ++i)
    table.plans.emplace_back(table.schema->columns[i], forms[i]);
  tables_[relation.oid] = std::move(table);
  last_table_ = nullptr;
  return {};
}

Result<const ChangeEncoder::Table*> ChangeEncoder::find(std::uint32_t relation_oid,
                                                        std::size_t columns) {
  if (last_table_ == nullptr || last_oid_ != relation_oid) [[unlikely]] {
    const auto found = tables_.find(relation_oid);
    if (found == tables_.end())
      return Error(ErrorCode::kCorruption, "a change of table OID " + std::to_string(relation_oid) +
                                               ", whose columns were never sent");
    last_oid_ = relation_oid;
    last_table_ = &found->second;
  }
  if (last_table_->schema->columns.size() != columns) [[unlikely]]
    return wrong_width(*last_table_->schema, columns);
  return last_table_;
}

/// Builds the row message in row_; what is unchanged and not `known` goes to unchanged_ instead.
Result<void> ChangeEncoder::encode_row(const Table& table, const Tuple& tuple, const Tuple* older,
                                       const RowState* known) {
  row_.clear();
  unchanged_.clear();
  const pgoutput::ColumnPlan* plan = table.plans.data();
  const Field* own = tuple.data();
  for (const Field* const end = own + tuple.size(); own != end; ++own, ++plan) {
    if (own->state == FieldState::kNull) continue;
    const Field* field = own;
    if (own->state == FieldState::kUnchanged) [[unlikely]] {
      const auto i = static_cast<std::size_t>(own - tuple.data());
      field = value_of(tuple, older, i);
      if (field == nullptr) {
        std::string_view value;  // what is unchanged in TOAST is no null
        if (known != nullptr && known->exists) {
          MILLRACE_ASSIGN_OR_RETURN(value,
                                    field_in_row(known->row, table.schema->columns[i].field));
        }
        if (value.empty())
          append_varint(unchanged_, table.schema->columns[i].field);
        else
          row_.append(value);
        continue;
      }
    }
    char* const to = row_.room(field->value.size() + pgoutput::kFieldExtraBytes);
    const char* const written = field->state == FieldState::kText
                                    ? pgoutput::write_text_value(*plan, field->value, to)
                                    : pgoutput::write_binary_value(*plan, field->value, to);
    if (written != nullptr) [[likely]]
      row_.end_at(written);
    else
      MILLRACE_RETURN_IF_ERROR(
          append_slowly(table, static_cast<std::size_t>(own - tuple.data()), *field));
  }
  return {};
}

Result<void> ChangeEncoder::append_slowly(const Table& table, std::size_t column,
                                          const Field& field) {
  field_.clear();
  if (field.state == FieldState::kText) {
    auto appended = pgoutput::append_text_value(table.schema->columns[column], field.value, field_);
    if (!appended) [[unlikely]]
      return std::move(appended).error().context("table " + printable(table.schema->category));
  } else {
    MILLRACE_RETURN_IF_ERROR(append_binary(table, column, field.value, field_));
  }
  row_.append(field_);
  give_back(field_);
  return {};
}

Result<void> ChangeEncoder::append_binary(const Table& table, std::size_t column,
                                          std::string_view bytes, std::string& row) {
  const ColumnSchema& schema = table.schema->columns[column];
  const pgoutput::BinaryType type = table.plans[column].binary;
  if (!type.exact()) [[unlikely]]
    return Error(ErrorCode::kUnsupported,
                 "column " + printable(schema.name) + " of table " +
                     printable(table.schema->category) + " came in binary, and its type " +
                     printable(schema.type_name) + " is kept as PostgreSQL's text")
        .hint("Ask for text: leave out pgoutput's option binary.");
  auto appended = pgoutput::append_binary_value(schema, type, bytes, row);
  if (!appended) [[unlikely]]
    return std::move(appended).error().context("table " + printable(table.schema->category));
  return {};
}

/// A key is text, whichever way its values came.
Result<void> ChangeEncoder::append_key_text(const Table& table, std::size_t column,
                                            const Field& field, std::string& key) {
  std::string_view text = field.value;
  char number[pgoutput::kIntegerTextBytes];
  if (field.state == FieldState::kBinary) {
    const auto quick = pgoutput::text_of_binary(table.plans[column], field.value, number);
    if (quick) {
      text = *quick;
    } else {
      key_field_.clear();
      key_text_.clear();
      MILLRACE_RETURN_IF_ERROR(append_binary(table, column, field.value, key_field_));
      MILLRACE_RETURN_IF_ERROR(
          append_value_text(table.schema->columns[column], key_field_, key_text_));
      text = key_text_;
    }
  }
  if (table.key_columns.size() == 1)
    key += text;
  else
    append_escaped(key, text);
  give_back(key_field_);
  give_back(key_text_);
  return {};
}

Result<void> ChangeEncoder::write_key(const Table& table, const Tuple& tuple, const Tuple* older,
                                      std::string& key) {
  key.clear();
  give_back(key);
  for (std::size_t n = 0; n < table.key_columns.size(); ++n) {
    const std::size_t i = table.key_columns[n];
    const Field* field = value_of(tuple, older, i);
    if (field == nullptr) {
      return Error(ErrorCode::kUnsupported,
                   "the key of a changed row of table " + printable(table.schema->category) +
                       " is not known: the source did not send the large value of column " +
                       printable(table.schema->columns[i].name))
          .hint(
              "Update PostgreSQL to its latest minor version, or set REPLICA IDENTITY FULL on the "
              "table.");
    }
    if (n != 0) key += ',';
    if (field->state == FieldState::kNull)
      key += "\\N";
    else
      MILLRACE_RETURN_IF_ERROR(append_key_text(table, i, *field, key));
  }
  fold_long_key(key);
  return {};
}

Result<void> ChangeEncoder::hand_on(std::string_view category, std::string_view key,
                                    EventFlags flags) {
  auto added = out_.add({.category = category,
                         .key = key,
                         .type = {},
                         .payload = payload_,
                         .metadata = {},
                         .flags = flags});
  give_back(payload_);
  row_.give_back(kKeptBytesMax);
  return added;
}

Result<void> ChangeEncoder::add_row(int op, const Table& table, Lsn lsn, const Tuple& row) {
  MILLRACE_RETURN_IF_ERROR(encode_row(table, row, nullptr));
  MILLRACE_RETURN_IF_ERROR(write_key(table, row, nullptr, key_));
  start_payload(payload_, op, table.schema->version, lsn);
  append_sized(payload_, Change::kAfterFieldNumber, row_.view());
  return hand_on(table.schema->category, key_, EventFlags::kNone);
}

Result<void> ChangeEncoder::insert(const pgoutput::Insert& change, Lsn lsn) {
  if (OutboxTable* const outbox = outbox_of(change.relation_oid)) [[unlikely]]
    return outbox_row(*outbox, change.after, lsn);
  MILLRACE_ASSIGN_OR_RETURN(const Table* table, find(change.relation_oid, change.after.size()));
  return add_row(Change::CREATE, *table, lsn, change.after);
}

Result<void> ChangeEncoder::read(std::uint32_t relation_oid, const Tuple& row, Lsn lsn) {
  if (OutboxTable* const outbox = outbox_of(relation_oid)) [[unlikely]]
    return outbox_row(*outbox, row, lsn);
  MILLRACE_ASSIGN_OR_RETURN(const Table* table, find(relation_oid, row.size()));
  return add_row(Change::READ, *table, lsn, row);
}

/// The row as it was before a change, which the source may not send.
Result<RowState> ChangeEncoder::look_up(const Table& table, std::string_view key) {
  if (!table.from_history) return RowState{};
  return history_->latest(table.schema->category, key);
}

/// Adds the old row to payload_ if all of it is known; one that was told before a column came does
/// not have that column's value.
Result<bool> ChangeEncoder::append_known_row(const Table& table, const RowState& known) {
  if (!known.is_complete()) return false;
  if (known.schema != table.schema->version) {
    MILLRACE_ASSIGN_OR_RETURN(const auto schema,
                              schemas_.find(table.schema->category, known.schema));
    for (const ColumnSchema& column : table.schema->columns)
      if (schema->column_of_field(column.field) == nullptr) return false;
  }
  MILLRACE_ASSIGN_OR_RETURN(const std::string row,
                            row_of_columns(known.row, *table.schema, /*keys_only=*/false));
  append_sized(payload_, Change::kBeforeFieldNumber, row);
  return true;
}

Result<void> ChangeEncoder::add_delete(const Table& table, Lsn lsn, OldTuple kind,
                                       const Tuple& before, std::string_view key,
                                       const RowState& known) {
  start_payload(payload_, Change::DELETE, table.schema->version, lsn);
  MILLRACE_ASSIGN_OR_RETURN(const bool is_whole, append_known_row(table, known));
  if (!is_whole) {
    MILLRACE_RETURN_IF_ERROR(encode_row(table, before, nullptr));
    append_sized(payload_, Change::kBeforeFieldNumber, row_.view());
  }
  if (kind == OldTuple::kKey && !is_whole) {
    payload_ += static_cast<char>(tag(Change::kBeforeIsKeyFieldNumber, kVarint));
    payload_ += '\1';
  }
  return hand_on(table.schema->category, key, EventFlags::kTombstone);
}

Result<void> ChangeEncoder::remove(const pgoutput::Delete& change, Lsn lsn) {
  MILLRACE_ASSIGN_OR_RETURN(const Table* table, find(change.relation_oid, change.before.size()));
  MILLRACE_RETURN_IF_ERROR(write_key(*table, change.before, nullptr, key_));
  MILLRACE_ASSIGN_OR_RETURN(const RowState known, look_up(*table, key_));
  return add_delete(*table, lsn, change.old_kind, change.before, key_, known);
}

Result<void> ChangeEncoder::add_change(int op, const Table& table, Lsn lsn,
                                       const pgoutput::Update& change, bool with_before,
                                       std::optional<std::string_view> moved_from,
                                       const RowState& known) {
  start_payload(payload_, op, table.schema->version, lsn);
  bool is_whole = false;
  if (!moved_from) {
    MILLRACE_ASSIGN_OR_RETURN(is_whole, append_known_row(table, known));
  }
  if (with_before && !is_whole) {
    MILLRACE_RETURN_IF_ERROR(encode_row(table, change.before, nullptr));
    append_sized(payload_, Change::kBeforeFieldNumber, row_.view());
  }
  MILLRACE_RETURN_IF_ERROR(encode_row(table, change.after, &change.before, &known));
  append_sized(payload_, Change::kAfterFieldNumber, row_.view());
  if (with_before && !is_whole && change.old_kind == OldTuple::kKey) {
    payload_ += static_cast<char>(tag(Change::kBeforeIsKeyFieldNumber, kVarint));
    payload_ += '\1';
  }
  if (!unchanged_.empty()) append_sized(payload_, Change::kUnchangedFieldNumber, unchanged_);
  if (moved_from) append_sized(payload_, Change::kMovedFromFieldNumber, *moved_from);
  return hand_on(table.schema->category, key_,
                 unchanged_.empty() ? EventFlags::kNone : EventFlags::kPartial);
}

Result<void> ChangeEncoder::update(const pgoutput::Update& change, Lsn lsn) {
  MILLRACE_ASSIGN_OR_RETURN(const Table* table, find(change.relation_oid, change.after.size()));
  const bool has_before = change.old_kind != OldTuple::kNone;
  if (has_before && change.before.size() != change.after.size())
    return wrong_width(*table->schema, change.before.size());

  MILLRACE_RETURN_IF_ERROR(write_key(*table, change.after, &change.before, key_));
  // An old row is also sent where the key did not change: with REPLICA IDENTITY FULL, or for a
  // large key.
  if (has_before) MILLRACE_RETURN_IF_ERROR(write_key(*table, change.before, nullptr, old_key_));
  const bool moves = has_before && old_key_ != key_;
  MILLRACE_ASSIGN_OR_RETURN(const RowState known, look_up(*table, moves ? old_key_ : key_));
  if (!moves)
    return add_change(Change::UPDATE, *table, lsn, change, has_before, std::nullopt, known);
  MILLRACE_RETURN_IF_ERROR(
      add_delete(*table, lsn, change.old_kind, change.before, old_key_, known));
  return add_change(Change::CREATE, *table, lsn, change, false, old_key_, known);
}

Result<void> ChangeEncoder::truncate(const pgoutput::Truncate& change, Lsn lsn) {
  for (const std::uint32_t oid : change.relation_oids) {
    if (passes_over({&oid, 1})) continue;
    const TableSchema* schema = schema_of(oid);
    if (schema == nullptr)
      return Error(ErrorCode::kCorruption, "a TRUNCATE of table OID " + std::to_string(oid) +
                                               ", whose columns were never sent");
    start_payload(payload_, Change::TRUNCATE, schema->version, lsn);
    MILLRACE_RETURN_IF_ERROR(hand_on(schema->category, {}, EventFlags::kCategoryTombstone));
  }
  return {};
}

/// A row that is no event is kept as a message would be.
Result<void> ChangeEncoder::outbox_row(OutboxTable& outbox, const Tuple& row, Lsn lsn) {
  MILLRACE_RETURN_IF_ERROR(outbox.read(row));
  const auto address = outbox.address();
  const Result<void> checked =
      address ? application_.check(*address) : Result<void>(address.error());
  if (!checked) {
    const std::string& table = outbox.schema().category;
    application_.refuse("a row of outbox " + printable(table), checked.error());
    MILLRACE_ASSIGN_OR_RETURN(const std::string kept, outbox.as_json(row));
    return plain_message("outbox:" + table, kept, lsn);
  }
  const std::string metadata = outbox.metadata();
  return out_.add({.category = address->category,
                   .key = address->key,
                   .type = address->type,
                   .payload = outbox.payload(),
                   .metadata = metadata,
                   .flags = EventFlags::kNone,
                   .versioned = true});
}

Result<void> ChangeEncoder::message(const pgoutput::LogicalMessage& message, Lsn lsn) {
  if (message.prefix.starts_with(kEventMessagePrefix))
    if (const auto event = application_.event_of(message)) return out_.add(*event);
  return plain_message(message.prefix, message.content, lsn);
}

Result<void> ChangeEncoder::plain_message(std::string_view prefix, std::string_view content,
                                          Lsn lsn) {
  key_ = prefix;
  fold_long_key(key_);
  start_payload(payload_, Change::MESSAGE, 0, lsn);
  if (!prefix.empty()) append_sized(payload_, Change::kPrefixFieldNumber, prefix);
  if (!content.empty()) append_sized(payload_, Change::kContentFieldNumber, content);
  return hand_on(kMessagesCategory, key_, EventFlags::kNone);
}

}  // namespace millrace
