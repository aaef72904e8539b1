#include "schemas/storage/registry_file.h"

#include <set>

#include "base/bytes.h"
#include "base/checksum.h"
#include "millrace/v1/table_schema.pb.h"

namespace millrace::registry_file {
namespace {

constexpr std::string_view kMagic = "MILLSCHM";
constexpr std::uint32_t kFieldMax = (1u << 29) - 1;  // Protobuf's own limits on field numbers
constexpr std::uint32_t kFieldReservedFirst = 19'000, kFieldReservedLast = 19'999;

std::uint64_t check_of(std::string_view bytes, std::uint64_t position) {
  char place[12];
  store_le<std::uint64_t>(place, position);
  store_le<std::uint32_t>(place + 8, static_cast<std::uint32_t>(bytes.size()));
  return checksum(bytes, checksum(std::string_view(place, sizeof place)));
}

void append_item(std::string_view bytes, std::uint64_t position, std::string& out) {
  append_le<std::uint32_t>(out, static_cast<std::uint32_t>(bytes.size()));
  append_le<std::uint64_t>(out, check_of(bytes, position));
  out += bytes;
}

v1::TableSchema to_message(const TableSchema& schema) {
  v1::TableSchema message;
  message.set_category(schema.category);
  message.set_version(schema.version);
  message.set_schema_name(schema.schema_name);
  message.set_table_name(schema.table_name);
  message.set_relation_oid(schema.relation_oid);
  message.set_replica_identity(static_cast<std::uint8_t>(schema.replica_identity));
  message.set_source_lsn(schema.source_lsn);
  for (const ColumnSchema& column : schema.columns) {
    v1::TableSchema::Column& to = *message.add_columns();
    to.set_name(column.name);
    to.set_field(column.field);
    to.set_kind(static_cast<std::uint8_t>(column.kind));
    to.set_array(column.array);
    to.set_key(column.key);
    to.set_type_oid(column.type_oid);
    to.set_type_modifier(column.type_modifier);
    to.set_type_name(column.type_name);
  }
  for (const auto& [field, name] : schema.retired) {
    v1::TableSchema::Retired& to = *message.add_retired();
    to.set_field(field);
    to.set_name(name);
  }
  return message;
}

Result<TableSchema> from_message(const v1::TableSchema& message) {
  TableSchema schema{.category = message.category(),
                     .version = message.version(),
                     .schema_name = message.schema_name(),
                     .table_name = message.table_name(),
                     .relation_oid = message.relation_oid(),
                     .replica_identity = ReplicaIdentity{},
                     .columns = {},
                     .retired = {},
                     .source_lsn = message.source_lsn()};
  if (message.replica_identity() > 127)
    return Error(ErrorCode::kCorruption, "an unknown replica identity");
  schema.replica_identity = static_cast<ReplicaIdentity>(message.replica_identity());
  schema.columns.reserve(static_cast<std::size_t>(message.columns_size()));
  for (const v1::TableSchema::Column& column : message.columns()) {
    if (column.kind() > static_cast<std::uint8_t>(ValueKind::kExactText))
      return Error(ErrorCode::kUnsupported, "column \"" + printable(column.name()) +
                                                "\" has a kind of value that this version of "
                                                "millrace does not know")
          .hint("Use the version that wrote the store, or a newer one.");
    schema.columns.push_back({.name = column.name(),
                              .field = column.field(),
                              .kind = static_cast<ValueKind>(column.kind()),
                              .array = column.array(),
                              .key = column.key(),
                              .type_oid = column.type_oid(),
                              .type_modifier = column.type_modifier(),
                              .type_name = column.type_name()});
  }
  for (const v1::TableSchema::Retired& retired : message.retired())
    schema.retired.emplace_back(retired.field(), retired.name());
  return schema;
}

Result<TableSchema> decode_record(std::string_view bytes) {
  v1::TableSchema message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    return Error(ErrorCode::kCorruption, "not a table schema");
  MILLRACE_ASSIGN_OR_RETURN(TableSchema schema, from_message(message));
  if (auto fine = check_schema(schema); !fine)
    return Error(ErrorCode::kCorruption, fine.error().message());
  return schema;
}

/// The item that `bytes` start with: its content, or nothing if it is cut short or fails its check.
bool read_item(std::string_view bytes, std::uint64_t position, std::string_view& content) {
  if (bytes.size() < kItemHeaderBytes) return false;
  const std::uint32_t length = load_le<std::uint32_t>(bytes.data());
  if (length > kRecordBytesMax || length > bytes.size() - kItemHeaderBytes) return false;
  content = bytes.substr(kItemHeaderBytes, length);
  return load_le<std::uint64_t>(bytes.data() + 4) == check_of(content, position);
}

/// Whether a mark lies anywhere in `bytes`, which start at `position` in the file.
bool holds_mark(std::string_view bytes, std::uint64_t position) {
  for (std::size_t i = 0; i + kItemHeaderBytes <= bytes.size(); ++i) {
    std::string_view content;
    if (load_le<std::uint32_t>(bytes.data() + i) == 0 &&
        read_item(bytes.substr(i), position + i, content))
      return true;
  }
  return false;
}

Result<void> check_field(std::uint32_t field, std::set<std::uint32_t>& used) {
  if (field == 0 || field > kFieldMax ||
      (field >= kFieldReservedFirst && field <= kFieldReservedLast) || !used.insert(field).second)
    return Error(ErrorCode::kInvalidArgument,
                 "field number " + std::to_string(field) + " can't be, or is used twice");
  return {};
}

}  // namespace

Error damage(std::uint64_t position, std::string_view what) {
  return Error(ErrorCode::kCorruption,
               "byte " + std::to_string(position) + ": " + std::string(what))
      .hint(
          "Keep the store as it is, and restore this file from a copy: without it the events of "
          "the tables in it can't be read.");
}

std::string encode_header() {
  std::string header(kMagic);
  append_le<std::uint32_t>(header, kVersion);
  append_le<std::uint32_t>(header, 0);
  append_le<std::uint64_t>(header, checksum(header));
  return header;
}

Result<void> check_header(std::string_view bytes) {
  if (bytes.size() < kHeaderBytes || !bytes.starts_with(kMagic))
    return Error(ErrorCode::kCorruption, "byte 0: not a registry of table schemas");
  if (load_le<std::uint64_t>(bytes.data() + 16) != checksum(bytes.substr(0, 16)))
    return damage(0, "the header is damaged");
  const std::uint32_t version = load_le<std::uint32_t>(bytes.data() + 8);
  if (version == kVersion) return {};
  return Error(ErrorCode::kUnsupported, "format version " + std::to_string(version) +
                                            ", this millrace knows version " +
                                            std::to_string(kVersion))
      .hint("Use the version of millrace that wrote the store, or a newer one.");
}

Result<void> append_record(const TableSchema& schema, std::uint64_t position, std::string& out) {
  const std::string bytes = to_message(schema).SerializeAsString();
  if (bytes.empty() || bytes.size() > kRecordBytesMax)
    return Error(ErrorCode::kInvalidArgument, "the schema of " + printable(schema.category) +
                                                  " needs " + std::to_string(bytes.size()) +
                                                  " bytes, more than " +
                                                  std::to_string(kRecordBytesMax));
  append_item(bytes, position, out);
  return {};
}

void append_mark(std::uint64_t position, std::string& out) { append_item({}, position, out); }

Result<Scan> scan(std::string_view bytes, std::uint64_t position) {
  Scan result{.records = {}, .end = position, .mark = position, .marked = true};
  while (!bytes.empty()) {
    std::string_view content;
    if (!read_item(bytes, result.end, content)) {
      if (holds_mark(bytes, result.end)) return damage(result.end, "a table schema is damaged");
      break;
    }
    result.marked = content.empty();
    if (result.marked) {
      result.mark = result.end;
    } else {
      auto schema = decode_record(content);
      if (!schema && schema.error().code() == ErrorCode::kUnsupported)
        return std::move(schema).error();
      if (!schema) return damage(result.end, schema.error().message());
      result.records.push_back({result.end, *std::move(schema)});
    }
    result.end += kItemHeaderBytes + content.size();
    bytes.remove_prefix(kItemHeaderBytes + content.size());
  }
  return result;
}

Result<void> check_schema(const TableSchema& schema) {
  const auto wrong = [&](std::string_view what) {
    return Error(ErrorCode::kInvalidArgument,
                 "schema of \"" + printable(schema.category) + "\": " + std::string(what));
  };
  if (schema.category.empty()) return wrong("no category");
  if (schema.version == 0) return wrong("no version");
  const auto identity = static_cast<char>(schema.replica_identity);
  if (std::string_view("dnfi").find(identity) == std::string_view::npos)
    return wrong("an unknown replica identity");
  std::set<std::uint32_t> fields;
  std::set<std::string_view> names;
  for (const ColumnSchema& column : schema.columns) {
    if (!names.insert(column.name).second)
      return wrong("two columns \"" + printable(column.name) + "\"");
    if (column.kind < ValueKind::kBool || column.kind > ValueKind::kExactText)
      return wrong("column \"" + printable(column.name) + "\" has an unknown kind");
    if (auto fine = check_field(column.field, fields); !fine) return wrong(fine.error().message());
  }
  for (const auto& [field, name] : schema.retired)
    if (auto fine = check_field(field, fields); !fine) return wrong(fine.error().message());
  return {};
}

}  // namespace millrace::registry_file
